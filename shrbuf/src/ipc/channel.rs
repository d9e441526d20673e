//! What a producer and one consumer share for frames: a pipe that they come by, and the page where they are given back.
//!
//! A pipe is for two processes of one user. Who reads it into memory whose faults it serves itself (FUSE, userfaultfd) keeps
//! the pipe's lock meanwhile, and a write(2) waits for that, O_NONBLOCK or not; within a user kill(2) can do as much.
//! Frames of another user come as messages on the socket, which both sides lock only for themselves.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open, readlink};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, pipe2, write};

use crate::exporter::{ExportError, Memfd, page_aligned};
use crate::segment::{MemoryKind, check};
use crate::sys::page::{PAGE, Page};

/// Bytes of what comes by a pipe.
pub(super) const RECORD: usize = 64;

/// The producer's side.
pub(super) struct Channel {
    pub(super) page: Page,
    pipe: Option<Pipe>,
}

struct Pipe {
    /// Not blocking; never leaves this process.
    into: OwnedFd,
    /// Open for as long as the other, so that a write raises no SIGPIPE.
    out: OwnedFd,
}

impl Channel {
    /// A new one, and the descriptor of its page.
    pub(super) fn new(window: u32, by_pipe: bool) -> io::Result<(Channel, OwnedFd)> {
        let memfd = Memfd::new("shrbuf-releases").create(PAGE.get() as u64).map_err(|e| match e {
            ExportError::Allocate { source, .. } => source,
            other => io::Error::other(other),
        })?;
        let page = Page::map(memfd.as_fd())?;
        let pipe = if by_pipe { Some(Pipe::new(window)?) } else { None };
        Ok((Channel { page, pipe }, memfd))
    }

    /// The end that the consumer gets.
    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(|p| p.out.as_fd())
    }

    /// Writes a record, whole or not at all, if there is a pipe.
    pub(super) fn write(&self, record: &[u8]) -> Option<io::Result<()>> {
        let pipe = self.pipe.as_ref()?;
        Some(write(&pipe.into, record).map(drop).map_err(io::Error::from))
    }
}

impl Pipe {
    /// One that has room for as many frames as a consumer may hold, and as many changes of state.
    fn new(window: u32) -> io::Result<Pipe> {
        let (out, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let room = i32::try_from(room(window)).map_err(io::Error::other)?;
        if fcntl(&into, FcntlArg::F_GETPIPE_SZ)? < room {
            fcntl(&into, FcntlArg::F_SETPIPE_SZ(room))?;
        }
        Ok(Pipe { into, out })
    }
}

/// Bytes that a pipe must have for a window. A page is filled up before the next is begun, and the first may have been read
/// but for its last record.
fn room(window: u32) -> u64 {
    page_aligned(1) + page_aligned((u64::from(window) * 2 - 1) * RECORD as u64)
}

/// Whether who listens at the other end of a socket is of this process's user.
pub(super) fn is_ours(socket: BorrowedFd<'_>) -> bool {
    getsockopt(&socket, PeerCredentials).is_ok_and(|who| who.uid() == geteuid().as_raw())
}

/// Maps a producer's page; `None` where it is no sealed memfd for reading and writing, as far as can be said without asking
/// anybody but the kernel.
pub(super) fn map(memfd: &OwnedFd) -> Option<io::Result<Page>> {
    let right = check(memfd).is_ok_and(|c| c.kind == MemoryKind::Memfd && c.writable && c.size >= PAGE.get() as u64);
    right.then(|| Page::map(memfd.as_fd()))
}

/// Opens a producer's pipe anew, so that nobody else has this description of it, nor its O_NONBLOCK; `None` where it is
/// none. What it is says its name, which the kernel makes up, so that nobody is asked who might not answer.
pub(super) fn reopen(pipe: &OwnedFd) -> Option<io::Result<OwnedFd>> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    match readlink(path.as_str()) {
        Ok(name) if name.as_encoded_bytes().starts_with(b"pipe:[") => {
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            Some(open(path.as_str(), flags, Mode::empty()).map_err(io::Error::from))
        }
        Ok(_) => None,
        Err(e) => Some(Err(e.into())),
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::unistd::{ftruncate, pipe, read};

    use super::*;

    #[test]
    fn a_window_fits_wherever_the_pipe_was_read_up_to() {
        for window in [1, 2, 32, 33, 64] {
            let (channel, _memfd) = Channel::new(window, true).unwrap();
            let out = channel.pipe().unwrap();
            // Not more than was asked for, as where a user has many.
            fcntl(out, FcntlArg::F_SETPIPE_SZ(room(window) as i32)).unwrap();
            let most = window as usize * 2;
            let mut bytes = vec![0; most * RECORD];
            for offset in 1..=64 {
                let write = |records: usize| (0..records).for_each(|_| channel.write(&[7; RECORD]).unwrap().unwrap());
                write(offset);
                (1..offset).for_each(|_| assert_eq!(read(out, &mut bytes[..RECORD]), Ok(RECORD)));
                write(most - 1);
                assert_eq!(read(out, &mut bytes), Ok(bytes.len()), "window {window}, from {offset} on");
            }
        }
    }

    #[test]
    fn a_full_pipe_would_block_and_one_that_nobody_reads_raises_no_signal() {
        let (channel, _memfd) = Channel::new(2, true).unwrap();
        let full = (0..100_000).find_map(|_| channel.write(&[7; RECORD]).unwrap().err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn an_end_opened_anew_keeps_its_own_flags_and_sees_the_end() {
        let (out, into) = pipe().unwrap();
        let ours = reopen(&out).unwrap().unwrap();
        fcntl(&out, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        assert_eq!(read(&ours, &mut [0; RECORD]), Err(nix::Error::EAGAIN));
        drop(into);
        assert_eq!(read(&ours, &mut [0; RECORD]), Ok(0));
        assert!(reopen(&std::fs::File::open("/dev/null").unwrap().into()).is_none());
    }

    #[test]
    fn a_page_that_could_fault_is_not_mapped() {
        let memfd = |size: u64| Memfd::new("test").create(size).unwrap();
        assert!(map(&memfd(4096)).unwrap().is_ok());
        let unsealed = memfd_create("test", MFdFlags::MFD_CLOEXEC).unwrap();
        ftruncate(&unsealed, 4096).unwrap();
        assert!(map(&unsealed).is_none());
        let whole = memfd(4096);
        let path = format!("/proc/self/fd/{}", whole.as_raw_fd());
        assert!(map(&open(path.as_str(), OFlag::O_RDONLY, Mode::empty()).unwrap()).is_none());
        assert!(map(&std::fs::File::open("/dev/null").unwrap().into()).is_none());
    }
}
