//! What a CRTC is to show, as property assignments: the one place that knows which properties make a picture.
//!
//! Connector → CRTC (with a mode) ← planes. Kernel doc: `gpu/drm-kms.rst`, "Standard Plane Properties" and following.

use std::io;

use drm::control::{Device as _, Mode, ResourceHandle, connector, crtc, plane};

use shrbuf_pipeline::Colorimetry;

use super::color::Colors;
use super::device::{Card, DeviceError};
use super::props::{Assignments, PropId, Props};

/// A rectangle on the screen, in pixels of the mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Pixels from the left edge.
    pub x: i32,
    /// Pixels from the top edge.
    pub y: i32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Properties of a plane, in the order in which [`super::restore`] keeps their values.
const PLANE_PROPERTIES: [&str; 10] =
    ["FB_ID", "CRTC_ID", "SRC_X", "SRC_Y", "SRC_W", "SRC_H", "CRTC_X", "CRTC_Y", "CRTC_W", "CRTC_H"];
/// Number of [`PLANE_PROPERTIES`].
pub(super) const PLANE_VALUES: usize = PLANE_PROPERTIES.len();

/// Properties of some planes only, of which an earlier user may have left something behind.
const EXTRA_PROPERTIES: [&str; 4] = ["rotation", "alpha", Colors::ENCODING, Colors::RANGE];
/// Number of [`EXTRA_PROPERTIES`].
pub(super) const EXTRA_VALUES: usize = EXTRA_PROPERTIES.len();
/// Their values, `None` for those that are not there or stay as they are.
pub(super) type Extra = [Option<u64>; EXTRA_VALUES];

/// Rotation by 0 degrees.
const UPRIGHT: u64 = 1;

/// The value of "alpha" for a plane that nothing behind it can be seen through.
pub(super) const OPAQUE: u16 = 0xffff;

/// A plane's property numbers.
#[derive(Debug, Clone)]
pub(super) struct PlaneIds {
    pub(super) handle: plane::Handle,
    main: [PropId; PLANE_VALUES],
    extra: [Option<PropId>; EXTRA_VALUES],
    pub(super) in_fence_fd: Option<PropId>,
    /// Higher is nearer to the viewer; `None` where the driver does not say.
    pub(super) zpos: Option<u64>,
    colors: Colors,
}

impl PlaneIds {
    pub(super) fn query(card: &Card, handle: plane::Handle) -> Result<PlaneIds, DeviceError> {
        let props = Props::query(card, handle).map_err(card.asked("plane properties"))?;
        let mut main = [props.id(card, "FB_ID")?; PLANE_VALUES];
        for (id, name) in main.iter_mut().zip(PLANE_PROPERTIES) {
            *id = props.id(card, name)?;
        }
        let extra = EXTRA_PROPERTIES.map(|name| props.find(name));
        let (in_fence_fd, zpos, colors) = (props.find("IN_FENCE_FD"), props.value("zpos"), Colors::of(&props));
        Ok(PlaneIds { handle, main, extra, in_fence_fd, zpos, colors })
    }

    pub(super) fn object(&self) -> u32 {
        self.handle.into()
    }

    pub(super) fn fb_id(&self) -> PropId {
        self.main[0]
    }

    /// Whether it can let through what is behind it.
    pub(super) fn blends(&self) -> bool {
        self.extra[1].is_some()
    }

    /// The values of the ten main properties, then of the others (where there are such), now.
    pub(super) fn values(&self, card: &Card) -> io::Result<([u64; PLANE_VALUES], Extra)> {
        let now = Values::of(card, self.handle)?;
        Ok((self.main.map(|id| now.get(id)), self.extra.map(|id| id.map(|id| now.get(id)))))
    }

    /// Assigns what [`PlaneIds::values`] gave.
    pub(super) fn set(&self, to: &mut Assignments, main: &[u64; PLANE_VALUES], extra: &Extra) {
        for (id, value) in self.main.iter().zip(main) {
            to.set(self.object(), *id, *value);
        }
        self.set_extra(to, extra);
    }

    fn set_extra(&self, to: &mut Assignments, extra: &Extra) {
        for (id, value) in self.extra.iter().zip(extra) {
            if let (Some(id), Some(value)) = (id, value) {
                to.set(self.object(), *id, *value);
            }
        }
    }

    /// Assigns a whole frame of `width` x `height` pixels, shown at `at`, upright, and as opaque as `alpha` says.
    pub(super) fn show(
        &self,
        to: &mut Assignments,
        crtc: crtc::Handle,
        fb: u32,
        (width, height): (u32, u32),
        at: Rect,
        alpha: u16,
    ) {
        // Source coordinates are 16.16 fixed point; CRTC_X and CRTC_Y are signed.
        let main = [
            u64::from(fb),
            u64::from(u32::from(crtc)),
            0,
            0,
            u64::from(width) << 16,
            u64::from(height) << 16,
            i64::from(at.x) as u64,
            i64::from(at.y) as u64,
            u64::from(at.width),
            u64::from(at.height),
        ];
        self.set(to, &main, &[Some(UPRIGHT), Some(alpha.into()), None, None]);
    }

    /// Assigns how the code values of YUV frames are to be understood.
    pub(super) fn color(&self, to: &mut Assignments, color: Colorimetry) {
        let [encoding, range] = self.colors.values(color);
        self.set_extra(to, &[None, None, encoding, range]);
    }

    /// Assigns nothing to show.
    pub(super) fn off(&self, to: &mut Assignments) {
        to.set(self.object(), self.main[0], 0);
        to.set(self.object(), self.main[1], 0);
    }
}

/// A connector's property numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectorIds {
    pub(super) handle: connector::Handle,
    crtc_id: PropId,
}

impl ConnectorIds {
    pub(super) fn query(card: &Card, handle: connector::Handle) -> Result<ConnectorIds, DeviceError> {
        let props = Props::query(card, handle).map_err(card.asked("connector properties"))?;
        Ok(ConnectorIds { handle, crtc_id: props.id(card, "CRTC_ID")? })
    }

    /// Assigns the CRTC that is to drive the connector, or none.
    pub(super) fn route(&self, to: &mut Assignments, crtc: Option<crtc::Handle>) {
        to.set(self.handle.into(), self.crtc_id, u64::from(crtc.map_or(0, u32::from)));
    }
}

/// A CRTC's property numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct CrtcIds {
    pub(super) handle: crtc::Handle,
    mode_id: PropId,
    active: PropId,
}

impl CrtcIds {
    pub(super) fn query(card: &Card, handle: crtc::Handle) -> Result<CrtcIds, DeviceError> {
        let props = Props::query(card, handle).map_err(card.asked("CRTC properties"))?;
        Ok(CrtcIds { handle, mode_id: props.id(card, "MODE_ID")?, active: props.id(card, "ACTIVE")? })
    }

    /// Whether the CRTC is on now.
    pub(super) fn is_active(&self, card: &Card) -> io::Result<bool> {
        Ok(Values::of(card, self.handle)?.get(self.active) != 0)
    }

    /// Assigns a mode, or none.
    pub(super) fn set(&self, to: &mut Assignments, mode: Option<&ModeBlob>, active: bool) {
        to.set(self.handle.into(), self.mode_id, mode.map_or(0, |m| m.id));
        to.set(self.handle.into(), self.active, u64::from(active));
    }
}

/// A mode where the property MODE_ID can name it; a CRTC that uses it keeps it after this is dropped.
pub(super) struct ModeBlob {
    card: Card,
    id: u64,
}

impl ModeBlob {
    pub(super) fn new(card: &Card, mode: &Mode) -> Result<ModeBlob, DeviceError> {
        let value = card.create_property_blob(mode).map_err(card.asked("a blob for the mode"))?;
        Ok(ModeBlob { card: card.clone(), id: value.into() })
    }
}

impl Drop for ModeBlob {
    fn drop(&mut self) {
        let _ = self.card.destroy_property_blob(self.id);
    }
}

/// An object's property values now, by number.
struct Values(drm::control::PropertyValueSet);

impl Values {
    fn of<H: ResourceHandle>(card: &Card, object: H) -> io::Result<Values> {
        card.get_properties(object).map(Values)
    }

    fn get(&self, id: PropId) -> u64 {
        self.0.iter().find(|(handle, _)| id.is(**handle)).map_or(0, |(_, value)| *value)
    }
}

/// The planes and connectors of a card that one CRTC can have.
#[derive(Debug, Clone)]
pub(super) struct Pipe {
    pub(super) crtc: CrtcIds,
    pub(super) planes: Vec<PlaneIds>,
    pub(super) connectors: Vec<ConnectorIds>,
}

/// Which of them it has now.
pub(super) struct Attached<'a> {
    pub(super) planes: Vec<&'a PlaneIds>,
    pub(super) connectors: Vec<&'a ConnectorIds>,
}

impl Pipe {
    /// Asks the kernel. Another output of the same card may take or free a plane at any time, so this is asked anew
    /// for each change of mode.
    pub(super) fn attached(&self, card: &Card) -> io::Result<Attached<'_>> {
        let crtc = u64::from(u32::from(self.crtc.handle));
        let mut attached = Attached { planes: Vec::new(), connectors: Vec::new() };
        for plane in &self.planes {
            if Values::of(card, plane.handle)?.get(plane.main[1]) == crtc {
                attached.planes.push(plane);
            }
        }
        for connector in &self.connectors {
            if Values::of(card, connector.handle)?.get(connector.crtc_id) == crtc {
                attached.connectors.push(connector);
            }
        }
        Ok(attached)
    }
}
