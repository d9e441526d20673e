//! The ioctls of a sync_file (`include/uapi/linux/sync_file.h`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

#[repr(C)]
struct MergeData {
    name: [u8; 32],
    fd2: i32,
    fence: i32,
    flags: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct FileInfo {
    name: [u8; 32],
    status: i32,
    flags: u32,
    num_fences: u32,
    pad: u32,
    sync_fence_info: u64,
}

mod raw {
    nix::ioctl_readwrite!(merge, b'>', 3, super::MergeData);
    nix::ioctl_readwrite!(file_info, b'>', 4, super::FileInfo);
}

/// SYNC_IOC_MERGE: one fence that signals when both have.
pub(crate) fn merge(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut arg = MergeData { name: [0; 32], fd2: b.as_raw_fd(), fence: -1, flags: 0, pad: 0 };
    arg.name[..6].copy_from_slice(b"shrbuf");
    // SAFETY: the pointer is to a live struct of the ioctl's type.
    unsafe { raw::merge(a.as_raw_fd(), &mut arg)? };
    // SAFETY: on success the kernel has installed a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(arg.fence) })
}

/// SYNC_IOC_FILE_INFO: 1 signalled, 0 pending, a negative errno where the work behind the fence failed.
pub(crate) fn status(fd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut arg = FileInfo::default();
    // SAFETY: the pointer is to a live struct of the ioctl's type; with `num_fences` 0 the kernel fills only it.
    unsafe { raw::file_info(fd.as_raw_fd(), &mut arg)? };
    Ok(arg.status)
}
