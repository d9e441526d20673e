//! Which frames the store was given, in the order of their capture. The store itself tells nobody what it has.

use std::collections::VecDeque;

use shrbuf_pipeline::{Colorimetry, Frame, Rect, Timestamp};

/// A frame that was put, and what comes back with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Rises by one with each frame that was put.
    pub(super) number: u64,
    pub(super) timestamp: Timestamp,
    pub(super) sequence: u64,
    pub(super) color: Colorimetry,
    pub(super) crop: Option<Rect>,
    pub(super) corrupt: bool,
}

impl Entry {
    pub(super) fn of(frame: &Frame, number: u64) -> Entry {
        let Frame { timestamp, sequence, color, crop, corrupt, .. } = *frame;
        Entry { number, timestamp, sequence, color, crop, corrupt }
    }
}

/// Entries by rising number and time stamp.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    entries: VecDeque<Entry>,
}

impl Timeline {
    /// A frame whose time stamp lies before the last one's is out of order, as after a clock that was set: everything
    /// before it is of another time, and is given to `gone`.
    pub(super) fn push(&mut self, entry: Entry, gone: impl FnMut(Entry)) {
        if self.entries.back().is_some_and(|last| entry.timestamp < last.timestamp) {
            self.entries.drain(..).for_each(gone);
        }
        self.entries.push_back(entry);
    }

    /// Takes the oldest out while it is older than `before`.
    pub(super) fn expire(&mut self, before: Timestamp) -> Option<Entry> {
        if self.oldest()?.timestamp < before { self.pop() } else { None }
    }

    /// Takes the oldest out, whatever its age.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }

    /// Takes out one that the store no longer has.
    pub(super) fn remove(&mut self, number: u64) {
        if let Ok(at) = self.entries.binary_search_by_key(&number, |e| e.number) {
            self.entries.remove(at);
        }
    }

    pub(super) fn oldest(&self) -> Option<Entry> {
        self.entries.front().copied()
    }

    pub(super) fn newest(&self) -> Option<Entry> {
        self.entries.back().copied()
    }

    /// The first at `time` or after it.
    pub(super) fn from(&self, time: Timestamp) -> Option<Entry> {
        self.entries.get(self.entries.partition_point(|e| e.timestamp < time)).copied()
    }

    /// The one that was current at `time`: the last at it or before it.
    pub(super) fn at(&self, time: Timestamp) -> Option<Entry> {
        let after = self.entries.partition_point(|e| e.timestamp <= time);
        self.entries.get(after.checked_sub(1)?).copied()
    }

    /// The next after `number`.
    pub(super) fn after(&self, number: u64) -> Option<Entry> {
        self.entries.get(self.entries.partition_point(|e| e.number <= number)).copied()
    }

    /// The next before `number`.
    pub(super) fn before(&self, number: u64) -> Option<Entry> {
        let at = self.entries.partition_point(|e| e.number < number);
        self.entries.get(at.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, at: u64) -> Entry {
        let timestamp = Timestamp(at);
        Entry { number, timestamp, sequence: number, color: Colorimetry::default(), crop: None, corrupt: false }
    }

    fn timeline() -> Timeline {
        let mut timeline = Timeline::default();
        (0..5).for_each(|n| timeline.push(entry(n, 100 + 10 * n), |_| unreachable!()));
        timeline.remove(2);
        timeline
    }

    fn number(entry: Option<Entry>) -> Option<u64> {
        entry.map(|e| e.number)
    }

    #[test]
    fn frames_are_found_by_time_and_by_neighbour() {
        let t = timeline();
        assert_eq!(
            [0, 100, 101, 120, 140, 141].map(|at| number(t.from(Timestamp(at)))),
            [Some(0), Some(0), Some(1), Some(3), Some(4), None]
        );
        assert_eq!([99, 100, 125, 200].map(|at| number(t.at(Timestamp(at)))), [None, Some(0), Some(1), Some(4)]);
        assert_eq!([0, 1, 2, 4].map(|n| number(t.after(n))), [Some(1), Some(3), Some(3), None]);
        assert_eq!([0, 3, 4].map(|n| number(t.before(n))), [None, Some(1), Some(3)]);
    }

    #[test]
    fn old_frames_expire_one_by_one() {
        let mut t = timeline();
        assert_eq!(number(t.expire(Timestamp(115))), Some(0));
        assert_eq!(number(t.expire(Timestamp(115))), Some(1));
        assert_eq!(number(t.expire(Timestamp(115))), None);
        assert_eq!((number(t.oldest()), number(t.newest())), (Some(3), Some(4)));
    }

    #[test]
    fn a_clock_that_jumps_back_starts_anew() {
        let mut t = timeline();
        let mut gone = Vec::new();
        t.push(entry(5, 50), |e| gone.push(e.number));
        assert_eq!(gone, [0, 1, 3, 4]);
        assert_eq!(number(t.oldest()), Some(5));
    }
}
