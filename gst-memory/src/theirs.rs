//! GStreamer's own memory that frames come in, as our buffers: each from the first frame in it on, known by its kernel object
//! and not by the memory or descriptor that it comes in.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{Layout, PoolError, Segment, Shrbuf};

use crate::{Home, Place};

/// Why a frame's memory cannot be a buffer.
#[derive(Debug, thiserror::Error)]
pub enum TheirsError {
    /// All that there is room for are out.
    #[error("{0} buffers of GStreamer's own are out at once, and one more comes")]
    Full(usize),
    /// It is no pool.
    #[error("{0}")]
    Pool(#[from] PoolError),
    /// The kernel refused.
    #[error("a buffer of GStreamer's own cannot be watched: {0}; raise the descriptor limit (ulimit -n)")]
    Os(#[from] std::io::Error),
}

/// One buffer.
struct Seat {
    segments: Vec<Arc<Segment>>,
    layout: Layout,
    home: Home,
}

impl Seat {
    fn is_out(&self) -> bool {
        self.home.pool().idle() == 0
    }
}

/// All that have been seen.
pub struct Theirs {
    seats: Vec<Seat>,
    room: usize,
    back: Arc<dyn Fn() + Send + Sync>,
    /// Of all homes: readable while devices have come to the end of what they still read.
    fences: Epoll,
}

impl Theirs {
    /// These, and others as they come: so many in all are known at once, [`MAX_BUFFERS`] at most. `back` is called, from any
    /// thread, when a frame has come back.
    ///
    /// # Errors
    /// One of these is in another pool, or there are too few descriptors.
    pub fn new(
        gathered: Vec<Shrbuf>,
        room: usize,
        back: impl Fn() + Send + Sync + 'static,
    ) -> Result<Theirs, TheirsError> {
        let fences = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(std::io::Error::from)?;
        let (seats, room) = (Vec::with_capacity(MAX_BUFFERS), room.min(MAX_BUFFERS));
        let mut theirs = Theirs { seats, room, back: Arc::new(back), fences };
        for buffer in gathered {
            theirs.seat(buffer)?;
        }
        Ok(theirs)
    }

    fn seat(&mut self, buffer: Shrbuf) -> Result<&Seat, TheirsError> {
        let (segments, layout, back) = (buffer.segments().to_vec(), *buffer.layout(), Arc::clone(&self.back));
        let home = Home::of(vec![buffer], move |_, _| back())?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        self.fences.add(home.pool().fences_fd(), event).map_err(std::io::Error::from)?;
        let at = self.seats.len();
        self.seats.push(Seat { segments, layout, home });
        Ok(&self.seats[at])
    }

    /// The buffer that `frame` is in, which lies at `place` and is kept until its last reference is dropped; `None` where it is
    /// not known.
    pub fn find(&self, place: &Place<'_>, frame: &gst::Buffer) -> Option<Shrbuf> {
        let seat = self.seats.iter().find(|seat| place.has(&seat.segments, &seat.layout))?;
        Some(seat.home.send(0, frame.clone()))
    }

    /// The same of one that is not known, and is from now on. Where there is no room for it, those that nobody has are let go
    /// of. `None` where it is in a pool of this process already, to which it would go back.
    ///
    /// # Errors
    /// [`TheirsError::Full`], or as of [`Theirs::new`].
    pub fn add(&mut self, place: &Place<'_>, frame: &gst::Buffer) -> Result<Option<Shrbuf>, TheirsError> {
        let Some(buffer) = place.buffer_of_its_own() else { return Ok(None) };
        if self.seats.len() >= self.room {
            self.seats.retain(Seat::is_out);
        }
        if self.seats.len() >= self.room {
            return Err(TheirsError::Full(self.room));
        }
        Ok(Some(self.seat(buffer)?.home.send(0, frame.clone())))
    }

    /// Of a stream that is over: true where somebody still has a buffer that `place` is in. Those that nobody has are let go of,
    /// so that their memory may be another stream's.
    pub fn still_has(&mut self, place: &Place<'_>) -> bool {
        self.seats.retain(Seat::is_out);
        self.seats.iter().any(|seat| place.shares(&seat.segments))
    }

    /// How many are out.
    pub fn out(&self) -> usize {
        self.seats.iter().filter(|seat| seat.is_out()).count()
    }

    /// Readable while devices have come to the end of what they still read; [`Theirs::reap`] is for that.
    pub fn fences_fd(&self) -> BorrowedFd<'_> {
        self.fences.0.as_fd()
    }

    /// GStreamer gets back what no device reads any more.
    ///
    /// # Errors
    /// As of [`Pool::reap`](shrbuf::Pool::reap).
    pub fn reap(&self) -> std::io::Result<()> {
        self.seats.iter().try_for_each(|seat| seat.home.pool().reap())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use gst_video::{VideoFormat, VideoInfo};
    use shrbuf::exporter::Memfd;
    use shrbuf::{Format, MemoryKind};

    use super::*;
    use crate::{FdMemories, Gathering, Seen, video};

    fn info() -> VideoInfo {
        gst::init().unwrap();
        VideoInfo::builder(VideoFormat::Nv12, 64, 48).build().unwrap()
    }

    /// As of a pool of somebody else's, whose memory holds on to what is returned as well.
    fn frame(info: &VideoInfo) -> (gst::Buffer, Arc<()>) {
        let layout = video::layout(Format::Nv12, info).unwrap();
        let fd = Memfd::new("test").allocate(&layout).unwrap().export(0).unwrap();
        let mut memory = FdMemories::new().wrap(MemoryKind::Memfd, fd, info.size()).unwrap();
        let held = Arc::new(());
        crate::tie(memory.make_mut(), Arc::clone(&held));
        let mut frame = gst::Buffer::new();
        frame.make_mut().append_memory(memory);
        (frame, held)
    }

    fn send(theirs: &mut Theirs, frame: &gst::Buffer) -> Result<(Shrbuf, bool), TheirsError> {
        let info = info();
        let place = Place::of(frame, &info, None).unwrap();
        Ok(match theirs.find(&place, frame) {
            Some(buffer) => (buffer, false),
            None => (theirs.add(&place, frame)?.unwrap(), true),
        })
    }

    #[test]
    fn memory_is_a_buffer_the_first_time_and_the_same_one_ever_after() {
        let mut theirs = Theirs::new(Vec::new(), MAX_BUFFERS, || {}).unwrap();
        let frames = [frame(&info()).0, frame(&info()).0];
        let ids: Vec<_> =
            (0..10).map(|n| send(&mut theirs, &frames[n % 2]).unwrap()).map(|(b, new)| (b.id(), new)).collect();
        assert!(ids[0].1 && ids[1].1 && ids[2..].iter().all(|(_, new)| !new));
        assert!(ids.iter().enumerate().all(|(n, (id, _))| *id == ids[n % 2].0) && ids[0].0 != ids[1].0);
    }

    #[test]
    fn memory_is_known_from_before_and_gstreamers_again_once_it_came_back() {
        let info = info();
        let frames = [frame(&info), frame(&info)];
        let mut gathering = Gathering::default();
        assert!(frames.iter().all(|(frame, _)| gathering.see(frame, &info, None) == Seen::New));
        let came_back = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&came_back);
        let back = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let mut theirs = Theirs::new(gathering.into_buffers(), 2, back).unwrap();
        let [(frame, held), _] = frames;
        let (sent, new) = send(&mut theirs, &frame).unwrap();
        drop(frame);
        assert_eq!((new, theirs.out(), Arc::strong_count(&held)), (false, 1, 2));
        drop(sent);
        assert_eq!((theirs.out(), Arc::strong_count(&held), came_back.load(Ordering::Relaxed)), (0, 1, 1));
    }

    #[test]
    fn memory_that_is_never_the_same_is_let_go_of_and_what_is_out_stays() {
        let mut theirs = Theirs::new(Vec::new(), 8, || {}).unwrap();
        let new = |theirs: &mut Theirs| send(theirs, &frame(&info()).0).map(|(buffer, _)| buffer);
        let held = new(&mut theirs).unwrap();
        (0..20).for_each(|_| drop(new(&mut theirs).unwrap()));
        assert!(theirs.seats.len() <= 8);
        assert!(theirs.seats.iter().any(|seat| Arc::ptr_eq(&seat.segments[0], &held.segments()[0])));
        let mut all: Vec<_> = (0..7).map(|_| new(&mut theirs).unwrap()).collect();
        let full = new(&mut theirs).unwrap_err().to_string();
        assert_eq!(full, "8 buffers of GStreamer's own are out at once, and one more comes");
        all.clear();
        assert!(new(&mut theirs).is_ok());
    }

    #[test]
    fn memory_of_a_pool_of_this_process_is_not_taken_in() {
        let info = info();
        let buffer = Memfd::new("test").allocate(&video::layout(Format::Nv12, &info).unwrap()).unwrap();
        let fd = buffer.export(0).unwrap();
        let _pool = shrbuf::Pool::new(vec![buffer], |_| {}).unwrap();
        let mut frame = gst::Buffer::new();
        frame.make_mut().append_memory(FdMemories::new().wrap(MemoryKind::Memfd, fd, info.size()).unwrap());
        let mut theirs = Theirs::new(Vec::new(), MAX_BUFFERS, || {}).unwrap();
        assert!(theirs.add(&Place::of(&frame, &info, None).unwrap(), &frame).unwrap().is_none());
    }
}
