//! Frames in dma-bufs, as caps say it to elements that insist on being told: with the feature `memory:DMABuf`, and from
//! GStreamer 1.24 on (cargo feature `v1_24`) as DMA_DRM, which names format and modifier as the kernel does.

use gst::glib;
use gst_video::VideoInfo;
use shrbuf::{Format, Modifier};

use crate::video;

/// Caps feature of frames in dma-bufs.
pub const FEATURE: &str = "memory:DMABuf";

/// A format and modifier as DMA_DRM caps name them, in place of one of GStreamer's formats.
pub type Drm = (Format, Modifier);

/// Why caps do not say what frames are.
#[derive(Debug, thiserror::Error)]
pub enum CapsError {
    /// DMA_DRM caps of what is no format here.
    #[error("shrbuf has no name for the format {0} of DMA_DRM caps; ask upstream for another")]
    NoFormat(String),
    /// DMA_DRM caps of what GStreamer has no name for in other caps.
    #[error("GStreamer has no name for {0} laid out as {1} but DMA_DRM; ask upstream for LINEAR")]
    DrmOnly(Format, Modifier),
    /// In GStreamer's words.
    #[error("{0}")]
    Gst(#[from] glib::BoolError),
}

/// What DMA_DRM caps name; `None` where they are others.
///
/// # Errors
/// [`CapsError::NoFormat`] where they name what is no format here.
#[cfg(feature = "v1_24")]
pub fn drm_of(caps: &gst::CapsRef) -> Result<Option<Drm>, CapsError> {
    if !gst_video::is_dma_drm_caps(caps) {
        return Ok(None);
    }
    let info = gst_video::VideoInfoDmaDrm::from_caps(caps)?;
    let format = Format::from_drm(info.fourcc());
    let format = format.ok_or_else(|| CapsError::NoFormat(shrbuf::format::fourcc_name(info.fourcc())))?;
    Ok(Some((format, Modifier(info.modifier()))))
}

/// GStreamer before 1.24 has no such caps.
///
/// # Errors
/// None.
#[cfg(not(feature = "v1_24"))]
pub fn drm_of(_: &gst::CapsRef) -> Result<Option<Drm>, CapsError> {
    Ok(None)
}

/// The format of frames of these caps, whichever way they say it, with the planes of linear ones where GStreamer has
/// them by default.
///
/// # Errors
/// They are no caps of raw video, or such as only DMA_DRM can say.
pub fn info(caps: &gst::CapsRef) -> Result<VideoInfo, CapsError> {
    let info = VideoInfo::from_caps(caps)?;
    let Some((format, modifier)) = drm_of(caps)? else { return Ok(info) };
    let theirs = video::theirs(format).filter(|_| modifier == Modifier::LINEAR);
    let theirs = theirs.ok_or(CapsError::DrmOnly(format, modifier))?;
    let plain = VideoInfo::builder(theirs, info.width(), info.height()).fps(info.fps());
    Ok(plain.colorimetry(&info.colorimetry()).build()?)
}

/// The linear ones of the formats that DMA_DRM caps say; `None` where they are others.
#[cfg(feature = "v1_24")]
pub(crate) fn formats_of(structure: &gst::StructureRef) -> Option<Vec<Format>> {
    if video::said(structure, "format")? != ["DMA_DRM"] {
        return None;
    }
    let linear = |name: &String| {
        let (fourcc, modifier) = gst_video::dma_drm_fourcc_from_str(name).ok()?;
        Format::from_drm(fourcc).filter(|f| Modifier(modifier) == Modifier::LINEAR && video::theirs(*f).is_some())
    };
    Some(video::said(structure, "drm-format")?.iter().filter_map(linear).collect())
}

/// GStreamer before 1.24 has none.
#[cfg(not(feature = "v1_24"))]
pub(crate) fn formats_of(_: &gst::StructureRef) -> Option<Vec<Format>> {
    None
}

/// The same caps with [`FEATURE`].
pub fn with_feature(mut caps: gst::Caps) -> gst::Caps {
    let all = caps.make_mut();
    (0..all.size()).for_each(|at| all.set_features(at, Some(gst::CapsFeatures::new([FEATURE]))));
    caps
}

/// DMA_DRM caps of linear frames that plain caps say the same of.
#[cfg(feature = "v1_24")]
pub fn as_drm(plain: &gst::CapsRef) -> gst::Caps {
    let mut drm = gst::Caps::new_empty();
    for structure in plain.iter() {
        let linear = |format: Format| Some(name(format.drm()?, Modifier::LINEAR));
        let mut names: Vec<_> = video::formats_of(structure).into_iter().filter_map(linear).collect();
        let mut structure = structure.to_owned();
        structure.set("format", "DMA_DRM");
        match (names.pop(), names.is_empty()) {
            (Some(only), true) => structure.set("drm-format", only),
            (Some(last), false) => structure.set("drm-format", gst::List::new(names.into_iter().chain([last]))),
            (None, _) => continue,
        }
        drm.make_mut().append_structure_full(structure, Some(gst::CapsFeatures::new([FEATURE])));
    }
    drm
}

/// GStreamer before 1.24 has none.
#[cfg(not(feature = "v1_24"))]
pub fn as_drm(_: &gst::CapsRef) -> gst::Caps {
    gst::Caps::new_empty()
}

/// What DMA_DRM caps call that.
#[cfg(feature = "v1_24")]
pub fn name(fourcc: u32, modifier: Modifier) -> String {
    gst_video::dma_drm_fourcc_to_string(fourcc, modifier.0).into()
}

/// Every way in which caps say that the frames of these plain caps are in linear dma-bufs.
pub fn caps(plain: &gst::Caps) -> gst::Caps {
    let mut all = as_drm(plain);
    all.merge(with_feature(plain.clone()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> gst::Caps {
        gst::init().unwrap();
        VideoInfo::builder(gst_video::VideoFormat::Nv12, 64, 48)
            .fps(gst::Fraction::new(25, 1))
            .build()
            .unwrap()
            .to_caps()
            .unwrap()
    }

    #[test]
    fn frames_are_the_same_whichever_way_caps_say_it() {
        let plain = plain();
        let all = caps(&plain);
        assert_eq!(all.size(), if cfg!(feature = "v1_24") { 2 } else { 1 }, "{all}");
        let what = |caps: &gst::CapsRef| {
            let info = info(caps).unwrap();
            let planes = (info.offset().to_vec(), info.stride().to_vec(), info.size());
            (info.format(), info.width(), info.height(), info.fps(), info.colorimetry(), planes)
        };
        for one in [as_drm(&plain), with_feature(plain.clone())].iter().filter(|one| !one.is_empty()) {
            assert!(one.is_subset(&all) && one.features(0).unwrap().contains(FEATURE), "{one}");
            assert_eq!(what(one), what(&plain), "{one}");
            assert_eq!(video::formats_of(one.structure(0).unwrap()), [Format::Nv12], "{one}");
        }
        assert!(!all.can_intersect(&plain), "{all}");
    }

    #[test]
    #[cfg(feature = "v1_24")]
    fn tiles_have_no_name_but_that_of_drm() {
        let mut caps = as_drm(&plain());
        caps.make_mut().set("drm-format", name(Format::Nv12.drm().unwrap(), Modifier(0x0200_0000_0000_0901)));
        assert!(matches!(info(&caps), Err(CapsError::DrmOnly(Format::Nv12, _))), "{caps}");
    }
}
