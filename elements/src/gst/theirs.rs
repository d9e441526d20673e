//! GStreamer's own memory that frames come out in: dma-bufs and sealed memfds, each a buffer of ours from the first time
//! that it is seen.
//!
//! A source's are gathered while it is negotiated, and every consumer has imported them before anything streams. Of
//! what only makes frames once some go in, and where GStreamer allocates more later, the first frame in each is the first
//! that anybody hears of it, and consumers import it then.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use gst_video::VideoInfo;
use shrbuf::Shrbuf;
use shrbuf::pool::MAX_BUFFERS;
use shrbuf_gst_memory::Place;
use shrbuf_pipeline::{Failure, FailureKind, Stream};

use crate::memory;

/// All that have been seen.
pub(super) struct Theirs {
    info: VideoInfo,
    /// What was agreed on.
    stream: Stream,
    buffers: shrbuf_gst_memory::Theirs,
    /// Frames that may be out at once. GStreamer's pools grow, so that they alone would hold nobody.
    most: usize,
    /// Somebody waits for a frame to come back.
    waits: Arc<AtomicBool>,
}

/// What a frame's memory is.
pub(super) enum Found {
    /// A buffer; `new` where it was not known before.
    Buffer { buffer: Shrbuf, new: bool },
    /// It would have to be copied, and why, where it is memory that can be shared.
    Not(Option<String>),
}

fn limit(e: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(FailureKind::Limit, e)
}

impl Theirs {
    /// Frames are as `info` says, or their `GstVideoMeta`, and their consumers as `stream`; these have been imported by
    /// them, and `ours` others, beside which no more are kept than consumers can know. At most so many are out at once; `back`
    /// is called, from any thread, when there is room for one more after there was none.
    pub(super) fn new(
        info: VideoInfo,
        stream: Stream,
        gathered: Vec<Shrbuf>,
        ours: usize,
        most: u32,
        back: impl Fn() + Send + Sync + 'static,
    ) -> Result<Theirs, Failure> {
        let (waits, most) = (Arc::new(AtomicBool::new(false)), most.max(1) as usize);
        let waiting = Arc::clone(&waits);
        let room = MAX_BUFFERS.saturating_sub(ours).max(most);
        let buffers = shrbuf_gst_memory::Theirs::new(gathered, room, move || {
            // It is idle by now, which whoever waits looks at after saying so.
            fence(Ordering::SeqCst);
            if waiting.swap(false, Ordering::SeqCst) {
                back();
            }
        });
        Ok(Theirs { info, stream, buffers: buffers.map_err(limit)?, most, waits })
    }

    /// True where one more frame may come out; else `back` is called once it may.
    pub(super) fn has_room(&self) -> bool {
        let room = || self.buffers.out() < self.most;
        if room() {
            return true;
        }
        self.waits.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // One may have come back in between.
        room()
    }

    /// The buffer that `frame` is in, which is kept until its last reference is dropped.
    pub(super) fn adopt(&mut self, frame: &gst::Buffer) -> Result<Found, Failure> {
        let Some(place) = Place::of(frame, &self.info, None) else { return Ok(Found::Not(None)) };
        if let Some(buffer) = self.buffers.find(&place, frame) {
            return Ok(Found::Buffer { buffer, new: false });
        }
        if let Some(why) = self.unfit(&place) {
            return Ok(Found::Not(Some(why)));
        }
        let elsewhere = || Found::Not(Some(format!("in {}s that are in use elsewhere in this process", place.kind())));
        let added = self.buffers.add(&place, frame).map_err(limit)?;
        Ok(added.map_or_else(elsewhere, |buffer| Found::Buffer { buffer, new: true }))
    }

    /// Why consumers could not read it.
    fn unfit(&self, place: &Place<'_>) -> Option<String> {
        let agreed = self.stream.origin.kind();
        if place.kind() != agreed {
            return Some(format!("in {}s of its own, where {agreed}s were agreed on", place.kind()));
        }
        memory::unfit(place.layout(), &self.stream)
    }

    /// See [`Theirs`].
    pub(super) fn fences_fd(&self) -> std::io::Result<OwnedFd> {
        self.buffers.fences_fd().try_clone_to_owned()
    }

    /// GStreamer gets back what no device reads any more.
    pub(super) fn reap(&self) -> std::io::Result<()> {
        self.buffers.reap()
    }
}

#[cfg(test)]
mod tests {
    use shrbuf::exporter::Memfd;
    use shrbuf::{Format, MemoryKind, Modifier, WeakShrbuf};
    use shrbuf_gst_memory::FdMemories;
    use shrbuf_pipeline::{Origin, Size};

    use super::super::video;
    use super::*;

    const SIZE: Size = Size::new(64, 48);

    fn theirs(stride_align: u32, ours: usize) -> Theirs {
        // One of theirs is out at most.
        gst::init().unwrap();
        let stream = Stream {
            format: Format::Nv12,
            modifier: Some(Modifier::LINEAR),
            size: SIZE,
            rate: None,
            origin: Origin::Memfd,
            stride_align,
            block: None,
            plane_segments: false,
            read_only: false,
            buffers: 2,
        };
        Theirs::new(video::info(Format::Nv12, SIZE, None, None).unwrap(), stream, Vec::new(), ours, 1, || {}).unwrap()
    }

    fn frame(theirs: &Theirs) -> gst::Buffer {
        let layout = shrbuf_gst_memory::video::layout(Format::Nv12, &theirs.info).unwrap();
        let fd = Memfd::new("test").allocate(&layout).unwrap().export(0).unwrap();
        let mut frame = gst::Buffer::new();
        frame.make_mut().append_memory(FdMemories::new().wrap(MemoryKind::Memfd, fd, theirs.info.size()).unwrap());
        frame
    }

    #[test]
    fn what_nobody_has_makes_room_as_soon_as_consumers_would_know_too_many_beside_ours() {
        for ours in [2, 40, MAX_BUFFERS] {
            let mut theirs = theirs(1, ours);
            let mut known: Vec<_> = Vec::new();
            for _ in 0..2 * MAX_BUFFERS {
                let frame = frame(&theirs);
                let Found::Buffer { buffer, new: true } = theirs.adopt(&frame).unwrap() else { panic!("not adopted") };
                known.push(buffer.downgrade());
                known.retain(|buffer: &WeakShrbuf| !buffer.is_gone());
            }
            assert!(ours + known.len() <= MAX_BUFFERS.max(ours + 1), "{ours} {}", known.len());
        }
    }

    #[test]
    fn memory_that_consumers_did_not_agree_on_is_named() {
        let mut theirs = theirs(256, 0);
        let frame = frame(&theirs);
        let Found::Not(Some(why)) = theirs.adopt(&frame).unwrap() else { panic!("adopted") };
        assert_eq!(why, "with rows of 64 bytes, where multiples of 256 were agreed on");
        theirs.stream.origin = Origin::Udmabuf;
        let Found::Not(Some(why)) = theirs.adopt(&frame).unwrap() else { panic!("adopted") };
        assert_eq!(why, "in memfds of its own, where dma-bufs were agreed on");
        let system = gst::Buffer::with_size(64 * 72).unwrap();
        assert!(matches!(theirs.adopt(&system).unwrap(), Found::Not(None)));
    }
}
