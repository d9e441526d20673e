//! The ioctl of `drm.h` that crate `drm` cannot make: it imports a fence into a new object only, and the kernel only into one
//! that there is.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

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
