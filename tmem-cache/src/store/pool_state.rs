//! A pool's segments, in order of age, and who lies in them.
//!
//! Lock order: `mover`, then `open`, `moves` or `filled`, then `segments`, then that of `scene`. None of them is held while bytes
//! are coded, copied, read from or written to a file.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock, Weak};

use super::chunk::{Chunk, Form};
use super::index::Resident;
use super::options::{HALVINGS, Life, PoolOptions};
use super::scene::Scene;
use super::stats::{Counters, PoolStats};
use crate::sync::{Mutex, lock};
use crate::sys::segment::{Arena, Extent, Reserved, SEGMENT, Segment};

/// A segment in the list, which keeps nothing alive: the segment goes with the last of its chunks.
#[derive(Debug)]
pub(crate) struct Listed {
    pub segment: Weak<Segment>,
    pub residents: Vec<Weak<Resident<Chunk>>>,
    /// How often its chunks have been halved at least.
    pub thinned: u8,
}

/// Where in the order a chunk was that is moved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub age: u64,
    pub thinned: u8,
}

#[derive(Debug)]
pub(crate) struct PoolState {
    pub id: u32,
    pub options: RwLock<PoolOptions>,
    pub counters: Arc<Counters>,
    /// What frames are predicted from.
    pub scene: Scene,
    /// Whether holes are filled: persistent chunks stay, so that segments seldom go whole.
    pub fills: bool,
    /// In which segment one was filled last.
    filled: Mutex<(u64, u32)>,
    /// Where puts append.
    open: Mutex<Option<Arc<Segment>>>,
    /// Where chunks that are moved append, so that they keep their place in the order.
    moves: Mutex<Option<Arc<Segment>>>,
    /// Where chunks append that stay of a segment that is halved, by how often it has been.
    thinned: [Mutex<Option<Arc<Segment>>>; HALVINGS as usize + 1],
    pub segments: Mutex<BTreeMap<(u64, u32), Listed>>,
    /// Chunks by the hash of what they arrived as.
    same: Mutex<BTreeMap<u64, Weak<Resident<Chunk>>>>,
    /// Bytes of all chunks, each once, as they are stored, in memory or in a file, and as they were.
    pub stored: AtomicU64,
    pub original: AtomicU64,
    /// Up to which segment recompression came.
    pub recompressed: Mutex<Option<(u64, u32)>>,
    /// Held by whoever gives entries another chunk or none for reasons of the store's own.
    pub mover: Mutex<()>,
    /// Persistent puts are refused until there is room again, not just for one.
    pub full: AtomicBool,
    pub gone: AtomicBool,
}

/// In how many segments a put looks for a hole.
const LOOKS: usize = 64;

/// Ages of segments, from one clock for all pools, which goes on with each put.
static AGE: AtomicU64 = AtomicU64::new(1);

/// That clock.
pub(crate) fn now() -> u64 {
    AGE.load(Ordering::Relaxed)
}

impl PoolState {
    pub(crate) fn new(id: u32, options: PoolOptions) -> PoolState {
        PoolState {
            id,
            fills: options.life == Life::Persistent,
            filled: Mutex::default(),
            options: RwLock::new(options),
            counters: Arc::default(),
            scene: Scene::default(),
            open: Mutex::new(None),
            moves: Mutex::new(None),
            thinned: std::array::from_fn(|_| Mutex::new(None)),
            segments: Mutex::new(BTreeMap::new()),
            same: Mutex::default(),
            stored: AtomicU64::new(0),
            original: AtomicU64::new(0),
            recompressed: Mutex::new(None),
            mover: Mutex::new(()),
            full: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    /// A copy of the options as they are now.
    pub(crate) fn options(&self) -> PoolOptions {
        self.options.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Bytes of its segments and references.
    pub(crate) fn held(&self) -> usize {
        self.segments() * SEGMENT + self.counters.bytes_references.load(Ordering::Relaxed) as usize
    }

    /// How many segments it has.
    pub(crate) fn segments(&self) -> usize {
        let mut segments = lock(&self.segments);
        segments.retain(|_, l| l.segment.strong_count() > 0);
        segments.len()
    }

    pub(crate) fn stats(&self) -> PoolStats {
        PoolStats { bytes_held: self.held() as u64, ..self.counters.read() }
    }

    /// Compressed ÷ original of what it has, each chunk once.
    pub(crate) fn mean(&self) -> f32 {
        let [original, stored] = [&self.original, &self.stored].map(|bytes| bytes.load(Ordering::Relaxed));
        if original == 0 { 0.0 } else { stored as f32 / original as f32 }
    }

    /// Room for `len` bytes where puts append. `None` where the store's `limit` or the pool's quota is reached.
    pub(crate) fn reserve(&self, arena: &Arc<Arena>, len: usize, limit: usize) -> Option<Reserved> {
        let quota = self.options.read().map_or(None, |o| o.quota);
        self.reserve_in(&self.open, arena, len, limit, quota, None)
    }

    /// Room where puts append for a chunk whose segment goes, so that the quota does not count it twice.
    pub(crate) fn reserve_again(&self, arena: &Arc<Arena>, len: usize, limit: usize) -> Option<Reserved> {
        self.reserve_in(&self.open, arena, len, limit, None, None)
    }

    /// Room for a chunk that is moved out of a segment; `halved` where that is because others of it went. Where holes are
    /// filled there is no order to keep.
    pub(crate) fn reserve_move(
        &self,
        arena: &Arc<Arena>,
        len: usize,
        limit: usize,
        from: Place,
        halved: bool,
    ) -> Option<Reserved> {
        if self.fills {
            return self.reserve_again(arena, len, limit);
        }
        let open = if halved { &self.thinned[usize::from(from.thinned.min(HALVINGS))] } else { &self.moves };
        if self.options.read().is_ok_and(|o| o.thins()) {
            self.keep_order(open, from);
        }
        self.reserve_in(open, arena, len, limit, None, Some(from))
    }

    /// Takes care that chunks of `from` are not put into a segment that goes before others that are older than they are.
    fn keep_order(&self, open: &Mutex<Option<Arc<Segment>>>, from: Place) {
        let mut open = lock(open);
        let follows = |s: &Segment| {
            let between = (Bound::Excluded(s.key()), Bound::Excluded((from.age, 0)));
            s.key().0 == from.age || s.key().0 < from.age && lock(&self.segments).range(between).next().is_none()
        };
        if let Some(other) = open.take_if(|s| !follows(s)) {
            other.seal();
        }
    }

    fn reserve_in(
        &self,
        open: &Mutex<Option<Arc<Segment>>>,
        arena: &Arc<Arena>,
        len: usize,
        limit: usize,
        quota: Option<usize>,
        from: Option<Place>,
    ) -> Option<Reserved> {
        if let Some(reserved) = self.reserve_hole(len) {
            return Some(reserved);
        }
        let mut open = lock(open);
        // One that was evicted meanwhile is not appended to.
        open.take_if(|s| !lock(&self.segments).contains_key(&s.key()));
        let room = open.as_ref().map_or(0, |s| s.room());
        let more = len.saturating_sub(room).div_ceil(SEGMENT);
        if more > 0 && quota.is_some_and(|q| self.held() + more * SEGMENT > q.max(2 * SEGMENT)) {
            return None;
        }
        let Place { age, thinned } =
            from.unwrap_or_else(|| Place { age: AGE.fetch_add(1, Ordering::Relaxed), thinned: 0 });
        let mut fresh: Vec<Arc<Segment>> = Vec::with_capacity(more);
        for _ in 0..more {
            let after = fresh.last().or(open.as_ref());
            fresh.push(arena.take(after.map(|s| &**s), age, limit, self.fills)?);
        }
        let mut reserved = Reserved::default();
        let mut left = len;
        if let Some(s) = &*open {
            left -= s.reserve(left, &mut reserved);
            if let Some(listed) = lock(&self.segments).get_mut(&s.key()) {
                listed.thinned = listed.thinned.min(thinned);
            }
        }
        for segment in fresh {
            left -= segment.reserve(left, &mut reserved);
            let listed = Listed { segment: Arc::downgrade(&segment), residents: Vec::new(), thinned };
            lock(&self.segments).insert(segment.key(), listed);
            *open = Some(segment);
        }
        // A full one is not held here, or it would outlive its chunks.
        open.take_if(|s| s.room() == 0);
        Some(reserved)
    }

    /// Room in one piece in a hole of one of the next [`LOOKS`] segments.
    fn reserve_hole(&self, len: usize) -> Option<Reserved> {
        if !self.fills || len > SEGMENT {
            return None;
        }
        let mut from = lock(&self.filled);
        let segments = lock(&self.segments);
        let next = segments.range(*from..).chain(segments.range(..*from)).take(LOOKS);
        let mut last = *from;
        let reserved = next.into_iter().find_map(|(key, listed)| {
            last = *key;
            listed.segment.upgrade()?.reserve_hole(len)
        });
        *from = last;
        reserved
    }

    /// Enters a chunk in the segments it lies in. False where one of them has been evicted meanwhile.
    pub(crate) fn register(&self, chunk: &Arc<Resident<Chunk>>) -> bool {
        let Some(extent) = &chunk.value.memory else { return true };
        let mut segments = lock(&self.segments);
        let all = extent.segments().all(|s| segments.contains_key(&s.key()));
        if all {
            for segment in extent.segments() {
                if let Some(Listed { residents, .. }) = segments.get_mut(&segment.key()) {
                    // Where holes are filled there always are some that have gone.
                    if residents.len() == residents.capacity() {
                        residents.retain(|resident| resident.strong_count() > 0);
                    }
                    residents.push(Arc::downgrade(chunk));
                }
            }
        }
        all
    }

    /// No more is appended to the segments that are open, so that they can be evicted.
    pub(crate) fn seal(&self) {
        for open in [&self.open, &self.moves].into_iter().chain(&self.thinned) {
            let mut open = lock(open);
            open.iter().for_each(|s| s.seal());
            let sealed = open.take();
            drop(open);
            drop(sealed);
        }
    }

    /// A chunk that arrived as this form of these bytes, if there is one. Where it still has them, they are compared.
    pub(crate) fn same(&self, form: &Form, bytes: &[u8]) -> Option<Arc<Resident<Chunk>>> {
        let chunk = lock(&self.same).get(&form.arrival.key())?.upgrade()?;
        let Chunk { form: its, memory, .. } = &chunk.value;
        let as_it_was = memory.as_ref().filter(|_| its.coding == form.coding).and_then(Extent::bytes);
        (its.is_same(form) && as_it_was.is_none_or(|its| *its == *bytes)).then_some(chunk)
    }

    /// A chunk that is damaged: no put joins it any more.
    pub(crate) fn unlearn(&self, chunk: &Arc<Resident<Chunk>>) {
        let key = chunk.value.form.arrival.key();
        let mut same = lock(&self.same);
        if same.get(&key).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(chunk))) {
            same.remove(&key);
        }
    }

    /// A chunk goes: its memory would stay for as long as it is remembered.
    pub(crate) fn forget(&self, form: &Form) {
        if let Entry::Occupied(known) = lock(&self.same).entry(form.arrival.key())
            && known.get().strong_count() == 0
        {
            known.remove();
        }
    }

    /// Remembers a chunk for [`PoolState::same`].
    pub(crate) fn remember(&self, chunk: &Arc<Resident<Chunk>>) {
        lock(&self.same).insert(chunk.value.form.arrival.key(), Arc::downgrade(chunk));
    }
}
