//! `tmem`: pre-roll and replay out of compressed memory.
//!
//! | file | story |
//! | --- | --- |
//! | `mod` | the element: properties, ports, its domain's side |
//! | `keeper` | the thread that puts frames into the store, so that their capture buffers go back |
//! | `replay` | the thread that gets them out again |
//! | `command`, `control` | what can be asked of it, and by which ways |
//! | `shared_store` | stores that several elements share |
//!
//! The domain's thread only moves references: a put that cannot keep up drops frames, and counts them, before it would
//! hold up the source.

mod command;
mod control;
mod keeper;
mod replay;
mod shared_store;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use command::{Command, CommandError};
use control::Control;
use crossbeam_queue::ArrayQueue;
use keeper::{Counts, Info, Shared, Wake};
use replay::Wish;
use shared_store::{Share, ShareError, Steered};
use shrbuf::{Ledger, Pool, Shrbuf};
use shrbuf_pipeline::property::Bytes;
use shrbuf_pipeline::{
    Build, BuildError, Consumes, Context, Element, Environment, Events, Failure, FailureKind, Frame, InputOffer,
    OutputOffer, Ports, Rate, Rates, Refusal, Role, SetBy, SizeOffer, Sizes, Start, Stream, Timestamp, Video, Wanted,
};
use tmem_cache::codec::Picture;
use tmem_cache::preroll::{Preroll, Settings};
use tmem_cache::pressure::{Steering, System};
use tmem_cache::store::{PoolOptions, Sharing, Upkeep};

use crate::memory::{self, Memory};

shrbuf_pipeline::properties! {
    /// Keeps the last seconds in compressed memory, and replays them when it is told to.
    ///
    /// What comes in goes on to `out`, which need not be linked, as the same memory. A trigger sends what is kept, and
    /// what comes for `after`, to `replay`, with the time stamps of the capture, while the capture goes on; triggers that
    /// overlap become one replay. Commands, a line each: `trigger [SECONDS AFTER]`, `play SECONDS-AGO SECONDS-AGO` (the
    /// larger last is backwards), `at SECONDS-AGO`; an empty line is a trigger.
    ///
    /// While the scene stands still, frames are predicted from an average of some of them, so that more of them fit.
    ///
    /// ```toml
    /// [element.preroll]
    /// type = "tmem"
    /// keep = "30s"
    /// max = "2GiB"
    /// after = "5s"
    /// stdin = true
    ///
    /// [[link]]
    /// path = ["preroll.replay", "file"]
    /// ```
    pub struct Tmem = "tmem" {
        /// How long frames are kept.
        keep: Duration = Duration::from_secs(30),
        /// Most memory, 1GiB if not set; what is older goes first where `keep` would take more. A shared store has one: elements
        /// that set it set the same, whichever starts first, and it holds for those that do not.
        max: Option<Bytes> = None,
        /// What follows a trigger.
        after: Duration = Duration::ZERO,
        /// Where memory does not suffice, every second frame of the older half goes before the oldest second does, of
        /// the older quarter every second again, and so on, as long as no fewer than this many a second are left.
        min_rate: Option<Rate> = None,
        /// Frames that a replay has still to send stay; new ones are refused for them where memory is full.
        pin: bool = false,
        /// Name of a store that several elements share; not set, one of its own.
        store: Option<String> = None,
        /// Its share of a full store, relative to the others'.
        weight: u32 = 1,
        /// Most memory of a shared store that this element's frames take.
        quota: Option<Bytes> = None,
        /// Share of one core that makes idle frames smaller, and memory dense.
        upkeep: f64 = 0.1,
        /// Frames that may wait to be compressed; one that finds no room is dropped.
        waiting: u32 = 2,
        /// Takes commands from standard input.
        stdin: bool = false,
        /// Takes commands from datagrams to a Unix socket that it makes at this path, for this user.
        socket: Option<PathBuf> = None,
        /// Takes commands from a FIFO; or of a file with 0 or 1, whose changes the kernel tells by POLLPRI, each rise to 1
        /// as a trigger: sysfs' gpio/value, once the line's edge is "rising" or "both".
        trigger: Option<PathBuf> = None,
        /// Memory of replayed frames: "auto" takes the first that all consumers can import.
        memory: Memory = Memory::Auto,
    }
}

/// Gives commands to a store in a pipeline, from any thread.
#[derive(Clone, Default)]
pub struct Remote(Arc<Mutex<Option<Arc<Shared>>>>);

impl Remote {
    /// False where the pipeline does not run. Never blocks for longer than an assignment.
    pub fn send(&self, command: Command) -> bool {
        let shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = &*shared {
            shared.wish(command);
        }
        shared.is_some()
    }

    fn set(&self, shared: Option<Arc<Shared>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = shared;
    }
}

impl Shared {
    fn wish(&self, command: Command) {
        let now = Timestamp(self.preroll.newest());
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner).push(Wish { command, now });
        self.player.wake();
    }
}

impl Tmem {
    /// The element, and what gives it commands.
    ///
    /// # Errors
    /// As [`Build::build`].
    pub fn build_with_remote(self) -> Result<(Box<dyn Element>, Remote), BuildError> {
        if !(1..=16).contains(&self.waiting) {
            return Err(BuildError::of("waiting", "must be 1 to 16"));
        }
        if !(0.0..=1.0).contains(&self.upkeep) {
            return Err(BuildError::of("upkeep", "is a share of a core, from 0 to 1"));
        }
        if self.keep.is_zero() {
            return Err(BuildError::of("keep", "must be more than nothing"));
        }
        let remote = Remote::default();
        let environment = Environment::new("tmem", Ledger::default());
        let store = Store {
            config: self,
            environment,
            share: None,
            remote: remote.clone(),
            counts: Arc::default(),
            input: None,
            buffers: Vec::new(),
            kept: None,
            run: None,
        };
        Ok((Box::new(store), remote))
    }
}

impl Build for Tmem {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        self.build_with_remote().map(|(element, _)| element)
    }
}

const OUT: usize = 0;
const REPLAY: usize = 1;

const REPLAYED: u32 = 0;
const FENCES: u32 = 1;
const CONTROL: u32 = 2;

struct Store {
    config: Tmem,
    environment: Environment,
    /// In the store that others share.
    share: Option<Share>,
    remote: Remote,
    counts: Arc<Counts>,
    /// As negotiated.
    input: Option<Stream>,
    buffers: Vec<Shrbuf>,
    /// What is kept over a restart, and for pictures of which stream.
    kept: Option<(Stream, Kept)>,
    run: Option<Run>,
}

/// Frames, and the store they are in.
#[derive(Clone)]
struct Kept {
    preroll: Arc<Preroll<Info>>,
    steered: Arc<Steered>,
}

/// What exists between start and stop. Its threads end with it.
struct Run {
    kept: Kept,
    shared: Arc<Shared>,
    buffers: Arc<Pool>,
    control: Option<Control>,
    threads: Vec<JoinHandle<()>>,
    /// Ends with the run.
    _upkeep: Option<Upkeep>,
    /// Ends with the last run of those that share the store.
    _steering: Arc<Steering>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.keeper.wake();
        self.shared.player.wake();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of a store panicked");
            }
        }
    }
}

fn limit(what: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Limit, what.to_string())
}

impl Store {
    /// What the last run kept, where pictures are as they were then, else nothing yet.
    fn kept(&mut self, stream: &Stream) -> Result<Kept, Failure> {
        if let Some((of, kept)) = self.kept.take()
            && (of.format, of.size) == (stream.format, stream.size)
        {
            return Ok(kept);
        }
        let c = &self.config;
        let kind = if c.pin { PoolOptions::persistent } else { PoolOptions::ephemeral };
        let mut options = kind(Sharing::Shared).weight(c.weight);
        options.quota = c.quota.map(|quota| usize::try_from(quota.0).unwrap_or(usize::MAX));
        if let Some((least, rate)) = c.min_rate.zip(stream.rate) {
            // 31 halvings are all that an index has bits for.
            let halvings = (1..=31).take_while(|n| rate.hz() / 2f64.powi(*n) >= least.hz()).count();
            options = options.thinning(halvings as u8);
        }
        let Environment { name, ledger, .. } = &self.environment;
        let steered = match &self.share {
            Some(share) => share.open(ledger).map_err(|e| match e {
                ShareError::Max(differs) => Failure::new(FailureKind::Config, differs),
                ShareError::Open(e) => limit(e),
            })?,
            None => Steered::alone(name, c.max, ledger).map_err(limit)?,
        };
        let pool = steered.store.pool(options).map_err(limit)?;
        Ok(Kept { preroll: Arc::new(Preroll::new(pool, Settings { keep: c.keep, pin: c.pin })), steered })
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
        let name = format!("{} {name}", self.environment.name);
        std::thread::Builder::new().name(name).spawn(body).map_err(|e| limit(format!("no thread: {e}")))
    }
}

impl Element for Store {
    fn ports(&self) -> Ports {
        Ports { inputs: vec!["in".into()], outputs: vec!["out".into(), "replay".into()] }
    }

    fn role(&self) -> Role {
        Role::Tap
    }

    fn join(&mut self, environment: &Environment) {
        self.environment = environment.clone();
        self.share = self.config.store.as_deref().map(|store| Share::join(store, &environment.name, self.config.max));
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        // Before anything starts.
        let agreed = self.share.as_ref().map_or(Ok(()), |share| share.max().map(drop));
        agreed.map_err(|differs| Failure::new(FailureKind::Config, differs))?;
        Ok(InputOffer {
            video: shrbuf::Format::all().map(|f| Video { plane_segments: true, ..Video::linear(f) }).collect(),
            // Those that wait, and the one that is being compressed.
            memory: Consumes {
                holds: self.config.waiting + 1,
                set_by: Some(SetBy { properties: "`waiting`", least: 2 }),
                ..Consumes::cpu()
            },
            wanted: Wanted::default(),
            natural: None,
        })
    }

    fn output_offer(&mut self, _output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        let video = input.map(|s| {
            let sizes = SizeOffer {
                sizes: Sizes::Exact(s.size),
                rates: s.rate.map_or(Rates::Any, |rate| Rates::List(vec![rate])),
            };
            Video { sizes: vec![sizes], ..Video::linear(s.format) }
        });
        Ok(OutputOffer {
            video: video.into_iter().collect(),
            memory: self.config.memory.offer(),
            wanted: Wanted::default(),
        })
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.buffers.clear();
        self.buffers = memory::allocate(stream, &self.environment.name)?;
        Ok(self.buffers.clone())
    }

    fn import(&mut self, _input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        self.input = Some(*stream);
        for buffer in buffers {
            // Maps it, so that one which a CPU cannot read shows now; as one that the codec does not take.
            buffer.read().map(drop).map_err(|e| Refusal::new(e.to_string()))?;
            Picture::of(buffer.layout()).map_err(|e| Refusal::new(e.to_string()))?;
        }
        Ok(())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let missing = || Failure::new(FailureKind::Config, "started before it was negotiated");
        let stream = self.input.ok_or_else(missing)?;
        let control = {
            let c = &self.config;
            Control::open(c.stdin, c.socket.as_deref(), c.trigger.as_deref())?
        };
        if let Some(control) = &control {
            start.watch(control.fd().map_err(limit)?, CONTROL)?;
        }
        let kept = self.kept(&stream)?;
        let buffers = std::mem::take(&mut self.buffers);
        let shared = Arc::new(Shared {
            preroll: Arc::clone(&kept.preroll),
            incoming: ArrayQueue::new(self.config.waiting as usize),
            outgoing: ArrayQueue::new(buffers.len().max(1)),
            wishes: Mutex::default(),
            keeper: Wake::default(),
            player: Wake::default(),
            domain: start.waker(REPLAYED),
            ending: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            counts: Arc::clone(&self.counts),
            held: Arc::clone(&self.environment.held),
        });
        let idle = Arc::clone(&shared);
        let buffers = Arc::new(Pool::new(buffers, move |_| idle.player.wake()).map_err(limit)?);
        start.watch(buffers.fences_fd().try_clone_to_owned().map_err(limit)?, FENCES)?;
        let upkeep = (self.config.upkeep > 0.0).then(|| kept.steered.store.upkeep(self.config.upkeep));
        let steering = kept.steered.steering(System::new).map_err(limit)?;
        let mut run = Run {
            kept,
            shared: Arc::clone(&shared),
            buffers: Arc::clone(&buffers),
            control,
            threads: Vec::new(),
            _upkeep: upkeep.transpose().map_err(limit)?,
            _steering: steering,
        };
        let frame_time = Duration::from_secs_f64(1.0 / stream.rate.unwrap_or(Rate::new(30, 1)).hz().max(1e-3));
        let keeper = Arc::clone(&shared);
        run.threads.push(self.spawn("keeps", move || keeper::run(&keeper, frame_time))?);
        let (player, after) = (Arc::clone(&shared), self.config.after);
        run.threads.push(self.spawn("replays", move || replay::run(&player, &buffers, after))?);
        self.remote.set(Some(shared));
        self.run = Some(run);
        Ok(())
    }

    fn ready(&mut self, token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        match (token, &mut run.control) {
            (FENCES, _) => run.buffers.reap().map_err(|e| Failure::new(FailureKind::Device, e)),
            (CONTROL, Some(control)) => {
                control.read(|command| run.shared.wish(command));
                Ok(())
            }
            (REPLAYED, _) => {
                // Read first: what went out before it was set is in the queue then.
                let finished = run.shared.finished.load(Ordering::Acquire);
                while let Some(frame) = run.shared.outgoing.pop() {
                    context.push(REPLAY, frame)?;
                }
                if finished { context.end_all() } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &self.run else { return Ok(()) };
        if run.shared.incoming.push(frame.clone()).is_err() {
            context.dropped(1);
        }
        run.shared.keeper.wake();
        context.push(OUT, frame)
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &self.run else { return context.end_all() };
        // Passed on once all that was asked for has gone out.
        run.shared.ending.store(true, Ordering::Release);
        run.shared.keeper.wake();
        Ok(())
    }

    fn stop(&mut self) {
        self.remote.set(None);
        let Some(run) = self.run.take() else { return };
        let kept = run.kept.clone();
        drop(run);
        self.kept = self.input.map(|stream| (stream, kept));
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let c = &self.counts;
        for (name, counter) in [
            ("kept", &c.kept),
            ("refused", &c.refused),
            ("triggers", &c.triggers),
            ("replayed", &c.replayed),
            ("missed", &c.missed),
        ] {
            report(name, counter.load(Ordering::Relaxed));
        }
    }
}
