//! The count of a buffer's references, with a state for "nobody has it".

use crate::sync::{AtomicU32, Ordering, fence};

/// 0 is idle: the buffer is with its pool or producer. `take` makes the first reference, `get` and `put` the rest.
#[derive(Debug)]
pub(crate) struct Refs(AtomicU32);

impl Refs {
    pub(crate) fn held() -> Refs {
        Refs(AtomicU32::new(1))
    }

    /// From idle to one reference; false where somebody holds it.
    pub(crate) fn take(&self) -> bool {
        self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// One more. The caller holds one, so it cannot be idle.
    pub(crate) fn get(&self) {
        overflow_aborts(self.0.fetch_add(1, Ordering::Relaxed));
    }

    /// One more unless idle, for those who hold only a weak handle.
    pub(crate) fn try_get(&self) -> bool {
        let mut n = self.0.load(Ordering::Relaxed);
        while n != 0 {
            overflow_aborts(n);
            match self.0.compare_exchange_weak(n, n + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => n = now,
            }
        }
        false
    }

    /// One less, by someone who holds one; true for whoever dropped the last, who now sees every write made under any reference.
    pub(crate) fn put(&self) -> bool {
        if self.0.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            return true;
        }
        false
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// As in std's Arc: leaking 2^31 handles is a bug that must not wrap into an early release.
fn overflow_aborts(count: u32) {
    if count > u32::MAX / 2 {
        std::process::abort();
    }
}
