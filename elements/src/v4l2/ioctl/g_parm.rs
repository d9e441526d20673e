//! `VIDIOC_G_PARM` and `VIDIOC_S_PARM`: the frame interval.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{BufType, Failure, Fraction, Zeroed, sys, uninterrupted};

mod raw {
    use v4l::v4l_sys::v4l2_streamparm;
    use v4l::v4l2::vidioc::{VIDIOC_G_PARM, VIDIOC_S_PARM};
    nix::ioctl_readwrite_bad!(vidioc_g_parm, VIDIOC_G_PARM, v4l2_streamparm);
    nix::ioctl_readwrite_bad!(vidioc_s_parm, VIDIOC_S_PARM, v4l2_streamparm);
}

/// The frame interval in use; `None` where the driver does not know it.
///
/// # Errors
/// Only [`Failure`].
pub fn g_parm(fd: impl AsFd, buf_type: BufType) -> Result<Option<Fraction>, Failure> {
    let fd = fd.as_fd();
    let mut parm = sys::v4l2_streamparm::zeroed();
    parm.type_ = buf_type as u32;
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_streamparm, which `parm` is.
    match uninterrupted(|| unsafe { raw::vidioc_g_parm(fd.as_raw_fd(), &mut parm) }) {
        Ok(()) => Ok(interval(&parm)),
        Err(Errno::ENOTTY | Errno::EINVAL) => Ok(None),
        Err(errno) => Err(Failure::new("VIDIOC_G_PARM", errno)),
    }
}

/// Asks for a frame interval, and returns the nearest one that the driver has, which it now uses; `None` where the
/// driver has no say (the signal or a control sets the rate). Before streaming, and after the format.
///
/// # Errors
/// Only [`Failure`]; [`Failure::Busy`] while streaming on most drivers.
pub fn s_parm(fd: impl AsFd, buf_type: BufType, wanted: Fraction) -> Result<Option<Fraction>, Failure> {
    let fd = fd.as_fd();
    let mut parm = sys::v4l2_streamparm::zeroed();
    parm.type_ = buf_type as u32;
    parm.parm.capture.timeperframe = sys::v4l2_fract { numerator: wanted.numerator, denominator: wanted.denominator };
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_streamparm, which `parm` is.
    match uninterrupted(|| unsafe { raw::vidioc_s_parm(fd.as_raw_fd(), &mut parm) }) {
        Ok(()) => Ok(interval(&parm)),
        Err(Errno::ENOTTY | Errno::EINVAL) => Ok(None),
        Err(errno) => Err(Failure::new("VIDIOC_S_PARM", errno)),
    }
}

fn interval(parm: &sys::v4l2_streamparm) -> Option<Fraction> {
    // SAFETY: every member of the union is plain integers, and `capture` is the one that both capture types fill.
    let capture = unsafe { parm.parm.capture };
    let f = capture.timeperframe;
    let known = capture.capability & sys::V4L2_CAP_TIMEPERFRAME != 0 && f.numerator != 0 && f.denominator != 0;
    known.then_some(Fraction { numerator: f.numerator, denominator: f.denominator })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parm(capability: u32, numerator: u32, denominator: u32) -> sys::v4l2_streamparm {
        let mut parm = sys::v4l2_streamparm::zeroed();
        parm.parm.capture.capability = capability;
        parm.parm.capture.timeperframe = sys::v4l2_fract { numerator, denominator };
        parm
    }

    #[test]
    fn interval_without_the_capability_is_unknown() {
        assert_eq!(interval(&parm(0, 1, 30)), None);
    }

    #[test]
    fn interval_of_zero_is_unknown() {
        assert_eq!(interval(&parm(sys::V4L2_CAP_TIMEPERFRAME, 0, 0)), None);
    }

    #[test]
    fn interval_is_as_the_driver_says() {
        let expected = Some(Fraction { numerator: 1001, denominator: 60000 });
        assert_eq!(interval(&parm(sys::V4L2_CAP_TIMEPERFRAME, 1001, 60000)), expected);
    }
}
