//! What was on an output before, brought back afterwards: the console, a boot splash, or nothing.
//!
//! Saved are the CRTC's mode, every plane that it showed and every connector that it drove. They come back in one
//! commit, on [`Screen::stop`](super::Screen::stop) or on drop, so also when a panic unwinds. What another process owns may be gone by
//! then; the CRTC is switched off in that case, so that at least none of our frames stays on screen and in memory.

use std::os::fd::AsFd;

use drm::control::{Device as _, Mode};

use super::commit::CommitError;
use super::device::{Card, DeviceError};
use super::output::Output;
use super::props::Assignments;
use super::state::{ConnectorIds, Extra, ModeBlob, PLANE_VALUES, Pipe, PlaneIds};
use super::sys;

/// What an output showed.
pub(super) struct Saved {
    card: Card,
    pipe: Pipe,
    mode: Option<Mode>,
    active: bool,
    planes: Vec<SavedPlane>,
    connectors: Vec<ConnectorIds>,
    /// Something was shown over it.
    covered: bool,
}

struct SavedPlane {
    ids: PlaneIds,
    main: [u64; PLANE_VALUES],
    extra: Extra,
}

/// Why what was on screen before did not come back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Its frame buffer is gone, or does not fit any more; the output was switched off.
    #[error("what was on screen before is gone ({source}); the output was switched off")]
    Gone {
        /// What the kernel said.
        source: CommitError,
    },
    /// Nothing could be changed.
    #[error("the screen could not be restored: {0}")]
    Commit(#[from] CommitError),
}

impl Saved {
    /// Notes what is on `output` now.
    pub(super) fn save(output: &Output) -> Result<Saved, DeviceError> {
        let card = output.card().clone();
        let pipe = output.pipe.clone();
        let asked = |what| card.asked(what);
        let mode = card.get_crtc(pipe.crtc.handle).map_err(asked("CRTC"))?.mode();
        let active = pipe.crtc.is_active(&card).map_err(asked("CRTC properties"))?;
        let attached = pipe.attached(&card).map_err(asked("what the CRTC shows"))?;
        let mut planes = Vec::new();
        for ids in &attached.planes {
            let (main, extra) = ids.values(&card).map_err(asked("plane properties"))?;
            planes.push(SavedPlane { ids: (*ids).clone(), main, extra });
        }
        let connectors = attached.connectors.into_iter().copied().collect();
        Ok(Saved { card: card.clone(), mode, active, planes, connectors, pipe: pipe.clone(), covered: false })
    }

    /// Something is shown over it from now on, so that there is something to bring back.
    pub(super) fn cover(&mut self) {
        self.covered = true;
    }

    /// Brings it back where it was covered. **Blocks** for a change of mode.
    pub(super) fn restore(&mut self) -> Result<(), RestoreError> {
        if !std::mem::take(&mut self.covered) {
            return Ok(());
        }
        match self.commit(self.mode.as_ref()) {
            Err(refused @ CommitError::Refused { .. }) if self.mode.is_some() => {
                self.commit(None)?;
                Err(RestoreError::Gone { source: refused })
            }
            other => Ok(other?),
        }
    }

    fn commit(&self, mode: Option<&Mode>) -> Result<(), CommitError> {
        let blob = mode.map(|m| ModeBlob::new(&self.card, m)).transpose()?;
        let attached = self.pipe.attached(&self.card).map_err(self.card.asked("what the CRTC shows"))?;
        let crtc = self.pipe.crtc.handle;
        let mut state = Assignments::default();
        for connector in &attached.connectors {
            if mode.is_none() || self.connectors.iter().all(|c| c.handle != connector.handle) {
                connector.route(&mut state, None);
            }
        }
        if mode.is_some() {
            self.connectors.iter().for_each(|c| c.route(&mut state, Some(crtc)));
        }
        self.pipe.crtc.set(&mut state, blob.as_ref(), self.active && mode.is_some());
        for plane in &attached.planes {
            if mode.is_none() || self.planes.iter().all(|p| p.ids.handle != plane.handle) {
                plane.off(&mut state);
            }
        }
        if mode.is_some() {
            self.planes.iter().for_each(|p| p.ids.set(&mut state, &p.main, &p.extra));
        }
        sys::atomic(self.card.as_fd(), sys::ALLOW_MODESET, 0, &mut state, None)
            .map(drop)
            .map_err(|source| CommitError::new(source, (0, 0), || "what was on screen before".to_owned()))
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            tracing::warn!(card = %self.card.path().display(), %error, "screen not restored");
        }
    }
}
