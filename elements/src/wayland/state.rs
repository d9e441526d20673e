//! What the compositor has told us, event by event.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use shrbuf_pipeline::{Frame, Size, Timestamp};
use wayland_client::protocol::{wl_buffer, wl_callback, wl_display, wl_registry, wl_shm};
use wayland_protocols::wp::color_representation::v1::client::wp_color_representation_manager_v1 as color_manager;
use wayland_protocols::wp::linux_dmabuf::zv1::client::{
    zwp_linux_buffer_params_v1 as params, zwp_linux_dmabuf_feedback_v1 as dmabuf_feedback,
    zwp_linux_dmabuf_v1 as dmabuf,
};
use wayland_protocols::wp::linux_explicit_synchronization::zv1::client::zwp_linux_buffer_release_v1 as release;
use wayland_protocols::wp::presentation_time::client::{wp_presentation, wp_presentation_feedback as presented};
use wayland_protocols::xdg::shell::client::{xdg_surface, xdg_toplevel, xdg_wm_base};

use super::buffer::WaylandBuffer;
use super::clock::PresentationClock;
use super::color;
use super::error::WaylandError;
use super::feedback::{Feedback, Pair, Tranche, named, read_table};
use super::globals::Listed;
use super::object::{Id, Kind};
use super::place::Configured;
use super::wire::{Arg, Event, Wire};

/// Most presentations that can be waiting to be told: far more than there are frames on their way.
const TOLD_AT_ONCE: usize = 64;

/// A frame that the compositor may be reading.
pub(super) struct Held {
    pub(super) frame: Frame,
    pub(super) buffer: Arc<WaylandBuffer>,
    pub(super) released: Released,
    /// The eventfd is to say when that point is signalled.
    pub(super) awaited: bool,
}

/// A frame that the compositor has done with, from the signal of this fence on.
pub(super) struct Left {
    pub(super) frame: Frame,
    pub(super) fence: Option<OwnedFd>,
}

/// What says that the compositor has done with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Released {
    /// `wl_buffer.release`.
    Buffer,
    /// `zwp_linux_buffer_release_v1` of the commit of this number.
    Commit(u64),
    /// This point of the buffer's timeline.
    Point(u64),
}

/// How the compositor answered to `params.create`.
pub(super) type Made = Option<Id>;

#[derive(Default)]
pub(super) struct State {
    pub(super) listed: Vec<Listed>,
    /// Times that the compositor has answered to `wl_display.sync`.
    pub(super) answers: u64,
    pub(super) shm_formats: Vec<u32>,
    pub(super) clock: Option<PresentationClock>,
    /// What it can be told of YUV.
    pub(super) colors: Vec<color::Pair>,
    /// The last complete word on dma-bufs.
    pub(super) feedback: Option<Feedback>,
    /// It has come since somebody last looked.
    pub(super) feedback_is_new: bool,
    table: Vec<Pair>,
    unfinished: Feedback,
    tranche: Tranche,
    /// By the number of the request; `None` is no answer yet.
    pub(super) made: Vec<Option<Made>>,
    unacknowledged: Configured,
    pub(super) configured: Configured,
    /// Serial of a configuration that has not been acknowledged.
    pub(super) configure: Option<u32>,
    pub(super) closed: bool,
    pub(super) held: Vec<Held>,
    /// To be given back after what is urgent.
    pub(super) left: Vec<Left>,
    /// The compositor has not asked for another frame yet.
    pub(super) in_flight: bool,
    /// Commits of which it has not said when they were shown, or that they were not.
    pub(super) untold: u32,
    /// Captured, shown.
    pub(super) shown: Vec<(Timestamp, Timestamp)>,
    pub(super) presented: u64,
    pub(super) discarded: u64,
    /// Shown from our memory by the display controller itself.
    pub(super) scanned_out: u64,
}

impl State {
    pub(super) fn new() -> State {
        State {
            held: Vec::with_capacity(shrbuf::pool::MAX_BUFFERS),
            left: Vec::with_capacity(shrbuf::pool::MAX_BUFFERS),
            shown: Vec::with_capacity(TOLD_AT_ONCE),
            ..State::default()
        }
    }

    /// The compositor has done with a commit; from `fence` on, where there is one.
    fn released(&mut self, commit: u64, fence: Option<OwnedFd>) {
        let Some(at) = self.held.iter().position(|h| h.released == Released::Commit(commit)) else { return };
        let Held { frame, .. } = self.held.swap_remove(at);
        self.left.push(Left { frame, fence });
    }

    /// The compositor has done with those frames that it holds of which `is_done` says so.
    pub(super) fn let_go(&mut self, mut is_done: impl FnMut(&Held) -> bool) {
        let left = self.held.extract_if(.., |held| is_done(held));
        self.left.extend(left.map(|Held { frame, .. }| Left { frame, fence: None }));
    }
}

impl State {
    /// Takes note of an event. One that says nothing to us is passed over.
    ///
    /// # Errors
    /// [`WaylandError::Protocol`] where the compositor ends the connection, [`WaylandError::BadMessage`] where it makes no sense.
    pub(super) fn event(&mut self, mut event: Event<'_>, wire: &mut Wire) -> Result<(), WaylandError> {
        let (of, event) = (event.of, &mut event);
        let unknown = || WaylandError::BadMessage(format!("an event of object {}, which there is not", of.0));
        match (wire.objects().kind(of).ok_or_else(unknown)?, event.opcode) {
            (Kind::Display, wl_display::EVT_ERROR_OPCODE) => return Err(ended(event, wire)?),
            (Kind::Display, wl_display::EVT_DELETE_ID_OPCODE) => {
                let id = event.id()?;
                if !wire.objects().deleted(id) {
                    return Err(WaylandError::BadMessage(format!("the end of object {}, which there is not", id.0)));
                }
            }
            (Kind::Registry, wl_registry::EVT_GLOBAL_OPCODE) => {
                self.listed.push(Listed { name: event.uint()?, interface: event.text()?, version: event.uint()? });
            }
            (Kind::Answer, wl_callback::EVT_DONE_OPCODE) => self.answers += 1,
            (Kind::Frame, wl_callback::EVT_DONE_OPCODE) => self.in_flight = false,
            (Kind::Shm, wl_shm::EVT_FORMAT_OPCODE) => self.shm_formats.push(event.uint()?),
            (Kind::Buffer, wl_buffer::EVT_RELEASE_OPCODE) => {
                self.let_go(|h| h.released == Released::Buffer && h.buffer.buffer.id == of);
            }
            (Kind::DmaBuf, dmabuf::EVT_MODIFIER_OPCODE) => self.modifier(event)?,
            (Kind::DmaBufFeedback, _) => self.dmabuf_feedback(event)?,
            (Kind::Params(number), params::EVT_CREATED_OPCODE) => {
                let buffer = event.id()?;
                if !wire.objects().add_theirs(buffer, Kind::Buffer) {
                    return Err(WaylandError::BadMessage(format!("a buffer of number {}", buffer.0)));
                }
                self.made(number, Some(buffer), of, wire);
            }
            (Kind::Params(number), params::EVT_FAILED_OPCODE) => self.made(number, None, of, wire),
            (Kind::Shell, xdg_wm_base::EVT_PING_OPCODE) => {
                wire.request(of, xdg_wm_base::REQ_PONG_OPCODE, [Arg::Uint(event.uint()?)]);
            }
            (Kind::ShellSurface, xdg_surface::EVT_CONFIGURE_OPCODE) => {
                self.configured = self.unacknowledged;
                self.configure = Some(event.uint()?);
            }
            (Kind::Toplevel, xdg_toplevel::EVT_CONFIGURE_OPCODE) => {
                self.unacknowledged.size = size(event.int()?, event.int()?);
                let maximized = u32::from(xdg_toplevel::State::Maximized).to_ne_bytes();
                self.unacknowledged.exact = event.array()?.chunks_exact(4).any(|s| s == maximized);
            }
            (Kind::Toplevel, xdg_toplevel::EVT_CONFIGURE_BOUNDS_OPCODE) => {
                self.unacknowledged.bounds = size(event.int()?, event.int()?);
            }
            (Kind::Toplevel, xdg_toplevel::EVT_CLOSE_OPCODE) => self.closed = true,
            (Kind::Presentation, wp_presentation::EVT_CLOCK_ID_OPCODE) => {
                self.clock = PresentationClock::new(event.uint()?);
            }
            (Kind::Colors, color_manager::EVT_SUPPORTED_COEFFICIENTS_AND_RANGES_OPCODE) => {
                let (coefficients, range) = (event.uint()?.try_into(), event.uint()?.try_into());
                if let (Ok(coefficients), Ok(range)) = (coefficients, range) {
                    self.colors.push((coefficients, range));
                }
            }
            (Kind::Feedback(captured), presented::EVT_PRESENTED_OPCODE) => self.presented(captured, event)?,
            (Kind::Feedback(_), presented::EVT_DISCARDED_OPCODE) => {
                self.untold = self.untold.saturating_sub(1);
                self.discarded += 1;
            }
            (Kind::Release(commit), release::EVT_FENCED_RELEASE_OPCODE) => self.released(commit, Some(event.fd()?)),
            (Kind::Release(commit), release::EVT_IMMEDIATE_RELEASE_OPCODE) => self.released(commit, None),
            _ => {}
        }
        Ok(())
    }

    /// Version 3 of linux-dmabuf alone: later ones give feedback instead.
    fn modifier(&mut self, event: &mut Event<'_>) -> Result<(), WaylandError> {
        let (fourcc, high, low) = (event.uint()?, event.uint()?, event.uint()?);
        let feedback = self.feedback.get_or_insert_default();
        if feedback.tranches.is_empty() {
            feedback.tranches.push(Tranche::default());
        }
        feedback.tranches[0].pairs.push(Pair { fourcc, modifier: u64::from(high) << 32 | u64::from(low) });
        Ok(())
    }

    fn dmabuf_feedback(&mut self, event: &mut Event<'_>) -> Result<(), WaylandError> {
        match event.opcode {
            dmabuf_feedback::EVT_FORMAT_TABLE_OPCODE => self.table = read_table(event.fd()?, event.uint()?)?,
            dmabuf_feedback::EVT_MAIN_DEVICE_OPCODE => self.unfinished.main_device = event.array()?.to_vec(),
            dmabuf_feedback::EVT_TRANCHE_TARGET_DEVICE_OPCODE => self.tranche.device = event.array()?.to_vec(),
            dmabuf_feedback::EVT_TRANCHE_FORMATS_OPCODE => {
                self.tranche.pairs.extend(named(&self.table, event.array()?));
            }
            dmabuf_feedback::EVT_TRANCHE_FLAGS_OPCODE => {
                self.tranche.scanout = event.uint()? & dmabuf_feedback::TrancheFlags::Scanout.bits() != 0;
            }
            dmabuf_feedback::EVT_TRANCHE_DONE_OPCODE => {
                self.unfinished.tranches.push(std::mem::take(&mut self.tranche));
            }
            dmabuf_feedback::EVT_DONE_OPCODE => {
                self.feedback = Some(std::mem::take(&mut self.unfinished));
                self.feedback_is_new = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn made(&mut self, number: usize, made: Made, params: Id, wire: &mut Wire) {
        wire.destroy(params, params::REQ_DESTROY_OPCODE);
        if let Some(place) = self.made.get_mut(number) {
            *place = Some(made);
        }
    }

    fn presented(&mut self, captured: Timestamp, event: &mut Event<'_>) -> Result<(), WaylandError> {
        let (seconds_high, seconds_low, ns) = (event.uint()?, event.uint()?, event.uint()?);
        let (_refresh, _sequence, flags) = (event.uint()?, (event.uint()?, event.uint()?), event.uint()?);
        self.untold = self.untold.saturating_sub(1);
        self.presented += 1;
        if flags & presented::Kind::ZeroCopy.bits() != 0 {
            self.scanned_out += 1;
        }
        let seconds = u64::from(seconds_high) << 32 | u64::from(seconds_low);
        let at = seconds.saturating_mul(1_000_000_000).saturating_add(ns.into());
        if let Some(clock) = self.clock
            && self.shown.len() < TOLD_AT_ONCE
        {
            self.shown.push((captured, clock.monotonic(at)));
        }
        Ok(())
    }
}

/// Why the compositor ends the connection.
fn ended(event: &mut Event<'_>, wire: &mut Wire) -> Result<WaylandError, WaylandError> {
    let (object, code, message) = (event.id()?, event.uint()?, event.text()?);
    let interface = wire.objects().kind(object).map_or("an unknown object", Kind::interface).to_owned();
    Ok(WaylandError::Protocol { interface, object: object.0, code, message })
}

/// A size of which one side is 0 is none.
fn size(width: i32, height: i32) -> Option<Size> {
    match (u32::try_from(width), u32::try_from(height)) {
        (Ok(width @ 1..), Ok(height @ 1..)) => Some(Size::new(width, height)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_no_pixels_are_none() {
        assert_eq!(size(640, 360), Some(Size::new(640, 360)));
        for (width, height) in [(0, 0), (640, 0), (-1, 360), (i32::MIN, i32::MIN)] {
            assert_eq!(size(width, height), None);
        }
    }
}
