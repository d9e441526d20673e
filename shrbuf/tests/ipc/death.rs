//! SIGKILL at random moments: of consumers, after which the producer has everything back, and of producers, after which
//! a consumer still has what it got.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shrbuf::ipc::{Connection, IpcError, Next, Policy, Wishes};

use crate::child::spawn;
use crate::common::{Descriptors, account};
use crate::source::{PATIENCE, Source, number, options, socket};

const CONSUMERS: usize = 900;
const PRODUCERS: usize = 100;
/// At the same time.
const TOGETHER: usize = 6;

/// Numbers without a pattern, the same in each run (xorshift).
fn random() -> impl FnMut(u64) -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

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

#[test]
fn killed_consumers_give_back_all_they_held() {
    let path = socket("kill-consumers");
    let descriptors = Descriptors::count();
    let memory = shared_kib();
    let mut random = random();
    let buffers = TOGETHER * 2 + 3;
    let mut source = Source::new(&path, options(TOGETHER as u32, 2, Policy::Latest), buffers);
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

#[test]
fn frames_of_a_killed_producer_stay_valid() {
    let path = socket("kill-producers");
    let descriptors = Descriptors::count();
    let memory = shared_kib();
    let mut random = random();
    let account = account();
    let (mut kept, mut killed, mut lives) = (0, 0, Lives::new());
    while killed < PRODUCERS {
        let mut producer = spawn("produce", &path);
        let due = Instant::now() + lives.next(&mut random);
        let connected = loop {
            match Connection::open(&path, &Wishes::default(), PATIENCE) {
                Ok(connection) => break connection.start().ok(),
                Err(IpcError::NoProducer { .. }) if Instant::now() < due => {
                    std::thread::sleep(Duration::from_millis(1))
                }
                Err(_) => break None,
            }
        };
        let mut held = Vec::new();
        let mut consumer = connected;
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
        killed += 1;
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
    let _ = std::fs::remove_file(&path);
    assert!(kept > PRODUCERS, "only {kept} frames were held as {killed} producers died");
    println!("{killed} producers killed, {kept} frames held");
    assert_eq!(mappings(), 0);
    assert_eq!(shared_kib(), memory);
    let mut lock = path.into_os_string();
    lock.push(".lock");
    let _ = std::fs::remove_file(lock);
    descriptors.assert_same();
}
