//! What an element is to the engine.
//!
//! An element's life: [`offer`](Element::output_offer) (as often as the solver likes) → [`allocate`](Element::allocate)
//! and [`import`](Element::import) (trial and final in one: the candidate that works is kept) → [`start`](Element::start)
//! → [`ready`](Element::ready) and [`process`](Element::process), on the thread of its domain → [`stop`](Element::stop)
//! → from the offer again, or drop.
//!
//! Duties, as PipeWire states them for its nodes: a producer allocates once, in `allocate`, and hands out a buffer again
//! only when its last reference is gone (`shrbuf::Pool` does that); a consumer imports once, in `import`, and holds at
//! most as many frames as its offer says. Neither allocates, locks, logs, maps or imports in `process`.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use shrbuf::{Ledger, Shrbuf};

use crate::domain::{Context, Events, Start};
use crate::frame::Frame;
use crate::graph::Copies;
use crate::offer::{Composition, InputOffer, OutputOffer, Stream};
use crate::queue::QueueSpec;
use crate::stats::HeldGauge;

/// The ports of an element, by name; an empty list is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    /// Inputs.
    pub inputs: Vec<String>,
    /// Outputs.
    pub outputs: Vec<String>,
}

impl Ports {
    /// One output called `out`.
    pub fn source() -> Ports {
        Ports { inputs: vec![], outputs: vec!["out".into()] }
    }

    /// One input called `in`.
    pub fn sink() -> Ports {
        Ports { inputs: vec!["in".into()], outputs: vec![] }
    }

    /// One of each.
    pub fn filter() -> Ports {
        Ports { inputs: vec!["in".into()], outputs: vec!["out".into()] }
    }
}

/// How an element's outputs follow from its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A source or a sink: a stream begins or ends here.
    Endpoint,
    /// The same frames go out as come in (`tee`): the stream passes through.
    Passthrough,
    /// As `Passthrough`, into another domain, with room for some frames.
    Queue(QueueSpec),
    /// New frames are made of those that come in (`convert`).
    Transform,
    /// What comes in passes through to the first output, which need not be linked; at the others come new frames, made
    /// here of those that came in (`tmem`).
    Tap,
}

/// What went wrong, for those who decide what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The device is gone.
    Unplugged,
    /// Another program has the display or the camera.
    InUse,
    /// The source's format has changed; negotiating again will help.
    Changed,
    /// Nothing came for longer than the element's own limit.
    Stalled,
    /// The device reports an error.
    Device,
    /// A limit of the system (descriptors, memory, space).
    Limit,
    /// A file or stream is not what it should be.
    Data,
    /// The configuration cannot work on this machine.
    Config,
    /// The element's own code is wrong.
    Panic,
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            FailureKind::Unplugged => "device unplugged",
            FailureKind::InUse => "device in use",
            FailureKind::Changed => "source changed",
            FailureKind::Stalled => "stalled",
            FailureKind::Device => "device error",
            FailureKind::Limit => "system limit",
            FailureKind::Data => "bad data",
            FailureKind::Config => "configuration",
            FailureKind::Panic => "panic",
        })
    }
}

#[derive(Debug)]
struct Inner {
    kind: FailureKind,
    element: Option<String>,
    source: Box<dyn Error + Send + Sync>,
    lasting: bool,
}

/// An element failed: which, what kind, and why. One word wide, so that the steady path does not carry it around.
#[derive(Debug)]
pub struct Failure(Box<Inner>);

impl Failure {
    /// A failure of `kind` because of `source`; the engine adds the element's name.
    pub fn new(kind: FailureKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure(Box::new(Inner { kind, element: None, source: source.into(), lasting: false }))
    }

    /// Says that nothing can become of it in this process: it is not tried again, whatever is declared.
    pub fn lasting(mut self) -> Failure {
        self.0.lasting = true;
        self
    }

    /// Names the element, unless that has been done nearer to the cause.
    pub fn at(mut self, element: &str) -> Failure {
        self.0.element.get_or_insert_with(|| element.to_owned());
        self
    }

    /// What kind.
    pub fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// Whether it would fail in the same way each time that it is tried.
    pub fn is_lasting(&self) -> bool {
        self.0.lasting
    }

    /// Name of the element in its graph.
    pub fn element(&self) -> Option<&str> {
        self.0.element.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(element) = self.element() {
            write!(f, "`{element}`: ")?;
        }
        write!(f, "{}: {}", self.0.kind, self.0.source)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.source()
    }
}

/// A port's "no" to a candidate, in words that go to the user: what does not fit, and what would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What does not fit, with the values.
    pub what: String,
    /// What would fit.
    pub instead: Option<String>,
}

impl Refusal {
    /// A refusal without advice.
    pub fn new(what: impl Into<String>) -> Refusal {
        Refusal { what: what.into(), instead: None }
    }

    /// Adds what would fit.
    pub fn instead(mut self, instead: impl Into<String>) -> Refusal {
        self.instead = Some(instead.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(instead) = &self.instead {
            write!(f, "; {instead}")?;
        }
        Ok(())
    }
}

/// What an element is given once, when it joins a graph.
#[derive(Debug, Clone)]
pub struct Environment {
    /// The element's name in the graph.
    pub name: String,
    /// The graph's copy ledger.
    pub ledger: Ledger,
    /// What a store says of itself while it runs.
    pub held: Arc<HeldGauge>,
}

impl Environment {
    /// Of an element called `name`.
    pub fn new(name: impl Into<String>, ledger: Ledger) -> Environment {
        Environment { name: name.into(), ledger, held: Arc::default() }
    }
}

/// One element of a graph. All methods of one element run on one thread at a time.
///
/// Unless stated otherwise a port is given by its index in [`Ports`], and a method that has no meaning for an element
/// (an output offer of a sink) is never called.
pub trait Element: Send {
    /// Its ports. Does not change but by [`Element::request_output`] and [`Element::take_composed`].
    fn ports(&self) -> Ports;

    /// How outputs follow from inputs.
    fn role(&self) -> Role {
        Role::Endpoint
    }

    /// Tells the element its name and ledger, before anything else.
    fn join(&mut self, _environment: &Environment) {}

    /// Tells the element what its graph says of copies, before each negotiation: one that may have to copy refuses to
    /// under [`Copies::Deny`].
    fn allow_copies(&mut self, _copies: Copies) {}

    /// Why the element writes what goes out there a second time, where it does and negotiation has found out.
    fn copies(&self, _output: usize) -> Option<String> {
        None
    }

    /// Who copies what comes in there outside of this process, where somebody does and negotiation has found out: `copied by
    /// the compositor`. That is for the plan to say, and for [`Copies`] neither to allow nor to deny.
    fn copied(&self, _input: usize) -> Option<String> {
        None
    }

    /// Makes one more output (`tee`), for a link that names none; `None` where outputs are fixed.
    fn request_output(&mut self) -> Option<usize> {
        None
    }

    /// What output `output` can do; of a transform, given the stream that comes in. May open a device.
    ///
    /// # Errors
    /// The device is missing, in use, or not what was configured.
    fn output_offer(&mut self, _output: usize, _input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        Err(Failure::new(FailureKind::Config, "this element has no outputs"))
    }

    /// What input `input` can do. May open a device.
    ///
    /// # Errors
    /// The device is missing, in use, or not what was configured.
    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        Err(Failure::new(FailureKind::Config, "this element has no inputs"))
    }

    /// Allocates the buffers of a stream that begins at `output`: at least `stream.buffers`, or as many as the device
    /// gives. The solver shows them to every importer and then drops its references; the element keeps its own. Called
    /// again, it frees the earlier ones first.
    ///
    /// # Errors
    /// A refusal, upon which the solver tries its next candidate.
    fn allocate(&mut self, _output: usize, _stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        Err(Refusal::new("this element allocates nothing"))
    }

    /// Imports a stream's buffers for real, once: trial AddFB2, TEST_ONLY commit, mapping. Called again, it lets go of
    /// the earlier ones.
    ///
    /// # Errors
    /// A refusal, upon which the solver tries its next candidate.
    fn import(&mut self, _input: usize, _stream: &Stream, _buffers: &[Shrbuf]) -> Result<(), Refusal> {
        Ok(())
    }

    /// All inputs in one picture, where the element would take that in place of those it has refused.
    fn composition(&self) -> Option<Composition> {
        None
    }

    /// Has the element take one input, in which something in front of it composes what its inputs were; with `None`,
    /// its inputs as before.
    fn take_composed(&mut self, _composed: Option<&Composition>) {}

    /// Begins: registers descriptors and wakers with the domain's loop, starts the device.
    ///
    /// # Errors
    /// Ends the run.
    fn start(&mut self, _start: &mut Start<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// A descriptor or waker registered as `token` is ready.
    ///
    /// # Errors
    /// Ends the run, unless the pipeline declares a recovery for this kind.
    fn ready(&mut self, _token: u32, _events: Events, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// A frame has come to input `input`.
    ///
    /// # Errors
    /// Ends the run, unless the pipeline declares a recovery for this kind.
    fn process(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure>;

    /// No more frames will come to input `input`. A sink calls [`Context::finish`] once it is done with those it has;
    /// everything else passes the end on, which is what the default does for both.
    ///
    /// # Errors
    /// As for `process`.
    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        context.end_all()
    }

    /// Ends: stops the device, lets go of every frame. Called once after each `start`, whatever happened.
    fn stop(&mut self) {}

    /// Nothing is started again: lets go of what was kept from one start to the next, for whoever is connected. `failed` where
    /// the run has ended with an error. Called once, at the end of [`supervise::run`](crate::supervise::run).
    fn over(&mut self, _failed: bool) {}

    /// Counters of its own beyond those that the engine keeps, for statistics.
    fn counters(&self, _report: &mut dyn FnMut(&'static str, u64)) {}
}
