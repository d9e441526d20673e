//! What an importer made of a buffer (a GEM handle and frame buffer, an EGLImage), made once and kept with it.
//!
//! Importing a dma-buf for each frame works for hours and then stalls. So an importer keeps an [`ImportCache`]: the
//! first sight of a buffer imports it, later ones find the result without a lock. The result hangs on the buffer
//! itself and dies with it; the cache holds weak handles and keeps no buffer alive. No key is ever an fd number.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::buffer::{BufferId, Shrbuf, WeakShrbuf};

static NEXT_CONSUMER: AtomicU64 = AtomicU64::new(1);

/// A number for somebody who attaches; never given twice.
pub(crate) fn next_consumer() -> u64 {
    NEXT_CONSUMER.fetch_add(1, Ordering::Relaxed)
}

struct Entry<T> {
    id: BufferId,
    buffer: WeakShrbuf,
    import: Weak<T>,
}

/// One importer's results, keyed by buffer.
///
/// ```
/// use shrbuf::{exporter::Memfd, Format, ImportCache, Layout};
/// let buffer = Memfd::new("frame").allocate(&Layout::linear(Format::Grey, 8, 8, 1)?)?;
/// let mut cache = ImportCache::new();
/// for _frame in 0..3 {
///     let bytes = cache.get(&buffer, |b| Ok::<u64, std::io::Error>(b.layout().frame_bytes()))?;
///     assert_eq!(*bytes, 64);
/// }
/// assert_eq!((cache.hits(), cache.misses()), (2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ImportCache<T> {
    consumer: u64,
    entries: Vec<Entry<T>>,
    hits: u64,
    misses: u64,
}

impl<T: Any + Send + Sync> Default for ImportCache<T> {
    fn default() -> Self {
        ImportCache::new()
    }
}

impl<T: Any + Send + Sync> ImportCache<T> {
    /// An empty cache of a new importer.
    pub fn new() -> ImportCache<T> {
        ImportCache { consumer: next_consumer(), entries: Vec::new(), hits: 0, misses: 0 }
    }

    /// What `import` made of `buffer`, now or earlier. A hit takes no lock and allocates nothing.
    ///
    /// # Errors
    /// Those of `import`.
    pub fn get<E>(&mut self, buffer: &Shrbuf, import: impl FnOnce(&Shrbuf) -> Result<T, E>) -> Result<Arc<T>, E> {
        let found = self.entries.iter().find(|e| e.id == buffer.id());
        if let Some(hit) = found.and_then(|e| e.import.upgrade()) {
            self.hits += 1;
            return Ok(hit);
        }
        self.misses += 1;
        self.entries.retain(|e| !e.buffer.is_gone());
        let new = Arc::new(import(buffer)?);
        buffer.attach(self.consumer, new.clone());
        self.entries.push(Entry { id: buffer.id(), buffer: buffer.downgrade(), import: Arc::downgrade(&new) });
        Ok(new)
    }

    /// Times a buffer was known.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Times a buffer had to be imported. Grows on the steady path only if somebody upstream makes new buffers.
    pub fn misses(&self) -> u64 {
        self.misses
    }

    /// Undoes every import that nobody else holds.
    pub fn clear(&mut self) {
        for e in self.entries.drain(..) {
            e.buffer.detach(self.consumer);
        }
    }
}

impl<T> Drop for ImportCache<T> {
    fn drop(&mut self) {
        for e in &self.entries {
            e.buffer.detach(self.consumer);
        }
    }
}
