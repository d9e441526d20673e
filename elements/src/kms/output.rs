//! An output: a connector, the CRTC that drives it, and the ways in which it can show a frame.
//!
//! What a display controller can do is not written anywhere a program could read: which plane may be smaller than the
//! screen, which may scale, which needs which other. So each way is tried with a real frame buffer by a TEST_ONLY
//! commit, which changes nothing, and only what passes is offered.

use std::os::fd::AsFd;
use std::sync::Arc;

use drm::control::{Device as _, Mode, ModeFlags, PlaneType, connector, crtc, plane};
use nix::errno::Errno;
use shrbuf_pipeline::Colorimetry;

use super::device::{Card, ConnectorInfo, DeviceError, PlaneInfo};
use super::dumb::DumbBuffer;
use super::gem::FrameBuffer;
use super::placement::{Fit, Offer, PlanError, Try, candidates};
use super::props::Assignments;
use super::share::Claim;
use super::state::{Attached, ConnectorIds, CrtcIds, ModeBlob, OPAQUE, Pipe, PlaneIds, Rect};
use super::sys;
use super::writeback::Writeback;

/// A connected display and what drives it. Finding one changes nothing on the screen.
#[derive(Debug, Clone)]
pub struct Output {
    pub(super) card: Card,
    pub(super) pipe: Pipe,
    connector: ConnectorInfo,
    /// Writeback connectors that the CRTC can drive.
    pub(super) writebacks: Vec<ConnectorInfo>,
    planes: Vec<PlaneInfo>,
    current: Option<Mode>,
    /// Keeps others of this process from driving it.
    pub(super) claim: Option<Arc<Claim>>,
}

/// Why there is no such output.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// No connector has that name.
    #[error("there is no connector {name}; {driver} has {}", .connectors.join(", "))]
    NoSuchConnector {
        /// The name asked for.
        name: String,
        /// The driver.
        driver: String,
        /// Those there are.
        connectors: Vec<String>,
    },
    /// Nothing is plugged in there.
    #[error("no display is connected to {name}")]
    NotConnected {
        /// The connector.
        name: String,
    },
    /// Nothing is plugged in anywhere.
    #[error("no display is connected to {driver}, which has {}", .connectors.join(", "))]
    NoneConnected {
        /// The driver.
        driver: String,
        /// Its connectors.
        connectors: Vec<String>,
    },
    /// Another element of this process shows something there.
    #[error(
        "{name} is driven by another element of this process; inputs to one display go to one `kms-sink`, which shows \
             each on a plane (`planes`)"
    )]
    Taken {
        /// The connector, or which.
        name: String,
    },
    /// Each CRTC that could drive it drives another display.
    #[error("every CRTC that could drive {name} drives another display")]
    NoCrtc {
        /// The connector.
        name: String,
    },
    /// The card does not say what it has.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A way to show frames of one size and format, proved by a TEST_ONLY commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The mode it needs.
    pub mode: Mode,
    /// The plane that takes the frame.
    pub plane: plane::Handle,
    /// That plane's type.
    pub kind: PlaneType,
    /// The frame's size, in pixels.
    pub frame: (u32, u32),
    /// Where it appears.
    pub at: Rect,
    /// How it fits.
    pub fit: Fit,
    /// Whether the primary plane must show something behind it: black, then.
    pub backdrop: bool,
    /// How opaque it is, from 0 to 0xffff, as the property "alpha" has it.
    pub alpha: u16,
}

/// A frame, and where it goes.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) placement: &'a Placement,
    pub(super) frame: &'a FrameBuffer,
    pub(super) color: Colorimetry,
}

impl Output {
    /// Finds the connector `name`, or the first connected one, and a CRTC for it: its present one, else the first that
    /// drives nothing. Probes the connectors (reads EDIDs, blocks) where we are master.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn find(card: &Card, name: Option<&str>) -> Result<Output, OutputError> {
        Output::find_beside(card, name, &[])
    }

    /// As [`Output::find`], beside displays of the same card that this process drives.
    pub(super) fn find_beside(card: &Card, name: Option<&str>, others: &[Arc<Claim>]) -> Result<Output, OutputError> {
        let free = |c: &ConnectorInfo| others.iter().all(|other| other.connector != c.handle);
        let connectors = card.connectors()?;
        let shown = || connectors.iter().filter(|c| !c.writeback);
        let names = || shown().map(|c| c.name.clone()).collect::<Vec<_>>();
        let driver = card.driver().to_owned();
        let connector = match name {
            Some(name) => shown().find(|c| c.name == name).ok_or_else(|| OutputError::NoSuchConnector {
                name: name.to_owned(),
                driver,
                connectors: names(),
            })?,
            None => {
                let mut connected = shown().filter(|c| c.connected && !c.modes.is_empty());
                let first = connected
                    .clone()
                    .next()
                    .ok_or_else(|| OutputError::NoneConnected { driver, connectors: names() })?;
                connected.find(|c| free(c)).unwrap_or(first)
            }
        };
        if !free(connector) {
            return Err(OutputError::Taken { name: connector.name.clone() });
        }
        if !connector.connected || connector.modes.is_empty() {
            return Err(OutputError::NotConnected { name: connector.name.clone() });
        }
        let taken = |crtc: &crtc::Handle| {
            others.iter().any(|other| other.crtc == *crtc)
                || connectors.iter().any(|c| c.handle != connector.handle && c.connected && c.crtc == Some(*crtc))
        };
        let crtc = connector
            .crtc
            .filter(|crtc| others.iter().all(|other| other.crtc != *crtc))
            .or_else(|| connector.crtcs.iter().copied().find(|c| !taken(c)))
            .ok_or_else(|| OutputError::NoCrtc { name: connector.name.clone() })?;

        let mut planes: Vec<PlaneInfo> = card.planes()?.into_iter().filter(|p| p.crtcs.contains(&crtc)).collect();
        planes.sort_by_key(|p| [PlaneType::Primary, PlaneType::Overlay].iter().position(|k| *k == p.kind).unwrap_or(2));
        let pipe = Pipe {
            crtc: CrtcIds::query(card, crtc)?,
            planes: planes.iter().map(|p| PlaneIds::query(card, p.handle)).collect::<Result<_, _>>()?,
            connectors: connectors.iter().map(|c| ConnectorIds::query(card, c.handle)).collect::<Result<_, _>>()?,
        };
        let current = match connector.crtc {
            Some(crtc) => card.get_crtc(crtc).map_err(card.asked("CRTC"))?.mode(),
            None => None,
        };
        let writebacks = connectors.iter().filter(|c| c.writeback && c.crtcs.contains(&crtc)).cloned().collect();
        Ok(Output { card: card.clone(), pipe, connector: connector.clone(), writebacks, planes, current, claim: None })
    }

    /// The card it is on.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// The connector's name, as `Virtual-1`.
    pub fn name(&self) -> &str {
        &self.connector.name
    }

    pub(super) fn connector(&self) -> connector::Handle {
        self.connector.handle
    }

    /// The CRTC that drives it; flip events name it.
    pub fn crtc(&self) -> crtc::Handle {
        self.pipe.crtc.handle
    }

    /// The display's modes, in its order of preference.
    pub fn modes(&self) -> &[Mode] {
        &self.connector.modes
    }

    /// The mode that the display prefers.
    pub fn preferred(&self) -> Option<Mode> {
        self.connector.preferred()
    }

    /// The mode that was set when the output was found.
    pub fn current(&self) -> Option<Mode> {
        self.current
    }

    /// Planes that can show frames here: primary ones first, no cursors.
    pub fn planes(&self) -> impl Iterator<Item = &PlaneInfo> {
        self.planes.iter().filter(|p| p.kind != PlaneType::Cursor)
    }

    /// Ways to show frames of this kind, best first: a mode of exactly this size; the frame in the middle of a larger
    /// mode; the frame scaled. Each is proved with a dumb buffer of that kind, so the modifier must be linear or
    /// none; for others, import a real frame and ask [`Output::plan_for`]. Some 20 TEST_ONLY commits, no change.
    ///
    /// # Errors
    /// [`PlanError`]: no plane takes the format, every way was refused (both with what there is instead), or we are
    /// not the DRM master.
    pub fn plan(
        &self,
        width: u32,
        height: u32,
        fourcc: u32,
        modifier: Option<u64>,
    ) -> Result<Vec<Placement>, PlanError> {
        self.require_plane(width, height, fourcc, modifier)?;
        if modifier.is_some_and(|m| m != shrbuf::Modifier::LINEAR.0) {
            return Err(PlanError::NeedsFrame { fourcc, modifier: modifier.unwrap_or_default() });
        }
        self.plan_for(DumbBuffer::new(&self.card, width, height, fourcc)?.frame())
    }

    /// As [`Output::plan`], proved with the very frame that is to be shown. Where drivers have rules of their own
    /// (alignment, contiguity), only this is the truth.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan_for(&self, frame: &FrameBuffer) -> Result<Vec<Placement>, PlanError> {
        self.plan_in(frame, None)
    }

    /// As [`Output::plan_for`], in modes of one size only.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn plan_in(&self, frame: &FrameBuffer, wanted: Option<(u32, u32)>) -> Result<Vec<Placement>, PlanError> {
        let (width, height, fourcc) = (frame.width(), frame.height(), frame.fourcc());
        self.require_plane(width, height, fourcc, frame.modifier())?;
        self.card.become_master()?;
        let attached = self.pipe.attached(&self.card).map_err(self.card.asked("what the CRTC shows"))?;

        let modes = self.usable_modes(wanted);
        let index = |mode: Option<Mode>| modes.iter().position(|m| Some(*m) == mode);
        let sizes: Vec<(u32, u32)> = modes.iter().map(size).collect();
        let (mut found, mut tries) = (Vec::new(), Vec::new());
        for candidate in candidates(&sizes, index(self.current), index(self.preferred()), (width, height)) {
            let mode = modes[candidate.mode];
            let blob = ModeBlob::new(&self.card, &mode)?;
            'planes: for plane in self.planes().filter(|p| p.formats.takes(fourcc, frame.modifier())) {
                let backdrops: &[bool] = if plane.kind == PlaneType::Primary { &[false] } else { &[false, true] };
                for &backdrop in backdrops {
                    let placement = Placement {
                        mode,
                        plane: plane.handle,
                        kind: plane.kind,
                        frame: (width, height),
                        at: candidate.at,
                        fit: candidate.fit,
                        backdrop,
                        alpha: OPAQUE,
                    };
                    let shown = Shown { placement: &placement, frame, color: Colorimetry::default() };
                    let refused = match self.backdrop(&placement) {
                        Ok(black) => self.prove(&attached, &[shown], &blob, black.as_ref())?,
                        Err(_) => Some(Errno::ENOMEM),
                    };
                    match refused {
                        None => {
                            found.push(placement);
                            break 'planes;
                        }
                        Some(errno) => tries.push(Try { placement, errno }),
                    }
                }
            }
        }
        if found.is_empty() {
            let offer = Box::new(self.offer());
            return Err(PlanError::Refused { width, height, fourcc, modifier: frame.modifier(), tries, offer });
        }
        Ok(found)
    }

    /// Modes that frames can be shown in, of one size where that is asked for.
    pub(super) fn usable_modes(&self, wanted: Option<(u32, u32)>) -> Vec<Mode> {
        let mut modes: Vec<Mode> = self.modes().iter().copied().filter(is_progressive).collect();
        if let Some(current) = self.current.filter(is_progressive)
            && !modes.contains(&current)
        {
            modes.push(current);
        }
        modes.retain(|mode| wanted.is_none_or(|wanted| size(mode) == wanted));
        modes
    }

    /// A TEST_ONLY commit of frames at their places, all in one mode: `None` if it passes, else why not.
    pub(super) fn prove(
        &self,
        attached: &Attached<'_>,
        shown: &[Shown<'_>],
        mode: &ModeBlob,
        backdrop: Option<&DumbBuffer>,
    ) -> Result<Option<Errno>, DeviceError> {
        let mut state = self.assign(attached, shown, mode, backdrop, None);
        let flags = sys::TEST_ONLY | sys::ALLOW_MODESET;
        let Err(error) = sys::atomic(self.card.as_fd(), flags, 0, &mut state, None) else { return Ok(None) };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EACCES | Errno::EPERM) => Err(DeviceError::InUse {
                path: self.card.path().to_owned(),
                driver: self.card.driver().to_owned(),
                source: error,
            }),
            Some(Errno::ENODEV) | None => Err(self.card.asked("a TEST_ONLY commit")(error)),
            Some(errno) => Ok(Some(errno)),
        }
    }

    /// The black frame that `placement` needs behind it, if any.
    pub(super) fn backdrop(&self, placement: &Placement) -> Result<Option<DumbBuffer>, DeviceError> {
        if placement.backdrop { self.black(&placement.mode) } else { Ok(None) }
    }

    /// A black frame that fills the primary plane, if there is one.
    pub(super) fn black(&self, mode: &Mode) -> Result<Option<DumbBuffer>, DeviceError> {
        let Some(primary) = self.planes().find(|p| p.kind == PlaneType::Primary) else { return Ok(None) };
        let (width, height) = size(mode);
        DumbBuffer::black(&self.card, (width, height), primary.formats.iter().map(|(fourcc, _)| fourcc)).map(Some)
    }

    /// All that showing frames so takes, and nothing left on the CRTC of what was there before.
    pub(super) fn assign(
        &self,
        attached: &Attached<'_>,
        shown: &[Shown<'_>],
        mode: &ModeBlob,
        backdrop: Option<&DumbBuffer>,
        writeback: Option<&Writeback>,
    ) -> Assignments {
        let mut state = Assignments::default();
        let crtc = self.crtc();
        for other in &attached.connectors {
            if other.handle != self.connector.handle && writeback.is_none_or(|w| w.connector.handle != other.handle) {
                other.route(&mut state, None);
            }
        }
        if let Some(own) = self.pipe.connectors.iter().find(|c| c.handle == self.connector.handle) {
            own.route(&mut state, Some(crtc));
        }
        if let Some(writeback) = writeback {
            writeback.connector.route(&mut state, Some(crtc));
        }
        self.pipe.crtc.set(&mut state, Some(mode), true);
        let primary = self.planes().find(|p| p.kind == PlaneType::Primary).map(|p| p.handle);
        for plane in &self.pipe.planes {
            if let Some(Shown { placement, frame, color }) = shown.iter().find(|s| s.placement.plane == plane.handle) {
                plane.show(&mut state, crtc, frame.id().into(), placement.frame, placement.at, placement.alpha);
                if frame.is_yuv() {
                    plane.color(&mut state, *color);
                }
            } else if let Some(black) = backdrop.filter(|_| Some(plane.handle) == primary) {
                let black = black.frame();
                let (width, height) = (black.width(), black.height());
                let whole = Rect { x: 0, y: 0, width, height };
                plane.show(&mut state, crtc, black.id().into(), (width, height), whole, OPAQUE);
            } else if attached.planes.iter().any(|p| p.handle == plane.handle) {
                plane.off(&mut state);
            }
        }
        state
    }

    fn require_plane(&self, width: u32, height: u32, fourcc: u32, modifier: Option<u64>) -> Result<(), PlanError> {
        if self.planes().any(|p| p.formats.takes(fourcc, modifier)) {
            return Ok(());
        }
        Err(PlanError::NoPlane { width, height, fourcc, modifier, offer: Box::new(self.offer()) })
    }

    /// What there is, for refusals.
    pub(super) fn offer(&self) -> Offer {
        Offer {
            connector: self.connector.name.clone(),
            planes: self.planes().map(|p| (p.kind, p.formats.clone())).collect(),
            modes: self.modes().iter().map(size).collect(),
        }
    }
}

/// A mode's size, in pixels.
pub fn size(mode: &Mode) -> (u32, u32) {
    let (width, height) = mode.size();
    (width.into(), height.into())
}

fn is_progressive(mode: &Mode) -> bool {
    !mode.flags().intersects(ModeFlags::INTERLACE | ModeFlags::DBLSCAN)
}

/// Nanoseconds from one refresh to the next, from the mode's pixel clock; `None` for a mode without a clock.
pub fn refresh_ns(mode: &Mode) -> Option<u64> {
    let pixels = u64::from(mode.hsync().2) * u64::from(mode.vsync().2);
    let fields = if mode.flags().contains(ModeFlags::INTERLACE) { 2 } else { 1 };
    let repeats = u64::from(mode.vscan().max(1)) * if mode.flags().contains(ModeFlags::DBLSCAN) { 2 } else { 1 };
    // The clock is in kHz.
    (pixels * repeats * 1_000_000 / fields).checked_div(u64::from(mode.clock()))
}
