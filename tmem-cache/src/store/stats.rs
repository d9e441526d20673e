//! What happened and what is held, by pool and in all.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A pool's figures, or the sum of all pools'. Read without stopping anybody, so they may be off by what is
        /// happening just then.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct PoolStats { $($(#[$doc])* pub $name: u64,)*
            /// Bytes of the segments and references it has.
            pub bytes_held: u64,
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub $name: AtomicU64,)* }

        impl Counters {
            pub(crate) fn read(&self) -> PoolStats {
                PoolStats { $($name: self.$name.load(Ordering::Relaxed),)* bytes_held: 0 }
            }
        }

        impl std::ops::AddAssign for PoolStats {
            fn add_assign(&mut self, other: PoolStats) {
                $(self.$name += other.$name;)*
                self.bytes_held += other.bytes_held;
            }
        }
    };
}

counters! {
    /// Puts accepted.
    puts,
    /// Of these, those of a chunk that was stored already.
    puts_same,
    /// Of these, those of frames predicted from a shared reference.
    puts_reference,
    /// Of these, those stored as they were, because they compress poorly.
    puts_raw,
    /// Of these, those that went to the file tier.
    puts_file,
    /// Puts refused for their size.
    refused_size,
    /// Puts refused because they compress poorly.
    refused_poor,
    /// Puts refused for want of room.
    refused_full,
    /// Puts refused by the file tier: device full, write budget, error.
    refused_file,
    /// Puts refused for want of scratch.
    refused_memory,
    /// Puts refused because the frame could not be read or encoded, or the pool was destroyed.
    refused_input,
    /// Gets that brought a chunk.
    hits,
    /// Of these, those from the file tier.
    hits_file,
    /// Gets that found nothing.
    misses,
    /// Gets that found a lease.
    busy,
    /// Chunks found damaged or unreadable, and flushed.
    damaged,
    /// Chunks flushed by their owner.
    flushed,
    /// Chunks evicted because the store or the pool was at its limit.
    evicted_limit,
    /// Chunks evicted because memory was asked back.
    evicted_pressure,
    /// Chunks evicted to thin out old ones.
    evicted_thinned,
    /// Chunks kept by an eviction because somebody had got them, or put them again.
    reinserted,
    /// Chunks moved by compaction.
    compacted,
    /// Chunks that the dense tier made smaller.
    recompressed,
    /// Chunks pushed out to the file tier.
    pushed_out,
    /// Chunks brought back from the file tier.
    brought_back,
    /// Shared references made, each of some frames of a still scene.
    references,
    /// Chunks under handles.
    chunks,
    /// Their bytes as they were put.
    bytes_original,
    /// Bytes they are stored in, in memory, each chunk once.
    bytes_compressed,
    /// Bytes they are stored in, in the file tier.
    bytes_file,
    /// Bytes of shared references, those in the making among them.
    bytes_references,
    /// Nanoseconds that the chunks under handles last.
    held_ns,
}

impl PoolStats {
    /// What happened, without what is held.
    pub(crate) fn events(self) -> PoolStats {
        let (chunks, bytes_original, bytes_compressed, bytes_file) = (0, 0, 0, 0);
        let (bytes_references, held_ns, bytes_held) = (0, 0, 0);
        PoolStats {
            chunks,
            bytes_original,
            bytes_compressed,
            bytes_file,
            bytes_references,
            held_ns,
            bytes_held,
            ..self
        }
    }

    /// Puts refused, for whatever reason.
    pub fn refused(&self) -> u64 {
        self.refused_size
            + self.refused_poor
            + self.refused_full
            + self.refused_file
            + self.refused_memory
            + self.refused_input
    }

    /// Seconds of video held.
    pub fn seconds_held(&self) -> f64 {
        self.held_ns as f64 / 1e9
    }

    /// Seconds of video that `room` bytes would hold, at the ratio of what is held now; 0 where nothing is.
    pub fn seconds_predicted(&self, room: u64) -> f64 {
        let stored = self.bytes_compressed + self.bytes_file + self.bytes_references;
        if stored == 0 { 0.0 } else { self.seconds_held() * room as f64 / stored as f64 }
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// So many more.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

/// So many less.
pub(crate) fn sub(counter: &AtomicU64, n: u64) {
    counter.fetch_sub(n, Ordering::Relaxed);
}
