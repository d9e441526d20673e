//! Which frames the store was given, in the order of their capture. The store itself tells nobody what it has.

use std::collections::VecDeque;

/// A frame that was put, and what comes back with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<T> {
    /// Rises by one with each frame.
    pub number: u64,
    /// Its time stamp in nanoseconds.
    pub at: u64,
    /// What else its owner wants to have again.
    pub info: T,
}

/// Entries by rising number and time stamp.
#[derive(Debug)]
pub(super) struct Timeline<T> {
    entries: VecDeque<Entry<T>>,
}

impl<T> Default for Timeline<T> {
    fn default() -> Timeline<T> {
        Timeline { entries: VecDeque::new() }
    }
}

impl<T: Clone> Timeline<T> {
    /// A frame whose time stamp lies before the last one's is out of order, as after a clock that was set: everything
    /// before it is of another time, and is given to `gone`.
    pub(super) fn push(&mut self, entry: Entry<T>, gone: impl FnMut(Entry<T>)) {
        if self.entries.back().is_some_and(|last| entry.at < last.at) {
            self.entries.drain(..).for_each(gone);
        }
        self.entries.push_back(entry);
    }

    /// Takes the oldest out while it is older than `before`.
    pub(super) fn expire(&mut self, before: u64) -> Option<Entry<T>> {
        if self.oldest()?.at < before { self.pop() } else { None }
    }

    /// Takes the oldest out, whatever its age.
    pub(super) fn pop(&mut self) -> Option<Entry<T>> {
        self.entries.pop_front()
    }

    /// Takes out one that the store no longer has.
    pub(super) fn remove(&mut self, number: u64) {
        if let Ok(at) = self.entries.binary_search_by_key(&number, |e| e.number) {
            self.entries.remove(at);
        }
    }

    pub(super) fn oldest(&self) -> Option<Entry<T>> {
        self.entries.front().cloned()
    }

    pub(super) fn newest(&self) -> Option<Entry<T>> {
        self.entries.back().cloned()
    }

    /// The first at `time` or after it.
    pub(super) fn from(&self, time: u64) -> Option<Entry<T>> {
        self.entries.get(self.entries.partition_point(|e| e.at < time)).cloned()
    }

    /// The one that was current at `time`: the last at it or before it.
    pub(super) fn at(&self, time: u64) -> Option<Entry<T>> {
        let after = self.entries.partition_point(|e| e.at <= time);
        self.entries.get(after.checked_sub(1)?).cloned()
    }

    /// The next after `number`.
    pub(super) fn after(&self, number: u64) -> Option<Entry<T>> {
        self.entries.get(self.entries.partition_point(|e| e.number <= number)).cloned()
    }

    /// The next before `number`.
    pub(super) fn before(&self, number: u64) -> Option<Entry<T>> {
        let at = self.entries.partition_point(|e| e.number < number);
        self.entries.get(at.checked_sub(1)?).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline() -> Timeline<()> {
        let mut timeline = Timeline::default();
        (0..5).for_each(|n| timeline.push(Entry { number: n, at: 100 + 10 * n, info: () }, |_| unreachable!()));
        timeline.remove(2);
        timeline
    }

    fn number(entry: Option<Entry<()>>) -> Option<u64> {
        entry.map(|e| e.number)
    }

    #[test]
    fn frames_are_found_by_time_and_by_neighbour() {
        let t = timeline();
        assert_eq!(
            [0, 100, 101, 120, 140, 141].map(|at| number(t.from(at))),
            [Some(0), Some(0), Some(1), Some(3), Some(4), None]
        );
        assert_eq!([99, 100, 125, 200].map(|at| number(t.at(at))), [None, Some(0), Some(1), Some(4)]);
        assert_eq!([0, 1, 2, 4].map(|n| number(t.after(n))), [Some(1), Some(3), Some(3), None]);
        assert_eq!([0, 3, 4].map(|n| number(t.before(n))), [None, Some(1), Some(3)]);
    }

    #[test]
    fn old_frames_expire_one_by_one() {
        let mut t = timeline();
        assert_eq!(number(t.expire(115)), Some(0));
        assert_eq!(number(t.expire(115)), Some(1));
        assert_eq!(number(t.expire(115)), None);
        assert_eq!((number(t.oldest()), number(t.newest())), (Some(3), Some(4)));
    }

    #[test]
    fn a_clock_that_jumps_back_starts_anew() {
        let mut t = timeline();
        let mut gone = Vec::new();
        t.push(Entry { number: 5, at: 50, info: () }, |e| gone.push(e.number));
        assert_eq!(gone, [0, 1, 3, 4]);
        assert_eq!(number(t.oldest()), Some(5));
    }
}
