//! Stamps: shrbuf's are of CLOCK_MONOTONIC, GStreamer's count from when the pipeline began to play, by a clock of its
//! choice. Mostly that clock is CLOCK_MONOTONIC itself, and a stamp is converted exactly; otherwise by its age.

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

/// CLOCK_MONOTONIC, and the running time of that moment; `None` where there is no clock.
fn both_now(element: &impl IsA<gst::Element>) -> Option<(u64, u64)> {
    let (clock, base) = (element.clock()?, element.base_time()?);
    let is_monotonic = clock.downcast_ref::<gst::SystemClock>().is_some_and(|system| {
        let kind = system.property::<gst::ClockType>("clock-type");
        // One that follows another is calibrated to that.
        kind == gst::ClockType::Monotonic && system.master().is_none()
    });
    let now = monotonic();
    let clock_now = if is_monotonic { ClockTime::from_nseconds(now) } else { clock.time() };
    Some((now, clock_now.saturating_sub(base).nseconds()))
}

/// The running time of a moment of CLOCK_MONOTONIC. 0, and what is yet to come, is now. `None` where there is no clock.
pub(crate) fn running_time(element: &impl IsA<gst::Element>, stamp: u64) -> Option<ClockTime> {
    let (now, running) = both_now(element)?;
    let age = if stamp == 0 { 0 } else { now.saturating_sub(stamp) };
    Some(ClockTime::from_nseconds(running.saturating_sub(age)))
}

/// The moment of CLOCK_MONOTONIC of a running time; now, where one of them is not known.
pub(crate) fn stamp(element: &impl IsA<gst::Element>, running_time: Option<ClockTime>) -> u64 {
    match running_time.zip(both_now(element)) {
        Some((then, (now, running))) => now.saturating_add(then.nseconds()).saturating_sub(running),
        None => monotonic(),
    }
}
