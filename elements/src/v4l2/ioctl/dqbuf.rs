//! `VIDIOC_DQBUF`: takes a filled buffer from the driver.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use v4l::buffer::Flags;

use super::buffer::{RawBuffer, RawPlane};
use super::{BufType, Failure, Field, Memory, VIDEO_MAX_PLANES, sys, uninterrupted};

mod raw {
    use v4l::{v4l_sys::v4l2_buffer, v4l2::vidioc::VIDIOC_DQBUF};
    nix::ioctl_readwrite_bad!(vidioc_dqbuf, VIDIOC_DQBUF, v4l2_buffer);
}

/// What DQBUF found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dequeued {
    /// A buffer, now the caller's until it is queued again.
    Buffer(Buffer),
    /// EAGAIN: none is filled yet; poll for `POLLIN`.
    NotReady,
    /// EPIPE: the buffer with [`Buffer::is_last`] has been taken, and nothing will follow it.
    EndOfStream,
}

/// A filled buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Which of the queue's buffers.
    pub index: u32,
    /// Counts frames from 0, dropped ones included; wraps at 2^32. A driver may repeat one: vivid does
    /// now and then, where two frames come close together.
    pub sequence: u32,
    /// When it was captured.
    pub timestamp: Timestamp,
    /// What of an interlaced picture is in it.
    pub field: Field,
    /// As the kernel set them.
    pub flags: Flags,
    planes: [PlanePayload; VIDEO_MAX_PLANES],
    num_planes: u8,
}

impl Buffer {
    /// What was written to each plane, in order.
    pub fn planes(&self) -> &[PlanePayload] {
        &self.planes[..usize::from(self.num_planes)]
    }

    /// `V4L2_BUF_FLAG_ERROR`: the stream goes on, but this picture is damaged or incomplete.
    pub fn is_corrupt(&self) -> bool {
        self.flags.contains(Flags::ERROR)
    }

    /// `V4L2_BUF_FLAG_LAST`: nothing follows; its planes may be empty.
    pub fn is_last(&self) -> bool {
        self.flags.contains(Flags::LAST)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Buffer { index, sequence, timestamp, field, flags, .. } = self;
        write!(f, "Buffer {index} #{sequence} {timestamp:?} {field:?} [{flags:?}] {:?}", self.planes())
    }
}

/// What was written to a plane, none of it outside of the plane's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlanePayload {
    /// Bytes from the start of the plane's memory to the picture; 0 save for some multi-planar drivers.
    pub data_offset: u32,
    /// Bytes of picture after `data_offset` (the kernel's own field includes it).
    pub bytesused: u32,
}

/// When a buffer was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// Nanoseconds, in whole microseconds (the kernel passes a `timeval`). The kernel's 64-bit counter, which may start
    /// anywhere: take differences with `wrapping_sub`.
    pub ns: u64,
    /// Since when.
    pub clock: Clock,
    /// Of what moment.
    pub source: TimestampSource,
}

/// A time stamp's clock (`V4L2_BUF_FLAG_TIMESTAMP_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// Copied from the buffer that was queued on the other side of a memory-to-memory device.
    Copy,
    /// The driver does not say.
    Unknown,
}

/// The moment a time stamp stands for (`V4L2_BUF_FLAG_TSTAMP_SRC_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampSource {
    /// The last pixel arrived.
    EndOfFrame,
    /// Exposure began.
    StartOfExposure,
}

/// Why nothing was dequeued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DqbufError {
    /// EINVAL: the queue is not streaming.
    #[error("VIDIOC_DQBUF: the queue is not streaming (EINVAL); start it first")]
    NotStreaming,
    /// EIO: a fatal error has stopped the queue.
    #[error("VIDIOC_DQBUF: the driver has stopped the queue after a fatal error (EIO); stop streaming and start again")]
    QueueError,
    /// The driver reports more bytes than the plane has. The buffer was dequeued; queue it again.
    #[error(
        "VIDIOC_DQBUF: the driver reports bytes {data_offset}..{end} of plane {plane} of buffer {index}, which has \
         {length} bytes; this is a bug in the driver"
    )]
    Overrun {
        /// The buffer.
        index: u32,
        /// The plane.
        plane: usize,
        /// First byte of the picture.
        data_offset: u32,
        /// First byte after the picture (the kernel's `bytesused`).
        end: u32,
        /// Bytes the plane has.
        length: u32,
    },
    /// The driver returned a buffer that it was not given.
    #[error("VIDIOC_DQBUF: the driver returned buffer {index}, which was not queued; this is a bug in the driver")]
    NotQueued {
        /// What it returned.
        index: u32,
    },
    /// As for every ioctl.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Takes the oldest filled buffer of a queue whose buffers have `num_planes` planes, as QUERYBUF said.
/// On a device opened with `O_NONBLOCK` it never waits.
///
/// # Errors
/// See [`DqbufError`].
#[inline]
pub fn dqbuf(fd: impl AsFd, buf_type: BufType, memory: Memory, num_planes: usize) -> Result<Dequeued, DqbufError> {
    let fd = fd.as_fd();
    let mut buffer = RawBuffer::new(buf_type, memory, 0, num_planes);
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_buffer and, through its pointer, as
    // many planes as its length says, all of which `buffer` owns.
    match uninterrupted(|| unsafe { raw::vidioc_dqbuf(fd.as_raw_fd(), buffer.as_mut_ptr()) }) {
        Ok(()) => Buffer::checked(&buffer).map(Dequeued::Buffer),
        Err(Errno::EAGAIN) => Ok(Dequeued::NotReady),
        Err(Errno::EPIPE) => Ok(Dequeued::EndOfStream),
        Err(Errno::EINVAL) => Err(DqbufError::NotStreaming),
        Err(Errno::EIO) => Err(DqbufError::QueueError),
        Err(errno) => Err(Failure::new("VIDIOC_DQBUF", errno).into()),
    }
}

impl Buffer {
    // Always, so that it is made where it stays: else a frame's are moved three times.
    #[inline(always)]
    fn checked(raw: &RawBuffer) -> Result<Buffer, DqbufError> {
        let b = &raw.buffer;
        let mut planes = [PlanePayload::default(); VIDEO_MAX_PLANES];
        let num_planes = raw.num_planes();
        for (plane, payload) in planes[..num_planes].iter_mut().enumerate() {
            *payload = PlanePayload::checked(raw.plane(plane), b.index, plane)?;
        }
        Ok(Buffer {
            index: b.index,
            sequence: b.sequence,
            timestamp: Timestamp::new(b.timestamp.tv_sec, b.timestamp.tv_usec, b.flags),
            field: Field::from(b.field),
            flags: Flags::from_bits_truncate(b.flags),
            planes,
            num_planes: num_planes as u8,
        })
    }
}

impl PlanePayload {
    fn checked(raw: RawPlane, index: u32, plane: usize) -> Result<PlanePayload, DqbufError> {
        let RawPlane { bytesused: end, data_offset, length } = raw;
        if end > length {
            return Err(DqbufError::Overrun { index, plane, data_offset, end, length });
        }
        // An empty plane (a damaged frame, the last buffer) may come with the offset that a full one has.
        let bytesused = end.saturating_sub(data_offset);
        Ok(PlanePayload { data_offset: data_offset.min(length), bytesused })
    }
}

impl Timestamp {
    fn new(sec: i64, usec: i64, flags: u32) -> Timestamp {
        // A counter past 2^63 arrives as negative seconds.
        let ns = sec.wrapping_mul(1_000_000_000).wrapping_add(usec.wrapping_mul(1_000));
        Timestamp {
            ns: ns as u64,
            clock: match flags & sys::V4L2_BUF_FLAG_TIMESTAMP_MASK {
                sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC => Clock::Monotonic,
                sys::V4L2_BUF_FLAG_TIMESTAMP_COPY => Clock::Copy,
                _ => Clock::Unknown,
            },
            source: match flags & sys::V4L2_BUF_FLAG_TSTAMP_SRC_MASK {
                sys::V4L2_BUF_FLAG_TSTAMP_SRC_SOE => TimestampSource::StartOfExposure,
                _ => TimestampSource::EndOfFrame,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_is_nanoseconds_of_the_clock_in_the_flags() {
        let flags = sys::V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC | sys::V4L2_BUF_FLAG_TSTAMP_SRC_SOE;
        let expected =
            Timestamp { ns: 2_000_003_000, clock: Clock::Monotonic, source: TimestampSource::StartOfExposure };
        assert_eq!(Timestamp::new(2, 3, flags), expected);
    }

    #[test]
    fn timestamps_go_on_across_the_sign() {
        let before = Timestamp::new(9_223_372_036, 854_775, 0);
        let after = Timestamp::new(-9_223_372_037, 145_225, 0);
        assert_eq!(after.ns.wrapping_sub(before.ns), 1_616);
    }

    #[test]
    fn payload_is_what_follows_data_offset() {
        let raw = RawPlane { bytesused: 100, data_offset: 40, length: 100 };
        let expected = PlanePayload { data_offset: 40, bytesused: 60 };
        assert_eq!(PlanePayload::checked(raw, 0, 0), Ok(expected));
    }

    #[test]
    fn payload_beyond_the_plane_is_refused_with_its_numbers() {
        let raw = RawPlane { bytesused: 101, data_offset: 40, length: 100 };
        let expected = DqbufError::Overrun { index: 2, plane: 1, data_offset: 40, end: 101, length: 100 };
        assert_eq!(PlanePayload::checked(raw, 2, 1), Err(expected));
    }

    #[test]
    fn empty_plane_with_an_offset_is_empty() {
        let raw = RawPlane { bytesused: 0, data_offset: 400, length: 100 };
        let expected = PlanePayload { data_offset: 100, bytesused: 0 };
        assert_eq!(PlanePayload::checked(raw, 0, 0), Ok(expected));
    }
}
