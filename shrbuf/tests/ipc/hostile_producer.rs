//! Producers that do what none must: the consumer gets an error that says what, and keeps nothing.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{OFlag, SealFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, pipe2};
use shrbuf::ImportError;
use shrbuf::ipc::{Connection, IpcError, Next, VERSION, Wishes};

use crate::common::{Descriptors, opened_again};
use crate::fake::Packet::{self, Channel, Say, Write};
use crate::fake::{
    accept, act, buffer, bye, channel, frame, good, listener, memory, page, play, serve, state, welcome, words,
};
use crate::source::{PATIENCE, socket};

/// Consumes until an error, and keeps every frame until then.
fn consume(path: &Path) -> IpcError {
    let mut consumer = match Connection::open(path, &Wishes::default(), PATIENCE).and_then(Connection::start) {
        Ok(consumer) => consumer,
        Err(error) => return error,
    };
    let mut held = Vec::new();
    loop {
        match consumer.wait(PATIENCE) {
            Ok(Next::Frame(frame)) => held.push(frame),
            Ok(other) => panic!("{other:?}"),
            Err(error) => return error,
        }
    }
}

/// What such a producer comes to.
fn error(script: impl FnOnce() -> Vec<Packet>) -> IpcError {
    let descriptors = Descriptors::count();
    let path = socket("hostile-producer");
    let producer = serve(&path, script());
    let error = consume(&path);
    producer.join().unwrap();
    descriptors.assert_settle();
    assert!(!std::fs::read_to_string("/proc/self/maps").unwrap().contains("ipc-test"), "something stays mapped");
    error
}

fn broken(script: impl FnOnce() -> Vec<Packet>) -> &'static str {
    match error(script) {
        IpcError::Protocol { what, .. } => what,
        other => panic!("{other}"),
    }
}

fn import(fd: impl FnOnce() -> OwnedFd) -> ImportError {
    match error(|| vec![welcome(VERSION, 2, 1), buffer(0, vec![fd()])]) {
        IpcError::Import { index: 0, source } => source,
        other => panic!("{other}"),
    }
}

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

/// A connection that the channel may follow.
fn told(more: Vec<Packet>) -> Vec<Packet> {
    let mut script = vec![welcome(VERSION, 2, 2), buffer(0, vec![good()]), buffer(1, vec![good()])];
    script.extend(more);
    script
}

/// What such records come to by a pipe, and what as messages.
fn both_ways(records: &[Vec<u8>]) -> [IpcError; 2] {
    let by_pipe = || told(std::iter::once(Channel).chain(records.iter().cloned().map(Write)).collect());
    let said = |record: &Vec<u8>| Say(record.clone(), vec![]);
    let by_socket = || told(std::iter::once(channel(0, vec![page()])).chain(records.iter().map(said)).collect());
    [error(by_pipe), error(by_socket)]
}

fn broken_both_ways(records: &[Vec<u8>]) -> &'static str {
    match both_ways(records) {
        [IpcError::Protocol { what, .. }, IpcError::Protocol { what: the_same, .. }] if what == the_same => what,
        [by_pipe, by_socket] => panic!("{by_pipe}, {by_socket}"),
    }
}

#[test]
fn buffer_with_too_few_or_too_many_descriptors_returns_error() {
    for count in [0, 2, 4] {
        let what = broken(|| vec![welcome(VERSION, 2, 1), buffer(0, (0..count).map(|_| good()).collect())]);
        assert_eq!(what, "a message did not bring as many descriptors as it should");
    }
    let what = broken(|| vec![welcome(VERSION, 2, 1), buffer(0, (0..9).map(|_| good()).collect())]);
    assert!(what.starts_with("a message was too long, or brought"), "{what}");
}

#[test]
fn descriptor_of_something_else_returns_error() {
    assert!(matches!(import(null), ImportError::NotShareable { found: "character device" }));
    let pipe = || nix::unistd::pipe().unwrap().0;
    assert!(matches!(import(pipe), ImportError::NotShareable { found: "pipe" }));
}

#[test]
fn memory_that_can_shrink_or_is_too_small_returns_error() {
    let unsealed = || memory(1 << 20, SealFlag::F_SEAL_GROW);
    assert!(matches!(import(unsealed), ImportError::Unsealed { size: 0x10_0000 }));
    let small = || memory(4096, SealFlag::F_SEAL_SHRINK);
    assert!(matches!(import(small), ImportError::Layout(_)));
}

#[test]
fn buffers_out_of_order_or_twice_return_error() {
    for second in [0, 2, 64, u32::MAX] {
        let script = || vec![welcome(VERSION, 2, 3), buffer(0, vec![good()]), buffer(second, vec![good()])];
        assert_eq!(broken(script), "it left out a buffer", "{second}");
    }
    assert_eq!(broken(|| vec![welcome(VERSION, 2, 3), buffer(1, vec![good()])]), "it left out a buffer");
    let twice = error(|| {
        let one = good();
        let again = one.try_clone().unwrap();
        vec![welcome(VERSION, 2, 2), buffer(0, vec![one]), buffer(1, vec![again]), Channel, Write(frame(0))]
    });
    assert!(matches!(twice, IpcError::Import { index: 1, .. } | IpcError::Pool(_)), "{twice}");
}

#[test]
fn beginning_with_something_else_returns_error() {
    let said = |record: Vec<u8>| Say(record, vec![]);
    let firsts = || {
        [
            buffer(0, vec![]),
            said(frame(0)),
            said(state(0)),
            Channel,
            welcome(VERSION, 0, 1),
            welcome(VERSION, 2, 0),
            welcome(VERSION, 2, 65),
        ]
    };
    for first in firsts() {
        broken(|| vec![first]);
    }
    let what = broken(|| vec![Say(words(&[0x81, VERSION, 1, 1, 2, 1, 0, 0]), vec![null()])]);
    assert!(what.starts_with("a message was too long, or brought"), "{what}");
}

#[test]
fn bytes_that_are_no_message_return_error() {
    for bytes in [vec![7; 3], vec![7; 640], words(&[0x81]), words(&[0x85, 8]), words(&[1, 0, 0])] {
        let error = error(|| vec![Say(bytes.clone(), vec![])]);
        assert!(matches!(error, IpcError::Wire { .. }), "{bytes:?}: {error}");
    }
    assert!(broken(|| vec![Say(vec![7; 641], vec![])]).starts_with("a message was too long"));
}

#[test]
fn end_before_or_among_the_buffers_returns_error() {
    assert!(matches!(error(Vec::new), IpcError::Unanswered { .. }));
    assert!(matches!(error(|| vec![welcome(VERSION, 2, 2), buffer(0, vec![good()])]), IpcError::Unanswered { .. }));
    assert!(matches!(error(|| vec![welcome(VERSION, 2, 2), bye(2)]), IpcError::Refused { .. }));
    assert!(matches!(error(|| told(vec![])), IpcError::Unanswered { .. }));
    for way in [|| Channel, || channel(0, vec![page()])] {
        assert!(matches!(error(|| told(vec![way()])), IpcError::Gone));
        assert!(matches!(error(|| told(vec![way(), bye(2)])), IpcError::Refused { .. }));
    }
}

#[test]
fn frames_and_states_that_cannot_be_return_error() {
    let unknown = "a frame in a buffer that is still held here, or is none";
    assert_eq!(broken_both_ways(&[frame(2)]), unknown);
    assert_eq!(broken_both_ways(&[frame(u32::MAX)]), unknown);
    assert_eq!(broken_both_ways(&[frame(0), frame(1), frame(0)]), unknown);
    assert_eq!(broken_both_ways(&[state(2)]), "the state of a buffer that there is not");
    let welcome = words(&[0x81, VERSION, 1, 1, 2, 2, 0, 0]);
    assert_eq!(broken_both_ways(&[welcome]), "a message that has no place among frames");
    let what = broken(|| told(vec![channel(0, vec![page()]), Say(frame(0), vec![null()])]));
    assert_eq!(what, "a message did not bring as many descriptors as it should");
    let what = broken(|| told(vec![Channel, Say(frame(0), vec![])]));
    assert_eq!(what, "a message that has no place there");
}

#[test]
fn records_of_odd_lengths_return_error() {
    for bytes in [vec![7; 63], frame(0)[..12].to_vec(), [frame(0), vec![7]].concat(), vec![7; 4096]] {
        let error = error(|| told(vec![Channel, Write(bytes.clone())]));
        assert!(matches!(error, IpcError::Wire { .. }), "{bytes:?}: {error}");
    }
}

#[test]
fn what_is_no_page_or_no_pipe_returns_error() {
    let pages = [
        null,
        || memory(4096, SealFlag::F_SEAL_GROW),
        || memory(4095, SealFlag::F_SEAL_SHRINK),
        || memory(4096, SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_WRITE),
        || pipe2(OFlag::O_CLOEXEC).unwrap().0,
    ];
    for page in pages {
        let what = broken(|| told(vec![channel(0, vec![page()])]));
        assert_eq!(what, "its page for releases is no sealed memfd that can be written");
    }
    let fifo = || {
        let path = socket("fifo");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let fifo = open(&path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        std::fs::remove_file(&path).unwrap();
        fifo
    };
    for other in [null, page, fifo] {
        let what = broken(|| told(vec![channel(1, vec![page(), other()])]));
        assert_eq!(what, "what it sends frames by is no pipe");
    }
    for (pipe, count) in [(0, 0), (0, 2), (1, 1), (1, 3)] {
        let what = broken(|| told(vec![channel(pipe, (0..count).map(|_| page()).collect())]));
        assert_eq!(what, "a message did not bring as many descriptors as it should");
    }
    assert_eq!(broken(|| told(vec![Say(frame(0), vec![])])), "it left out the channel");
}

#[test]
fn a_pipe_whose_other_end_the_consumer_was_given_too_still_ends() {
    let both = || {
        let (out, _into) = pipe2(OFlag::O_CLOEXEC).unwrap();
        opened_again(out, OFlag::O_RDWR).unwrap()
    };
    assert!(matches!(error(|| told(vec![channel(1, vec![page(), both()])])), IpcError::Gone));
}

#[test]
fn a_hundred_thousand_messages_of_a_hostile_producer_end_in_errors() {
    const MESSAGES: usize = 100_000;
    let descriptors = Descriptors::count();
    let path = socket("hostile-flood");
    let listening = listener(&path);
    let done = AtomicBool::new(false);
    let (mut errors, mut started) = (0, 0);
    let sent = std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut random = crate::common::random(0x5eed);
            let memory: Vec<OwnedFd> = (0..3).map(|_| good()).collect();
            let mut sent = 0;
            while sent < MESSAGES {
                let script = script(&mut random, &memory);
                sent += script.len();
                play(accept(&listening), script);
            }
            done.store(true, Ordering::Release);
            // One who has connected meanwhile is not kept waiting.
            drop(listening);
            sent
        });
        while !done.load(Ordering::Acquire) {
            match Connection::open(&path, &Wishes::default(), PATIENCE).and_then(Connection::start) {
                Ok(mut consumer) => {
                    started += 1;
                    let mut held = Vec::new();
                    while let Ok(next) = consumer.wait(PATIENCE) {
                        match next {
                            Next::Frame(frame) => held.insert(0, frame),
                            Next::Ended | Next::Changed => break,
                            Next::Nothing => panic!("it waits for what does not come"),
                        }
                        held.truncate(1);
                    }
                }
                Err(_) => errors += 1,
            }
        }
        producer.join().unwrap()
    });
    std::fs::remove_file(&path).unwrap();
    println!("{sent} messages, {errors} connections that never began, {started} that did");
    assert!(started > 500 && errors > 500, "{started} {errors}");
    descriptors.assert_settle();
    assert!(!std::fs::read_to_string("/proc/self/maps").unwrap().contains("ipc-test"), "something stays mapped");
}

/// A beginning that is right for a while, then anything.
fn script(random: &mut impl FnMut(u64) -> u64, memory: &[OwnedFd]) -> Vec<Packet> {
    let again = |i: usize| vec![memory[i].try_clone().unwrap()];
    let mut script = vec![welcome(VERSION, 2, 3), buffer(0, again(0)), buffer(1, again(1)), buffer(2, again(2))];
    let by_pipe = random(2) == 0;
    script.push(if by_pipe { Channel } else { channel(0, vec![page()]) });
    script.truncate([5, 5, random(6) as usize][random(3) as usize]);
    for _ in 0..2 + random(8) {
        let mut packet = match random(8) {
            0 => welcome(random(4) as u32, random(4) as u32, random(4) as u32),
            1 => buffer(random(4) as u32, again(random(3) as usize)),
            2 => Write(state(random(4) as u32)),
            3 => bye(random(9) as u32),
            4 => channel(random(2) as u32, (0..random(3)).flat_map(|_| again(0)).collect()),
            _ => Write(frame(random(4) as u32)),
        };
        if let Write(record) = packet {
            packet = if by_pipe { Write(record) } else { Say(record, vec![]) };
        }
        if let Say(bytes, _) | Write(bytes) = &mut packet {
            match random(12) {
                0 => bytes.truncate(random(bytes.len() as u64) as usize),
                1 => bytes.resize(bytes.len() + random(900) as usize, 7),
                2 => {
                    let at = random(bytes.len() as u64) as usize;
                    bytes[at] = random(256) as u8;
                }
                3 => *bytes = (0..random(700)).map(|_| random(256) as u8).collect(),
                _ => {}
            }
        }
        if let Say(_, fds) = &mut packet
            && random(12) == 0
        {
            fds.extend((0..random(9)).map(|_| null()));
        }
        script.push(packet);
    }
    script
}

#[test]
fn messages_without_end_leave_the_caller_its_turn() {
    let _alone = Descriptors::count();
    let path = socket("endless");
    let listening = listener(&path);
    let producer = std::thread::spawn(move || {
        let (peer, mut pipe) = (accept(&listening), None);
        told(vec![Channel]).into_iter().for_each(|packet| assert!(act(&peer, &mut pipe, packet)));
        while act(&peer, &mut pipe, Write(state(0))) {}
    });
    let mut consumer = Connection::open(&path, &Wishes::default(), PATIENCE).unwrap().start().unwrap();
    for _ in 0..100 {
        assert!(matches!(consumer.receive().unwrap(), Next::Nothing));
    }
    drop(consumer);
    producer.join().unwrap();
    std::fs::remove_file(&path).unwrap();
}
