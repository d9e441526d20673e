//! A producer without any manners: it says what a test tells it to.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, accept4, bind, listen,
    recv, sendmsg, shutdown, socket,
};
use shrbuf::State;

use Packet::Say;

use crate::common::one_segment;

/// What it does next.
pub enum Packet {
    /// A message, with descriptors.
    Say(Vec<u8>, Vec<OwnedFd>),
    /// A channel as it should be, of whose pipe this process keeps the end for writing alone.
    Channel,
    /// Into that pipe.
    Write(Vec<u8>),
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

pub fn welcome(version: u32, window: u32, buffers: u32) -> Packet {
    Say(words(&[0x81, version, 1, 1, window, buffers, 0, 0]), vec![])
}

/// A buffer of [`one_segment`].
pub fn buffer(index: u32, fds: Vec<OwnedFd>) -> Packet {
    let layout = one_segment();
    let head = [words(&[0x82, index]), b"XR24\0\0\0\0".to_vec(), vec![0; 8]].concat();
    let sizes = words(&[layout.width, layout.height, 1, 0, 0, 0, layout.planes()[0].stride]);
    Say([head, sizes, vec![0; 36]].concat(), fds)
}

/// A channel that frames come by the socket of where `pipe` is 0, with a page and so on.
pub fn channel(pipe: u32, fds: Vec<OwnedFd>) -> Packet {
    Say(words(&[0x88, pipe]), fds)
}

pub fn frame(buffer: u32) -> Vec<u8> {
    words(&[0x83, buffer, 0, 0, 0, 0, 0, 0, 0, 2, State::Filled as u32, 0, 0, 0, 0, 0])
}

/// The same, after so many buffers that were told of late.
pub fn frame_after(buffer: u32, late: u32) -> Vec<u8> {
    let mut bytes = frame(buffer);
    bytes[60..].copy_from_slice(&late.to_ne_bytes());
    bytes
}

pub fn state(buffer: u32) -> Vec<u8> {
    [words(&[0x84, buffer, State::Filled as u32]), vec![0; 52]].concat()
}

pub fn bye(word: u32) -> Packet {
    Say(words(&[0x85, word]), vec![])
}

/// A page as it should be.
pub fn page() -> OwnedFd {
    memory(4096, SealFlag::F_SEAL_SHRINK)
}

/// A pipe's end for reading.
pub fn pipe() -> OwnedFd {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap().0
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

fn say(socket: &OwnedFd, bytes: &[u8], fds: &[OwnedFd]) -> bool {
    let rights: Vec<_> = fds.iter().map(|f| f.as_raw_fd()).collect();
    let control: &[ControlMessage<'_>] = if rights.is_empty() { &[] } else { &[ControlMessage::ScmRights(&rights)] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None).is_ok()
}

/// Does what a packet says; whether the consumer still took it.
pub fn act(socket: &OwnedFd, pipe: &mut Option<OwnedFd>, packet: Packet) -> bool {
    match packet {
        Say(bytes, fds) => say(socket, &bytes, &fds),
        Packet::Channel => {
            let (out, into) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
            *pipe = Some(into);
            say(socket, &words(&[0x88, 1]), &[page(), out])
        }
        Packet::Write(bytes) => pipe.as_ref().is_none_or(|pipe| nix::unistd::write(pipe, &bytes).is_ok()),
    }
}

/// Says all of `script`, then no more, and waits until the consumer has gone.
pub fn play(socket: OwnedFd, script: Vec<Packet>) {
    let mut pipe = None;
    // Nothing of it is kept, or a pipe of whose end for writing it has a copy would never be at its end.
    let _ = script.into_iter().all(|packet| act(&socket, &mut pipe, packet));
    drop(pipe);
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Write);
    let mut bytes = [0; 1024];
    while recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()).is_ok_and(|n| n > 0) {}
}

/// Listens at `path` for one consumer, to whom it says all of `script`.
pub fn serve(path: &Path, script: Vec<Packet>) -> JoinHandle<()> {
    let (listener, path) = (listener(path), path.to_owned());
    std::thread::spawn(move || {
        play(accept(&listener), script);
        std::fs::remove_file(path).unwrap();
    })
}
