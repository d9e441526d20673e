//! Upstream's own memory: which dma-bufs and sealed memfds its pool has, found out from the frames that come.
//!
//! Consumers are told of all buffers as they connect, but a pool is asked by nobody what is in it. Its buffers come one
//! after the other, and when one comes again all have been here. Frames that come before that go to nobody.

use std::sync::Arc;

use gst_video::VideoInfo;
use shrbuf::Shrbuf;
use shrbuf::ipc::Announced;
use shrbuf::pool::MAX_BUFFERS;

use super::pool::{Buffers, BuffersError};
use crate::upstream::Place;
use crate::video::Drm;

struct Seat {
    buffer: Shrbuf,
    announced: Announced,
}

impl Seat {
    /// `None` where it cannot be announced, or is in a pool of this process already, as what `shrbufsrc` and
    /// `shrbuftmem` pass: it would go back to that one.
    fn of(place: &Place<'_>) -> Option<Seat> {
        let elsewhere = place.buffer().ok()?.downgrade();
        // Gone with its only handle, it is nobody else's.
        if !elsewhere.is_gone() {
            return None;
        }
        let buffer = place.buffer().ok()?;
        Some(Seat { announced: Announced::of(&buffer).ok()?, buffer })
    }
}

/// What has come so far.
#[derive(Default)]
pub(super) struct Gathering(Vec<Seat>);

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// In memory that has not been here.
    New,
    /// In memory that has: all of it is known.
    Again,
    /// In memory that cannot be sent, or unlike the others.
    Not,
}

impl Gathering {
    pub(super) fn see(&mut self, frame: &gst::BufferRef, info: &VideoInfo, drm: Option<Drm>) -> Seen {
        let Some(place) = Place::of(frame, info, drm) else { return Seen::Not };
        if self.0.iter().any(|seat| place.is(&seat.buffer)) {
            return Seen::Again;
        }
        let kind = |seat: &Seat| (*seat.buffer.layout(), seat.buffer.kind());
        let alike = |seat: &Seat| self.0.first().is_none_or(|first| kind(first) == kind(seat));
        match Seat::of(&place).filter(|seat| self.0.len() < MAX_BUFFERS && alike(seat)) {
            Some(seat) => {
                self.0.push(seat);
                Seen::New
            }
            None => Seen::Not,
        }
    }

    /// All of them, and what to announce.
    pub(super) fn buffers(
        self,
        info: &VideoInfo,
        drm: Option<Drm>,
    ) -> Result<(Arc<Buffers>, Vec<Announced>), BuffersError> {
        let (announced, buffers) = self.0.into_iter().map(|seat| (seat.announced, seat.buffer)).unzip();
        Ok((Buffers::of_upstream(info, drm, buffers)?, announced))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gst_video::VideoFormat;
    use shrbuf::exporter::Memfd;
    use shrbuf::{MemoryKind, State};
    use shrbuf_gst_memory::FdMemories;

    use super::*;
    use crate::video;

    fn info() -> VideoInfo {
        gst::init().unwrap();
        VideoInfo::builder(VideoFormat::Nv12, 64, 48).build().unwrap()
    }

    /// As of a pool of somebody else's, whose memory holds on to what is returned as well.
    fn frame(info: &VideoInfo) -> (gst::Buffer, Arc<()>) {
        let fd = Memfd::new("test").allocate(&video::layout(info).unwrap()).unwrap().export(0).unwrap();
        let mut memory = FdMemories::new().wrap(MemoryKind::Memfd, fd, info.size()).unwrap();
        let held = Arc::new(());
        shrbuf_gst_memory::tie(memory.make_mut(), Arc::clone(&held));
        let mut frame = gst::Buffer::new();
        frame.make_mut().append_memory(memory);
        (frame, held)
    }

    #[test]
    fn upstreams_memory_is_known_once_one_comes_again_and_its_again_once_consumers_gave_it_back() {
        let info = info();
        let frames = [frame(&info), frame(&info), frame(&info)];
        let mut gathering = Gathering::default();
        let seen: Vec<Seen> = frames.iter().chain(&frames[..1]).map(|(f, _)| gathering.see(f, &info, None)).collect();
        assert_eq!(seen, [Seen::New, Seen::New, Seen::New, Seen::Again]);
        let (buffers, announced) = gathering.buffers(&info, None).unwrap();
        assert_eq!((announced.len(), buffers.lent(), buffers.are_upstreams()), (3, 3, true));
        let sent = buffers.adopt(&frames[1].0).unwrap();
        assert_eq!((sent.id(), sent.state()), (buffers.adopt(&frames[1].0).unwrap().id(), State::Filled));
        let (other, _) = frame(&info);
        assert!(buffers.adopt(&other).is_none());
        let [_, (frame, held), _] = frames;
        drop(frame);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(sent);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn memory_that_cannot_be_sent_is_none() {
        let info = info();
        let mut gathering = Gathering::default();
        let plain = gst::Buffer::with_size(info.size()).unwrap();
        assert_eq!(gathering.see(&plain, &info, None), Seen::Not);
        // A part of a sealed memfd and a part of other memory.
        let (mut mixed, _) = frame(&info);
        let writable = mixed.make_mut();
        writable.set_size(64 * 48);
        writable.append_memory(gst::Memory::with_size(64 * 24));
        assert_eq!(gathering.see(&mixed, &info, None), Seen::Not);
    }

    #[test]
    fn memory_that_is_laid_out_otherwise_is_another() {
        let info = info();
        let (mut frame, _) = frame(&info);
        let mut gathering = Gathering::default();
        assert_eq!(gathering.see(&frame, &info, None), Seen::New);
        let flags = gst_video::VideoFrameFlags::empty();
        let offsets = [0, 64 * 40];
        gst_video::VideoMeta::add_full(frame.make_mut(), flags, VideoFormat::Nv12, 64, 48, &offsets, &[64, 64])
            .unwrap();
        assert_eq!(gathering.see(&frame, &info, None), Seen::Not);
    }
}
