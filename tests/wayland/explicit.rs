//! The compositor's side of linux-explicit-synchronization: waits for the fences from which frames may be read, and says of
//! each commit when it has done with it, where a test wants that with a fence.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use wayland_protocols::wp::linux_explicit_synchronization::zv1::server::zwp_linux_buffer_release_v1::ZwpLinuxBufferReleaseV1;

/// What a client has said of its commits.
#[derive(Default)]
pub struct Commits {
    pub acquire: Option<OwnedFd>,
    pub release: Option<ZwpLinuxBufferReleaseV1>,
    shown: Option<(u32, ZwpLinuxBufferReleaseV1)>,
    /// By the number of the frame that is released with them.
    pub fences: HashMap<u32, OwnedFd>,
}

/// What was said of one.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing: it is released as ever.
    Nothing,
    /// That it is there.
    There,
    /// That it may be read from a fence on, which has signalled now.
    Fenced,
}

impl Commits {
    /// Frame `number` is shown in place of the one before.
    pub fn commit(&mut self, number: u32) -> Said {
        let Some(release) = self.release.take() else { return Said::Nothing };
        let fence = self.acquire.take();
        if let Some(fence) = &fence {
            let ready = poll(&mut [PollFd::new(fence.as_fd(), PollFlags::POLLIN)], PollTimeout::from(10_000_u16));
            assert_eq!(ready, Ok(1), "the frame is made in time");
        }
        if let Some((number, release)) = self.shown.replace((number, release)) {
            match self.fences.remove(&number) {
                Some(fence) => release.fenced_release(fence.as_fd()),
                None => release.immediate_release(),
            }
        }
        if fence.is_some() { Said::Fenced } else { Said::There }
    }
}
