//! A pool: put, get, flush.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use shrbuf::Shrbuf;

use super::chunk::{Chunk, Form};
use super::coder::{Coder, Encoded, Source, Target};
use super::error::{GetError, PutError};
use super::handle::{Handle, ObjectId, Stamp};
use super::index::{Entry, Found, Key, Resident};
use super::lease::Lease;
use super::options::{Life, PoolOptions};
use super::pool_state::{self, PoolState};
use super::reference::Draft;
use super::scene::{self, Work};
use super::stats::{PoolStats, add, count, sub};
use super::{Inner, Store};
use crate::codec::{Picture, Region, Rows};
use crate::file_tier::{Label, Record};

/// Most bytes of a chunk.
pub const MAX_CHUNK: usize = 256 << 20;

/// A chunk, the stamp it was put with, and the version of its entry.
type FoundChunk = (Arc<Resident<Chunk>>, Stamp, u64);

/// What a get brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Got {
    /// Bytes written.
    pub bytes: usize,
    /// The stamp it was put with.
    pub stamp: Stamp,
}

/// Chunks under handles. Clones are the same pool; any thread may use it. When the last clone is dropped the pool is
/// destroyed, except a durable one, whose chunks are found again under its name.
#[derive(Debug, Clone)]
pub struct Pool(pub(super) Arc<Owner>);

#[derive(Debug)]
pub(super) struct Owner {
    pub store: Arc<Inner>,
    pub state: Arc<PoolState>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.store.detach(&self.state);
        if self.state.options().durable.is_none() {
            self.state.gone.store(true, Ordering::Relaxed);
            drop(self.store.index.remove_pool(self.state.id));
        }
        self.state.seal();
    }
}

impl Pool {
    pub(super) fn store(&self) -> &Arc<Inner> {
        &self.0.store
    }

    pub(super) fn state(&self) -> &Arc<PoolState> {
        &self.0.state
    }

    fn key(&self, handle: Handle) -> Key {
        Key { pool: self.0.state.id, handle }
    }

    /// Copies bytes in. A chunk that was there is replaced, or flushed if this one is refused. The caller's thread
    /// compresses; it waits for no eviction to a file, and for a file only if memory is full and the chunk itself goes
    /// there, or the pool is durable.
    ///
    /// # Errors
    /// [`PutError`]: the reason of the refusal.
    pub fn put(&self, handle: Handle, bytes: &[u8], stamp: Stamp) -> Result<(), PutError> {
        self.put_source(handle, Source::Bytes(bytes), bytes.len(), stamp)
    }

    /// Copies a frame in through the frame codec, straight from its mapping, without padding. **Blocks** until writers'
    /// fences have signalled; else as [`Pool::put`].
    ///
    /// # Errors
    /// As [`Pool::put`].
    pub fn put_frame(&self, handle: Handle, frame: &Shrbuf, stamp: Stamp) -> Result<(), PutError> {
        let bytes = usize::try_from(frame.layout().frame_bytes()).unwrap_or(usize::MAX);
        self.put_source(handle, Source::Frame(frame), bytes, stamp)
    }

    fn put_source(&self, handle: Handle, source: Source<'_>, bytes: usize, stamp: Stamp) -> Result<(), PutError> {
        let result = self.try_put(handle, source, bytes, stamp);
        let counters = &self.0.state.counters;
        let Err(e) = &result else {
            count(&counters.puts);
            return result;
        };
        count(match e {
            PutError::Size { .. } => &counters.refused_size,
            PutError::Poor { .. } => &counters.refused_poor,
            PutError::Full { .. } => &counters.refused_full,
            PutError::File { .. } => &counters.refused_file,
            PutError::NoMemory { .. } => &counters.refused_memory,
            _ => &counters.refused_input,
        });
        // The duplicate-put rule: what the caller meant to replace is stale.
        self.remove(handle);
        result
    }

    fn try_put(&self, handle: Handle, source: Source<'_>, bytes: usize, stamp: Stamp) -> Result<(), PutError> {
        if bytes == 0 || bytes > MAX_CHUNK {
            return Err(PutError::Size { bytes });
        }
        let state = &self.0.state;
        let options = state.options();
        let store = self.store();
        // Else it would be compressed for nothing.
        if store.file.is_none() && store.is_full(state, &options) {
            return Err(PutError::Full { stored: bytes });
        }
        let picture = source.picture().filter(|_| options.references && options.durable.is_none());
        let limit = store.most(&options);
        let put = store.coders.with(|coder, account| {
            let reference = picture.and_then(|picture| state.scene.reference(&picture, limit));
            let with = reference.as_ref().map(|shared| &shared.reference);
            let encoded = coder.encode(source, with, &options.admission, state.mean(), account)?;
            let Encoded { coding, original, raw } = encoded;
            let mut form = Form::of(coding, original as u32, &coder.out, reference.filter(|_| !raw));
            if let Some(same) = state.same(&form, &coder.out)
                && self.put_again(handle, &same, stamp, options.durable.as_deref())?
            {
                count(&state.counters.puts_same);
                add(&state.counters.puts_raw, raw.into());
                return Ok(None);
            }
            // A chunk dies before it is published only if its segment is evicted within that moment.
            loop {
                if state.gone.load(Ordering::Relaxed) {
                    return Err(PutError::Destroyed);
                }
                let write = |form: &Form, stored: &[u8]| {
                    let Form { coding, original, hash, .. } = *form;
                    store.write(options.durable.as_deref(), &Label { handle, stamp, coding, original, hash }, stored)
                };
                let file = options.durable.as_ref().map(|_| write(&form, &coder.out)).transpose()?;
                let (memory, file) = match store.room(state, &options, coder.out.len()) {
                    Some(room) => (Some(room.write(&coder.out)), file),
                    None if file.is_some() => (None, file),
                    None if options.life == Life::Persistent && store.file.is_some() => {
                        if form.reference.is_some() {
                            coder.out.clear();
                            coder.encode(source, None, &options.admission, state.mean(), account)?;
                            form = Form::of(coding, form.original, &coder.out, None);
                        }
                        (None, Some(write(&form, &coder.out)?))
                    }
                    None => return Err(PutError::Full { stored: coder.out.len() }),
                };
                let record = file.clone().filter(|_| options.durable.is_some());
                let chunk = Resident::new(Chunk::new(state, form.clone(), memory, file), vec![handle]);
                if state.register(&chunk) && self.publish(handle, &chunk, stamp, record.clone()).is_ok() {
                    add(&state.counters.puts_raw, raw.into());
                    add(&state.counters.puts_file, chunk.value.memory.is_none().into());
                    state.remember(&chunk);
                    return Ok(Some(chunk));
                }
                // Else it would be found after a restart.
                record.iter().for_each(|record| record.kill());
            }
        })?;
        if let (Some(chunk), Some(picture), Source::Frame(frame)) = (put, picture, source) {
            add(&state.counters.puts_reference, chunk.value.form.reference.is_some().into());
            self.follow(&picture, frame, &chunk, &options);
        }
        Ok(())
    }

    /// Gives a handle a chunk that there is already, `durable` with a record of its own; false where that has died meanwhile.
    fn put_again(
        &self,
        handle: Handle,
        same: &Arc<Resident<Chunk>>,
        stamp: Stamp,
        durable: Option<&str>,
    ) -> Result<bool, PutError> {
        let record = match (durable, &self.store().file, &same.value.file) {
            (None, ..) => None,
            (Some(name), Some(file), Some(of)) => {
                let Form { coding, original, hash, .. } = same.value.form;
                let record = file.repeat(name, &Label { handle, stamp, coding, original, hash }, of);
                Some(record.map_err(|source| PutError::File { stored: same.value.len(), source })?)
            }
            _ => return Ok(false),
        };
        let joined = same.join(handle, pool_state::now());
        let put = joined && self.publish(handle, same, stamp, record.clone()).is_ok();
        if !put {
            record.iter().for_each(|record| record.kill());
        }
        Ok(put)
    }

    /// What a scene wants done now that a frame of it has been put: some stripes' work.
    fn follow(&self, picture: &Picture, frame: &Shrbuf, chunk: &Arc<Resident<Chunk>>, options: &PoolOptions) {
        let (state, store) = (&self.0.state, self.store());
        let counters = &state.counters;
        match state.scene.follow(picture, chunk) {
            None => {}
            Some(Work::Try(recent, current)) => {
                let sizes = frame.read().ok().and_then(|guard| {
                    let rows = Rows::Guard(&guard, &store.coders.looks);
                    store.coders.with(|coder, _| coder.sizes(picture, rows, &recent, current.as_deref()))
                });
                let (taken, limit) = (counters.bytes_references.load(Ordering::Relaxed), store.most(options));
                if state.scene.tried(sizes) && scene::fits(picture, taken as usize, limit) {
                    let bytes = picture.bytes();
                    let charge = store.make_room(state, options, bytes, |budget| {
                        let within = options.quota.is_none_or(|quota| state.held() + bytes <= quota);
                        store.arena.charge(bytes, budget).filter(|_| within)
                    });
                    let draft = charge.and_then(|charge| Draft::new(picture, charge, counters));
                    state.scene.drawn(draft.map(Box::new));
                }
            }
            Some(Work::Draw(recent, mut draft)) => {
                let drawn = store.coders.with(|coder, _| {
                    for _ in 0..scene::drawn_at_once(picture) {
                        let Some(index) = draft.next() else { break };
                        draft.draw(coder.mean(picture, index, &recent)?);
                    }
                    Some(draft)
                });
                state.scene.drawn(drawn);
            }
        }
    }

    pub(super) fn publish(
        &self,
        handle: Handle,
        chunk: &Arc<Resident<Chunk>>,
        stamp: Stamp,
        record: Option<Arc<Record>>,
    ) -> Result<(), ()> {
        let counters = &self.0.state.counters;
        let accept = || {
            // Whoever destroys a pool says so before it is emptied.
            if self.0.state.gone.load(Ordering::Relaxed) {
                return false;
            }
            count(&counters.chunks);
            add(&counters.bytes_original, chunk.value.form.original.into());
            add(&counters.held_ns, stamp.duration_ns);
            true
        };
        let old = self.store().index.publish(self.key(handle), chunk, stamp, record.clone(), accept)?;
        let Some(entry) = old else { return Ok(()) };
        match (&self.store().file, record, entry.record.clone()) {
            (Some(tier), Some(new), Some(old)) => {
                forget(&self.0.state, &entry.chunk.value, entry.stamp);
                tier.replaced(&new, old);
            }
            _ => self.forget(entry),
        }
        Ok(())
    }

    /// Figures and file follow an entry that has been taken out.
    pub(super) fn forget(&self, entry: Entry<Chunk>) {
        forget(&self.0.state, &entry.chunk.value, entry.stamp);
        if let Some(record) = &entry.record {
            record.kill();
        }
    }

    fn remove(&self, handle: Handle) -> bool {
        let entry = self.store().index.remove(self.key(handle));
        let found = entry.is_some();
        entry.into_iter().for_each(|e| self.forget(e));
        found
    }

    /// Copies a chunk out to `into`, which may be larger; `None` is a miss. Of a private ephemeral pool it takes the
    /// chunk out of the store. **Blocks** on a read where the chunk is in the file tier.
    ///
    /// # Errors
    /// [`GetError`], which says whether the chunk is still there.
    pub fn get(&self, handle: Handle, into: &mut [u8]) -> Result<Option<Got>, GetError> {
        self.get_target(handle, Target::Bytes(into))
    }

    /// As [`Pool::get`], into a vector of just the chunk's length.
    ///
    /// # Errors
    /// As [`Pool::get`].
    pub fn get_vec(&self, handle: Handle, into: &mut Vec<u8>) -> Result<Option<Got>, GetError> {
        self.get_target(handle, Target::Vec(into))
    }

    /// As [`Pool::get`], a frame into a buffer of the same format and size, whatever its padding.
    ///
    /// # Errors
    /// As [`Pool::get`].
    pub fn get_frame(&self, handle: Handle, into: &mut Shrbuf) -> Result<Option<Got>, GetError> {
        self.get_target(handle, Target::Frame(into))
    }

    /// As [`Pool::get_frame`], into an idle buffer of `buffers`.
    ///
    /// # Errors
    /// As [`Pool::get`], and [`GetError::NoBuffer`].
    pub fn get_from(&self, handle: Handle, buffers: &shrbuf::Pool) -> Result<Option<(Shrbuf, Got)>, GetError> {
        let mut buffer = buffers.acquire().ok_or(GetError::NoBuffer)?;
        Ok(self.get_frame(handle, &mut buffer)?.map(|got| (buffer, got)))
    }

    /// As [`Pool::get`], part of a frame, rows packed plane by plane ([`crate::codec::Picture::region_bytes`] of them).
    /// Decodes only the stripes it touches. Never takes the chunk out.
    ///
    /// # Errors
    /// As [`Pool::get`].
    pub fn get_region(&self, handle: Handle, region: Region, into: &mut [u8]) -> Result<Option<Got>, GetError> {
        self.get_shared(handle, &mut Target::Region(region, into))
    }

    fn get_target(&self, handle: Handle, mut target: Target<'_>) -> Result<Option<Got>, GetError> {
        if !self.destructive() {
            return self.get_shared(handle, &mut target);
        }
        loop {
            let Some(lease) = self.lease(handle)? else { return Ok(None) };
            let stamp = lease.stamp();
            let bytes = lease.read_to(&mut target)?;
            // Else it was put anew or flushed meanwhile: what was read is void.
            if lease.adopt().is_ok() {
                return Ok(Some(Got { bytes, stamp }));
            }
        }
    }

    fn destructive(&self) -> bool {
        self.0.state.options.read().is_ok_and(|o| o.destructive())
    }

    fn get_shared(&self, handle: Handle, target: &mut Target<'_>) -> Result<Option<Got>, GetError> {
        let key = self.key(handle);
        let Some((chunk, stamp, version)) = self.counted(self.store().index.find(key))? else { return Ok(None) };
        let bytes = self.copy_out(key, &chunk, version, target)?;
        self.hit(&chunk.value);
        Ok(Some(Got { bytes, stamp }))
    }

    /// A chunk has been brought.
    pub(super) fn hit(&self, chunk: &Chunk) {
        let counters = &self.0.state.counters;
        count(&counters.hits);
        add(&counters.hits_file, chunk.memory.is_none().into());
    }

    /// A chunk that was found; what was not is counted.
    fn counted(&self, found: Found<Chunk>) -> Result<Option<FoundChunk>, GetError> {
        match found {
            Found::Nothing => {
                count(&self.0.state.counters.misses);
                Ok(None)
            }
            Found::Leased => {
                count(&self.0.state.counters.busy);
                Err(GetError::Leased)
            }
            Found::Chunk(chunk, stamp, version) => Ok(Some((chunk, stamp, version))),
        }
    }

    /// Takes hold of a chunk: of any pool, and it leaves the store when the caller adopts it. `None` is a miss.
    ///
    /// # Errors
    /// [`GetError::Leased`] where somebody else holds it.
    pub fn lease(&self, handle: Handle) -> Result<Option<Lease<'_>>, GetError> {
        let key = self.key(handle);
        let found = self.counted(self.store().index.lease(key))?;
        Ok(found.map(|(chunk, stamp, version)| Lease { pool: self, key, chunk, stamp, version, ended: false }))
    }

    /// Reads, checks and decodes outside of every lock. A chunk found damaged is flushed.
    pub(super) fn copy_out(
        &self,
        key: Key,
        chunk: &Arc<Resident<Chunk>>,
        version: u64,
        target: &mut Target<'_>,
    ) -> Result<usize, GetError> {
        let Chunk { form, .. } = &chunk.value;
        Coder::fits(form.coding, form.original as usize, target)?;
        let counters = &self.0.state.counters;
        let result = chunk.value.stored().and_then(|stored| {
            let store = self.store();
            store.coders.with(|coder, account| coder.decode(form, &stored, target, account))
        });
        if let Err(GetError::Corrupt { .. } | GetError::Io(_)) = &result {
            count(&counters.damaged);
            // A put of the same bytes is to bring whole ones.
            self.0.state.unlearn(chunk);
            let entry = self.store().index.take(key, version);
            entry.into_iter().for_each(|e| self.forget(e));
        }
        result
    }

    /// Disassociates a handle from its data; true where there was some.
    pub fn flush(&self, handle: Handle) -> bool {
        let found = self.remove(handle);
        add(&self.0.state.counters.flushed, found.into());
        found
    }

    /// The same for every index of an object; how many there were.
    pub fn flush_object(&self, object: impl Into<ObjectId>) -> usize {
        let entries = self.store().index.remove_object(self.0.state.id, object.into());
        let n = entries.len();
        entries.into_iter().for_each(|e| self.forget(e));
        add(&self.0.state.counters.flushed, n as u64);
        n
    }

    /// Flushes everything, a durable pool's files included, and refuses every later put.
    pub fn destroy(&self) {
        self.0.state.gone.store(true, Ordering::Relaxed);
        let entries = self.store().index.remove_pool(self.0.state.id);
        entries.into_iter().for_each(|e| self.forget(e));
        self.0.state.seal();
    }

    /// True while a persistent pool refuses puts for want of room: once full, it takes chunks again below nine tenths of
    /// what it may have. With a file tier it takes them there.
    pub fn is_full(&self) -> bool {
        self.store().is_full(self.state(), &self.options())
    }

    /// What happened and what it holds.
    pub fn stats(&self) -> PoolStats {
        self.0.state.stats()
    }

    /// Its options, as they are now.
    pub fn options(&self) -> PoolOptions {
        self.0.state.options()
    }

    /// Other weight, quota, admission, thinning, references, from the next put on. Life, sharing and name stay.
    pub fn tune(&self, change: impl FnOnce(&mut PoolOptions)) {
        let mut options = self.0.state.options.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (life, sharing, durable) = (options.life, options.sharing, options.durable.clone());
        change(&mut options);
        (options.life, options.sharing, options.durable) = (life, sharing, durable);
    }

    /// The store it is of.
    pub fn of(&self) -> Store {
        Store(self.store().clone())
    }
}

/// Takes a chunk that no entry has any more out of the figures.
pub(super) fn forget(state: &PoolState, chunk: &Chunk, stamp: Stamp) {
    sub(&state.counters.bytes_original, chunk.form.original.into());
    sub(&state.counters.held_ns, stamp.duration_ns);
    if state.counters.chunks.fetch_sub(1, Ordering::Relaxed) == 1 {
        state.scene.give_up();
    }
}
