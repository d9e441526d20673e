//! What a picture is called on both sides: formats, layouts and `VideoInfo`, colorimetry.

use gst_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoFormat, VideoInfo,
    VideoTransferFunction,
};
use shrbuf::layout::{Layout, LayoutError, Plane};
use shrbuf::{Family, Format, Modifier, Shrbuf};
use shrbuf_pipeline::{Colorimetry, Matrix, Range, Rate, Size};

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

/// What one side has and the other cannot say.
#[derive(Debug, thiserror::Error)]
pub(super) enum VideoError {
    #[error("GStreamer has no name for {0}")]
    NoFormat(Format),
    #[error("pictures laid out as {0} cannot be passed to GStreamer, only linear ones")]
    Tiled(Modifier),
    #[error("the buffers are of several formats, sizes or kinds")]
    Unlike,
    #[error("{0}")]
    Layout(#[from] LayoutError),
    #[error("{0}")]
    Gst(#[from] gst::glib::BoolError),
}

/// GStreamer's name.
pub(super) fn theirs(format: Format) -> Result<VideoFormat, VideoError> {
    let found = FORMATS.iter().find(|(ours, _)| *ours == format).map(|(_, theirs)| *theirs);
    found.ok_or(VideoError::NoFormat(format))
}

/// Our name, by GStreamer's as caps have it.
pub(super) fn ours(name: &str) -> Option<Format> {
    FORMATS.iter().find(|(_, theirs)| theirs.to_str() == name).map(|(ours, _)| *ours)
}

/// Every format that both sides know.
pub(super) fn formats() -> impl Iterator<Item = Format> {
    FORMATS.iter().map(|(ours, _)| *ours)
}

/// Caps of every format that both sides know.
pub(super) fn template() -> gst::Caps {
    gst_video::VideoCapsBuilder::new().format_list(FORMATS.map(|(_, theirs)| theirs)).build()
}

/// Frames of this format, size and rate; their rows are padded as GStreamer does by default.
pub(super) fn info(
    format: Format,
    size: Size,
    rate: Option<Rate>,
    color: Option<Colorimetry>,
) -> Result<VideoInfo, VideoError> {
    let color = color.filter(|_| matches!(format.family(), Family::Yuv)).map(colorimetry);
    let fraction = |rate: Rate| Some((i32::try_from(rate.num).ok()?, i32::try_from(rate.den).ok()?));
    let fps = rate.and_then(fraction).map_or(gst::Fraction::new(0, 1), gst::Fraction::from);
    let builder = VideoInfo::builder(theirs(format)?, size.width, size.height).fps(fps);
    Ok(builder.colorimetry_if_some(color.as_ref()).build()?)
}

/// Caps of such frames that leave open what is not known: the rate, the colorimetry.
pub(super) fn caps(format: Format, size: Size, rate: Option<Rate>) -> Result<gst::Caps, VideoError> {
    let (width, height) = (size.width.min(i32::MAX as u32) as i32, size.height.min(i32::MAX as u32) as i32);
    let caps = gst_video::VideoCapsBuilder::new().format(theirs(format)?).width(width).height(height);
    let fraction = |rate: Rate| Some(gst::Fraction::new(i32::try_from(rate.num).ok()?, i32::try_from(rate.den).ok()?));
    Ok(match rate.and_then(fraction) {
        Some(rate) => caps.framerate(rate).build(),
        None => caps.build(),
    })
}

/// The layout of frames as GStreamer lays them out by default, in one segment.
pub(super) fn layout(format: Format, info: &VideoInfo) -> Result<Layout, VideoError> {
    let plane = |(&offset, &stride): (&usize, &i32)| {
        let number =
            |n: usize| u32::try_from(n).map_err(|_| LayoutError::Size { width: info.width(), height: info.height() });
        Ok(Plane { segment: 0, offset: number(offset)?, stride: number(stride.max(0) as usize)? })
    };
    let planes = info.offset().iter().zip(info.stride()).map(plane).collect::<Result<Vec<_>, LayoutError>>()?;
    Ok(Layout::new(format, Some(Modifier::LINEAR), info.width(), info.height(), &planes)?)
}

/// Where the planes of buffers lie, as `GstVideoMeta` says it.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    pub(super) info: VideoInfo,
    pub(super) offsets: Vec<usize>,
    pub(super) strides: Vec<i32>,
    /// Bytes of each segment that are memory of the frame.
    pub(super) sizes: Vec<usize>,
}

impl Picture {
    /// What these buffers are, which must be alike.
    pub(super) fn of(buffers: &[Shrbuf]) -> Result<Picture, VideoError> {
        let first = buffers.first().ok_or(VideoError::Unlike)?;
        if buffers.iter().any(|b| b.layout() != first.layout() || b.kind() != first.kind()) {
            return Err(VideoError::Unlike);
        }
        let layout = first.layout();
        if let Some(modifier) = layout.modifier.filter(|_| !layout.is_linear()) {
            return Err(VideoError::Tiled(modifier));
        }
        let info = info(layout.format, Size::new(layout.width, layout.height), None, None)?;
        let smallest = |s: usize| buffers.iter().map(|b| b.segments()[s].size()).min().unwrap_or(0);
        // Padding behind the last row belongs to the frame where there is room for it: elements without GstVideoMeta
        // count on it.
        let sizes = (0..layout.segments()).map(|s| layout.segment_size(s).min(smallest(s)) as usize);
        let sizes: Vec<usize> = sizes.collect();
        let before = |segment: u8| sizes[..usize::from(segment)].iter().sum::<usize>();
        let offsets = layout.planes().iter().map(|p| before(p.segment) + p.offset as usize).collect();
        let too_wide = |p: &Plane| LayoutError::TooLarge {
            format: layout.format,
            width: layout.width,
            height: layout.height,
            align: p.stride,
        };
        let stride = |p: &Plane| i32::try_from(p.stride).map_err(|_| too_wide(p));
        let strides = layout.planes().iter().map(stride).collect::<Result<_, _>>()?;
        Ok(Picture { info, offsets, strides, sizes })
    }

    /// True where elements that do not look at `GstVideoMeta` find the planes.
    pub(super) fn is_usual(&self) -> bool {
        let usual = (self.info.offset(), self.info.stride());
        usual == (&self.offsets[..], &self.strides[..]) && self.sizes.iter().sum::<usize>() >= self.info.size()
    }
}

const MATRICES: [(Matrix, VideoColorMatrix, VideoTransferFunction, VideoColorPrimaries); 3] = [
    (Matrix::Bt601, VideoColorMatrix::Bt601, VideoTransferFunction::Bt601, VideoColorPrimaries::Smpte170m),
    (Matrix::Bt709, VideoColorMatrix::Bt709, VideoTransferFunction::Bt709, VideoColorPrimaries::Bt709),
    (Matrix::Bt2020, VideoColorMatrix::Bt2020, VideoTransferFunction::Bt202012, VideoColorPrimaries::Bt2020),
];

fn colorimetry(color: Colorimetry) -> VideoColorimetry {
    let range = match color.range {
        Range::Full => VideoColorRange::Range0_255,
        Range::Limited => VideoColorRange::Range16_235,
    };
    let known = MATRICES.iter().find(|m| m.0 == color.matrix).unwrap_or(&MATRICES[0]);
    VideoColorimetry::new(range, known.1, known.2, known.3)
}

/// What frames say of themselves; of what they do not know, the usual.
pub(super) fn color(info: &VideoInfo) -> Colorimetry {
    let colorimetry = info.colorimetry();
    let matrix = MATRICES.iter().find(|m| m.1 == colorimetry.matrix()).map_or(Matrix::default(), |m| m.0);
    let range = if colorimetry.range() == VideoColorRange::Range0_255 { Range::Full } else { Range::Limited };
    Colorimetry { matrix, range }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_its_name_layout_and_planes_on_both_sides() {
        gst::init().unwrap();
        for format in formats() {
            let info = info(format, Size::new(322, 242), Some(Rate::new(30, 1)), None).unwrap();
            let layout = layout(format, &info).unwrap();
            assert_eq!(ours(info.format().to_str()), Some(format));
            assert_eq!(layout.planes().len(), info.n_planes() as usize, "{format}");
            assert!(layout.segment_bytes(0) <= info.size() as u64, "{format}");
        }
    }

    #[test]
    fn colorimetry_goes_there_and_back() {
        gst::init().unwrap();
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
            for range in [Range::Full, Range::Limited] {
                let there = info(Format::Nv12, Size::new(64, 48), None, Some(Colorimetry { matrix, range })).unwrap();
                let back = VideoInfo::from_caps(&there.to_caps().unwrap()).unwrap();
                assert_eq!(color(&back), Colorimetry { matrix, range });
            }
        }
    }
}
