//! Which shared reference the frames of a pool are predicted from, and when there is to be another.
//!
//! A pool is taken for a stream of pictures of one layout. Each [`PERIOD`] puts a few stripes of the frame that was put
//! are coded in three ways: by themselves, from the reference that is in use, and from the average of the [`FRAMES`] put
//! last, of which just these stripes are decoded. That says whether the reference is used from then on, and whether the
//! average is so much better that it is worth being the next one. If so, the following puts draw it, each some stripes,
//! of the frames put last by then. So a scene that moves costs a put's work each [`PERIOD`] puts and no memory, a still
//! one has its reference after some puts, and one that changes, or whose light does, gets another.
//!
//! Nothing here keeps a reference alive, chunks do; but for one that was just made and has no chunk yet. A pool without
//! chunks has none, and where memory is short it goes when there is nothing else to evict.

use std::sync::{Arc, Weak};

use super::chunk::Chunk;
use super::index::Resident;
use super::reference::{Draft, SharedReference};
use crate::codec::Picture;
use crate::sync::{Mutex, lock};
use crate::sys::segment::SEGMENT;

/// Puts from one trial to the next.
const PERIOD: u32 = 64;

/// Frames in an average: one of eight has a sixteenth of a bit a sample more noise than one of all frames would have.
const FRAMES: usize = 8;

/// Puts that a reference is drawn in.
const DRAWN_IN: usize = 8;

/// References may take this part of what the pool may have. A full pool has whole segments, and one less for a reference.
const SHARE: usize = 16;

/// A new reference has to make frames this much smaller, in percent.
const WORTH: u64 = 3;

/// One that there is already has to make them this much smaller to be used.
const OF_USE: u64 = 1;

/// The chunks put last, as far as they are still there.
pub(crate) type Recent = [Option<Arc<Resident<Chunk>>>; FRAMES];

/// What there is to do after a put.
#[derive(Debug)]
pub(crate) enum Work {
    /// Measures the three ways, for [`Scene::tried`].
    Try(Recent, Option<Arc<SharedReference>>),
    /// Draws some stripes, for [`Scene::drawn`].
    Draw(Recent, Box<Draft>),
}

/// What some stripes take, coded in each of the ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sizes {
    pub alone: u64,
    /// From the reference in use, if there is one.
    pub current: u64,
    /// From the average of the last frames.
    pub fresh: u64,
}

/// What frames of a pool are predicted from.
#[derive(Debug, Default)]
pub(crate) struct Scene(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    picture: Option<Picture>,
    /// Puts in a row of other pictures.
    others: u32,
    /// Chunks put since the last trial.
    since: u32,
    recent: [Weak<Resident<Chunk>>; FRAMES],
    next: usize,
    current: Weak<SharedReference>,
    used: bool,
    /// The one in use, until a chunk has it.
    made: Option<Arc<SharedReference>>,
    draft: Option<Box<Draft>>,
    /// Somebody does the work just now.
    busy: bool,
}

impl Scene {
    /// What a frame is to be predicted from, in a pool that may have `limit` bytes.
    pub(crate) fn reference(&self, picture: &Picture, limit: usize) -> Option<Arc<SharedReference>> {
        let state = lock(&self.0);
        let of_use = state.used && state.picture.as_ref() == Some(picture) && picture.bytes() <= limit / SHARE;
        state.current.upgrade().filter(|reference| of_use && !reference.is_damaged())
    }

    /// Notes a chunk that was put, and hands out what there is to do: at most one work at a time, with the frames before
    /// it.
    pub(crate) fn follow(&self, picture: &Picture, chunk: &Arc<Resident<Chunk>>) -> Option<Work> {
        let mut state = lock(&self.0);
        if state.picture.as_ref() != Some(picture) {
            state.others += 1;
            if state.picture.is_some() && state.others < PERIOD {
                return None;
            }
            let before = std::mem::replace(&mut *state, State::of(picture));
            state.busy = before.busy;
            drop(before);
        }
        state.others = 0;
        state.since = state.since.saturating_add(1);
        let work = state.work();
        state.remember(chunk);
        work
    }

    /// The end of a trial, `None` where there were too few frames; true where a new reference is worth its memory.
    pub(crate) fn tried(&self, sizes: Option<Sizes>) -> bool {
        let mut state = lock(&self.0);
        state.busy = false;
        let Some(Sizes { alone, current, fresh }) = sizes else { return false };
        let saves = |with: u64, without: u64, percent| with * 100 <= without * (100 - percent);
        state.used = current > 0 && saves(current, alone, OF_USE);
        saves(fresh, if state.used { current } else { alone }, WORTH)
    }

    /// The reference in the making, with more stripes than before; `None` where it comes to nothing.
    pub(crate) fn drawn(&self, draft: Option<Box<Draft>>) {
        let of = draft.as_ref().map(|draft| *draft.picture());
        let (draft, made) = match draft {
            Some(draft) if draft.next().is_none() => (None, draft.finish().map(Arc::new)),
            draft => (draft, None),
        };
        let mut state = lock(&self.0);
        state.busy = false;
        // Else frames are of another picture by now.
        if state.picture == of {
            state.draft = draft;
            if let Some(made) = made {
                (state.current, state.used) = (Arc::downgrade(&made), true);
                state.made = Some(made);
            }
        }
    }

    /// Lets go of a reference that no chunk has; true where there was one. Waits for nobody.
    pub(crate) fn give_up(&self) -> bool {
        let Ok(mut state) = self.0.try_lock() else { return false };
        let (draft, made) = (state.draft.take(), state.made.take());
        draft.is_some() || made.is_some()
    }
}

impl State {
    fn of(picture: &Picture) -> State {
        // The first trial is as soon as there are frames for it.
        State { picture: Some(*picture), since: PERIOD - FRAMES as u32 - 1, ..State::default() }
    }

    fn work(&mut self) -> Option<Work> {
        if self.busy || (self.draft.is_none() && self.since < PERIOD) {
            return None;
        }
        self.busy = true;
        let recent = std::array::from_fn(|i| self.recent[i].upgrade());
        if let Some(draft) = self.draft.take() {
            return Some(Work::Draw(recent, draft));
        }
        self.since = 0;
        Some(Work::Try(recent, self.current.upgrade()))
    }

    fn remember(&mut self, chunk: &Arc<Resident<Chunk>>) {
        self.recent[self.next] = Arc::downgrade(chunk);
        self.next = (self.next + 1) % FRAMES;
        let its = chunk.value.form.reference.as_ref();
        self.made.take_if(|made| its.is_some_and(|its| Arc::ptr_eq(its, made)));
    }
}

/// The stripes that are tried, spread over the picture.
pub(crate) fn tried(picture: &Picture) -> impl Iterator<Item = usize> {
    let stripes = picture.stripes();
    let n = stripes.min(4);
    (0..n).map(move |i| (2 * i + 1) * stripes / (2 * n))
}

/// How many stripes a put draws.
pub(crate) fn drawn_at_once(picture: &Picture) -> usize {
    picture.stripes().div_ceil(DRAWN_IN)
}

/// True where a pool that may have `limit` bytes, and whose references have `taken`, may have one more of the picture.
pub(crate) fn fits(picture: &Picture, taken: usize, limit: usize) -> bool {
    taken + picture.bytes().next_multiple_of(SEGMENT) <= limit / SHARE
}
