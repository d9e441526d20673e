//! Reading the screen back: a writeback connector writes what its CRTC shows into a frame buffer.
//!
//! A connector can only be routed to a CRTC by a change of mode, but once it is, each commit may ask for a picture or
//! not. So whoever may want pictures gives the connector to [`Screen::start`](super::Screen::start), and later asks
//! with [`Screen::flip_and_capture`](super::Screen::flip_and_capture) for as many frames as he likes: the picture is
//! of exactly the frame that this flip brings on screen. Frames without a picture cost nothing. Kernel doc:
//! `gpu/drm-kms.rst`, "Writeback Connectors".

use drm::control::Device as _;

use super::device::DeviceError;
use super::dumb::DumbBuffer;
use super::gem::FrameBuffer;
use super::import::ImportError;
use super::output::Output;
use super::props::{Assignments, OutFencePtr, PropId, Props};
use super::state::ConnectorIds;

/// A writeback connector that can go with an output.
#[derive(Debug, Clone)]
pub struct Writeback {
    pub(super) connector: ConnectorIds,
    pub(super) out_fence: OutFencePtr,
    fb_id: PropId,
    formats: Vec<u32>,
}

impl Writeback {
    /// The first writeback connector that the output's CRTC can drive; `None` where there is none, as on most cards.
    ///
    /// # Errors
    /// [`DeviceError::Query`].
    pub fn find(output: &Output) -> Result<Option<Writeback>, DeviceError> {
        let card = output.card();
        let Some(found) = output.writebacks.first() else { return Ok(None) };
        let asked = card.asked("writeback properties");
        let props = Props::query(card, found.handle).map_err(&asked)?;
        let fb_id = props.id(card, "WRITEBACK_FB_ID")?;
        let (Some(out_fence), Some(blob)) =
            (props.out_fence("WRITEBACK_OUT_FENCE_PTR"), props.value("WRITEBACK_PIXEL_FORMATS"))
        else {
            return Ok(None);
        };
        let blob = card.get_property_blob(blob).map_err(&asked)?;
        let formats = blob.chunks_exact(4).map(|f| u32::from_ne_bytes([f[0], f[1], f[2], f[3]])).collect();
        Ok(Some(Writeback { connector: ConnectorIds::query(card, found.handle)?, out_fence, fb_id, formats }))
    }

    /// DRM fourccs that it can write, in the driver's order.
    pub fn formats(&self) -> &[u32] {
        &self.formats
    }

    /// A buffer to write to, of the size of `output`'s mode in `placement`.
    ///
    /// # Errors
    /// As [`DumbBuffer::new`].
    pub fn target(
        &self,
        output: &Output,
        placement: &super::Placement,
        fourcc: u32,
    ) -> Result<DumbBuffer, ImportError> {
        let (width, height) = super::output::size(&placement.mode);
        DumbBuffer::new(output.card(), width, height, fourcc)
    }

    /// Assigns the buffer to write to.
    pub(super) fn arm(&self, to: &mut Assignments, target: &FrameBuffer) {
        to.set(self.connector.handle.into(), self.fb_id, u64::from(u32::from(target.id())));
    }
}
