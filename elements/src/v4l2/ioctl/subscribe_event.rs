//! `VIDIOC_SUBSCRIBE_EVENT` and `VIDIOC_DQEVENT`: what a device tells besides frames.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{Failure, Zeroed, sys, uninterrupted};

mod raw {
    // The `v4l` crate has no numbers for these two.
    use v4l::v4l_sys::{v4l2_event, v4l2_event_subscription};
    nix::ioctl_read!(vidioc_dqevent, b'V', 89, v4l2_event);
    nix::ioctl_write_ptr!(vidioc_subscribe_event, b'V', 90, v4l2_event_subscription);
}

/// Something that a device told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `V4L2_EVENT_SOURCE_CHANGE`: the signal on an input is another one now. The format must be read, and the queue
    /// stopped, freed and allocated anew; until then frames are of the old format or stop coming.
    SourceChange {
        /// The input it happened on.
        input: u32,
        /// Size or timing changed.
        resolution: bool,
    },
    /// Another event, by its number (`V4L2_EVENT_*`).
    Other(u32),
}

/// Subscribes to source changes on `input`; polling the fd for `POLLPRI` then waits for them. False where the device
/// has none to tell, as most cameras.
///
/// # Errors
/// Only [`Failure`].
pub fn subscribe_source_change(fd: impl AsFd, input: u32) -> Result<bool, Failure> {
    let fd = fd.as_fd();
    let mut subscription = sys::v4l2_event_subscription::zeroed();
    subscription.type_ = sys::V4L2_EVENT_SOURCE_CHANGE;
    subscription.id = input;
    // SAFETY: `fd` is open during the call; the kernel reads one v4l2_event_subscription, which `subscription` is.
    match uninterrupted(|| unsafe { raw::vidioc_subscribe_event(fd.as_raw_fd(), &subscription) }) {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL | Errno::ENOTTY) => Ok(false),
        Err(errno) => Err(Failure::new("VIDIOC_SUBSCRIBE_EVENT", errno)),
    }
}

/// Takes the oldest event; `None` where none is waiting. On a device opened with `O_NONBLOCK` it never waits.
///
/// # Errors
/// Only [`Failure`].
pub fn dqevent(fd: impl AsFd) -> Result<Option<Event>, Failure> {
    let fd = fd.as_fd();
    let mut event = sys::v4l2_event::zeroed();
    // SAFETY: `fd` is open during the call; the kernel writes one v4l2_event, which `event` is.
    match uninterrupted(|| unsafe { raw::vidioc_dqevent(fd.as_raw_fd(), &mut event) }) {
        Ok(()) => Ok(Some(Event::from_raw(&event))),
        Err(Errno::ENOENT | Errno::EAGAIN) => Ok(None),
        Err(errno) => Err(Failure::new("VIDIOC_DQEVENT", errno)),
    }
}

impl Event {
    fn from_raw(event: &sys::v4l2_event) -> Event {
        if event.type_ != sys::V4L2_EVENT_SOURCE_CHANGE {
            return Event::Other(event.type_);
        }
        // SAFETY: every member of the union is plain integers, and `src_change` is the one this type fills.
        let changes = unsafe { event.u.src_change.changes };
        Event::SourceChange { input: event.id, resolution: changes & sys::V4L2_EVENT_SRC_CH_RESOLUTION != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_change_names_its_input() {
        let mut raw = sys::v4l2_event::zeroed();
        raw.type_ = sys::V4L2_EVENT_SOURCE_CHANGE;
        raw.id = 3;
        raw.u.src_change.changes = sys::V4L2_EVENT_SRC_CH_RESOLUTION;
        assert_eq!(Event::from_raw(&raw), Event::SourceChange { input: 3, resolution: true });
    }

    #[test]
    fn unknown_event_keeps_its_number() {
        let mut raw = sys::v4l2_event::zeroed();
        raw.type_ = 0x0800_0001;
        assert_eq!(Event::from_raw(&raw), Event::Other(0x0800_0001));
    }
}
