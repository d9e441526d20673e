//! Chunks between tiers, in the background: dense instead of fast, files instead of memory, and back.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::chunk::{Chunk, Form, hash};
use super::error::GetError;
use super::index::Resident;
use super::options::Life;
use super::pool_state::{Place, PoolState};
use super::stats::count;
use super::{FOR_MOVES, Inner, Store};
use crate::file_tier::{FileError, FileTier, Label, Record};
use crate::sync::lock;
use crate::sys::segment::{Extent, SEGMENT};

/// A dense form is kept if it is at most this share of the fast one.
const WORTH: f64 = 0.97;

/// Bytes that compaction moves between looks at the clock.
const COMPACT_STEP: usize = 8 << 20;

impl Store {
    /// One round of upkeep: closes holes, makes idle chunks denser for as long as `recompress` lasts, and gives back spare
    /// memory that nobody needed since the last round, and the space of dead chunks in files. [`Store::upkeep`] calls it
    /// from a thread; bytes moved or made denser. **Blocks** on the file system, if there is a file tier.
    pub fn maintain(&self, recompress: Duration) -> usize {
        let pools = self.0.pools();
        // Where old chunks are halved the order counts, and holes go with their segments.
        let compacted = pools.iter().filter(|pool| !pool.options().thins());
        let mut done: usize = compacted.map(|pool| self.0.compact(pool, COMPACT_STEP)).sum();
        // From here on, or holes that keep coming would leave no time for it.
        let until = Instant::now() + recompress;
        // By turns, or the first would take all of it.
        let first = self.0.turn.fetch_add(1, Ordering::Relaxed) % pools.len().max(1);
        let (after, before) = (&pools[first.min(pools.len())..], &pools[..first]);
        done += after.iter().chain(before).map(|pool| self.0.recompress(pool, until)).sum::<usize>();
        self.0.arena.give_idle_back();
        self.0.file.iter().for_each(FileTier::tidy);
        done
    }

    /// Moves up to `bytes` (stored) of persistent chunks out of memory into the file tier, oldest segments first; bytes moved.
    /// Stops early where the file tier takes no more. **Blocks** on writing.
    pub fn push_out(&self, bytes: usize) -> usize {
        let mut left = bytes;
        for pool in self.0.pools().iter().filter(|p| p.options().life == Life::Persistent) {
            left -= self.0.push_out(pool, left).min(left);
        }
        // Whoever pushes out wants the memory for others.
        self.0.arena.give_spare_back();
        bytes - left
    }

    /// Brings up to `bytes` (stored) of persistent chunks back from the file tier, as far as memory is free; bytes moved.
    /// **Blocks** on reading.
    pub fn bring_back(&self, bytes: usize) -> usize {
        let mut left = bytes;
        for pool in self.0.pools().iter().filter(|p| p.options().life == Life::Persistent) {
            left -= self.0.bring_back(pool, left).min(left);
        }
        bytes - left
    }
}

impl Inner {
    /// Makes chunks denser, oldest first, from where the last round ended: a segment's at a time, so that a round costs
    /// no more than it lasts.
    fn recompress(&self, state: &Arc<PoolState>, until: Instant) -> usize {
        let mut done = 0;
        let mut at = *lock(&state.recompressed);
        while Instant::now() < until {
            let next = {
                let segments = lock(&state.segments);
                let from = at.map_or(Bound::Unbounded, Bound::Excluded);
                let next = segments.range((from, Bound::Unbounded)).next();
                next.map(|(key, listed)| (*key, listed.thinned, listed.residents.clone()))
            };
            let Some((key, thinned, residents)) = next else {
                at = None;
                break;
            };
            let (bytes, all) = self.recompress_segment(state, Place { age: key.0, thinned }, &residents, until);
            done += bytes;
            if !all {
                break;
            }
            at = Some(key);
        }
        *lock(&state.recompressed) = at;
        done
    }

    /// Bytes made denser, and whether that was all of the segment.
    fn recompress_segment(
        &self,
        state: &Arc<PoolState>,
        from: Place,
        residents: &[std::sync::Weak<Resident<Chunk>>],
        until: Instant,
    ) -> (usize, bool) {
        let mut done = 0;
        for chunk in residents {
            if Instant::now() >= until {
                return (done, false);
            }
            let Some(chunk) = chunk.upgrade() else { continue };
            // A durable chunk's record has the fast form.
            let form = &chunk.value.form;
            if form.coding.is_dense() || chunk.value.file.is_some() || chunk.is_tried() || chunk.is_dead() {
                continue;
            }
            let Ok(stored) = chunk.value.stored() else { continue };
            let denser = self.coders.with(|coder, _| {
                let coding = coder.densify(form, &stored)?;
                let worth = (coder.out.len() as f64) < stored.len() as f64 * WORTH;
                Ok(coding.filter(|_| worth).map(|coding| (coding, std::mem::take(&mut coder.out))))
            });
            // Perhaps there is memory for it in the next round.
            if let Err(GetError::NoMemory { .. }) = denser {
                return (done, false);
            }
            chunk.set_tried();
            let Ok(Some((coding, bytes))) = denser else { continue };
            let limit = self.budget.load(Ordering::Relaxed) + FOR_MOVES * SEGMENT;
            let Some(room) = state.reserve_move(&self.arena, bytes.len(), limit, from, false) else {
                return (done, false);
            };
            let form = Form { coding, hash: hash(&bytes), ..form.clone() };
            let now = Chunk::new(state, form, Some(room.write(&bytes)), None);
            let _turn = lock(&state.mover);
            if self.swap(state, &chunk, now) {
                count(&state.counters.recompressed);
                done += stored.len();
            }
        }
        (done, true)
    }

    fn push_out(&self, state: &Arc<PoolState>, bytes: usize) -> usize {
        let Some(file) = self.file.as_ref().filter(|_| bytes > 0) else { return 0 };
        state.seal();
        let all: Vec<_> = lock(&state.segments).values().flat_map(|l| l.residents.clone()).collect();
        let mut done = 0;
        for chunk in all.iter().filter_map(std::sync::Weak::upgrade) {
            if done >= bytes {
                break;
            }
            let Some(extent) = chunk.value.memory.as_ref().filter(|_| !chunk.is_dead()) else { continue };
            let (form, record) = match &chunk.value.file {
                Some(record) => (chunk.value.form.clone(), record.clone()),
                None => match self.spill(file, &chunk.value, extent) {
                    Ok(Some(spilled)) => spilled,
                    Ok(None) => continue,
                    Err(_) => break,
                },
            };
            let _turn = lock(&state.mover);
            if self.swap(state, &chunk, Chunk::new(state, form, None, Some(record))) {
                count(&state.counters.pushed_out);
                done += extent.len();
            }
        }
        done
    }

    /// Writes a chunk to the file tier, without its reference, which is not there; `None` where it is damaged,
    /// or there is no memory to look at it.
    fn spill(&self, file: &FileTier, chunk: &Chunk, extent: &Extent) -> Result<Option<(Form, Arc<Record>)>, FileError> {
        // It is found again through the index, not through the file, so whose it is does not matter.
        let (handle, stamp) = Default::default();
        let append = |form: Form, stored: &[u8]| {
            let Form { coding, original, hash, .. } = form;
            let record = file.append(None, &Label { handle, stamp, coding, original, hash }, stored)?;
            Ok(Some((form, record)))
        };
        if chunk.form.reference.is_none() {
            return extent.bytes().map_or(Ok(None), |bytes| append(chunk.form.clone(), &bytes));
        }
        let Some(bytes) = extent.bytes() else { return Ok(None) };
        self.coders.with(|coder, _| match coder.alone(&chunk.form, &bytes) {
            Some(form) => append(form, &coder.out),
            None => Ok(None),
        })
    }

    fn bring_back(&self, state: &Arc<PoolState>, bytes: usize) -> usize {
        let mut done = 0;
        for chunk in self.index.of_pool(state.id, |c| c.memory.is_none()) {
            if done >= bytes {
                break;
            }
            let Ok(stored) = chunk.value.stored() else { continue };
            let budget = self.budget.load(Ordering::Relaxed);
            let Some(room) = state.reserve(&self.arena, stored.len(), budget) else { break };
            // A durable chunk keeps its record.
            let file = chunk.value.file.clone().filter(|_| state.options().durable.is_some());
            let now = Chunk::new(state, chunk.value.form.clone(), Some(room.write(&stored)), file);
            let _turn = lock(&state.mover);
            if self.swap(state, &chunk, now) {
                count(&state.counters.brought_back);
                done += chunk.value.memory.as_ref().map_or(stored.len(), Extent::len);
            }
        }
        done
    }
}
