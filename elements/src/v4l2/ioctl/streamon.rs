//! `VIDIOC_STREAMON` and `VIDIOC_STREAMOFF`.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{BufType, Failure, uninterrupted};

mod raw {
    use libc::c_int;
    use v4l::v4l2::vidioc::{VIDIOC_STREAMOFF, VIDIOC_STREAMON};
    nix::ioctl_write_ptr_bad!(vidioc_streamon, VIDIOC_STREAMON, c_int);
    nix::ioctl_write_ptr_bad!(vidioc_streamoff, VIDIOC_STREAMOFF, c_int);
}

/// Why a stream did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamonError {
    /// EINVAL: no buffers, or too few.
    #[error("VIDIOC_STREAMON: the driver refused (EINVAL); it may need more buffers allocated and queued")]
    NotReady,
    /// EPIPE: the links or pads of a media-controller pipeline do not agree.
    #[error(
        "VIDIOC_STREAMON: the media pipeline behind this node is not set up (EPIPE); set formats on it with media-ctl"
    )]
    BrokenPipeline,
    /// ENOLINK: the media-controller pipeline is not connected.
    #[error("VIDIOC_STREAMON: nothing is linked to this node (ENOLINK); enable its links with media-ctl")]
    NoLink,
    /// ENOSPC: the bus has no bandwidth left.
    #[error(
        "VIDIOC_STREAMON: not enough bus bandwidth for this format (ENOSPC); use a lower rate, a smaller size, a \
         compressed format or another USB controller"
    )]
    NoBandwidth,
    /// As for every ioctl.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Starts capturing into the queued buffers. Repeating it does nothing.
///
/// # Errors
/// See [`StreamonError`]. After one, buffers that were queued still are: [`streamoff`] gives them back.
pub fn streamon(fd: impl AsFd, buf_type: BufType) -> Result<(), StreamonError> {
    let fd = fd.as_fd();
    let buf_type = buf_type as libc::c_int;
    // SAFETY: `fd` is open during the call; the kernel reads one int, which `buf_type` is.
    uninterrupted(|| unsafe { raw::vidioc_streamon(fd.as_raw_fd(), &buf_type) }).map_err(|errno| match errno {
        Errno::EINVAL => StreamonError::NotReady,
        Errno::EPIPE => StreamonError::BrokenPipeline,
        Errno::ENOLINK => StreamonError::NoLink,
        Errno::ENOSPC => StreamonError::NoBandwidth,
        errno => Failure::new("VIDIOC_STREAMON", errno).into(),
    })
}

/// Stops capturing: waits for the hardware to let go, drops frames not dequeued, and gives every queued buffer back.
/// Also clears a queue's fatal error. Harmless on a queue that is not streaming.
///
/// # Errors
/// Only [`Failure`].
pub fn streamoff(fd: impl AsFd, buf_type: BufType) -> Result<(), Failure> {
    let fd = fd.as_fd();
    let buf_type = buf_type as libc::c_int;
    // SAFETY: `fd` is open during the call; the kernel reads one int, which `buf_type` is.
    uninterrupted(|| unsafe { raw::vidioc_streamoff(fd.as_raw_fd(), &buf_type) })
        .map_err(|errno| Failure::new("VIDIOC_STREAMOFF", errno))
}
