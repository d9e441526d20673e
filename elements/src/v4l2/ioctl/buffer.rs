//! `struct v4l2_buffer` with its planes: what QUERYBUF, QBUF and DQBUF have in common.
//!
//! The single-planar API keeps a buffer's only plane in the buffer itself, the multi-planar one in an array beside it.
//! [`RawBuffer`] is the one place that knows the difference.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Zeroed, sys};

/// Most planes of a multi-planar buffer.
pub const VIDEO_MAX_PLANES: usize = sys::VIDEO_MAX_PLANES as usize;

/// Which way a queue goes, and which of the two APIs it speaks (`enum v4l2_buf_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum BufType {
    /// `V4L2_BUF_TYPE_VIDEO_CAPTURE`: one plane a buffer.
    VideoCapture = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
    /// `V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE`: 1 to 8 planes a buffer, each with memory of its own.
    VideoCaptureMplane = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
    /// `V4L2_BUF_TYPE_VIDEO_OUTPUT`: as the first, into the device.
    VideoOutput = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT,
    /// `V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE`: as the second, into the device.
    VideoOutputMplane = sys::v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE,
}

impl BufType {
    /// True for the multi-planar API.
    pub fn is_mplane(self) -> bool {
        matches!(self, BufType::VideoCaptureMplane | BufType::VideoOutputMplane)
    }
}

/// Whose memory a queue fills (`enum v4l2_memory`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Memory {
    /// `V4L2_MEMORY_MMAP`: the driver's own, exported as dma-bufs.
    Mmap = sys::v4l2_memory_V4L2_MEMORY_MMAP,
    /// `V4L2_MEMORY_DMABUF`: somebody else's dma-bufs.
    Dmabuf = sys::v4l2_memory_V4L2_MEMORY_DMABUF,
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Memory::Mmap => "MMAP",
            Memory::Dmabuf => "DMABUF",
        })
    }
}

/// A `v4l2_buffer` that owns the plane array its pointer needs.
pub(super) struct RawBuffer {
    pub(super) buffer: sys::v4l2_buffer,
    /// Of the multi-planar API.
    planes: Option<[sys::v4l2_plane; VIDEO_MAX_PLANES]>,
}

/// A plane as both APIs have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawPlane {
    pub(super) bytesused: u32,
    pub(super) data_offset: u32,
    pub(super) length: u32,
}

impl RawBuffer {
    /// `planes` is how many the kernel may read and write. Passing no more than a format has keeps the kernel from
    /// allocating: its ioctl entry copies up to two plane structs on its stack, more go through kvmalloc.
    // Inlined, so that it is made where it stays.
    #[inline]
    pub(super) fn new(buf_type: BufType, memory: Memory, index: u32, planes: usize) -> RawBuffer {
        let mut buffer = sys::v4l2_buffer::zeroed();
        buffer.type_ = buf_type as u32;
        buffer.memory = memory as u32;
        buffer.index = index;
        let mut raw = RawBuffer { buffer, planes: None };
        if buf_type.is_mplane() {
            raw.buffer.length = planes.clamp(1, VIDEO_MAX_PLANES) as u32;
            raw.planes = Some([sys::v4l2_plane::zeroed(); VIDEO_MAX_PLANES]);
        }
        raw
    }

    /// For the ioctl; valid until `self` moves.
    pub(super) fn as_mut_ptr(&mut self) -> *mut sys::v4l2_buffer {
        if let Some(planes) = &mut self.planes {
            self.buffer.m.planes = planes.as_mut_ptr();
        }
        &mut self.buffer
    }

    /// How many planes the buffer has, after QUERYBUF or DQBUF wrote it.
    pub(super) fn num_planes(&self) -> usize {
        if self.planes.is_some() { (self.buffer.length as usize).min(VIDEO_MAX_PLANES) } else { 1 }
    }

    pub(super) fn plane(&self, plane: usize) -> RawPlane {
        if let Some(planes) = &self.planes {
            let p = &planes[plane];
            RawPlane { bytesused: p.bytesused, data_offset: p.data_offset, length: p.length }
        } else {
            RawPlane { bytesused: self.buffer.bytesused, data_offset: 0, length: self.buffer.length }
        }
    }

    /// Names the dma-buf that holds `plane`, and how much of it may be written.
    pub(super) fn set_dmabuf(&mut self, plane: usize, fd: BorrowedFd<'_>, length: u32) {
        if let Some(planes) = &mut self.planes {
            planes[plane].m.fd = fd.as_raw_fd();
            planes[plane].length = length;
        } else {
            self.buffer.m.fd = fd.as_raw_fd();
            self.buffer.length = length;
        }
    }

    /// Says how much of `plane` is picture, of a buffer that goes into a device.
    pub(super) fn set_payload(&mut self, plane: usize, bytesused: u32) {
        if let Some(planes) = &mut self.planes {
            planes[plane].bytesused = bytesused;
        } else {
            self.buffer.bytesused = bytesused;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mplane_buffer_points_at_its_own_planes() {
        let mut raw = RawBuffer::new(BufType::VideoCaptureMplane, Memory::Mmap, 3, 2);
        let planes = raw.planes.as_mut().unwrap().as_mut_ptr();
        let buffer = raw.as_mut_ptr();
        // SAFETY: `buffer` points into `raw`, and `planes` is the member that as_mut_ptr just set.
        assert_eq!(unsafe { (*buffer).m.planes }, planes);
        assert_eq!((raw.buffer.index, raw.num_planes()), (3, 2));
    }

    #[test]
    fn more_planes_than_the_kernel_has_are_clamped() {
        let raw = RawBuffer::new(BufType::VideoCaptureMplane, Memory::Mmap, 0, 100);
        assert_eq!(raw.num_planes(), VIDEO_MAX_PLANES);
    }

    #[test]
    fn single_plane_is_read_from_the_buffer() {
        let mut raw = RawBuffer::new(BufType::VideoCapture, Memory::Mmap, 0, 1);
        raw.buffer.bytesused = 7;
        raw.buffer.length = 9;
        assert_eq!(raw.plane(0), RawPlane { bytesused: 7, data_offset: 0, length: 9 });
    }
}
