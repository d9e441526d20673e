//! Why a put, a get, a pool or a store is not to be had.

use std::io;

/// Why a put was refused. A chunk that was there under the handle has been flushed then.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// No bytes, or more than a chunk may have.
    #[error("a chunk has 1 byte to 256 MiB; {bytes} given")]
    Size {
        /// Bytes given.
        bytes: usize,
    },
    /// It compresses poorly and the pool refuses such chunks.
    #[error("{bytes} bytes compress to {stored}, which this pool's admission refuses; let it store them raw")]
    Poor {
        /// Bytes given.
        bytes: usize,
        /// Bytes compressed.
        stored: usize,
    },
    /// No memory, and nothing that may be dropped or pushed out.
    #[error("no room for {stored} bytes: raise the limit or quota, flush, or give the store a file tier")]
    Full {
        /// Bytes compressed; as they were, where a full pool did not even compress them.
        stored: usize,
    },
    /// The file tier did not take it.
    #[error("the file tier did not take {stored} bytes: {source}")]
    File {
        /// Bytes compressed.
        stored: usize,
        /// Why.
        source: crate::file_tier::FileError,
    },
    /// No memory for scratch.
    #[error("no memory for {bytes} bytes of scratch")]
    NoMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The frame is none that the codec takes.
    #[error(transparent)]
    Encode(#[from] crate::codec::EncodeError),
    /// The layout is none that the codec takes.
    #[error(transparent)]
    Picture(#[from] crate::codec::PictureError),
    /// The frame's memory cannot be read.
    #[error(transparent)]
    Access(#[from] shrbuf::AccessError),
    /// The pool has been destroyed.
    #[error("the pool has been destroyed")]
    Destroyed,
}

/// Why a get brought nothing, other than that there is nothing.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// Somebody holds a lease of the chunk, so it is neither here nor gone. Ask again once the lease has ended.
    #[error("the chunk is leased; ask again when the lease has ended")]
    Leased,
    /// The memory named is too small. The chunk stays.
    #[error("the chunk has {needed} bytes, the memory named has {given}")]
    TooSmall {
        /// Bytes of the chunk.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// Bytes asked for as a frame, or a frame as another kind. The chunk stays.
    #[error("the chunk is {found}, asked for {asked}")]
    OtherKind {
        /// What it is.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// No idle buffer in the pool named. The chunk stays.
    #[error("no idle buffer in the pool; drop some")]
    NoBuffer,
    /// The buffer cannot be written. The chunk stays.
    #[error(transparent)]
    Access(#[from] shrbuf::AccessError),
    /// No memory for scratch. The chunk stays.
    #[error("no memory for {bytes} bytes of scratch")]
    NoMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The chunk is damaged. It has been flushed; later gets miss.
    #[error("the chunk was damaged and has been flushed: {reason}")]
    Corrupt {
        /// What did not fit.
        reason: String,
    },
    /// The file tier could not read it. It has been flushed; later gets miss.
    #[error("the file tier could not read the chunk, which has been flushed: {0}")]
    Io(#[from] io::Error),
}

/// A lease that ended otherwise while it was held: the chunk was put anew or flushed, so what was read of it is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunk was put anew or flushed while the lease was held; discard what was read of it")]
pub struct LeaseLost;

/// Why there is no store or no pool.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel gave no address space.
    #[error("no {bytes} bytes of address space: {source}; lower the limit, or see ulimit -v and vm.overcommit_memory")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file tier does not open.
    #[error(transparent)]
    File(#[from] crate::file_tier::FileError),
    /// `durable` was asked for without what it takes.
    #[error(
        "a durable pool is persistent, in a store with a file tier, under a name no other pool has; `{name}` is not"
    )]
    NotDurable {
        /// Name asked for.
        name: String,
    },
}
