//! Calls of an element's `ready` that somebody asked for.

use std::sync::Arc;

use crate::ring::Bell;
use crate::sync::{AtomicBool, Ordering, fence};

/// Calls an element's `ready` from any thread.
#[derive(Debug, Clone)]
pub struct Waker {
    calls: Arc<Calls>,
    bell: Arc<Bell>,
}

impl Waker {
    pub(super) fn new(calls: Arc<Calls>, bell: Arc<Bell>) -> Waker {
        Waker { calls, bell }
    }

    /// Has `ready` called soon, once for any number of wakes. A system call only where the domain sleeps.
    pub fn wake(&self) {
        // Pairs with the fence in `take`: either we see that the call before has been taken, or it sees what we wake it for.
        fence(Ordering::SeqCst);
        // Where it has not, whoever asked for that one rings.
        if !self.calls.pending.0.load(Ordering::Relaxed) {
            self.calls.pending.0.store(true, Ordering::Release);
            self.bell.ring();
        }
    }

    /// As [`Waker::wake`], on the element's own thread: the loop comes back to it once it has seen to the others. For an
    /// element that is always ready. Who wakes it meanwhile finds that done already, and so neither slows the other down.
    pub fn again(&self) {
        self.calls.again.0.store(true, Ordering::Relaxed);
    }
}

/// What has been asked for and not done.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// By anybody.
    pending: Line<AtomicBool>,
    /// By the element itself.
    again: Line<AtomicBool>,
}

/// On a cache line of its own: others read the one while the element writes the other, a frame each.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line<T>(T);

impl Calls {
    /// Whether `take` would be true.
    pub(super) fn are_due(&self) -> bool {
        self.again.0.load(Ordering::Relaxed) || self.pending.0.load(Ordering::Relaxed)
    }

    /// Whether there is a call to be made now.
    pub(super) fn take(&self) -> bool {
        if self.again.0.load(Ordering::Relaxed) {
            self.again.0.store(false, Ordering::Relaxed);
            // What is pending stays so, and nobody writes it. Its turn comes when the element does not ask again.
            return true;
        }
        if !self.pending.0.load(Ordering::Relaxed) {
            return false;
        }
        self.pending.0.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn waker() -> (Arc<Calls>, Waker) {
        let calls = Arc::new(Calls::default());
        (Arc::clone(&calls), Waker::new(calls, Arc::new(Bell::new().unwrap())))
    }

    #[test]
    fn many_wakes_are_one_call() {
        let (calls, waker) = waker();
        waker.wake();
        waker.wake();

        assert!(calls.are_due());
        assert_eq!([calls.take(), calls.take()], [true, false]);
        assert!(!calls.are_due());
    }

    #[test]
    fn a_wake_outlasts_an_element_that_asks_again() {
        let (calls, waker) = waker();
        waker.again();
        waker.wake();

        assert_eq!([calls.take(), calls.take(), calls.take()], [true, true, false]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::thread;

    use super::*;

    #[test]
    fn loom_what_two_wake_for_is_seen_by_a_call_or_rings() {
        loom::model(|| {
            let (calls, bell) = (Arc::new(Calls::default()), Arc::new(Bell::new().unwrap()));
            let done: Arc<[AtomicBool; 2]> = Arc::default();
            let others: Vec<_> = (0..2)
                .map(|i| {
                    let (waker, done) = (Waker::new(Arc::clone(&calls), Arc::clone(&bell)), Arc::clone(&done));
                    thread::spawn(move || {
                        done[i].store(true, Ordering::Relaxed);
                        waker.wake();
                    })
                })
                .collect();
            let look = || done.each_ref().map(|d| d.load(Ordering::Relaxed));

            // What a loop does: it takes calls, says that it sleeps, and looks once more.
            let mut seen = [false; 2];
            while calls.take() {
                seen = look();
            }
            bell.sleep();
            let asleep = !calls.are_due();

            others.into_iter().for_each(|t| t.join().unwrap());
            if seen != [true; 2] {
                assert!(!asleep || bell.has_rung());
                assert!(calls.take());
            }
        });
    }

    #[test]
    fn loom_who_finds_a_call_pending_is_seen_by_it() {
        loom::model(|| {
            let (calls, bell) = (Arc::new(Calls::default()), Arc::new(Bell::new().unwrap()));
            let waker = Waker::new(Arc::clone(&calls), bell);
            waker.wake();
            let done = Arc::new(AtomicBool::new(false));
            let other = {
                let done = Arc::clone(&done);
                thread::spawn(move || {
                    done.store(true, Ordering::Relaxed);
                    waker.wake();
                })
            };

            assert!(calls.take());
            let seen = done.load(Ordering::Relaxed);

            other.join().unwrap();
            assert!(seen || calls.take(), "woken for nothing");
        });
    }
}
