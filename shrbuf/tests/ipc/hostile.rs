//! A client that sends whatever comes to its mind, beside one that behaves.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, socket,
};
use shrbuf::ipc::{Options, Policy, VERSION};

use crate::child::{said, spawn};
use crate::common::{Descriptors, random};
use crate::fake::words;
use crate::page::{channel, scribble};
use crate::source::{Source, options};

const HELLO: u32 = 1;
pub const READY: u32 = 2;
pub const START: u32 = 3;
const STOP: u32 = 4;
pub const WAKE: u32 = 5;
const QUERY: u32 = 6;

/// A connection without any manners.
pub fn raw(path: &Path) -> OwnedFd {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    fd
}

/// A connection that has said what a consumer says first.
pub fn greeting(path: &Path) -> OwnedFd {
    let fd = raw(path);
    // Where it is sent away at once there is nobody to greet.
    let _ = nix::sys::socket::send(fd.as_raw_fd(), &hello(VERSION), MsgFlags::MSG_NOSIGNAL);
    fd
}

/// How many of them have an answer to read.
pub fn greeted(all: &[OwnedFd]) -> usize {
    let answered =
        |fd: &&OwnedFd| recv(fd.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT).is_ok();
    all.iter().filter(answered).count()
}

pub fn hello(version: u32) -> Vec<u8> {
    let magic = u32::from_ne_bytes(*b"SHRB");
    [words(&[HELLO, magic, version, 0, 0, 0]), vec![b'h'; 32]].concat()
}

/// Sends `count` messages, anew whenever it has been thrown out.
pub fn attack(path: &Path, seed: u64, count: u64) {
    let mut random = random(seed);
    let proper = |random: &mut dyn FnMut(u64) -> u64| match random(8) {
        0 => hello(VERSION),
        1 => words(&[READY, 12]),
        2 => words(&[READY, random(100) as u32]),
        3 => words(&[START]),
        4 => words(&[STOP]),
        5 => words(&[QUERY]),
        _ => words(&[WAKE]),
    };
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut sent = 0;
    let mut connections = 0;
    while sent < count {
        let fd = raw(path);
        connections += 1;
        // Some get as far as a consumer does.
        let begin = [hello(VERSION), words(&[READY, 12]), words(&[START])];
        let mut script: Vec<Vec<u8>> = begin[..random(4) as usize].to_vec();
        for _ in 0..1 + random(6) {
            let mut bytes = proper(&mut random);
            match random(5) {
                0 => bytes.truncate(random(bytes.len() as u64) as usize),
                1 => bytes.resize(bytes.len() + 1 + random(60_000) as usize, 7),
                2 => {
                    let at = random(bytes.len() as u64) as usize;
                    bytes[at] = random(256) as u8;
                }
                3 => bytes = (0..random(900)).map(|_| random(256) as u8).collect(),
                _ => {}
            }
            script.push(bytes);
        }
        let mut page = None;
        for bytes in script {
            if page.is_none() && random(3) == 0 {
                // If it has come by now.
                page = channel(&fd).and_then(|fds| fds.into_iter().next());
            }
            if let Some(page) = &page {
                scribble(page, 8 * random(3) as i64, random(u64::MAX) >> random(64));
            }
            let rights = vec![null.as_raw_fd(); [0, 0, 0, 1, 2, 9, 200][random(7) as usize]];
            let control: &[ControlMessage] =
                if rights.is_empty() { &[] } else { &[ControlMessage::ScmRights(&rights)] };
            sent += 1;
            // Never waits: whoever reads nothing must not be waited for by the other side either.
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            if sendmsg::<()>(fd.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None).is_err() {
                break;
            }
        }
        // One in two waits for what the producer makes of it, the others are gone at once.
        if random(2) == 0 {
            nix::sys::socket::shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Write).unwrap();
            let mut bytes = [0; 1024];
            while recv(fd.as_raw_fd(), &mut bytes, MsgFlags::empty()).is_ok_and(|n| n > 0) {}
        }
    }
    println!("\n>{sent} messages over {connections} connections");
}

#[test]
fn a_hostile_client_harms_nobody() {
    let descriptors = Descriptors::count();
    let path = crate::source::socket("hostile");
    // Every place is contested but that of the good one, who comes first.
    let unlimited = Options { arrivals: 1_000_000, ..options(4, 2, Policy::Latest) };
    let mut source = Source::new(&path, unlimited, 12);
    let mut good = spawn("consume 100000000 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    let mut attackers: Vec<_> =
        [7_u64, 0x1234_5678, 0xdead_beef].map(|seed| spawn(&format!("hostile {seed} 34000"), &path)).into();
    source.send_until(|_| attackers.iter_mut().all(|a| a.try_wait().unwrap().is_some()));
    for attacker in attackers {
        println!("{}", said(attacker));
    }
    assert!(good.try_wait().unwrap().is_none(), "the good consumer has been harmed");
    source.until(|s| s.producer.consumers() == 1);
    source.producer.end();
    let text = source.said(good);
    let received: u64 = text.split(' ').next().unwrap().parse().unwrap();
    assert!(received > 1000, "{text}");
    assert_eq!(source.pool.idle(), 12);
    assert!(source.producer.counts().refused > 10_000, "{:?}", source.producer.counts());
    println!("{:?}; the good consumer got {text}", source.producer.counts());
    drop(source);
    descriptors.assert_same();
}
