//! What is counted while a pipeline runs: plain atomics, written on the steady path, read by whoever asks.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::frame::Timestamp;

/// Counters of one element.
#[derive(Debug, Default)]
pub struct NodeStats {
    frames: AtomicU64,
    dropped: AtomicU64,
    corrupt: AtomicU64,
    misdated: AtomicU64,
    latency: OnceLock<Box<Histogram>>,
    held: Arc<HeldGauge>,
    /// Its domain's thread is in it, or in one that it has pushed to.
    inside: AtomicBool,
}

/// What a store holds at the moment, for those who watch a run.
#[derive(Debug, Default)]
pub struct HeldGauge {
    ns: AtomicU64,
    original: AtomicU64,
    stored: AtomicU64,
}

impl HeldGauge {
    /// Time that the pictures held last, their bytes, and the bytes they are stored in.
    pub fn set(&self, time: Duration, original: u64, stored: u64) {
        self.ns.store(time.as_nanos().min(u128::from(u64::MAX)) as u64, Relaxed);
        self.original.store(original, Relaxed);
        self.stored.store(stored, Relaxed);
    }

    /// `None` where nothing is held.
    fn read(&self) -> Option<Held> {
        let stored = self.stored.load(Relaxed);
        (stored > 0).then(|| Held {
            time: Duration::from_nanos(self.ns.load(Relaxed)),
            original: self.original.load(Relaxed),
            stored,
        })
    }
}

/// As [`HeldGauge`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Time that the pictures held last.
    pub time: Duration,
    /// Their bytes.
    pub original: u64,
    /// Bytes they are stored in.
    pub stored: u64,
}

impl Held {
    /// Bytes of pictures to a byte stored.
    pub fn ratio(&self) -> f64 {
        self.original as f64 / self.stored as f64
    }
}

impl NodeStats {
    /// One thread alone counts frames of an element, so no locked instruction is needed.
    pub(crate) fn frame(&self) {
        self.frames.store(self.frames.load(Relaxed) + 1, Relaxed);
    }

    pub(crate) fn enter(&self) {
        self.inside.store(true, Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.inside.store(false, Relaxed);
    }

    /// After a panic, or of a thread that hangs: who was called and has not come back.
    pub(crate) fn is_inside(&self) -> bool {
        self.inside.load(Relaxed)
    }

    pub(crate) fn dropped(&self, frames: u64) {
        self.dropped.fetch_add(frames, Relaxed);
    }

    pub(crate) fn corrupt(&self) {
        self.corrupt.fetch_add(1, Relaxed);
    }

    pub(crate) fn held(&self) -> &Arc<HeldGauge> {
        &self.held
    }

    pub(crate) fn keep_latency(&self) {
        let _ = self.latency.set(Box::default());
    }

    /// One thread alone calls a sink.
    pub(crate) fn shown(&self, captured: Timestamp, shown: Timestamp) {
        let Some(latency) = self.latency.get() else { return };
        match shown.0.checked_sub(captured.0) {
            Some(ns) => latency.record(ns),
            None => self.misdated.store(self.misdated.load(Relaxed) + 1, Relaxed),
        }
    }

    /// [`NodeCounts::frames`] alone, without adding up a latency.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.load(Relaxed)
    }

    /// The counters now.
    pub fn read(&self) -> NodeCounts {
        NodeCounts {
            frames: self.frames(),
            dropped: self.dropped.load(Relaxed),
            corrupt: self.corrupt.load(Relaxed),
            misdated: self.misdated.load(Relaxed),
            latency: self.latency.get().and_then(|h| h.read()),
            held: self.held.read(),
        }
    }
}

/// Counters of one element, as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeCounts {
    /// Frames that came in, or of a source, that went out.
    pub frames: u64,
    /// Frames dropped here.
    pub dropped: u64,
    /// Frames marked damaged by their producer.
    pub corrupt: u64,
    /// Of a sink: frames that were shown or consumed before the moment that their time stamp names. It is wrong, and they
    /// are in no latency.
    pub misdated: u64,
    /// Of a sink: from the capture time stamp to when the frame was shown or consumed, of all frames but those misdated;
    /// `None` where there was no other.
    pub latency: Option<Latency>,
    /// Of a store: what it holds at the moment.
    pub held: Option<Held>,
}

/// `300 frames, 2 dropped, latency 11.9 ms (p50), 16.4 ms (p99)`; `300 frames, 2 dropped, 300 misdated, latency unknown`.
impl fmt::Display for NodeCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames, {} dropped", self.frames, self.dropped)?;
        if self.corrupt > 0 {
            write!(f, ", {} corrupt", self.corrupt)?;
        }
        if self.misdated > 0 {
            write!(f, ", {} misdated", self.misdated)?;
        }
        if let Some(latency) = self.latency {
            let ms = |ns: u64| ns as f64 / 1e6;
            write!(f, ", latency {:.1} ms (p50), {:.1} ms (p99)", ms(latency.p50), ms(latency.p99))?;
        } else if self.misdated > 0 {
            write!(f, ", latency unknown")?;
        }
        Ok(())
    }
}

/// A distribution of nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// Half were below.
    pub p50: u64,
    /// 99 of 100 were below.
    pub p99: u64,
    /// The largest, exactly.
    pub max: u64,
}

/// 32 steps to each power of two: values are right to 3 %.
const STEPS: u32 = 32;
const BUCKETS: usize = 41 * STEPS as usize;

#[derive(Debug)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [const { AtomicU64::new(0) }; BUCKETS], max: AtomicU64::new(0) }
    }
}

fn bucket(ns: u64) -> usize {
    let power = ns.max(u64::from(STEPS)).ilog2() - STEPS.ilog2();
    let step = (ns >> power) as usize;
    (power as usize * STEPS as usize + step).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> u64 {
    let steps = STEPS as usize;
    if bucket < 2 * steps {
        return bucket as u64;
    }
    let power = bucket / steps - 1;
    ((bucket - power * steps + 1) as u64) << power
}

impl Histogram {
    fn record(&self, ns: u64) {
        self.buckets[bucket(ns)].fetch_add(1, Relaxed);
        self.max.fetch_max(ns, Relaxed);
    }

    fn read(&self) -> Option<Latency> {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let max = self.max.load(Relaxed);
        let quantile = |per_cent: u64| {
            let rank = (total * per_cent).div_ceil(100).max(1);
            let mut seen = 0;
            let found = counts.iter().position(|n| {
                seen += n;
                seen >= rank
            });
            upper_end(found.unwrap_or(BUCKETS - 1)).min(max)
        };
        (total > 0).then(|| Latency { p50: quantile(50), p99: quantile(99), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_in_a_line() {
        let latency = Some(Latency { p50: 11_900_000, p99: 16_440_000, max: 20_000_000 });
        let counts = NodeCounts { frames: 300, dropped: 2, corrupt: 1, latency, ..NodeCounts::default() };
        let line = "300 frames, 2 dropped, 1 corrupt, latency 11.9 ms (p50), 16.4 ms (p99)";
        assert_eq!(counts.to_string(), line);
    }

    #[test]
    fn a_frame_that_was_shown_before_its_own_time_stamp_is_in_no_latency() {
        let stats = NodeStats::default();
        stats.keep_latency();
        stats.shown(Timestamp(1_000), Timestamp(999));
        assert_eq!((stats.read().misdated, stats.read().latency), (1, None));
        assert_eq!(stats.read().to_string(), "0 frames, 0 dropped, 1 misdated, latency unknown");

        stats.shown(Timestamp(1_000_000), Timestamp(3_000_000));
        let (counts, ns) = (stats.read(), 2_000_000);
        assert_eq!((counts.misdated, counts.latency), (1, Some(Latency { p50: ns, p99: ns, max: ns })));
        let line = "0 frames, 0 dropped, 1 misdated, latency 2.0 ms (p50), 2.0 ms (p99)";
        assert_eq!(counts.to_string(), line);
    }

    #[test]
    fn every_value_lies_below_the_end_of_its_bucket_within_four_per_cent() {
        for ns in (0..2000).chain((1..40).map(|p| (1u64 << p) + 12345)) {
            let end = upper_end(bucket(ns));
            assert!(end >= ns, "{ns} in a bucket that ends at {end}");
            assert!(end as f64 <= ns as f64 * 1.04 + 1.0, "{ns} in a bucket that ends at {end}");
        }
    }

    #[test]
    fn quantiles_of_a_ramp() {
        let h = Histogram::default();
        (1..=1000).for_each(|us| h.record(us * 1000));
        let l = h.read().unwrap();
        assert!((500_000..=520_000).contains(&l.p50), "{l:?}");
        assert!((990_000..=1_000_000).contains(&l.p99), "{l:?}");
        assert_eq!(l.max, 1_000_000);
    }

    #[test]
    fn nothing_recorded_is_no_latency() {
        assert_eq!(Histogram::default().read(), None);
    }
}
