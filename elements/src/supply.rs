//! Buffers to be filled, for elements that make pictures: a pool that wakes who found it empty.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use shrbuf::{Pool, Shrbuf};
use shrbuf_pipeline::{Failure, FailureKind, Start, Waker};

/// A pool, and whether somebody waits for it.
pub(crate) struct Supply {
    pool: Pool,
    starving: Arc<AtomicBool>,
}

impl Supply {
    /// Of these buffers: `waker` is for who found none, and `ready(fences)` is called for [`Supply::reap`].
    pub(crate) fn new(
        buffers: Vec<Shrbuf>,
        waker: Waker,
        fences: u32,
        start: &mut Start<'_>,
    ) -> Result<Supply, Failure> {
        let starving = Arc::new(AtomicBool::new(false));
        let hungry = Arc::clone(&starving);
        let pool = Pool::new(buffers, move |_| {
            // Pairs with the fence in `take_or_be_woken`: either we see it starving, or it sees the buffer.
            fence(Ordering::SeqCst);
            if hungry.load(Ordering::Relaxed) && hungry.swap(false, Ordering::Relaxed) {
                waker.wake();
            }
        });
        let pool = pool.map_err(|e| Failure::new(FailureKind::Limit, e))?;
        let watched = pool.fences_fd().try_clone_to_owned().map_err(|e| Failure::new(FailureKind::Limit, e))?;
        start.watch(watched, fences)?;
        Ok(Supply { pool, starving })
    }

    /// An idle buffer, if there is one.
    pub(crate) fn take(&self) -> Option<Shrbuf> {
        self.pool.acquire()
    }

    /// An idle buffer, or else the waker is called once there is one.
    pub(crate) fn take_or_be_woken(&self) -> Option<Shrbuf> {
        self.pool.acquire().or_else(|| {
            // A buffer that comes back from here on wakes us; one that did just before is found by looking again.
            self.starving.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let found = self.pool.acquire();
            if found.is_some() {
                self.starving.store(false, Ordering::Relaxed);
            }
            found
        })
    }

    /// Takes back the buffers whose fences have signalled.
    pub(crate) fn reap(&self) -> Result<(), Failure> {
        self.pool.reap().map_err(|e| Failure::new(FailureKind::Device, e))
    }
}
