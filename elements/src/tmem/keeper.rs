//! The thread that puts: frames leave the capture buffers here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use shrbuf_pipeline::stats::HeldGauge;
use shrbuf_pipeline::{Frame, Timestamp, Waker};
use tmem_cache::pressure::{Law, System, steer};
use tmem_cache::store::{Handle, ObjectId, Pool, PutError, Stamp};

use super::replay::Wish;
use super::timeline::{Entry, Timeline};

/// From one look at the system's memory to the next.
const LOOK: Duration = Duration::from_millis(250);

/// Wakes a thread that parks; before it has started, does nothing.
#[derive(Default)]
pub(super) struct Wake(OnceLock<Thread>);

impl Wake {
    /// The calling thread is the one to wake.
    pub(super) fn is_this(&self) {
        self.0.get_or_init(std::thread::current);
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

/// Counted over all runs.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) kept: AtomicU64,
    /// Puts that the store refused.
    pub(super) refused: AtomicU64,
    pub(super) triggers: AtomicU64,
    pub(super) replayed: AtomicU64,
    /// Frames that a replay came to and the store no longer had.
    pub(super) missed: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the threads of one run share.
pub(super) struct Shared {
    pub(super) pool: Pool,
    pub(super) keep: Duration,
    /// Frames that a replay has still to send stay, and new ones are refused for them.
    pub(super) pin: bool,
    /// From the domain's thread, to be put.
    pub(super) incoming: ArrayQueue<Frame>,
    /// To the domain's thread, replayed.
    pub(super) outgoing: ArrayQueue<Frame>,
    pub(super) timeline: Mutex<Timeline>,
    pub(super) wishes: Mutex<Vec<Wish>>,
    /// Time stamp of the newest frame that was put.
    pub(super) newest: AtomicU64,
    /// The first number that a replay has still to send.
    pub(super) needed: AtomicU64,
    pub(super) keeper: Wake,
    pub(super) player: Wake,
    pub(super) domain: Waker,
    /// No more frames will come in.
    pub(super) ending: AtomicBool,
    /// All that came in has been put.
    pub(super) drained: AtomicBool,
    /// All that was wished for has gone out.
    pub(super) finished: AtomicBool,
    /// Both threads end at their next step.
    pub(super) stopping: AtomicBool,
    pub(super) counts: Arc<Counts>,
    pub(super) held: Arc<HeldGauge>,
}

impl Shared {
    /// Held for the time of a search. A thread that panicked has left the timeline whole.
    pub(super) fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// The address of a frame's chunk: an object for each 2^32 frames.
pub(super) fn handle(number: u64) -> Handle {
    Handle { object: ObjectId([0, 0, number >> 32]), index: number as u32 }
}

/// Puts what comes in until the input has ended, or everything stops. Numbers go on from `next`.
///
/// Between puts it looks at the system's memory, and gives back what the system needs.
pub(super) fn run(shared: &Shared, mut next: u64, frame_time: Duration, mut law: Law) {
    shared.keeper.is_this();
    let (store, mut system) = (shared.pool.of(), System::new());
    let mut looked = Instant::now();
    while !shared.stopping() {
        if let Some(frame) = shared.incoming.pop() {
            put(shared, &frame, next, frame_time);
            next += 1;
            shared.player.wake();
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                steer(&store, &mut law, system.read());
            }
            continue;
        }
        if shared.ending.load(Ordering::Acquire) && shared.incoming.is_empty() {
            shared.drained.store(true, Ordering::Release);
            shared.player.wake();
            return;
        }
        std::thread::park();
    }
}

fn put(shared: &Shared, frame: &Frame, number: u64, frame_time: Duration) {
    let (pool, counts) = (&shared.pool, &shared.counts);
    let entry = Entry::of(frame, number);
    let stamp = Stamp { at_ns: entry.timestamp.0, duration_ns: frame_time.as_nanos() as u64 };
    loop {
        match pool.put_frame(handle(number), &frame.buffer, stamp) {
            Ok(()) => break Counts::add(&counts.kept),
            // Of a pool that evicts nothing by itself, the oldest makes room, if nobody waits for it.
            Err(PutError::Full { .. }) if shared.pin => {
                let needed = shared.needed.load(Ordering::Acquire);
                let mut timeline = shared.timeline();
                match timeline.oldest().filter(|oldest| oldest.number < needed).and_then(|_| timeline.pop()) {
                    Some(oldest) => {
                        pool.flush(handle(oldest.number));
                    }
                    None => return Counts::add(&counts.refused),
                }
            }
            Err(error) => {
                tracing::debug!(%error, number, "refused");
                return Counts::add(&counts.refused);
            }
        }
    }
    shared.newest.store(entry.timestamp.0, Ordering::Release);
    let mut timeline = shared.timeline();
    timeline.push(entry, |gone| {
        pool.flush(handle(gone.number));
    });
    let oldest = Timestamp(entry.timestamp.0.saturating_sub(shared.keep.as_nanos() as u64));
    let needed = shared.needed.load(Ordering::Acquire);
    while timeline.oldest().is_some_and(|oldest| oldest.number < needed)
        && let Some(old) = timeline.expire(oldest)
    {
        pool.flush(handle(old.number));
    }
    drop(timeline);
    let stats = pool.stats();
    shared.held.set(
        Duration::from_nanos(stats.held_ns),
        stats.bytes_original,
        stats.bytes_compressed + stats.bytes_references + stats.bytes_file,
    );
}
