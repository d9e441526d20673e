//! A device that goes away, its placeholder, and the device back again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shrbuf::Shrbuf;
use shrbuf_elements::Memory;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_pipeline::supervise::{Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{
    Build, Context, Element, Environment, Events, Failure, FailureKind, Frame, Graph, InputOffer, OutputOffer, Ports,
    Refusal, Size, Start, Stream,
};
use shrbuf_tests::native::Probe;

const CAMERA: Size = Size::new(128, 96);
const CARD: Size = Size::new(64, 48);

fn source(size: Size) -> Box<dyn Element> {
    TestSrc { size, free_run: true, memory: Memory::Memfd, ..TestSrc::default() }.build().unwrap()
}

/// A source whose plug somebody pulls.
struct Pluggable {
    inner: Box<dyn Element>,
    plugged: Arc<AtomicBool>,
}

impl Pluggable {
    fn there(&self) -> Result<(), Failure> {
        let there = self.plugged.load(Ordering::Relaxed);
        if there { Ok(()) } else { Err(Failure::new(FailureKind::Unplugged, "the plug is out")) }
    }
}

impl Element for Pluggable {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn join(&mut self, environment: &Environment) {
        self.inner.join(environment);
    }

    fn output_offer(&mut self, output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        self.there()?;
        self.inner.output_offer(output, input)
    }

    fn allocate(&mut self, output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.inner.allocate(output, stream)
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        self.inner.start(start)
    }

    fn ready(&mut self, token: u32, events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        self.there()?;
        self.inner.ready(token, events, context)
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        unreachable!("a source has no input")
    }

    fn stop(&mut self) {
        self.inner.stop();
    }
}

/// A sink that ends the run at the first frame of the camera, and calls a function with each frame's width.
struct UntilCamera<F>(F);

impl<F: FnMut(u32) + Send> Element for UntilCamera<F> {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn input_offer(&mut self, input: usize) -> Result<InputOffer, Failure> {
        Probe(|_| {}).input_offer(input)
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let width = frame.buffer.layout().width;
        (self.0)(width);
        if width == CAMERA.width {
            context.end_run();
        }
        Ok(())
    }
}

/// Tells each frame's width.
fn widths(widths: Sender<u32>) -> Box<dyn Element> {
    Box::new(Probe(move |frame: Frame| widths.send(frame.buffer.layout().width).unwrap()))
}

/// Runs a camera with a placeholder. The plug is pulled at the third frame of the camera, and put in again at the third of
/// the placeholder; the run ends after three more of the camera.
fn unplugged(plugged_at_first: bool) -> (Report, Vec<u32>, Vec<String>) {
    let plugged = Arc::new(AtomicBool::new(plugged_at_first));
    let (sender, seen_widths) = channel();
    let mut graph = Graph::new("test");
    let camera = Pluggable { inner: source(CAMERA), plugged: Arc::clone(&plugged) };
    let camera = graph.add("camera", Box::new(camera)).unwrap();
    graph.set_placeholder(camera, source(CARD)).unwrap();
    let sink = graph.add("display", widths(sender)).unwrap();
    graph.link(camera, sink).unwrap();

    let (mut seen, mut told, mut parts) = (Vec::new(), Vec::new(), Vec::<(u32, u32)>::new());
    let options = RunOptions { tick: Duration::from_millis(5), ..RunOptions::default() };
    let report = run(graph, &options, |progress| {
        if let Progress::StandingIn(why) = progress {
            told.push(why.to_string());
        }
        for width in seen_widths.try_iter() {
            match parts.last_mut() {
                Some((last, frames)) if *last == width => *frames += 1,
                _ => parts.push((width, 1)),
            }
        }
        match parts.last() {
            Some(&(width, 3..)) if width == CARD.width => plugged.store(true, Ordering::Relaxed),
            Some(&(_, 3..)) if parts.len() >= 2 => return Verdict::Stop,
            Some(&(_, 3..)) => plugged.store(false, Ordering::Relaxed),
            _ => {}
        }
        Verdict::Continue
    });
    seen.extend(parts.iter().map(|(width, _)| *width));
    (report, seen, told)
}

#[test]
fn a_placeholder_stands_in_until_the_device_is_back() {
    let (report, seen, told) = unplugged(true);

    assert!(report.error.is_none(), "{:?}", report.error);
    assert_eq!(seen, [CAMERA.width, CARD.width, CAMERA.width]);
    assert_eq!(told, ["`camera`: device unplugged: the plug is out"]);
    assert_eq!(report.restarts, 2);
    assert!(!report.graph.is_placeholder("camera"));
}

#[test]
fn a_placeholder_stands_in_for_a_device_that_is_missing_from_the_start() {
    let (report, seen, told) = unplugged(false);

    assert!(report.error.is_none(), "{:?}", report.error);
    assert_eq!(seen, [CARD.width, CAMERA.width]);
    assert_eq!((told.len(), report.restarts), (1, 2));
}

#[test]
fn a_device_is_asked_again_though_nobody_looks_at_the_run() {
    let plugged = Arc::new(AtomicBool::new(false));
    let mut graph = Graph::new("test");
    let camera = Pluggable { inner: source(CAMERA), plugged: Arc::clone(&plugged) };
    let camera = graph.add("camera", Box::new(camera)).unwrap();
    graph.set_placeholder(camera, source(CARD)).unwrap();
    let noted = Arc::new(Mutex::new(Vec::new()));
    let widths = Arc::clone(&noted);
    let display = UntilCamera(move |width| {
        widths.lock().unwrap().push(width);
        plugged.store(true, Ordering::Relaxed);
    });
    let sink = graph.add("display", Box::new(display)).unwrap();
    graph.link(camera, sink).unwrap();
    let (tick, duration) = (Duration::MAX, Some(Duration::from_secs(30)));

    let report = run(graph, &RunOptions { tick, duration, ..RunOptions::default() }, |_| Verdict::Continue);

    assert!(report.error.is_none(), "{:?}", report.error);
    let mut seen = noted.lock().unwrap().clone();
    seen.dedup();
    assert_eq!(seen, [CARD.width, CAMERA.width]);
}

#[test]
fn a_placeholder_that_fails_too_ends_the_run() {
    let never = Arc::new(AtomicBool::new(false));
    let mut graph = Graph::new("test");
    let camera = Pluggable { inner: source(CAMERA), plugged: Arc::clone(&never) };
    let camera = graph.add("camera", Box::new(camera)).unwrap();
    let broken = Pluggable { inner: source(CARD), plugged: never };
    graph.set_placeholder(camera, Box::new(broken)).unwrap();
    let sink = graph.add("display", widths(channel().0)).unwrap();
    graph.link(camera, sink).unwrap();

    let report = run(graph, &RunOptions::default(), |_| Verdict::Continue);

    assert_eq!(report.error.unwrap().kind(), Some(FailureKind::Unplugged));
}
