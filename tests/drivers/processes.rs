//! The camera in one process, the display in another: the same dma-bufs, for reading only, and none left whoever is killed.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Lines, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use shrbuf::exporter::Udmabuf;
use shrbuf::ipc::{Announced, Connection, FrameInfo, IpcError, Next, Options, Policy, Producer, Wishes};
use shrbuf::{AccessError, Format, Layout, Ledger, MemoryKind, Pool, Reason, Shrbuf, State};
use shrbuf_elements::ipc::{IpcSink, IpcSrc};
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_pipeline::supervise::{Error, Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, FailureKind, Graph};
use shrbuf_tests::{Footprint, counts, on_test_drivers, run_frames, small_camera};

const SOCKET: &str = "SHRBUF_DRIVERS_SOCKET";
/// For the parent of those who are killed; where they connect.
const NURSERY: &str = "SHRBUF_DRIVERS_NURSERY";
/// Consumers that are killed, and after how many of them each producer is.
const CONSUMERS: usize = 1000;
const OF_A_PRODUCER: usize = 5;
/// Consumers at the same time, beside one that is not killed.
const TOGETHER: usize = 3;
const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test: the camera's process, until it is killed.
#[test]
fn camera() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let mut graph = Graph::new("out");
    // Which a display takes too; nobody asks the display here.
    let camera = V4l2Src { format: Some(Format::Xr24), ..small_camera() };
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let out = IpcSink { path: socket.into(), consumers: 2, ..IpcSink::default() };
    let out = graph.add("out", out.build().unwrap()).unwrap();
    graph.link(camera, out).unwrap();
    let report = run(graph, &RunOptions::default(), |_| Verdict::Continue);
    panic!("the camera has ended: {:?}", report.error);
}

struct Camera(Child);

impl Camera {
    fn start(socket: &std::path::Path) -> Camera {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "processes::camera", "--nocapture"]).env(SOCKET, socket).stdout(Stdio::null());
        let mut camera = Camera(command.spawn().unwrap());
        let begin = Instant::now();
        while !socket.exists() {
            assert!(begin.elapsed() < Duration::from_secs(30) && camera.0.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(20));
        }
        camera
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn display(socket: &std::path::Path) -> Graph {
    let mut graph = Graph::new("in");
    let source = IpcSrc { path: socket.to_owned(), ..IpcSrc::default() };
    let source = graph.add("in", source.build().unwrap()).unwrap();
    let display = graph.add("display", KmsSink::default().build().unwrap()).unwrap();
    graph.link(source, display).unwrap();
    graph
}

fn imports(report: &Report) -> u64 {
    let own = report.graph.counts().into_iter().find(|c| c.name == "display").unwrap().own;
    own.iter().find(|(n, _)| *n == "imports").unwrap().1
}

#[test]
fn a_camera_of_another_process_is_shown_without_a_copy() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let socket = std::env::temp_dir().join("shrbuf-drivers");
    let camera = Camera::start(&socket);
    let report = run_frames(display(&socket), 120);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(counts(&report.graph, "display").frames, 120);
    assert_eq!(report.graph.ledger().copied(), 0);
    assert_eq!(imports(&report), u64::from(report.plan.budgets[0].granted), "each buffer once");
    // Another may follow, which has the buffers that the first gave back.
    let again = run_frames(display(&socket), 30);
    assert!(again.error.is_none(), "{}", again.error.unwrap());
    drop((report, again, camera));
    assert_eq!(Footprint::settled(&before), before);
    std::fs::remove_file(&socket).unwrap();
}

#[test]
fn a_camera_that_is_killed_is_unplugged_and_leaves_nothing() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let socket = std::env::temp_dir().join("shrbuf-drivers-killed");
    let mut camera = Some(Camera::start(&socket));
    let report = run(display(&socket), &RunOptions::default(), |progress| {
        if let Progress::Running(graph, _) = progress
            && counts(graph, "display").frames > 10
        {
            drop(camera.take());
        }
        Verdict::Continue
    });
    let Some(Error::Element(failure)) = &report.error else { panic!("{:?}", report.error) };
    assert_eq!((failure.kind(), failure.element()), (FailureKind::Unplugged, Some("in")));
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
    std::fs::remove_file(&socket).unwrap();
}

#[test]
fn a_camera_is_passed_on_for_reading_only() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let socket = std::env::temp_dir().join("shrbuf-drivers-reading");
    let camera = Camera::start(&socket);
    let mut consumer = Connection::open(&socket, &Wishes::default(), PATIENCE).unwrap().start().unwrap();
    let Next::Frame(mut frame) = consumer.wait(PATIENCE).unwrap() else { panic!("no frame came") };
    assert_eq!(frame.buffer.kind(), MemoryKind::DmaBuf);
    assert!(matches!(frame.buffer.write().unwrap_err(), AccessError::ReadOnly));
    let fd = frame.buffer.export(0).unwrap();
    let map = |access| {
        // SAFETY: a new mapping, which nothing else knows of.
        unsafe { mmap(None, NonZeroUsize::new(4096).unwrap(), access, MapFlags::MAP_SHARED, &fd, 0) }
    };
    assert_eq!(map(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).unwrap_err(), nix::Error::EACCES);
    let reading = map(ProtFlags::PROT_READ).unwrap();
    // SAFETY: the mapping is ours, and nobody looks at it.
    unsafe {
        assert_eq!(nix::sys::mman::mprotect(reading, 4096, ProtFlags::PROT_WRITE).unwrap_err(), nix::Error::EACCES);
        nix::sys::mman::munmap(reading, 4096).unwrap();
    }
    assert!(nix::unistd::write(&fd, b"mine").is_err(), "write(2) on the descriptor");
    assert!(frame.buffer.read().unwrap().plane(0).rows() > 0);
    drop((fd, frame, consumer, camera));
    assert_eq!(Footprint::now(), before);
    std::fs::remove_file(&socket).unwrap();
}

/// Not a test: has producers and consumers by fork(2), as starting this program anew takes ten times as long, and kills them, as it is
/// told to, until its standard input ends.
#[test]
fn nursery() {
    let Ok(socket) = std::env::var(NURSERY) else { return };
    let mut alive = Vec::new();
    for line in std::io::stdin().lines().map(Result::unwrap) {
        if let Some(pid) = line.strip_prefix("kill ") {
            let pid = pid.parse().unwrap();
            alive.retain(|&other| other != pid);
            say(&format!("ended {:?}", end(pid)));
            continue;
        }
        // SAFETY: of the only other thread, the harness' own, which waits for this one, the child needs nothing.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => {
                alive.push(child.as_raw());
                say(&format!("born {child}"));
            }
            ForkResult::Child => {
                let lived = std::panic::catch_unwind(|| match line.as_str() {
                    "send" => send(Path::new(&socket)),
                    _ => receive(Path::new(&socket)),
                });
                std::process::exit(i32::from(lived.is_err()));
            }
        }
    }
    for pid in alive {
        end(pid);
    }
    std::process::exit(0);
}

fn end(pid: i32) -> WaitStatus {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    waitpid(Pid::from_raw(pid), None).unwrap()
}

/// A line of a process of the nursery, whole among those of others.
fn say(line: &str) {
    println!(">{line}");
}

struct Nursery {
    process: Child,
    tell: Option<ChildStdin>,
    told: Lines<BufReader<ChildStdout>>,
    /// Consumers that have held a frame, as they do from then on.
    held: HashSet<i32>,
}

impl Nursery {
    fn start(socket: &Path) -> Nursery {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "processes::nursery", "--nocapture"]).env(NURSERY, socket);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (tell, told) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()).lines());
        Nursery { process, tell, told, held: HashSet::new() }
    }

    /// What it answers to a line.
    fn ask(&mut self, line: &str, answer: &str) -> String {
        writeln!(self.tell.as_ref().unwrap(), "{line}").unwrap();
        loop {
            let said = self.told.next().expect("the nursery has ended").unwrap();
            // The harness' own words may stand before it.
            let Some((_, said)) = said.split_once('>') else { continue };
            match said.split_once(' ').unwrap() {
                ("holds", pid) => drop(self.held.insert(pid.parse().unwrap())),
                (kind, what) if kind == answer => return what.to_owned(),
                _ => panic!("{said}"),
            }
        }
    }

    fn spawn(&mut self, role: &str) -> i32 {
        self.ask(role, "born").parse().unwrap()
    }

    /// Kills one; whether it was still alive, and had held a frame.
    fn kill(&mut self, pid: i32) -> (bool, bool) {
        let ended = self.ask(&format!("kill {pid}"), "ended");
        assert!(ended.starts_with("Signaled") || ended.starts_with("Exited") && ended.ends_with(", 0)"), "{ended}");
        (ended.starts_with("Signaled"), self.held.remove(&pid))
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        self.tell = None;
        let _ = self.process.wait();
    }
}

/// Frames in udmabufs, whose rows say which they are.
fn send(socket: &Path) {
    let layout = Layout::linear(Format::Grey, 640, 360, 64).unwrap();
    let memory = Udmabuf::open("killed").unwrap();
    let buffers: Vec<Shrbuf> = (0..8).map(|_| memory.allocate(&layout).unwrap()).collect();
    let announced = buffers.iter().map(|b| Announced::of(b).unwrap()).collect();
    // More than there are at once: one that was killed has its place until the producer has read what it had said.
    let options = Options { consumers: 8, policy: Policy::Latest, ..Options::default() };
    let mut producer = Producer::bind(socket, options, announced, None).unwrap();
    let pool = Pool::new(buffers, |_| {}).unwrap();
    let account = Ledger::default().account("sender", Reason::Generate);
    for sequence in 0.. {
        if let Some(mut buffer) = pool.acquire() {
            let number = u64::to_ne_bytes(sequence);
            let mut guard = buffer.write().unwrap();
            for y in [0, 359] {
                guard.plane(0).write(y, 0, &number, &account);
            }
            drop(guard);
            buffer.set_state(State::Filled);
            producer.send(&buffer, &FrameInfo { sequence, ..FrameInfo::default() }).unwrap();
        }
        producer.wait(Some(Duration::from_millis(1))).unwrap();
    }
}

/// Both rows of a frame say which it is, as its message does.
fn is_whole(buffer: &Shrbuf, sequence: u64) -> bool {
    let account = Ledger::default().account("receiver", Reason::Inspect);
    let guard = buffer.read().unwrap();
    [0, 359].iter().all(|&y| {
        let mut number = [0; 8];
        guard.plane(0).read(y, 0, &mut number, &account);
        u64::from_ne_bytes(number) == sequence
    })
}

fn receive(socket: &Path) {
    let connection = Connection::open(socket, &Wishes::default(), PATIENCE);
    let Ok(mut consumer) = connection.and_then(Connection::start) else { return };
    let mut held = Vec::new();
    while let Ok(Next::Frame(frame)) = consumer.wait(PATIENCE) {
        assert!(is_whole(&frame.buffer, frame.info.sequence));
        if held.is_empty() {
            say(&format!("holds {}", std::process::id()));
        }
        held.insert(0, frame);
        held.truncate(2);
    }
}

#[test]
fn producers_and_consumers_of_dma_bufs_killed_at_random_leave_nothing() {
    if !on_test_drivers() {
        return;
    }
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let before = Footprint::now();
    let socket = std::env::temp_dir().join("shrbuf-drivers-random");
    let mut nursery = Nursery::start(&socket);
    let (mut killed, mut with_frames, mut producers, mut held_on) = (0, 0, 0, 0);
    // Microseconds between two kills at most: so long that four of five hold a frame, on a machine of any speed.
    let mut life = 20_000.0_f64;
    while killed < CONSUMERS {
        let producer = nursery.spawn("send");
        // One consumer here, which outlives its producer.
        let begin = Instant::now();
        let connection = loop {
            match Connection::open(&socket, &Wishes::default(), PATIENCE) {
                Ok(connection) => break connection,
                Err(IpcError::NoProducer { .. }) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("producer {producers}: {error}"),
            }
            assert!(begin.elapsed() < PATIENCE, "the producer does not come");
        };
        let mut consumer = connection.start().unwrap();
        let mut doomed: Vec<i32> = (0..TOGETHER).map(|_| nursery.spawn("receive")).collect();
        let mut last = None;
        for due in 0..=OF_A_PRODUCER {
            let until = Instant::now() + Duration::from_micros(random(life as u64));
            while Instant::now() < until
                && let Ok(Next::Frame(frame)) = consumer.wait(until - Instant::now())
            {
                last = Some(frame);
            }
            if due < OF_A_PRODUCER {
                let next = &mut doomed[random(TOGETHER as u64) as usize];
                let (alive, held) = nursery.kill(*next);
                assert!(
                    alive,
                    "consumer {next} has ended before its producer {producer}: {:?}",
                    nursery.kill(producer)
                );
                killed += 1;
                with_frames += usize::from(held);
                life = (life * if held { 0.955 } else { 1.2 }).clamp(1_000.0, 1_000_000.0);
                *next = nursery.spawn("receive");
            }
        }
        assert!(nursery.kill(producer).0, "the producer has ended");
        producers += 1;
        if let Some(frame) = last {
            assert!(is_whole(&frame.buffer, frame.info.sequence), "a frame of producer {producers} has changed");
            held_on += 1;
        }
        for pid in doomed {
            nursery.kill(pid);
        }
    }
    drop(nursery);
    println!(
        "{killed} consumers killed, {with_frames} with frames; {producers} producers, of {held_on} a frame was held"
    );
    assert!(with_frames > killed * 7 / 10, "only {with_frames} of {killed} consumers held a frame");
    assert!(held_on > producers / 2, "of {held_on} producers of {producers} a frame was held");
    for ending in ["", ".lock"] {
        let _ = std::fs::remove_file(format!("{}{ending}", socket.display()));
    }
    // The kernel takes apart what a killed process had after it has told of its end.
    let begin = Instant::now();
    while Footprint::now() != before && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(Footprint::now(), before);
}
