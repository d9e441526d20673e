//! Messages with descriptors over Unix sockets: sendmsg(2), recvmsg(2), SCM_RIGHTS (unix(7)).
//!
//! `nix` has both calls, but its sender allocates for each message with descriptors, and its reader leaves those open for which
//! there was no room, which a hostile peer would use up ours with. Here nothing allocates, nothing waits, and no signal is raised.
//!
//! ```
//! use std::io::Read;
//! use std::os::fd::AsFd;
//! use std::os::unix::net::UnixStream;
//!
//! let (ours, theirs) = UnixStream::pair()?;
//! let (mut passed, kept) = UnixStream::pair()?;
//! shrbuf::rights::send(ours.as_fd(), b"one", &[kept])?;
//!
//! let (mut bytes, mut fds) = ([0; 8], Vec::new());
//! let received = shrbuf::rights::receive(theirs.as_fd(), &mut bytes, 4, |fd| fds.push(fd))?;
//! assert_eq!((&bytes[..received.len], received.whole, fds.len()), (&b"one"[..], true, 1));
//! fds.clear();
//! assert_eq!(passed.read(&mut bytes)?, 0, "both of the other end's descriptors are closed");
//! # Ok::<(), std::io::Error>(())
//! ```

use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors with a message: as many as libwayland sends, and has room for.
pub const MOST: usize = 28;

/// Room for so many descriptors.
const fn space(fds: usize) -> usize {
    // SAFETY: CMSG_SPACE only computes.
    unsafe { libc::CMSG_SPACE((fds * size_of::<RawFd>()) as u32) as usize }
}

/// Control messages begin with a `size_t`.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; space(MOST)]);

/// What [`receive`] brought beside descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes; 0 where the peer has closed, or sent a packet of none.
    pub len: usize,
    /// False where bytes of a packet, or descriptors, were left out for want of room; the kernel has closed those.
    pub whole: bool,
}

/// Sends bytes, and all of the descriptors with the first of them: how many bytes, which of a packet are all.
///
/// # Errors
/// The kernel's: `WouldBlock` where the socket is full, `BrokenPipe` where the peer has closed. `InvalidInput` with more than
/// [`MOST`] descriptors.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[impl AsFd]) -> io::Result<usize> {
    if fds.len() > MOST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Written whole below, as far as it is sent.
    let mut control = Control([MaybeUninit::zeroed(); space(MOST)]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all of msghdr's fields may be zero.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    if !fds.is_empty() {
        header.msg_control = (&raw mut control).cast();
        header.msg_controllen = space(fds.len()) as _;
        // SAFETY: the buffer is aligned for a header, and has room for one with MOST descriptors, of which there are no more.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN((fds.len() * size_of::<RawFd>()) as u32) as _;
            for (i, fd) in fds.iter().enumerate() {
                libc::CMSG_DATA(message).cast::<RawFd>().add(i).write_unaligned(fd.as_fd().as_raw_fd());
            }
        }
    }
    repeat(|| {
        // SAFETY: the header names live buffers, which the kernel only reads.
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) }
    })
}

/// Takes what has come, and gives `take` each descriptor with it, close-on-exec: `most` at most, which is even and up to
/// [`MOST`].
///
/// # Errors
/// The kernel's: `WouldBlock` where nothing has come.
pub fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    most: usize,
    mut take: impl FnMut(OwnedFd),
) -> io::Result<Received> {
    let mut control = Control([MaybeUninit::uninit(); space(MOST)]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all of msghdr's fields may be zero.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = space(most.min(MOST)) as _;
    let len = repeat(|| {
        // SAFETY: the header names a live slice and a live control buffer, by no more than their true lengths.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) }
    })?;
    // SAFETY: recvmsg has set `msg_controllen` to what it wrote into the control buffer.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give whole headers inside the control buffer, or null.
        let (level, kind, length) = unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len) };
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: CMSG_LEN only computes.
            let bytes = length.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
            for i in 0..bytes / size_of::<RawFd>() {
                // SAFETY: the kernel has written so many descriptors there, and they are ours alone.
                take(unsafe { OwnedFd::from_raw_fd(libc::CMSG_DATA(message).cast::<RawFd>().add(i).read_unaligned()) });
            }
        }
        // SAFETY: header and message are those of the buffer that recvmsg filled.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    Ok(Received { len, whole: header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) == 0 })
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
