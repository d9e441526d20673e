//! A set of up to 64 buffer indices in one word: the idle buffers of a pool.

use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
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
