//! `ipc-sink`.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::PathBuf;

use shrbuf::Shrbuf;
use shrbuf::ipc::{Announced, Counts, IpcError, Options, Producer, Returns, access};
use shrbuf::pool::MAX_BUFFERS;
use shrbuf_pipeline::property::{Build, BuildError};
use shrbuf_pipeline::{
    Consumes, Context, Element, Events, Failure, FailureKind, Frame, InputOffer, Ports, Rate, Refusal, SetBy, Start,
    Stream, Timestamp, Video, Wanted,
};

use super::{Lag, failed, info};

shrbuf_pipeline::properties! {
    /// Frames for other processes, without a copy.
    ///
    /// Any number of consumers (`ipc-src`, or a program in Rust or C) connect to a Unix socket and get the frames' memory
    /// itself, for reading only where it is a memfd or a camera's. The memory stays the source's: a consumer holds up to
    /// `window` of its buffers, and gives them back one by one, or all when it ends, however it does. A consumer that lags
    /// gets frames as `lag` says and harms no other, except with "block", which is for consumers that must have every frame.
    ///
    /// Where the pipeline is started anew, as the camera has another signal, or a placeholder takes its place or gives it back,
    /// the socket stays: consumers are told, connect again, and have what there is then. The end of the run is the end of their
    /// stream, unless it fails.
    ///
    /// ```toml
    /// [element.out]
    /// type = "ipc-sink"
    /// path = "/run/user/1000/camera"
    /// consumers = 2
    /// ```
    pub struct IpcSink = "ipc-sink" {
        /// Where consumers connect: a socket, made here. Beside it lies a lock, `<path>.lock`.
        path: PathBuf = PathBuf::new(),
        /// Permission bits of the socket, in octal: who has `w` may connect.
        mode: String = "600".to_owned(),
        /// Users who may connect, by name or number, with commas between; not set, all whom `mode` lets.
        users: Option<String> = None,
        /// Connections at most, 1 to 64. The source has `window` buffers more for each, and no stream has more than 64: with a
        /// `window` of 3 there is room for 20, less what the source keeps.
        consumers: u32 = 4,
        /// Frames that each consumer may hold at once.
        window: u32 = 3,
        /// What happens to a frame for a consumer that holds as many. Consumers may ask for another way, but not for "block".
        lag: Lag = Lag::Latest,
        /// Frames that wait for a consumer, with "drop-oldest".
        depth: u32 = 2,
        /// Keeps the first frames until so many consumers are there: with "block" all of them, so that the source waits in the
        /// end, else the last that it may hold. As the pipeline is started anew, for those who were there and must have every frame.
        wait_for: u32 = 0,
    }
}

const PEERS: u32 = 0;

impl Build for IpcSink {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        if self.path.as_os_str().is_empty() {
            return Err(BuildError::of("path", "is not set; it says where consumers connect, such as \"/tmp/camera\""));
        }
        let mode = access::mode(&self.mode).map_err(|e| BuildError::of("mode", e.to_string()))?;
        let most = MAX_BUFFERS as u32;
        for (name, value) in [("consumers", self.consumers), ("window", self.window), ("depth", self.depth)] {
            if !(1..=most).contains(&value) {
                return Err(BuildError::of(name, format!("must be 1 to {most}")));
            }
        }
        if self.wait_for > self.consumers {
            return Err(BuildError::of("wait-for", format!("must not be above `consumers`, {}", self.consumers)));
        }
        let users = self.users.as_deref().map(access::users).transpose();
        let users = users.map_err(|e| BuildError::of("users", e.to_string()))?.unwrap_or_default();
        let (consumers, window, policy, depth) = (self.consumers, self.window, self.lag.into(), self.depth);
        // The source has a buffer for the next frame whatever consumers hold: that is what `holds` is for.
        let returns = Returns::WhenNeeded;
        let options = Options { mode, users, consumers, window, policy, depth, returns, ..Options::default() };
        let counts = Counts::default();
        Ok(Box::new(Sink { config: self, options, announced: Vec::new(), rate: None, out: None, counts, late: 0 }))
    }
}

struct Sink {
    config: IpcSink,
    options: Options,
    /// Between negotiation and start.
    announced: Vec<Announced>,
    rate: Option<Rate>,
    /// From the first start on: consumers stay connected while the graph is negotiated anew.
    out: Option<Out>,
    /// Of what is over, and frames that never got there.
    counts: Counts,
    late: u64,
}

struct Out {
    producer: Producer,
    /// Frames that came before there were consumers enough.
    early: VecDeque<Frame>,
    awaited: usize,
    /// How many of them at most.
    kept: usize,
    /// Buffers that were announced as they came.
    late: u64,
    ending: bool,
}

impl Element for Sink {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        let holds = self.holds();
        Ok(InputOffer {
            video: shrbuf::Format::all().map(|f| Video { plane_segments: true, ..Video::linear(f) }).collect(),
            memory: Consumes { holds, set_by: Some(self.set_by()), read_only: true, ..Consumes::cpu() },
            wanted: Wanted::default(),
            natural: None,
        })
    }

    fn import(&mut self, _input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        self.announced.clear();
        if buffers.len() > MAX_BUFFERS {
            return Err(Refusal::new(format!("takes {MAX_BUFFERS} buffers at most, these are {}", buffers.len())));
        }
        let announced = buffers.iter().map(Announced::of).collect::<Result<_, _>>();
        self.announced = announced.map_err(|e| Refusal::new(e.to_string()))?;
        self.rate = stream.rate;
        Ok(())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let (announced, rate) = (std::mem::take(&mut self.announced), self.rate.map(|r| (r.num, r.den)));
        let out = match self.out.take() {
            Some(mut out) => {
                let told = out.producer.change(announced, rate).map_err(failed)?;
                // Those who were there come again; nobody else is waited for a second time.
                out.awaited = if out.awaited > 0 { out.awaited } else { told.min(self.config.wait_for as usize) };
                Out { ending: false, ..out }
            }
            None => {
                let producer = Producer::bind(&self.config.path, self.options.clone(), announced, rate);
                let producer = producer.map_err(failed)?;
                let early = VecDeque::with_capacity(if self.config.wait_for > 0 { MAX_BUFFERS } else { 0 });
                let kept = if self.config.lag == Lag::Block { MAX_BUFFERS } else { self.holds() as usize };
                Out { producer, early, awaited: self.config.wait_for as usize, kept, late: 0, ending: false }
            }
        };
        let fd = self.out.insert(out).producer.as_fd().try_clone_to_owned();
        start.watch(fd.map_err(|e| Failure::new(FailureKind::Limit, e))?, PEERS)
    }

    fn ready(&mut self, _token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.producer.ready().map_err(failed)?;
        if out.awaited > 0 && out.producer.consumers() >= out.awaited {
            out.awaited = 0;
            while let Some(frame) = out.early.pop_front() {
                out.send(frame, context)?;
            }
        }
        out.finish_if_done(context);
        Ok(())
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(out) = &mut self.out else { return Ok(()) };
        if out.awaited > 0 {
            if out.early.len() >= out.kept {
                out.early.pop_front();
                context.dropped(1);
            }
            out.early.push_back(frame);
            return Ok(());
        }
        out.send(frame, context)
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(out) = &mut self.out else { return Ok(()) };
        out.ending = true;
        if context.ends_early() {
            // Whoever they wait for may never come.
            context.dropped(out.early.len() as u64);
            out.early.clear();
        }
        out.finish_if_done(context);
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(out) = &mut self.out {
            self.counts.dropped += out.early.len() as u64;
            out.early.clear();
        }
    }

    fn over(&mut self, failed: bool) {
        let Some(mut out) = self.out.take() else { return };
        if !failed {
            out.producer.end();
        }
        self.counts = self.counts + out.producer.counts();
        self.late += out.late;
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let now = self.out.as_ref().map(|out| out.producer.counts()).unwrap_or_default();
        let Counts { unseen, sent, dropped, refused, .. } = self.counts + now;
        report("sent", sent);
        report("lagged", dropped);
        report("unseen", unseen);
        report("refused", refused);
        report("late", self.late + self.out.as_ref().map_or(0, |out| out.late));
    }
}

impl Sink {
    /// What all consumers may hold, and what waits for those that lag.
    fn holds(&self) -> u32 {
        let waiting = if self.config.lag == Lag::DropOldest { self.config.depth } else { 1 };
        self.config.consumers.saturating_mul(self.config.window).saturating_add(waiting)
    }

    fn set_by(&self) -> SetBy {
        let drops_oldest = self.config.lag == Lag::DropOldest;
        let properties = if drops_oldest { "`consumers`, `window` or `depth`" } else { "`consumers` or `window`" };
        SetBy { properties, least: 2 }
    }
}

impl Out {
    fn send(&mut self, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let info = info(&frame);
        let sent = match self.producer.send(&frame.buffer, &info) {
            Err(IpcError::NotAnnounced(_)) => {
                // What only shows as it streams (a part of GStreamer's that allocates more): known from now on.
                self.producer.announce(Announced::of(&frame.buffer).map_err(failed)?).map_err(failed)?;
                self.late += 1;
                self.producer.send(&frame.buffer, &info)
            }
            sent => sent,
        };
        sent.map_err(failed)?;
        context.shown(frame.timestamp, Timestamp::now());
        Ok(())
    }

    /// The last frames have gone to those who must have them.
    fn finish_if_done(&self, context: &mut Context<'_>) {
        if self.ending && self.early.is_empty() && self.producer.owed() == 0 {
            context.finish();
        }
    }
}
