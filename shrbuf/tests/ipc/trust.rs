//! Who may connect, and to what.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv};
use shrbuf::ipc::{Connection, IpcError, Monitor, Options, Policy, Producer, Wishes};

use crate::child::spawn;
use crate::common::{Descriptors, with_descriptors_left};
use crate::fake::words;
use crate::hostile::{READY, START, STOP, greeted, greeting};
use crate::source::{PATIENCE, Source, options, socket};

#[test]
fn the_socket_has_the_mode_asked_for() {
    let _alone = Descriptors::count();
    let path = socket("mode");
    let _source = Source::new(&path, Options { mode: 0o620, ..Options::default() }, 1);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
}

fn refusal(test: &str, options: Options) -> String {
    let _alone = Descriptors::count();
    let path = socket(test);
    let mut source = Source::new(&path, options, 2);
    let mut child = spawn("refused", &path);
    source.until(|s| s.producer.counts().refused == 1);
    assert!(child.wait().unwrap().success());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stdout.unwrap(), &mut text).unwrap();
    text
}

#[test]
fn a_user_who_is_not_on_the_list_is_told_so() {
    let nobody = fs::metadata("/proc/self").unwrap().uid() + 1;
    let said = refusal("users", Options { users: vec![nobody], ..Options::default() });
    assert!(said.contains(">NotAllowed"), "{said}");
}

#[test]
fn a_user_who_is_on_the_list_gets_frames() {
    let _alone = Descriptors::count();
    let path = socket("listed");
    let me = fs::metadata("/proc/self").unwrap().uid();
    let users = vec![me + 1, me];
    let mut source = Source::new(&path, Options { users, ..options(1, 2, Policy::Block) }, 4);
    let child = spawn("consume 10 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == 10);
    assert_eq!(source.said(child), "10 0 0");
}

/// CPU that this thread has used.
fn cpu() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

#[test]
fn those_who_connect_again_and_again_are_slowed_and_the_frames_are_not() {
    let descriptors = Descriptors::count();
    let path = socket("knock");
    // As many buffers as can be, of each of which whoever connects is told.
    let limits = Options { arrivals: 100, ..options(2, 2, Policy::Block) };
    let mut source = Source::new(&path, limits, 64);
    let good = spawn("ages 180", &path);
    source.until(|s| s.producer.consumers() == 1);
    let begin = Instant::now();
    let knocking: Vec<_> = (0..3).map(|_| spawn("knock 3000", &path)).collect();
    let (before, sending) = (cpu(), Instant::now());
    let sent = source.at_60(sending, 180);
    let used = cpu() - before;
    let good: Vec<u64> = source.said(good).split(' ').map(|n| n.parse().unwrap()).collect();
    let welcomed: u64 = knocking.into_iter().map(|k| source.said(k).parse::<u64>().unwrap()).sum();
    let allowed = 12 + 100 * (begin.elapsed().as_secs() + 1);
    println!("{welcomed} of {allowed} welcomed, {used:?} of {sent:?} used, frames came {good:?} µs late");
    assert!(welcomed <= allowed, "{welcomed} welcomed, {allowed} allowed");
    // However many come, they get as much of this thread, and no more.
    assert!(used < sent / 4, "{used:?} of {sent:?}");
    assert!((3000..3200).contains(&sent.as_millis()), "{sent:?}");
    assert!(good[0] == 180 && good[1] < 16_000, "{good:?}");
    let refused = source.producer.counts().refused;
    assert!(refused > 50, "only {refused} were sent away");
    source.until(|s| s.pool.idle() == 64);
    drop(source);
    descriptors.assert_same();
}

#[test]
fn whoever_is_sent_away_for_it_may_come_later() {
    let _alone = Descriptors::count();
    let path = socket("later");
    let mut source = Source::new(&path, Options { arrivals: 20, ..options(1, 2, Policy::Block) }, 4);
    let burst: Vec<_> = (0..11).map(|_| crate::hostile::raw(&path)).collect();
    // Five were taken, of which more gave way to later ones, and the last came beyond the burst.
    source.until(|s| s.producer.counts().refused == 6);
    let child = spawn("consume 10 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == 10);
    assert_eq!(source.said(child), "10 0 0");
    drop(burst);
}

#[test]
fn one_consumer_too_many_is_told_so_and_the_first_stays() {
    let _alone = Descriptors::count();
    let path = socket("full");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 4);
    let first = spawn("consume 100 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    let second = spawn("refused", &path);
    source.until(|s| s.producer.counts().refused == 1);
    assert_eq!(source.said(second), "Full");
    source.send_until(|s| s.sent == 100);
    assert_eq!(source.said(first), "100 0 0");
}

#[test]
fn connections_that_say_nothing_keep_nobody_out() {
    let _alone = Descriptors::count();
    let path = socket("silent");
    let mut source = Source::new(&path, options(2, 2, Policy::Block), 4);
    let silent: Vec<_> = (0..8).map(|_| crate::hostile::raw(&path)).collect();
    source.until(|s| s.producer.counts().refused == 2);
    let good = spawn("consume 10 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == 10);
    assert_eq!(source.said(good), "10 0 0");
    drop(silent);
}

#[test]
fn connections_that_take_the_buffers_and_no_more_keep_nobody_out() {
    let _alone = Descriptors::count();
    let path = socket("told");
    let mut source = Source::new(&path, options(2, 2, Policy::Block), 4);
    let told: Vec<_> = (0..3).map(|_| crate::hostile::greeting(&path)).collect();
    source.until(|s| s.producer.counts().refused == 1);
    let good = spawn("consume 10 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == 10);
    assert_eq!(source.said(good), "10 0 0");
    drop(told);
}

#[test]
fn without_descriptors_a_producer_refuses_and_goes_on() {
    let _alone = Descriptors::count();
    let path = socket("descriptors");
    let mut source = Source::new(&path, options(2, 2, Policy::Block), 4);
    let good = spawn("consume 10 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    let refused = spawn("gone", &path);
    with_descriptors_left(0, || source.until(|s| s.producer.counts().refused == 1));
    source.said(refused);
    source.send_until(|s| s.sent == 10);
    assert_eq!(source.said(good), "10 0 0");
    source.until(|s| s.producer.consumers() == 0);
    let next = spawn("consume 10 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == 20);
    assert_eq!(source.said(next), "10 0 0");
}

#[test]
fn who_comes_when_descriptors_run_out_for_its_channel_is_told_so() {
    let _alone = Descriptors::count();
    let path = socket("channel");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 4);
    // There is one for its socket, then for its page, and for one end of its pipe.
    for spare in 1..=3 {
        let refused = spawn("refused", &path);
        with_descriptors_left(spare, || source.until(|s| s.producer.counts().refused == spare as u64));
        assert_eq!(source.said(refused), "Resources", "{spare}");
    }
    let child = spawn("consume 10 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == 10);
    assert_eq!(source.said(child), "10 0 0");
}

#[test]
fn memory_is_passed_for_reading_only() {
    let _alone = Descriptors::count();
    let path = socket("write");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 2);
    let child = spawn("write", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send();
    source.said(child);
}

#[test]
fn two_producers_cannot_have_one_socket() {
    let descriptors = Descriptors::count();
    let path = socket("twice");
    let source = Source::new(&path, Options::default(), 1);
    let announced = || vec![];
    let second = Producer::bind(&path, Options::default(), announced(), None);
    assert!(matches!(second.unwrap_err(), IpcError::Options(_)));
    let buffer = shrbuf::exporter::Memfd::new("second").allocate(&crate::common::one_segment()).unwrap();
    let announced = vec![shrbuf::ipc::Announced::of(&buffer).unwrap()];
    let second = Producer::bind(&path, Options::default(), announced, None);
    assert!(matches!(second.unwrap_err(), IpcError::InUse { .. }));
    assert!(path.exists());
    drop((source, buffer));
    descriptors.assert_same();
}

#[test]
fn leftovers_of_a_killed_producer_are_replaced() {
    let _alone = Descriptors::count();
    let path = socket("stale");
    let mut killed = spawn("produce", &path);
    while !path.exists() || Monitor::open(&path, PATIENCE).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(path.exists(), "SIGKILL leaves the socket");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 2);
    let child = spawn("consume 10 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == 10);
    assert_eq!(source.said(child), "10 0 0");
}

#[test]
fn a_file_in_the_way_is_left_alone() {
    let _alone = Descriptors::count();
    let path = socket("file");
    fs::write(&path, "mine").unwrap();
    let buffer = shrbuf::exporter::Memfd::new("file").allocate(&crate::common::one_segment()).unwrap();
    let announced = vec![shrbuf::ipc::Announced::of(&buffer).unwrap()];
    let bound = Producer::bind(&path, Options::default(), announced, None);
    assert!(matches!(bound.unwrap_err(), IpcError::Taken { .. }));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    fs::remove_file(&path).unwrap();
}

#[test]
fn nobody_there_is_told_at_once() {
    let _alone = Descriptors::count();
    let none = Connection::open(&socket("none"), &Wishes::default(), PATIENCE);
    assert!(matches!(none.unwrap_err(), IpcError::NoProducer { .. }));
}

#[test]
fn a_producer_that_does_not_answer_is_given_up_when_the_caller_says() {
    let _alone = Descriptors::count();
    let path = socket("mute");
    let _mute = Source::new(&path, Options::default(), 1);
    let late = Connection::open(&path, &Wishes::default(), Duration::from_millis(50));
    assert!(matches!(late.unwrap_err(), IpcError::Late { .. }));
}

#[test]
fn connecting_is_given_up_as_soon_as_the_caller_is_told_to() {
    let _alone = Descriptors::count();
    let path = socket("told");
    let hour = Duration::from_secs(3600);
    let (told, tell) = nix::unistd::pipe().unwrap();
    let open = || Connection::open_unless(&path, &Wishes::default(), hour, told.as_fd()).unwrap_err();
    let mute = Source::new(&path, Options::default(), 1);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(open);
        // It waits, or will.
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        nix::unistd::write(&tell, &[0]).unwrap();
        assert!(matches!(waiting.join().unwrap(), IpcError::Stopped));
    });
    drop(mute);
    // Where not even a connection is to be had: the queue is full.
    let _full = crate::fake::listener(&path);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let connect = || {
        let fd = nix::sys::socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        connect(fd.as_raw_fd(), &UnixAddr::new(&path).unwrap()).map(|()| fd)
    };
    let queue: Vec<_> = std::iter::from_fn(|| connect().ok()).take(100).collect();
    assert_eq!(connect().err(), Some(nix::Error::EAGAIN));
    assert!(matches!(open(), IpcError::Stopped));
    drop(queue);
    fs::remove_file(&path).unwrap();
}

/// A consumer that has started, stopped and died, of which the producer has read nothing but that it is one.
fn dead(source: &mut Source, path: &Path, meanwhile: impl FnOnce(&mut Source)) {
    let peer = [greeting(path)];
    source.until(|_| greeted(&peer) == 1);
    // One that has not read all that there was for it would be found out at once.
    while recv(peer[0].as_raw_fd(), &mut [0; 640], MsgFlags::MSG_DONTWAIT).is_ok() {}
    meanwhile(source);
    for message in [words(&[READY, 4]), words(&[START]), words(&[STOP])] {
        nix::unistd::write(&peer[0], &message).unwrap();
    }
}

#[test]
fn a_consumer_that_has_died_keeps_nobody_out_though_it_is_not_read_to_its_end() {
    let descriptors = Descriptors::count();
    let path = socket("dead");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 4);
    dead(&mut source, &path, |_| {});
    let next = [greeting(&path)];
    source.until(|_| greeted(&next) == 1);
    assert_eq!(said(&next[0]), WELCOME);
    assert_eq!(source.producer.counts().refused, 0);
    drop((next, source));
    descriptors.assert_same();
}

#[test]
fn a_consumer_that_has_died_keeps_nobody_from_connecting_either() {
    let descriptors = Descriptors::count();
    let path = socket("dead-full");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 4);
    let mut monitors = Vec::new();
    // As many as there may be beside consumers.
    dead(&mut source, &path, |source| {
        monitors.extend((0..4).map(|_| Monitor::open(&path, PATIENCE).unwrap()));
        (0..20).for_each(|_| source.producer.wait(Some(Duration::from_millis(1))).unwrap());
    });
    let next = [greeting(&path)];
    source.until(|_| greeted(&next) == 1);
    assert_eq!(said(&next[0]), WELCOME);
    drop((monitors, next, source));
    descriptors.assert_same();
}

const WELCOME: u32 = 0x81;

/// The type of what the producer has said first.
fn said(peer: &OwnedFd) -> u32 {
    let mut kind = [0; 4];
    recv(peer.as_raw_fd(), &mut kind, MsgFlags::empty()).unwrap();
    u32::from_ne_bytes(kind)
}

#[test]
fn a_monitor_sees_who_holds_what() {
    let _alone = Descriptors::count();
    let path = socket("monitor");
    let mut source = Source::new(&path, options(3, 2, Policy::DropOldest), 6);
    let mut holder = spawn("hold", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send();
    source.send();
    source.send();
    let asked = std::thread::spawn(move || Monitor::open(&path, PATIENCE).unwrap().ask(PATIENCE).unwrap());
    source.until(|_| asked.is_finished());
    let status = asked.join().unwrap();
    assert_eq!((status.pid, status.buffers, status.frames), (std::process::id(), 6, 3));
    assert_eq!(status.consumers.len(), 1);
    let consumer = &status.consumers[0];
    assert_eq!((consumer.pid, consumer.held(), consumer.sent, consumer.pending), (holder.id(), 2, 2, 1));
    assert!(consumer.held_since.iter().all(|&since| since == 0 || (status.since..=status.now).contains(&since)));
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_monitor_is_told_of_more_consumers_than_its_socket_has_room_for() {
    const CONSUMERS: usize = 300;
    let descriptors = Descriptors::count();
    let path = socket("monitor-many");
    let mut source = Source::new(&path, options(CONSUMERS as u32, 1, Policy::Block), 1);
    let mut told = Vec::new();
    while told.len() < CONSUMERS {
        // No more than wait to be taken, or the next would wait for us.
        let more = (CONSUMERS - told.len()).min(16);
        told.extend((0..more).map(|_| crate::hostile::greeting(&path)));
        let all = told.len();
        let begin = Instant::now();
        while crate::hostile::greeted(&told[all - more..]) < more {
            assert!(begin.elapsed() < PATIENCE);
            source.producer.wait(Some(Duration::from_millis(1))).unwrap();
        }
    }
    let asked = std::thread::spawn(move || {
        let mut monitor = Monitor::open(&path, PATIENCE).unwrap();
        let first = monitor.ask(PATIENCE).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        (first, monitor.ask(PATIENCE).unwrap())
    });
    source.until(|_| asked.is_finished());
    let (first, second) = asked.join().unwrap();
    assert_eq!((first.consumers.len(), second.consumers.len()), (CONSUMERS, CONSUMERS));
    assert!(first.consumers.windows(2).all(|two| two[0].id < two[1].id));
    drop((told, source));
    descriptors.assert_same();
}

#[test]
fn a_monitor_that_asks_too_often_is_sent_away() {
    let _alone = Descriptors::count();
    let path = socket("often");
    let mut source = Source::new(&path, Options::default(), 1);
    let asked = std::thread::spawn(move || {
        let mut monitor = Monitor::open(&path, PATIENCE).unwrap();
        (0..1000).find_map(|_| monitor.ask(PATIENCE).err()).map(|e| e.to_string())
    });
    source.until(|_| asked.is_finished());
    let said = asked.join().unwrap().unwrap();
    assert!(said.contains("more often than allowed"), "{said}");
}

#[test]
fn one_monitor_more_than_there_may_be_is_told_so_and_all_of_the_producers_end() {
    let _alone = Descriptors::count();
    let path = socket("monitors");
    let mut source = Source::new(&path, Options::default(), 1);
    let asking = std::thread::spawn(move || {
        let mut all: Vec<Monitor> = (0..4).map(|_| Monitor::open(&path, PATIENCE).unwrap()).collect();
        all.iter_mut().for_each(|monitor| drop(monitor.ask(PATIENCE).unwrap()));
        let fifth = Monitor::open(&path, PATIENCE).unwrap().ask(PATIENCE).unwrap_err();
        (all, fifth.to_string())
    });
    source.until(|_| asking.is_finished());
    let (mut all, fifth) = asking.join().unwrap();
    assert!(fifth.contains("it has as many consumers, or monitors, as it takes"), "{fifth}");
    drop(source);
    for monitor in &mut all {
        let end = monitor.ask(PATIENCE).unwrap_err();
        assert!(matches!(end, IpcError::Unanswered { .. }) && !end.to_string().contains("frames"), "{end}");
    }
}
