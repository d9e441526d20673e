//! The ioctls of a dma-buf (`include/uapi/linux/dma-buf.h`).

use std::ffi::CStr;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

pub(crate) const SYNC_READ: u32 = 1;
pub(crate) const SYNC_WRITE: u32 = 2;
const SYNC_END: u64 = 4;

#[repr(C)]
struct Sync {
    flags: u64,
}

#[repr(C)]
struct SyncFile {
    flags: u32,
    fd: i32,
}

mod raw {
    nix::ioctl_write_ptr!(sync, b'b', 0, super::Sync);
    nix::ioctl_readwrite!(export_sync_file, b'b', 2, super::SyncFile);
    nix::ioctl_write_ptr!(import_sync_file, b'b', 3, super::SyncFile);
}
/// DMA_BUF_SET_NAME_B: `_IOW('b', 1, __u64)`, whose argument is a C string all the same.
const SET_NAME_B: libc::c_ulong = nix::request_code_write!(b'b', 1, 8) as libc::c_ulong;

/// What the kernel knows of a file without asking who serves it.
pub(crate) struct Known {
    /// Device of its file system.
    dev: (u32, u32),
    pub(crate) mode: u32,
}

/// What is known of a descriptor's file. Does not wait for a file system that another process serves.
pub(crate) fn known_of(fd: BorrowedFd<'_>) -> io::Result<Known> {
    // SAFETY: all of statx's fields may be zero.
    let mut found: libc::statx = unsafe { zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path is an empty C string, and the kernel writes one statx, which `found` is.
    let done = unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), flags, libc::STATX_TYPE, &raw mut found) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Known { dev: (found.stx_dev_major, found.stx_dev_minor), mode: u32::from(found.stx_mode) })
}

/// The one file system of all dma-bufs, once one was seen.
static DEVICE: OnceLock<(u32, u32)> = OnceLock::new();

/// Whether a descriptor is a dma-buf. Statfs(2) would say, but a file system that another process serves would be waited
/// for; what `/proc` says of a descriptor is the kernel's, and only of a dma-buf that it has an exporter.
pub(crate) fn is(fd: BorrowedFd<'_>, known: &Known) -> io::Result<bool> {
    if let Some(device) = DEVICE.get() {
        return Ok(known.dev == *device);
    }
    let info = std::fs::read(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let is = info.split(|&b| b == b'\n').any(|line| line.starts_with(b"exp_name:"));
    if is {
        // Another thread may have been faster, with the same.
        let _ = DEVICE.set(known.dev);
    }
    Ok(is)
}

fn sync(fd: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    loop {
        // SAFETY: the pointer is to a live struct of the ioctl's type; the kernel only reads it.
        match unsafe { raw::sync(fd.as_raw_fd(), &Sync { flags }) } {
            Ok(_) => return Ok(()),
            // dma-buf.rst: begin_cpu_access may be interrupted and is to be repeated.
            Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// DMA_BUF_SYNC_START. Blocks until the fences that stand against `access` have signalled.
pub(crate) fn sync_start(fd: BorrowedFd<'_>, access: u32) -> io::Result<()> {
    sync(fd, u64::from(access))
}

/// DMA_BUF_SYNC_END.
pub(crate) fn sync_end(fd: BorrowedFd<'_>, access: u32) -> io::Result<()> {
    sync(fd, u64::from(access) | SYNC_END)
}

/// DMA_BUF_IOCTL_EXPORT_SYNC_FILE (Linux 6.0): the fences that someone about to do `access` must wait for.
pub(crate) fn export_sync_file(fd: BorrowedFd<'_>, access: u32) -> io::Result<OwnedFd> {
    let mut arg = SyncFile { flags: access, fd: -1 };
    // SAFETY: the pointer is to a live struct of the ioctl's type.
    unsafe { raw::export_sync_file(fd.as_raw_fd(), &mut arg)? };
    // SAFETY: on success the kernel has installed a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(arg.fd) })
}

/// DMA_BUF_IOCTL_IMPORT_SYNC_FILE (Linux 6.0): adds a fence for `access` to the dma-buf.
pub(crate) fn import_sync_file(fd: BorrowedFd<'_>, access: u32, fence: BorrowedFd<'_>) -> io::Result<()> {
    let arg = SyncFile { flags: access, fd: fence.as_raw_fd() };
    // SAFETY: the pointer is to a live struct of the ioctl's type; the kernel takes its own reference to the fence.
    unsafe { raw::import_sync_file(fd.as_raw_fd(), &arg)? };
    Ok(())
}

/// DMA_BUF_SET_NAME_B: the name shown in debugfs; the kernel takes up to 31 bytes.
pub(crate) fn set_name(fd: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    // SAFETY: `name` is a NUL-terminated string that the kernel copies.
    let r = unsafe { libc::ioctl(fd.as_raw_fd(), SET_NAME_B, name.as_ptr()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
