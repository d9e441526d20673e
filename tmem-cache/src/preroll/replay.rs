//! What is to be sent, and in which order.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::timeline::Timeline;
use super::{Entry, Preroll, nanoseconds};

/// A replay under way.
#[derive(Debug, Clone, Copy)]
struct Job {
    /// What was sent last; before the first, where to begin.
    last: Cursor,
    /// The last moment that belongs to it.
    until: u64,
    backward: bool,
    /// Of a trigger: another one that comes meanwhile extends it.
    triggered: bool,
}

#[derive(Debug, Clone, Copy)]
enum Cursor {
    Begin(u64),
    Sent(u64),
}

/// What is next.
#[derive(Debug)]
pub enum Next<T> {
    /// This frame, which counts as sent from now on.
    Send(Entry<T>),
    /// Frames that have yet to be put.
    Later,
    /// Nothing was asked for, or all of it was sent.
    Idle,
}

/// What was asked for and has yet to be sent, one after the other, but for what has to wait. Moments are of the frames' own clock: `now` is the
/// time stamp of the newest frame when it was asked for.
#[derive(Debug, Default)]
pub struct Replays(Vec<Job>);

impl Replays {
    /// All that is kept, and what comes for `after` from `now` on. Where such a replay is under way it is extended, so
    /// that no frame comes twice. False where nothing is kept, which leaves things as they are.
    pub fn trigger<T: Clone>(&mut self, of: &Preroll<T>, now: u64, after: Duration) -> bool {
        let Some(oldest) = of.timeline().oldest() else { return false };
        // Before the first frame, the first frame.
        let until = now.max(oldest.at).saturating_add(nanoseconds(after));
        match self.0.iter_mut().find(|job| job.triggered) {
            Some(job) => job.until = job.until.max(until),
            None => self.0.push(Job { last: Cursor::Begin(oldest.at), until, backward: false, triggered: true }),
        }
        true
    }

    /// What was captured between two moments, as long ago as they say. The second may be longer ago than the first:
    /// then it is played backwards. The same twice is the one frame that was current then. False as for a trigger.
    pub fn play<T: Clone>(&mut self, of: &Preroll<T>, now: u64, from: Duration, to: Duration) -> bool {
        let timeline = of.timeline();
        let Some(oldest) = timeline.oldest() else { return false };
        let now = now.max(oldest.at);
        let ago = |duration: Duration| now.saturating_sub(nanoseconds(duration));
        let backward = to > from;
        let begin = if backward { ago(from) } else { timeline.at(ago(from)).unwrap_or(oldest).at };
        self.0.push(Job { last: Cursor::Begin(begin), until: ago(to), backward, triggered: false });
        true
    }

    /// What is next: of the first replay that has a frame to send, so that none waits for frames that another waits for.
    /// Frames that any replay has still to send are kept for it from then on.
    pub fn next<T: Clone>(&mut self, of: &Preroll<T>) -> Next<T> {
        // Held until it is known what is needed, so that nothing that is about to be sent expires.
        let timeline = of.timeline();
        let (mut next, mut needed) = (Next::Idle, u64::MAX);
        self.0.retain_mut(|job| {
            let (least, step) = job.step(&timeline);
            needed = needed.min(least);
            match step {
                Next::Send(entry) if !matches!(next, Next::Send(_)) => {
                    job.last = Cursor::Sent(entry.number);
                    next = Next::Send(entry);
                }
                Next::Later if matches!(next, Next::Idle) => next = Next::Later,
                Next::Idle => return false,
                _ => {}
            }
            true
        });
        of.needed.store(needed, Ordering::Release);
        next
    }

    /// Ends the first replay, once all wait: what it waits for will not come.
    pub fn give_up(&mut self) {
        if !self.0.is_empty() {
            self.0.remove(0);
        }
    }
}

impl Job {
    /// The first frame that it has still to send, by number, and that frame, where it is there; idle where it is over.
    fn step<T: Clone>(&self, timeline: &Timeline<T>) -> (u64, Next<T>) {
        let found = match (self.last, self.backward) {
            (Cursor::Begin(time), false) => timeline.from(time),
            (Cursor::Begin(time), true) => timeline.at(time),
            (Cursor::Sent(number), false) => timeline.after(number),
            (Cursor::Sent(number), true) => timeline.before(number),
        };
        match found {
            Some(entry) if self.backward && entry.at >= self.until => {
                let last = timeline.from(self.until).map_or(entry.number, |last| last.number);
                (last, Next::Send(entry))
            }
            Some(entry) if !self.backward && entry.at <= self.until => (entry.number, Next::Send(entry)),
            None if !self.backward && timeline.newest().is_some_and(|newest| newest.at < self.until) => {
                (timeline.newest().map_or(u64::MAX, |newest| newest.number + 1), Next::Later)
            }
            _ => (u64::MAX, Next::Idle),
        }
    }
}
