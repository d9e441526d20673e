//! `VIDIOC_QBUF`: gives a buffer to the driver, to fill or to read.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::buffer::RawBuffer;
use super::{BufType, Failure, Memory, sys, uninterrupted};

mod raw {
    use v4l::{v4l_sys::v4l2_buffer, v4l2::vidioc::VIDIOC_QBUF};
    nix::ioctl_readwrite_bad!(vidioc_qbuf, VIDIOC_QBUF, v4l2_buffer);
}

/// A plane's dma-buf, for a queue that imports.
#[derive(Debug)]
pub struct DmabufPlane {
    /// The dma-buf.
    pub fd: OwnedFd,
    /// Bytes of it that the driver may write.
    pub length: u32,
}

/// What a queue's buffers are made of.
#[derive(Debug, Clone, Copy)]
pub enum QbufPlanes<'a> {
    /// `V4L2_MEMORY_MMAP`: the driver knows the memory; only the number of planes is told.
    Mmap(usize),
    /// `V4L2_MEMORY_DMABUF`: a dma-buf a plane. Naming another one than the time before makes the driver map it anew.
    Dmabuf(&'a [DmabufPlane]),
}

/// Why the driver did not take a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QbufError {
    /// EINVAL: the buffer is queued already, the index is wrong, or the driver refused its memory.
    #[error(
        "VIDIOC_QBUF: the driver refused buffer {index} (EINVAL): it is queued already, there is none of that number, \
         or its memory is no dma-buf or too small for the format"
    )]
    Refused {
        /// The buffer.
        index: u32,
    },
    /// EFAULT: the device cannot get at the memory.
    #[error(
        "VIDIOC_QBUF: the device cannot reach the memory of buffer {index} (EFAULT); it needs physically contiguous \
         memory: import from a CMA heap, or let the device allocate (memory MMAP)"
    )]
    OutOfReach {
        /// The buffer.
        index: u32,
    },
    /// EIO: a fatal error has stopped the queue.
    #[error("VIDIOC_QBUF: the driver has stopped the queue after a fatal error (EIO); stop streaming and start again")]
    QueueError,
    /// As for every ioctl.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Queues buffer `index`.
///
/// Thread-safe: the kernel takes the queue's lock. **Nobody is waited for**: the driver overwrites a buffer that a
/// display or a mapping is still reading, so queue only what has no reader left.
///
/// # Errors
/// See [`QbufError`].
pub fn qbuf(fd: impl AsFd, buf_type: BufType, index: u32, planes: QbufPlanes<'_>) -> Result<(), QbufError> {
    let fd = fd.as_fd();
    call(fd, index, &mut planes.to_raw(buf_type, index))
}

/// A picture's plane on its way into a device.
#[derive(Debug, Clone, Copy)]
pub struct OutputPlane<'a> {
    /// The dma-buf.
    pub fd: BorrowedFd<'a>,
    /// Bytes of it.
    pub length: u32,
    /// Bytes from its start that are picture. Not 0, which the kernel takes for all of it.
    pub bytesused: u32,
}

/// Queues picture `index` of an output queue that imports (`V4L2_MEMORY_DMABUF`), at most [`VIDEO_MAX_PLANES`](super::VIDEO_MAX_PLANES) planes.
/// A memory-to-memory device copies the time stamp, in whole microseconds, to what it makes of the picture.
///
/// # Errors
/// See [`QbufError`].
pub fn qbuf_output<'a>(
    fd: impl AsFd,
    buf_type: BufType,
    index: u32,
    planes: impl ExactSizeIterator<Item = OutputPlane<'a>>,
    timestamp_ns: u64,
) -> Result<(), QbufError> {
    let mut buffer = RawBuffer::of_output(buf_type, index, planes);
    buffer.buffer.timestamp.tv_sec = (timestamp_ns / 1_000_000_000) as _;
    buffer.buffer.timestamp.tv_usec = (timestamp_ns % 1_000_000_000 / 1_000) as _;
    call(fd.as_fd(), index, &mut buffer)
}

fn call(fd: BorrowedFd<'_>, index: u32, buffer: &mut RawBuffer) -> Result<(), QbufError> {
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_buffer and, through its pointer, as
    // many planes as its length says, all of which `buffer` owns.
    uninterrupted(|| unsafe { raw::vidioc_qbuf(fd.as_raw_fd(), buffer.as_mut_ptr()) }).map_err(|errno| match errno {
        Errno::EINVAL => QbufError::Refused { index },
        Errno::EFAULT => QbufError::OutOfReach { index },
        Errno::EIO => QbufError::QueueError,
        errno => Failure::new("VIDIOC_QBUF", errno).into(),
    })
}

impl RawBuffer {
    #[inline]
    pub(super) fn of_output<'a>(
        buf_type: BufType,
        index: u32,
        planes: impl ExactSizeIterator<Item = OutputPlane<'a>>,
    ) -> RawBuffer {
        let mut buffer = RawBuffer::new(buf_type, Memory::Dmabuf, index, planes.len());
        for (plane, p) in planes.enumerate().take(buffer.num_planes()) {
            buffer.set_dmabuf(plane, p.fd, p.length);
            buffer.set_payload(plane, p.bytesused);
        }
        buffer.buffer.field = sys::v4l2_field_V4L2_FIELD_NONE;
        buffer
    }
}

impl QbufPlanes<'_> {
    #[inline]
    pub(super) fn to_raw(self, buf_type: BufType, index: u32) -> RawBuffer {
        match self {
            QbufPlanes::Mmap(num_planes) => RawBuffer::new(buf_type, Memory::Mmap, index, num_planes),
            QbufPlanes::Dmabuf(dmabufs) => {
                let mut buffer = RawBuffer::new(buf_type, Memory::Dmabuf, index, dmabufs.len());
                for (plane, dmabuf) in dmabufs.iter().enumerate().take(buffer.num_planes()) {
                    buffer.set_dmabuf(plane, dmabuf.fd.as_fd(), dmabuf.length);
                }
                buffer
            }
        }
    }
}
