//! `VIDIOC_ENUMOUTPUT`, `VIDIOC_S_OUTPUT`: the connectors of an output device.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{ENUM_LIMIT, Failure, Zeroed, sys, text, uninterrupted};

mod raw {
    use libc::c_int;
    use v4l::v4l_sys::v4l2_output;
    use v4l::v4l2::vidioc::{VIDIOC_ENUMOUTPUT, VIDIOC_S_OUTPUT};
    nix::ioctl_readwrite_bad!(vidioc_enumoutput, VIDIOC_ENUMOUTPUT, v4l2_output);
    nix::ioctl_readwrite_bad!(vidioc_s_output, VIDIOC_S_OUTPUT, c_int);
}

/// An output: an HDMI or S-Video socket, a modulator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What `VIDIOC_S_OUTPUT` takes.
    pub index: u32,
    /// For people, e.g. `HDMI 0`.
    pub name: String,
}

/// Why an output was not selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SOutputError {
    /// EINVAL: no such output.
    #[error("there is no output {index}")]
    NoSuchOutput {
        /// What was asked for.
        index: u32,
    },
    /// As for every ioctl; [`Failure::Busy`] while buffers are allocated.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// All outputs; empty where the driver has none to choose from.
///
/// # Errors
/// Only [`Failure`].
pub fn enum_output(fd: impl AsFd) -> Result<Vec<Output>, Failure> {
    let fd = fd.as_fd();
    let mut outputs = Vec::new();
    for index in 0..ENUM_LIMIT {
        let mut output = sys::v4l2_output::zeroed();
        output.index = index;
        // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_output, which `output` is.
        match uninterrupted(|| unsafe { raw::vidioc_enumoutput(fd.as_raw_fd(), &mut output) }) {
            Ok(()) => outputs.push(Output { index, name: text(&output.name) }),
            Err(Errno::EINVAL | Errno::ENOTTY) => break,
            Err(errno) => return Err(Failure::new("VIDIOC_ENUMOUTPUT", errno)),
        }
    }
    Ok(outputs)
}

/// Selects an output, which may change the format and what controls there are.
///
/// # Errors
/// See [`SOutputError`].
pub fn s_output(fd: impl AsFd, index: u32) -> Result<(), SOutputError> {
    let fd = fd.as_fd();
    let mut number = i32::try_from(index).map_err(|_| SOutputError::NoSuchOutput { index })?;
    // SAFETY: `fd` is open during the call; the kernel reads and writes one int, which `number` is.
    uninterrupted(|| unsafe { raw::vidioc_s_output(fd.as_raw_fd(), &mut number) }).map_err(|errno| match errno {
        Errno::EINVAL => SOutputError::NoSuchOutput { index },
        errno => Failure::new("VIDIOC_S_OUTPUT", errno).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_no_driver_can_have_is_no_output() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(s_output(&null, u32::MAX), Err(SOutputError::NoSuchOutput { index: u32::MAX }));
    }
}
