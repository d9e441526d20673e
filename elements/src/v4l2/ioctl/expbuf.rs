//! `VIDIOC_EXPBUF`: a plane of a driver's buffer as a dma-buf.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use shrbuf::Access;

use super::{BufType, Failure, Zeroed, sys, uninterrupted};

mod raw {
    use v4l::{v4l_sys::v4l2_exportbuffer, v4l2::vidioc::VIDIOC_EXPBUF};
    nix::ioctl_readwrite_bad!(vidioc_expbuf, VIDIOC_EXPBUF, v4l2_exportbuffer);
}

/// Why a plane was not exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExpbufError {
    /// EINVAL: no such buffer or plane, or the queue is not of MMAP memory.
    #[error("VIDIOC_EXPBUF: buffer {index} plane {plane} is not there to export; request MMAP buffers first")]
    NoSuchPlane {
        /// Buffer asked for.
        index: u32,
        /// Plane asked for.
        plane: u32,
    },
    /// ENOTTY: the driver cannot share its buffers.
    #[error(
        "VIDIOC_EXPBUF: this driver cannot export its buffers; import buffers into it instead (memory DMABUF), or \
         allow a copy"
    )]
    NotExportable,
    /// EMFILE or ENFILE: a dma-buf needs a file descriptor, and there are none left.
    #[error("VIDIOC_EXPBUF: no descriptor left for buffer {index} plane {plane} (EMFILE); raise `ulimit -n`")]
    NoFileDescriptor {
        /// Buffer asked for.
        index: u32,
        /// Plane asked for.
        plane: u32,
    },
    /// As for every ioctl.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Exports one plane as a new dma-buf, closed on exec and open for `access` by CPUs. Devices import it for writing all the
/// same; but a GPU driver whose GPU is the CPU maps it, and Mesa's gives back no mapping of one that is for reading only.
///
/// **Each call makes another dma-buf, with an inode of its own, for the same memory**: export once, or nothing
/// downstream can tell that two fds are one buffer. The dma-buf stays valid after `REQBUFS(0)` and after the device is
/// closed.
///
/// # Errors
/// See [`ExpbufError`].
pub fn expbuf(
    fd: impl AsFd,
    buf_type: BufType,
    index: u32,
    plane: u32,
    access: Access,
) -> Result<OwnedFd, ExpbufError> {
    let fd = fd.as_fd();
    let mut export = sys::v4l2_exportbuffer::zeroed();
    export.type_ = buf_type as u32;
    export.index = index;
    export.plane = plane;
    let mode = match access {
        Access::Read => libc::O_RDONLY,
        Access::Write => libc::O_RDWR,
    };
    export.flags = (mode | libc::O_CLOEXEC) as u32;
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_exportbuffer, which `export` is.
    uninterrupted(|| unsafe { raw::vidioc_expbuf(fd.as_raw_fd(), &mut export) }).map_err(|errno| match errno {
        Errno::EINVAL => ExpbufError::NoSuchPlane { index, plane },
        Errno::ENOTTY => ExpbufError::NotExportable,
        Errno::EMFILE | Errno::ENFILE => ExpbufError::NoFileDescriptor { index, plane },
        errno => Failure::new("VIDIOC_EXPBUF", errno).into(),
    })?;
    // SAFETY: the call succeeded, so the kernel has just installed this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(export.fd) })
}
