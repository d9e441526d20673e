//! What a picture is called on both sides: layouts and `VideoInfo`, formats, colorimetry.

use gst_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoFormat, VideoInfo,
    VideoTransferFunction,
};
use shrbuf::layout::{Layout, LayoutError, Plane};
use shrbuf::{Format, MemoryKind, Modifier, Shrbuf};

/// Of each pair the planes are in the same order, too.
const FORMATS: [(Format, VideoFormat); 19] = [
    (Format::Xr24, VideoFormat::Bgrx),
    (Format::Ar24, VideoFormat::Bgra),
    (Format::Xb24, VideoFormat::Rgbx),
    (Format::Ab24, VideoFormat::Rgba),
    (Format::Rg24, VideoFormat::Bgr),
    (Format::Bg24, VideoFormat::Rgb),
    (Format::Rg16, VideoFormat::Rgb16),
    (Format::Yuyv, VideoFormat::Yuy2),
    (Format::Uyvy, VideoFormat::Uyvy),
    (Format::Yvyu, VideoFormat::Yvyu),
    (Format::Vyuy, VideoFormat::Vyuy),
    (Format::Nv12, VideoFormat::Nv12),
    (Format::Nv21, VideoFormat::Nv21),
    (Format::Nv16, VideoFormat::Nv16),
    (Format::Yu12, VideoFormat::I420),
    (Format::Yv12, VideoFormat::Yv12),
    (Format::Yu16, VideoFormat::Y42b),
    (Format::Yu24, VideoFormat::Y444),
    (Format::Grey, VideoFormat::Gray8),
];

/// Caps features of frames in dma-bufs, for elements that insist on being told.
pub(crate) const DMA_BUF: &str = "memory:DMABuf";

/// What one side has and the other cannot say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VideoError {
    #[error("GStreamer 1.22 has no name for the format {0} that elements here take; ask the producer for another")]
    NoFormat(Format),
    #[error("shrbuf has no name for the format {0}; put a videoconvert before")]
    NoFourcc(VideoFormat),
    #[cfg(feature = "v1_24")]
    #[error("shrbuf has no name for the format {0} of DMA_DRM caps; ask upstream for another")]
    NoDrm(String),
    #[error("the producer's pictures are laid out as {0}, which video/x-raw cannot say; ask it for LINEAR")]
    Tiled(Modifier),
    #[error("the producer's buffers are of several formats, sizes or kinds")]
    Unlike,
    #[error("{0}")]
    Layout(#[from] LayoutError),
    #[error("{0}")]
    Gst(#[from] gst::glib::BoolError),
}

/// A format and modifier as DMA_DRM caps name them, in place of one of GStreamer's formats.
pub(crate) type Drm = (Format, Modifier);

/// What DMA_DRM caps name; `None` where they are others.
///
/// # Errors
/// [`VideoError::NoDrm`] where they name what is no format here.
#[cfg(feature = "v1_24")]
pub(crate) fn drm_of(caps: &gst::CapsRef) -> Result<Option<Drm>, VideoError> {
    if !gst_video::is_dma_drm_caps(caps) {
        return Ok(None);
    }
    let info = gst_video::VideoInfoDmaDrm::from_caps(caps)?;
    let format = Format::from_drm(info.fourcc());
    let format = format.ok_or_else(|| VideoError::NoDrm(shrbuf::format::fourcc_name(info.fourcc())))?;
    Ok(Some((format, Modifier(info.modifier()))))
}

/// GStreamer before 1.24 has no such caps.
#[cfg(not(feature = "v1_24"))]
pub(crate) fn drm_of(_: &gst::CapsRef) -> Result<Option<Drm>, VideoError> {
    Ok(None)
}

/// DMA_DRM caps for such dma-bufs.
#[cfg(feature = "v1_24")]
fn drm_caps(layout: &Layout, rate: gst::Fraction) -> Option<gst::Caps> {
    let modifier = layout.modifier.unwrap_or(Modifier::LINEAR);
    let name = gst_video::dma_drm_fourcc_to_string(layout.format.drm()?, modifier.0);
    let size = |n: u32| i32::try_from(n).ok();
    let caps =
        gst::Caps::builder("video/x-raw").features([DMA_BUF]).field("format", "DMA_DRM").field("drm-format", name);
    Some(
        caps.field("width", size(layout.width)?).field("height", size(layout.height)?).field("framerate", rate).build(),
    )
}

/// GStreamer before 1.24 has none.
#[cfg(not(feature = "v1_24"))]
fn drm_caps(_: &Layout, _: gst::Fraction) -> Option<gst::Caps> {
    None
}

/// Where the planes of a producer's buffers lie, as `GstVideoMeta` says it.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) info: VideoInfo,
    /// GStreamer has a format for them, which `info` says.
    pub(crate) plain: bool,
    /// The caps that name format and modifier as the kernel does, of dma-bufs.
    pub(crate) drm: Option<gst::Caps>,
    pub(crate) offsets: Vec<usize>,
    pub(crate) strides: Vec<i32>,
    /// Bytes of each segment that are memory of the frame.
    pub(crate) sizes: Vec<usize>,
}

impl Picture {
    /// What these buffers are, which must be alike, at a rate where one is known.
    pub(crate) fn of(buffers: &[Shrbuf], rate: Option<(u32, u32)>) -> Result<Picture, VideoError> {
        let first = buffers.first().ok_or(VideoError::Unlike)?;
        if buffers.iter().any(|b| b.layout() != first.layout() || b.kind() != first.kind()) {
            return Err(VideoError::Unlike);
        }
        let layout = first.layout();
        let rate = rate.and_then(|(num, den)| Some((i32::try_from(num).ok()?, i32::try_from(den).ok()?)));
        let rate = rate.filter(|(num, den)| *num > 0 && *den > 0).map_or(gst::Fraction::new(0, 1), gst::Fraction::from);
        let drm = if first.kind() == MemoryKind::DmaBuf { drm_caps(layout, rate) } else { None };
        let known = FORMATS.iter().find(|(ours, _)| *ours == layout.format).map(|(_, theirs)| *theirs);
        let tiled = layout.modifier.filter(|_| !layout.is_linear());
        let (plain, info) = match (known, tiled, &drm) {
            (Some(format), None, _) => {
                (true, VideoInfo::builder(format, layout.width, layout.height).fps(rate).build()?)
            }
            (_, _, Some(drm)) => (false, VideoInfo::from_caps(drm)?),
            (_, Some(modifier), _) => return Err(VideoError::Tiled(modifier)),
            _ => return Err(VideoError::NoFormat(layout.format)),
        };
        let smallest = |s: usize| buffers.iter().map(|b| b.segments()[s].size()).min().unwrap_or(0);
        // Padding behind the last row belongs to the frame where there is room for it: elements without GstVideoMeta
        // count on it.
        let sizes = (0..layout.segments()).map(|s| layout.segment_size(s).min(smallest(s)) as usize);
        let sizes: Vec<usize> = sizes.collect();
        let before = |segment: u8| sizes[..usize::from(segment)].iter().sum::<usize>();
        let offsets = layout.planes().iter().map(|p| before(p.segment) + p.offset as usize).collect();
        let stride = |p: &Plane| i32::try_from(p.stride).map_err(|_| too_wide(layout));
        let strides = layout.planes().iter().map(stride).collect::<Result<_, _>>()?;
        Ok(Picture { info, plain, drm, offsets, strides, sizes })
    }

    /// True where elements that do not look at `GstVideoMeta` find the planes.
    pub(crate) fn is_usual(&self) -> bool {
        let usual = (self.info.offset(), self.info.stride());
        usual == (&self.offsets[..], &self.strides[..]) && self.sizes.iter().sum::<usize>() == self.info.size()
    }
}

fn too_wide(l: &Layout) -> LayoutError {
    LayoutError::TooLarge { format: l.format, width: l.width, height: l.height, align: 1 }
}

/// The layout of frames as GStreamer lays them out by default, in one segment.
pub(crate) fn layout(info: &VideoInfo) -> Result<Layout, VideoError> {
    let plane = |(&offset, &stride): (&usize, &i32)| {
        let number =
            |n: usize| u32::try_from(n).map_err(|_| LayoutError::Size { width: info.width(), height: info.height() });
        Ok(Plane { segment: 0, offset: number(offset)?, stride: number(stride.max(0) as usize)? })
    };
    let planes = info.offset().iter().zip(info.stride()).map(plane).collect::<Result<Vec<_>, LayoutError>>()?;
    layout_of(info, None, &planes)
}

/// The layout of frames whose planes lie there.
pub(crate) fn layout_of(info: &VideoInfo, drm: Option<Drm>, planes: &[Plane]) -> Result<Layout, VideoError> {
    let known = FORMATS.iter().find(|(_, theirs)| *theirs == info.format()).map(|(ours, _)| (*ours, Modifier::LINEAR));
    let (format, modifier) = drm.or(known).ok_or(VideoError::NoFourcc(info.format()))?;
    Ok(Layout::new(format, Some(modifier), info.width(), info.height(), planes)?)
}

/// Every format that both sides know.
pub(crate) fn plain() -> gst::Caps {
    gst_video::VideoCapsBuilder::new().format_list(FORMATS.map(|(_, theirs)| theirs)).build()
}

/// The same, with and without [`DMA_BUF`], and DMA_DRM where there is such a thing.
pub(crate) fn template() -> gst::Caps {
    let mut all = plain();
    all.merge(with_dma_buf(plain()));
    if cfg!(feature = "v1_24") {
        let size = || gst::IntRange::new(1, i32::MAX);
        let drm = gst::Caps::builder("video/x-raw").features([DMA_BUF]).field("format", "DMA_DRM");
        all.merge(drm.field("width", size()).field("height", size()).build());
    }
    all
}

/// The same with [`DMA_BUF`].
pub(crate) fn with_dma_buf(mut caps: gst::Caps) -> gst::Caps {
    let all = caps.make_mut();
    (0..all.size()).for_each(|at| all.set_features(at, Some(gst::CapsFeatures::new([DMA_BUF]))));
    caps
}

/// MatrixCoefficients of ITU-T H.273, and what usually goes with them.
const MATRICES: [(u8, VideoColorMatrix, VideoTransferFunction, VideoColorPrimaries); 3] = [
    (6, VideoColorMatrix::Bt601, VideoTransferFunction::Bt601, VideoColorPrimaries::Smpte170m),
    (1, VideoColorMatrix::Bt709, VideoTransferFunction::Bt709, VideoColorPrimaries::Bt709),
    (9, VideoColorMatrix::Bt2020, VideoTransferFunction::Bt202012, VideoColorPrimaries::Bt2020),
];

/// `matrix` and `full_range` of frames with this colorimetry.
pub(crate) fn h273(colorimetry: &VideoColorimetry) -> (u8, bool) {
    let matrix = MATRICES.iter().find(|m| m.1 == colorimetry.matrix()).map_or(2, |m| m.0);
    (matrix, colorimetry.range() == VideoColorRange::Range0_255)
}

/// The colorimetry of frames that say so; `None` where they do not know.
pub(crate) fn colorimetry(matrix: u8, full_range: bool) -> Option<VideoColorimetry> {
    let range = if full_range { VideoColorRange::Range0_255 } else { VideoColorRange::Range16_235 };
    let known = MATRICES.iter().find(|m| m.0 == matrix);
    known.map(|&(_, matrix, transfer, primaries)| VideoColorimetry::new(range, matrix, transfer, primaries))
}

#[cfg(all(test, feature = "v1_24"))]
mod tests {
    use super::*;

    /// AMD's 64K_S tiles: of a real device's modifiers, one with parameters in it.
    const TILED: Modifier = Modifier(0x0200_0000_0000_0901);

    fn layout(format: Format, modifier: Modifier) -> Layout {
        let plane = |offset| Plane { segment: 0, offset, stride: 256 };
        let planes = [plane(0), plane(256 * 64)];
        Layout::new(format, Some(modifier), 64, 48, &planes[..format.planes().len()]).unwrap()
    }

    #[test]
    fn drm_caps_name_format_and_modifier_both_ways() {
        gst::init().unwrap();
        for (format, modifier) in [(Format::Xr24, Modifier::LINEAR), (Format::Xr24, TILED), (Format::Nv12, TILED)] {
            let caps = drm_caps(&layout(format, modifier), gst::Fraction::new(25, 1)).unwrap();
            assert_eq!(drm_of(&caps).unwrap(), Some((format, modifier)), "{caps}");
            assert!(caps.can_intersect(&template()), "{caps}");
            let info = VideoInfo::from_caps(&caps).unwrap();
            assert_eq!((info.format(), info.width(), info.height()), (VideoFormat::DmaDrm, 64, 48));
            let plane = Plane { segment: 0, offset: 0, stride: 256 };
            let planes = [plane, Plane { offset: 256 * 64, ..plane }];
            let again = layout_of(&info, Some((format, modifier)), &planes[..format.planes().len()]).unwrap();
            assert_eq!(again, layout(format, modifier));
        }
    }

    #[test]
    fn format_that_nobody_here_knows_is_named() {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-raw").features([DMA_BUF]).field("format", "DMA_DRM");
        let caps = caps.field("drm-format", "AB4H").field("width", 64).field("height", 48).build();
        let error = drm_of(&caps).unwrap_err().to_string();
        assert!(error.contains("AB4H"), "{error}");
        assert_eq!(drm_of(&plain()).unwrap(), None);
    }
}
