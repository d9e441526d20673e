//! A set of up to 64 buffer indices in one word: the idle buffers of a pool.

use crate::sync::{AtomicU64, Ordering};

/// On a cache line of its own: it changes hands twice a frame where a buffer is given back on another thread than it is
/// taken on, and would take its neighbours along.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct IdleSet(AtomicU64);

impl Default for IdleSet {
    fn default() -> IdleSet {
        IdleSet(AtomicU64::new(0))
    }
}

impl IdleSet {
    /// Adds `index`; whoever removes it sees what was written before.
    pub(crate) fn insert(&self, index: usize) {
        self.0.fetch_or(1 << index, Ordering::Release);
    }

    /// Removes `index`; true for the one caller who did.
    pub(crate) fn remove(&self, index: usize) -> bool {
        self.0.fetch_and(!(1 << index), Ordering::Acquire) & (1 << index) != 0
    }

    /// Removes the lowest index.
    pub(crate) fn remove_any(&self) -> Option<usize> {
        loop {
            let set = self.0.load(Ordering::Relaxed);
            if set == 0 {
                return None;
            }
            let index = set.trailing_zeros() as usize;
            if self.remove(index) {
                return Some(index);
            }
        }
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        self.0.load(Ordering::Relaxed) & (1 << index) != 0
    }

    pub(crate) fn len(&self) -> usize {
        self.0.load(Ordering::Relaxed).count_ones() as usize
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn lowest_index_is_removed_first() {
        let set = IdleSet::default();
        [63, 5, 0].into_iter().for_each(|i| set.insert(i));
        assert_eq!(
            [set.remove_any(), set.remove_any(), set.remove_any(), set.remove_any()],
            [Some(0), Some(5), Some(63), None]
        );
    }

    #[test]
    fn index_is_removed_once() {
        let set = IdleSet::default();
        set.insert(7);
        assert!(set.contains(7));
        assert!(set.remove(7));
        assert!(!set.remove(7));
        assert_eq!(set.len(), 0);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::IdleSet;

    struct Shared {
        set: IdleSet,
        slots: [UnsafeCell<u32>; 2],
    }
    // SAFETY: loom reports every access to a slot that is not ordered; that is what the model is for.
    unsafe impl Sync for Shared {}

    fn touch(shared: &Shared, index: usize) {
        // SAFETY: loom checks that no other access is concurrent.
        shared.slots[index].with_mut(|p| unsafe { *p += 1 });
    }

    #[test]
    fn loom_each_index_goes_to_one_thread_with_its_writes() {
        loom::model(|| {
            let shared = Arc::new(Shared { set: IdleSet::default(), slots: [UnsafeCell::new(0), UnsafeCell::new(0)] });
            let threads: Vec<_> = (0..2)
                .map(|index| {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        touch(&shared, index);
                        shared.set.insert(index);
                        let got = shared.set.remove_any();
                        got.into_iter().for_each(|got| touch(&shared, got));
                        got
                    })
                })
                .collect();
            let got: Vec<_> = threads.into_iter().filter_map(|t| t.join().unwrap()).collect();
            // Each put one in before looking, so each finds one; never the same.
            assert_eq!(got.len(), 2);
            assert_ne!(got[0], got[1]);
            assert_eq!(shared.set.len(), 0);
        });
    }
}
