//! Room: whose oldest segment goes, what of it stays, and how holes are closed.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::chunk::Chunk;
use super::index::Resident;
use super::options::{HALVINGS, Life, PoolOptions, Sharing};
use super::pool::forget;
use super::pool_state::{Listed, Place, PoolState};
use super::stats::count;
use super::{FOR_MOVES, Inner, Key};
use crate::sync::lock;
use crate::sys::segment::{Extent, Reserved, SEGMENT};

/// A full pool or store takes persistent chunks again below this share of its limit.
const ACCEPT_AGAIN: f64 = 0.9;

/// How often a putter makes room before it gives up: others may take what it made.
const ATTEMPTS: usize = 8;

/// Why chunks go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Limit,
    Pressure,
}

impl Inner {
    /// Room for a put, made by evicting ephemeral chunks where it takes that. No I/O.
    pub(super) fn room(&self, state: &Arc<PoolState>, options: &PoolOptions, len: usize) -> Option<Reserved> {
        let persistent = options.life == Life::Persistent;
        // What can never fit must not empty the store first.
        if len > self.most(options) || self.is_full(state, options) {
            return None;
        }
        let reserved = self.make_room(state, options, len, |budget| state.reserve(&self.arena, len, budget));
        if reserved.is_none() {
            state.full.store(persistent, Ordering::Relaxed);
        }
        reserved
    }

    /// Most bytes that a pool may have.
    pub(super) fn most(&self, options: &PoolOptions) -> usize {
        options.quota.unwrap_or(usize::MAX).max(2 * SEGMENT).min(self.budget.load(Ordering::Relaxed))
    }

    /// What `take` gets within the budget, once as much has been evicted as that takes.
    pub(super) fn make_room<T>(
        &self,
        state: &Arc<PoolState>,
        options: &PoolOptions,
        len: usize,
        take: impl Fn(usize) -> Option<T>,
    ) -> Option<T> {
        for _ in 0..ATTEMPTS.max(2 * len.div_ceil(SEGMENT)) {
            let taken = take(self.budget.load(Ordering::Relaxed));
            if taken.is_some() {
                return taken;
            }
            let over_quota = options.quota.is_some_and(|q| state.held() + len.max(SEGMENT) > q.max(2 * SEGMENT));
            let made = if over_quota {
                options.life == Life::Ephemeral && self.evict_oldest(state, Cause::Limit)
            } else {
                self.evict_any(Cause::Limit)
            };
            if !made {
                break;
            }
        }
        None
    }

    /// True while a persistent pool takes nothing, because it has been full.
    pub(super) fn is_full(&self, state: &PoolState, options: &PoolOptions) -> bool {
        let was = options.life == Life::Persistent && state.full.load(Ordering::Relaxed);
        was && !self.accepts_again(state, options)
    }

    fn accepts_again(&self, state: &PoolState, options: &PoolOptions) -> bool {
        let below = |held: usize, limit: usize| (held as f64) < limit as f64 * ACCEPT_AGAIN;
        // What others may lose is as good as free.
        let pools = self.pools().into_iter().filter(|pool| pool.options().life == Life::Ephemeral);
        let evictable: usize = pools.map(|pool| pool.held()).sum();
        let again = below(self.arena.taken().saturating_sub(evictable), self.budget.load(Ordering::Relaxed))
            && options.quota.is_none_or(|q| below(state.held(), q));
        if again {
            state.full.store(false, Ordering::Relaxed);
        }
        again
    }

    /// Evicts the oldest segment of the ephemeral pool most over its weight, and where there is none, a reference in the
    /// making; false where nothing can be.
    pub(super) fn evict_any(&self, cause: Cause) -> bool {
        let mut victims: Vec<_> = self
            .pools()
            .into_iter()
            .filter_map(|p| {
                let options = p.options();
                let held = p.held();
                (options.life == Life::Ephemeral && held > 0)
                    .then(|| (held as f64 / f64::from(options.weight.max(1)), p))
            })
            .collect();
        victims.sort_by(|a, b| b.0.total_cmp(&a.0));
        victims.iter().any(|(_, p)| self.evict_oldest(p, cause)) || self.pools().iter().any(|p| p.scene.give_up())
    }

    /// Evicts one segment's worth of a pool; false where nothing of it can go.
    pub(super) fn evict_oldest(&self, state: &Arc<PoolState>, cause: Cause) -> bool {
        let options = state.options();
        let _turn = lock(&state.mover);
        if state.segments() <= 2 {
            state.seal();
        }
        let halvings = if cause == Cause::Limit { options.thinning.min(HALVINGS) } else { 0 };
        let held = lock(&state.segments).len();
        // Leased chunks may hold the oldest; then one of the next goes.
        let mut passed = 0;
        while passed < 8.min(held) {
            let Some((key, mut listed, thin)) = take_oldest(state, passed, halvings) else { return false };
            listed.residents.retain(|resident| resident.strong_count() > 0);
            let next = lock(&state.segments).range((Bound::Excluded(key), Bound::Unbounded)).next().map(|s| s.0.0);
            let next = next.unwrap_or(u64::MAX);
            let survivors = match thin {
                Some(halving) => {
                    listed.thinned = halving;
                    self.thin(state, &listed, Place { age: key.0, thinned: halving }, next)
                }
                None => {
                    passed += 1;
                    self.drop_all(state, &options, &listed, (cause, next))
                }
            };
            let freed = listed.residents.len() > survivors.len() || listed.segment.strong_count() == 0;
            if !survivors.is_empty() {
                let residents = survivors.iter().map(Arc::downgrade).collect();
                lock(&state.segments).insert(key, Listed { residents, ..listed });
            }
            drop(survivors);
            if freed {
                return true;
            }
        }
        false
    }

    /// Evicts all but what is leased, or was got in a shared pool, or was put again since the `next` segment was begun, so
    /// that it is no older than what is in that one (each at most half of a segment, and one chunk of the last whatever its
    /// size); what stays in the segment.
    fn drop_all(
        &self,
        state: &Arc<PoolState>,
        options: &PoolOptions,
        listed: &Listed,
        (cause, next): (Cause, u64),
    ) -> Vec<Arc<Resident<Chunk>>> {
        let mut reinsert = if options.sharing == Sharing::Shared && cause == Cause::Limit { SEGMENT / 2 } else { 0 };
        let (mut again, mut any) = (SEGMENT / 2, false);
        let mut survivors = Vec::new();
        for chunk in listed.residents.iter().filter_map(std::sync::Weak::upgrade) {
            let len = chunk.value.memory.as_ref().map_or(0, Extent::len);
            let put_again = chunk.latest() > next && (len <= again || !any);
            let stays = put_again || (len <= reinsert && self.was_got(state, &chunk));
            if stays && self.relocate(state, &chunk, None) {
                count(&state.counters.reinserted);
                any |= put_again;
                let left = if put_again { &mut again } else { &mut reinsert };
                *left = left.saturating_sub(len);
                continue;
            }
            survivors.extend(self.drop_one(state, chunk, cause_counter(state, cause)));
        }
        survivors
    }

    /// Every second chunk goes, those that stay move together; what stays in the segment: all, where none is to go.
    ///
    /// By index, so that the same chunks stay whatever segments they lie in, and none is halved more often than asked.
    /// A chunk that was put again since the `next` segment was begun is not old.
    fn thin(&self, state: &Arc<PoolState>, listed: &Listed, now: Place, next: u64) -> Vec<Arc<Resident<Chunk>>> {
        let apart = 1 << now.thinned;
        let stays = |chunk: &Arc<Resident<Chunk>>| {
            chunk.latest() > next || chunk.owners().iter().any(|handle| handle.index % apart == 0)
        };
        let alive = listed.residents.iter().filter_map(std::sync::Weak::upgrade).filter(|chunk| !chunk.is_dead());
        let (stay, go): (Vec<_>, Vec<_>) = alive.partition(stays);
        if go.is_empty() {
            return stay;
        }
        // What there is no room to move goes too, or the segment would not.
        let go = go.into_iter().chain(stay.into_iter().filter(|chunk| !self.relocate(state, chunk, Some((now, true)))));
        go.filter_map(|chunk| self.drop_one(state, chunk, &state.counters.evicted_thinned)).collect()
    }

    /// Takes a chunk's entries out; the chunk where somebody leases it.
    fn drop_one(
        &self,
        state: &PoolState,
        chunk: Arc<Resident<Chunk>>,
        counter: &std::sync::atomic::AtomicU64,
    ) -> Option<Arc<Resident<Chunk>>> {
        let stays = self.index.reclaim(state.id, &chunk, |stamp| {
            count(counter);
            forget(state, &chunk.value, stamp);
        });
        stays.then_some(chunk)
    }

    fn was_got(&self, state: &PoolState, chunk: &Resident<Chunk>) -> bool {
        let pool = state.id;
        chunk.owners().into_iter().fold(false, |got, handle| self.index.was_got(Key { pool, handle }) | got)
    }

    /// Copies a chunk to where those go that are moved out of a segment (true where that is halved), or where puts do
    /// (`None`). The caller has the turn.
    fn relocate(&self, state: &Arc<PoolState>, chunk: &Arc<Resident<Chunk>>, from: Option<(Place, bool)>) -> bool {
        let Some(extent) = &chunk.value.memory else { return false };
        let limit = self.budget.load(Ordering::Relaxed) + FOR_MOVES * SEGMENT;
        let room = match from {
            None => state.reserve_again(&self.arena, extent.len(), limit),
            Some((from, halved)) => state.reserve_move(&self.arena, extent.len(), limit, from, halved),
        };
        let Some((room, bytes)) = room.zip(extent.bytes()) else { return false };
        let memory = room.write(&bytes);
        let Chunk { form, file, .. } = &chunk.value;
        self.swap(state, chunk, Chunk::new(state, form.clone(), Some(memory), file.clone()))
    }

    /// Gives every owner of `chunk` the same chunk in another form or place. The caller has the pool's turn. False where
    /// nobody has it any more.
    pub(super) fn swap(&self, state: &Arc<PoolState>, chunk: &Arc<Resident<Chunk>>, now: Chunk) -> bool {
        let now = Resident::new(now, Vec::new());
        if !state.register(&now) {
            return false;
        }
        let moved = self.index.exchange(state.id, chunk, &now);
        if moved {
            state.remember(&now);
        }
        moved
    }

    /// Closes holes, most wasteful segments first, until no more than a hundredth of a pool's full segments are holes (where
    /// those are filled, a two-hundredth), or `bytes` have been moved; bytes moved.
    ///
    /// Where holes are filled, chunks go to those of other segments, so that it takes the move of a segment's chunks to be
    /// rid of it; elsewhere that of many segments' for each.
    ///
    /// A chunk that lies in two segments leaves a hole in the one when it is moved out of the other, so the last holes
    /// cannot be closed, only driven round the pool: two of a chunk's size are left where they are.
    pub(super) fn compact(&self, state: &Arc<PoolState>, bytes: usize) -> usize {
        let mut moved = 0;
        while moved < bytes {
            let _turn = lock(&state.mover);
            let mut holes = Vec::new();
            let (mut used, mut live) = (0, 0);
            for (key, listed) in lock(&state.segments).iter() {
                let Some(segment) = listed.segment.upgrade() else { continue };
                if segment.room() > 0 {
                    continue;
                }
                let (u, l) = segment.fill();
                (used, live) = (used + u, live + l);
                if l < u {
                    let from = Place { age: key.0, thinned: listed.thinned };
                    holes.push((u - l, from, listed.segment.clone(), listed.residents.clone()));
                }
            }
            if used - live <= used / if state.fills { 200 } else { 100 } {
                break;
            }
            holes.sort_by_key(|hole| std::cmp::Reverse(hole.0));
            // Readers may hold what is left of a segment; then the next is moved.
            let movable = holes.into_iter().find_map(|(_, from, segment, residents)| {
                let alive = residents.iter().filter_map(std::sync::Weak::upgrade).filter(|chunk| !chunk.is_dead());
                let alive: Vec<_> = alive.collect();
                (!alive.is_empty()).then_some((from, segment, alive))
            });
            let Some((from, segment, residents)) = movable else { break };
            let len = |chunk: &Resident<Chunk>| chunk.value.memory.as_ref().map_or(0, Extent::len);
            if used - live <= 2 * residents.iter().map(|chunk| len(chunk)).max().unwrap_or(0) {
                break;
            }
            let close = |closed| segment.upgrade().into_iter().for_each(|segment| segment.close(closed));
            close(true);
            let mut some = 0;
            let mut all = true;
            for chunk in residents {
                if self.relocate(state, &chunk, Some((from, false))) {
                    some += len(&chunk);
                    count(&state.counters.compacted);
                } else {
                    all = false;
                }
            }
            if !all {
                close(false);
            }
            // No room to move to.
            if some == 0 {
                break;
            }
            moved += some;
        }
        moved
    }

    pub(super) fn give_back(&self, bytes: usize) -> usize {
        let before = self.arena.held();
        self.arena.giving_back(|| {
            while before.saturating_sub(self.arena.held()) < bytes && self.evict_any(Cause::Pressure) {}
        });
        before.saturating_sub(self.arena.held())
    }
}

fn cause_counter(state: &PoolState, cause: Cause) -> &std::sync::atomic::AtomicU64 {
    match cause {
        Cause::Limit => &state.counters.evicted_limit,
        Cause::Pressure => &state.counters.evicted_pressure,
    }
}

/// Takes a segment off the list: the oldest of those to be halved next (then how often it has been), else the `nth`
/// oldest.
fn take_oldest(state: &PoolState, nth: usize, halvings: u8) -> Option<((u64, u32), Listed, Option<u8>)> {
    let mut segments = lock(&state.segments);
    segments.retain(|_, l| l.segment.strong_count() > 0);
    let count = segments.len();
    let may_thin = |(at, (_, l)): &(usize, (&(u64, u32), &Listed))| {
        let zone = count >> (l.thinned + 1);
        // One alone would be halved again and again, and nothing come to it.
        l.thinned < halvings && zone > 1 && *at < zone
    };
    let next = segments.iter().enumerate().filter(may_thin).min_by_key(|(_, (_, l))| l.thinned);
    let thin = next.map(|(_, (key, l))| (*key, l.thinned + 1));
    let key = thin.map(|(key, _)| key).or_else(|| segments.keys().nth(nth).copied())?;
    let (key, listed) = segments.remove_entry(&key)?;
    Some((key, listed, thin.map(|(_, halving)| halving)))
}
