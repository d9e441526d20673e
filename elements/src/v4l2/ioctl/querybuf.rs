//! `VIDIOC_QUERYBUF`: the planes of an allocated buffer.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::buffer::RawBuffer;
use super::{BufType, Failure, Memory, VIDEO_MAX_PLANES, uninterrupted};

mod raw {
    use v4l::{v4l_sys::v4l2_buffer, v4l2::vidioc::VIDIOC_QUERYBUF};
    nix::ioctl_readwrite_bad!(vidioc_querybuf, VIDIOC_QUERYBUF, v4l2_buffer);
}

/// A plane's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferPlane {
    /// Bytes, never 0.
    pub length: u32,
}

/// Why a buffer cannot be described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuerybufError {
    /// EINVAL: the index is beyond the buffers that were granted.
    #[error("VIDIOC_QUERYBUF: there is no buffer {index}; request buffers first")]
    NoSuchBuffer {
        /// What was asked for.
        index: u32,
    },
    /// The driver describes a plane without memory.
    #[error("VIDIOC_QUERYBUF: the driver says that plane {plane} of buffer {index} has 0 bytes; set a format first")]
    EmptyPlane {
        /// The buffer.
        index: u32,
        /// The plane.
        plane: usize,
    },
    /// As for every ioctl.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// The planes of buffer `index`, 1 to 8 of them.
///
/// # Errors
/// See [`QuerybufError`].
pub fn querybuf(
    fd: impl AsFd,
    buf_type: BufType,
    memory: Memory,
    index: u32,
) -> Result<Vec<BufferPlane>, QuerybufError> {
    let fd = fd.as_fd();
    let mut buffer = RawBuffer::new(buf_type, memory, index, VIDEO_MAX_PLANES);
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_buffer and, through its pointer, as
    // many planes as its length says, all of which `buffer` owns.
    uninterrupted(|| unsafe { raw::vidioc_querybuf(fd.as_raw_fd(), buffer.as_mut_ptr()) }).map_err(
        |errno| match errno {
            Errno::EINVAL => QuerybufError::NoSuchBuffer { index },
            errno => Failure::new("VIDIOC_QUERYBUF", errno).into(),
        },
    )?;
    (0..buffer.num_planes())
        .map(|plane| match buffer.plane(plane).length {
            0 => Err(QuerybufError::EmptyPlane { index, plane }),
            length => Ok(BufferPlane { length }),
        })
        .collect()
}
