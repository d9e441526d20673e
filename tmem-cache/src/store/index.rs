//! Which chunk a handle has, and the states of that entry against everything that moves or drops chunks.
//!
//! An entry is *present* or *leased*; a chunk is *alive* or *dead*. Whoever drops or moves a chunk first makes it dead
//! and takes its list of owners ([`Resident::kill`]), then visits the owners one by one. Whoever publishes a chunk looks,
//! under the entry's lock, whether it has died meanwhile, and starts over. So a dead chunk is never left in an entry
//! with nobody to take it out, and no lock is held while another entry's is taken.
//!
//! Lock order: a shard, then a resident's owners.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::handle::{Handle, ObjectId, Stamp};
use super::indices::Indices;
use crate::file_tier::Record;
use crate::sync::{Mutex, lock};

/// Enough that eight threads seldom meet.
const SHARDS: usize = if cfg!(loom) { 1 } else { 64 };

/// A handle and the pool it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub pool: u32,
    pub handle: Handle,
}

/// What entries have, one or several of them the same.
#[derive(Debug)]
pub(crate) struct Resident<T> {
    pub value: T,
    owners: Mutex<Owners>,
}

#[derive(Debug, Default)]
struct Owners {
    dead: bool,
    /// Recompression gained nothing; not again.
    tried: bool,
    /// When the last one joined, by the clock of segments' ages; 0 where nobody did after the first.
    latest: u64,
    keys: Keys,
}

/// Handles in the order in which they joined. Mostly it is one, which takes nothing on the heap.
#[derive(Debug, Default)]
enum Keys {
    #[default]
    None,
    /// A handle, without the padding that it would have as one.
    One { object: ObjectId, index: u32 },
    #[allow(clippy::box_collection)] // 8 bytes of every chunk less
    Many(Box<VecDeque<Handle>>),
}

impl From<Vec<Handle>> for Keys {
    fn from(all: Vec<Handle>) -> Keys {
        match *all {
            [] => Keys::None,
            [Handle { object, index }] => Keys::One { object, index },
            _ => Keys::Many(Box::new(all.into())),
        }
    }
}

impl Keys {
    fn push(&mut self, handle: Handle) {
        if let Keys::Many(all) = self {
            return all.push_back(handle);
        }
        let mut all = self.all();
        all.push(handle);
        *self = all.into();
    }

    /// Searched from both ends, because who comes first mostly goes first.
    fn remove(&mut self, handle: Handle) {
        let Keys::Many(all) = self else {
            if self.all() == [handle] {
                *self = Keys::None;
            }
            return;
        };
        let n = all.len();
        let found = (0..n.div_ceil(2)).flat_map(|i| [i, n - 1 - i]).find(|i| all[*i] == handle);
        found.map(|i| all.remove(i));
        if all.is_empty() {
            *self = Keys::None;
        }
    }

    fn all(&self) -> Vec<Handle> {
        match self {
            Keys::None => Vec::new(),
            Keys::One { object, index } => vec![Handle { object: *object, index: *index }],
            Keys::Many(all) => all.iter().copied().collect(),
        }
    }
}

impl<T> Resident<T> {
    pub(crate) fn new(value: T, keys: Vec<Handle>) -> Arc<Resident<T>> {
        Arc::new(Resident { value, owners: Mutex::new(Owners { keys: keys.into(), ..Owners::default() }) })
    }

    /// One more owner, `at` some time; false where the chunk is dead.
    pub(crate) fn join(&self, handle: Handle, at: u64) -> bool {
        let mut owners = lock(&self.owners);
        if !owners.dead {
            owners.keys.push(handle);
            owners.latest = owners.latest.max(at);
        }
        !owners.dead
    }

    /// One owner less: its entry has been taken out.
    fn leave(&self, handle: Handle) {
        lock(&self.owners).keys.remove(handle);
    }

    /// Nobody joins from now on. The owners so far, who may or may not have an entry with this chunk; `None` where it is
    /// dead already.
    fn kill(&self) -> Option<Vec<Handle>> {
        let mut owners = lock(&self.owners);
        let first = !std::mem::replace(&mut owners.dead, true);
        first.then(|| std::mem::take(&mut owners.keys).all())
    }

    /// Undoes a [`Resident::kill`] for those owners that keep it.
    fn revive(&self, keys: Vec<Handle>) {
        let mut owners = lock(&self.owners);
        (owners.dead, owners.keys) = (false, keys.into());
    }

    /// Takes over what a dead one had.
    fn inherit(&self, dead: &Resident<T>, keys: Vec<Handle>) {
        let (tried, latest) = {
            let of = lock(&dead.owners);
            (of.tried, of.latest)
        };
        *lock(&self.owners) = Owners { dead: false, tried, latest, keys: keys.into() };
    }

    /// When the last owner joined.
    pub(crate) fn latest(&self) -> u64 {
        lock(&self.owners).latest
    }

    pub(crate) fn is_dead(&self) -> bool {
        lock(&self.owners).dead
    }

    /// Who has it, or is about to.
    pub(crate) fn owners(&self) -> Vec<Handle> {
        lock(&self.owners).keys.all()
    }

    pub(crate) fn is_tried(&self) -> bool {
        lock(&self.owners).tried
    }

    pub(crate) fn set_tried(&self) {
        lock(&self.owners).tried = true;
    }
}

#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub index: u32,
    pub(super) leased: bool,
    pub(super) got: bool,
    pub chunk: Arc<Resident<T>>,
    pub stamp: Stamp,
    /// Of a durable pool.
    pub record: Option<Arc<Record>>,
    pub(super) version: u64,
}

/// What is under a handle.
#[derive(Debug)]
pub(crate) enum Found<T> {
    Nothing,
    Leased,
    /// With the version that a lease of it has.
    Chunk(Arc<Resident<T>>, Stamp, u64),
}

/// What became of the entry of a chunk that was to go.
#[derive(Debug, PartialEq, Eq)]
enum Removed {
    /// It had another chunk, or none.
    Other,
    /// It is leased and stays.
    Leased,
    /// It is gone.
    Gone(Stamp),
}

#[derive(Debug)]
struct Shard<T> {
    objects: HashMap<(u32, ObjectId), Indices<T>>,
    version: u64,
}

#[derive(Debug)]
pub(crate) struct Index<T> {
    shards: Box<[Mutex<Shard<T>>]>,
    hasher: RandomState,
}

impl<T> Shard<T> {
    fn entry(&mut self, key: Key) -> Option<&mut Entry<T>> {
        self.objects.get_mut(&(key.pool, key.handle.object))?.get_mut(key.handle.index)
    }

    fn remove(&mut self, key: Key) -> Option<Entry<T>> {
        let object = (key.pool, key.handle.object);
        let indices = self.objects.get_mut(&object)?;
        let entry = indices.remove(key.handle.index)?;
        if indices.is_empty() {
            self.objects.remove(&object);
        }
        entry.chunk.leave(key.handle);
        Some(entry)
    }
}

impl<T> Index<T> {
    pub(crate) fn new() -> Index<T> {
        let shard = || Mutex::new(Shard { objects: HashMap::new(), version: 0 });
        Index { shards: (0..SHARDS).map(|_| shard()).collect(), hasher: RandomState::new() }
    }

    fn shard(&self, pool: u32, object: ObjectId) -> &Mutex<Shard<T>> {
        &self.shards[self.hasher.hash_one((pool, object)) as usize % SHARDS]
    }

    fn of(&self, key: Key) -> &Mutex<Shard<T>> {
        self.shard(key.pool, key.handle.object)
    }

    /// Puts a chunk under a handle; what was there comes back, to be dropped outside of any lock. `Err` where the chunk
    /// has died: make another; or where `accept`, asked under the lock that whoever empties the pool takes too, says no.
    pub(crate) fn publish(
        &self,
        key: Key,
        chunk: &Arc<Resident<T>>,
        stamp: Stamp,
        record: Option<Arc<Record>>,
        accept: impl FnOnce() -> bool,
    ) -> Result<Option<Entry<T>>, ()> {
        let mut shard = lock(self.of(key));
        if chunk.is_dead() || !accept() {
            return Err(());
        }
        shard.version += 1;
        let Handle { object, index } = key.handle;
        let (version, chunk) = (shard.version, chunk.clone());
        let entry = Entry { index, leased: false, got: false, chunk, stamp, record, version };
        let old = shard.objects.entry((key.pool, object)).or_default().insert(entry);
        old.iter().for_each(|old| old.chunk.leave(key.handle));
        Ok(old)
    }

    /// Looks, and notes that somebody did.
    pub(crate) fn find(&self, key: Key) -> Found<T> {
        match lock(self.of(key)).entry(key) {
            None => Found::Nothing,
            Some(e) if e.leased => Found::Leased,
            Some(e) => {
                e.got = true;
                Found::Chunk(e.chunk.clone(), e.stamp, e.version)
            }
        }
    }

    /// Looks, and keeps everybody else from the chunk.
    pub(crate) fn lease(&self, key: Key) -> Found<T> {
        match lock(self.of(key)).entry(key) {
            None => Found::Nothing,
            Some(e) if e.leased => Found::Leased,
            Some(e) => {
                e.leased = true;
                Found::Chunk(e.chunk.clone(), e.stamp, e.version)
            }
        }
    }

    /// Ends a lease; the chunk stays.
    pub(crate) fn unlease(&self, key: Key, version: u64) {
        if let Some(e) = lock(self.of(key)).entry(key).filter(|e| e.version == version) {
            e.leased = false;
        }
    }

    /// Takes the entry out if it still is the one of that version.
    pub(crate) fn take(&self, key: Key, version: u64) -> Option<Entry<T>> {
        let mut shard = lock(self.of(key));
        shard.entry(key).filter(|e| e.version == version)?;
        shard.remove(key)
    }

    /// Takes whatever is there.
    pub(crate) fn remove(&self, key: Key) -> Option<Entry<T>> {
        lock(self.of(key)).remove(key)
    }

    /// Takes every index of an object.
    pub(crate) fn remove_object(&self, pool: u32, object: ObjectId) -> Vec<Entry<T>> {
        let indices = lock(self.shard(pool, object)).objects.remove(&(pool, object));
        let left = |entry: Entry<T>| {
            entry.chunk.leave(Handle { object, index: entry.index });
            entry
        };
        indices.into_iter().flat_map(Indices::into_entries).map(left).collect()
    }

    /// Takes every entry of a pool.
    pub(crate) fn remove_pool(&self, pool: u32) -> Vec<Entry<T>> {
        let of = |shard: &Mutex<Shard<T>>| lock(shard).objects.extract_if(|k, _| k.0 == pool).collect::<Vec<_>>();
        let objects = self.shards.iter().flat_map(of);
        objects.flat_map(|(_, indices)| indices.into_entries()).collect()
    }

    /// Takes a chunk out of every entry that has it, except where somebody leases it; true where somebody does. `gone` is
    /// called for each entry taken out. A chunk that is being moved or reclaimed elsewhere is left alone.
    pub(crate) fn reclaim(&self, pool: u32, chunk: &Arc<Resident<T>>, mut gone: impl FnMut(Stamp)) -> bool {
        let mut leased = Vec::new();
        for handle in chunk.kill().unwrap_or_default() {
            match self.evict(Key { pool, handle }, chunk) {
                Removed::Other => {}
                Removed::Leased => leased.push(handle),
                Removed::Gone(stamp) => gone(stamp),
            }
        }
        let stays = !leased.is_empty();
        if stays {
            chunk.revive(leased);
        }
        stays
    }

    /// Gives every entry that has `chunk` the chunk `now` instead, which is the same in another form or place and has no
    /// owners so far. False where none has it any more.
    pub(crate) fn exchange(&self, pool: u32, chunk: &Arc<Resident<T>>, now: &Arc<Resident<T>>) -> bool {
        let Some(owners) = chunk.kill() else { return false };
        // First, so that whoever reclaims `now` finds those that have it already.
        now.inherit(chunk, owners.clone());
        owners.into_iter().fold(false, |any, handle| self.replace(Key { pool, handle }, chunk, now) | any)
    }

    /// Takes the entry out if it has this chunk and nobody leases it.
    fn evict(&self, key: Key, chunk: &Arc<Resident<T>>) -> Removed {
        let mut shard = lock(self.of(key));
        let removed = match shard.entry(key) {
            Some(e) if Arc::ptr_eq(&e.chunk, chunk) && e.leased => return Removed::Leased,
            Some(e) if Arc::ptr_eq(&e.chunk, chunk) => Removed::Gone(e.stamp),
            _ => return Removed::Other,
        };
        let entry = shard.remove(key);
        drop(shard);
        drop(entry);
        removed
    }

    /// Puts `now` in the place of `chunk`, where that is what the entry has. Version and lease stay.
    fn replace(&self, key: Key, chunk: &Arc<Resident<T>>, now: &Arc<Resident<T>>) -> bool {
        let mut shard = lock(self.of(key));
        let Some(e) = shard.entry(key).filter(|e| Arc::ptr_eq(&e.chunk, chunk)) else { return false };
        e.chunk = now.clone();
        true
    }

    /// The chunks of a pool that `wanted` accepts, at some moment of each.
    pub(crate) fn of_pool(&self, pool: u32, wanted: impl Fn(&T) -> bool) -> Vec<Arc<Resident<T>>> {
        let of = |shard: &Mutex<Shard<T>>| {
            let shard = lock(shard);
            let entries = shard.objects.iter().filter(|(k, _)| k.0 == pool).flat_map(|(_, o)| o.entries());
            entries.map(|e| &e.chunk).filter(|c| wanted(&c.value)).cloned().collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// True where somebody got the chunk since this was last asked.
    pub(crate) fn was_got(&self, key: Key) -> bool {
        lock(self.of(key)).entry(key).is_some_and(|e| std::mem::replace(&mut e.got, false))
    }
}

#[cfg(all(test, loom))]
#[path = "index_models.rs"]
mod loom_models;
