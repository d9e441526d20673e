//! A destructive get in two steps: the chunk leaves the store when the caller adopts it, and stays if the lease is dropped.

use std::sync::Arc;

use shrbuf::Shrbuf;

use super::Pool;
use super::chunk::Chunk;
use super::coder::Target;
use super::error::{GetError, LeaseLost};
use super::handle::Stamp;
use super::index::{Key, Resident};

/// A chunk, exclusively held. What others see meanwhile:
/// - a get is [`GetError::Leased`]: neither a hit nor a miss, because it is not settled which it will be;
/// - a put or a flush goes through, and the lease is lost: [`Lease::adopt`] says so, and what was read is void;
/// - eviction passes the chunk over.
///
/// ```
/// use tmem_cache::store::{Handle, PoolOptions, Sharing, Stamp, Store, StoreOptions};
/// let store = Store::new(&StoreOptions::new(16 << 20))?;
/// let pool = store.pool(PoolOptions::ephemeral(Sharing::Private))?;
/// let handle = Handle::new(7, 0);
/// pool.put(handle, b"a frame", Stamp::default())?;
///
/// let mut bytes = [0; 7];
/// drop(pool.lease(handle)?);
/// let lease = pool.lease(handle)?.expect("it stayed");
/// lease.read(&mut bytes)?;
/// lease.adopt()?;
/// assert_eq!(&bytes, b"a frame");
/// assert!(pool.lease(handle)?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Lease<'a> {
    pub(super) pool: &'a Pool,
    pub(super) key: Key,
    pub(super) chunk: Arc<Resident<Chunk>>,
    pub(super) stamp: Stamp,
    pub(super) version: u64,
    pub(super) ended: bool,
}

impl Lease<'_> {
    /// Bytes of the chunk.
    pub fn bytes(&self) -> usize {
        self.chunk.value.form.original as usize
    }

    /// The stamp it was put with.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Copies the chunk out; bytes written. It is the caller's only after [`Lease::adopt`].
    ///
    /// # Errors
    /// [`GetError`]; a damaged chunk has been flushed then.
    pub fn read(&self, into: &mut [u8]) -> Result<usize, GetError> {
        self.pool.copy_out(self.key, &self.chunk, self.version, &mut Target::Bytes(into))
    }

    /// As [`Lease::read`], a frame into a buffer of its format and size.
    ///
    /// # Errors
    /// As [`Lease::read`].
    pub fn read_frame(&self, into: &mut Shrbuf) -> Result<(), GetError> {
        self.pool.copy_out(self.key, &self.chunk, self.version, &mut Target::Frame(into)).map(drop)
    }

    pub(super) fn read_to(&self, target: &mut Target<'_>) -> Result<usize, GetError> {
        self.pool.copy_out(self.key, &self.chunk, self.version, target)
    }

    /// The chunk leaves the store.
    ///
    /// # Errors
    /// [`LeaseLost`].
    pub fn adopt(mut self) -> Result<(), LeaseLost> {
        self.ended = true;
        let entry = self.pool.store().index.take(self.key, self.version).ok_or(LeaseLost)?;
        self.pool.hit(&self.chunk.value);
        self.pool.forget(entry);
        Ok(())
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.pool.store().index.unlease(self.key, self.version);
        }
    }
}
