//! Stamps: shrbuf's are of CLOCK_MONOTONIC, GStreamer's count from when the pipeline began to play, by a clock of its choice.

use gst::ClockTime;
use gst::prelude::*;
use nix::time::{ClockId, clock_gettime};

fn monotonic() -> u64 {
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        Ok(t) => t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64,
        // Linux always has it.
        Err(_) => 0,
    }
}

/// The running time of a moment of CLOCK_MONOTONIC: now, less its age. 0, and what is yet to come, is now. `None` where there
/// is no clock.
pub(crate) fn running_time(element: &impl IsA<gst::Element>, stamp: u64) -> Option<ClockTime> {
    let now = element.current_running_time()?;
    let age = if stamp == 0 { 0 } else { monotonic().saturating_sub(stamp) };
    Some(now.saturating_sub(ClockTime::from_nseconds(age)))
}

/// The moment of CLOCK_MONOTONIC of a running time; now, where one of them is not known.
pub(crate) fn stamp(element: &impl IsA<gst::Element>, running_time: Option<ClockTime>) -> u64 {
    let now = monotonic();
    match running_time.zip(element.current_running_time()) {
        Some((then, current)) => now.saturating_add(then.nseconds()).saturating_sub(current.nseconds()),
        None => now,
    }
}
