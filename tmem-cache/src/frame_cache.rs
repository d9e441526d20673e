//! A front end of the kind of cleancache: decoded frames that can be fetched again from their origin.
//!
//! A frame that is wanted comes out of the store if it is still there, and is fetched again, decoded or read, if it is
//! not. So the store may drop any of them at any time, and nothing is lost but the time to fetch it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use shrbuf::Shrbuf;

use crate::store::{Handle, OpenError, Pool, PoolOptions, Sharing, Stamp, Store};

/// How often a frame was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameCacheStats {
    /// Frames that came out of the store.
    pub hits: u64,
    /// Frames that were not there: never put, dropped, or refused.
    pub misses: u64,
    /// Of these, those that their origin gave.
    pub refetches: u64,
}

/// Frames by handle, each as its origin gave it. May be used by several threads.
///
/// ```
/// use shrbuf::{exporter::Memfd, Format, Layout};
/// use tmem_cache::FrameCache;
/// use tmem_cache::store::{Handle, Store, StoreOptions};
///
/// let cache = FrameCache::new(&Store::new(&StoreOptions::new(16 << 20))?, 1)?;
/// let mut buffer = Memfd::new("example").allocate(&Layout::linear(Format::Grey, 64, 48, 1)?)?;
/// for _ in 0..3 {
///     cache.fill::<std::io::Error>(Handle::new(1, 7), &mut buffer, |buffer| {
///         // Decode frame 7 into the buffer; only the first time.
///         Ok(true)
///     })?;
/// }
/// assert_eq!((cache.stats().hits, cache.stats().refetches), (2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FrameCache {
    pool: Pool,
    /// Counts what was forgotten. Held for reading by those who put what they fetched, so that none of it is put after a
    /// frame of that time was forgotten.
    generation: RwLock<u64>,
    hits: AtomicU64,
    misses: AtomicU64,
    refetches: AtomicU64,
}

impl FrameCache {
    /// A cache in an ephemeral pool of its own in `store`; `weight` is its share of a full store, relative to others'.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn new(store: &Store, weight: u32) -> Result<FrameCache, OpenError> {
        // Shared, so that a get leaves the frame: what was looked at once is often looked at again.
        let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared).weight(weight))?;
        let [hits, misses, refetches] = [0; 3].map(AtomicU64::new);
        Ok(FrameCache { pool, generation: RwLock::new(0), hits, misses, refetches })
    }

    /// Writes the frame under `handle` into `buffer`: out of the store, or by `fetch`, whose frame is put then. `fetch`
    /// gives false where there is no such frame; so does this. **Blocks** for the decoding or the fetch and the put.
    ///
    /// A frame of the store that does not fit the buffer, or is damaged, is fetched again: nothing of it is seen.
    ///
    /// # Errors
    /// That of `fetch`.
    pub fn fill<E>(
        &self,
        handle: Handle,
        buffer: &mut Shrbuf,
        fetch: impl FnOnce(&mut Shrbuf) -> Result<bool, E>,
    ) -> Result<bool, E> {
        if let Ok(Some(_)) = self.pool.get_frame(handle, buffer) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(true);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let before = *self.generation.read().unwrap_or_else(PoisonError::into_inner);
        if !fetch(buffer)? {
            return Ok(false);
        }
        self.refetches.fetch_add(1, Ordering::Relaxed);
        let generation = self.generation.read().unwrap_or_else(PoisonError::into_inner);
        // Else the origin may have changed since it was fetched.
        if *generation == before {
            // A store may refuse any put, and counts it; the frame is fetched again then.
            let _ = self.pool.put_frame(handle, buffer, Stamp::default());
        }
        Ok(true)
    }

    /// Forgets a frame, whose origin has changed: no [`FrameCache::fill`] that begins after this brings what was before.
    /// **Blocks** for the end of puts.
    pub fn forget(&self, handle: Handle) {
        *self.generation.write().unwrap_or_else(PoisonError::into_inner) += 1;
        self.pool.flush(handle);
    }

    /// How often a frame was there.
    pub fn stats(&self) -> FrameCacheStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FrameCacheStats { hits: get(&self.hits), misses: get(&self.misses), refetches: get(&self.refetches) }
    }

    /// Where its frames are, for its figures.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use shrbuf::exporter::Memfd;
    use shrbuf::{Format, Layout};

    use super::*;
    use crate::store::StoreOptions;

    #[test]
    fn frame_that_is_forgotten_while_it_is_fetched_is_fetched_again() {
        let cache = FrameCache::new(&Store::new(&StoreOptions::new(16 << 20)).unwrap(), 1).unwrap();
        let layout = Layout::linear(Format::Grey, 64, 48, 1).unwrap();
        let mut buffer = Memfd::new("test").allocate(&layout).unwrap();
        let handle = Handle::new(1, 1);
        let mut fetched = 0;
        for changes in [true, false, false] {
            let fetch = |_: &mut Shrbuf| {
                fetched += 1;
                if changes {
                    cache.forget(handle);
                }
                Ok::<_, std::io::Error>(true)
            };
            assert!(cache.fill(handle, &mut buffer, fetch).unwrap());
        }
        assert_eq!((fetched, cache.stats().hits), (2, 1));
    }
}
