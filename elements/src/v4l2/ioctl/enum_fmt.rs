//! `VIDIOC_ENUM_FMT`: the pixel formats of a queue.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{BufType, ENUM_LIMIT, Failure, PixelFormat, Zeroed, sys, text, uninterrupted};

mod raw {
    use v4l::{v4l_sys::v4l2_fmtdesc, v4l2::vidioc::VIDIOC_ENUM_FMT};
    nix::ioctl_readwrite_bad!(vidioc_enum_fmt, VIDIOC_ENUM_FMT, v4l2_fmtdesc);
}

/// A pixel format that a queue offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatDescription {
    /// V4L2 fourcc.
    pub pixelformat: PixelFormat,
    /// For people, e.g. `YUYV 4:2:2`.
    pub description: String,
    /// Compressed (JPEG, H.264): no strides, and frames of varying length.
    pub compressed: bool,
    /// Made by a library or a driver's conversion, not native to the device.
    pub emulated: bool,
}

/// All formats of a queue, in the driver's order of preference.
///
/// # Errors
/// Only [`Failure`]; a queue without formats gives an empty list.
pub fn enum_fmt(fd: impl AsFd, buf_type: BufType) -> Result<Vec<FormatDescription>, Failure> {
    let fd = fd.as_fd();
    let mut formats = Vec::new();
    for index in 0..ENUM_LIMIT {
        let mut desc = sys::v4l2_fmtdesc::zeroed();
        desc.index = index;
        desc.type_ = buf_type as u32;
        // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_fmtdesc, which `desc` is.
        match uninterrupted(|| unsafe { raw::vidioc_enum_fmt(fd.as_raw_fd(), &mut desc) }) {
            Ok(()) => formats.push(FormatDescription {
                pixelformat: PixelFormat(desc.pixelformat),
                description: text(&desc.description),
                compressed: desc.flags & sys::V4L2_FMT_FLAG_COMPRESSED != 0,
                emulated: desc.flags & sys::V4L2_FMT_FLAG_EMULATED != 0,
            }),
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(Failure::new("VIDIOC_ENUM_FMT", errno)),
        }
    }
    Ok(formats)
}
