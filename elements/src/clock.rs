//! A clock of equal periods, for elements without a device that keeps time.
//!
//! Times are absolute and computed from the tick's number, so they never drift, and re-arming is the only system call
//! of a tick: it also takes back the descriptor's readiness, so nothing needs to be read.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use shrbuf_pipeline::{Failure, FailureKind, Rate, Timestamp};

/// A grid of points in CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    start: Timestamp,
    rate: Rate,
}

impl Grid {
    pub(crate) fn new(start: Timestamp, rate: Rate) -> Grid {
        Grid { start, rate: if rate.num == 0 { Rate::new(1, 1) } else { rate } }
    }

    /// When tick `n` is due.
    pub(crate) fn time(&self, n: u64) -> Timestamp {
        let ns = u128::from(n) * 1_000_000_000 * u128::from(self.rate.den) / u128::from(self.rate.num);
        Timestamp(self.start.0.saturating_add(ns as u64))
    }

    /// The last tick that is due at `now`.
    pub(crate) fn last_due(&self, now: Timestamp) -> u64 {
        let ns = u128::from(now.since(self.start));
        // One nanosecond more, because `time` rounds down.
        ((ns + 1) * u128::from(self.rate.num) / (1_000_000_000 * u128::from(self.rate.den))) as u64
    }
}

/// A timerfd on CLOCK_MONOTONIC.
#[derive(Debug)]
pub(crate) struct Timer(TimerFd);

fn limit(call: &'static str) -> impl Fn(nix::Error) -> Failure {
    move |e| Failure::new(FailureKind::Limit, format!("{call} failed: {e}"))
}

impl Timer {
    pub(crate) fn new() -> Result<Timer, Failure> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map(Timer).map_err(limit("timerfd_create"))
    }

    /// A second descriptor of the timer, for the domain's loop to keep.
    pub(crate) fn watched(&self) -> Result<OwnedFd, Failure> {
        let fd: io::Result<OwnedFd> = self.0.as_fd().try_clone_to_owned();
        fd.map_err(|e| Failure::new(FailureKind::Limit, format!("no descriptor for a timer: {e}")))
    }

    /// Readable from `time` on, and not before.
    pub(crate) fn arm(&self, time: Timestamp) -> Result<(), Failure> {
        // A time of 0 would disarm.
        let at = TimeSpec::from_duration(Duration::from_nanos(time.0.max(1)));
        self.0.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME).map_err(limit("timerfd_settime"))
    }

    /// Not readable any more.
    pub(crate) fn disarm(&self) -> Result<(), Failure> {
        self.0.unset().map_err(limit("timerfd_settime"))
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_due_at_their_times_and_do_not_drift() {
        let grid = Grid::new(Timestamp(1_000), Rate::new(30000, 1001));
        for n in [0, 1, 2, 3, 1_000, 1_000_003] {
            assert_eq!(grid.last_due(grid.time(n)), n);
            assert_eq!(grid.last_due(Timestamp(grid.time(n + 1).0 - 2)), n);
        }
        assert_eq!(grid.time(30_000).0 - 1_000, 1_001_000_000_000);
    }
}
