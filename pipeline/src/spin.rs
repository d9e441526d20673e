//! Looking again for a moment before a thread sleeps.
//!
//! To sleep and be woken costs a thread and its waker some µs each, in a virtual machine tens of them. Where work comes
//! faster than that, looking again is cheaper; where it does not, all looking is lost. Which of these holds is seen from
//! whether it helped: each time in vain doubles the sleeps until the next try, as KVM does before it halts a processor
//! (Documentation/virt/kvm/halt-polling.rst). A loop whose sleeps are ended by
//! descriptors does not look at all: it would not see those.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};

/// Pauses (of the processor, some tens of ns each) before it sleeps: as long as waking takes where that takes long. Were
/// it less, two threads that wait for each other in turn would never find the other awake.
const PAUSES: u32 = 4000;
/// Pauses between two looks, at most. Each look takes a cache line from whoever is bringing the work; meanwhile more of
/// it comes together.
const LONGEST: u32 = 64;
/// Sleeps between two tries, at most: of a camera's frames, one in a quarter of a minute.
const FEWEST: u32 = 1023;

/// For one thread, which sleeps; atomic so that it can lie beside what others use.
#[derive(Debug)]
pub(crate) struct Spin {
    /// Sleeps until the next try.
    skip: AtomicU32,
    /// Sleeps skipped after the last one in vain.
    skipped: AtomicU32,
}

impl Spin {
    pub(crate) fn new() -> Spin {
        // With one processor, whoever is to bring work cannot run while we look.
        let alone = std::thread::available_parallelism().is_ok_and(|n| n.get() == 1);
        Spin { skip: AtomicU32::new(if alone { u32::MAX } else { 0 }), skipped: AtomicU32::new(0) }
    }

    /// True when `ready`, which is told the pauses so far, has become so; false when it is time to sleep.
    pub(crate) fn until(&self, ready: impl Fn(u32) -> bool) -> bool {
        match self.skip.load(Ordering::Relaxed) {
            0 => {}
            u32::MAX => return false,
            n => {
                self.skip.store(n - 1, Ordering::Relaxed);
                return false;
            }
        }
        let (mut spent, mut pauses) = (0, 1);
        while spent < PAUSES {
            if ready(spent) {
                self.skipped.store(0, Ordering::Relaxed);
                return true;
            }
            (0..pauses).for_each(|_| spin_loop());
            spent += pauses;
            pauses = (2 * pauses).min(LONGEST);
        }
        let skip = (2 * self.skipped.load(Ordering::Relaxed) + 1).min(FEWEST);
        self.skipped.store(skip, Ordering::Relaxed);
        self.skip.store(skip, Ordering::Relaxed);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of so many sleeps were preceded by a look.
    fn tries(spin: &Spin, sleeps: usize) -> Vec<usize> {
        let looked = AtomicU32::new(0);
        let looks = |_: &usize| {
            let before = looked.load(Ordering::Relaxed);
            let never = |_| {
                looked.fetch_add(1, Ordering::Relaxed);
                false
            };
            assert!(!spin.until(never));
            looked.load(Ordering::Relaxed) > before
        };
        (0..sleeps).filter(looks).collect()
    }

    fn with_company() -> Spin {
        Spin { skip: AtomicU32::new(0), skipped: AtomicU32::new(0) }
    }

    #[test]
    fn what_is_ready_is_seen_at_once() {
        let spin = with_company();
        for _ in 0..10 {
            assert!(spin.until(|_| true));
        }
    }

    #[test]
    fn each_time_in_vain_doubles_the_sleeps_until_the_next() {
        assert_eq!(tries(&with_company(), 64), [0, 2, 6, 14, 30, 62]);
    }

    #[test]
    fn there_is_an_end_to_the_doubling() {
        let spin = with_company();
        tries(&spin, 10_000);

        let again = tries(&spin, 3 * (FEWEST as usize + 1));

        assert_eq!(again.len(), 3);
    }

    #[test]
    fn a_success_starts_it_over() {
        let spin = with_company();
        tries(&spin, 63);
        while !spin.until(|_| true) {}

        assert_eq!(tries(&spin, 7), [0, 2, 6]);
    }

    #[test]
    fn on_one_processor_it_sleeps_at_once() {
        let spin = Spin { skip: AtomicU32::new(u32::MAX), skipped: AtomicU32::new(0) };
        assert!(!spin.until(|_| true));
    }
}
