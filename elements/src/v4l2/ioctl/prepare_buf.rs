//! `VIDIOC_PREPARE_BUF`: has the driver look at a buffer before the first frame.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::buffer::RawBuffer;
use super::{BufType, Failure, OutputPlane, QbufError, QbufPlanes, uninterrupted};

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
    let mut buffer = planes.to_raw(buf_type, index);
    let num_planes = buffer.num_planes();
    if !buf_type.is_mplane() || !call(fd.as_fd(), index, &mut buffer)? {
        return Ok(vec![0; num_planes]);
    }
    Ok((0..num_planes).map(|plane| buffer.plane(plane).data_offset).collect())
}

/// Has the driver map the memory of a picture that is to go into the device, to see whether it can. From then on, and
/// until the queue is freed, `index` is this picture, whatever [`qbuf_output`](super::qbuf_output) says.
///
/// # Errors
/// As [`qbuf_output`](super::qbuf_output).
pub fn prepare_output<'a>(
    fd: impl AsFd,
    buf_type: BufType,
    index: u32,
    planes: impl ExactSizeIterator<Item = OutputPlane<'a>>,
) -> Result<(), QbufError> {
    let mut buffer = RawBuffer::of_output(buf_type, index, planes);
    call(fd.as_fd(), index, &mut buffer).map(drop)
}

/// False where the driver does not implement it.
fn call(fd: BorrowedFd<'_>, index: u32, buffer: &mut RawBuffer) -> Result<bool, QbufError> {
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_buffer and, through its pointer, as
    // many planes as its length says, all of which `buffer` owns.
    match uninterrupted(|| unsafe { raw::vidioc_prepare_buf(fd.as_raw_fd(), buffer.as_mut_ptr()) }) {
        Ok(()) => Ok(true),
        Err(Errno::ENOTTY) => Ok(false),
        Err(Errno::EINVAL) => Err(QbufError::Refused { index }),
        Err(Errno::EFAULT) => Err(QbufError::OutOfReach { index }),
        Err(errno) => Err(Failure::new("VIDIOC_PREPARE_BUF", errno).into()),
    }
}
