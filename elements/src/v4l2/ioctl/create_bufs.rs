//! `VIDIOC_CREATE_BUFS`: one index more for a queue that has some, also while it streams.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{BufType, Failure, FmtError, Memory, Zeroed, g_fmt, sys, uninterrupted};

mod raw {
    // The `v4l` crate has no number for it.
    use v4l::v4l_sys::v4l2_create_buffers;
    nix::ioctl_readwrite!(vidioc_create_bufs, b'V', 92, v4l2_create_buffers);
}

/// Why there is no index more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CreateBufsError {
    /// EINVAL, ENOBUFS, ENOMEM, ENOTTY: the queue has as many as it can, or its driver does not do this.
    #[error("VIDIOC_CREATE_BUFS: the driver gives no index more")]
    NoMore,
    /// The format that is set is not to be had.
    #[error(transparent)]
    Fmt(#[from] FmtError),
    /// As for every ioctl.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// One index more, for buffers of the format that is set; which one.
///
/// # Errors
/// See [`CreateBufsError`].
pub fn create_buf(fd: impl AsFd, buf_type: BufType, memory: Memory) -> Result<u32, CreateBufsError> {
    let fd = fd.as_fd();
    let mut request = sys::v4l2_create_buffers::zeroed();
    request.count = 1;
    request.memory = memory as u32;
    request.format = g_fmt::in_use(fd, buf_type)?;
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_create_buffers, which `request` is.
    uninterrupted(|| unsafe { raw::vidioc_create_bufs(fd.as_raw_fd(), &mut request) }).map_err(
        |errno| match errno {
            Errno::EINVAL | Errno::ENOBUFS | Errno::ENOMEM | Errno::ENOTTY => CreateBufsError::NoMore,
            errno => Failure::new("VIDIOC_CREATE_BUFS", errno).into(),
        },
    )?;
    if request.count == 1 { Ok(request.index) } else { Err(CreateBufsError::NoMore) }
}
