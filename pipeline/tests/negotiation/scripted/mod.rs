//! Elements that say, allocate and refuse what a test tells them to. Their memory is memfd, whatever origin they claim:
//! negotiation goes by [`Origin::kind`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::time::ClockId;
use shrbuf::exporter::Memfd;
use shrbuf::{Format, Layout, MemoryKind, Modifier, Plane, Shrbuf};
use shrbuf_pipeline::plan::Plan;
use shrbuf_pipeline::solve::{Converter, NegotiateOptions, negotiate};
use shrbuf_pipeline::{
    Consumes, Context, Copies, Element, Failure, Frame, Graph, InputOffer, Modifiers, Origin, OutputOffer, Ports,
    Produces, QueueSpec, Rate, Rates, Refusal, Role, Size, SizeOffer, Sizes, Stream, Video, Wanted,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Sizes with rates, as a driver lists them: no modifiers.
pub fn video(format: Format, sizes: &[(u32, u32)], fps: &[u32]) -> Video {
    let rates = match fps {
        [] => Rates::Any,
        _ => Rates::List(fps.iter().map(|&n| Rate::new(n, 1)).collect()),
    };
    let exact = |&(w, h): &(u32, u32)| SizeOffer { sizes: Sizes::Exact(Size::new(w, h)), rates: rates.clone() };
    Video { format, modifiers: Modifiers::Unknown, sizes: sizes.iter().map(exact).collect(), plane_segments: false }
}

/// Any size in a range, any rate, linear.
pub fn up_to(format: Format, width: u32, height: u32) -> Video {
    let sizes = Sizes::Range { min: Size::new(1, 1), max: Size::new(width, height), step: Size::new(1, 1) };
    Video { sizes: vec![SizeOffer { sizes, rates: Rates::Any }], ..Video::linear(format) }
}

/// The same with these modifiers.
pub fn with_modifiers(video: Video, modifiers: &[u64]) -> Video {
    Video { modifiers: Modifiers::List(modifiers.iter().map(|&m| Modifier(m)).collect()), ..video }
}

/// The same with planes in a segment each.
pub fn split(video: Video) -> Video {
    Video { plane_segments: true, ..video }
}

pub fn want_format(format: Format) -> Wanted {
    Wanted { format: Some(format), ..Wanted::default() }
}

pub fn want_size(width: u32, height: u32) -> Wanted {
    Wanted { size: Some(Size::new(width, height)), ..Wanted::default() }
}

pub fn want_rate(fps: u32) -> Wanted {
    Wanted { rate: Some(Rate::new(fps, 1)), ..Wanted::default() }
}

type Offer = Box<dyn Fn(&Stream) -> OutputOffer + Send>;
type AllocateScript = Box<dyn FnMut(&Stream) -> Result<(), Refusal> + Send>;
type ImportScript = Box<dyn FnMut(&Stream, &Layout) -> Result<(), Refusal> + Send>;

/// What a scripted element was asked to do for real, in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

/// A source, a sink, or both as a transform.
pub struct Scripted {
    role: Role,
    pub input: Option<InputOffer>,
    output: Option<OutputOffer>,
    makes: Option<Offer>,
    missing: bool,
    grants: u32,
    pad: u32,
    deaf: bool,
    width_step: u32,
    segments: bool,
    allocating: AllocateScript,
    importing: ImportScript,
    copied: Option<&'static str>,
    copies: Option<&'static str>,
    log: Log,
    kept: Vec<Shrbuf>,
}

impl Scripted {
    fn new(role: Role) -> Scripted {
        Scripted {
            role,
            input: None,
            output: None,
            makes: None,
            missing: false,
            grants: u32::MAX,
            pad: 1,
            deaf: false,
            width_step: 1,
            segments: false,
            allocating: Box::new(|_| Ok(())),
            importing: Box::new(|_, _| Ok(())),
            copied: None,
            copies: None,
            log: Log::default(),
            kept: Vec::new(),
        }
    }

    /// A camera: keeps 2 buffers, has at most 32, leaves strides to its driver.
    pub fn source(video: Vec<Video>) -> Scripted {
        let memory = Produces { origins: vec![Origin::V4l2], max_stride_align: 1, keeps: 2, max_buffers: 32 };
        let offer = OutputOffer { video, memory, wanted: Wanted::default() };
        Scripted { output: Some(offer), ..Scripted::new(Role::Endpoint) }
    }

    /// A display: imports dma-bufs and holds 2.
    pub fn sink(video: Vec<Video>) -> Scripted {
        let memory = Consumes { kinds: vec![MemoryKind::DmaBuf], holds: 2, ..Consumes::cpu() };
        let offer = InputOffer { video, memory, wanted: Wanted::default(), natural: None };
        Scripted { input: Some(offer), ..Scripted::new(Role::Endpoint) }
    }

    /// A device that makes new pictures of those that come in; `makes` gives formats for what comes in.
    pub fn transform(reads: Vec<Video>, makes: impl Fn(&Stream) -> Vec<Video> + Send + 'static) -> Scripted {
        let memory = Produces { origins: vec![Origin::V4l2], max_stride_align: 1, keeps: 1, max_buffers: 32 };
        let offer =
            move |s: &Stream| OutputOffer { video: makes(s), memory: memory.clone(), wanted: Wanted::default() };
        Scripted { makes: Some(Box::new(offer)), role: Role::Transform, ..Scripted::sink(reads) }
    }

    /// Both, of which neither depends on the other.
    pub fn source_and_sink(gives: Vec<Video>, takes: Vec<Video>) -> Scripted {
        Scripted { output: Scripted::source(gives).output, ..Scripted::sink(takes) }
    }

    pub fn wanted(mut self, wanted: Wanted) -> Scripted {
        self.output.iter_mut().for_each(|o| o.wanted = wanted);
        self.input.iter_mut().for_each(|i| i.wanted = wanted);
        self
    }

    pub fn natural(mut self, width: u32, height: u32) -> Scripted {
        self.input.iter_mut().for_each(|i| i.natural = Some(Size::new(width, height)));
        self
    }

    pub fn origins(mut self, origins: &[Origin]) -> Scripted {
        self.output.iter_mut().for_each(|o| o.memory.origins = origins.to_vec());
        self
    }

    pub fn kinds(mut self, kinds: &[MemoryKind]) -> Scripted {
        self.input.iter_mut().for_each(|i| i.memory.kinds = kinds.to_vec());
        self
    }

    pub fn max_buffers(mut self, most: u32) -> Scripted {
        self.output.iter_mut().for_each(|o| o.memory.max_buffers = most);
        self
    }

    pub fn holds(mut self, frames: u32) -> Scripted {
        self.input.iter_mut().for_each(|i| i.memory.holds = frames);
        self
    }

    /// A consumer that passes the memory on.
    pub fn read_only(mut self) -> Scripted {
        self.input.iter_mut().for_each(|i| i.memory.read_only = true);
        self
    }

    /// Strides that the consumer takes.
    pub fn aligned(mut self, bytes: u32) -> Scripted {
        self.input.iter_mut().for_each(|i| i.memory.stride_align = bytes);
        self
    }

    /// Reads a format in whole blocks.
    pub fn in_blocks(mut self, format: Format, block: Size) -> Scripted {
        self.input.iter_mut().for_each(|i| i.memory.blocks.push((format, block)));
        self
    }

    /// Strides that the producer can be told to make.
    pub fn pads_to(mut self, bytes: u32) -> Scripted {
        self.output.iter_mut().for_each(|o| o.memory.max_stride_align = bytes);
        self
    }

    /// Strides that the driver makes whatever it is told.
    pub fn driver_pads_to(mut self, bytes: u32) -> Scripted {
        self.pad = bytes;
        self
    }

    /// Makes pictures of a multiple of this width, whatever was agreed.
    pub fn driver_rounds_up_to(mut self, pixels: u32) -> Scripted {
        self.width_step = pixels;
        self
    }

    /// Does not make the strides that were agreed.
    pub fn driver_strides_alone(mut self) -> Scripted {
        self.deaf = true;
        self
    }

    /// Gives a buffer for each plane, whatever was agreed.
    pub fn driver_splits(mut self) -> Scripted {
        self.segments = true;
        self
    }

    /// Gives no more buffers than this.
    pub fn grants(mut self, most: u32) -> Scripted {
        self.grants = most;
        self
    }

    pub fn missing(mut self) -> Scripted {
        self.missing = true;
        self
    }

    pub fn allocating(mut self, script: impl FnMut(&Stream) -> Result<(), Refusal> + Send + 'static) -> Scripted {
        self.allocating = Box::new(script);
        self
    }

    pub fn importing(
        mut self,
        script: impl FnMut(&Stream, &Layout) -> Result<(), Refusal> + Send + 'static,
    ) -> Scripted {
        self.importing = Box::new(script);
        self
    }

    /// What it takes is copied behind it.
    pub fn copied(mut self, by: &'static str) -> Scripted {
        self.copied = Some(by);
        self
    }

    /// What it makes it copies, and fails where copies are denied.
    pub fn copies(mut self, why: &'static str) -> Scripted {
        self.copies = Some(why);
        self
    }

    pub fn log(mut self, log: &Log) -> Scripted {
        self.log = log.clone();
        self
    }

    fn layout(&self, stream: &Stream) -> Result<Layout, Refusal> {
        let align = if self.deaf { self.pad } else { stream.stride_align.max(self.pad) };
        let refuse = |e: shrbuf::LayoutError| Refusal::new(e.to_string());
        let width = stream.size.width.next_multiple_of(self.width_step);
        let one = Layout::linear(stream.format, width, stream.size.height, align).map_err(refuse)?;
        let mut planes = one.planes().to_vec();
        if stream.plane_segments || self.segments {
            let apart = |(i, p): (usize, &Plane)| Plane { segment: i as u8, offset: 0, stride: p.stride };
            planes = one.planes().iter().enumerate().map(apart).collect();
        }
        Layout::new(stream.format, stream.modifier, width, stream.size.height, &planes).map_err(refuse)
    }
}

impl Element for Scripted {
    fn ports(&self) -> Ports {
        let port = |there: bool, name: &str| if there { vec![name.to_owned()] } else { vec![] };
        let makes = self.output.is_some() || self.makes.is_some();
        Ports { inputs: port(self.input.is_some(), "in"), outputs: port(makes, "out") }
    }

    fn role(&self) -> Role {
        self.role
    }

    fn output_offer(&mut self, _output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        if self.missing {
            return Err(Failure::new(shrbuf_pipeline::FailureKind::Config, "there is no /dev/video7"));
        }
        match (&self.makes, input) {
            (Some(makes), Some(input)) => Ok(makes(input)),
            _ => self.output.clone().ok_or_else(|| unreachable!("asked for an output it does not have")),
        }
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        self.input.clone().ok_or_else(|| unreachable!("asked for an input it does not have"))
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.kept.clear();
        self.log.note(format!("allocate {} {}", stream.format, stream.size));
        (self.allocating)(stream)?;
        let layout = self.layout(stream)?;
        let exporter = Memfd::new("scripted");
        for _ in 0..stream.buffers.min(self.grants) {
            self.kept.push(exporter.allocate(&layout).map_err(|e| Refusal::new(e.to_string()))?);
        }
        Ok(self.kept.clone())
    }

    fn import(&mut self, _input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        self.log.note(format!("import {} {}", stream.format, stream.size));
        buffers.iter().try_for_each(|b| (self.importing)(stream, b.layout()))
    }

    fn allow_copies(&mut self, copies: Copies) {
        if self.copies.is_some() {
            self.missing = copies == Copies::Deny;
        }
    }

    fn copies(&self, _output: usize) -> Option<String> {
        self.copies.map(str::to_owned)
    }

    fn copied(&self, _input: usize) -> Option<String> {
        self.copied.map(str::to_owned)
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// As many outputs as are linked.
#[derive(Default)]
pub struct Tee(usize);

impl Element for Tee {
    fn ports(&self) -> Ports {
        Ports { inputs: vec!["in".into()], outputs: (0..self.0).map(|i| format!("out{i}")).collect() }
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn request_output(&mut self) -> Option<usize> {
        self.0 += 1;
        Some(self.0 - 1)
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

pub const CPU: Converter =
    Converter { make: converter, present: || Ok(()), name: "convert", copies: true, compose: None };
/// A converter that the CPU has no part in: from dma-bufs to XR24 dma-bufs.
pub const GPU: Converter = Converter { make: gpu, present: || Ok(()), name: "gpu", copies: false, compose: None };

fn gpu() -> Box<dyn Element> {
    let reads = [Format::Yuyv, Format::Nv12].map(Video::linear).to_vec();
    Box::new(Scripted::transform(reads, |input| vec![scaled(Format::Xr24, input)]).holds(1))
}

/// A CPU converter: linear formats of the same size and rate, into udmabuf or memfd.
fn converter() -> Box<dyn Element> {
    use Format::{Ar24, Grey, Nv12, Rg16, Xr24, Yuyv};
    let formats = [Xr24, Ar24, Rg16, Nv12, Grey, Yuyv];
    let memory =
        Produces { origins: vec![Origin::Udmabuf, Origin::Memfd], max_stride_align: 4096, keeps: 1, max_buffers: 32 };
    let makes = move |s: &Stream| OutputOffer {
        video: formats.map(|f| scaled(f, s)).to_vec(),
        memory: memory.clone(),
        wanted: Wanted::default(),
    };
    let reads = formats.map(Video::linear).to_vec();
    let convert = Scripted::transform(reads, |_| vec![]).kinds(&[MemoryKind::DmaBuf, MemoryKind::Memfd]).holds(1);
    Box::new(Scripted { makes: Some(Box::new(makes)), ..convert })
}

/// A linear format at the size and rate of what comes in.
pub fn scaled(format: Format, input: &Stream) -> Video {
    let rates = input.rate.map_or(Rates::Any, |rate| Rates::List(vec![rate]));
    Video { sizes: vec![SizeOffer { sizes: Sizes::Exact(input.size), rates }], ..Video::linear(format) }
}

/// A graph of elements in a row.
pub fn row(elements: Vec<(&str, Scripted)>) -> Graph {
    let mut graph = Graph::new("test");
    let nodes: Vec<_> = elements.into_iter().map(|(name, e)| graph.add(name, Box::new(e)).unwrap()).collect();
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());
    graph
}

/// A source and a tee to these sinks, some of them through a queue.
pub fn fan(source: Scripted, sinks: Vec<(&str, Option<QueueSpec>, Scripted)>) -> Graph {
    let mut graph = Graph::new("test");
    let camera = graph.add("camera", Box::new(source)).unwrap();
    let tee = graph.add("tee", Box::<Tee>::default()).unwrap();
    graph.link(camera, tee).unwrap();
    for (name, queue, sink) in sinks {
        let sink = graph.add(name, Box::new(sink)).unwrap();
        match queue {
            Some(queue) => graph.link_queued(tee, sink, queue).unwrap(),
            None => graph.link(tee, sink).unwrap(),
        }
    }
    graph
}

fn options(with_converter: bool) -> NegotiateOptions {
    NegotiateOptions { converters: if with_converter { &[CPU] } else { &[] } }
}

/// The plan, or the message as an error of the test.
pub fn plan_with(graph: &mut Graph, copies: Copies) -> Plan {
    graph.set_copies(copies);
    negotiate(graph, &options(true)).unwrap_or_else(|e| panic!("{e}"))
}

/// The plan without copies.
pub fn plan(graph: &mut Graph) -> Plan {
    plan_with(graph, Copies::Deny)
}

/// The message, there being a converter.
pub fn message_with(graph: &mut Graph, copies: Copies) -> String {
    graph.set_copies(copies);
    negotiate(graph, &options(true)).unwrap_err().to_string()
}

/// The message without copies and without a converter.
pub fn message(graph: &mut Graph) -> String {
    negotiate(graph, &options(false)).unwrap_err().to_string()
}

/// A line for each link: ends, stream, stride, zero-copy or copied.
pub fn links(plan: &Plan) -> Vec<String> {
    let how = |zero_copy| if zero_copy { "zero-copy" } else { "copied" };
    let line = |l: &shrbuf_pipeline::plan::LinkPlan| {
        format!("{} → {}: {}, stride {}, {}", l.from, l.to, l.stream, l.stride, how(l.zero_copy))
    };
    plan.links.iter().map(line).collect()
}

/// The reasons, link by link.
pub fn reasons(plan: &Plan) -> Vec<&str> {
    plan.links.iter().map(|l| l.reason.as_str()).collect()
}

/// Processor time of this thread, which other tests and programs do not lengthen.
pub fn cpu_time() -> Duration {
    nix::time::clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// A refusal by script.
pub fn refuse_if(condition: bool, why: &str) -> Result<(), Refusal> {
    if condition { Err(Refusal::new(why)) } else { Ok(()) }
}

/// Hears the warnings of one thread.
struct Listener(Arc<Mutex<Vec<String>>>);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Message<'a>(&'a mut Vec<String>);
        impl Visit for Message<'_> {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0.push(format!("{value:?}"));
                }
            }
        }
        event.record(&mut Message(&mut self.0.lock().unwrap()));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// What `work` gives, and the warnings that it logged.
pub fn warnings_of<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let result = tracing::subscriber::with_default(Listener(Arc::clone(&heard)), work);
    let heard = heard.lock().unwrap().clone();
    (result, heard)
}
