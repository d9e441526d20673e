//! Sockets of others, and producers of another version: the error names the path, and both versions.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use shrbuf::ipc::{Connection, IpcError, Monitor, Policy, VERSION, Wishes};

use crate::common::Descriptors;
use crate::fake::{Packet, bye, serve, welcome, words};
use crate::hostile::{hello, raw};
use crate::source::{PATIENCE, Source, options, socket};

/// The lowest version that is spoken here.
pub const OLDEST: u32 = 3;

/// What connecting comes to; the message names the socket.
fn error(path: &Path) -> IpcError {
    let error = Connection::open(path, &Wishes::default(), PATIENCE).unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    error
}

fn said(test: &str, script: Vec<Packet>) -> IpcError {
    let _alone = Descriptors::count();
    let path = socket(test);
    let producer = serve(&path, script);
    let error = error(&path);
    producer.join().unwrap();
    error
}

/// What the producer answers to a greeting of such a version.
fn answer(test: &str, version: u32) -> Vec<u8> {
    let _alone = Descriptors::count();
    let path = socket(test);
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 2);
    let peer = raw(&path);
    nix::unistd::write(&peer, &hello(version)).unwrap();
    let mut bytes = [0; 640];
    let mut answered = 0;
    let begin = std::time::Instant::now();
    while answered == 0 {
        assert!(begin.elapsed() < PATIENCE);
        source.producer.wait(Some(Duration::from_millis(1))).unwrap();
        answered = recv(peer.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).unwrap_or(0);
    }
    bytes[..answered].to_vec()
}

#[test]
fn a_consumer_that_is_older_is_told_its_own() {
    assert_eq!(answer("version-3", OLDEST)[..8], words(&[0x81, OLDEST]));
}

#[test]
fn a_consumer_too_old_is_told_which_version_the_producer_speaks() {
    assert_eq!(answer("version-0", 0), words(&[0x85, 3 | OLDEST << 16]));
}

#[test]
fn a_consumer_that_is_newer_is_told_the_version_for_both() {
    assert_eq!(answer("version-9", VERSION + 8)[..8], words(&[0x81, VERSION]));
}

#[test]
fn a_producer_that_is_newer_is_named_with_both_versions() {
    for script in [vec![bye(3 | 7 << 16)], vec![welcome(7, 1, 1)]] {
        let error = said("newer", script);
        assert!(matches!(error, IpcError::Version { ours: VERSION, theirs: 7, .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("version 7") && text.contains(&format!("version {VERSION}")), "{text}");
    }
}

#[test]
fn a_monitor_is_told_of_the_version_too() {
    let _alone = Descriptors::count();
    let path = socket("newer-monitor");
    let producer = serve(&path, vec![bye(3 | 7 << 16)]);
    let error = Monitor::open(&path, PATIENCE).and_then(|mut m| m.ask(PATIENCE)).unwrap_err();
    assert!(matches!(error, IpcError::Version { theirs: 7, .. }), "{error}");
    producer.join().unwrap();
}

#[test]
fn a_stream_socket_is_another_programs() {
    let _alone = Descriptors::count();
    let path = socket("stream");
    let _server = UnixListener::bind(&path).unwrap();
    assert!(matches!(error(&path), IpcError::Foreign { .. }));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_file_is_no_socket() {
    let _alone = Descriptors::count();
    let path = socket("file-there");
    std::fs::write(&path, "mine").unwrap();
    let error = error(&path);
    assert!(matches!(error, IpcError::NoSocket { .. }) && !error.to_string().contains("overwritten"), "{error}");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_path_with_a_zero_is_not_said_to_be_too_long() {
    let error = Connection::open(Path::new("a\0b"), &Wishes::default(), PATIENCE).unwrap_err();
    assert!(matches!(error, IpcError::Path { call: "connect", .. }), "{error}");
}

#[test]
fn a_path_too_long_says_how_long_it_may_be() {
    let long = std::env::temp_dir().join("s".repeat(108));
    assert!(matches!(error(&long), IpcError::TooLong { most: 107, .. }));
}

#[test]
fn another_programs_answer_is_named() {
    let echo = said("echo", vec![Packet::Say(hello(VERSION), vec![])]);
    assert!(matches!(echo, IpcError::Wire { .. }), "{echo}");
    let text = said("text", vec![Packet::Say(b"220 welcome".to_vec(), vec![])]);
    assert!(text.to_string().contains(&format!("version {VERSION} here")), "{text}");
    let closed = said("closed", vec![]);
    assert!(matches!(closed, IpcError::Unanswered { .. }), "{closed}");
}

#[test]
fn another_program_that_says_nothing_is_named() {
    let _alone = Descriptors::count();
    let path = socket("says-nothing");
    let _listening = crate::fake::listener(&path);
    let late = Connection::open(&path, &Wishes::default(), Duration::from_millis(50)).unwrap_err();
    assert!(matches!(late, IpcError::Late { .. }) && late.to_string().contains(path.to_str().unwrap()), "{late}");
    std::fs::remove_file(&path).unwrap();
}
