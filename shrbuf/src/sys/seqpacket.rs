//! A message and its descriptors over a SOCK_SEQPACKET socket: sendmsg(2), recvmsg(2), SCM_RIGHTS (unix(7)).
//!
//! `nix` has both calls, but its reader leaves descriptors open where there were more than it had room for, which a
//! hostile peer would use up ours with. Nothing here allocates.

use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{MsgFlags, SockFlag, recvmsg};

/// Most descriptors that a message brings: one for each plane.
pub(crate) const MAX_FDS: usize = 4;

/// Room for [`MAX_FDS`] descriptors; the kernel closes those for which there is none.
const CONTROL: usize = {
    // SAFETY: CMSG_SPACE only computes.
    unsafe { libc::CMSG_SPACE((MAX_FDS * size_of::<RawFd>()) as u32) as usize }
};

/// Control messages begin with a `size_t`.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; CONTROL]);

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
    let mut control = Control([MaybeUninit::uninit(); CONTROL]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all of msghdr's fields may be zero.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL as _;
    let len = repeat(|| {
        // SAFETY: the header names a live slice and a live control buffer by their true lengths.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) }
    })?;
    let mut received = Received { len, fds: [const { None }; MAX_FDS], whole: true };
    received.whole = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) == 0;
    // SAFETY: recvmsg has set `msg_controllen` to what it wrote into the control buffer.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give whole headers inside the control buffer, or null.
        let (level, kind, length) = unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len) };
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: CMSG_LEN only computes.
            let bytes = length.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
            for i in 0..(bytes / size_of::<RawFd>()).min(MAX_FDS) {
                // SAFETY: the kernel has written so many descriptors there, and they are ours alone.
                let fd =
                    unsafe { OwnedFd::from_raw_fd(libc::CMSG_DATA(message).cast::<RawFd>().add(i).read_unaligned()) };
                match received.fds.iter_mut().find(|f| f.is_none()) {
                    Some(free) => *free = Some(fd),
                    None => received.whole = false,
                }
            }
        }
        // SAFETY: header and message are those of the buffer that recvmsg filled.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    Ok(received)
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

/// Sends a message with up to [`MAX_FDS`] descriptors, whole or not at all; `WouldBlock` where the socket is full.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > MAX_FDS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Written whole below, as far as it is sent.
    let mut control = Control([MaybeUninit::zeroed(); CONTROL]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all of msghdr's fields may be zero.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    if !fds.is_empty() {
        let bytes = (fds.len() * size_of::<RawFd>()) as u32;
        header.msg_control = (&raw mut control).cast();
        // SAFETY: CMSG_SPACE only computes.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
        // SAFETY: the buffer has room for a header and MAX_FDS descriptors, and there are no more of them.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(bytes) as _;
            for (i, fd) in fds.iter().enumerate() {
                libc::CMSG_DATA(message).cast::<RawFd>().add(i).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    repeat(|| {
        // SAFETY: the header names live buffers, which the kernel only reads.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) }
    })
    .map(drop)
}

/// Takes a connection, close-on-exec; `EAGAIN` where there is none.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let fd = nix::sys::socket::accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: accept4(2) has just made it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A call repeated over EINTR.
fn repeat(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(n) => return Ok(n),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
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
