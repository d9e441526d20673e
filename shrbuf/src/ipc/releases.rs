//! How a frame is given back: bits in a shared page, and a word that says whether the other side has to be woken.
//!
//! A consumer sets bits from any thread; the producer takes them all at once. Both do that by read-modify-write operations
//! on `released`, one of which comes first: either the producer's take sees the bit, or the consumer, whose operation comes
//! after and acquires, sees what the producer stored in `wake` before. So a producer that stores and then takes is woken by
//! whatever it has not taken. The model below has every interleaving.

use crate::sync::Ordering;
use crate::sys::page::Words;

/// Buffers that a consumer has given back, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) buffers: u64,
    /// Those of them that it passed over for newer ones.
    pub(super) skipped: u64,
}

impl Words {
    /// The consumer will give back buffer `index` without having looked at it.
    pub(super) fn skip(&self, index: u32) {
        self.skipped.fetch_or(1 << index, Ordering::Relaxed);
    }

    /// The consumer gives back buffer `index`; true where it has to wake the producer.
    pub(super) fn give_back(&self, index: u32) -> bool {
        self.released.fetch_or(1 << index, Ordering::AcqRel);
        // One of several threads wakes.
        self.wake.load(Ordering::Relaxed) != 0 && self.wake.swap(0, Ordering::Relaxed) != 0
    }

    /// The producer takes what has been given back.
    pub(super) fn take(&self) -> Returned {
        let buffers = self.released.swap(0, Ordering::AcqRel);
        let skipped = self.skipped.load(Ordering::Relaxed) & buffers;
        if skipped != 0 {
            self.skipped.fetch_and(!skipped, Ordering::Relaxed);
        }
        Returned { buffers, skipped }
    }

    /// The producer has dropped so many frames for this consumer.
    pub(super) fn tell_dropped(&self, frames: u64) {
        self.dropped.store(frames, Ordering::Release);
    }

    /// The consumer looks how many that are.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }
}

/// How the producer sleeps on what a consumer gives back.
#[derive(Debug, Default)]
pub(super) struct Ear {
    /// `wake` is set, or a wake-up is on its way.
    listens: bool,
    wakes: u64,
}

impl Ear {
    /// Has the consumer wake the producer, or not; true where the producer has to take once more before it sleeps.
    pub(super) fn listen(&mut self, words: &Words, needed: bool) -> bool {
        if self.listens == needed {
            return false;
        }
        self.listens = needed;
        words.wake.store(u32::from(needed), Ordering::Relaxed);
        needed
    }

    /// The consumer has woken the producer: how often it has done that.
    pub(super) fn woken(&mut self) -> u64 {
        self.listens = false;
        self.wakes += 1;
        self.wakes
    }
}

#[cfg(test)]
impl Words {
    fn new() -> Words {
        use crate::sync::{AtomicU32, AtomicU64};
        Words {
            released: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            wake: AtomicU32::new(0),
            dropped: AtomicU64::new(0),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_once_with_what_was_skipped() {
        let words = Words::new();
        words.skip(3);
        assert_eq!(words.take(), Returned { buffers: 0, skipped: 0 }, "it has yet to be given back");
        assert!(!words.give_back(3) && !words.give_back(63));
        assert_eq!(words.take(), Returned { buffers: 1 << 63 | 1 << 3, skipped: 1 << 3 });
        assert!(!words.give_back(3));
        assert_eq!(words.take(), Returned { buffers: 1 << 3, skipped: 0 });
    }

    #[test]
    fn who_listens_is_woken_once() {
        let (words, mut ear) = (Words::new(), Ear::default());
        assert!(ear.listen(&words, true), "something may have been given back before");
        assert!(!ear.listen(&words, true));
        assert_eq!([words.give_back(0), words.give_back(1)], [true, false]);
        assert_eq!(ear.woken(), 1);
        assert!(ear.listen(&words, true));
        assert!(!ear.listen(&words, false));
        assert!(!words.give_back(2), "nobody listens any more");
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::{Ear, Words};

    /// The socket: wake-ups on their way.
    #[derive(Default)]
    struct Socket(Mutex<u64>, Condvar);

    impl Socket {
        fn wake(&self) {
            *self.0.lock().unwrap() += 1;
            self.1.notify_one();
        }

        fn sleep(&self) {
            let mut coming = self.0.lock().unwrap();
            while *coming == 0 {
                coming = self.1.wait(coming).unwrap();
            }
            *coming -= 1;
        }
    }

    /// A producer that sleeps whenever it has taken all there is; loom finds the sleep that nobody ends.
    #[test]
    fn loom_each_buffer_is_taken_once_and_none_is_slept_through() {
        loom::model(|| {
            let (words, socket) = (Arc::new(Words::new()), Arc::new(Socket::default()));
            let threads: Vec<_> = (0..2)
                .map(|index| {
                    let (words, socket) = (words.clone(), socket.clone());
                    thread::spawn(move || {
                        if words.give_back(index) {
                            socket.wake();
                        }
                    })
                })
                .collect();
            let (mut ear, mut back) = (Ear::default(), 0_u64);
            let take = |back: &mut u64| {
                let taken = words.take().buffers;
                assert_eq!(*back & taken, 0, "taken twice");
                *back |= taken;
            };
            while back != 0b11 {
                if ear.listen(&words, true) {
                    take(&mut back);
                    continue;
                }
                socket.sleep();
                let wakes = ear.woken();
                take(&mut back);
                assert!(wakes <= u64::from(back.count_ones()), "more wake-ups than buffers");
            }
            threads.into_iter().for_each(|t| t.join().unwrap());
        });
    }
}
