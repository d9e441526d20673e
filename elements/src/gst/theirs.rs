//! GStreamer's own memory that frames come out in: dma-bufs and sealed memfds, each a buffer of ours from the first time
//! that it is seen.
//!
//! A source's are gathered while it is negotiated, and every consumer has imported them before anything streams. Of
//! what only makes frames once some go in, and where GStreamer allocates more later, the first frame in each is the first
//! that anybody hears of it, and consumers import it then. A buffer is known by its kernel object, not by the memory or
//! descriptor that it comes in.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use gst_video::VideoInfo;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{Layout, Segment, Shrbuf};
use shrbuf_gst_memory::{Home, Place};
use shrbuf_pipeline::{Failure, FailureKind, Stream};

use crate::memory;

/// One buffer.
struct Seat {
    segments: Vec<Arc<Segment>>,
    layout: Layout,
    home: Home,
}

/// All that have been seen.
pub(super) struct Theirs {
    info: VideoInfo,
    /// What was agreed on.
    stream: Stream,
    seats: Vec<Seat>,
    /// From so many on, those that nobody has are let go of: consumers know ours beside them.
    kept: usize,
    /// Frames that may be out at once. GStreamer's pools grow, so that they alone would hold nobody.
    most: usize,
    turn: Arc<Turn>,
    /// Of all homes: readable while devices have come to the end of what they still read.
    fences: Epoll,
}

/// Who waits for a frame to come back.
struct Turn {
    waits: AtomicBool,
    back: Box<dyn Fn() + Send + Sync>,
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
    /// them, and `ours` others. At most so many are out at once; `back` is called, from any thread, when there is room for one more after
    /// there was none.
    pub(super) fn new(
        info: VideoInfo,
        stream: Stream,
        gathered: Vec<Shrbuf>,
        ours: usize,
        most: u32,
        back: impl Fn() + Send + Sync + 'static,
    ) -> Result<Theirs, Failure> {
        let fences = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(limit)?;
        let (seats, kept) = (Vec::with_capacity(MAX_BUFFERS), MAX_BUFFERS.saturating_sub(ours));
        let most = most.max(1) as usize;
        let turn = Arc::new(Turn { waits: AtomicBool::new(false), back: Box::new(back) });
        let mut theirs = Theirs { info, stream, seats, kept, most, turn, fences };
        for buffer in gathered {
            theirs.seat(buffer)?;
        }
        Ok(theirs)
    }

    fn seat(&mut self, buffer: Shrbuf) -> Result<&Seat, Failure> {
        let (segments, layout) = (buffer.segments().to_vec(), *buffer.layout());
        let turn = Arc::clone(&self.turn);
        let home = Home::of(vec![buffer], move |_, _| {
            // It is idle by now, which whoever waits looks at after saying so.
            fence(Ordering::SeqCst);
            if turn.waits.swap(false, Ordering::SeqCst) {
                (turn.back)();
            }
        });
        let home = home.map_err(limit)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        self.fences.add(home.pool().fences_fd(), event).map_err(limit)?;
        let at = self.seats.len();
        self.seats.push(Seat { segments, layout, home });
        Ok(&self.seats[at])
    }

    /// True where one more frame may come out; else `back` is called once it may.
    pub(super) fn has_room(&self) -> bool {
        let room = || self.seats.iter().filter(|seat| seat.home.pool().idle() == 0).count() < self.most;
        if room() {
            return true;
        }
        self.turn.waits.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        // One may have come back in between.
        room()
    }

    /// The buffer that `frame` is in, which is kept until its last reference is dropped.
    pub(super) fn adopt(&mut self, frame: &gst::Buffer) -> Result<Found, Failure> {
        let Some(place) = Place::of(frame, &self.info, None) else { return Ok(Found::Not(None)) };
        if let Some(seat) = self.seats.iter().find(|seat| place.has(&seat.segments, &seat.layout)) {
            return Ok(Found::Buffer { buffer: seat.home.send(0, frame.clone()), new: false });
        }
        if let Some(why) = self.unfit(&place) {
            return Ok(Found::Not(Some(why)));
        }
        let Some(buffer) = place.buffer_of_its_own() else {
            let why = format!("in {}s that are in use elsewhere in this process", place.kind());
            return Ok(Found::Not(Some(why)));
        };
        if self.seats.len() >= self.kept {
            // Somebody makes new ones all the time: those that nobody has are let go of.
            self.seats.retain(|seat| seat.home.frames() > 0);
        }
        if self.seats.len() >= MAX_BUFFERS {
            let text = format!("{MAX_BUFFERS} buffers of GStreamer's own are out at once, and one more comes");
            return Err(Failure::new(FailureKind::Limit, text));
        }
        let seat = self.seat(buffer)?;
        Ok(Found::Buffer { buffer: seat.home.send(0, frame.clone()), new: true })
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
        self.fences.0.try_clone()
    }

    /// GStreamer gets back what no device reads any more.
    pub(super) fn reap(&self) -> std::io::Result<()> {
        self.seats.iter().try_for_each(|seat| seat.home.pool().reap())
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
        Theirs::new(video::info(Format::Nv12, SIZE, None, None).unwrap(), stream, Vec::new(), ours, 64, || {}).unwrap()
    }

    fn frame(theirs: &Theirs) -> gst::Buffer {
        let layout = shrbuf_gst_memory::video::layout(Format::Nv12, &theirs.info).unwrap();
        let fd = Memfd::new("test").allocate(&layout).unwrap().export(0).unwrap();
        let mut frame = gst::Buffer::new();
        frame.make_mut().append_memory(FdMemories::new().wrap(MemoryKind::Memfd, fd, theirs.info.size()).unwrap());
        frame
    }

    fn adopt(theirs: &mut Theirs, frame: &gst::Buffer) -> (Shrbuf, bool) {
        match theirs.adopt(frame).unwrap() {
            Found::Buffer { buffer, new } => (buffer, new),
            Found::Not(why) => panic!("{why:?}"),
        }
    }

    #[test]
    fn memory_is_a_buffer_the_first_time_and_the_same_one_ever_after() {
        let mut theirs = theirs(1, 0);
        let frames = [frame(&theirs), frame(&theirs)];
        let ids: Vec<_> = (0..10).map(|n| adopt(&mut theirs, &frames[n % 2])).map(|(b, new)| (b.id(), new)).collect();
        assert!(ids[0].1 && ids[1].1 && ids[2..].iter().all(|(_, new)| !new));
        assert!(ids.iter().enumerate().all(|(n, (id, _))| *id == ids[n % 2].0) && ids[0].0 != ids[1].0);
    }

    #[test]
    fn memory_that_is_never_the_same_is_let_go_of_and_what_is_out_stays() {
        let mut theirs = theirs(1, 0);
        let (held, _) = {
            let frame = frame(&theirs);
            adopt(&mut theirs, &frame)
        };
        for _ in 0..2 * MAX_BUFFERS {
            let frame = frame(&theirs);
            assert!(adopt(&mut theirs, &frame).1);
        }
        assert!(theirs.seats.len() <= MAX_BUFFERS);
        assert!(theirs.seats.iter().any(|seat| Arc::ptr_eq(&seat.segments[0], &held.segments()[0])));
        let mut all: Vec<_> = (theirs.seats.iter().filter(|seat| seat.home.frames() > 0).count()..MAX_BUFFERS)
            .map(|_| {
                let frame = frame(&theirs);
                adopt(&mut theirs, &frame)
            })
            .collect();
        let frame = frame(&theirs);
        assert!(theirs.adopt(&frame).err().unwrap().to_string().contains("64 buffers of GStreamer's own are out"));
        all.clear();
        assert!(adopt(&mut theirs, &frame).1);
    }

    #[test]
    fn what_nobody_has_makes_room_as_soon_as_consumers_would_know_too_many_beside_ours() {
        for ours in [2, 40, MAX_BUFFERS] {
            let mut theirs = theirs(1, ours);
            let mut known: Vec<_> = Vec::new();
            for _ in 0..2 * MAX_BUFFERS {
                let frame = frame(&theirs);
                known.push(adopt(&mut theirs, &frame).0.downgrade());
                known.retain(|buffer: &WeakShrbuf| !buffer.is_gone());
            }
            assert_eq!(known.len(), theirs.seats.len());
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
