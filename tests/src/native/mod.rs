//! Two elements and a link, set up as the solver would, for tests of one element at a time.

pub mod reference;

use std::time::Duration;

use shrbuf::exporter::{Exporter, Memfd};
use shrbuf::{Format, Layout, Ledger, Modifier, Reason, Shrbuf};
use shrbuf_pipeline::run::{self, Ended, Running};
use shrbuf_pipeline::{
    Consumes, Context, Element, Environment, Events, Failure, Frame, Graph, InputOffer, Origin, Ports, Rate, Refusal,
    Size, Start, Stream, Video, Wanted,
};

/// Even and odd, and one that is quickly drawn.
pub const SIZES: [Size; 3] = [Size::new(640, 360), Size::new(322, 242), Size::new(128, 96)];

/// A stream in memfds, at 30 frames a second.
pub fn stream(format: Format, size: Size) -> Stream {
    Stream {
        format,
        modifier: Some(Modifier::LINEAR),
        size,
        rate: Some(Rate::new(30, 1)),
        origin: Origin::Memfd,
        stride_align: 64,
        block: None,
        plane_segments: false,
        read_only: false,
        buffers: 4,
    }
}

/// A graph of these elements in a line, each of which has what it allocates and imports for `streams`.
pub fn line(mut elements: Vec<Box<dyn Element>>, streams: &[Stream]) -> Graph {
    let mut graph = Graph::new("test");
    for (i, e) in elements.iter_mut().enumerate() {
        e.join(&Environment::new(format!("e{i}"), graph.ledger().clone()));
    }
    for (i, stream) in streams.iter().enumerate() {
        let buffers: Vec<Shrbuf> = elements[i].allocate(0, stream).unwrap();
        elements[i + 1].import(0, stream, &buffers).unwrap();
    }
    let mut last = None;
    for (i, element) in elements.into_iter().enumerate() {
        let node = graph.add(&format!("e{i}"), element).unwrap();
        if let Some(last) = last {
            graph.link(last, node).unwrap();
        }
        last = Some(node);
    }
    graph
}

/// Runs to the end, which must come within 20 s.
///
/// # Panics
/// Where it does not start, or does not end.
pub fn run(graph: Graph, frames: Option<u64>) -> Ended {
    let mut running: Running = run::start(graph, frames).unwrap_or_else(|e| panic!("{}", e.failure.unwrap()));
    assert!(running.wait(Duration::from_secs(20)), "the run does not end");
    running.join()
}

/// As [`run()`], and nothing may fail.
pub fn run_well(graph: Graph, frames: Option<u64>) -> Graph {
    let ended = run(graph, frames);
    if let Some(failure) = ended.failure {
        panic!("{failure}");
    }
    ended.graph
}

/// A sink of XR24 in memory of any kind, that calls a function with each frame.
pub struct Probe<F>(pub F);

impl<F: FnMut(Frame) + Send> Element for Probe<F> {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        Ok(InputOffer {
            video: vec![Video { plane_segments: true, ..Video::linear(Format::Xr24) }],
            memory: Consumes::cpu(),
            wanted: Wanted::default(),
            natural: None,
        })
    }

    fn process(&mut self, _input: usize, frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        (self.0)(frame);
        Ok(())
    }
}

/// A source that sends these frames.
pub struct Feed(pub Vec<Frame>);

impl Element for Feed {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn allocate(&mut self, _output: usize, _stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        Ok(self.0.iter().map(|f| f.buffer.clone()).collect())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        start.waker(0).wake();
        Ok(())
    }

    fn ready(&mut self, _token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        self.0.drain(..).try_for_each(|f| context.push(0, f))?;
        context.end_all()
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// A picture of bytes that `byte(plane, y, x)` gives.
pub fn picture(format: Format, size: Size, byte: impl Fn(usize, usize, usize) -> u8) -> Shrbuf {
    picture_of(&Stream { stride_align: 16, ..stream(format, size) }, byte)
}

/// The same, of a stream's format, size and stride.
pub fn picture_of(stream: &Stream, byte: impl Fn(usize, usize, usize) -> u8) -> Shrbuf {
    picture_in(&Exporter::Memfd(Memfd::new("picture")), stream, byte)
}

/// The same, in memory of this kind.
pub fn picture_in(memory: &Exporter, stream: &Stream, byte: impl Fn(usize, usize, usize) -> u8) -> Shrbuf {
    let account = Ledger::default().account("test", Reason::Generate);
    let layout = Layout::linear(stream.format, stream.size.width, stream.size.height, stream.stride_align).unwrap();
    let mut buffer = memory.allocate(&layout).unwrap();
    {
        let mut guard = buffer.write().unwrap();
        for p in 0..layout.planes().len() {
            let mut plane = guard.plane(p);
            for y in 0..plane.rows() {
                let row: Vec<u8> = (0..plane.row_bytes()).map(|x| byte(p, y, x)).collect();
                plane.write(y, 0, &row, &account);
            }
        }
    }
    buffer
}

/// All bytes of a plane, without padding, and the bytes of a row.
pub fn plane(buffer: &Shrbuf, plane: usize) -> (Vec<u8>, usize) {
    let account = Ledger::default().account("test", Reason::Inspect);
    let guard = buffer.read().unwrap();
    let plane = guard.plane(plane);
    let mut bytes = vec![0; plane.row_bytes() * plane.rows()];
    for (y, row) in bytes.chunks_exact_mut(plane.row_bytes()).enumerate() {
        plane.read(y, 0, row, &account);
    }
    (bytes, plane.row_bytes())
}

/// Bytes that look random and are the same in every run.
pub fn noise(seed: u64) -> impl Fn(usize, usize, usize) -> u8 {
    move |p, y, x| {
        let mut n = seed ^ (p as u64) << 40 ^ (y as u64) << 20 ^ x as u64;
        n = (n ^ n >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        n = (n ^ n >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (n ^ n >> 31) as u8
    }
}
