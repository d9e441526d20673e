//! `hop ELEMENTS DEPTH STREAMS FRAMES`: what a frame costs on its way through a graph that does nothing with it.
//!
//! Each stream is a source that sends as fast as its buffers come back, ELEMENTS that pass it on, and a sink; with a
//! DEPTH other than 0 a queue lies before the sink. Prints ns per frame: the difference of a run of FRAMES frames and one
//! of a tenth, so that setting up does not count.

use std::sync::Arc;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::json;
use shrbuf::exporter::Memfd;
use shrbuf::{Format, Layout, Pool};
use shrbuf_bench::Result;
use shrbuf_pipeline::run::start;
use shrbuf_pipeline::{
    Context, Element, Events, Failure, FailureKind, Frame, Full, Graph, Ports, QueueSpec, Role, Start, Timestamp, Waker,
};

/// Sends a frame whenever a buffer is idle.
struct Source {
    buffers: u32,
    running: Option<(Arc<Pool>, Waker)>,
    sequence: u64,
}

impl Element for Source {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn start(&mut self, start: &mut Start<'_>) -> std::result::Result<(), Failure> {
        let limit = |e: &dyn std::fmt::Display| Failure::new(FailureKind::Limit, e.to_string());
        let memory = Memfd::new("bench");
        let layout = Layout::linear(Format::Grey, 16, 16, 1).map_err(|e| limit(&e))?;
        let buffers = (0..self.buffers).map(|_| memory.allocate(&layout)).collect::<std::result::Result<_, _>>();
        let waker = start.waker(0);
        let hook = waker.clone();
        let pool = Pool::new(buffers.map_err(|e| limit(&e))?, move |_| hook.wake()).map_err(|e| limit(&e))?;
        waker.wake();
        self.running = Some((Arc::new(pool), waker));
        Ok(())
    }

    fn ready(&mut self, _: u32, _: Events, context: &mut Context<'_>) -> std::result::Result<(), Failure> {
        let Some((pool, waker)) = &self.running else { return Ok(()) };
        if context.ended() {
            return Ok(());
        }
        let Some(buffer) = pool.acquire() else { return Ok(()) };
        // Asked again at once: a source that is always ready.
        waker.again();
        self.sequence += 1;
        context.push(0, Frame::new(buffer, Timestamp(0), self.sequence))
    }

    fn process(&mut self, _: usize, _: Frame, _: &mut Context<'_>) -> std::result::Result<(), Failure> {
        Ok(())
    }

    fn stop(&mut self) {
        self.running = None;
    }
}

/// Passes on.
struct Pass;

impl Element for Pass {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn process(&mut self, _: usize, frame: Frame, context: &mut Context<'_>) -> std::result::Result<(), Failure> {
        context.push(0, frame)
    }
}

/// Drops.
struct Sink;

impl Element for Sink {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn process(&mut self, _: usize, _: Frame, _: &mut Context<'_>) -> std::result::Result<(), Failure> {
        Ok(())
    }
}

fn graph(elements: usize, depth: u32, streams: usize) -> Result<Graph> {
    let mut graph = Graph::new("hop");
    for s in 0..streams {
        // What the queue can hold, what source and sink have in hand, and one to spare.
        let source = Source { buffers: depth + 3, running: None, sequence: 0 };
        let mut last = graph.add(&format!("source{s}"), Box::new(source))?;
        for e in 0..elements {
            let pass = graph.add(&format!("pass{s}-{e}"), Box::new(Pass))?;
            graph.link(last, pass)?;
            last = pass;
        }
        let sink = graph.add(&format!("sink{s}"), Box::new(Sink))?;
        match depth {
            0 => graph.link(last, sink)?,
            depth => graph.link_queued(last, sink, QueueSpec { depth, full: Full::Block })?,
        }
    }
    Ok(graph)
}

/// CPU time and time, in ns.
fn timed(graph: Graph, frames: u64) -> Result<(f64, f64)> {
    let cpu = || getrusage(UsageWho::RUSAGE_SELF).map(|u| (u.user_time() + u.system_time()).num_microseconds());
    let (before, begin) = (cpu()?, Instant::now());
    let running = start(graph, Some(frames)).map_err(|ended| format!("{:?}", ended.failure))?;
    if let Some(failure) = running.join().failure {
        return Err(failure.into());
    }
    Ok(((cpu()? - before) as f64 * 1e3, begin.elapsed().as_secs_f64() * 1e9))
}

fn main() -> Result<()> {
    let arguments = std::env::args().skip(1).map(|a| a.parse()).collect::<std::result::Result<Vec<u64>, _>>()?;
    let &[elements, depth, streams, frames] = arguments.as_slice() else {
        return Err("usage: hop ELEMENTS DEPTH STREAMS FRAMES".into());
    };
    let (few, all) = (frames / 10, (frames - frames / 10) * streams);
    let make = || graph(elements as usize, depth as u32, streams as usize);
    let (short, long) = (timed(make()?, few)?, timed(make()?, frames)?);
    let line = json!({
        "elements": elements, "depth": depth, "streams": streams, "frames": frames,
        "cpu_ns_per_frame": (long.0 - short.0) / all as f64, "wall_ns_per_frame": (long.1 - short.1) / all as f64,
    });
    println!("{line}");
    Ok(())
}
