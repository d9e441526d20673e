//! A frame's way into another process, at 60 a second, as a camera has them.
//!
//! `crossing send SOCKET WIDTH HEIGHT FRAMES` and `crossing receive SOCKET FRAMES` are pipelines of `ipc-sink` and
//! `ipc-src`; `crossing floor FRAMES` sends as many time stamps to a process that waits in read(2) on an eventfd, which
//! answers by another: nothing between two processes is faster that sleeps. Each prints its one-way latency.
//! `crossing bare FRAMES` is the same without stamps and answers: a clock's tick and a wake-up, the least that a frame can cost.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::timerfd::TimerFd;
use shrbuf::exporter::Memfd;
use shrbuf::{Format, Layout, Pool, Shrbuf};
use shrbuf_bench::Result;
use shrbuf_bench::pace::{latency, timer};
use shrbuf_elements::ipc::{IpcSink, IpcSrc};
use shrbuf_pipeline::supervise::{RunOptions, Verdict, run};
use shrbuf_pipeline::{
    Build, Consumes, Context, Element, Events, Failure, FailureKind, Frame, Graph, InputOffer, Origin, OutputOffer,
    Ports, Produces, Rate, Rates, Refusal, Size, SizeOffer, Sizes, Start, Stream, Timestamp, Video, Wanted,
};

fn failed(e: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Limit, e.to_string())
}

/// Sends a buffer at each tick, and writes nothing into it: what a camera's CPU does.
struct Camera {
    size: Size,
    buffers: Vec<Shrbuf>,
    running: Option<(Pool, TimerFd)>,
    sequence: u64,
}

impl Element for Camera {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn output_offer(&mut self, _: usize, _: Option<&Stream>) -> std::result::Result<OutputOffer, Failure> {
        let rates = Rates::List(vec![Rate::new(60, 1)]);
        let video =
            Video { sizes: vec![SizeOffer { sizes: Sizes::Exact(self.size), rates }], ..Video::linear(Format::Nv12) };
        let memory = Produces { origins: vec![Origin::Memfd], max_stride_align: 1, keeps: 1, max_buffers: 64 };
        Ok(OutputOffer { video: vec![video], memory, wanted: Wanted::default() })
    }

    fn allocate(&mut self, _: usize, stream: &Stream) -> std::result::Result<Vec<Shrbuf>, Refusal> {
        let refused = |e: &dyn std::fmt::Display| Refusal::new(e.to_string());
        let layout = Layout::linear(stream.format, self.size.width, self.size.height, 1).map_err(|e| refused(&e))?;
        let memory = Memfd::new("crossing");
        let buffers = (0..stream.buffers).map(|_| memory.allocate(&layout)).collect::<std::result::Result<Vec<_>, _>>();
        self.buffers = buffers.map_err(|e| refused(&e))?;
        Ok(self.buffers.clone())
    }

    fn start(&mut self, start: &mut Start<'_>) -> std::result::Result<(), Failure> {
        let pool = Pool::new(std::mem::take(&mut self.buffers), |_| {}).map_err(failed)?;
        let timer = timer().map_err(failed)?;
        start.watch(timer.as_fd().try_clone_to_owned().map_err(failed)?, 0)?;
        self.running = Some((pool, timer));
        Ok(())
    }

    fn ready(&mut self, _: u32, _: Events, context: &mut Context<'_>) -> std::result::Result<(), Failure> {
        let Some((pool, timer)) = &self.running else { return Ok(()) };
        timer.wait().map_err(failed)?;
        let Some(buffer) = pool.acquire() else {
            context.dropped(1);
            return Ok(());
        };
        self.sequence += 1;
        context.push(0, Frame::new(buffer, Timestamp::now(), self.sequence))
    }

    fn process(&mut self, _: usize, _: Frame, _: &mut Context<'_>) -> std::result::Result<(), Failure> {
        Ok(())
    }

    fn stop(&mut self) {
        self.running = None;
    }
}

/// Notes how old each frame is as it comes.
struct Clock(Vec<u64>);

impl Element for Clock {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn input_offer(&mut self, _: usize) -> std::result::Result<InputOffer, Failure> {
        let (video, memory) = (vec![Video::linear(Format::Nv12)], Consumes::cpu());
        Ok(InputOffer { video, memory, wanted: Wanted::default(), natural: None })
    }

    fn process(&mut self, _: usize, frame: Frame, _: &mut Context<'_>) -> std::result::Result<(), Failure> {
        self.0.push(Timestamp::now().since(frame.timestamp));
        Ok(())
    }

    fn stop(&mut self) {
        println!("{}", latency(std::mem::take(&mut self.0)));
    }
}

fn play(graph: Graph, frames: u64) -> Result<()> {
    let options = RunOptions { frames: Some(frames), tick: Duration::from_secs(60), ..RunOptions::default() };
    match run(graph, &options, |_| Verdict::Continue).error {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn send(socket: &str, size: Size, frames: u64) -> Result<()> {
    let mut graph = Graph::new("send");
    let camera = Camera { size, buffers: Vec::new(), running: None, sequence: 0 };
    let camera = graph.add("camera", Box::new(camera))?;
    let sink = IpcSink { path: PathBuf::from(socket), consumers: 1, window: 2, wait_for: 1, ..IpcSink::default() };
    let sink = graph.add("out", sink.build()?)?;
    graph.link(camera, sink)?;
    play(graph, frames)
}

fn receive(socket: &str, frames: u64) -> Result<()> {
    let mut graph = Graph::new("receive");
    let source = graph.add("in", IpcSrc { path: PathBuf::from(socket), ..IpcSrc::default() }.build()?)?;
    let sink = graph.add("clock", Box::new(Clock(Vec::with_capacity(frames as usize))))?;
    graph.link(source, sink)?;
    play(graph, frames)
}

/// What the other process does: it answers each time stamp, or only wakes up.
const ANSWER: &str = "answer";
const LISTEN: &str = "listen";

fn floor(frames: u64, other: &str) -> Result<()> {
    let (to_child, from_child) =
        (EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?, EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
    let (ping, pong) = (to_child.as_fd().try_clone_to_owned()?, from_child.as_fd().try_clone_to_owned()?);
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(other).arg(frames.to_string()).stdin(Stdio::from(ping)).stdout(Stdio::from(pong));
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let timer = timer()?;
    for _ in 0..frames {
        timer.wait()?;
        if other == ANSWER {
            to_child.write(Timestamp::now().0)?;
            from_child.read()?;
        } else {
            to_child.write(1)?;
        }
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    child.wait()?;
    print!("{said}");
    Ok(())
}

/// Waits in read(2) for a time stamp, and answers.
fn answer(frames: u64) -> Result<()> {
    let mut ping = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut pong = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let mut ages = Vec::with_capacity(frames as usize);
    for _ in 0..frames {
        let mut sent = [0; 8];
        ping.read_exact(&mut sent)?;
        ages.push(Timestamp::now().since(Timestamp(u64::from_ne_bytes(sent))));
        pong.write_all(&1_u64.to_ne_bytes())?;
    }
    eprintln!("{}", latency(ages));
    Ok(())
}

/// Waits in read(2), which brings as many as have come since the one before.
fn listen(frames: u64) -> Result<()> {
    let mut ping = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut come = 0;
    while come < frames {
        let mut more = [0; 8];
        ping.read_exact(&mut more)?;
        come += u64::from_ne_bytes(more);
    }
    eprintln!("{{}}");
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["send", socket, width, height, frames] => {
            send(socket, Size::new(width.parse()?, height.parse()?), frames.parse()?)
        }
        ["receive", socket, frames] => receive(socket, frames.parse()?),
        ["floor", frames] => floor(frames.parse()?, ANSWER),
        ["bare", frames] => floor(frames.parse()?, LISTEN),
        [ANSWER, frames] => answer(frames.parse()?),
        [LISTEN, frames] => listen(frames.parse()?),
        _ => {
            Err("usage: crossing send SOCKET WIDTH HEIGHT FRAMES | receive SOCKET FRAMES | floor FRAMES | bare FRAMES"
                .into())
        }
    }
}
