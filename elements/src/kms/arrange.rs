//! Several frames on one screen, each on a plane of its own: which planes, in which mode.
//!
//! As with one frame, only the driver knows: bandwidth, scalers and the order of planes are shared in ways that nobody
//! writes down. So planes are handed out from the back to the front, each step proved by a TEST_ONLY commit of all
//! frames so far, and taken back where the next frame finds none.

use std::fmt;

use drm::control::{Mode, PlaneType};
use nix::errno::Errno;
use shrbuf_pipeline::Colorimetry;

use super::device::{DeviceError, PlaneInfo};
use super::dumb::DumbBuffer;
use super::gem::FrameBuffer;
use super::output::{Output, Placement, Shown, size};
use super::placement::{Fit, Offer, Try, candidates, tried};
use super::state::{Attached, ModeBlob, OPAQUE, Rect};

/// Most TEST_ONLY commits in one mode. A driver that refuses more has been asked enough; 8 planes for 4 frames, each
/// way there is, are 70.
const MAX_TRIES: usize = 200;

/// A frame, and where on the screen it is to be.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// What to call it in a refusal.
    pub name: &'a str,
    /// The frame.
    pub frame: &'a FrameBuffer,
    /// Where. It may lie partly outside of the screen.
    pub at: Rect,
    /// How opaque, from 0 to 0xffff.
    pub alpha: u16,
}

/// Why frames cannot be shown together.
#[derive(Debug, thiserror::Error)]
pub enum ArrangeError {
    /// The driver refuses every way, or there are too few planes.
    #[error("{connector} cannot show {shown} on planes of their own: {what}", connector = .offer.connector)]
    Refused {
        /// The frames, by name.
        shown: String,
        /// Which found no plane, and why not.
        what: Box<NoPlane>,
        /// What there is.
        offer: Box<Offer>,
    },
    /// The display has no mode of the size that was asked for.
    #[error("{} has no mode of {}x{}; {offer}", .offer.connector, .size.0, .size.1)]
    NoMode {
        /// Pixels.
        size: (u32, u32),
        /// What there is.
        offer: Box<Offer>,
    },
    /// The card itself.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Why a frame found no plane.
#[derive(Debug, Clone, PartialEq)]
pub enum NoPlane {
    /// Those that there are were needed for the frames behind it.
    TooFew {
        /// The frame's name.
        layer: String,
        /// Planes that take such frames.
        planes: usize,
        /// Frames to be shown.
        frames: usize,
    },
    /// None takes its format.
    Format {
        /// The frame's name.
        layer: String,
        /// DRM fourcc.
        fourcc: u32,
    },
    /// None can be seen through.
    Opaque {
        /// The frame's name.
        layer: String,
    },
    /// The driver refused.
    Tried {
        /// The frame's name.
        layer: String,
        /// The frame's size and the size it was to have on screen.
        sizes: [(u32, u32); 2],
        /// The ways, with what the driver said.
        tries: Vec<Try>,
    },
}

impl NoPlane {
    /// What would do.
    pub fn instead(&self, offer: &Offer) -> String {
        match self {
            NoPlane::TooFew { planes: 1, .. } => "one input".to_owned(),
            NoPlane::TooFew { planes, .. } => format!("at most {planes} inputs"),
            NoPlane::Format { .. } => format!("a format that they take: {offer}"),
            NoPlane::Opaque { .. } => "`opacity` left out".to_owned(),
            NoPlane::Tried { sizes: [(width, height), shown], .. } if (*width, *height) != *shown => {
                format!("a rectangle of the frames' own size, {width}x{height}, so that nothing is scaled")
            }
            NoPlane::Tried { .. } => format!("fewer inputs or another format; {offer}"),
        }
    }
}

impl fmt::Display for NoPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoPlane::TooFew { layer, planes, frames } => {
                write!(f, "`{layer}` finds none left, since {planes} take such frames and {frames} are to be shown")
            }
            NoPlane::Format { layer, fourcc } => {
                write!(f, "none takes {}, which `{layer}` is", shrbuf::format::fourcc_name(*fourcc))
            }
            NoPlane::Opaque { layer } => write!(f, "none can be seen through, as `{layer}` is to be"),
            NoPlane::Tried { layer, sizes: [frame, shown], tries } => {
                write!(f, "`{layer}`, {}x{}", frame.0, frame.1)?;
                if frame != shown {
                    write!(f, " scaled to {}x{}", shown.0, shown.1)?;
                }
                write!(f, ": {}", tried(tries))
            }
        }
    }
}

/// How far the search has come, and what stopped it there.
struct Deepest {
    layer: usize,
    tries: Vec<Try>,
}

struct Search<'a> {
    output: &'a Output,
    attached: &'a Attached<'a>,
    blob: &'a ModeBlob,
    mode: Mode,
    layers: &'a [Layer<'a>],
    /// From the back to the front.
    planes: Vec<&'a PlaneInfo>,
    /// What the primary plane shows behind them.
    backdrop: Option<&'a DumbBuffer>,
    left: usize,
    deepest: &'a mut Deepest,
}

impl Search<'_> {
    /// Finds planes for the layers that have none yet, among those from `from` on.
    fn place(&mut self, found: &mut Vec<Placement>, from: usize) -> Result<bool, DeviceError> {
        let Some(layer) = self.layers.get(found.len()) else { return Ok(true) };
        for i in from..self.planes.len() {
            let plane = self.planes[i];
            if !fits(self.output, plane, layer) {
                continue;
            }
            if self.left == 0 {
                return Ok(false);
            }
            self.left -= 1;
            let frame = (layer.frame.width(), layer.frame.height());
            found.push(Placement {
                mode: self.mode,
                plane: plane.handle,
                kind: plane.kind,
                frame,
                at: layer.at,
                fit: if frame == (layer.at.width, layer.at.height) { Fit::Window } else { Fit::Scaled },
                backdrop: self.backdrop.is_some(),
                alpha: layer.alpha,
            });
            match self.prove(found)? {
                None if self.place(found, i + 1)? => return Ok(true),
                None => {}
                Some(errno) => self.note(found, errno),
            }
            found.pop();
        }
        Ok(false)
    }

    fn prove(&self, found: &[Placement]) -> Result<Option<Errno>, DeviceError> {
        let color = Colorimetry::default();
        let together = found.iter().zip(self.layers);
        let shown: Vec<Shown<'_>> =
            together.map(|(placement, layer)| Shown { placement, frame: layer.frame, color }).collect();
        self.output.prove(self.attached, &shown, self.blob, self.backdrop)
    }

    fn note(&mut self, found: &[Placement], errno: Errno) {
        let layer = found.len() - 1;
        if layer > self.deepest.layer {
            *self.deepest = Deepest { layer, tries: Vec::new() };
        }
        let Some(placement) = found.last().filter(|_| layer == self.deepest.layer) else { return };
        let attempt = Try { placement: placement.clone(), errno };
        if !self.deepest.tries.iter().any(|t| t.to_string() == attempt.to_string()) {
            self.deepest.tries.push(attempt);
        }
    }
}

fn takes(plane: &PlaneInfo, layer: &Layer<'_>) -> bool {
    plane.formats.takes(layer.frame.fourcc(), layer.frame.modifier())
}

fn fits(output: &Output, plane: &PlaneInfo, layer: &Layer<'_>) -> bool {
    let blends = || output.pipe.planes.iter().any(|p| p.handle == plane.handle && p.blends());
    takes(plane, layer) && (layer.alpha == OPAQUE || blends())
}

impl Output {
    /// A plane for each of several frames, from the back to the front, proved together, in the first of `modes` where
    /// there is a way: see [`Output::modes_around`]. Some ten TEST_ONLY commits where all goes well, no change.
    ///
    /// # Errors
    /// [`ArrangeError`], which names the frame that found no plane.
    pub fn arrange(&self, layers: &[Layer<'_>], modes: &[Mode]) -> Result<Vec<Placement>, ArrangeError> {
        let card = self.card();
        card.become_master()?;
        if let Some(none) = self.lacks(layers) {
            return Err(self.refusal(layers, none));
        }
        let attached = self.pipe.attached(card).map_err(card.asked("what the CRTC shows"))?;
        let mut deepest = Deepest { layer: 0, tries: Vec::new() };
        for mode in modes {
            let blob = ModeBlob::new(card, mode)?;
            let black = self.black(mode)?;
            for backdrop in [None, black.as_ref()] {
                let mut planes = self.planes_by_depth();
                planes.retain(|p| backdrop.is_none() || p.kind != PlaneType::Primary);
                let mut search = Search {
                    output: self,
                    attached: &attached,
                    blob: &blob,
                    mode: *mode,
                    layers,
                    planes,
                    backdrop,
                    left: MAX_TRIES,
                    deepest: &mut deepest,
                };
                let mut found = Vec::new();
                if search.place(&mut found, 0)? {
                    return Ok(found);
                }
            }
        }
        let layer = &layers[deepest.layer];
        let sizes = [(layer.frame.width(), layer.frame.height()), (layer.at.width, layer.at.height)];
        Err(self.refusal(layers, NoPlane::Tried { layer: layer.name.to_owned(), sizes, tries: deepest.tries }))
    }

    fn refusal(&self, layers: &[Layer<'_>], what: NoPlane) -> ArrangeError {
        let names: Vec<String> = layers.iter().map(|l| format!("`{}`", l.name)).collect();
        let offer = Box::new(self.offer());
        ArrangeError::Refused { shown: names.join(", "), what: Box::new(what), offer }
    }

    /// What is missing whatever the driver says of it.
    fn lacks(&self, layers: &[Layer<'_>]) -> Option<NoPlane> {
        let named = |layer: &Layer<'_>| layer.name.to_owned();
        let none = |test: &dyn Fn(&Layer<'_>, &PlaneInfo) -> bool| {
            layers.iter().find(|layer| !self.planes().any(|plane| test(layer, plane)))
        };
        if let Some(layer) = none(&|layer, plane| takes(plane, layer)) {
            return Some(NoPlane::Format { layer: named(layer), fourcc: layer.frame.fourcc() });
        }
        if let Some(layer) = none(&|layer, plane| fits(self, plane, layer)) {
            return Some(NoPlane::Opaque { layer: named(layer) });
        }
        let planes = self.planes().filter(|plane| layers.iter().any(|l| fits(self, plane, l))).count();
        let left_over = layers.get(planes)?;
        Some(NoPlane::TooFew { layer: named(left_over), planes, frames: layers.len() })
    }

    /// Modes for frames at these places, best first: one that they fill, else one that is larger, the present one before
    /// others; or those of the size that `wanted` says.
    ///
    /// # Errors
    /// [`ArrangeError::NoMode`].
    pub fn modes_around(&self, places: &[Rect], wanted: Option<(u32, u32)>) -> Result<Vec<Mode>, ArrangeError> {
        let end = |start: i32, length: u32| u32::try_from(i64::from(start) + i64::from(length)).unwrap_or(1).max(1);
        let extent = |of: &dyn Fn(&Rect) -> u32| places.iter().map(of).max().unwrap_or(1);
        let extent = (extent(&|at| end(at.x, at.width)), extent(&|at| end(at.y, at.height)));
        let modes = self.usable_modes(wanted);
        if let (Some(size), true) = (wanted, modes.is_empty()) {
            return Err(ArrangeError::NoMode { size, offer: Box::new(self.offer()) });
        }
        let index = |mode: Option<Mode>| modes.iter().position(|m| Some(*m) == mode);
        let sizes: Vec<(u32, u32)> = modes.iter().map(size).collect();
        let (current, preferred) = (index(self.current()), index(self.preferred()));
        let mut order: Vec<usize> = Vec::new();
        // What does not fit on any, or only on one that the driver refuses, is cut off at the edges.
        let all = candidates(&sizes, current, preferred, extent).into_iter().map(|c| c.mode);
        for i in all.chain(current).chain(preferred).chain(wanted.iter().flat_map(|_| 0..modes.len())) {
            if !order.contains(&i) {
                order.push(i);
            }
        }
        Ok(order.into_iter().map(|i| modes[i]).collect())
    }

    /// The planes that can show frames, from the back to the front: by the driver's word, else primary ones first and
    /// the others in the order of their numbers, as compositors assume.
    fn planes_by_depth(&self) -> Vec<&PlaneInfo> {
        let mut planes: Vec<&PlaneInfo> = self.planes().collect();
        let zpos = |plane: &PlaneInfo| self.pipe.planes.iter().find(|p| p.handle == plane.handle).and_then(|p| p.zpos);
        if planes.iter().all(|plane| zpos(plane).is_some()) {
            planes.sort_by_key(|plane| zpos(plane));
        }
        planes
    }
}
