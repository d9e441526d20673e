//! A screen that shows frames: one change of mode to start, then one ioctl a frame.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use drm::control::crtc;
use nix::errno::Errno;
use shrbuf::Fence;
use shrbuf_pipeline::Colorimetry;

use super::device::{Card, DeviceError};
use super::dumb::DumbBuffer;
use super::gem::FrameBuffer;
use super::output::{Output, Placement, Shown};
use super::props::Assignments;
use super::restore::{RestoreError, Saved};
use super::state::{ModeBlob, PlaneIds};
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
    /// How the code values of a YUV frame are to be understood, where the plane can be told.
    pub color: Colorimetry,
    /// Comes back with the flip's event. An event can still come for a screen that was dropped, so a number that never
    /// comes twice tells events apart.
    pub user_data: u64,
}

/// One of the planes that a screen shows frames on.
struct Layer {
    placement: Placement,
    ids: PlaneIds,
    /// What the plane is set to.
    color: Colorimetry,
}

/// An output that shows frames. On drop, and on [`Screen::stop`], what was on it before comes back.
pub struct Screen {
    /// First, so that a drop restores the screen while all that it shows is still there.
    saved: Saved,
    output: Output,
    /// From the back to the front.
    layers: Vec<Layer>,
    writeback: Option<Writeback>,
    /// Shown behind the frames as long as the screen is.
    backdrop: Option<DumbBuffer>,
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
        Screen::start_all(output, std::slice::from_ref(placement), writeback, [(0, *flip)].into_iter())
    }

    /// As [`Screen::start`], with a frame on each of several planes: `placements` are those of
    /// [`Output::arrange`](super::Output::arrange), and `flips` has a frame for each, by its index there. There is one
    /// event, with the first one's user data.
    ///
    /// # Errors
    /// [`CommitError`]; the screen is as before then.
    pub fn start_all<'f>(
        output: &Output,
        placements: &[Placement],
        writeback: Option<Writeback>,
        flips: impl Iterator<Item = (usize, Flip<'f>)> + Clone,
    ) -> Result<Screen, CommitError> {
        let card = output.card();
        card.become_master()?;
        let saved = Saved::save(output)?;
        let backdrop = placements.first().map(|p| output.backdrop(p)).transpose()?.flatten();
        let mut layers = Vec::new();
        for placement in placements {
            let Some(ids) = output.pipe.planes.iter().find(|p| p.handle == placement.plane) else {
                return Err(CommitError::Refused {
                    what: format!("plane {} on {}", u32::from(placement.plane), output.name()),
                    source: Errno::ENOENT.into(),
                });
            };
            let color = flips.clone().find(|(i, _)| *i == layers.len()).map(|(_, flip)| flip.color).unwrap_or_default();
            layers.push(Layer { placement: placement.clone(), ids: ids.clone(), color });
        }
        let assignments = Assignments::for_frames(layers.len());
        let mut screen = Screen { saved, output: output.clone(), layers, writeback, backdrop, assignments };
        screen.modeset(flips)?;
        screen.saved.cover();
        Ok(screen)
    }

    fn modeset<'f>(&mut self, flips: impl Iterator<Item = (usize, Flip<'f>)> + Clone) -> Result<(), CommitError> {
        let card = self.output.card();
        let Some((_, first)) = flips.clone().next() else { return Ok(()) };
        let placed = flips.clone().filter_map(|(layer, flip)| Some((self.layers.get(layer)?, flip)));
        let shown: Vec<Shown<'_>> = placed
            .clone()
            .map(|(layer, flip)| Shown { placement: &layer.placement, frame: flip.frame, color: flip.color })
            .collect();
        let mode = ModeBlob::new(card, &shown[0].placement.mode)?;
        let attached = self.output.pipe.attached(card).map_err(card.asked("what the CRTC shows"))?;
        let mut state = self.output.assign(&attached, &shown, &mode, self.backdrop.as_ref(), self.writeback.as_ref());
        for (layer, flip) in placed {
            layer.wait_for(&flip, &mut state);
        }
        let flags = sys::ALLOW_MODESET | sys::PAGE_FLIP_EVENT;
        sys::atomic(card.as_fd(), flags, first.user_data, &mut state, None)
            .map(drop)
            .map_err(|source| self.refused(source, flips))
    }

    /// Brings a frame of the same size on screen at the next refresh: one ioctl, no allocation, does not block. Its
    /// event comes when it is there; until then further flips are refused as [`CommitError::Busy`].
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn flip(&mut self, flip: &Flip<'_>) -> Result<(), CommitError> {
        self.flip_all([(0, *flip)].into_iter())
    }

    /// As [`Screen::flip`], on some planes of several at once: all change at the same refresh, and what the others
    /// show stays. There is one event, with the first one's user data.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn flip_all<'f>(&mut self, flips: impl Iterator<Item = (usize, Flip<'f>)> + Clone) -> Result<(), CommitError> {
        self.assign(flips.clone());
        self.commit(flips, false).map(drop)
    }

    /// As [`Screen::flip_all`], and has what is then on screen written to `target`, a frame buffer of the mode's size in
    /// one of the writeback connector's formats: still one ioctl. The fence says when it is written; the kernel holds
    /// the target until then.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn flip_all_and_capture<'f>(
        &mut self,
        flips: impl Iterator<Item = (usize, Flip<'f>)> + Clone,
        target: &FrameBuffer,
    ) -> Result<Fence, CommitError> {
        self.assign(flips.clone());
        let Some(writeback) = &self.writeback else { return Err(CommitError::NoWriteback) };
        writeback.arm(&mut self.assignments, target);
        let fence = self.commit(flips, true)?;
        fence.ok_or_else(|| CommitError::Refused {
            what: "a fence for the capture".to_owned(),
            source: Errno::ENODATA.into(),
        })
    }

    /// [`Screen::flip_all_and_capture`] of one frame.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn flip_and_capture(&mut self, flip: &Flip<'_>, target: &FrameBuffer) -> Result<Fence, CommitError> {
        self.flip_all_and_capture([(0, *flip)].into_iter(), target)
    }

    fn assign<'f>(&mut self, flips: impl Iterator<Item = (usize, Flip<'f>)>) {
        self.assignments.clear();
        for (layer, flip) in flips {
            let Some(layer) = self.layers.get(layer) else { continue };
            self.assignments.set(layer.ids.object(), layer.ids.fb_id(), u64::from(u32::from(flip.frame.id())));
            if flip.color != layer.color && flip.frame.is_yuv() {
                layer.ids.color(&mut self.assignments, flip.color);
            }
            layer.wait_for(&flip, &mut self.assignments);
        }
    }

    fn commit<'f>(
        &mut self,
        flips: impl Iterator<Item = (usize, Flip<'f>)> + Clone,
        capture: bool,
    ) -> Result<Option<Fence>, CommitError> {
        let flags = sys::NONBLOCK | sys::PAGE_FLIP_EVENT;
        let out_fence = self.writeback.as_ref().filter(|_| capture).map(|w| w.out_fence);
        let fd = self.output.card.as_fd();
        let user_data = flips.clone().next().map_or(0, |(_, flip)| flip.user_data);
        let fence = sys::atomic(fd, flags, user_data, &mut self.assignments, out_fence)
            .and_then(|fd| fd.map(Fence::new).transpose())
            .map_err(|source| self.refused(source, flips.clone()))?;
        for (layer, flip) in flips {
            if let Some(layer) = self.layers.get_mut(layer) {
                layer.color = flip.color;
            }
        }
        Ok(fence)
    }

    /// Which frame a refusal is about: the first that is too small, or all.
    #[cold]
    fn refused<'f>(&self, source: io::Error, flips: impl Iterator<Item = (usize, Flip<'f>)> + Clone) -> CommitError {
        let mut placed = flips.filter_map(|(layer, flip)| Some((&self.layers.get(layer)?.placement, flip.frame)));
        let small = |(p, f): &(&Placement, &FrameBuffer)| f.width() < p.frame.0 || f.height() < p.frame.1;
        let expected = placed.clone().find(small).map_or((0, 0), |(p, _)| p.frame);
        CommitError::new(source, expected, || {
            let frames: Vec<String> = placed
                .by_ref()
                .map(|(placement, frame)| format!("{frame:?} on plane {}", u32::from(placement.plane)))
                .collect();
            format!("{} of {}", frames.join(", "), self.output.name())
        })
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

    /// How frames are shown, from the back to the front.
    pub fn placements(&self) -> impl ExactSizeIterator<Item = &Placement> {
        self.layers.iter().map(|layer| &layer.placement)
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

impl Layer {
    /// Has the display wait for whoever still writes the frame.
    fn wait_for(&self, flip: &Flip<'_>, to: &mut Assignments) {
        if let (Some(fence), Some(property)) = (flip.in_fence, self.ids.in_fence_fd) {
            to.set(self.ids.object(), property, fence.as_raw_fd() as u64);
        }
    }
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let placements: Vec<&Placement> = self.placements().collect();
        f.debug_struct("Screen").field("output", &self.output.name()).field("placements", &placements).finish()
    }
}
