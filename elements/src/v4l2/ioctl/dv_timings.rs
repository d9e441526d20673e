//! `VIDIOC_QUERY_DV_TIMINGS` and `VIDIOC_S_DV_TIMINGS`: the signal on an HDMI, DVI or SDI input.
//!
//! A receiver captures what it was told the signal is. So whoever wants the signal that there is asks for it and sets it,
//! at the start and after each V4L2_EVENT_SOURCE_CHANGE; the format follows then.

use std::fmt;
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

/// By how much a pixel clock measured twice may differ, in Hz: what the kernel's own receivers allow for.
const MEASURED: u64 = 250_000;

impl DvTimings {
    /// Whether both are the same signal: all lines and pixels alike, and the pixel clock as nearly as that is measured.
    pub fn matches(&self, other: &DvTimings) -> bool {
        let shape = |t: &sys::v4l2_bt_timings| {
            let (across, down) = ([t.hfrontporch, t.hsync, t.hbackporch], [t.vfrontporch, t.vsync, t.vbackporch]);
            let field = [t.il_vfrontporch, t.il_vsync, t.il_vbackporch];
            (t.width, t.height, t.interlaced, t.polarities, across, down, field)
        };
        let (a, b) = (self.bt(), other.bt());
        let (one, two) = (a.pixelclock, b.pixelclock);
        shape(&a) == shape(&b) && one.abs_diff(two) <= MEASURED
    }

    fn bt(&self) -> sys::v4l2_bt_timings {
        // SAFETY: every member of the union is plain integers, and `bt` is the one of the only type there is.
        unsafe { self.0.__bindgen_anon_1.bt }
    }
}

/// As `1280x720p at 60.00 Hz`.
impl fmt::Display for DvTimings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.bt();
        let (width, height, clock) = (t.width, t.height, t.pixelclock);
        let scan = if t.interlaced == sys::V4L2_DV_INTERLACED { 'i' } else { 'p' };
        let sum = |parts: [u32; 4]| parts.into_iter().map(u64::from).sum::<u64>();
        let field = u64::from(t.il_vfrontporch) + u64::from(t.il_vsync) + u64::from(t.il_vbackporch);
        let lines = sum([height, t.vfrontporch, t.vsync, t.vbackporch]) + field;
        let pixels = sum([width, t.hfrontporch, t.hsync, t.hbackporch]) * lines;
        write!(f, "{width}x{height}{scan} at {:.2} Hz", clock as f64 / pixels.max(1) as f64)
    }
}

impl fmt::Debug for DvTimings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DvTimings({self})")
    }
}

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

    /// CTA-861's 1280x720, at so many Hz of its pixel clock.
    fn hd(pixelclock: u64, interlaced: u32) -> DvTimings {
        let mut timings = sys::v4l2_dv_timings::zeroed();
        let zero = DvTimings(timings).bt();
        timings.__bindgen_anon_1.bt = sys::v4l2_bt_timings {
            width: 1280,
            height: 720,
            interlaced,
            pixelclock,
            hfrontporch: 110,
            hsync: 40,
            hbackporch: 220,
            vfrontporch: 5,
            vsync: 5,
            vbackporch: 20,
            ..zero
        };
        DvTimings(timings)
    }

    #[test]
    fn a_signal_is_called_by_its_size_and_rate() {
        assert_eq!(hd(74_250_000, 0).to_string(), "1280x720p at 60.00 Hz");
        assert_eq!(hd(74_250_000, 1).to_string(), "1280x720i at 60.00 Hz");
        assert_eq!(DvTimings(Zeroed::zeroed()).to_string(), "0x0p at 0.00 Hz");
    }

    #[test]
    fn a_clock_measured_again_is_the_same_signal_and_another_rate_is_not() {
        assert!(hd(74_250_000, 0).matches(&hd(74_251_003, 0)));
        assert!(!hd(74_250_000, 0).matches(&hd(61_875_000, 0)));
        assert!(!hd(74_250_000, 0).matches(&hd(74_250_000, 1)));
    }
}
