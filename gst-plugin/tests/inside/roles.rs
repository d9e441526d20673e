//! The other process of a test: a producer, or a consumer.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use shrbuf::exporter::Memfd;
use shrbuf::ipc::{Announced, Connection, Consumer, FrameInfo, IpcError, Next, Options, Policy, Producer, Wishes};
use shrbuf::{Format, Layout, Ledger, Pool, Reason, State};
use shrbuf_elements::Memory;
use shrbuf_elements::ipc::{IpcSink, Lag};
use shrbuf_elements::test_src::{Marker, TestSrc, read_marker};
use shrbuf_pipeline::supervise::{self, Report, RunOptions, Verdict};
use shrbuf_pipeline::{Build, Graph, Rate, Size, Timestamp};

use crate::launch::{LONG, plugin};

const ROLE: &str = "SHRBUF_GST_INSIDE_ROLE";

pub const SIZE: (u32, u32) = (640, 360);

/// The plugin in this process, as a program has it that finds it installed.
pub fn load_plugin() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gst::Registry::get().scan_path(plugin());
        assert!(gst::ElementFactory::find("shrbufsrc").is_some());
    });
}

/// What this process runs, until it ends or for so many frames.
pub fn run(graph: Graph, frames: Option<u64>) -> Report {
    run_until(graph, frames, || false)
}

/// The same, or until `enough`.
pub fn run_until(graph: Graph, frames: Option<u64>, enough: impl Fn() -> bool) -> Report {
    let begin = Instant::now();
    let options = RunOptions { frames, tick: Duration::from_millis(20), ..RunOptions::default() };
    let report = supervise::run(graph, &options, |_| {
        if begin.elapsed() < LONG && !enough() { Verdict::Continue } else { Verdict::Stop }
    });
    assert!(begin.elapsed() < LONG, "it hangs: {:?}", report.error);
    report
}

/// Nothing has failed, and nothing was copied.
pub fn well(report: &Report) {
    assert!(report.error.is_none(), "{}", report.error.as_ref().unwrap());
    assert_eq!((report.graph.ledger().copied(), report.plan.is_zero_copy()), (0, true));
}

/// `test-src ! ipc-sink`, which waits for its consumer and for what that holds.
pub fn producer(socket: &str, memory: &str, frames: u64) -> Other {
    Other::start(&format!("producer {socket} {memory} {frames}"))
}

/// The same, as they are by default, until it is killed.
pub fn default_producer(socket: &str) -> Other {
    Other::start(&format!("default {socket}"))
}

/// Takes frames until they end; each has a number above that of the one before, and its own stamp, or that of the first where
/// that is later: of a producer that may be `stopped`.
pub fn reader(socket: &str, stopped: bool) -> Other {
    Other::start(&format!("reader {socket} {stopped}"))
}

/// Of frames in turn.
pub struct Stamps {
    /// No frame has an earlier one.
    base: Option<Timestamp>,
    own: bool,
}

impl Stamps {
    /// Each frame has its own.
    pub fn own() -> Stamps {
        Stamps { base: None, own: true }
    }

    /// Where a frame is older than the first says, it has the first's.
    pub fn from_the_first() -> Stamps {
        Stamps { base: None, own: false }
    }

    /// Panics where it is neither.
    pub fn is_own(&mut self, stamp: Timestamp, marker: &Marker) -> bool {
        let own = marker.timestamp == stamp;
        let base = *self.base.get_or_insert(stamp);
        assert!(own || !self.own && marker.timestamp < stamp && stamp == base, "{marker:?}: {stamp:?}");
        own
    }
}

/// Takes frames of [`crate::late`] until they end: so many, in so many buffers.
pub fn counter(socket: &str, frames: u32, buffers: usize) -> Other {
    Other::start(&format!("counter {socket} {frames} {buffers}"))
}

/// Takes frames of [`crate::late`] until they end, and connects again whenever they are others: `told` says of each time how wide
/// they were and, where each counts, how many.
pub fn follower(socket: &str, told: &str) -> Other {
    Other::start(&format!("follower {socket} {told}"))
}

/// Changes its frames once it has a consumer, and deals with nobody from then on: once that one has come again there is a file
/// `waits`, and not before that is removed does it go on.
pub fn changer(socket: &str, waits: &str) -> Other {
    Other::start(&format!("changer {socket} {waits}"))
}

/// Killed at the end.
pub struct Other(Child);

impl Other {
    fn start(role: &str) -> Other {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "roles::play", "--nocapture"]).env(ROLE, role).stdout(Stdio::null());
        Other(command.spawn().unwrap())
    }

    /// By SIGSTOP. It has stopped when this returns.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
    }

    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub fn end_well(mut self) {
        let mut status = None;
        crate::launch::until("the other process's end", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test: the other process.
#[test]
fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    match words[..] {
        ["producer", socket, memory, frames] => produce(socket, memory, frames.parse().unwrap()),
        ["default", socket] => produce_by_default(socket),
        ["reader", socket, stopped] => read(socket, stopped.parse().unwrap()),
        ["follower", socket, told] => follow(socket, told),
        ["changer", socket, waits] => change(socket, waits.as_ref()),
        ["counter", socket, frames, buffers] => count(socket, frames.parse().unwrap(), buffers.parse().unwrap()),
        _ => panic!("{role}"),
    }
}

fn produce(socket: &str, memory: &str, frames: u64) {
    let mut graph = Graph::new("out");
    let memory = if memory == "memfd" { Memory::Memfd } else { Memory::Udmabuf };
    let camera = TestSrc { size: Size::new(SIZE.0, SIZE.1), rate: Rate::new(100, 1), memory, ..TestSrc::default() };
    let camera = TestSrc { format: Some(shrbuf::Format::Xr24), ..camera };
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let out = IpcSink { path: socket.into(), lag: Lag::Block, window: 6, wait_for: 1, ..IpcSink::default() };
    let out = graph.add("out", IpcSink { consumers: 2, ..out }.build().unwrap()).unwrap();
    graph.link(camera, out).unwrap();
    let report = run(graph, Some(frames).filter(|&frames| frames > 0));
    well(&report);
}

fn produce_by_default(socket: &str) {
    let mut graph = Graph::new("out");
    let camera = TestSrc { format: Some(shrbuf::Format::Xr24), size: Size::new(SIZE.0, SIZE.1), ..TestSrc::default() };
    let camera = TestSrc { rate: Rate::new(100, 1), memory: Memory::Memfd, ..camera };
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let out = graph.add("out", IpcSink { path: socket.into(), ..IpcSink::default() }.build().unwrap()).unwrap();
    graph.link(camera, out).unwrap();
    well(&run(graph, None));
}

/// Frames of whoever listens there, once somebody does.
fn consumer(socket: &str) -> Consumer {
    let mut opened = None;
    crate::launch::until("a producer", || {
        opened = match Connection::open(socket.as_ref(), &Wishes::default(), LONG) {
            Err(IpcError::NoProducer { .. }) => None,
            opened => Some(opened.unwrap()),
        };
        opened.is_some()
    });
    opened.unwrap().start().unwrap()
}

fn count(socket: &str, frames: u32, buffers: usize) {
    let mut consumer = consumer(socket);
    let account = Ledger::default().account("counter", Reason::Inspect);
    let (mut seen, mut next) = (HashSet::new(), None);
    loop {
        match consumer.wait(LONG).unwrap() {
            Next::Frame(frame) => {
                let n = crate::late::read(&frame.buffer, &account);
                assert_eq!(n, *next.get_or_insert(n), "a frame is missing");
                next = Some(n + 1);
                seen.insert(frame.buffer.id());
            }
            Next::Ended => break,
            other => panic!("no frame in {LONG:?}: {other:?}"),
        }
    }
    assert_eq!((consumer.received(), consumer.dropped(), seen.len()), (u64::from(frames), 0, buffers));
}

fn follow(socket: &str, expected: &str) {
    let each_counts = expected.contains(':');
    let account = Ledger::default().account("follower", Reason::Inspect);
    let (mut told, mut last) = (Vec::new(), None);
    loop {
        let mut consumer = consumer(socket);
        let (mut before, mut width) = (None, 0);
        let end = loop {
            match consumer.wait(LONG).unwrap() {
                Next::Frame(frame) => {
                    width = frame.buffer.layout().width;
                    if !each_counts && told.is_empty() {
                        // Of one that is stopped, which may be another's by the time that it goes on.
                        continue;
                    }
                    let n = crate::late::read(&frame.buffer, &account);
                    assert!(last < Some(n), "{n} after {last:?}");
                    assert!(
                        !each_counts || before.is_none_or(|before| before + 1 == n),
                        "a frame is missing before {n}"
                    );
                    (last, before) = (Some(n), Some(n));
                }
                end => break end,
            }
        };
        let frames = consumer.received();
        told.push(if each_counts { format!("{width}:{frames}") } else { width.to_string() });
        match end {
            Next::Changed => {}
            Next::Ended => break,
            other => panic!("no frame in {LONG:?}: {other:?}"),
        }
    }
    assert_eq!(told.join(","), expected);
}

fn change(socket: &str, waits: &Path) {
    let buffers = |width| {
        let layout = Layout::linear(Format::Grey, width, 48, 1).unwrap();
        let buffers: Vec<_> = (0..3).map(|_| Memfd::new("changer").allocate(&layout).unwrap()).collect();
        let announced: Vec<_> = buffers.iter().map(|buffer| Announced::of(buffer).unwrap()).collect();
        (announced, Pool::new(buffers, |_| {}).unwrap())
    };
    let (announced, _first) = buffers(64);
    let options = Options { policy: Policy::Block, ..Options::default() };
    let mut producer = Producer::bind(socket.as_ref(), options, announced, None).unwrap();
    let served = |producer: &mut Producer| {
        while producer.consumers() == 0 {
            producer.wait(Some(LONG)).unwrap();
        }
    };
    served(&mut producer);
    let (announced, pool) = buffers(128);
    producer.change(announced, None).unwrap();
    let mut comes = [PollFd::new(producer.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut comes, PollTimeout::NONE), Ok(1));
    std::fs::write(waits, "").unwrap();
    crate::launch::until("its word", || !waits.exists());
    loop {
        served(&mut producer);
        match pool.acquire() {
            Some(buffer) => {
                buffer.set_state(State::Filled);
                producer.send(&buffer, &FrameInfo::default()).unwrap();
            }
            None => producer.wait(Some(LONG)).unwrap(),
        }
    }
}

fn read(socket: &str, stopped: bool) {
    let mut consumer = consumer(socket);
    let account = Ledger::default().account("reader", Reason::Inspect);
    let (mut last, mut frames) = (None, 0);
    let mut stamps = if stopped { Stamps::from_the_first() } else { Stamps::own() };
    loop {
        match consumer.wait(LONG) {
            // Stopped, as it would not end by itself.
            Err(IpcError::Gone) if stopped => break,
            Err(error) => panic!("{error}"),
            Ok(Next::Frame(frame)) => {
                let marker = read_marker(&frame.buffer, &account).unwrap();
                assert!(last < Some(marker.frame), "{marker:?} after {last:?}");
                frames += u32::from(stamps.is_own(Timestamp(frame.info.timestamp), &marker));
                last = Some(marker.frame);
            }
            Ok(Next::Ended) => break,
            Ok(other) => panic!("no frame in {LONG:?}: {other:?}"),
        }
    }
    assert!(frames > 30, "{frames} frames");
}
