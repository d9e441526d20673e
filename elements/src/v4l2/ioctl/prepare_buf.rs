//! `VIDIOC_PREPARE_BUF`: has the driver look at a buffer before the first frame.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{BufType, Failure, QbufError, QbufPlanes, uninterrupted};

mod raw {
    // The `v4l` crate has no number for it.
    use v4l::v4l_sys::v4l2_buffer;
    nix::ioctl_readwrite!(vidioc_prepare_buf, b'V', 93, v4l2_buffer);
}

/// Prepares buffer `index`, and returns each plane's `data_offset`: where the picture will begin in its memory. A
/// driver may still change its mind with a frame; DQBUF has the last word. Zeros where the driver cannot tell, and in
/// the single-planar API, which has no offsets.
///
/// # Errors
/// As [`qbuf`](super::qbuf); a queued buffer is refused.
pub fn prepare_buf(
    fd: impl AsFd,
    buf_type: BufType,
    index: u32,
    planes: QbufPlanes<'_>,
) -> Result<Vec<u32>, QbufError> {
    let fd = fd.as_fd();
    let mut buffer = planes.to_raw(buf_type, index);
    let num_planes = buffer.num_planes();
    if !buf_type.is_mplane() {
        return Ok(vec![0; num_planes]);
    }
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_buffer and, through its pointer, as
    // many planes as its length says, all of which `buffer` owns.
    match uninterrupted(|| unsafe { raw::vidioc_prepare_buf(fd.as_raw_fd(), buffer.as_mut_ptr()) }) {
        Ok(()) => Ok((0..num_planes).map(|plane| buffer.plane(plane).data_offset).collect()),
        Err(Errno::ENOTTY) => Ok(vec![0; num_planes]),
        Err(Errno::EINVAL) => Err(QbufError::Refused { index }),
        Err(Errno::EFAULT) => Err(QbufError::OutOfReach { index }),
        Err(errno) => Err(Failure::new("VIDIOC_PREPARE_BUF", errno).into()),
    }
}
