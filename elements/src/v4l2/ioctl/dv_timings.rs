//! `VIDIOC_QUERY_DV_TIMINGS` and `VIDIOC_S_DV_TIMINGS`: the signal on an HDMI, DVI or SDI input.
//!
//! A receiver captures what it was told the signal is. So whoever wants the signal that there is asks for it and sets it,
//! at the start and after each V4L2_EVENT_SOURCE_CHANGE; the format follows then.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{Failure, Zeroed, sys, uninterrupted};

mod raw {
    use v4l::v4l_sys::v4l2_dv_timings;
    nix::ioctl_readwrite!(vidioc_s_dv_timings, b'V', 87, v4l2_dv_timings);
    nix::ioctl_read!(vidioc_query_dv_timings, b'V', 99, v4l2_dv_timings);
}

/// A signal's timings, as the receiver detected them.
#[derive(Clone, Copy)]
pub struct DvTimings(sys::v4l2_dv_timings);

/// Why there are no timings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DvTimingsError {
    /// ENOLINK: nothing is plugged in, or it sends nothing.
    #[error("there is no signal on the input (ENOLINK); plug the source in and switch it on")]
    NoSignal,
    /// ENOLCK: the signal is not stable.
    #[error("the receiver cannot lock on to the signal (ENOLCK): it is unstable, or the cable is bad")]
    NoLock,
    /// ERANGE: more than the receiver can take.
    #[error(
        "the signal is beyond what the receiver can take (ERANGE); have the source send a lower resolution or rate"
    )]
    OutOfRange,
    /// As for every ioctl; [`Failure::Busy`] while buffers are allocated.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// The signal on the input in use; `None` where the input has no timings (a sensor, an analogue input).
///
/// # Errors
/// [`DvTimingsError`].
pub fn query_dv_timings(fd: impl AsFd) -> Result<Option<DvTimings>, DvTimingsError> {
    let fd = fd.as_fd();
    let mut timings = sys::v4l2_dv_timings::zeroed();
    // SAFETY: `fd` is open during the call; the kernel writes one v4l2_dv_timings, which `timings` is.
    match uninterrupted(|| unsafe { raw::vidioc_query_dv_timings(fd.as_raw_fd(), &mut timings) }) {
        Ok(()) => Ok(Some(DvTimings(timings))),
        Err(Errno::ENOTTY | Errno::ENODATA) => Ok(None),
        Err(Errno::ENOLINK) => Err(DvTimingsError::NoSignal),
        Err(Errno::ENOLCK) => Err(DvTimingsError::NoLock),
        Err(Errno::ERANGE) => Err(DvTimingsError::OutOfRange),
        Err(errno) => Err(Failure::new("VIDIOC_QUERY_DV_TIMINGS", errno).into()),
    }
}

/// Tells the receiver to capture a signal of these timings, which changes its format.
///
/// # Errors
/// Only [`Failure`]; [`Failure::Busy`] while buffers are allocated.
pub fn s_dv_timings(fd: impl AsFd, timings: &DvTimings) -> Result<(), Failure> {
    let fd = fd.as_fd();
    let mut timings = timings.0;
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_dv_timings, which `timings` is.
    uninterrupted(|| unsafe { raw::vidioc_s_dv_timings(fd.as_raw_fd(), &mut timings) })
        .map_err(|errno| Failure::new("VIDIOC_S_DV_TIMINGS", errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_struct_is_packed() {
        // Its size is part of the ioctls' numbers.
        assert_eq!(std::mem::size_of::<sys::v4l2_dv_timings>(), 132);
    }
}
