//! What is said where downstream takes no frames like the producer's, which GStreamer itself calls only `not-negotiated`.

use gst::prelude::*;

use crate::video;

/// What differs, and the element that makes one of the other.
const MADE_BY: [(&[&str], &str); 3] =
    [(&["format"], "videoconvert"), (&["width", "height"], "videoscale"), (&["framerate"], "videorate")];

/// Caps of both sides that have nothing in common, and what would help.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the producer has {ours}; {next} takes {theirs}; {}", advice(.ours, .theirs))]
pub(super) struct Unfit {
    ours: gst::Caps,
    theirs: gst::Caps,
    /// The element that the pad is linked to.
    next: String,
}

impl Unfit {
    /// Where whoever `pad` is linked to takes none of what it has.
    pub(super) fn of(pad: &gst::Pad) -> Option<Unfit> {
        let ours = pad.query_caps(None);
        // As the base class asks.
        if !pad.peer_query_caps(Some(&ours)).is_empty() {
            return None;
        }
        let next = pad.peer().and_then(|peer| peer.parent_element());
        let next = next.map_or_else(|| "the next element".to_owned(), |next| next.name().into());
        Some(Unfit { ours, theirs: pad.peer_query_caps(None), next })
    }
}

fn advice(ours: &gst::Caps, theirs: &gst::Caps) -> String {
    let fits = |fields: &[&str]| only(ours, fields).can_intersect(theirs);
    if !fits(&[]) {
        return if theirs.can_intersect(&video::with_dma_buf(video::plain())) {
            "these are no dma-bufs; have the producer make them in such memory (ipc-sink: its source's `memory`)"
                .to_owned()
        } else {
            "link it to an element that takes raw video in the memory of the system".to_owned()
        };
    }
    let made_by: Vec<&str> = MADE_BY.iter().filter(|(fields, _)| !fits(fields)).map(|(_, element)| *element).collect();
    // Each fits by itself where only some go together: a converter is the first to try.
    let made_by = if made_by.is_empty() { MADE_BY[0].1.to_owned() } else { made_by.join(" ! ") };
    format!("put `{made_by}` between them, or have the producer make what is taken")
}

/// Caps that say nothing but these fields.
fn only(caps: &gst::Caps, fields: &[&str]) -> gst::Caps {
    let mut caps = caps.clone();
    for structure in caps.make_mut().iter_mut() {
        structure.filter_map_in_place(|name, value| fields.contains(&name.as_str().as_str()).then_some(value));
    }
    caps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_is_what_differs() {
        gst::init().unwrap();
        let caps = |text: &str| text.parse::<gst::Caps>().unwrap();
        let ours = caps("video/x-raw,format=NV12,width=640,height=360,framerate=30/1");
        for (theirs, helps) in [
            ("video/x-raw,format=I420", "put `videoconvert` between"),
            ("video/x-raw,format=NV12,width=320", "put `videoscale` between"),
            ("video/x-raw,framerate=25/1", "put `videorate` between"),
            ("video/x-raw,format=I420,width=320,height=180", "put `videoconvert ! videoscale` between"),
            ("video/x-raw,format=NV12,width=320; video/x-raw,format=I420", "put `videoconvert` between"),
            ("video/x-raw(memory:DMABuf)", "these are no dma-bufs"),
            ("video/x-vp8", "takes raw video"),
        ] {
            assert!(advice(&ours, &caps(theirs)).contains(helps), "{theirs}: {}", advice(&ours, &caps(theirs)));
        }
    }
}
