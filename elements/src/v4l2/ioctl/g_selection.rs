//! `VIDIOC_G_SELECTION`, `VIDIOC_S_SELECTION`: which part of a queue's buffers is picture.
//!
//! A codec works in blocks, so that its buffers have more rows and columns than the picture. An encoder is told which part
//! of them it is to encode (the crop of its OUTPUT queue), a decoder says to which part it writes (the compose rectangle
//! of its CAPTURE queue).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{BufType, Failure, Zeroed, sys, uninterrupted};

mod raw {
    // The `v4l` crate has no numbers for these two.
    use v4l::v4l_sys::v4l2_selection;
    nix::ioctl_readwrite!(vidioc_g_selection, b'V', 94, v4l2_selection);
    nix::ioctl_readwrite!(vidioc_s_selection, b'V', 95, v4l2_selection);
}

/// Which rectangle (`V4L2_SEL_TGT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SelectionTarget {
    /// The part that is read.
    Crop,
    /// The part that is written.
    Compose,
}

/// A part of a queue's buffers, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    /// From the left.
    pub left: u32,
    /// From the top.
    pub top: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Why a rectangle was not read or set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// EINVAL, ENODATA, ENOTTY: all of a buffer is picture, always.
    #[error("{ioctl}: the driver has no such rectangle, all of its buffers is picture")]
    None {
        /// The kernel's name of the call.
        ioctl: &'static str,
    },
    /// The driver's answer makes no sense.
    #[error("{ioctl}: the driver answered {width}x{height} at {left},{top}; this is a bug in the driver")]
    Nonsense {
        /// The kernel's name of the call.
        ioctl: &'static str,
        /// Pixels.
        left: i32,
        /// Pixels.
        top: i32,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// As for every ioctl.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// The rectangle that is set.
///
/// # Errors
/// See [`SelectionError`].
pub fn g_selection(fd: impl AsFd, buf_type: BufType, target: SelectionTarget) -> Result<Selection, SelectionError> {
    let ioctl = "VIDIOC_G_SELECTION";
    let fd = fd.as_fd();
    let mut selection = request(buf_type, target);
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_selection, which `selection` is.
    uninterrupted(|| unsafe { raw::vidioc_g_selection(fd.as_raw_fd(), &mut selection) })
        .map_err(|e| error(ioctl, e))?;
    checked(ioctl, selection.r)
}

/// Sets a rectangle, and returns what the driver chose: compare it with what was asked for.
///
/// # Errors
/// See [`SelectionError`]; [`Failure::Busy`] while buffers are allocated.
pub fn s_selection(
    fd: impl AsFd,
    buf_type: BufType,
    target: SelectionTarget,
    wanted: Selection,
) -> Result<Selection, SelectionError> {
    let ioctl = "VIDIOC_S_SELECTION";
    let fd = fd.as_fd();
    let mut selection = request(buf_type, target);
    let Selection { left, top, width, height } = wanted;
    selection.r = sys::v4l2_rect { left: left as i32, top: top as i32, width, height };
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_selection, which `selection` is.
    uninterrupted(|| unsafe { raw::vidioc_s_selection(fd.as_raw_fd(), &mut selection) })
        .map_err(|e| error(ioctl, e))?;
    checked(ioctl, selection.r)
}

/// Both calls name the queue by its single-planar type, whichever API it speaks.
fn request(buf_type: BufType, target: SelectionTarget) -> sys::v4l2_selection {
    let single = match buf_type {
        BufType::VideoCapture | BufType::VideoCaptureMplane => BufType::VideoCapture,
        BufType::VideoOutput | BufType::VideoOutputMplane => BufType::VideoOutput,
    };
    let mut selection = sys::v4l2_selection::zeroed();
    selection.type_ = single as u32;
    selection.target = match target {
        SelectionTarget::Crop => sys::V4L2_SEL_TGT_CROP,
        SelectionTarget::Compose => sys::V4L2_SEL_TGT_COMPOSE,
    };
    selection
}

fn error(ioctl: &'static str, errno: Errno) -> SelectionError {
    match errno {
        Errno::EINVAL | Errno::ENODATA | Errno::ENOTTY => SelectionError::None { ioctl },
        errno => Failure::new(ioctl, errno).into(),
    }
}

fn checked(ioctl: &'static str, r: sys::v4l2_rect) -> Result<Selection, SelectionError> {
    let sys::v4l2_rect { left, top, width, height } = r;
    match (u32::try_from(left), u32::try_from(top)) {
        (Ok(left), Ok(top)) if width > 0 && height > 0 => Ok(Selection { left, top, width, height }),
        _ => Err(SelectionError::Nonsense { ioctl, left, top, width, height }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_named_by_its_single_planar_type() {
        let selection = request(BufType::VideoOutputMplane, SelectionTarget::Crop);
        assert_eq!(selection.type_, BufType::VideoOutput as u32);
        let selection = request(BufType::VideoCaptureMplane, SelectionTarget::Compose);
        assert_eq!(selection.type_, BufType::VideoCapture as u32);
    }

    #[test]
    fn a_rectangle_of_nothing_or_outside_is_a_bug_of_the_driver() {
        let rect = |left, width| sys::v4l2_rect { left, top: 0, width, height: 8 };
        for r in [rect(-1, 8), rect(0, 0)] {
            assert!(matches!(checked("VIDIOC_G_SELECTION", r), Err(SelectionError::Nonsense { .. })));
        }
        let whole = Selection { left: 0, top: 0, width: 8, height: 8 };
        assert_eq!(checked("VIDIOC_G_SELECTION", rect(0, 8)), Ok(whole));
    }

    #[test]
    fn a_file_that_is_no_device_has_no_rectangle() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let read = g_selection(&null, BufType::VideoCapture, SelectionTarget::Compose);
        assert!(matches!(read, Err(SelectionError::None { .. })), "{read:?}");
    }
}
