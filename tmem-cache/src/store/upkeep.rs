//! A thread that keeps a store in order, within a share of one core.
//!
//! Each round of [`Store::maintain`] is followed by a pause as long as its processor time asks for: a round that took
//! `c` of it lasts `c / share` with its pause. So over any time `t` it takes at most `share * t`, and one round more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use super::Store;

/// How long a round recompresses, by the clock on the wall. What it takes beyond is at most one chunk, and one step of
/// compaction a pool.
const SLICE: Duration = Duration::from_millis(5);

/// Pause after a round that found nothing to do.
const IDLE: Duration = Duration::from_millis(100);

/// What the thread did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UpkeepStats {
    /// Processor time.
    pub cpu: Duration,
    /// Rounds.
    pub rounds: u64,
    /// Bytes moved or made denser.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    cpu_ns: AtomicU64,
    rounds: AtomicU64,
    bytes: AtomicU64,
}

/// Upkeep that goes on for as long as this lives. Dropping it waits for the end of the round: some milliseconds, or as long
/// as the dense tier takes for the largest chunk there is, or the file system for the holes of a round.
///
/// ```
/// use tmem_cache::store::{Store, StoreOptions};
/// let store = Store::new(&StoreOptions::new(64 << 20))?;
/// let upkeep = store.upkeep(0.05)?;
/// // Puts and gets; meanwhile holes are closed and idle chunks get denser, at 5 % of a core.
/// drop(upkeep);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Upkeep {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Starts a thread that calls [`Store::maintain`] with at most `share` (0.001 to 1) of one core's time.
    ///
    /// # Errors
    /// That of the system if it has no thread to give.
    pub fn upkeep(&self, share: f64) -> io::Result<Upkeep> {
        let shared = Arc::new(Shared::default());
        // NaN too becomes the least.
        let share = if share > 0.001 { share.min(1.0) } else { 0.001 };
        let (store, theirs) = (self.clone(), shared.clone());
        let thread = std::thread::Builder::new().name("tmem-upkeep".to_owned());
        let thread = thread.spawn(move || theirs.run(&store, share))?;
        Ok(Upkeep { shared, thread: Some(thread) })
    }
}

impl Upkeep {
    /// What it did so far.
    pub fn stats(&self) -> UpkeepStats {
        let Shared { cpu_ns, rounds, bytes, .. } = &*self.shared;
        let [cpu_ns, rounds, bytes] = [cpu_ns, rounds, bytes].map(|n| n.load(Ordering::Relaxed));
        UpkeepStats { cpu: Duration::from_nanos(cpu_ns), rounds, bytes }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // If it panicked, the message is out already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, store: &Store, share: f64) {
        while !self.stop.load(Ordering::Relaxed) {
            let (started, before) = (Instant::now(), cpu_time());
            let done = store.maintain(SLICE);
            // The clock on the wall never says less than a thread's own.
            let cpu = cpu_time().zip(before).map_or_else(|| started.elapsed(), |(now, then)| now.saturating_sub(then));
            self.cpu_ns.fetch_add(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.rounds.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(done as u64, Ordering::Relaxed);
            let idle = if done == 0 { IDLE } else { Duration::ZERO };
            self.pause(started + cpu.div_f64(share).max(idle));
        }
    }

    fn pause(&self, until: Instant) {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::park_timeout(left);
        }
    }
}

/// Processor time of this thread so far.
fn cpu_time() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}
