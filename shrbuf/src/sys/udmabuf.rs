//! UDMABUF_CREATE (`include/uapi/linux/udmabuf.h`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

#[repr(C)]
struct Create {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

const FLAGS_CLOEXEC: u32 = 1;

/// UDMABUF_CREATE: `_IOW('u', 0x42, struct udmabuf_create)`, which returns the new descriptor.
const CREATE: libc::c_ulong = nix::request_code_write!(b'u', 0x42, size_of::<Create>()) as libc::c_ulong;

/// Makes a dma-buf of the pages of `memfd`, which must be sealed against shrinking; offset 0, `size` page aligned.
pub(crate) fn create(device: BorrowedFd<'_>, memfd: BorrowedFd<'_>, size: u64) -> io::Result<OwnedFd> {
    let arg = Create { memfd: memfd.as_raw_fd() as u32, flags: FLAGS_CLOEXEC, offset: 0, size };
    // SAFETY: the pointer is to a live struct of the ioctl's type; the kernel only reads it.
    let fd = unsafe { libc::ioctl(device.as_raw_fd(), CREATE, &raw const arg) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: on success the kernel has installed a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
