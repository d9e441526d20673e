//! The thread that puts: frames leave the capture buffers here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use shrbuf_pipeline::stats::HeldGauge;
use shrbuf_pipeline::{Colorimetry, Frame, Rect, Waker};
use tmem_cache::preroll::Preroll;

use super::replay::Wish;

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

/// What comes back with a frame, beside its time stamp.
#[derive(Debug, Clone, Copy)]
pub(super) struct Info {
    pub(super) sequence: u64,
    pub(super) color: Colorimetry,
    pub(super) crop: Option<Rect>,
    pub(super) corrupt: bool,
}

/// What the threads of one run share.
pub(super) struct Shared {
    pub(super) preroll: Arc<Preroll<Info>>,
    /// From the domain's thread, to be put.
    pub(super) incoming: ArrayQueue<Frame>,
    /// To the domain's thread, replayed.
    pub(super) outgoing: ArrayQueue<Frame>,
    pub(super) wishes: Mutex<Vec<Wish>>,
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
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// Puts what comes in until the input has ended, or everything stops.
pub(super) fn run(shared: &Shared, frame_time: Duration) {
    shared.keeper.is_this();
    while !shared.stopping() {
        if let Some(frame) = shared.incoming.pop() {
            put(shared, &frame, frame_time);
            shared.player.wake();
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

fn put(shared: &Shared, frame: &Frame, frame_time: Duration) {
    let Frame { timestamp, sequence, color, crop, corrupt, .. } = *frame;
    let info = Info { sequence, color, crop, corrupt };
    if let Err(error) = shared.preroll.put(&frame.buffer, timestamp.0, frame_time, info) {
        tracing::debug!(%error, sequence, "refused");
        return Counts::add(&shared.counts.refused);
    }
    Counts::add(&shared.counts.kept);
    let stats = shared.preroll.pool().stats();
    shared.held.set(
        Duration::from_nanos(stats.held_ns),
        stats.bytes_original,
        stats.bytes_compressed + stats.bytes_references + stats.bytes_file,
    );
}
