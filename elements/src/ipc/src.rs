//! `ipc-src`.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use shrbuf::ipc::{Connection, Consumer, Next, Wishes};
use shrbuf::{Layout, MemoryKind, Shrbuf};
use shrbuf_pipeline::property::{Build, BuildError};
use shrbuf_pipeline::{
    Context, Element, Environment, Events, Failure, FailureKind, Frame, Modifiers, Origin, OutputOffer, Ports,
    Produces, Rate, Rates, Refusal, Size, SizeOffer, Sizes, Start, Stream, Video, Wanted,
};

use super::{Lag, failed, frame};
use crate::memory;

shrbuf_pipeline::properties! {
    /// Frames from another process, without a copy.
    ///
    /// Connects to the socket of an `ipc-sink`. Format, size, rate and memory are what that producer has; frames keep
    /// their time stamps, and those that were dropped on the way are counted here too. A producer that ends ends the
    /// stream. One that is started anew, as its camera has another signal or a placeholder takes its place, is connected to again,
    /// and this graph negotiated for what it has then. One that dies is a device unplugged, which `retry` waits for. Frames that
    /// have come stay valid.
    ///
    /// ```toml
    /// [element.camera]
    /// type = "ipc-src"
    /// path = "/run/user/1000/camera"
    /// ```
    pub struct IpcSrc = "ipc-src" {
        /// Socket of the producer.
        path: PathBuf = PathBuf::new(),
        /// What happens to frames for which there is no room here; not set, what the producer has set. "block" only where it has
        /// set that.
        lag: Option<Lag> = None,
        /// Longest time that the producer may take to answer as it is connected to. One whose camera is away answers when that is
        /// back: for longer than this, `retry` waits.
        timeout: Duration = Duration::from_secs(5),
    }
}

const NO_BLOCK: &str = "the producer drops frames for consumers that lag, and lets nobody have `lag = \"block\"`; \
                        set that at its `ipc-sink` (`policy=block` of a `shrbufsink`), or leave `lag` out here";
const CHANGED: &str = "the producer has other frames from now on";

const FRAMES: u32 = 0;
const FENCES: u32 = 1;

impl Build for IpcSrc {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        if self.path.as_os_str().is_empty() {
            return Err(BuildError::of(
                "path",
                "is not set; it is the socket of an `ipc-sink`, such as \"/tmp/camera\"",
            ));
        }
        let (name, connection, stream, run) = ("ipc-src".to_owned(), None, None, None);
        Ok(Box::new(Source { config: self, name, connection, stream, run, received: 0, skipped: 0 }))
    }
}

struct Source {
    config: IpcSrc,
    name: String,
    /// Between the offer and the start.
    connection: Option<Connection>,
    stream: Option<Stream>,
    run: Option<Run>,
    /// Of earlier runs.
    received: u64,
    skipped: u64,
}

struct Run {
    consumer: Consumer,
    stream: Stream,
    /// Of the buffers that were there in negotiation.
    layout: Layout,
    /// Drops that have been counted.
    counted: u64,
}

/// What the producer's buffers are, if they are all alike.
fn video(connection: &Connection) -> Result<(Video, MemoryKind), Failure> {
    let unlike = || Failure::new(FailureKind::Data, "the producer's buffers are of several formats, sizes or kinds");
    let first = connection.buffers().first().ok_or_else(unlike)?;
    let layout = first.layout();
    let of = |b: &Shrbuf| (b.layout().format, b.layout().modifier, b.layout().width, b.layout().height, b.kind());
    if connection.buffers().iter().any(|b| of(b) != of(first)) {
        return Err(unlike());
    }
    let rates = connection.rate().map_or(Rates::Any, |(num, den)| Rates::List(vec![Rate::new(num, den)]));
    let video = Video {
        format: layout.format,
        modifiers: layout.modifier.map_or(Modifiers::Unknown, |m| Modifiers::List(vec![m])),
        sizes: vec![SizeOffer { sizes: Sizes::Exact(Size::new(layout.width, layout.height)), rates }],
        plane_segments: layout.segments() > 1,
    };
    Ok((video, first.kind()))
}

impl Run {
    /// A buffer that the producer has told of late is one that consumers can read.
    fn expect(&self, layout: &Layout) -> Result<(), Failure> {
        let unfit = if *layout == self.layout { None } else { memory::unfit(layout, &self.stream) };
        match unfit {
            Some(why) => Err(Failure::new(FailureKind::Data, format!("the producer passes a frame {why}"))),
            None => Ok(()),
        }
    }
}

impl Element for Source {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn join(&mut self, environment: &Environment) {
        self.name.clone_from(&environment.name);
    }

    fn output_offer(&mut self, _output: usize, _input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        self.connection = None;
        let wishes = Wishes { name: self.name.clone(), policy: self.config.lag.map(Into::into), window: 0 };
        let connection = Connection::open(&self.config.path, &wishes, self.config.timeout).map_err(failed)?;
        if wishes.policy.is_some_and(|wish| wish != connection.policy()) {
            return Err(Failure::new(FailureKind::Config, NO_BLOCK));
        }
        let (video, kind) = video(&connection)?;
        let origin = if kind == MemoryKind::Memfd { Origin::Memfd } else { Origin::Process };
        // Whoever takes the frames here may hold as many as the producer lets this process have.
        let memory =
            Produces { origins: vec![origin], max_stride_align: 1, keeps: 0, max_buffers: connection.window() };
        self.connection = Some(connection);
        Ok(OutputOffer { video: vec![video], memory, wanted: Wanted::default() })
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        let connection = self.connection.as_ref().ok_or_else(|| Refusal::new("the producer has gone"))?;
        self.stream = Some(*stream);
        Ok(connection.buffers().to_vec())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let negotiated = self.connection.take().zip(self.stream.take());
        let layout =
            |(connection, stream): (Connection, _)| Some((*connection.buffers().first()?.layout(), connection, stream));
        let negotiated = negotiated.and_then(layout);
        let (layout, connection, stream) =
            negotiated.ok_or_else(|| Failure::new(FailureKind::Config, "started before it was negotiated"))?;
        let consumer = connection.start().map_err(failed)?;
        let limit = |e| Failure::new(FailureKind::Limit, e);
        start.watch(consumer.as_fd().try_clone_to_owned().map_err(limit)?, FRAMES)?;
        if let Some(end) = consumer.end_fd() {
            start.watch(end.try_clone_to_owned().map_err(limit)?, FRAMES)?;
        }
        start.watch(consumer.fences_fd().try_clone_to_owned().map_err(limit)?, FENCES)?;
        self.run = Some(Run { consumer, stream, layout, counted: 0 });
        Ok(())
    }

    fn ready(&mut self, token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if token == FENCES {
            return run.consumer.reap().map_err(|e| Failure::new(FailureKind::Device, e));
        }
        let next = run.consumer.receive();
        let lost = run.consumer.dropped().saturating_add(run.consumer.skipped());
        context.dropped(lost - run.counted);
        run.counted = lost;
        match next.map_err(failed)? {
            Next::Frame(received) => {
                run.expect(received.buffer.layout())?;
                context.push(0, frame(received))
            }
            Next::Nothing => Ok(()),
            Next::Ended => context.end_all(),
            Next::Changed => context.change(Failure::new(FailureKind::Changed, CHANGED)),
        }
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(Run { consumer, .. }) = self.run.take() {
            self.received += consumer.received();
            self.skipped += consumer.skipped();
        }
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        let now = self.run.as_ref().map_or((0, 0), |run| (run.consumer.received(), run.consumer.skipped()));
        report("received", self.received + now.0);
        report("skipped", self.skipped + now.1);
    }
}
