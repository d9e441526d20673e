//! `VIDIOC_ENUM_FRAMESIZES`: the sizes a pixel format comes in.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use v4l::framesize::FrameSizeEnum;

use super::{ENUM_LIMIT, Failure, PixelFormat, Zeroed, sys, uninterrupted};

mod raw {
    use v4l::{v4l_sys::v4l2_frmsizeenum, v4l2::vidioc::VIDIOC_ENUM_FRAMESIZES};
    nix::ioctl_readwrite_bad!(vidioc_enum_framesizes, VIDIOC_ENUM_FRAMESIZES, v4l2_frmsizeenum);
}

/// Width and height, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// The sizes of a pixel format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameSizes {
    /// These and no others.
    Discrete(Vec<Size>),
    /// From `min` to `max`, each dimension a whole number of `step`s above `min`. A step of 1 is `CONTINUOUS`.
    Stepwise {
        /// Smallest.
        min: Size,
        /// Largest.
        max: Size,
        /// Increment of each dimension, at least 1.
        step: Size,
    },
    /// The driver does not tell (TV tuners, HDMI receivers): it has one size, that of the signal, and may scale;
    /// try a format to find out.
    NotEnumerated,
}

impl FrameSizes {
    /// True where the driver says that it offers this size.
    pub fn contains(&self, size: Size) -> bool {
        let on_grid =
            |v: u32, min: u32, max: u32, step: u32| (min..=max).contains(&v) && (v - min).is_multiple_of(step.max(1));
        match self {
            FrameSizes::Discrete(sizes) => sizes.contains(&size),
            FrameSizes::Stepwise { min, max, step } => {
                on_grid(size.width, min.width, max.width, step.width)
                    && on_grid(size.height, min.height, max.height, step.height)
            }
            FrameSizes::NotEnumerated => false,
        }
    }
}

/// All sizes of a pixel format.
///
/// # Errors
/// Only [`Failure`]; a driver that cannot tell gives [`FrameSizes::NotEnumerated`].
pub fn enum_framesizes(fd: impl AsFd, pixelformat: PixelFormat) -> Result<FrameSizes, Failure> {
    let fd = fd.as_fd();
    let mut sizes = Vec::new();
    for index in 0..ENUM_LIMIT {
        let mut entry = sys::v4l2_frmsizeenum::zeroed();
        entry.index = index;
        entry.pixel_format = pixelformat.0;
        // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_frmsizeenum, which `entry` is.
        match uninterrupted(|| unsafe { raw::vidioc_enum_framesizes(fd.as_raw_fd(), &mut entry) }) {
            Ok(()) => match FrameSizeEnum::try_from(entry) {
                Ok(FrameSizeEnum::Discrete(d)) => sizes.push(Size { width: d.width, height: d.height }),
                Ok(FrameSizeEnum::Stepwise(s)) => {
                    return Ok(FrameSizes::Stepwise {
                        min: Size { width: s.min_width, height: s.min_height },
                        max: Size { width: s.max_width, height: s.max_height },
                        step: Size { width: s.step_width.max(1), height: s.step_height.max(1) },
                    });
                }
                // A kind of size that this kernel header does not know is no size that we could set.
                Err(_) => {}
            },
            Err(Errno::EINVAL | Errno::ENOTTY) => break,
            Err(errno) => return Err(Failure::new("VIDIOC_ENUM_FRAMESIZES", errno)),
        }
    }
    Ok(if sizes.is_empty() { FrameSizes::NotEnumerated } else { FrameSizes::Discrete(sizes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn discrete_contains_only_its_sizes() {
        let sizes = FrameSizes::Discrete(vec![size(640, 360)]);
        assert!(sizes.contains(size(640, 360)));
        assert!(!sizes.contains(size(640, 361)));
    }

    #[test]
    fn stepwise_contains_its_grid_and_bounds() {
        let sizes = FrameSizes::Stepwise { min: size(48, 32), max: size(96, 64), step: size(16, 8) };
        assert!(sizes.contains(size(48, 32)) && sizes.contains(size(96, 64)) && sizes.contains(size(64, 40)));
        assert!(!sizes.contains(size(65, 40)) && !sizes.contains(size(112, 64)) && !sizes.contains(size(32, 32)));
    }
}
