//! A producer without any manners: it says what a test tells it to.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, accept4, bind, listen,
    recv, sendmsg, shutdown, socket,
};
use shrbuf::State;

use crate::common::one_segment;

/// Bytes and the descriptors that go with them.
pub type Packet = (Vec<u8>, Vec<OwnedFd>);

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

pub fn welcome(version: u32, window: u32, buffers: u32) -> Packet {
    (words(&[0x81, version, 1, 1, window, buffers, 0, 0]), vec![])
}

/// A buffer of [`one_segment`].
pub fn buffer(index: u32, fds: Vec<OwnedFd>) -> Packet {
    let layout = one_segment();
    let head = [words(&[0x82, index]), b"XR24\0\0\0\0".to_vec(), vec![0; 8]].concat();
    let sizes = words(&[layout.width, layout.height, 1, 0, 0, 0, layout.planes()[0].stride]);
    ([head, sizes, vec![0; 36]].concat(), fds)
}

pub fn frame(buffer: u32) -> Packet {
    let state = State::Filled as u32;
    (words(&[0x83, buffer, 0, 0, 0, 0, 0, 0, 0, 2, state, 0, 0, 0, 0, 0]), vec![])
}

pub fn state(buffer: u32) -> Packet {
    (words(&[0x84, buffer, State::Filled as u32]), vec![])
}

pub fn bye(word: u32) -> Packet {
    (words(&[0x85, word]), vec![])
}

/// Memory that a consumer may take, where it is sealed and large enough.
pub fn memory(size: i64, seals: SealFlag) -> OwnedFd {
    let fd = memfd_create("ipc-test", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
    nix::unistd::ftruncate(&fd, size).unwrap();
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    fd
}

pub fn good() -> OwnedFd {
    memory(one_segment().segment_size(0) as i64, SealFlag::F_SEAL_SHRINK)
}

pub fn listener(path: &Path) -> OwnedFd {
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    listen(&fd, Backlog::new(8).unwrap()).unwrap();
    fd
}

pub fn accept(listener: &OwnedFd) -> OwnedFd {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).unwrap();
    // SAFETY: accept4(2) has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Whether the consumer still took it.
pub fn say(socket: &OwnedFd, (bytes, fds): &Packet) -> bool {
    let rights: Vec<_> = fds.iter().map(|f| f.as_raw_fd()).collect();
    let control: &[ControlMessage<'_>] = if rights.is_empty() { &[] } else { &[ControlMessage::ScmRights(&rights)] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None).is_ok()
}

/// Says all of `script`, then no more, and waits until the consumer has gone.
pub fn play(socket: OwnedFd, script: &[Packet]) {
    for packet in script {
        if !say(&socket, packet) {
            break;
        }
    }
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
    let mut bytes = [0; 1024];
    while recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()).is_ok_and(|n| n > 0) {}
}

/// Listens at `path` for one consumer, to whom it says all of `script`.
pub fn serve(path: &Path, script: Vec<Packet>) -> JoinHandle<()> {
    let (listener, path) = (listener(path), path.to_owned());
    std::thread::spawn(move || {
        play(accept(&listener), &script);
        std::fs::remove_file(path).unwrap();
    })
}
