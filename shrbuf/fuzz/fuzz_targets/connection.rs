//! Any packets from a peer, with a descriptor or without, and any words in its page, while frames are sent: the producer goes
//! on, and has every buffer back once the peer is gone.
//!
//! An input is a row of packets: a byte for its length, of which the top bit sends a descriptor along, then its bytes. A
//! packet of one byte stands for something proper, so that the fuzzer finds its way to where frames flow, or for a frame in a buffer
//! that was not there before; one of nine is written into the page, a byte for where and eight for what.
#![no_main]

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use libfuzzer_sys::fuzz_target;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recvmsg,
    sendmsg, socket,
};
use nix::sys::uio::pwrite;
use shrbuf::exporter::Memfd;
use shrbuf::ipc::{Announced, FrameInfo, Options, Policy, Producer, VERSION};
use shrbuf::{Format, Layout, Pool, Shrbuf, WeakShrbuf};

const BUFFERS: u32 = 3;
/// What stands for a frame in a new buffer.
const NEW: u8 = 0xff;

struct Target {
    path: std::path::PathBuf,
    producer: Producer,
    pool: Pool,
}

thread_local! {
    static TARGET: RefCell<Option<Target>> = const { RefCell::new(None) };
}

fn new_buffer() -> Shrbuf {
    Memfd::new("fuzz").allocate(&Layout::linear(Format::Grey, 8, 8, 1).unwrap()).unwrap()
}

fn target() -> Target {
    let buffers: Vec<_> = (0..BUFFERS).map(|_| new_buffer()).collect();
    let announced = buffers.iter().map(|b| Announced::of(b).unwrap()).collect();
    let path = std::env::temp_dir().join(format!("shrbuf-fuzz-{}", std::process::id()));
    let options =
        Options { consumers: 1, window: 2, policy: Policy::DropOldest, arrivals: 1_000_000, ..Options::default() };
    let producer = Producer::bind(&path, options, announced, None).unwrap();
    Target { path, producer, pool: Pool::new(buffers, |_| {}).unwrap() }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

fn proper(code: u8) -> Vec<u8> {
    let magic = u32::from_ne_bytes(*b"SHRB");
    let hello = |role| [words(&[1, magic, VERSION, role, 0, 0]), vec![0; 32]].concat();
    match code % 8 {
        0 => hello(0),
        1 => hello(1),
        2 => words(&[2, BUFFERS]),
        3 => words(&[3]),
        4 => words(&[4]),
        5 => words(&[6]),
        6 => words(&[5]),
        // Buffers given back.
        _ => [vec![0], u64::from(code / 8).to_ne_bytes().to_vec()].concat(),
    }
}

/// What the peer was sent, of which it keeps the descriptors of its channel: those of its page and its pipe.
fn read(peer: &OwnedFd, channel: &mut Vec<OwnedFd>) {
    loop {
        let (mut bytes, mut space) = ([0; 640], nix::cmsg_space!([i32; 4]));
        let mut part = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let Ok(message) = recvmsg::<()>(peer.as_raw_fd(), &mut part, Some(&mut space), flags) else { return };
        let mut fds = Vec::new();
        for control in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(rights) = control {
                // SAFETY: recvmsg(2) has just installed them for us.
                fds.extend(rights.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if message.bytes == 0 {
            return;
        }
        if bytes[..4] == 0x88_u32.to_ne_bytes() {
            *channel = fds;
        }
    }
}

fuzz_target!(|data: &[u8]| {
    TARGET.with_borrow_mut(|kept| {
        let target = kept.get_or_insert_with(target);
        let peer = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(peer.as_raw_fd(), &UnixAddr::new(&target.path).unwrap()).unwrap();
        let (mut rest, mut channel, mut new) = (data, Vec::new(), Vec::new());
        while let Some((&head, after)) = rest.split_first() {
            let (packet, after) = after.split_at(usize::from(head & 0x7f).min(after.len()));
            rest = after;
            if packet == [NEW] {
                let buffer = new_buffer();
                target.producer.announce(Announced::of(&buffer).unwrap()).unwrap();
                target.producer.send(&buffer, &FrameInfo::default()).unwrap();
                new.push(buffer.downgrade());
                continue;
            }
            let bytes = if let [code] = packet { proper(*code) } else { packet.to_vec() };
            if bytes.len() == 9 {
                read(&peer, &mut channel);
                if let Some(page) = channel.first() {
                    pwrite(page, &bytes[1..], i64::from(bytes[0] % 32)).unwrap();
                }
            }
            let rights = [target.producer.as_fd().as_raw_fd()];
            let with = [ControlMessage::ScmRights(&rights)];
            let control = if head & 0x80 == 0 { &[][..] } else { &with[..] };
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            if bytes.len() != 9 {
                let _ = sendmsg::<()>(peer.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None);
            }
            target.producer.ready().unwrap();
            if let Some(buffer) = target.pool.acquire() {
                target.producer.send(&buffer, &FrameInfo::default()).unwrap();
            }
        }
        drop(peer);
        let out = |new: &[WeakShrbuf]| new.iter().any(|buffer| !buffer.is_gone());
        while target.pool.idle() < BUFFERS as usize || out(&new) || target.producer.consumers() > 0 {
            target.producer.wait(None).unwrap();
        }
    });
});
