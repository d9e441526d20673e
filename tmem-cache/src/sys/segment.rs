//! Segments: bytes are reserved, written once, and from then on only read, until nobody has them. A segment is filled from
//! its start to its end. What is let go of comes back when the whole segment is freed, or before, as a hole, where the
//! segment is one that is filled again.
//!
//! That is what makes slices of them sound: a [`Piece`] has its bytes to itself, a [`Reserved`] is the only way to them
//! before they are written, an [`Extent`] the only one after, and each keeps its segments from being freed.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use super::region::Region;
use crate::store::options::Backing;

/// Bytes of a segment: two huge pages, so that a freed segment never splits one.
pub const SEGMENT: usize = 4 << 20;

/// Freed segments that keep their pages for the next taker.
const SPARE: usize = 1;

/// How many holes of a segment are looked at.
const HOLES: usize = 64;

/// All segments that can be.
#[derive(Debug)]
pub(crate) struct Arena {
    region: Region,
    slots: std::sync::Mutex<Slots>,
    /// Segments with pages: taken and spare.
    held: AtomicUsize,
    /// Bytes of memory elsewhere that count as if they were segments'.
    charged: AtomicUsize,
    /// Set while memory is being given back: then nothing is kept as spare.
    giving: AtomicBool,
    /// A segment was taken since [`Arena::give_idle_back`] last asked.
    busy: AtomicBool,
}

#[derive(Debug)]
struct Slots {
    free: BTreeSet<u32>,
    spare: Vec<u32>,
}

/// Bytes of memory elsewhere, counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Charge {
    arena: Arc<Arena>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.arena.charged.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// One segment, freed with its last extent.
#[derive(Debug)]
pub(crate) struct Segment {
    arena: Arc<Arena>,
    slot: u32,
    age: u64,
    used: AtomicU32,
    live: AtomicU32,
    /// None where a segment only goes whole.
    holes: Option<Holes>,
}

/// What of a segment can be taken again.
#[derive(Debug, Default)]
struct Holes {
    ranges: std::sync::Mutex<Ranges>,
    /// None is longer.
    longest: AtomicU32,
    /// Nothing is taken: the segment is being emptied.
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Ranges {
    /// Ends by starts; no two touch.
    all: BTreeMap<u32, u32>,
    /// Where to look next.
    next: u32,
}

impl Holes {
    fn ranges(&self) -> std::sync::MutexGuard<'_, Ranges> {
        self.ranges.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn add(&self, range: Range<u32>) {
        let Range { mut start, mut end } = range;
        let all = &mut self.ranges().all;
        if let Some(after) = all.remove(&end) {
            end = after;
        }
        if let Some((before, _)) = all.range(..start).next_back().filter(|(_, end)| **end == start) {
            start = *before;
        }
        all.insert(start, end);
        self.longest.fetch_max(end - start, Ordering::Relaxed);
    }

    /// The start of `len` bytes, of that of the next [`HOLES`] which they fill best.
    fn take(&self, len: u32) -> Option<u32> {
        if self.longest.load(Ordering::Relaxed) < len || self.closed.load(Ordering::Relaxed) {
            return None;
        }
        let Ranges { all, next } = &mut *self.ranges();
        let mut best: Option<(u32, u32, u32)> = None;
        let (mut longest, mut last) = (0, *next);
        for (start, end) in all.range(*next..).chain(all.range(..*next)).take(HOLES) {
            let length = end - start;
            (longest, last) = (longest.max(length), *start);
            if length >= len && best.is_none_or(|(shortest, ..)| length < shortest) {
                best = Some((length, *start, *end));
            }
        }
        let Some((_, start, end)) = best else {
            if all.len() <= HOLES {
                self.longest.store(longest, Ordering::Relaxed);
            }
            *next = last + 1;
            return None;
        };
        all.remove(&start);
        if start + len < end {
            all.insert(start + len, end);
        }
        *next = start;
        Some(start)
    }
}

/// Part of one segment.
#[derive(Debug)]
struct Piece {
    segment: Arc<Segment>,
    at: u32,
    len: u32,
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.segment.live.fetch_sub(self.len, Ordering::Relaxed);
        self.segment.holes.iter().for_each(|holes| holes.add(self.at..self.at + self.len));
    }
}

/// Bytes that are to be written by their one owner.
#[derive(Debug, Default)]
pub(crate) struct Reserved(Vec<Piece>);

/// Bytes that have been written and never change.
#[derive(Debug)]
pub(crate) struct Extent(Pieces);

#[derive(Debug)]
enum Pieces {
    One(Piece),
    Many(Box<[Piece]>),
}

impl Arena {
    /// # Errors
    /// mmap(2)'s or memfd_create(2)'s.
    pub(crate) fn new(segments: u32, backing: Backing) -> io::Result<Arc<Arena>> {
        let region = Region::new(segments as usize * SEGMENT, backing)?;
        let slots = Slots { free: (0..segments).collect(), spare: Vec::new() };
        Ok(Arc::new(Arena {
            region,
            slots: std::sync::Mutex::new(slots),
            held: AtomicUsize::new(0),
            charged: AtomicUsize::new(0),
            giving: AtomicBool::new(false),
            busy: AtomicBool::new(false),
        }))
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Bytes with pages behind them, and those charged.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed) * SEGMENT + self.charged.load(Ordering::Relaxed)
    }

    /// Of these, all but spare segments.
    pub(crate) fn taken(&self) -> usize {
        // Locked first: what is spare is held for as long as it is in the list.
        let slots = self.slots();
        self.held() - slots.spare.len() * SEGMENT
    }

    /// Counts memory elsewhere, while no more than `limit` bytes are taken.
    pub(crate) fn charge(self: &Arc<Arena>, bytes: usize, limit: usize) -> Option<Charge> {
        let slots = self.slots();
        let taken = self.held() - slots.spare.len() * SEGMENT;
        if taken + bytes > limit {
            return None;
        }
        self.charged.fetch_add(bytes, Ordering::Relaxed);
        Some(Charge { arena: self.clone(), bytes })
    }

    /// An empty segment, the one that follows `after` in memory if it can be had, while no more than `limit` bytes are
    /// taken. `None` where that is reached, or the kernel has no pages. `again` where its holes are to be filled.
    pub(crate) fn take(
        self: &Arc<Arena>,
        after: Option<&Segment>,
        age: u64,
        limit: usize,
        again: bool,
    ) -> Option<Arc<Segment>> {
        self.busy.store(true, Ordering::Relaxed);
        let mut slots = self.slots();
        let taken = self.held() - slots.spare.len() * SEGMENT;
        if taken + SEGMENT > limit {
            return None;
        }
        let wanted = after.map(|s| s.slot + 1);
        let spare = slots.spare.iter().position(|s| Some(*s) == wanted);
        let slot = if let Some(i) = spare {
            slots.spare.swap_remove(i)
        } else if let Some(slot) = slots.spare.pop() {
            slot
        } else {
            let slot = wanted.filter(|s| slots.free.contains(s)).or_else(|| slots.free.first().copied())?;
            self.region.provide(slot as usize * SEGMENT, SEGMENT).ok()?;
            slots.free.remove(&slot);
            self.held.fetch_add(1, Ordering::Relaxed);
            slot
        };
        drop(slots);
        let (used, live) = (AtomicU32::new(0), AtomicU32::new(0));
        let holes = again.then(Holes::default);
        Some(Arc::new(Segment { arena: self.clone(), slot, age, used, live, holes }))
    }

    /// While `f` runs, freed segments go back to the kernel at once; the spare ones go first.
    pub(crate) fn giving_back<T>(&self, f: impl FnOnce() -> T) -> T {
        self.giving.store(true, Ordering::Relaxed);
        self.give_spare_back();
        let t = f();
        self.giving.store(false, Ordering::Relaxed);
        t
    }

    /// Gives the spare segments back if none was taken since this was last called: then nobody waits for one.
    pub(crate) fn give_idle_back(&self) {
        if !self.busy.swap(false, Ordering::Relaxed) {
            self.give_spare_back();
        }
    }

    pub(crate) fn give_spare_back(&self) {
        let spare = std::mem::take(&mut self.slots().spare);
        spare.into_iter().for_each(|slot| self.to_kernel(slot));
    }

    fn to_kernel(&self, slot: u32) {
        // SAFETY: the slot is in no list and no `Segment` of it exists, so neither does an extent.
        // Where the kernel refuses, the pages stay until the slot is used again: no harm but the memory.
        let _ = unsafe { self.region.give_back(slot as usize * SEGMENT, SEGMENT) };
        self.slots().free.insert(slot);
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Segment {
    /// Reserves up to `len` bytes; what is reserved may be less. Callers take turns (the pool's `open` lock).
    pub(crate) fn reserve(self: &Arc<Segment>, len: usize, into: &mut Reserved) -> usize {
        let at = self.used.load(Ordering::Relaxed);
        let got = len.min(SEGMENT - at as usize);
        if got > 0 {
            let swapped = self.used.compare_exchange(at, at + got as u32, Ordering::Relaxed, Ordering::Relaxed);
            if swapped.is_err() {
                return 0;
            }
            self.live.fetch_add(got as u32, Ordering::Relaxed);
            into.0.push(Piece { segment: self.clone(), at, len: got as u32 });
        }
        got
    }

    /// `len` bytes of a hole; `None` where there is none of that length, or holes are not filled.
    pub(crate) fn reserve_hole(self: &Arc<Segment>, len: usize) -> Option<Reserved> {
        let len = u32::try_from(len).ok().filter(|len| *len > 0)?;
        let at = self.holes.as_ref()?.take(len)?;
        self.live.fetch_add(len, Ordering::Relaxed);
        Some(Reserved(vec![Piece { segment: self.clone(), at, len }]))
    }

    /// Holes are not filled from now on, or they are again.
    pub(crate) fn close(&self, closed: bool) {
        self.holes.iter().for_each(|holes| holes.closed.store(closed, Ordering::Relaxed));
    }

    /// Nothing more is appended: what room there was is a hole.
    pub(crate) fn seal(&self) {
        let used = self.used.swap(SEGMENT as u32, Ordering::Relaxed);
        let room = used..SEGMENT as u32;
        self.holes.iter().filter(|_| !room.is_empty()).for_each(|holes| holes.add(room.clone()));
    }

    /// Bytes written or reserved, and those of them that somebody still has.
    pub(crate) fn fill(&self) -> (usize, usize) {
        (self.used.load(Ordering::Relaxed) as usize, self.live.load(Ordering::Relaxed) as usize)
    }

    pub(crate) fn room(&self) -> usize {
        SEGMENT - self.used.load(Ordering::Relaxed) as usize
    }

    /// What a pool's list is ordered by: age, then slot.
    pub(crate) fn key(&self) -> (u64, u32) {
        (self.age, self.slot)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if !self.arena.giving.load(Ordering::Relaxed) {
            let mut slots = self.arena.slots();
            if slots.spare.len() < SPARE {
                slots.spare.push(self.slot);
                return;
            }
        }
        self.arena.to_kernel(self.slot);
    }
}

impl Piece {
    fn start(&self) -> *mut u8 {
        self.segment.arena.region.at(self.segment.slot as usize * SEGMENT + self.at as usize).as_ptr()
    }
}

impl Reserved {
    /// Writes the bytes, as many as were reserved.
    pub(crate) fn write(self, mut bytes: &[u8]) -> Extent {
        for piece in &self.0 {
            let n = (piece.len as usize).min(bytes.len());
            // SAFETY: the piece is `len` bytes inside its segment's slot, which is mapped while the segment lives;
            // nobody else has a piece of them, since they are either behind all that was reserved so far or of a hole, which
            // a piece leaves only when it is dropped; and nobody reads them before the extent exists.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), piece.start(), n) };
            bytes = &bytes[n..];
        }
        let mut pieces = self.0;
        Extent(match pieces.pop() {
            Some(one) if pieces.is_empty() => Pieces::One(one),
            last => Pieces::Many(pieces.into_iter().chain(last).collect()),
        })
    }
}

impl Extent {
    fn pieces(&self) -> &[Piece] {
        match &self.0 {
            Pieces::One(p) => std::slice::from_ref(p),
            Pieces::Many(all) => all,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces().iter().map(|p| p.len as usize).sum()
    }

    /// The segments it lies in.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.pieces().iter().map(|p| &p.segment)
    }

    /// The bytes: where they lie if they follow one another in memory, which they mostly do, else gathered; `None` where
    /// there is no memory for that.
    pub(crate) fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        let pieces = self.pieces();
        let Some(first) = pieces.first() else { return Some(Cow::Borrowed(&[])) };
        let adjacent = pieces.windows(2).all(|w| w[0].start().wrapping_add(w[0].len as usize) == w[1].start());
        let slice = |p: &Piece, len| {
            // SAFETY: the bytes were written before the extent was made (`write` wrote every piece whole, or what was there
            // before stands there, if only the zeroes of fresh pages) and are not written again while it lives, since its
            // pieces have them to themselves; the slice does not outlive it.
            // Pieces that follow one another lie in the one mapping.
            unsafe { std::slice::from_raw_parts(p.start().cast_const(), len) }
        };
        if adjacent {
            return Some(Cow::Borrowed(slice(first, self.len())));
        }
        let mut gathered = Vec::new();
        gathered.try_reserve_exact(self.len()).ok()?;
        pieces.iter().for_each(|p| gathered.extend_from_slice(slice(p, p.len as usize)));
        Some(Cow::Owned(gathered))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn segment(again: bool) -> Arc<Segment> {
        let arena = Arena::new(2, Backing::Anonymous).unwrap();
        arena.take(None, 1, 2 * SEGMENT, again).unwrap()
    }

    fn append(segment: &Arc<Segment>, bytes: &[u8]) -> Option<Extent> {
        let mut reserved = Reserved::default();
        (segment.room() >= bytes.len()).then(|| {
            segment.reserve(bytes.len(), &mut reserved);
            reserved.write(bytes)
        })
    }

    #[test]
    fn nobody_writes_what_somebody_has_however_holes_come_and_go() {
        let segment = segment(true);
        let mut state = 1u32;
        let mut random = move |n: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % n
        };
        let mut held: Vec<(u8, Extent)> = Vec::new();
        let mut filled = 0;
        for n in 0..40_000u32 {
            // Of few sizes and of many, so that holes are filled whole and in part.
            let len = if n % 2 == 0 { 4096 } else { 1 + random(9000) };
            let bytes = vec![n as u8; len];
            let hole = segment.reserve_hole(len);
            filled += usize::from(hole.is_some());
            let extent = hole.map(|hole| hole.write(&bytes)).or_else(|| append(&segment, &bytes));
            held.extend(extent.map(|extent| (n as u8, extent)));
            while held.len() > 700 || (segment.room() < 9000 && held.len() > 300 && random(2) == 0) {
                let (tag, extent) = held.swap_remove(random(held.len()));
                assert!(extent.bytes().unwrap().iter().all(|byte| *byte == tag));
            }
            let live: usize = held.iter().map(|(_, extent)| extent.len()).sum();
            assert_eq!(segment.fill().1, live);
        }
        assert!(filled > 20_000, "{filled}");
        held.into_iter().for_each(|(tag, extent)| assert!(extent.bytes().unwrap().iter().all(|byte| *byte == tag)));

        // All of it is one hole again.
        segment.seal();
        let all = segment.reserve_hole(SEGMENT).unwrap();
        assert!(segment.reserve_hole(1).is_none());
        drop(all);
        segment.close(true);
        assert!(segment.reserve_hole(1).is_none(), "it is being emptied");
        segment.close(false);
        assert!(segment.reserve_hole(1).is_some());
    }

    #[test]
    fn segment_that_goes_whole_has_no_holes() {
        let segment = segment(false);
        drop(append(&segment, &[1; 1000]));
        segment.seal();
        assert!(segment.reserve_hole(1).is_none());
        assert_eq!(segment.fill(), (SEGMENT, 0));
    }
}
