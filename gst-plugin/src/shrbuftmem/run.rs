//! A stream of one format, and what the element's threads share.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use gst::ClockTime;
use gst_video::VideoInfo;
use shrbuf::exporter::{ExportError, Memfd};
use shrbuf::{Ledger, Pool, PoolError, Shrbuf};
use shrbuf_gst_memory::{Lender, WrapError};
use tmem_cache::codec::{Picture, PictureError};
use tmem_cache::preroll::{Entry, Preroll, Replays, Settings};
use tmem_cache::pressure::{Law, Steering, System};
use tmem_cache::store::{OpenError, PoolOptions, Sharing, Store, StoreOptions, Upkeep};

use crate::lock;
use crate::video::{self, VideoError};

/// Buffers that frames are sent in: those that downstream holds, and the next.
const BUFFERS: usize = 4;
/// Most frames that may wait for the keeper.
pub(super) const MOST_WAITING: u32 = 16;
/// Share of a core that makes idle frames smaller, and memory dense.
const UPKEEP: f64 = 0.1;
/// Bytes that the store keeps whatever the pressure: some frames.
const LEAST: u64 = 32 << 20;
/// Bytes of memory that are left to others.
const OTHERS: u64 = 128 << 20;

/// Why there is no run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("{0}")]
    Video(#[from] VideoError),
    #[error("{0}; put a videoconvert before")]
    Picture(#[from] PictureError),
    #[error("{0}")]
    Export(#[from] ExportError),
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    Pool(#[from] PoolError),
    #[error("{0}")]
    Wrap(#[from] WrapError),
    #[error("no thread: {0}")]
    Os(#[from] std::io::Error),
}

/// What comes back with a frame.
#[derive(Debug, Clone)]
pub(super) struct Info {
    pub(super) segment: gst::Segment,
    pub(super) pts: Option<ClockTime>,
    pub(super) dts: Option<ClockTime>,
    pub(super) duration: Option<ClockTime>,
    pub(super) offset: u64,
    pub(super) flags: gst::BufferFlags,
    pub(super) crop: Option<[u32; 4]>,
}

/// A frame on its way to the store.
pub(super) struct Incoming {
    pub(super) frame: gst::Buffer,
    /// Its running time.
    pub(super) at: u64,
    pub(super) info: Info,
}

pub(super) struct Run {
    pub(super) caps: gst::Caps,
    pub(super) video: VideoInfo,
    pub(super) preroll: Preroll<Info>,
    /// What frames that lie elsewhere are copied to. The keeper's.
    pub(super) scratch: Mutex<Shrbuf>,
    pub(super) buffers: Pool,
    pub(super) lender: Lender,
    _upkeep: Upkeep,
    _steering: Steering,
}

impl Run {
    pub(super) fn new(
        name: &str,
        (caps, video): (gst::Caps, VideoInfo),
        (keep, max): (Duration, u64),
        ledger: &Ledger,
        shared: &Weak<Shared>,
    ) -> Result<Run, RunError> {
        let (exporter, layout) = (Memfd::new(name), video::layout(&video)?);
        Picture::of(&layout)?;
        let limit = usize::try_from(max).unwrap_or(usize::MAX);
        let store = Store::new(&StoreOptions { ledger: ledger.clone(), ..StoreOptions::new(limit) })?;
        let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared))?;
        let buffers = (0..BUFFERS).map(|_| exporter.allocate(&layout)).collect::<Result<Vec<_>, _>>()?;
        let lender = Lender::new(&buffers, video::Picture::of(&buffers, None)?.planes)?;
        let shared = Weak::clone(shared);
        let buffers = Pool::new(buffers, move |_| {
            if let Some(shared) = shared.upgrade() {
                shared.wake();
            }
        })?;
        let scratch = Mutex::new(exporter.allocate(&layout)?);
        let preroll = Preroll::new(pool, Settings { keep, pin: false });
        let steering = Steering::new(&store, Law::new(LEAST.min(max), max, OTHERS), System::new())?;
        let (_upkeep, _steering) = (store.upkeep(UPKEEP)?, steering);
        Ok(Run { caps, video, preroll, scratch, buffers, lender, _upkeep, _steering })
    }

    /// How long a frame lasts; a 30th of a second, where nobody knows.
    pub(super) fn frame_time(&self) -> Duration {
        let fps = self.video.fps();
        let known = fps.numer() > 0 && fps.denom() > 0;
        if known {
            Duration::from_secs_f64(f64::from(fps.denom()) / f64::from(fps.numer()))
        } else {
            Duration::from_secs(1) / 30
        }
    }
}

/// Counted since the element was made.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) kept: u64,
    /// For want of room to wait.
    pub(super) dropped: u64,
    /// By the store, or since they could not be read.
    pub(super) refused: u64,
    pub(super) triggers: u64,
    pub(super) emitted: u64,
    /// That the store no longer had.
    pub(super) missed: u64,
}

/// An emission under way.
#[derive(Debug, Clone)]
pub(super) struct Emission {
    pub(super) frames: u64,
    pub(super) missed: u64,
    pub(super) first: Option<ClockTime>,
    pub(super) last: Option<ClockTime>,
}

/// What the threads tell each other.
#[derive(Default)]
pub(super) struct State {
    pub(super) run: Option<Arc<Run>>,
    /// Frames that wait for the keeper.
    pub(super) incoming: VecDeque<Incoming>,
    /// The keeper is at work on one more.
    pub(super) putting: bool,
    pub(super) replays: Replays,
    /// A trigger that came before there was a frame.
    pub(super) wished: bool,
    pub(super) emission: Option<Emission>,
    /// Its first frame, while its begin is announced.
    pub(super) pending: Option<Entry<Info>>,
    /// Frames that may wait.
    pub(super) waiting: usize,
    /// For downstream, before anything else.
    pub(super) stream_start: Option<gst::Event>,
    /// A frame of the run has come.
    pub(super) begun: bool,
    /// What the first frame is, of which downstream is to know.
    pub(super) first: Option<Info>,
    pub(super) segment: Option<gst::Segment>,
    /// Running time of the last frame.
    pub(super) newest: u64,
    /// To be passed on once all has gone out.
    pub(super) eos: Option<gst::Event>,
    /// No more frames come in until a flush.
    pub(super) ended: bool,
    /// The player has to get out of its task.
    pub(super) flushing: bool,
    /// The keeper ends.
    pub(super) stopping: bool,
    pub(super) counts: Counts,
}

impl State {
    /// What was asked for is over.
    pub(super) fn give_up(&mut self) {
        self.replays = Replays::default();
        self.pending = None;
        self.wished = false;
    }

    /// Another stream, or none; what the last one was, to be dropped without the lock.
    pub(super) fn begin(&mut self, run: Option<Arc<Run>>) -> impl Sized + use<> {
        self.give_up();
        self.first = None;
        (self.newest, self.begun) = (0, false);
        let incoming = std::mem::replace(&mut self.incoming, VecDeque::with_capacity(MOST_WAITING as usize));
        self.counts.dropped += incoming.len() as u64;
        (incoming, std::mem::replace(&mut self.run, run))
    }
}

#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    /// Nothing of GStreamer's may be dropped while it is held: its end may come back here.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// **Blocks** until somebody has changed something.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn changed(&self) {
        self.changed.notify_all();
    }

    /// One who looked before this waits by now, or will look again.
    pub(super) fn wake(&self) {
        drop(self.state());
        self.changed();
    }
}
