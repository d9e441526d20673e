//! Any packets from a peer, with a descriptor or without, while frames are sent: the producer goes on, and has every
//! buffer back once the peer is gone.
//!
//! An input is a row of packets: a byte for its length, of which the top bit sends a descriptor along, then its bytes. A
//! packet of one byte stands for a proper message, so that the fuzzer finds its way to where frames flow.
#![no_main]

use std::cell::RefCell;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd};

use libfuzzer_sys::fuzz_target;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use shrbuf::exporter::Memfd;
use shrbuf::ipc::{Announced, FrameInfo, Options, Policy, Producer};
use shrbuf::{Format, Layout, Pool};

const BUFFERS: u32 = 3;

struct Target {
    path: std::path::PathBuf,
    producer: Producer,
    pool: Pool,
}

thread_local! {
    static TARGET: RefCell<Option<Target>> = const { RefCell::new(None) };
}

fn target() -> Target {
    let layout = Layout::linear(Format::Grey, 8, 8, 1).unwrap();
    let buffers: Vec<_> = (0..BUFFERS).map(|_| Memfd::new("fuzz").allocate(&layout).unwrap()).collect();
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
    let hello = |role| [words(&[1, magic, 1, role, 0, 0]), vec![0; 32]].concat();
    match code % 8 {
        0 => hello(0),
        1 => hello(1),
        2 => words(&[2, BUFFERS]),
        3 => words(&[3]),
        4 => words(&[4]),
        5 => words(&[6]),
        6 => words(&[5, u32::from(code / 8) % BUFFERS, 0]),
        _ => words(&[5, u32::from(code / 8) % BUFFERS, 1]),
    }
}

fuzz_target!(|data: &[u8]| {
    TARGET.with_borrow_mut(|kept| {
        let target = kept.get_or_insert_with(target);
        let peer = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        connect(peer.as_raw_fd(), &UnixAddr::new(&target.path).unwrap()).unwrap();
        let mut rest = data;
        while let Some((&head, after)) = rest.split_first() {
            let (packet, after) = after.split_at(usize::from(head & 0x7f).min(after.len()));
            rest = after;
            let bytes = if let [code] = packet { proper(*code) } else { packet.to_vec() };
            let rights = [target.producer.as_fd().as_raw_fd()];
            let with = [ControlMessage::ScmRights(&rights)];
            let control = if head & 0x80 == 0 { &[][..] } else { &with[..] };
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            let _ = sendmsg::<()>(peer.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None);
            target.producer.ready().unwrap();
            if let Some(buffer) = target.pool.acquire() {
                target.producer.send(&buffer, &FrameInfo::default()).unwrap();
            }
        }
        drop(peer);
        while target.pool.idle() < BUFFERS as usize || target.producer.consumers() > 0 {
            target.producer.wait(None).unwrap();
        }
    });
});
