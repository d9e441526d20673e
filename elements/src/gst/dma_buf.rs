//! Which caps frames have: plain ones, or such as say that they are in dma-bufs, for elements that insist on that.

use gst::prelude::*;
use gst::{CapsIntersectMode, PadDirection};
use shrbuf::MemoryKind;
use shrbuf_gst_memory::{dma_buf, video};

use super::message::name_of;

/// What caps call frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Called {
    /// By their format alone: any memory.
    Plain,
    /// With the feature `memory:DMABuf`.
    DmaBuf,
    /// The same, and by the kernel's name of the format.
    Drm,
}

impl Called {
    /// What the caps of a pad have first, of all that frames with these plain caps in such memory can be called.
    pub(super) fn first_of(caps: &gst::Caps, plain: &gst::Caps, kind: MemoryKind) -> Option<Called> {
        let ours = match kind {
            MemoryKind::Memfd => plain.clone(),
            MemoryKind::DmaBuf => with_dma_bufs(plain),
        };
        let common = caps.intersect_with_mode(&ours, CapsIntersectMode::First);
        let (structure, features) = common.iter_with_features().next()?;
        Some(match (features.contains(dma_buf::FEATURE), structure.get("format")) {
            (false, _) => Called::Plain,
            (true, Ok("DMA_DRM")) => Called::Drm,
            (true, _) => Called::DmaBuf,
        })
    }

    /// The caps of frames with these plain ones.
    pub(super) fn caps(self, plain: gst::Caps) -> gst::Caps {
        match self {
            Called::Plain => plain,
            Called::DmaBuf => dma_buf::with_feature(plain),
            Called::Drm => dma_buf::as_drm(&plain),
        }
    }
}

/// These plain caps, and the same in dma-bufs.
fn with_dma_bufs(plain: &gst::Caps) -> gst::Caps {
    let mut all = plain.clone();
    all.merge(dma_buf::caps(plain));
    all
}

/// Caps of every format that both sides know, in any memory.
pub(super) fn every() -> gst::Caps {
    with_dma_bufs(&video::caps())
}

fn insists(caps: &gst::Caps) -> bool {
    let plain = video::caps();
    !caps.can_intersect(&plain) && caps.can_intersect(&dma_buf::caps(&plain))
}

/// The element beyond `end` that has frames in dma-bufs alone, if one does: the one that is farthest away, since those
/// between say what it says.
pub(super) fn who_insists(end: &gst::Pad) -> Option<String> {
    let mut pad = end.peer().filter(|pad| insists(&pad.query_caps(None)))?;
    loop {
        let element = pad.parent_element()?;
        let behind = match pad.direction() {
            PadDirection::Sink => element.src_pads(),
            _ => element.sink_pads(),
        };
        match behind.iter().filter_map(|pad| pad.peer()).find(|pad| insists(&pad.query_caps(None))) {
            Some(next) => pad = next,
            None => return Some(name_of(Some(element.upcast_ref()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    fn caps(text: &str) -> gst::Caps {
        gst::init().unwrap();
        gst::Caps::from_str(text).unwrap()
    }

    #[test]
    fn frames_are_called_what_the_pad_has_first() {
        let plain = caps("video/x-raw, format=NV12, width=64, height=48");
        let first = |of: &str, kind| Called::first_of(&caps(of), &plain, kind);
        let (dma_buf, memfd) = (MemoryKind::DmaBuf, MemoryKind::Memfd);
        let both = "video/x-raw(memory:DMABuf), format=NV12; video/x-raw";
        assert_eq!(first(both, dma_buf), Some(Called::DmaBuf));
        assert_eq!(first(both, memfd), Some(Called::Plain));
        assert_eq!(first("video/x-raw; video/x-raw(memory:DMABuf)", dma_buf), Some(Called::Plain));
        assert_eq!(first("ANY", dma_buf), Some(Called::Plain));
        assert_eq!(first("video/x-raw(memory:DMABuf), format=NV12", memfd), None);
        assert_eq!(first("video/x-raw(memory:DMABuf), format=I420", dma_buf), None);
        assert_eq!(first("video/x-raw(memory:GLMemory)", dma_buf), None);
        let drm = first("video/x-raw(memory:DMABuf), format=DMA_DRM, drm-format=NV12", dma_buf);
        assert_eq!(drm, cfg!(feature = "gstreamer-v1_24").then_some(Called::Drm));
    }

    #[test]
    fn what_frames_are_called_is_what_their_caps_say() {
        let plain = caps("video/x-raw, format=NV12, width=64, height=48, framerate=30/1");
        let drm: &[Called] = if cfg!(feature = "gstreamer-v1_24") { &[Called::Drm] } else { &[] };
        for called in [Called::Plain, Called::DmaBuf].iter().chain(drm) {
            let said = called.caps(plain.clone());
            assert_eq!(Called::first_of(&said, &plain, MemoryKind::DmaBuf), Some(*called), "{said}");
        }
    }

    #[test]
    fn the_one_who_insists_is_named_and_not_those_between() {
        gst::init().unwrap();
        let launch =
            "identity name=first ! queue ! capsfilter name=filter caps=\"video/x-raw(memory:DMABuf)\" ! identity";
        let bin = gst::parse::bin_from_description(launch, false).unwrap();
        let source = gst::ElementFactory::make("appsrc").build().unwrap();
        bin.add(&source).unwrap();
        source.link(&bin.by_name("first").unwrap()).unwrap();
        let pad = source.static_pad("src").unwrap();
        assert_eq!(who_insists(&pad).as_deref(), Some("filter (capsfilter)"));
        bin.by_name("filter").unwrap().set_property("caps", gst::Caps::new_any());
        assert_eq!(who_insists(&pad), None);
    }
}
