//! Buffers that come back when they are needed, not before.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shrbuf::State;
use shrbuf::ipc::{FrameInfo, Monitor, Options, Policy, Returns};

use crate::child::spawn;
use crate::common::Descriptors;
use crate::source::{PATIENCE, Source, options, socket};

fn when_needed(policy: Policy) -> Options {
    Options { returns: Returns::WhenNeeded, ..options(1, 3, policy) }
}

/// Whether the producer is woken within 10 ms.
fn is_woken(source: &Source) -> bool {
    let mut fds = [PollFd::new(source.producer.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(10_u8)).unwrap() > 0
}

#[test]
fn a_buffer_given_back_wakes_nobody_and_a_consumers_end_does() {
    let _alone = Descriptors::count();
    let path = socket("needed");
    let mut source = Source::new(&path, when_needed(Policy::Block), 5);
    let mut child = spawn("consume 1000000 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    // One less than it may hold, so that nobody waits for it, however slow it is.
    for frame in 0..2 {
        assert!(source.send(), "no buffer for frame {frame}");
        assert!(!is_woken(&source), "woken after frame {frame}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    source.until(|s| s.pool.idle() == 5);
}

#[test]
fn a_state_wakes_the_producer_until_the_frame_is_filled_and_no_longer() {
    let _alone = Descriptors::count();
    let path = socket("wakes");
    let mut source = Source::new(&path, options(1, 1, Policy::Block), 2);
    let mut child = spawn("hold", &path);
    source.until(|s| s.producer.consumers() == 1);
    let buffer = source.pool.acquire().unwrap();
    for round in 0..3 {
        buffer.set_state(State::Filling);
        source.producer.send(&buffer, &FrameInfo::default()).unwrap();
        source.producer.ready().unwrap();
        assert!(!is_woken(&source), "{round}: woken before anything has changed");
        let mut woken = 0;
        for state in [State::Filled, State::Corrupt, State::Filled, State::Filling, State::Filled] {
            buffer.set_state(state);
            woken += usize::from(is_woken(&source));
            source.producer.ready().unwrap();
        }
        assert_eq!(woken, 1, "{round}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_consumer_that_lags_still_gets_every_frame() {
    let _alone = Descriptors::count();
    let path = socket("needed-lag");
    let mut source = Source::new(&path, when_needed(Policy::Block), 5);
    let child = spawn("consume 500 200", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == 500);
    assert_eq!(source.said(child), "500 0 0");
    source.until(|s| s.pool.idle() == 5);
}

#[test]
fn who_asks_is_told_what_is_held_now() {
    let _alone = Descriptors::count();
    let path = socket("needed-asked");
    let mut source = Source::new(&path, when_needed(Policy::Latest), 5);
    let mut child = spawn("consume 1000000 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    assert!(source.send() && source.send());
    let asked = std::thread::spawn(move || {
        let mut monitor = Monitor::open(&path, PATIENCE).unwrap();
        // However long the consumer takes; no more often than a monitor may ask.
        while monitor.ask(PATIENCE).unwrap().consumers[0].held() > 0 {
            std::thread::sleep(Duration::from_millis(25));
        }
    });
    source.until(|_| asked.is_finished());
    asked.join().unwrap();
    assert_eq!(source.pool.idle(), 5);
    child.kill().unwrap();
    child.wait().unwrap();
}
