//! Frames at 60 a second, and how old each is as it comes.

use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde_json::json;

/// Frames that do not count: those that waited for the consumer, and those on cold caches.
const WARM: usize = 30;
const PERIOD: Duration = Duration::from_nanos(1_000_000_000 / 60);

/// Ticks.
///
/// # Errors
/// That of timerfd_create(2) and timerfd_settime(2).
pub fn timer() -> nix::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
    let period = Expiration::Interval(TimeSpec::from_duration(PERIOD));
    timer.set(period, TimerSetTimeFlags::empty())?;
    Ok(timer)
}

/// What came, as JSON, of ages in ns.
pub fn latency(ages: Vec<u64>) -> serde_json::Value {
    let mut ns: Vec<u64> = ages.into_iter().skip(WARM).collect();
    ns.sort_unstable();
    let at = |part: usize| ns.get(ns.len().saturating_sub(1) * part / 100).copied();
    json!({ "frames": ns.len(), "p50_ns": at(50), "p99_ns": at(99) })
}
