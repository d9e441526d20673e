//! `VIDIOC_QUERYCAP`: who the driver is and what the node can do.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use v4l::capability::Flags;

use super::{BufType, Failure, Zeroed, sys, text, uninterrupted};

mod raw {
    use v4l::{v4l_sys::v4l2_capability, v4l2::vidioc::VIDIOC_QUERYCAP};
    nix::ioctl_read_bad!(vidioc_querycap, VIDIOC_QUERYCAP, v4l2_capability);
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// Driver's name, e.g. `uvcvideo`, `vivid`.
    pub driver: String,
    /// Product's name, for people.
    pub card: String,
    /// Where the device is, e.g. `usb-0000:00:14.0-1`; the same device in the same socket keeps it over reboots.
    pub bus_info: String,
    /// Kernel version of the driver: major, minor, patch.
    pub version: (u8, u8, u8),
    /// What this node can do (`device_caps`), not what its siblings can.
    pub flags: Flags,
}

impl Capability {
    /// The capture API to speak, the multi-planar one where there are both; `None` where the node captures no video.
    pub fn capture_type(&self) -> Option<BufType> {
        if self.flags.contains(Flags::VIDEO_CAPTURE_MPLANE) {
            Some(BufType::VideoCaptureMplane)
        } else if self.flags.contains(Flags::VIDEO_CAPTURE) {
            Some(BufType::VideoCapture)
        } else {
            None
        }
    }

    /// The output API to speak, as [`Capability::capture_type`]; `None` where the node puts no video out.
    pub fn output_type(&self) -> Option<BufType> {
        if self.flags.contains(Flags::VIDEO_OUTPUT_MPLANE) {
            Some(BufType::VideoOutputMplane)
        } else if self.flags.contains(Flags::VIDEO_OUTPUT) {
            Some(BufType::VideoOutput)
        } else {
            None
        }
    }

    /// The APIs of what goes into and what comes out of a memory-to-memory device; `None` for another.
    pub fn m2m_types(&self) -> Option<(BufType, BufType)> {
        if self.flags.contains(Flags::VIDEO_M2M_MPLANE) {
            Some((BufType::VideoOutputMplane, BufType::VideoCaptureMplane))
        } else if self.flags.contains(Flags::VIDEO_M2M) {
            Some((BufType::VideoOutput, BufType::VideoCapture))
        } else {
            None
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuerycapError {
    /// ENOTTY, EINVAL: the file is something else.
    #[error("not a V4L2 device: it does not answer VIDIOC_QUERYCAP ({0})")]
    NotV4l2(Errno),
    /// As for every ioctl.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Asks the node who it is.
///
/// # Errors
/// [`QuerycapError::NotV4l2`] for a file that is no V4L2 node.
pub fn querycap(fd: impl AsFd) -> Result<Capability, QuerycapError> {
    let mut cap = sys::v4l2_capability::zeroed();
    let fd = fd.as_fd();
    // SAFETY: `fd` is open during the call; the kernel writes one v4l2_capability, which `cap` is.
    uninterrupted(|| unsafe { raw::vidioc_querycap(fd.as_raw_fd(), &mut cap) }).map_err(|errno| match errno {
        Errno::ENOTTY | Errno::EINVAL => QuerycapError::NotV4l2(errno),
        errno => Failure::new("VIDIOC_QUERYCAP", errno).into(),
    })?;
    // Drivers before 3.4 leave device_caps empty and speak of the whole device instead.
    let bits = if cap.capabilities & sys::V4L2_CAP_DEVICE_CAPS != 0 { cap.device_caps } else { cap.capabilities };
    let [_, major, minor, patch] = cap.version.to_be_bytes();
    Ok(Capability {
        driver: text(&cap.driver),
        card: text(&cap.card),
        bus_info: text(&cap.bus_info),
        version: (major, minor, patch),
        flags: Flags::from_bits_truncate(bits),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(flags: Flags) -> Capability {
        Capability { driver: String::new(), card: String::new(), bus_info: String::new(), version: (0, 0, 0), flags }
    }

    #[test]
    fn dev_null_is_not_v4l2() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(querycap(&null), Err(QuerycapError::NotV4l2(Errno::ENOTTY)));
    }

    #[test]
    fn multi_planar_is_preferred() {
        let both = capability(Flags::VIDEO_CAPTURE | Flags::VIDEO_CAPTURE_MPLANE);
        assert_eq!(both.capture_type(), Some(BufType::VideoCaptureMplane));
    }

    #[test]
    fn metadata_node_captures_no_video() {
        assert_eq!(capability(Flags::META_CAPTURE | Flags::STREAMING).capture_type(), None);
    }
}
