//! What arrives, and what does not where a consumer lags.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shrbuf::State;
use shrbuf::exporter::Memfd;
use shrbuf::ipc::{Connection, FrameInfo, IpcError, Policy, Wishes};

use crate::child::spawn;
use crate::common::{Descriptors, account, one_segment};
use crate::source::{PATIENCE, Source, mark, options, socket};

/// `received dropped skipped`.
fn counts(said: &str) -> [u64; 3] {
    let all: Vec<u64> = said.split(' ').map(|n| n.parse().unwrap()).collect();
    all.try_into().unwrap()
}

#[test]
fn a_consumer_that_blocks_gets_every_frame() {
    let descriptors = Descriptors::count();
    let path = socket("block");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 4);
    let child = spawn("consume 2000 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == 2000);
    let said = source.said(child);
    source.until(|s| s.pool.idle() == 4);
    assert_eq!(counts(&said), [2000, 0, 0]);
    let counts = source.producer.counts();
    assert_eq!((counts.frames, counts.sent, counts.dropped, counts.refused), (2000, 2000, 0, 0));
    drop(source);
    descriptors.assert_same();
    assert!(!path.exists() && !path.with_extension("lock").exists());
}

fn a_slow_consumer(test: &str, policy: Policy) -> [u64; 3] {
    let _alone = Descriptors::count();
    let path = socket(test);
    let mut source = Source::new(&path, options(1, 2, policy), 8);
    let child = spawn("consume 1000000 3000", &path);
    source.until(|s| s.producer.consumers() == 1);
    for _ in 0..300 {
        assert!(source.send(), "a consumer that lags has taken every buffer");
        source.producer.wait(Some(Duration::from_millis(1))).unwrap();
    }
    source.producer.end();
    let [received, dropped, skipped] = counts(&source.said(child));
    let counts = source.producer.counts();
    assert_eq!((counts.sent, counts.dropped), (received + skipped, dropped), "{counts:?}");
    assert!(counts.dropped > 50, "{counts:?}");
    assert_eq!(counts.sent + counts.dropped, 300);
    [received, dropped, skipped]
}

#[test]
fn latest_drops_what_waited_and_both_sides_count_it() {
    a_slow_consumer("latest", Policy::Latest);
}

#[test]
fn drop_oldest_drops_and_both_sides_count_it() {
    let [.., skipped] = a_slow_consumer("oldest", Policy::DropOldest);
    assert_eq!(skipped, 0);
}

#[test]
fn a_stopped_consumer_harms_no_other() {
    let _alone = Descriptors::count();
    let path = socket("stop");
    // What two may hold, and what waits.
    let mut source = Source::new(&path, options(2, 2, Policy::DropOldest), 4 + 2 + 1);
    let mut stopped = spawn("hold", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send();
    kill(Pid::from_raw(stopped.id() as i32), Signal::SIGSTOP).unwrap();
    let good = spawn("consume 500 0", &path);
    source.until(|s| s.producer.consumers() == 2);
    let before = source.sent;
    // Each frame waits for its consumer, so that a drop would be the stopped one's doing.
    while source.sent < before + 500 {
        let sent = source.producer.counts().sent;
        assert!(source.send(), "the stopped consumer has taken the buffers of the other");
        source.until(|s| s.producer.counts().sent > sent);
    }
    assert_eq!(counts(&source.said(good)), [500, 0, 0]);
    source.until(|s| s.producer.consumers() < 2);
    assert_eq!(source.producer.consumers(), 1, "nobody takes anything from one that is only stopped");
    kill(Pid::from_raw(stopped.id() as i32), Signal::SIGKILL).unwrap();
    stopped.wait().unwrap();
    source.until(|s| s.pool.idle() == 7);
}

#[test]
fn thirty_two_consumers_at_60_frames_a_second() {
    let _alone = Descriptors::count();
    let path = socket("many");
    let mut source = Source::new(&path, options(32, 1, Policy::Block), 40);
    let children: Vec<_> = (0..32).map(|_| spawn("ages 180", &path)).collect();
    source.until(|s| s.producer.consumers() == 32);
    let begin = Instant::now();
    let sent = source.at_60(begin, 180);
    let all: Vec<_> = children.into_iter().map(|c| counts(&source.said(c))).collect();
    let median = all.iter().map(|[_, median, _]| median).max().unwrap();
    let oldest = all.iter().map(|[_, _, oldest]| oldest).max().unwrap();
    println!("180 frames for 32 consumers in {sent:?}; the latest median {median} µs, the oldest frame {oldest} µs");
    assert!((3000..3200).contains(&sent.as_millis()), "{sent:?}");
    assert!(all.iter().all(|[received, ..]| *received == 180), "{all:?}");
    // Each gets a frame before the next is due; the whole machine may stop for a moment, in which nobody gets any.
    assert!(*median < 16_000 && *oldest < 500_000, "{median} µs, {oldest} µs");
}

#[test]
fn a_state_that_changes_later_crosses_too() {
    let _alone = Descriptors::count();
    let path = socket("state");
    let mut source = Source::new(&path, options(1, 1, Policy::Block), 1);
    let mut buffer = source.pool.acquire().unwrap();
    let child = spawn("state", &path);
    source.until(|s| s.producer.consumers() == 1);
    buffer.set_state(State::Filling);
    source.producer.send(&buffer, &FrameInfo::default()).unwrap();
    assert_eq!(source.producer.counts().sent, 1);
    mark(&mut buffer, 77, &account());
    buffer.set_state(State::Filled);
    source.producer.ready().unwrap();
    source.producer.end();
    assert_eq!(source.said(child), "filling");
}

#[test]
fn a_frame_of_a_buffer_unknown_is_refused() {
    let _alone = Descriptors::count();
    let mut source = Source::new(&socket("unknown"), options(1, 1, Policy::Block), 1);
    let other = Memfd::new("other").allocate(&one_segment()).unwrap();
    let sent = source.producer.send(&other, &FrameInfo::default());
    assert!(matches!(sent.unwrap_err(), IpcError::NotAnnounced(id) if id == other.id()));
}

#[test]
fn a_process_is_told_to_link_its_own_elements() {
    let _alone = Descriptors::count();
    let path = socket("self");
    let mut source = Source::new(&path, options(1, 1, Policy::Block), 1);
    let (opened, told) = std::sync::mpsc::channel();
    let client = {
        let path = path.clone();
        std::thread::spawn(move || opened.send(Connection::open(&path, &Wishes::default(), PATIENCE)).unwrap())
    };
    let result = loop {
        source.producer.wait(Some(Duration::from_millis(5))).unwrap();
        if let Ok(result) = told.try_recv() {
            break result;
        }
    };
    client.join().unwrap();
    let text = result.unwrap_err().to_string();
    assert!(text.ends_with("within one process, link the elements instead"), "{text}");
}
