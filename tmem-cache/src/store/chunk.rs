//! A chunk as it is stored: what it was, how it is coded, where its bytes are.

use std::borrow::Cow;
use std::sync::Arc;

use shrbuf::{Format, Layout};

use super::error::GetError;
use super::pool_state::PoolState;
use super::reference::SharedReference;
use super::stats::{add, sub};
use crate::codec::Picture;
use crate::file_tier::{Found, Label, Record};
use crate::sys::segment::Extent;

/// How a chunk is coded, and what its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Bytes as they were.
    Raw,
    /// Bytes, on the way in.
    Lz4,
    /// Bytes, by the dense tier.
    Zstd,
    /// A frame, by the frame codec.
    Frame { format: Format, width: u32, height: u32, dense: bool },
}

impl Coding {
    /// The picture of a frame.
    pub(crate) fn picture(self) -> Option<Picture> {
        let Coding::Frame { format, width, height, .. } = self else { return None };
        Picture::of(&Layout::linear(format, width, height, 1).ok()?).ok()
    }

    pub(crate) fn is_dense(self) -> bool {
        matches!(self, Coding::Zstd | Coding::Frame { dense: true, .. })
    }

    pub(crate) fn name(self) -> String {
        match self {
            Coding::Frame { format, width, height, .. } => format!("a {format} frame of {width}x{height}"),
            _ => "bytes".to_owned(),
        }
    }
}

/// The stored bytes as they were when the chunk was put: what tells the same chunk again, whatever its form is by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    coding: Coding,
    len: u32,
    /// Both halves.
    hash: [u64; 2],
}

impl Arrival {
    /// What it is looked for by.
    pub(crate) fn key(&self) -> u64 {
        self.hash[0]
    }
}

/// What the stored bytes are, wherever they lie.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub coding: Coding,
    pub original: u32,
    /// Of the stored bytes: what tells a damaged one.
    pub hash: u64,
    pub arrival: Arrival,
    /// What a frame is predicted from; only in memory.
    pub reference: Option<Arc<SharedReference>>,
}

impl Form {
    /// That of a chunk that arrives as these bytes.
    pub(crate) fn of(coding: Coding, original: u32, stored: &[u8], reference: Option<Arc<SharedReference>>) -> Form {
        Form::arrived(coding, original, stored.len() as u32, hash_both(stored), reference)
    }

    /// That of a durable chunk of an earlier life, which is as it arrived.
    pub(crate) fn found(found: &Found) -> Form {
        let Label { coding, original, .. } = found.label;
        Form::arrived(coding, original, found.bytes.len() as u32, found.hash, None)
    }

    fn arrived(
        coding: Coding,
        original: u32,
        len: u32,
        hash: [u64; 2],
        reference: Option<Arc<SharedReference>>,
    ) -> Form {
        let arrival = Arrival { coding, len, hash };
        Form { coding, original, hash: hash[0], arrival, reference }
    }

    /// True where both arrived as the same bytes, which mean the same.
    pub(crate) fn is_same(&self, other: &Form) -> bool {
        let at = |form: &Form| form.reference.as_ref().map(Arc::as_ptr);
        self.arrival == other.arrival && self.original == other.original && at(self) == at(other)
    }
}

/// Where the bytes are: in memory, in a file, or both. Of a durable pool they are always in a file too, in the record of
/// whichever handle they came for first; each handle's own is in its entry.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub memory: Option<Extent>,
    pub file: Option<Arc<Record>>,
    pub form: Form,
    pool: Arc<PoolState>,
}

impl Chunk {
    pub(crate) fn new(pool: &Arc<PoolState>, form: Form, memory: Option<Extent>, file: Option<Arc<Record>>) -> Chunk {
        add(&pool.counters.bytes_compressed, memory.as_ref().map_or(0, Extent::len) as u64);
        add(&pool.counters.bytes_file, file.as_ref().map_or(0, |r| r.len()) as u64);
        let chunk = Chunk { memory, file, form, pool: pool.clone() };
        add(&pool.stored, chunk.len() as u64);
        add(&pool.original, chunk.form.original.into());
        chunk
    }

    /// Stored bytes, wherever they lie.
    pub(crate) fn len(&self) -> usize {
        let in_file = || self.file.as_ref().map_or(0, |r| r.len());
        self.memory.as_ref().map_or_else(in_file, Extent::len)
    }

    /// The stored bytes, checked, but for frames in memory. **Blocks** on a read where they are in a file.
    ///
    /// # Errors
    /// [`GetError::Corrupt`], [`GetError::Io`], [`GetError::NoMemory`].
    pub(crate) fn stored(&self) -> Result<Cow<'_, [u8]>, GetError> {
        let bytes = match (&self.memory, &self.file) {
            (Some(extent), _) => extent.bytes().ok_or(GetError::NoMemory { bytes: extent.len() })?,
            (None, Some(record)) => Cow::Owned(record.read()?),
            (None, None) => return Err(GetError::Corrupt { reason: "it has no place".to_owned() }),
        };
        // The stripes of a frame have checksums of their own, which its decoder minds; a file's are minded before it.
        let minded = self.memory.is_some() && matches!(self.form.coding, Coding::Frame { .. });
        if !minded && hash(&bytes) != self.form.hash {
            return Err(GetError::Corrupt { reason: format!("checksum of {} stored bytes", bytes.len()) });
        }
        Ok(bytes)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.pool.forget(&self.form);
        sub(&self.pool.stored, self.len() as u64);
        sub(&self.pool.original, self.form.original.into());
        sub(&self.pool.counters.bytes_compressed, self.memory.as_ref().map_or(0, Extent::len) as u64);
        sub(&self.pool.counters.bytes_file, self.file.as_ref().map_or(0, |r| r.len()) as u64);
    }
}

/// Of stored bytes: what tells the same chunk.
pub(crate) fn hash_both(bytes: &[u8]) -> [u64; 2] {
    let hash = xxhash_rust::xxh3::xxh3_128(bytes);
    [hash as u64, (hash >> 64) as u64]
}

/// The low half of that, so that a put hashes once.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    hash_both(bytes)[0]
}
