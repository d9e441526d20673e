//! What is in a buffer, with waiting and polling.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::sync::{AtomicU32, Condvar, Mutex, Ordering, fence, lock};

/// What is in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum State {
    /// Nothing that anyone should read.
    Empty,
    /// A device or a CPU is writing it.
    Filling,
    /// A whole frame.
    Filled,
    /// A frame that its producer says is damaged (V4L2_BUF_FLAG_ERROR, a short read).
    Corrupt,
}

impl State {
    fn of(n: u32) -> State {
        match n {
            0 => State::Empty,
            1 => State::Filling,
            2 => State::Filled,
            _ => State::Corrupt,
        }
    }
}

/// A state word; setting it costs a store, a fence and a load while nobody waits.
#[derive(Debug)]
pub(crate) struct StateCell {
    value: AtomicU32,
    waiters: AtomicU32,
    lock: Mutex<()>,
    changed: Condvar,
    poll: OnceLock<EventFd>,
}

impl StateCell {
    pub(crate) fn new(state: State) -> StateCell {
        StateCell {
            value: AtomicU32::new(state as u32),
            waiters: AtomicU32::new(0),
            lock: Mutex::new(()),
            changed: Condvar::new(),
            poll: OnceLock::new(),
        }
    }

    pub(crate) fn get(&self) -> State {
        State::of(self.value.load(Ordering::Acquire))
    }

    pub(crate) fn set(&self, state: State) {
        self.value.store(state as u32, Ordering::Release);
        // Either the loads below see the waiter and the descriptor, or the waiter's load after its own fence sees the
        // store above.
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) > 0 {
            // A waiter that has read the old value under the lock is in wait() once we get it.
            drop(lock(&self.lock));
            self.changed.notify_all();
        }
        if let Some(event) = self.poll.get() {
            // A full counter (2^64 - 2 unread changes) is readable already.
            let _ = event.write(1);
        }
    }

    /// Blocks until `wanted` holds or `timeout` is over; the state found last, `Err` where it is not wanted.
    pub(crate) fn wait_for(&self, wanted: impl Fn(State) -> bool, timeout: Duration) -> Result<State, State> {
        // A time beyond what the clock can say is for ever.
        let end = Instant::now().checked_add(timeout);
        self.waiters.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut guard = lock(&self.lock);
        let found = loop {
            let state = self.get();
            if wanted(state) {
                break Ok(state);
            }
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break Err(state);
            }
            guard = match self.changed.wait_timeout(guard, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        };
        drop(guard);
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        found
    }

    /// A descriptor that becomes readable at every change from now on; reading 8 bytes resets it.
    pub(crate) fn poll_fd(&self) -> std::io::Result<BorrowedFd<'_>> {
        if self.poll.get().is_none() {
            let new = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
            // Another thread may have been faster; its descriptor serves both.
            let _ = self.poll.set(new);
        }
        // Pairs with the fence in `set`: who looks at the state from here on misses no change.
        fence(Ordering::SeqCst);
        match self.poll.get() {
            Some(event) => Ok(event.as_fd()),
            None => Err(std::io::Error::from(std::io::ErrorKind::NotFound)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn wait_returns_what_is_there_already() {
        let cell = StateCell::new(State::Filled);
        assert_eq!(cell.wait_for(|s| s == State::Filled, Duration::ZERO), Ok(State::Filled));
    }

    #[test]
    fn wait_too_short_returns_the_state_found() {
        let cell = StateCell::new(State::Filling);
        let begin = Instant::now();
        assert_eq!(cell.wait_for(|s| s == State::Filled, Duration::from_millis(20)), Err(State::Filling));
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn wait_for_ever_ends_with_the_change() {
        let cell = StateCell::new(State::Filling);
        std::thread::scope(|s| {
            let waiter = s.spawn(|| cell.wait_for(|s| s != State::Filling, Duration::MAX));
            cell.set(State::Corrupt);
            assert_eq!(waiter.join().unwrap(), Ok(State::Corrupt));
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "poll(2)")]
    fn descriptor_is_readable_from_the_next_change_on() {
        let cell = StateCell::new(State::Empty);
        let fd = cell.poll_fd().unwrap();
        assert!(!crate::poll::readable(fd, Some(Duration::ZERO)).unwrap());
        cell.set(State::Filled);
        assert!(crate::poll::readable(fd, Some(Duration::MAX)).unwrap());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    // Loom's wait_timeout never times out: a lost wake-up is a deadlock, which it reports.
    #[test]
    fn loom_waiter_wakes_for_the_change_it_waits_for() {
        loom::model(|| {
            let cell = Arc::new(StateCell::new(State::Empty));
            let waiter = {
                let cell = cell.clone();
                thread::spawn(move || cell.wait_for(|s| s == State::Filled, Duration::MAX))
            };
            cell.set(State::Filling);
            cell.set(State::Filled);
            assert_eq!(waiter.join().unwrap(), Ok(State::Filled));
        });
    }

    #[test]
    fn loom_two_waiters_both_wake() {
        loom::model(|| {
            let cell = Arc::new(StateCell::new(State::Empty));
            let waiters: Vec<_> = (0..2)
                .map(|_| {
                    let cell = cell.clone();
                    thread::spawn(move || cell.wait_for(|s| s == State::Filled, Duration::MAX))
                })
                .collect();
            cell.set(State::Filled);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), Ok(State::Filled));
            }
        });
    }
}
