//! The address of a chunk inside one pool.

use std::fmt;

/// 192 bits that name an object: a file, a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ObjectId(pub [u64; 3]);

impl From<u64> for ObjectId {
    fn from(id: u64) -> ObjectId {
        ObjectId([0, 0, id])
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}{:016x}", self.0[0], self.0[1], self.0[2])
    }
}

/// Object id and index. Unique within a pool, never across pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Handle {
    /// The object.
    pub object: ObjectId,
    /// A page, a frame number.
    pub index: u32,
}

impl Handle {
    /// Chunk `index` of `object`.
    pub fn new(object: impl Into<ObjectId>, index: u32) -> Handle {
        Handle { object: object.into(), index }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.object, self.index)
    }
}

/// When a chunk was, and how long it lasts: what "seconds held" is counted in. Zeroes where nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Nanoseconds of the stream's clock.
    pub at_ns: u64,
    /// Nanoseconds.
    pub duration_ns: u64,
}
