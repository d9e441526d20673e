//! A source that sends as fast as its pool allows, and a sink that notes what comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use shrbuf::exporter::Memfd;
use shrbuf::{Format, Layout, Pool, Shrbuf};
use shrbuf_pipeline::queue::{Queue, QueueSpec};
use shrbuf_pipeline::{
    Consumes, Context, Element, Events, Failure, FailureKind, Frame, Full, Graph, InputOffer, NodeId, Origin,
    OutputOffer, Ports, Produces, Refusal, Role, Size, Start, Stream, Timestamp, Video, Waker, Wanted,
};

/// Sends a frame whenever a buffer is idle.
pub struct Source {
    pub pool: Arc<Mutex<Option<Arc<Pool>>>>,
    pub buffers: usize,
    pub stops: Arc<AtomicU64>,
    running: Option<(Arc<Pool>, Waker)>,
    sequence: u64,
}

impl Source {
    pub fn new(buffers: usize) -> Source {
        Source { pool: Arc::default(), buffers, stops: Arc::default(), running: None, sequence: 0 }
    }

    /// Frames so far.
    pub fn sent(&self) -> u64 {
        self.sequence
    }
}

fn buffers(number: usize) -> Vec<Shrbuf> {
    let memory = Memfd::new("engine-test");
    let layout = Layout::linear(Format::Grey, 16, 16, 1).unwrap();
    (0..number).map(|_| memory.allocate(&layout).unwrap()).collect()
}

impl Element for Source {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn output_offer(&mut self, _output: usize, _input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        let memory = Produces { origins: vec![Origin::Memfd], max_stride_align: 1, keeps: 0, max_buffers: 32 };
        let wanted = Wanted { size: Some(Size::new(16, 16)), ..Wanted::default() };
        Ok(OutputOffer { video: vec![Video::linear(Format::Grey)], memory, wanted })
    }

    fn allocate(&mut self, _output: usize, _stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        Ok(buffers(self.buffers))
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let buffers = buffers(self.buffers);
        let waker = start.waker(0);
        let hook = waker.clone();
        let pool = Arc::new(Pool::new(buffers, move |_| hook.wake()).unwrap());
        *self.pool.lock().unwrap() = Some(Arc::clone(&pool));
        waker.wake();
        self.running = Some((pool, waker));
        Ok(())
    }

    fn ready(&mut self, _token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some((pool, waker)) = &self.running else { return Ok(()) };
        if context.ended() {
            return Ok(());
        }
        let Some(buffer) = pool.acquire() else { return Ok(()) };
        // Asked again at once: a source that is always ready.
        waker.again();
        self.sequence += 1;
        context.push(0, Frame::new(buffer, Timestamp::now(), self.sequence))
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        unreachable!("a source has no input")
    }

    fn stop(&mut self) {
        self.stops.fetch_add(1, Ordering::Relaxed);
        self.running = None;
    }
}

/// Passes on.
pub struct Pass;

impl Element for Pass {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        context.push(0, frame)
    }
}

/// What a sink saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub sequences: Vec<u64>,
    pub thread: Option<ThreadId>,
    pub stops: u64,
    /// How many of them there had been as it was told that nothing is started again, and whether the run had failed.
    pub over: Vec<(u64, bool)>,
}

/// What a sink does with a frame.
pub type OnFrame = Box<dyn FnMut(u64) -> Result<(), Failure> + Send>;

/// Notes sequences, then does what the test wants.
pub struct Sink {
    pub seen: Arc<Mutex<Seen>>,
    on_frame: OnFrame,
}

impl Sink {
    pub fn new() -> Sink {
        Sink::with(|_| Ok(()))
    }

    pub fn with(on_frame: impl FnMut(u64) -> Result<(), Failure> + Send + 'static) -> Sink {
        let seen = Seen { sequences: Vec::with_capacity(200_000), ..Seen::default() };
        Sink { seen: Arc::new(Mutex::new(seen)), on_frame: Box::new(on_frame) }
    }
}

impl Element for Sink {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        let (video, wanted) = (vec![Video::linear(Format::Grey)], Wanted::default());
        Ok(InputOffer { video, memory: Consumes::cpu(), wanted, natural: None })
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        {
            let mut seen = self.seen.lock().unwrap();
            seen.sequences.push(frame.sequence);
            seen.thread.get_or_insert_with(|| std::thread::current().id());
        }
        context.shown(frame.timestamp, Timestamp::now());
        (self.on_frame)(frame.sequence)
    }

    fn stop(&mut self) {
        self.seen.lock().unwrap().stops += 1;
    }

    fn over(&mut self, failed: bool) {
        let mut seen = self.seen.lock().unwrap();
        let stops = seen.stops;
        seen.over.push((stops, failed));
    }
}

/// Does not start.
pub struct Broken;

impl Element for Broken {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn start(&mut self, _start: &mut Start<'_>) -> Result<(), Failure> {
        Err(Failure::new(FailureKind::InUse, "somebody else has it"))
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        unreachable!("it never starts")
    }
}

/// `source → queue → sink`, the queue with these settings.
pub fn queued(source: Source, queue: QueueSpec, sink: Sink) -> Graph {
    let mut graph = Graph::new("test");
    let source = graph.add("source", Box::new(source)).unwrap();
    let queue = graph.add("queue", Box::new(Queue(queue))).unwrap();
    let sink = graph.add("sink", Box::new(sink)).unwrap();
    graph.link(source, queue).unwrap();
    graph.link(queue, sink).unwrap();
    graph
}

/// `source → pass … → sink` in one domain, with `hops` elements between.
pub fn chain(source: Source, hops: usize, sink: Sink) -> Graph {
    let mut graph = Graph::new("test");
    let mut last: NodeId = graph.add("source", Box::new(source)).unwrap();
    for i in 0..hops {
        let pass = graph.add(&format!("pass{i}"), Box::new(Pass)).unwrap();
        graph.link(last, pass).unwrap();
        last = pass;
    }
    let sink = graph.add("sink", Box::new(sink)).unwrap();
    graph.link(last, sink).unwrap();
    graph
}

pub fn spec(depth: u32, full: Full) -> QueueSpec {
    QueueSpec { depth, full }
}
