//! Pre-roll: the last seconds of a stream in a pool, and replays of them while they go on being put.
//!
//! # How am I supposed to use this?
//! One thread [puts](Preroll::put) frames as they come; another asks [`Replays::next`] what is to be sent, and
//! [gets](Preroll::get) it. The store tells nobody what it has, so which frames were put, and when they were captured,
//! is kept here, with whatever else their owner wants to have again.
//!
//! ```
//! use std::time::Duration;
//! use shrbuf::{Format, Layout, Pool, exporter::Memfd};
//! use tmem_cache::preroll::{Got, Next, Preroll, Replays, Settings};
//! use tmem_cache::store::{PoolOptions, Sharing, Store, StoreOptions};
//!
//! let pool = Store::new(&StoreOptions::new(16 << 20))?.pool(PoolOptions::ephemeral(Sharing::Shared))?;
//! let preroll = Preroll::new(pool, Settings { keep: Duration::from_secs(30), pin: false });
//! let exporter = Memfd::new("example");
//! let layout = Layout::linear(Format::Grey, 64, 48, 1)?;
//! let frame = exporter.allocate(&layout)?;
//! for at in 1..=3 {
//!     preroll.put(&frame, at * 40_000_000, Duration::from_millis(40), "what is known of it")?;
//! }
//!
//! let buffers = Pool::new(vec![exporter.allocate(&layout)?], |_| {})?;
//! let mut replays = Replays::default();
//! replays.trigger(&preroll, preroll.newest(), Duration::ZERO);
//! let mut sent = Vec::new();
//! while let Next::Send(entry) = replays.next(&preroll) {
//!     if let Got::Frame(_frame) = preroll.get(&entry, &buffers) {
//!         sent.push(entry.at);
//!     }
//! }
//! assert_eq!(sent, [40_000_000, 80_000_000, 120_000_000]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod replay;
mod timeline;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shrbuf::Shrbuf;

pub use replay::{Next, Replays};
pub use timeline::Entry;
use timeline::Timeline;

use crate::store::{GetError, Handle, ObjectId, Pool, PutError, Stamp};

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// For how long, by time stamps.
    pub keep: Duration,
    /// Frames that a replay has still to send stay, and new ones are refused for them. For a pool that evicts nothing
    /// by itself.
    pub pin: bool,
}

/// What a replay gets for an entry.
#[derive(Debug)]
pub enum Got {
    /// The frame.
    Frame(Shrbuf),
    /// No buffer is idle just now. Ask again when one is.
    NoBuffer,
    /// The store no longer has it. It is forgotten.
    Gone,
}

/// The last seconds of a stream. Any thread may use it; one at a time puts.
#[derive(Debug)]
pub struct Preroll<T> {
    pool: Pool,
    settings: Settings,
    timeline: Mutex<Timeline<T>>,
    /// Of the next frame.
    number: AtomicU64,
    /// Time stamp of the newest frame.
    newest: AtomicU64,
    /// The first number that a replay has still to send.
    needed: AtomicU64,
}

/// The address of a frame's chunk: an object for each 2^32 frames.
fn handle(number: u64) -> Handle {
    Handle { object: ObjectId([0, 0, number >> 32]), index: number as u32 }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl<T: Clone> Preroll<T> {
    /// Nothing yet, in a pool that nobody else puts to.
    pub fn new(pool: Pool, settings: Settings) -> Preroll<T> {
        let (timeline, number, newest) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        Preroll { pool, settings, timeline, number, newest, needed: AtomicU64::new(u64::MAX) }
    }

    /// Where the frames are, for its figures.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Time stamp of the newest frame that was put; 0 before the first.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    /// Held for the time of a search. A thread that panicked has left the timeline whole.
    fn timeline(&self) -> MutexGuard<'_, Timeline<T>> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a frame that was captured `at` and lasts for `duration`, and forgets what is too old. A frame whose time
    /// stamp lies before the last one's is of another time, as after a clock that was set: everything before it is
    /// forgotten. **Blocks** while it compresses.
    ///
    /// # Errors
    /// [`PutError`]: the store's reason of the refusal.
    pub fn put(&self, frame: &Shrbuf, at: u64, duration: Duration, info: T) -> Result<(), PutError> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let stamp = Stamp { at_ns: at, duration_ns: nanoseconds(duration) };
        let put = || self.pool.put_frame(handle(number), frame, stamp);
        match put() {
            Err(PutError::Full { .. }) if self.settings.pin && self.make_room() => put()?,
            result => result?,
        }
        self.newest.store(at, Ordering::Release);
        let mut timeline = self.timeline();
        timeline.push(Entry { number, at, info }, |gone| {
            self.pool.flush(handle(gone.number));
        });
        let oldest = at.saturating_sub(nanoseconds(self.settings.keep));
        let needed = self.needed.load(Ordering::Acquire);
        while timeline.oldest().is_some_and(|oldest| oldest.number < needed)
            && let Some(old) = timeline.expire(oldest)
        {
            self.pool.flush(handle(old.number));
        }
        Ok(())
    }

    /// Of a pool that evicts nothing by itself, the oldest frames make room that nobody waits for: as many as it takes for
    /// the pool to accept again, so that they are compressed once each and the next ones find room too. False where that
    /// is not enough.
    fn make_room(&self) -> bool {
        let mut timeline = self.timeline();
        let needed = self.needed.load(Ordering::Acquire);
        while self.pool.is_full() {
            let spare = timeline.oldest().filter(|oldest| oldest.number < needed).and_then(|_| timeline.pop());
            let Some(oldest) = spare else { return false };
            self.pool.flush(handle(oldest.number));
        }
        true
    }

    /// Brings a frame out of the store into an idle buffer of `buffers`. **Blocks** while it decodes.
    pub fn get(&self, entry: &Entry<T>, buffers: &shrbuf::Pool) -> Got {
        match self.pool.get_from(handle(entry.number), buffers) {
            Ok(Some((buffer, _))) => return Got::Frame(buffer),
            Err(GetError::NoBuffer) => return Got::NoBuffer,
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, entry.number, "lost"),
        }
        self.timeline().remove(entry.number);
        Got::Gone
    }
}

#[cfg(test)]
mod tests {
    use shrbuf::exporter::Memfd;
    use shrbuf::{Format, Layout};

    use super::*;
    use crate::store::{PoolOptions, Sharing, Store, StoreOptions};

    fn preroll(keep: u64) -> (Preroll<u64>, Shrbuf) {
        let pool = Store::new(&StoreOptions::new(16 << 20)).unwrap().pool(PoolOptions::ephemeral(Sharing::Shared));
        let frame = Memfd::new("test").allocate(&Layout::linear(Format::Grey, 64, 48, 1).unwrap()).unwrap();
        (Preroll::new(pool.unwrap(), Settings { keep: Duration::from_nanos(keep), pin: false }), frame)
    }

    fn put(preroll: &Preroll<u64>, frame: &Shrbuf, at: impl IntoIterator<Item = u64>) {
        at.into_iter().for_each(|at| preroll.put(frame, at, Duration::from_nanos(10), at).unwrap());
    }

    /// Time stamps of what is to be sent until there is nothing more.
    fn all(replays: &mut Replays, preroll: &Preroll<u64>) -> Vec<u64> {
        std::iter::from_fn(|| match replays.next(preroll) {
            Next::Send(entry) => Some(entry.info),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn what_is_too_old_is_forgotten_but_for_a_replay() {
        let (preroll, frame) = preroll(30);
        put(&preroll, &frame, [10, 20, 30, 40, 50]);
        assert_eq!(preroll.pool().stats().chunks, 4);
        let mut replays = Replays::default();
        replays.trigger(&preroll, preroll.newest(), Duration::ZERO);
        assert!(matches!(replays.next(&preroll), Next::Send(Entry { at: 20, .. })));
        put(&preroll, &frame, [100, 110]);
        assert_eq!(all(&mut replays, &preroll), [30, 40, 50]);
        put(&preroll, &frame, [120]);
        assert_eq!(preroll.pool().stats().chunks, 3);
    }

    #[test]
    fn a_trigger_goes_on_and_another_extends_it() {
        let (preroll, frame) = preroll(1000);
        put(&preroll, &frame, [10, 20]);
        let mut replays = Replays::default();
        replays.trigger(&preroll, preroll.newest(), Duration::from_nanos(15));
        assert_eq!(all(&mut replays, &preroll), [10, 20]);
        assert!(matches!(replays.next(&preroll), Next::Later));
        put(&preroll, &frame, [30]);
        replays.trigger(&preroll, preroll.newest(), Duration::from_nanos(15));
        put(&preroll, &frame, [40, 50, 60]);
        assert_eq!(all(&mut replays, &preroll), [30, 40]);
        assert!(matches!(replays.next(&preroll), Next::Idle));
    }

    #[test]
    fn moments_are_played_either_way() {
        let (preroll, frame) = preroll(1000);
        put(&preroll, &frame, [10, 20, 30, 40]);
        for (from, to, expected) in [(25, 5, vec![10, 20, 30]), (5, 25, vec![30, 20]), (15, 15, vec![20])] {
            let mut replays = Replays::default();
            replays.play(&preroll, 40, Duration::from_nanos(from), Duration::from_nanos(to));
            assert_eq!(all(&mut replays, &preroll), expected, "{from} {to}");
        }
    }

    #[test]
    fn a_moment_is_shown_while_a_trigger_waits_for_frames() {
        let (preroll, frame) = preroll(1000);
        put(&preroll, &frame, [10, 20, 30]);
        let mut replays = Replays::default();
        replays.trigger(&preroll, 30, Duration::from_secs(60));
        assert_eq!(all(&mut replays, &preroll), [10, 20, 30]);
        replays.play(&preroll, 30, Duration::from_nanos(10), Duration::from_nanos(10));
        assert_eq!(all(&mut replays, &preroll), [20]);
        assert!(matches!(replays.next(&preroll), Next::Later));
        put(&preroll, &frame, [40]);
        assert_eq!(all(&mut replays, &preroll), [40]);
    }

    #[test]
    fn what_any_replay_has_still_to_send_is_kept() {
        let (preroll, frame) = preroll(30);
        put(&preroll, &frame, [10, 20, 30, 40]);
        let mut replays = Replays::default();
        replays.play(&preroll, 40, Duration::from_nanos(10), Duration::ZERO);
        replays.play(&preroll, 40, Duration::from_nanos(20), Duration::from_nanos(30));
        assert!(matches!(replays.next(&preroll), Next::Send(Entry { at: 30, .. })));
        // All of them are too old by now.
        put(&preroll, &frame, [100, 110]);
        assert_eq!(all(&mut replays, &preroll), [40, 20, 10]);
    }

    #[test]
    fn pinned_frames_are_compressed_once_each_in_a_full_pool() {
        use shrbuf::{Ledger, Reason};
        let ledger = Ledger::default();
        let store = Store::new(&StoreOptions { ledger: ledger.clone(), ..StoreOptions::new(64 << 20) }).unwrap();
        let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
        let preroll = Preroll::new(pool, Settings { keep: Duration::from_secs(60), pin: true });
        let layout = Layout::linear(Format::Grey, 512, 256, 1).unwrap();
        let mut frame = Memfd::new("test").allocate(&layout).unwrap();
        let generate = Ledger::default().account("test", Reason::Generate);
        let (mut state, mut row) = (1u32, [0; 512]);
        for at in 0..1500u64 {
            let mut guard = frame.write().unwrap();
            for y in 0..256 {
                row.fill_with(|| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8 & 63
                });
                guard.plane(0).write(y, 0, &row, &generate);
            }
            drop(guard);
            preroll.put(&frame, at * 1000, Duration::from_nanos(1000), ()).unwrap();
        }
        let read: u64 = ledger.entries().iter().filter(|e| e.reason == Reason::Store).map(|e| e.bytes).sum();
        let times = read as f64 / (1500.0 * f64::from(512 * 256));
        // Those that ran into the end of the pool were compressed twice.
        assert!(times < 1.05, "each frame was read {times} times");
        let chunks = preroll.pool().stats().chunks;
        assert!(chunks > 400, "only {chunks} frames are kept");
    }
}
