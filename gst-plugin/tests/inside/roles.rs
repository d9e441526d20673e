//! The other process of a test: a producer, or a consumer.

use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};

use shrbuf::ipc::{Connection, IpcError, Next, Wishes};
use shrbuf::{Ledger, Reason};
use shrbuf_elements::Memory;
use shrbuf_elements::ipc::{IpcSink, Lag};
use shrbuf_elements::test_src::{Marker, TestSrc, read_marker};
use shrbuf_pipeline::supervise::{self, Report, RunOptions, Verdict};
use shrbuf_pipeline::{Build, Graph, Rate, Size, Timestamp};

use crate::launch::{LONG, Temporary, plugin};

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

/// Killed at the end.
pub struct Other(Child);

impl Other {
    fn start(role: &str) -> Other {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "roles::play", "--nocapture"]).env(ROLE, role).stdout(Stdio::null());
        Other(command.spawn().unwrap())
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
        ["reader", socket, stopped] => read(socket, stopped.parse().unwrap()),
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

fn read(socket: &str, stopped: bool) {
    let socket = Temporary(socket.into());
    crate::launch::until_listening(&socket);
    let connection = Connection::open(&socket.0, &Wishes::default(), LONG).unwrap();
    let mut consumer = connection.start().unwrap();
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
            Ok(Next::Nothing) => panic!("no frame in {LONG:?}"),
        }
    }
    assert!(frames > 30, "{frames} frames");
}
