//! System calls that the crates have not as they are needed here: messages with descriptors over the compositor's socket, where
//! `nix` would allocate for each, and the ioctl of `drm.h` that crate `drm` cannot make: it imports a fence into a new object
//! only, and the kernel only into one that there is.

use std::collections::VecDeque;
use std::io;
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

/// Most descriptors with a message; libwayland has room for no more either.
pub(super) const MAX_FDS: usize = 28;

/// Room for [`MAX_FDS`] descriptors.
const CONTROL: usize = {
    // SAFETY: CMSG_SPACE only computes.
    unsafe { libc::CMSG_SPACE((MAX_FDS * size_of::<RawFd>()) as u32) as usize }
};

/// Control messages begin with a `size_t`.
#[repr(C, align(8))]
struct Control([MaybeUninit<u8>; CONTROL]);

/// A byte count of the kernel, or its error; anew where a signal came.
fn repeat(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(bytes) => return Ok(bytes),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Sends some of the bytes, and all of the descriptors with the first of them: how many bytes. Does not wait.
///
/// # Panics
/// With more than [`MAX_FDS`] descriptors.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    assert!(fds.len() <= MAX_FDS);
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    if fds.is_empty() {
        // SAFETY: the kernel reads a live slice by its true length.
        return repeat(|| unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) });
    }
    let mut control = Control([MaybeUninit::uninit(); CONTROL]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let length = size_of_val(fds) as u32;
    // SAFETY: all of msghdr's fields may be zero.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    // SAFETY: CMSG_SPACE only computes.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(length) } as _;
    // SAFETY: the control buffer is aligned for a header and has room for one with so many descriptors, which are written
    // there one after the other.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::SOL_SOCKET;
        (*message).cmsg_type = libc::SCM_RIGHTS;
        (*message).cmsg_len = libc::CMSG_LEN(length) as _;
        for (i, fd) in fds.iter().enumerate() {
            libc::CMSG_DATA(message).cast::<RawFd>().add(i).write_unaligned(fd.as_raw_fd());
        }
    }
    // SAFETY: the header names a live slice and a live control buffer; the kernel writes to neither.
    repeat(|| unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) })
}

/// Takes bytes that have come, and the descriptors with them, close-on-exec. 0 where the other side has closed.
///
/// # Errors
/// The kernel's, `WouldBlock` among them; `InvalidData` where more descriptors came than anybody may send at once.
pub(super) fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8], fds: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut control = Control([MaybeUninit::uninit(); CONTROL]);
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all of msghdr's fields may be zero.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header names a live slice and a live control buffer by their true lengths.
    let received = repeat(|| unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) })?;
    // SAFETY: recvmsg has set `msg_controllen` to what it wrote into the control buffer.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give whole headers inside the control buffer, or null.
        let (level, kind, length) = unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len) };
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: CMSG_LEN only computes.
            let length = length.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
            for i in 0..length / size_of::<RawFd>() {
                // SAFETY: the kernel has written so many descriptors there, and they are ours alone.
                fds.push_back(unsafe {
                    OwnedFd::from_raw_fd(libc::CMSG_DATA(message).cast::<RawFd>().add(i).read_unaligned())
                });
            }
        }
        // SAFETY: header and message are those of the buffer that recvmsg filled.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors of the compositor's did not arrive"));
    }
    Ok(received)
}
#[repr(C)]
struct DrmSyncobjHandle {
    handle: u32,
    flags: u32,
    fd: i32,
    pad: u32,
}

const IMPORT_SYNC_FILE: u32 = 1;

mod raw {
    nix::ioctl_readwrite!(syncobj_fd_to_handle, b'd', 0xc2, super::DrmSyncobjHandle);
}

/// `DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE`: has `syncobj` be signalled when `sync_file` is.
pub(super) fn import_sync_file(node: BorrowedFd<'_>, syncobj: u32, sync_file: BorrowedFd<'_>) -> io::Result<()> {
    let mut import = DrmSyncobjHandle { handle: syncobj, flags: IMPORT_SYNC_FILE, fd: sync_file.as_raw_fd(), pad: 0 };
    loop {
        // SAFETY: both descriptors are open during the call; the kernel reads and writes one struct, which `import` is.
        match unsafe { raw::syncobj_fd_to_handle(node.as_raw_fd(), &mut import) } {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
