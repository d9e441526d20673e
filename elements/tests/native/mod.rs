//! Two elements and a link, set up as the solver would, for tests of one element at a time.
#![allow(dead_code)]

use std::time::Duration;

use shrbuf::{Format, Modifier, Shrbuf};
use shrbuf_pipeline::run::{self, Ended, Running};
use shrbuf_pipeline::{Context, Element, Environment, Failure, Frame, Graph, Origin, Ports, Rate, Size, Stream};

pub const SIZES: [Size; 3] = [Size::new(640, 360), Size::new(322, 242), Size::new(128, 96)];

pub fn stream(format: Format, size: Size) -> Stream {
    Stream {
        format,
        modifier: Some(Modifier::LINEAR),
        size,
        rate: Some(Rate::new(30, 1)),
        origin: Origin::Memfd,
        stride_align: 64,
        plane_segments: false,
        buffers: 4,
    }
}

/// A graph of these elements in a line, each of which has what it allocates and imports for `streams`.
pub fn line(mut elements: Vec<Box<dyn Element>>, streams: &[Stream]) -> Graph {
    let mut graph = Graph::new("test");
    for (i, e) in elements.iter_mut().enumerate() {
        e.join(&Environment { name: format!("e{i}"), ledger: graph.ledger().clone() });
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

pub fn run(graph: Graph, frames: Option<u64>) -> Ended {
    let mut running: Running = run::start(graph, frames).unwrap_or_else(|e| panic!("{}", e.failure.unwrap()));
    assert!(running.wait(Duration::from_secs(20)), "the run does not end");
    running.join()
}

/// As [`run`], and nothing may fail.
pub fn run_well(graph: Graph, frames: Option<u64>) -> Graph {
    let ended = run(graph, frames);
    if let Some(failure) = ended.failure {
        panic!("{failure}");
    }
    ended.graph
}

/// A sink that calls a function with each frame.
pub struct Probe<F>(pub F);

impl<F: FnMut(Frame) + Send> Element for Probe<F> {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn process(&mut self, _input: usize, frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        (self.0)(frame);
        Ok(())
    }
}
