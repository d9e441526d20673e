//! The store: pools of chunks under handles.
//!
//! # How am I supposed to use this?
//! Make a [`Store`] with the most memory it may take, and a [`Pool`] for each client. [`Pool::put`] copies a chunk in and
//! may be refused; [`Pool::get`] copies it out, if it is still there. The contract is that of transcendent memory: the
//! caller cannot list what is there and must ask for every chunk.
//!
//! ```
//! use tmem_cache::store::{Handle, PoolOptions, Sharing, Stamp, Store, StoreOptions};
//! let store = Store::new(&StoreOptions::new(64 << 20))?;
//! let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared))?;
//! pool.put(Handle::new(1, 0), &[7; 5000], Stamp::default())?;
//! let mut bytes = [0; 5000];
//! match pool.get(Handle::new(1, 0), &mut bytes)? {
//!     Some(got) => assert_eq!((got.bytes, bytes), (5000, [7; 5000])),
//!     None => println!("gone: fetch it again"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Coherency, under any number of threads
//! - get-get: once a get misses, later gets miss, until a put. A chunk that moves (compaction, recompression, file tier)
//!   is there at every moment; one that is found damaged is flushed before the get returns.
//! - put-put-get: a put counts from when it is published, which is before it returns; a get that begins after that never
//!   returns the chunk that was there before.
//! - duplicate put: a refused put flushes what was there.
//!
//! # Memory
//! Segments of 4 MiB in one mapping, written from start to end. A segment is kept by the chunks in it and by nothing else, so
//! eviction takes entries out of the index, and readers keep what they are reading. Those of ephemeral pools go whole. In
//! those of persistent pools a chunk that goes leaves a hole, which the next one that fits fills; what does not, or where
//! none comes, is closed by moving a segment's chunks to the holes of others.
//!
//! Beyond the sum of compressed sizes a store of 512 MiB and more takes at most 3 % at steady state for chunks of 16 KiB and
//! more, all told (`tests/store_overhead.rs` measures it): about 270 bytes of heap a chunk, a two-hundredth of a persistent
//! pool's memory in holes where upkeep runs, and of each pool two segments that are not full yet (of a persistent one, one),
//! and one more for each halving where old chunks are thinned.
//!
//! Frames of a still scene share a reference ([`PoolOptions::references`]): memory of its own, counted as the store's and
//! the pool's, that goes with the last chunk predicted from it. One is made only where all of a pool take no more than a
//! sixteenth of what it may have. What goes to files is coded anew without it. A get of a chunk whose reference is
//! damaged is a get of a damaged chunk.
//!
//! | module | story |
//! | --- | --- |
//! | `index`, `indices` | handles to chunks; the states of an entry |
//! | `pool_state` | a pool's segments |
//! | `evict` | victims, thinning, reinsertion, compaction |
//! | `scene`, `reference` | the average that frames of a still scene are predicted from |
//! | `tiers` | recompression, pushing out to files and bringing back |
//! | `upkeep` | the thread that does this within a share of a core |

pub(crate) mod chunk;
mod coder;
mod error;
mod evict;
mod handle;
mod index;
mod indices;
mod lease;
pub(crate) mod options;
mod pool;
mod pool_state;
mod reference;
mod scene;
mod stats;
mod tiers;
mod upkeep;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

pub use error::{GetError, LeaseLost, OpenError, PutError};
pub use handle::{Handle, ObjectId, Stamp};
pub use lease::Lease;
pub use options::{Admission, Backing, FileOptions, Life, PoolOptions, Poor, Sharing, StoreOptions};
pub use pool::{Got, MAX_CHUNK, Pool};
pub use stats::PoolStats;
pub use upkeep::{Upkeep, UpkeepStats};

use chunk::{Chunk, Form};
use coder::Coders;
use index::{Index, Key, Resident};
use pool::Owner;
use pool_state::PoolState;

use crate::file_tier::{FileError, FileTier, Found, Label, Record};
use crate::sync::{Mutex, lock};
use crate::sys::segment::{Arena, SEGMENT};

/// Segments beyond the limit that moves may use, so that a full store can compact itself.
const FOR_MOVES: usize = 4;

/// Everything there is, and what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StoreStats {
    /// The sum of all pools; of those that have been dropped, what happened in them.
    pub pools: PoolStats,
    /// Bytes of memory with pages behind them: segments in use, and at most one spare.
    pub bytes_memory: u64,
    /// Bytes of memory it may have just now.
    pub budget: u64,
    /// Bytes of files, holes left out. What is dead becomes a hole in [`Store::maintain`].
    pub bytes_files: u64,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub arena: Arc<Arena>,
    pub index: Index<Chunk>,
    pub coders: Coders,
    pub pools: Mutex<Pools>,
    pub limit: usize,
    pub budget: AtomicUsize,
    pub file: Option<FileTier>,
    /// Which pool upkeep begins with.
    pub turn: AtomicUsize,
}

#[derive(Debug, Default)]
pub(crate) struct Pools {
    pub all: Vec<Weak<PoolState>>,
    /// What happened in those that were dropped.
    dropped: PoolStats,
    /// Durable ones by name, with or without a handle.
    durable: HashMap<String, (Arc<PoolState>, bool)>,
    next: u32,
}

/// A store. Clones are the same one; any thread may use it.
#[derive(Debug, Clone)]
pub struct Store(pub(crate) Arc<Inner>);

impl Store {
    /// A store without pools. **Blocks** on reading the file tier, if there is one.
    ///
    /// # Errors
    /// [`OpenError`]: no address space, or a file tier that does not open.
    pub fn new(options: &StoreOptions) -> Result<Store, OpenError> {
        let segments = (options.limit / SEGMENT).max(2);
        let bytes = segments * SEGMENT;
        // Twice, so that there mostly is a next segment that follows in memory.
        let slots = u32::try_from(2 * (segments + FOR_MOVES)).unwrap_or(u32::MAX);
        let arena = Arena::new(slots, options.backing);
        let arena = arena.map_err(|source| OpenError::Memory { bytes: slots as usize * SEGMENT, source })?;
        let file = options.file.as_ref().map(FileTier::open).transpose()?;
        Ok(Store(Arc::new(Inner {
            arena,
            index: Index::new(),
            coders: Coders::new(&options.ledger),
            pools: Mutex::default(),
            limit: bytes,
            budget: AtomicUsize::new(bytes),
            file,
            turn: AtomicUsize::new(0),
        })))
    }

    /// A new pool, or the durable one of that name with the chunks it had.
    ///
    /// # Errors
    /// [`OpenError::NotDurable`].
    pub fn pool(&self, options: PoolOptions) -> Result<Pool, OpenError> {
        let mut pools = lock(&self.0.pools);
        pools.all.retain(|p| p.strong_count() > 0);
        let id = pools.next;
        let Some(name) = options.durable.clone() else {
            pools.next += 1;
            let state = Arc::new(PoolState::new(id, options));
            pools.all.push(Arc::downgrade(&state));
            return Ok(Pool(Arc::new(Owner { store: self.0.clone(), state })));
        };
        let possible = options.life == Life::Persistent && self.0.file.is_some();
        if !possible || pools.durable.get(&name).is_some_and(|(_, open)| *open) {
            return Err(OpenError::NotDurable { name });
        }
        let known = pools.durable.get(&name).map(|(state, _)| state.clone());
        let new = known.is_none();
        let state = known.unwrap_or_else(|| Arc::new(PoolState::new(id, options)));
        if new {
            pools.next += 1;
            pools.all.push(Arc::downgrade(&state));
        }
        state.gone.store(false, Ordering::Relaxed);
        pools.durable.insert(name.clone(), (state.clone(), true));
        drop(pools);
        let pool = Pool(Arc::new(Owner { store: self.0.clone(), state }));
        let found = self.0.file.as_ref().filter(|_| new).map(|f| f.found(&name)).unwrap_or_default();
        found.into_iter().for_each(|found| pool.found(found));
        Ok(pool)
    }

    /// Gives up to `bytes` of memory back to the kernel, ephemeral chunks first from the pool most over its weight; bytes
    /// given back. Does no I/O: persistent chunks leave memory through [`Store::push_out`].
    pub fn give_back(&self, bytes: usize) -> usize {
        self.0.give_back(bytes)
    }

    /// The memory it may have from now on, at most the limit it was made with; what is above is given back at once, as far
    /// as that takes no I/O.
    pub fn set_budget(&self, bytes: usize) {
        let bytes = bytes.clamp(SEGMENT, self.0.limit);
        self.0.budget.store(bytes, Ordering::Relaxed);
        let over = self.0.arena.held().saturating_sub(bytes);
        if over > 0 {
            self.0.give_back(over);
        }
    }

    /// Most bytes of memory that it may ever have.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Returns once all that durable pools were given before is on the device. **Blocks.**
    ///
    /// # Errors
    /// [`FileError::Os`].
    pub fn sync(&self) -> Result<(), FileError> {
        self.0.file.as_ref().map_or(Ok(()), FileTier::sync)
    }

    /// What happened and what is held.
    pub fn stats(&self) -> StoreStats {
        let (mut all, pools) = {
            let pools = lock(&self.0.pools);
            (pools.dropped, pools.all.iter().filter_map(Weak::upgrade).collect::<Vec<_>>())
        };
        pools.iter().for_each(|p| all += p.stats());
        StoreStats {
            pools: all,
            bytes_memory: self.0.arena.held() as u64,
            budget: self.0.budget.load(Ordering::Relaxed) as u64,
            bytes_files: self.0.file.as_ref().map_or(0, FileTier::held),
        }
    }

    /// Seconds of video that a pool would hold with its share of the memory, at the ratio of what it holds now.
    pub fn seconds_predicted(&self, pool: &Pool) -> f64 {
        let weight = |o: &PoolOptions| u64::from(o.weight.max(1));
        let all: u64 = self.0.pools().iter().map(|p| weight(&p.options())).sum();
        let options = pool.options();
        let share = self.0.budget.load(Ordering::Relaxed) as u64 * weight(&options) / all.max(1);
        pool.stats().seconds_predicted(options.quota.map_or(share, |q| share.min(q as u64)))
    }
}

impl Inner {
    pub(crate) fn pools(&self) -> Vec<Arc<PoolState>> {
        lock(&self.pools).all.iter().filter_map(Weak::upgrade).collect()
    }

    /// The last handle of a pool is gone.
    fn detach(&self, state: &PoolState) {
        let mut pools = lock(&self.pools);
        if let Some(name) = state.options().durable {
            pools.durable.get_mut(&name).into_iter().for_each(|(_, open)| *open = false);
        } else {
            pools.all.retain(|pool| pool.as_ptr() != std::ptr::from_ref(state));
            pools.dropped += state.stats().events();
        }
    }

    /// Appends to the file tier.
    fn write(&self, name: Option<&str>, label: &Label, stored: &[u8]) -> Result<Arc<Record>, PutError> {
        let file = self.file.as_ref().ok_or(PutError::Full { stored: stored.len() })?;
        file.append(name, label, stored).map_err(|source| PutError::File { stored: stored.len(), source })
    }
}

impl Pool {
    /// Chunks of an earlier life that are the same.
    fn found(&self, found: Found) {
        let state = self.state();
        let form = Form::found(&found);
        let chunk = Chunk::new(state, form, None, Some(found.bytes));
        let chunk = Resident::new(chunk, found.chunks.iter().map(|(handle, ..)| *handle).collect());
        for (handle, stamp, record) in found.chunks {
            // It is alive: nobody else has it.
            let _ = self.publish(handle, &chunk, stamp, Some(record));
        }
        state.remember(&chunk);
    }
}
