//! The producer, the thread that deals with its consumers, and what the streaming thread waits for. It serves one stream
//! after the other.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use gst_video::VideoInfo;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use shrbuf::ipc::{Announced, Counts, IpcError, Producer};
use shrbuf_gst_memory::{Place, Theirs};

use super::run::{Refused, Settings};
use crate::lock;
use crate::video::Drm;

struct Shared {
    producer: Mutex<Producer>,
    /// Upstream's own buffers. Devices may read what consumers have given back.
    theirs: Mutex<Arc<Mutex<Theirs>>>,
    /// Readable while fences of theirs have signalled.
    fences: Epoll,
    /// Something has come from a consumer, or whoever waits should not any more.
    moved: Condvar,
    /// Times that somebody has wanted the streaming thread.
    calls: AtomicU64,
    /// The thread has ended, for this reason if one is there.
    failure: Mutex<Option<IpcError>>,
    stop: EventFd,
}

/// What consumers are told of a stream.
pub(super) struct Told {
    pub(super) announced: Vec<Announced>,
    pub(super) rate: Option<(u32, u32)>,
    pub(super) theirs: Arc<Mutex<Theirs>>,
}

/// A producer with a thread of its own.
pub(super) struct Service {
    /// Those that it was begun with.
    pub(super) settings: Settings,
    shared: Arc<Shared>,
    /// Consumers that the next frame waits for.
    awaited: AtomicUsize,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub(super) fn start(settings: Settings, told: Told) -> Result<Service, Refused> {
        let options = settings.options().map_err(|e| (gst::ResourceError::Settings, e))?;
        let path = settings.path.clone().unwrap_or_default();
        let Told { announced, rate, theirs } = told;
        let bound = Producer::bind(path.as_ref(), options, announced, rate);
        let (shared, thread) = bound.and_then(|producer| Shared::start(producer, theirs)).map_err(refused)?;
        let awaited = AtomicUsize::new(settings.wait_for as usize);
        Ok(Service { settings, shared, awaited, thread: Some(thread) })
    }

    /// Another stream from now on, to which consumers are sent. Of those who must have every frame the next one waits for as
    /// many as were there: others have none to miss, and would hold up the rest by not coming.
    pub(super) fn change(&self, told: Told) -> Result<(), Refused> {
        let Told { announced, rate, theirs } = told;
        self.shared.watch(&theirs).map_err(refused)?;
        let blocking = self.with(|producer| producer.change(announced, rate)).map_err(refused)?;
        *lock(&self.shared.theirs) = theirs;
        if self.awaited() == 0 {
            self.awaited.store(blocking.min(self.settings.wait_for as usize), Ordering::Relaxed);
        }
        Ok(())
    }

    /// True where `frame`, of the stream to come, is in a buffer that consumers still have of the one before.
    pub(super) fn still_has(&self, frame: &gst::BufferRef, info: &VideoInfo, drm: Option<Drm>) -> bool {
        let theirs = Arc::clone(&lock(&self.shared.theirs));
        Place::of(frame, info, drm).is_some_and(|place| lock(&theirs).still_has(&place))
    }

    /// Consumers that the next frame waits for.
    pub(super) fn awaited(&self) -> usize {
        self.awaited.load(Ordering::Relaxed)
    }

    /// They are there.
    pub(super) fn gathered(&self) {
        self.awaited.store(0, Ordering::Relaxed);
    }

    /// Does something with the producer. Not to be held for long: consumers wait meanwhile.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Producer) -> T) -> T {
        f(&mut lock(&self.shared.producer))
    }

    /// Times that somebody has wanted the streaming thread.
    pub(super) fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    /// Somebody wants the streaming thread. Counted rather than flagged, so that a call which is over before the
    /// waiting thread has run is heard all the same.
    pub(super) fn call(&self) {
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        self.shared.wake();
    }

    /// **Blocks** until `look` finds something, which it does again whenever a consumer has said something; `None` once
    /// somebody has called for the streaming thread since there were so many `calls`.
    ///
    /// # Errors
    /// Why consumers are not dealt with any more.
    pub(super) fn wait_for<T>(
        &self,
        calls: u64,
        mut look: impl FnMut(&mut Producer) -> Option<T>,
    ) -> Result<Option<T>, IpcError> {
        let mut producer = lock(&self.shared.producer);
        loop {
            let found = look(&mut producer);
            if found.is_some() || self.calls() != calls {
                return Ok(found);
            }
            if let Some(e) = lock(&self.shared.failure).take() {
                return Err(e);
            }
            producer = self.shared.moved.wait(producer).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn counts(&self) -> (Counts, usize) {
        self.with(|producer| (producer.counts(), producer.consumers()))
    }
}

fn refused(e: IpcError) -> Refused {
    (gst::ResourceError::OpenWrite, e.to_string())
}

fn os<E: Into<std::io::Error>>(call: &'static str) -> impl Fn(E) -> IpcError {
    move |e| IpcError::Os { call, source: e.into() }
}

impl Shared {
    fn start(producer: Producer, theirs: Arc<Mutex<Theirs>>) -> Result<(Arc<Shared>, JoinHandle<()>), IpcError> {
        let watched = producer.as_fd().try_clone_to_owned().map_err(os("dup"))?;
        let fences = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(os("epoll_create1"))?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(os("eventfd"))?;
        let (producer, moved, failure) = (Mutex::new(producer), Condvar::new(), Mutex::new(None));
        let (theirs, calls) = (Mutex::new(theirs), AtomicU64::new(0));
        let shared = Arc::new(Shared { producer, theirs, fences, moved, calls, failure, stop });
        shared.watch(&lock(&shared.theirs))?;
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("shrbufsink".to_owned());
        let thread = thread.spawn(move || {
            if let Err(e) = of_thread.serve(watched.as_fd()) {
                *lock(&of_thread.failure) = Some(e);
            }
            of_thread.wake();
        });
        Ok((shared, thread.map_err(os("clone"))?))
    }

    /// Until they are dropped.
    fn watch(&self, theirs: &Mutex<Theirs>) -> Result<(), IpcError> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        self.fences.add(lock(theirs).fences_fd(), event).map_err(os("epoll_ctl"))
    }

    /// One who looked before this waits by now, or will look again.
    fn wake(&self) {
        drop(lock(&self.producer));
        self.moved.notify_all();
    }

    fn serve(&self, watched: BorrowedFd<'_>) -> Result<(), IpcError> {
        loop {
            let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds = [readable(watched), readable(self.stop.as_fd()), readable(self.fences.0.as_fd())];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(e) => return Err(os("poll")(e)),
            }
            if fds[1].any().unwrap_or(false) {
                return Ok(());
            }
            if fds[2].any().unwrap_or(false) {
                let theirs = Arc::clone(&lock(&self.theirs));
                lock(&theirs).reap().map_err(os("epoll_wait"))?;
            }
            lock(&self.producer).ready()?;
            self.moved.notify_all();
        }
    }
}

impl Drop for Service {
    /// Tells the consumers that the stream has ended.
    fn drop(&mut self) {
        // A full counter is readable already.
        let _ = self.shared.stop.write(1);
        if let Some(thread) = self.thread.take() {
            // It does not panic; where it did, it is gone as well.
            let _ = thread.join();
        }
        lock(&self.shared.producer).end();
    }
}
