//! The producer, the thread that deals with its consumers, and what the streaming thread waits for.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use shrbuf::ipc::{Announced, Counts, IpcError, Options, Producer};
use shrbuf_gst_memory::Theirs;

use crate::lock;

struct Shared {
    producer: Mutex<Producer>,
    /// Devices may read what consumers have given back.
    theirs: Arc<Mutex<Theirs>>,
    /// Something has come from a consumer, or whoever waits should not any more.
    moved: Condvar,
    /// Times that somebody has wanted the streaming thread.
    calls: AtomicU64,
    /// The thread has ended, for this reason if one is there.
    failure: Mutex<Option<IpcError>>,
    stop: EventFd,
}

/// A producer with a thread of its own.
pub(super) struct Service {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub(super) fn start(
        path: &Path,
        options: Options,
        announced: Vec<Announced>,
        rate: Option<(u32, u32)>,
        theirs: Arc<Mutex<Theirs>>,
    ) -> Result<Service, IpcError> {
        let producer = Producer::bind(path, options, announced, rate)?;
        let os = |call| move |source| IpcError::Os { call, source };
        let watched = producer.as_fd().try_clone_to_owned().map_err(os("dup"))?;
        let fences = lock(&theirs).fences_fd().try_clone_to_owned().map_err(os("dup"))?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let stop = stop.map_err(|e| os("eventfd")(e.into()))?;
        let (producer, moved, failure) = (Mutex::new(producer), Condvar::new(), Mutex::new(None));
        let shared = Arc::new(Shared { producer, theirs, moved, calls: AtomicU64::new(0), failure, stop });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("shrbufsink".to_owned());
        let thread = thread.spawn(move || {
            if let Err(e) = of_thread.serve(watched.as_fd(), fences.as_fd()) {
                *lock(&of_thread.failure) = Some(e);
            }
            of_thread.wake();
        });
        Ok(Service { shared, thread: Some(thread.map_err(os("clone"))?) })
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

impl Shared {
    /// One who looked before this waits by now, or will look again.
    fn wake(&self) {
        drop(lock(&self.producer));
        self.moved.notify_all();
    }

    fn serve(&self, watched: BorrowedFd<'_>, fences: BorrowedFd<'_>) -> Result<(), IpcError> {
        loop {
            let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds = [readable(watched), readable(self.stop.as_fd()), readable(fences)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(e) => return Err(IpcError::Os { call: "poll", source: e.into() }),
            }
            if fds[1].any().unwrap_or(false) {
                return Ok(());
            }
            if fds[2].any().unwrap_or(false) {
                lock(&self.theirs).reap().map_err(|source| IpcError::Os { call: "epoll_wait", source })?;
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
