//! What a picture is called on both sides, DMA_DRM caps and all.

use gst_video::{VideoFormat, VideoInfo};
use shrbuf::layout::{Layout, LayoutError};
use shrbuf::{Format, MemoryKind, Modifier, Shrbuf};
pub(crate) use shrbuf_gst_memory::dma_buf::{Drm, FEATURE as DMA_BUF, drm_of, with_feature as with_dma_buf};
use shrbuf_gst_memory::video::{self, Planes, PlanesError};
pub(crate) use shrbuf_gst_memory::video::{caps as plain, colorimetry, h273};

/// What says of pictures how they are laid out.
const NAMED: &str = if cfg!(feature = "v1_24") {
    "for dma-bufs, which have DMA_DRM caps"
} else {
    "have a plugin with DMA_DRM caps, which GStreamer has from 1.24 on (cargo feature `v1_24`)"
};

/// What one side has and the other cannot say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VideoError {
    #[error("GStreamer 1.22 has no name for the format {0} that elements here take; ask the producer for another")]
    NoFormat(Format),
    #[error("shrbuf has no name for the format {0}; put a videoconvert before")]
    NoFourcc(VideoFormat),
    #[error("the producer's pictures are laid out as {0}, which video/x-raw cannot say; ask it for LINEAR, or {NAMED}")]
    Tiled(Modifier),
    #[error("{0}")]
    Planes(#[from] PlanesError),
    #[error("{0}")]
    Layout(#[from] LayoutError),
    #[error("{0}")]
    Gst(#[from] gst::glib::BoolError),
}

/// DMA_DRM caps for such dma-bufs.
#[cfg(feature = "v1_24")]
fn drm_caps(layout: &Layout, rate: gst::Fraction) -> Option<gst::Caps> {
    let modifier = layout.modifier.unwrap_or(Modifier::LINEAR);
    let name = shrbuf_gst_memory::dma_buf::name(layout.format.drm()?, modifier);
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

/// What a producer's buffers are.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) planes: Planes,
    /// GStreamer has a format for them, which the `info` of `planes` says.
    pub(crate) plain: bool,
    /// The caps that name format and modifier as the kernel does, of dma-bufs.
    pub(crate) drm: Option<gst::Caps>,
}

impl Picture {
    /// Of these buffers, which must be alike, at a rate where one is known.
    pub(crate) fn of(buffers: &[Shrbuf], rate: Option<(u32, u32)>) -> Result<Picture, VideoError> {
        let first = video::alike(buffers)?;
        let layout = first.layout();
        let rate = rate.and_then(|(num, den)| Some((i32::try_from(num).ok()?, i32::try_from(den).ok()?)));
        let rate = rate.filter(|(num, den)| *num > 0 && *den > 0).map_or(gst::Fraction::new(0, 1), gst::Fraction::from);
        let drm = if first.kind() == MemoryKind::DmaBuf { drm_caps(layout, rate) } else { None };
        let tiled = layout.modifier.filter(|_| !layout.is_linear());
        let (plain, info) = match (video::theirs(layout.format), tiled, &drm) {
            (Some(format), None, _) => {
                (true, VideoInfo::builder(format, layout.width, layout.height).fps(rate).build()?)
            }
            (_, _, Some(drm)) => (false, VideoInfo::from_caps(drm)?),
            (_, Some(modifier), _) => return Err(VideoError::Tiled(modifier)),
            _ => return Err(VideoError::NoFormat(layout.format)),
        };
        Ok(Picture { planes: Planes::of(buffers, info)?, plain, drm })
    }

    /// True where elements that do not look at `GstVideoMeta` find the planes, and nothing behind them.
    pub(crate) fn is_usual(&self) -> bool {
        self.planes.are_usual() && self.planes.size() == self.planes.info.size()
    }
}

/// The layout of frames as GStreamer lays them out by default, in one segment.
pub(crate) fn layout(info: &VideoInfo) -> Result<Layout, VideoError> {
    let format = video::ours(info.format()).ok_or(VideoError::NoFourcc(info.format()))?;
    Ok(video::layout(format, info)?)
}

/// Caps of every format that both sides know, with and without [`DMA_BUF`], and DMA_DRM where there is such a thing.
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

#[cfg(all(test, feature = "v1_24"))]
mod tests {
    use shrbuf::layout::Plane;

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
            let again = video::layout_of(&info, Some((format, modifier)), &planes[..format.planes().len()]).unwrap();
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
