//! `VIDIOC_ENUM_FRAMEINTERVALS`: the frame rates of a pixel format at a size.

use std::cmp::Ordering;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use v4l::frameinterval::FrameIntervalEnum;

use super::{ENUM_LIMIT, Failure, PixelFormat, Size, Zeroed, sys, uninterrupted};

mod raw {
    use v4l::{v4l_sys::v4l2_frmivalenum, v4l2::vidioc::VIDIOC_ENUM_FRAMEINTERVALS};
    nix::ioctl_readwrite_bad!(vidioc_enum_frameintervals, VIDIOC_ENUM_FRAMEINTERVALS, v4l2_frmivalenum);
}

/// A frame interval in seconds, as the kernel has it: 1/30 is thirty frames a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fraction {
    /// Seconds, times `denominator`.
    pub numerator: u32,
    /// Never 0 in an interval that the kernel reports as valid; not checked here.
    pub denominator: u32,
}

impl Fraction {
    /// Frames a second; infinite for an interval of 0.
    pub fn rate(self) -> f64 {
        f64::from(self.denominator) / f64::from(self.numerator)
    }

    /// Orders by duration without rounding.
    pub fn cmp_duration(self, other: Fraction) -> Ordering {
        let left = u64::from(self.numerator) * u64::from(other.denominator);
        let right = u64::from(other.numerator) * u64::from(self.denominator);
        left.cmp(&right)
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} s", self.numerator, self.denominator)
    }
}

impl From<v4l::Fraction> for Fraction {
    fn from(f: v4l::Fraction) -> Fraction {
        Fraction { numerator: f.numerator, denominator: f.denominator }
    }
}

/// The frame intervals of a pixel format at a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameIntervals {
    /// These and no others.
    Discrete(Vec<Fraction>),
    /// From `min` (the fastest) to `max`, in steps; a step of 0 or 1 unit is `CONTINUOUS`.
    Stepwise {
        /// Shortest interval.
        min: Fraction,
        /// Longest interval.
        max: Fraction,
        /// Increment.
        step: Fraction,
    },
    /// The driver does not tell: the signal or the sensor sets the rate.
    NotEnumerated,
}

/// All frame intervals of a pixel format at a size.
///
/// # Errors
/// Only [`Failure`]; a driver that cannot tell gives [`FrameIntervals::NotEnumerated`].
pub fn enum_frameintervals(fd: impl AsFd, pixelformat: PixelFormat, size: Size) -> Result<FrameIntervals, Failure> {
    let fd = fd.as_fd();
    let mut intervals = Vec::new();
    for index in 0..ENUM_LIMIT {
        let mut entry = sys::v4l2_frmivalenum::zeroed();
        entry.index = index;
        entry.pixel_format = pixelformat.0;
        entry.width = size.width;
        entry.height = size.height;
        // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_frmivalenum, which `entry` is.
        match uninterrupted(|| unsafe { raw::vidioc_enum_frameintervals(fd.as_raw_fd(), &mut entry) }) {
            Ok(()) => match FrameIntervalEnum::try_from(entry) {
                Ok(FrameIntervalEnum::Discrete(f)) => intervals.push(f.into()),
                Ok(FrameIntervalEnum::Stepwise(s)) => {
                    return Ok(FrameIntervals::Stepwise { min: s.min.into(), max: s.max.into(), step: s.step.into() });
                }
                // A kind of interval that this kernel header does not know is none that we could set.
                Err(_) => {}
            },
            Err(Errno::EINVAL | Errno::ENOTTY) => break,
            Err(errno) => return Err(Failure::new("VIDIOC_ENUM_FRAMEINTERVALS", errno)),
        }
    }
    Ok(if intervals.is_empty() { FrameIntervals::NotEnumerated } else { FrameIntervals::Discrete(intervals) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_compare_without_rounding() {
        let ntsc = Fraction { numerator: 1001, denominator: 30000 };
        let thirty = Fraction { numerator: 1, denominator: 30 };
        assert_eq!(ntsc.cmp_duration(thirty), Ordering::Greater);
        assert_eq!(thirty.cmp_duration(Fraction { numerator: 2, denominator: 60 }), Ordering::Equal);
    }

    #[test]
    fn rate_of_a_zero_interval_is_infinite() {
        assert!(Fraction { numerator: 0, denominator: 1 }.rate().is_infinite());
    }
}
