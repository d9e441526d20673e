//! A client that sends whatever comes to its mind, beside one that behaves.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, socket,
};
use shrbuf::ipc::{Options, Policy, VERSION};

use crate::child::{said, say, spawn};
use crate::common::{Descriptors, random};
use crate::fake::words;
use crate::page::{channel, scribble};
use crate::source::{Source, options};

const HELLO: u32 = 1;
pub const READY: u32 = 2;
pub const START: u32 = 3;
pub const STOP: u32 = 4;
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

/// Sends messages, anew whenever it has been thrown out, until the producer has read `count` of them for certain.
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
    let (mut read, mut sent, mut connections) = (0, 0, 0);
    while read < count {
        let fd = raw(path);
        connections += 1;
        // Most get as far as a consumer does, or part of the way.
        let begin = [hello(VERSION), words(&[READY, 12]), words(&[START])];
        let well = [0, 1, 2, 3, 3, 3][random(6) as usize];
        let mut script: Vec<Vec<u8>> = begin[..well].to_vec();
        // One in four says more than will be read, and is gone at once: how much was read nobody knows. The others wait for what the
        // producer makes of it.
        let patient = random(4) > 0;
        for _ in 0..if patient { 1 } else { 1 + random(6) } {
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
        // Where the producer closes before it has read all, ECONNRESET says so, once.
        let (mut taken, mut reset) = (0, false);
        let mut page = None;
        for (i, bytes) in script.into_iter().enumerate() {
            if page.is_none() && random(3) == 0 {
                // If it has come by now.
                let come = channel(&fd);
                reset |= come.as_ref().err() == Some(&Errno::ECONNRESET);
                page = come.ok().and_then(|fds| fds.into_iter().next());
            }
            if let Some(page) = &page {
                scribble(page, 8 * random(3) as i64, random(u64::MAX) >> random(64));
            }
            let wrong = i >= well || random(8) == 0;
            let rights = vec![null.as_raw_fd(); if wrong { [0, 0, 0, 1, 2, 9, 200][random(7) as usize] } else { 0 }];
            let control: &[ControlMessage] =
                if rights.is_empty() { &[] } else { &[ControlMessage::ScmRights(&rights)] };
            // Never waits: whoever reads nothing must not be waited for by the other side either.
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match sendmsg::<()>(fd.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None) {
                Ok(_) => taken += 1,
                Err(error) => {
                    reset |= error == Errno::ECONNRESET;
                    break;
                }
            }
        }
        sent += taken;
        if patient {
            nix::sys::socket::shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Write).unwrap();
            let mut bytes = [0; 1024];
            let end = loop {
                match recv(fd.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                    Ok(1..) => {}
                    end => break end,
                }
            };
            reset |= end == Err(Errno::ECONNRESET);
            read += if reset { 0 } else { taken };
        }
    }
    say(format_args!("{read} messages read for certain of {sent} over {connections} connections"));
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
    let mut read = 0;
    for attacker in attackers {
        let text = said(attacker);
        read += text.split(' ').next().unwrap().parse::<u64>().unwrap();
        println!("{text}");
    }
    assert!(read >= 100_000, "{read}");
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
