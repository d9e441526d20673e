//! SIGKILL at random moments: of consumers, after which the producer has everything back, and of producers, after which
//! a consumer still has what it got.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shrbuf::ipc::{Connection, IpcError, Next, Options, Policy, Wishes};

use crate::c_client::client;
use crate::child::spawn;
use crate::common::{Descriptors, account, one_segment, random};
use crate::source::{PATIENCE, Source, number, options, socket};

const CONSUMERS: usize = 1000;
const PRODUCERS: usize = 1000;
/// Consumers at the same time.
const TOGETHER: usize = 6;
/// Producers at the same time, each with a consumer on a thread of its own.
const THREADS: usize = 4;
const SEED: u64 = 0x2545_f491_4f6c_dd1d;

/// How long they live at most: as long as it takes that nine of ten hold a frame when they die, on a machine of any speed.
struct Lives(f64);

impl Lives {
    fn new() -> Lives {
        Lives(60_000.0)
    }

    fn next(&self, random: &mut impl FnMut(u64) -> u64) -> Duration {
        Duration::from_micros(random(self.0 as u64))
    }

    fn ended(&mut self, with_frames: bool) {
        self.0 = (self.0 * if with_frames { 0.98 } else { 1.2 }).clamp(1_000.0, 5_000_000.0);
    }
}

/// Mappings of the memory that frames come in.
fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|l| l.contains("ipc-test")).count()
}

/// Bytes of shared memory that are mapped and present.
fn shared_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("RssShmem:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// KiB of shared memory of the whole machine, memfds among it whoever holds them.
fn shmem_kib() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = info.lines().find(|l| l.starts_with("Shmem:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn killed_consumers_give_back_all_they_held() {
    let path = socket("kill-consumers");
    let descriptors = Descriptors::count();
    let memory = shared_kib();
    let mut random = random(SEED);
    let buffers = TOGETHER * 2 + 3;
    // They die faster than anybody would have to start them anew.
    let limits = Options { arrivals: 1_000_000, ..options(TOGETHER as u32, 2, Policy::Latest) };
    let mut source = Source::new(&path, limits, buffers);
    let listening = Descriptors::open_now();
    let (mut killed, mut with_frames, mut lives) = (0, 0, Lives::new());
    let mut running: Vec<(std::process::Child, Instant)> = Vec::new();
    source.send_until(|source| {
        while running.len() < TOGETHER && killed + running.len() < CONSUMERS {
            // From before it has connected to well after its first frames.
            let due = Instant::now() + lives.next(&mut random);
            running.push((spawn("forever", &socket("kill-consumers")), due));
        }
        let now = Instant::now();
        running.retain_mut(|(child, due)| {
            if *due > now {
                return true;
            }
            let out = source.pool.idle() < buffers;
            lives.ended(out);
            with_frames += usize::from(out);
            kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL).unwrap();
            child.wait().unwrap();
            killed += 1;
            false
        });
        killed == CONSUMERS
    });
    source.until(|s| s.pool.idle() == buffers);
    assert_eq!(source.producer.counts().refused, 0, "a kill is nothing that a peer has done wrong");
    assert!(with_frames > CONSUMERS / 10, "only {with_frames} of {killed} held frames");
    assert_eq!(Descriptors::open_now(), listening);
    println!("{killed} consumers killed, {with_frames} while frames were out, {} frames sent", source.sent);
    assert!(mappings() <= buffers, "the producer has mapped something for its consumers");
    drop(source);
    assert_eq!((mappings(), shared_kib()), (0, memory));
    descriptors.assert_same();
}

/// Kills so many producers one after the other; how many frames were held as they died.
fn kill_producers(path: &Path, count: usize, mut random: impl FnMut(u64) -> u64) -> usize {
    let account = account();
    let (mut kept, mut lives) = (0, Lives::new());
    for _ in 0..count {
        let mut producer = spawn("produce", path);
        let due = Instant::now() + lives.next(&mut random);
        let mut consumer = loop {
            match Connection::open(path, &Wishes::default(), PATIENCE) {
                Ok(connection) => break connection.start().ok(),
                Err(IpcError::NoProducer { .. }) if Instant::now() < due => {
                    std::thread::sleep(Duration::from_millis(1))
                }
                Err(_) => break None,
            }
        };
        let mut held = Vec::new();
        if let Some(consumer) = &mut consumer {
            while Instant::now() < due {
                if let Ok(Next::Frame(frame)) = consumer.wait(due.saturating_duration_since(Instant::now())) {
                    held.insert(0, frame);
                    held.truncate(2);
                }
            }
        }
        kill(Pid::from_raw(producer.id() as i32), Signal::SIGKILL).unwrap();
        producer.wait().unwrap();
        lives.ended(!held.is_empty());
        for frame in &held {
            assert_eq!(number(&frame.buffer, &account), frame.info.sequence);
            kept += 1;
        }
        // What had come is still to be had, then the end is told, once.
        while let Some(consumer) = &mut consumer {
            held.clear();
            match consumer.wait(PATIENCE) {
                Ok(Next::Frame(frame)) => assert_eq!(number(&frame.buffer, &account), frame.info.sequence),
                Ok(other) => panic!("{other:?} of a producer that was killed"),
                Err(IpcError::Gone) => break,
                Err(e) => panic!("{e}"),
            }
        }
    }
    remove(path);
    kept
}

/// What a killed producer leaves.
fn remove(path: &Path) {
    for ending in ["", ".lock", ".new"] {
        let mut left = path.as_os_str().to_owned();
        left.push(ending);
        let _ = std::fs::remove_file(left);
    }
}

#[test]
fn frames_of_a_killed_producer_stay_valid() {
    let descriptors = Descriptors::count();
    let (memory, machine) = (shared_kib(), shmem_kib());
    let threads: Vec<_> = (0..THREADS)
        .map(|i| {
            let path = socket(&format!("kill-producers-{i}"));
            std::thread::spawn(move || kill_producers(&path, PRODUCERS / THREADS, random(SEED + i as u64)))
        })
        .collect();
    let kept: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
    assert!(kept > PRODUCERS, "only {kept} frames were held as {PRODUCERS} producers died");
    println!("{PRODUCERS} producers killed, {kept} frames held");
    assert_eq!(mappings(), 0);
    assert_eq!(shared_kib(), memory);
    descriptors.assert_same();
    // Others use the machine too: a fourth of what the producers had is well above what they may do meanwhile.
    let leaked = PRODUCERS as u64 * 8 * one_segment().segment_size(0) / 1024;
    let begin = Instant::now();
    while shmem_kib() > machine + leaked / 4 {
        assert!(begin.elapsed() < PATIENCE, "{} KiB of shared memory more than before", shmem_kib() - machine);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A producer that dies after so many frames, and whose child has its pipe's end for writing.
struct Leaking {
    producer: Child,
    said: BufReader<ChildStdout>,
}

impl Leaking {
    fn start(path: &Path, frames: u64) -> Leaking {
        let mut producer = spawn(&format!("leak {frames}"), path);
        let said = BufReader::new(producer.stdout.take().unwrap());
        let mut leaking = Leaking { producer, said };
        assert_eq!(leaking.says(), "listens");
        leaking
    }

    fn says(&mut self) -> String {
        let lines = (&mut self.said).lines().map(Result::unwrap);
        lines.filter_map(|line| line.strip_prefix('>').map(str::to_owned)).next().unwrap()
    }

    /// Waits until it is dead: its heir, which is ended as that is dropped.
    fn dies(mut self) -> Heir {
        let heir = Heir(Pid::from_raw(self.says().parse().unwrap()));
        self.producer.wait().unwrap();
        heir
    }
}

struct Heir(Pid);

impl Drop for Heir {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

#[test]
fn a_producer_that_died_is_noticed_though_its_child_has_the_pipe() {
    const FRAMES: u64 = 3;
    let _alone = Descriptors::count();
    let path = socket("leak");
    for policy in [Policy::Block, Policy::Latest] {
        let leaking = Leaking::start(&path, FRAMES);
        let wishes = Wishes { policy: Some(policy), ..Wishes::default() };
        let mut consumer = Connection::open(&path, &wishes, PATIENCE).unwrap().start().unwrap();
        let heir = leaking.dies();
        let begin = Instant::now();
        let mut last = None;
        let error = loop {
            match consumer.wait(PATIENCE) {
                Ok(Next::Frame(frame)) => last = Some(frame.info.sequence),
                Ok(other) => panic!("{other:?} of a producer that was killed"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, IpcError::Gone), "{error}");
        assert_eq!((last, consumer.received() + consumer.skipped()), (Some(FRAMES - 1), FRAMES));
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        drop(heir);
    }
    remove(&path);
}

#[test]
fn the_client_in_c_notices_that_too() {
    let _alone = Descriptors::count();
    let path = socket("leak-c");
    let leaking = Leaking::start(&path, 3);
    let mut client = std::process::Command::new(client());
    let client = client.arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let heir = leaking.dies();
    let begin = Instant::now();
    let output = client.wait_with_output().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!((output.status.code(), output.stdout.split(|&b| b == b'\n').count()), (Some(1), 4));
    assert!(String::from_utf8_lossy(&output.stderr).ends_with(": the producer has gone\n"), "{output:?}");
    drop(heir);
    remove(&path);
}
