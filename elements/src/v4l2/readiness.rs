//! What polling a capture device tells.

use nix::sys::epoll::EpollFlags;

/// What polling a queue's fd has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// [`CaptureQueue::dequeue`](super::CaptureQueue::dequeue) has something: a frame, or the end of the stream.
    pub frame: bool,
    /// [`Device::next_event`](super::Device::next_event) has something.
    pub event: bool,
    /// The queue is not streaming or in a fatal error (videobuf2 reports POLLERR for both, and does so for as long as
    /// it lasts: take the fd out of the epoll set, or it spins).
    /// [`CaptureQueue::dequeue`](super::CaptureQueue::dequeue) says which.
    pub error: bool,
    /// The device was unplugged. The other members mean nothing then.
    pub unplugged: bool,
}

impl Readiness {
    /// What to poll for. POLLERR and POLLHUP come unasked.
    pub const INTEREST: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLPRI);
}

impl From<EpollFlags> for Readiness {
    fn from(flags: EpollFlags) -> Readiness {
        Readiness {
            frame: flags.contains(EpollFlags::EPOLLIN),
            event: flags.contains(EpollFlags::EPOLLPRI),
            error: flags.contains(EpollFlags::EPOLLERR),
            // v4l2_poll() says HUP for a node that is unregistered, and for nothing else.
            unplugged: flags.contains(EpollFlags::EPOLLHUP),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hangup_is_an_unplugged_device() {
        let flags = EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP | EpollFlags::EPOLLPRI;
        assert!(Readiness::from(flags).unplugged);
    }

    #[test]
    fn frame_and_event_may_come_together() {
        let readiness = Readiness::from(EpollFlags::EPOLLIN | EpollFlags::EPOLLPRI);
        assert_eq!(readiness, Readiness { frame: true, event: true, error: false, unplugged: false });
    }
}
