//! A message over a SOCK_SEQPACKET socket, with descriptors or without. Nothing here allocates.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, SockFlag, recvmsg};

use super::rights;

/// Most descriptors that a message brings: one for each plane.
pub(crate) const MAX_FDS: usize = 4;

/// What recvmsg(2) brought.
#[derive(Debug)]
pub(crate) struct Received {
    /// Bytes; 0 where the peer has closed, or sent a message of none.
    pub(crate) len: usize,
    /// Descriptors, close-on-exec.
    pub(crate) fds: [Option<OwnedFd>; MAX_FDS],
    /// False where bytes or descriptors were left out for want of room.
    pub(crate) whole: bool,
}

/// Takes a message; `WouldBlock` where there is none.
pub(crate) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Received> {
    let (mut fds, mut count) = ([const { None }; MAX_FDS], 0);
    let rights::Received { len, whole } = rights::receive(socket, bytes, MAX_FDS, |fd| {
        if let Some(free) = fds.get_mut(count) {
            *free = Some(fd);
        }
        count += 1;
    })?;
    Ok(Received { len, fds, whole: whole && count <= MAX_FDS })
}

/// Takes a message that is to bring no descriptors: how long it is, and whether it was whole and brought none.
///
/// Without a control buffer the kernel installs no descriptor, so that none of a hostile peer's has to be closed here:
/// close(2) of one of a FUSE file system waits for whoever serves that.
pub(crate) fn receive_plain(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, bool)> {
    let mut part = [io::IoSliceMut::new(bytes)];
    loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut part, None, MsgFlags::MSG_DONTWAIT) {
            Ok(m) => return Ok((m.bytes, !m.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC))),
            Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Sends a message, whole or not at all; `WouldBlock` where the socket is full.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    rights::send(socket, bytes, fds).map(drop)
}

/// Takes a connection, close-on-exec; `EAGAIN` where there is none.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let fd = nix::sys::socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: accept4(2) has just made it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(all(test, not(miri), not(loom)))]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (a, b) = pair();
        let (x, y) = pair();
        send(a.as_fd(), b"frame", &[x.as_fd(), y.as_fd()]).unwrap();
        let mut bytes = [0; 16];
        let got = receive(b.as_fd(), &mut bytes).unwrap();
        assert_eq!((&bytes[..got.len], got.whole, got.fds.iter().flatten().count()), (&b"frame"[..], true, 2));
        send(got.fds[0].as_ref().unwrap().as_fd(), b"through", &[]).unwrap();
        assert_eq!(receive(y.as_fd(), &mut bytes).unwrap().len, 7);
    }

    #[test]
    fn nothing_there_would_block_and_closed_is_empty() {
        let (a, b) = pair();
        let mut bytes = [0; 16];
        assert_eq!(receive(b.as_fd(), &mut bytes).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(receive(b.as_fd(), &mut bytes).unwrap().len, 0);
    }

    #[test]
    fn message_too_long_is_not_whole() {
        let (a, b) = pair();
        send(a.as_fd(), &[7; 100], &[]).unwrap();
        let mut bytes = [0; 16];
        assert!(!receive(b.as_fd(), &mut bytes).unwrap().whole);
    }

    #[test]
    fn descriptors_too_many_are_not_whole_and_none_stays_open() {
        use nix::sys::socket::{ControlMessage, sendmsg};
        let ((a, b), (x, y)) = (pair(), pair());
        let many = [x.as_raw_fd(); 9];
        let part = [io::IoSlice::new(b"f")];
        sendmsg::<()>(a.as_raw_fd(), &part, &[ControlMessage::ScmRights(&many)], MsgFlags::empty(), None).unwrap();
        let mut bytes = [0; 16];
        let got = receive(b.as_fd(), &mut bytes).unwrap();
        assert!(!got.whole);
        drop((got, x));
        // The last descriptor of that end is gone, so that this one is at its end.
        assert_eq!(receive(y.as_fd(), &mut bytes).unwrap().len, 0);
    }

    #[test]
    fn descriptors_where_none_should_be_are_not_whole() {
        let ((a, b), (x, y)) = (pair(), pair());
        send(a.as_fd(), b"f", &[x.as_fd()]).unwrap();
        send(a.as_fd(), b"f", &[]).unwrap();
        drop(x);
        let mut bytes = [0; 16];
        assert_eq!(receive_plain(b.as_fd(), &mut bytes).unwrap(), (1, false));
        assert_eq!(receive(y.as_fd(), &mut bytes).unwrap().len, 0, "it stayed open");
        assert_eq!(receive_plain(b.as_fd(), &mut bytes).unwrap(), (1, true));
        let empty = receive_plain(b.as_fd(), &mut bytes).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn full_socket_would_block() {
        let (a, _b) = pair();
        let full = (0..100_000).find_map(|_| send(a.as_fd(), b"f", &[]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn dead_peer_is_an_error_and_no_signal() {
        let (a, b) = pair();
        drop(b);
        assert_eq!(send(a.as_fd(), b"f", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
