//! A producer of small frames, each marked with its number at both ends.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use shrbuf::exporter::Memfd;
use shrbuf::ipc::{Announced, FrameInfo, Options, Policy, Producer};
use shrbuf::{Account, Pool, Shrbuf, State};

use crate::child::said;
use crate::common::{account, one_segment};

/// Longest time that anything here may take; only a test that fails reaches it.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Source {
    pub producer: Producer,
    pub pool: Pool,
    pub sent: u64,
    account: Account,
}

/// A path of its own for a test's socket, short enough for one.
pub fn socket(test: &str) -> PathBuf {
    std::env::temp_dir().join(format!("shrbuf-{}-{test}", std::process::id()))
}

pub fn options(consumers: u32, window: u32, policy: Policy) -> Options {
    Options { consumers, window, policy, ..Options::default() }
}

impl Source {
    pub fn new(path: &Path, options: Options, buffers: usize) -> Source {
        let memory = Memfd::new("ipc-test");
        let buffers: Vec<Shrbuf> = (0..buffers).map(|_| memory.allocate(&one_segment()).unwrap()).collect();
        let announced = buffers.iter().map(|b| Announced::of(b).unwrap()).collect();
        let producer = Producer::bind(path, options, announced, Some((60, 1))).unwrap();
        Source { producer, pool: Pool::new(buffers, |_| {}).unwrap(), sent: 0, account: account() }
    }

    /// Sends one frame, if there is a buffer for it.
    pub fn send(&mut self) -> bool {
        let Some(mut buffer) = self.pool.acquire() else { return false };
        mark(&mut buffer, self.sent, &self.account);
        buffer.set_state(State::Filled);
        let info = FrameInfo { sequence: self.sent, timestamp: 1 + self.sent, ..FrameInfo::default() };
        self.producer.send(&buffer, &info).unwrap();
        self.sent += 1;
        true
    }

    /// Sends so many frames at 60 a second, from `begin` on, with the time as their time stamps; how long that took.
    pub fn at_60(&mut self, begin: Instant, frames: u32) -> Duration {
        for tick in 1..=frames {
            let buffer = self.pool.acquire().expect("a buffer for each tick");
            buffer.set_state(State::Filled);
            let info = FrameInfo { sequence: self.sent, timestamp: crate::child::now(), ..FrameInfo::default() };
            self.producer.send(&buffer, &info).unwrap();
            self.sent += 1;
            drop(buffer);
            let due = begin + Duration::from_secs(1) * tick / 60;
            while let Some(left) = due.checked_duration_since(Instant::now()) {
                self.producer.wait(Some(left)).unwrap();
            }
        }
        begin.elapsed()
    }

    /// Deals with consumers until `done`.
    ///
    /// # Panics
    /// Where that takes too long.
    pub fn until(&mut self, done: impl Fn(&Source) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(begin.elapsed() < PATIENCE, "waited too long: {:?}, {:?}", self.producer, self.pool);
            self.producer.wait(Some(Duration::from_millis(10))).unwrap();
        }
    }

    /// Serves a child until it has ended, well; what it said.
    pub fn said(&mut self, mut child: Child) -> String {
        let begin = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(begin.elapsed() < PATIENCE, "a child does not end: {:?}, {:?}", self.producer, self.pool);
            self.producer.wait(Some(Duration::from_millis(5))).unwrap();
        }
        said(child)
    }

    /// Sends as fast as buffers come back until `done`.
    ///
    /// # Panics
    /// Where that takes too long.
    pub fn send_until(&mut self, mut done: impl FnMut(&Source) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(begin.elapsed() < 2 * PATIENCE, "took too long: {:?}, {:?}", self.producer, self.pool);
            let wait = if self.send() { Duration::ZERO } else { Duration::from_millis(10) };
            self.producer.wait(Some(wait)).unwrap();
        }
    }
}

/// Writes a frame's number into its first and last row.
pub fn mark(buffer: &mut Shrbuf, number: u64, account: &Account) {
    let mut guard = buffer.write().unwrap();
    let mut plane = guard.plane(0);
    for y in [0, plane.rows() - 1] {
        plane.write(y, 0, &number.to_ne_bytes(), account);
    }
}

/// A frame's number, which both rows have to agree on.
pub fn number(buffer: &Shrbuf, account: &Account) -> u64 {
    let guard = buffer.read().unwrap();
    let plane = guard.plane(0);
    let [first, last] = [0, plane.rows() - 1].map(|y| {
        let mut bytes = [0; 8];
        plane.read(y, 0, &mut bytes, account);
        u64::from_ne_bytes(bytes)
    });
    assert_eq!(first, last, "the buffer was written while it was held");
    first
}
