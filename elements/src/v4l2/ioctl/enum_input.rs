//! `VIDIOC_ENUMINPUT`, `VIDIOC_G_INPUT`, `VIDIOC_S_INPUT`: the connectors of a capture device.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{ENUM_LIMIT, Failure, Zeroed, sys, text, uninterrupted};

mod raw {
    use libc::c_int;
    use v4l::v4l_sys::v4l2_input;
    use v4l::v4l2::vidioc::{VIDIOC_ENUMINPUT, VIDIOC_G_INPUT, VIDIOC_S_INPUT};
    nix::ioctl_readwrite_bad!(vidioc_enuminput, VIDIOC_ENUMINPUT, v4l2_input);
    nix::ioctl_read_bad!(vidioc_g_input, VIDIOC_G_INPUT, c_int);
    nix::ioctl_readwrite_bad!(vidioc_s_input, VIDIOC_S_INPUT, c_int);
}

/// An input: a camera sensor, an HDMI or composite socket, a tuner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// What `VIDIOC_S_INPUT` takes.
    pub index: u32,
    /// For people, e.g. `Camera 1`, `HDMI 0`.
    pub name: String,
    /// Whether it has power and a signal, as far as the driver knows.
    pub status: InputStatus,
}

/// What hinders an input (`V4L2_IN_ST_*`), as far as the driver knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputStatus {
    /// Nothing known against it.
    Ready,
    /// Switched off.
    NoPower,
    /// Nothing is plugged in, or it sends nothing.
    NoSignal,
    /// A signal, but no lock on it (sync, standard).
    NoLock,
}

/// Why an input was not selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SInputError {
    /// EINVAL: no such input.
    #[error("there is no input {index}")]
    NoSuchInput {
        /// What was asked for.
        index: u32,
    },
    /// As for every ioctl; [`Failure::Busy`] while buffers are allocated.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// All inputs; empty where the driver has none to choose from.
///
/// # Errors
/// Only [`Failure`].
pub fn enum_input(fd: impl AsFd) -> Result<Vec<Input>, Failure> {
    let fd = fd.as_fd();
    let mut inputs = Vec::new();
    for index in 0..ENUM_LIMIT {
        let mut input = sys::v4l2_input::zeroed();
        input.index = index;
        // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_input, which `input` is.
        match uninterrupted(|| unsafe { raw::vidioc_enuminput(fd.as_raw_fd(), &mut input) }) {
            Ok(()) => {
                inputs.push(Input { index, name: text(&input.name), status: InputStatus::from_bits(input.status) })
            }
            Err(Errno::EINVAL | Errno::ENOTTY) => break,
            Err(errno) => return Err(Failure::new("VIDIOC_ENUMINPUT", errno)),
        }
    }
    Ok(inputs)
}

impl InputStatus {
    fn from_bits(status: u32) -> InputStatus {
        const NO_LOCK: u32 = sys::V4L2_IN_ST_NO_H_LOCK
            | sys::V4L2_IN_ST_NO_V_LOCK
            | sys::V4L2_IN_ST_NO_STD_LOCK
            | sys::V4L2_IN_ST_NO_SYNC
            | sys::V4L2_IN_ST_NO_CARRIER;
        if status & sys::V4L2_IN_ST_NO_POWER != 0 {
            InputStatus::NoPower
        } else if status & sys::V4L2_IN_ST_NO_SIGNAL != 0 {
            InputStatus::NoSignal
        } else if status & NO_LOCK != 0 {
            InputStatus::NoLock
        } else {
            InputStatus::Ready
        }
    }
}

/// The input in use; `None` where the driver has none to choose from.
///
/// # Errors
/// Only [`Failure`].
pub fn g_input(fd: impl AsFd) -> Result<Option<u32>, Failure> {
    let fd = fd.as_fd();
    let mut index = 0;
    // SAFETY: `fd` is open during the call; the kernel writes one int, which `index` is.
    match uninterrupted(|| unsafe { raw::vidioc_g_input(fd.as_raw_fd(), &mut index) }) {
        Ok(()) => Ok(u32::try_from(index).ok()),
        Err(Errno::EINVAL | Errno::ENOTTY) => Ok(None),
        Err(errno) => Err(Failure::new("VIDIOC_G_INPUT", errno)),
    }
}

/// Selects an input. The format, the standard and the controls may change with it.
///
/// # Errors
/// [`SInputError::NoSuchInput`]; [`Failure::Busy`] while buffers are allocated.
pub fn s_input(fd: impl AsFd, index: u32) -> Result<(), SInputError> {
    let fd = fd.as_fd();
    let mut raw_index = i32::try_from(index).map_err(|_| SInputError::NoSuchInput { index })?;
    // SAFETY: `fd` is open during the call; the kernel reads and writes one int, which `raw_index` is.
    uninterrupted(|| unsafe { raw::vidioc_s_input(fd.as_raw_fd(), &mut raw_index) }).map_err(|errno| match errno {
        Errno::EINVAL => SInputError::NoSuchInput { index },
        errno => Failure::new("VIDIOC_S_INPUT", errno).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_power_explains_a_missing_signal() {
        let status = sys::V4L2_IN_ST_NO_POWER | sys::V4L2_IN_ST_NO_SIGNAL;
        assert_eq!(InputStatus::from_bits(status), InputStatus::NoPower);
    }

    #[test]
    fn colour_killed_is_still_ready() {
        assert_eq!(InputStatus::from_bits(sys::V4L2_IN_ST_COLOR_KILL), InputStatus::Ready);
    }
}
