//! What is to be sent, and in which order.

use std::sync::atomic::Ordering;
use std::time::Duration;

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

/// What was asked for and has yet to be sent, one after the other. Moments are of the frames' own clock: `now` is the
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

    /// What is next. Frames that a replay has still to send are kept for it from then on.
    pub fn next<T: Clone>(&mut self, of: &Preroll<T>) -> Next<T> {
        while let Some(job) = self.0.first_mut() {
            if let Some(next) = job.next(of) {
                return next;
            }
            self.0.remove(0);
        }
        of.needed.store(u64::MAX, Ordering::Release);
        Next::Idle
    }

    /// Ends the first replay: what it waits for will not come.
    pub fn give_up(&mut self) {
        if !self.0.is_empty() {
            self.0.remove(0);
        }
    }
}

impl Job {
    /// `None` where it is over.
    fn next<T: Clone>(&mut self, of: &Preroll<T>) -> Option<Next<T>> {
        let timeline = of.timeline();
        let found = match (self.last, self.backward) {
            (Cursor::Begin(time), false) => timeline.from(time),
            (Cursor::Begin(time), true) => timeline.at(time),
            (Cursor::Sent(number), false) => timeline.after(number),
            (Cursor::Sent(number), true) => timeline.before(number),
        };
        let (least, next) = match found {
            Some(entry) if self.backward && entry.at >= self.until => {
                (timeline.oldest().map_or(entry.number, |oldest| oldest.number), Some(Next::Send(entry)))
            }
            Some(entry) if !self.backward && entry.at <= self.until => (entry.number, Some(Next::Send(entry))),
            None if !self.backward && timeline.newest().is_some_and(|newest| newest.at < self.until) => {
                (u64::MAX, Some(Next::Later))
            }
            _ => (u64::MAX, None),
        };
        // While the timeline is held, so that nothing that is about to be sent expires.
        of.needed.store(least, Ordering::Release);
        if let Some(Next::Send(entry)) = &next {
            self.last = Cursor::Sent(entry.number);
        }
        next
    }
}
