//! `VIDIOC_ENCODER_CMD`, `VIDIOC_DECODER_CMD`: has a codec finish what it has.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{Failure, Zeroed, sys, uninterrupted};

mod raw {
    // The `v4l` crate has no numbers for these two.
    use v4l::v4l_sys::{v4l2_decoder_cmd, v4l2_encoder_cmd};
    nix::ioctl_readwrite!(vidioc_encoder_cmd, b'V', 77, v4l2_encoder_cmd);
    nix::ioctl_readwrite!(vidioc_decoder_cmd, b'V', 96, v4l2_decoder_cmd);
}

/// Which kind of stateful codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Pictures into a compressed stream.
    Encoder,
    /// A compressed stream into pictures.
    Decoder,
}

/// Why a codec does not finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecCmdError {
    /// EINVAL: the driver knows no stop.
    #[error("{ioctl}: the driver cannot be told that the stream ends (EINVAL); its last frames may be missing")]
    Refused {
        /// The kernel's name of the call.
        ioctl: &'static str,
    },
    /// As for every ioctl.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Tells a codec that nothing will follow: it works off what is queued, and marks the last of what it makes
/// ([`Buffer::is_last`](super::Buffer::is_last)). Does not wait for that.
///
/// # Errors
/// See [`CodecCmdError`].
pub fn codec_stop(fd: impl AsFd, codec: Codec) -> Result<(), CodecCmdError> {
    let fd = fd.as_fd();
    let (ioctl, result) = match codec {
        Codec::Encoder => {
            let mut cmd = sys::v4l2_encoder_cmd::zeroed();
            cmd.cmd = sys::V4L2_ENC_CMD_STOP;
            // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_encoder_cmd, which `cmd` is.
            let stop = || unsafe { raw::vidioc_encoder_cmd(fd.as_raw_fd(), &mut cmd) };
            ("VIDIOC_ENCODER_CMD", uninterrupted(stop))
        }
        Codec::Decoder => {
            let mut cmd = sys::v4l2_decoder_cmd::zeroed();
            cmd.cmd = sys::V4L2_DEC_CMD_STOP;
            // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_decoder_cmd, which `cmd` is.
            let stop = || unsafe { raw::vidioc_decoder_cmd(fd.as_raw_fd(), &mut cmd) };
            ("VIDIOC_DECODER_CMD", uninterrupted(stop))
        }
    };
    result.map_err(|errno| match errno {
        Errno::EINVAL => CodecCmdError::Refused { ioctl },
        errno => Failure::new(ioctl, errno).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_codec_says_so() {
        let null = std::fs::File::open("/dev/null").unwrap();
        for codec in [Codec::Encoder, Codec::Decoder] {
            assert!(matches!(codec_stop(&null, codec), Err(CodecCmdError::Failure(Failure::NotImplemented { .. }))));
        }
    }
}
