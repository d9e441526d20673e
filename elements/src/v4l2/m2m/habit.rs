//! What a device has done so far, where that saves system calls: never more than a guess about what comes next, and never
//! about what is lost by it.

/// Times in a row after which something is taken for a habit, or for none.
const ENOUGH: u32 = 8;

/// Whether a device is done with a frame by the time that it has been given it, as one that works inside the call which
/// queues a buffer.
#[derive(Debug, Default)]
pub(super) struct DoneAtOnce {
    missed: u32,
}

impl DoneAtOnce {
    /// Whether to look at once: never again once that has cost more calls than it has saved.
    pub(super) fn is_likely(&self) -> bool {
        self.missed < ENOUGH
    }

    /// What looking at once has found: for nothing it is a call or two, and otherwise one is saved.
    pub(super) fn looked(&mut self, done: bool) {
        self.missed = if done { self.missed.saturating_sub(1) } else { self.missed + 2 };
    }
}

/// Whether a device makes one frame of each, so that there is no more to be had once as many came out as went in. One
/// that is not told of again, as it came with the one before, is had with the next frame.
#[derive(Debug, Default)]
pub(super) struct OneOfEach {
    hits: u32,
}

impl OneOfEach {
    pub(super) fn is_likely(&self) -> bool {
        self.hits >= ENOUGH
    }

    /// As many came out as went in, and no more.
    pub(super) fn hit(&mut self) {
        self.hits = self.hits.saturating_add(1);
    }

    /// There was one more.
    pub(super) fn missed(&mut self) {
        self.hits = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_never_done_at_once_is_not_asked_for_long() {
        let mut habit = DoneAtOnce::default();
        assert!(habit.is_likely());
        (0..ENOUGH).for_each(|_| habit.looked(false));
        assert!(!habit.is_likely());
    }

    #[test]
    fn a_device_that_mostly_is_goes_on_being_asked() {
        let mut habit = DoneAtOnce::default();
        (0..1000).for_each(|n| habit.looked(n % 4 != 0));
        assert!(habit.is_likely());
        (0..1000).for_each(|n| habit.looked(n % 4 == 0));
        assert!(!habit.is_likely());
    }

    #[test]
    fn one_more_than_went_in_has_every_frame_looked_for_again() {
        let mut habit = OneOfEach::default();
        assert!(!habit.is_likely());
        (0..ENOUGH).for_each(|_| habit.hit());
        assert!(habit.is_likely());
        habit.missed();
        assert!(!habit.is_likely());
    }
}
