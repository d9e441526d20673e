//! The compositor's clock, and ours.

use nix::time::{ClockId, clock_gettime};
use shrbuf_pipeline::Timestamp;

/// The clock by which a compositor says when a frame was shown (`wp_presentation.clock_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentationClock(ClockId);

impl PresentationClock {
    /// The clock of that number; `None` where this machine has none such.
    pub fn new(id: u32) -> Option<PresentationClock> {
        let id = ClockId::from_raw(i32::try_from(id).ok()?);
        clock_gettime(id).ok().map(|_| PresentationClock(id))
    }

    /// Whether it is the clock of [`Timestamp`]s.
    pub fn is_monotonic(self) -> bool {
        self.0 == ClockId::CLOCK_MONOTONIC
    }

    /// A time of this clock on CLOCK_MONOTONIC. Another clock's (Weston without a display has CLOCK_MONOTONIC_RAW) is
    /// moved by what the two differ by now: for the short while since a frame was shown they run alike to some
    /// nanoseconds.
    pub fn monotonic(self, ns: u64) -> Timestamp {
        if self.is_monotonic() {
            return Timestamp(ns);
        }
        // It answered in `new`.
        let Ok(there) = clock_gettime(self.0) else { return Timestamp(ns) };
        let there = there.tv_sec() as u64 * 1_000_000_000 + there.tv_nsec() as u64;
        Timestamp(Timestamp::now().0.wrapping_sub(there).wrapping_add(ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_another_clock_are_moved_to_ours() {
        let raw = PresentationClock::new(ClockId::CLOCK_REALTIME.as_raw() as u32).unwrap();
        let before = Timestamp::now();
        let there = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();

        let moved = raw.monotonic(there.tv_sec() as u64 * 1_000_000_000 + there.tv_nsec() as u64);

        // Between the two readings of our clock, but for what passes between two readings of the other.
        assert!(moved.0.abs_diff(before.0) < 50_000_000, "{} ns", moved.0.abs_diff(before.0));
        assert!(PresentationClock::new(0x7fff_ffff).is_none());
    }
}
