//! A screen that shows frames: one change of mode to start, then one ioctl a frame.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use drm::control::crtc;
use nix::errno::Errno;
use shrbuf::Fence;

use super::device::{Card, DeviceError};
use super::dumb::DumbBuffer;
use super::gem::FrameBuffer;
use super::output::{Output, Placement};
use super::props::{Assignments, PropId};
use super::restore::{RestoreError, Saved};
use super::state::ModeBlob;
use super::sys;
use super::writeback::Writeback;

/// Why a commit was not done. Nothing has changed on screen then.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The flip before has not reached the screen: wait for its event.
    #[error("the previous flip is still pending")]
    Busy,
    /// We are no longer DRM master: another session has the display now.
    #[error("DRM master is lost: another session drives the display now")]
    LostMaster,
    /// The device is gone.
    #[error("the display device was unplugged")]
    Unplugged,
    /// The frame does not cover what the plane was set up to show.
    #[error("the frame is smaller than {}x{}, which the plane was set up for", .expected.0, .expected.1)]
    TooSmall {
        /// Pixels.
        expected: (u32, u32),
    },
    /// The driver does not want to.
    #[error("the driver refuses {what}: {source}")]
    Refused {
        /// What was to be committed.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No capture without a writeback connector.
    #[error("the screen was started without a writeback connector")]
    NoWriteback,
    /// The card itself.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl CommitError {
    pub(super) fn new(source: io::Error, expected: (u32, u32), what: impl FnOnce() -> String) -> CommitError {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EBUSY) => CommitError::Busy,
            Some(Errno::EACCES | Errno::EPERM) => CommitError::LostMaster,
            Some(Errno::ENODEV) => CommitError::Unplugged,
            Some(Errno::ENOSPC) => CommitError::TooSmall { expected },
            _ => CommitError::Refused { what: what(), source },
        }
    }
}

/// A frame to bring on screen at the next refresh.
#[derive(Debug, Clone, Copy)]
pub struct Flip<'a> {
    /// The frame. It, and what it holds, must stay unchanged until the event of the flip **after** this one: only then
    /// has it left the screen.
    pub frame: &'a FrameBuffer,
    /// A sync_file to wait for before the frame is read; only borrowed.
    pub in_fence: Option<BorrowedFd<'a>>,
    /// Comes back with the flip's event. An event can still come for a screen that was dropped, so a number that never
    /// comes twice tells events apart.
    pub user_data: u64,
}

/// An output that shows frames. On drop, and on [`Screen::stop`], what was on it before comes back.
pub struct Screen {
    /// First, so that a drop restores the screen while all that it shows is still there.
    saved: Saved,
    output: Output,
    placement: Placement,
    writeback: Option<Writeback>,
    /// Shown behind the frame as long as the screen is.
    backdrop: Option<DumbBuffer>,
    plane: u32,
    fb_id: PropId,
    in_fence_fd: Option<PropId>,
    /// What a frame's commit assigns; its arrays are used for every frame.
    assignments: Assignments,
}

impl Screen {
    /// Saves what is on the output, and shows `flip` there as `placement` says: **blocks** for a change of mode, up to
    /// some refreshes. With `writeback`, its connector is routed along, and frames can be captured later. The event
    /// with the flip's user data comes as for every flip.
    ///
    /// # Errors
    /// [`CommitError`]; the screen is as before then.
    pub fn start(
        output: &Output,
        placement: &Placement,
        writeback: Option<Writeback>,
        flip: &Flip<'_>,
    ) -> Result<Screen, CommitError> {
        let card = output.card();
        card.become_master()?;
        let saved = Saved::save(output)?;
        let backdrop = output.backdrop(placement)?;
        let Some(plane) = output.pipe.planes.iter().find(|p| p.handle == placement.plane) else {
            return Err(CommitError::Refused {
                what: format!("plane {} on {}", u32::from(placement.plane), output.name()),
                source: Errno::ENOENT.into(),
            });
        };
        let mut screen = Screen {
            plane: plane.object(),
            fb_id: plane.fb_id(),
            in_fence_fd: plane.in_fence_fd,
            output: output.clone(),
            placement: placement.clone(),
            writeback,
            backdrop,
            assignments: Assignments::for_frames(),
            saved,
        };
        screen.modeset(flip)?;
        screen.saved.cover();
        Ok(screen)
    }

    fn modeset(&mut self, flip: &Flip<'_>) -> Result<(), CommitError> {
        let card = self.output.card();
        let mode = ModeBlob::new(card, &self.placement.mode)?;
        let attached = self.output.pipe.attached(card).map_err(card.asked("what the CRTC shows"))?;
        let mut state = self.output.assign(
            &attached,
            &self.placement,
            &mode,
            flip.frame,
            self.backdrop.as_ref(),
            self.writeback.as_ref(),
        );
        if let (Some(fence), Some(property)) = (flip.in_fence, self.in_fence_fd) {
            state.set(self.plane, property, fence.as_raw_fd() as u64);
        }
        let flags = sys::ALLOW_MODESET | sys::PAGE_FLIP_EVENT;
        sys::atomic(card.as_fd(), flags, flip.user_data, &mut state, None)
            .map(drop)
            .map_err(|source| CommitError::new(source, self.placement.frame, || self.what(flip)))
    }

    /// Brings a frame of the same size on screen at the next refresh: one ioctl, no allocation, does not block. Its
    /// event comes when it is there; until then further flips are refused as [`CommitError::Busy`].
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn flip(&mut self, flip: &Flip<'_>) -> Result<(), CommitError> {
        self.assign(flip);
        self.commit(flip, false).map(drop)
    }

    /// As [`Screen::flip`], and has what is then on screen written to `target`, a frame buffer of the mode's size in
    /// one of the writeback connector's formats: still one ioctl. The fence says when it is written; the kernel holds
    /// the target until then.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn flip_and_capture(&mut self, flip: &Flip<'_>, target: &FrameBuffer) -> Result<Fence, CommitError> {
        self.assign(flip);
        let Some(writeback) = &self.writeback else { return Err(CommitError::NoWriteback) };
        writeback.arm(&mut self.assignments, target);
        let fence = self.commit(flip, true)?;
        fence.ok_or_else(|| CommitError::Refused {
            what: "a fence for the capture".to_owned(),
            source: Errno::ENODATA.into(),
        })
    }

    fn assign(&mut self, flip: &Flip<'_>) {
        self.assignments.clear();
        self.assignments.set(self.plane, self.fb_id, u64::from(u32::from(flip.frame.id())));
        if let (Some(fence), Some(property)) = (flip.in_fence, self.in_fence_fd) {
            self.assignments.set(self.plane, property, fence.as_raw_fd() as u64);
        }
    }

    fn commit(&mut self, flip: &Flip<'_>, capture: bool) -> Result<Option<Fence>, CommitError> {
        let flags = sys::NONBLOCK | sys::PAGE_FLIP_EVENT;
        let out_fence = self.writeback.as_ref().filter(|_| capture).map(|w| w.out_fence);
        let fd = self.output.card.as_fd();
        sys::atomic(fd, flags, flip.user_data, &mut self.assignments, out_fence)
            .and_then(|fd| fd.map(Fence::new).transpose())
            .map_err(|source| CommitError::new(source, self.placement.frame, || self.what(flip)))
    }

    fn what(&self, flip: &Flip<'_>) -> String {
        format!("{:?} on plane {} of {}", flip.frame, self.plane, self.output.name())
    }

    /// The card, for its events.
    pub fn card(&self) -> &Card {
        self.output.card()
    }

    /// The output.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The CRTC, which flip events name.
    pub fn crtc(&self) -> crtc::Handle {
        self.output.crtc()
    }

    /// How frames are shown.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The writeback connector that is routed along, if any.
    pub fn writeback(&self) -> Option<&Writeback> {
        self.writeback.as_ref()
    }

    /// Brings back what was on the output before. Dropping does the same, but cannot say how it went. **Blocks** for a
    /// change of mode.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn stop(mut self) -> Result<(), RestoreError> {
        self.saved.restore()
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("output", &self.output.name()).field("placement", &self.placement).finish()
    }
}
