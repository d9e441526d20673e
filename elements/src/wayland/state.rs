//! What the compositor has told us, event by event.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use shrbuf_pipeline::{Frame, Size, Timestamp};
use wayland_client::protocol::{
    wl_buffer, wl_callback, wl_compositor, wl_region, wl_registry, wl_shm, wl_shm_pool, wl_surface,
};
use wayland_client::{Connection, Dispatch, QueueHandle, WEnum, delegate_noop, event_created_child};
use wayland_protocols::wp::color_representation::v1::client::{
    wp_color_representation_manager_v1 as color_manager, wp_color_representation_surface_v1 as color_surface,
};
use wayland_protocols::wp::linux_dmabuf::zv1::client::{
    zwp_linux_buffer_params_v1 as params, zwp_linux_dmabuf_feedback_v1 as dmabuf_feedback,
    zwp_linux_dmabuf_v1 as dmabuf,
};
use wayland_protocols::wp::linux_drm_syncobj::v1::client::{
    wp_linux_drm_syncobj_manager_v1 as syncobj_manager, wp_linux_drm_syncobj_surface_v1 as syncobj_surface,
    wp_linux_drm_syncobj_timeline_v1 as syncobj_timeline,
};
use wayland_protocols::wp::linux_explicit_synchronization::zv1::client::{
    zwp_linux_buffer_release_v1 as release, zwp_linux_explicit_synchronization_v1 as explicit_sync,
    zwp_linux_surface_synchronization_v1 as surface_sync,
};
use wayland_protocols::wp::presentation_time::client::{wp_presentation, wp_presentation_feedback};
use wayland_protocols::wp::viewporter::client::{wp_viewport, wp_viewporter};
use wayland_protocols::xdg::decoration::zv1::client::{zxdg_decoration_manager_v1, zxdg_toplevel_decoration_v1};
use wayland_protocols::xdg::shell::client::{xdg_surface, xdg_toplevel, xdg_wm_base};

use super::buffer::WaylandBuffer;
use super::clock::PresentationClock;
use super::color;
use super::error::WaylandError;
use super::feedback::{Feedback, Pair, Tranche, named, read_table};
use super::globals::Listed;
use super::place::Configured;

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

/// What a callback was asked for.
pub(super) enum Asked {
    /// `wl_display.sync`.
    Answer,
    /// `wl_surface.frame`.
    Frame,
}

/// How the compositor answered to `params.create`.
pub(super) type Made = Option<wl_buffer::WlBuffer>;

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
    pub(super) failure: Option<WaylandError>,
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

    fn fail(&mut self, error: WaylandError) {
        self.failure.get_or_insert(error);
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

impl Dispatch<wl_registry::WlRegistry, ()> for State {
    fn event(
        state: &mut State,
        _: &wl_registry::WlRegistry,
        event: wl_registry::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        if let wl_registry::Event::Global { name, interface, version } = event {
            state.listed.push(Listed { name, interface, version });
        }
    }
}

impl Dispatch<wl_callback::WlCallback, Asked> for State {
    fn event(
        state: &mut State,
        _: &wl_callback::WlCallback,
        _: wl_callback::Event,
        asked: &Asked,
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        match asked {
            Asked::Answer => state.answers += 1,
            Asked::Frame => state.in_flight = false,
        }
    }
}

impl Dispatch<wl_shm::WlShm, ()> for State {
    fn event(
        state: &mut State,
        _: &wl_shm::WlShm,
        event: wl_shm::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        if let wl_shm::Event::Format { format } = event {
            state.shm_formats.push(match format {
                WEnum::Value(format) => format.into(),
                WEnum::Unknown(format) => format,
            });
        }
    }
}

impl Dispatch<wl_buffer::WlBuffer, ()> for State {
    fn event(
        state: &mut State,
        buffer: &wl_buffer::WlBuffer,
        _: wl_buffer::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        state.let_go(|h| h.released == Released::Buffer && h.buffer.buffer == *buffer);
    }
}

impl Dispatch<dmabuf::ZwpLinuxDmabufV1, ()> for State {
    fn event(
        state: &mut State,
        _: &dmabuf::ZwpLinuxDmabufV1,
        event: dmabuf::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        // Version 3 alone: later ones give feedback instead.
        if let dmabuf::Event::Modifier { format, modifier_hi, modifier_lo } = event {
            let modifier = u64::from(modifier_hi) << 32 | u64::from(modifier_lo);
            let feedback = state.feedback.get_or_insert_default();
            if feedback.tranches.is_empty() {
                feedback.tranches.push(Tranche::default());
            }
            feedback.tranches[0].pairs.push(Pair { fourcc: format, modifier });
        }
    }
}

impl Dispatch<dmabuf_feedback::ZwpLinuxDmabufFeedbackV1, ()> for State {
    fn event(
        state: &mut State,
        _: &dmabuf_feedback::ZwpLinuxDmabufFeedbackV1,
        event: dmabuf_feedback::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        use dmabuf_feedback::Event;
        match event {
            Event::FormatTable { fd, size } => match read_table(fd, size) {
                Ok(table) => state.table = table,
                Err(error) => state.fail(error),
            },
            Event::MainDevice { device } => state.unfinished.main_device = device,
            Event::TrancheTargetDevice { device } => state.tranche.device = device,
            Event::TrancheFormats { indices } => state.tranche.pairs.extend(named(&state.table, &indices)),
            Event::TrancheFlags { flags: WEnum::Value(flags) } => {
                state.tranche.scanout = flags.contains(dmabuf_feedback::TrancheFlags::Scanout);
            }
            Event::TrancheDone => state.unfinished.tranches.push(std::mem::take(&mut state.tranche)),
            Event::Done => {
                state.feedback = Some(std::mem::take(&mut state.unfinished));
                state.feedback_is_new = true;
            }
            _ => {}
        }
    }
}

impl Dispatch<params::ZwpLinuxBufferParamsV1, usize> for State {
    fn event(
        state: &mut State,
        params: &params::ZwpLinuxBufferParamsV1,
        event: params::Event,
        &number: &usize,
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        params.destroy();
        let made = match event {
            params::Event::Created { buffer } => Some(buffer),
            _ => None,
        };
        if let Some(place) = state.made.get_mut(number) {
            *place = Some(made);
        }
    }

    event_created_child!(State, params::ZwpLinuxBufferParamsV1, [
        params::EVT_CREATED_OPCODE => (wl_buffer::WlBuffer, ()),
    ]);
}

impl Dispatch<xdg_wm_base::XdgWmBase, ()> for State {
    fn event(
        _: &mut State,
        shell: &xdg_wm_base::XdgWmBase,
        event: xdg_wm_base::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        if let xdg_wm_base::Event::Ping { serial } = event {
            shell.pong(serial);
        }
    }
}

impl Dispatch<xdg_surface::XdgSurface, ()> for State {
    fn event(
        state: &mut State,
        _: &xdg_surface::XdgSurface,
        event: xdg_surface::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        if let xdg_surface::Event::Configure { serial } = event {
            state.configured = state.unacknowledged;
            state.configure = Some(serial);
        }
    }
}

/// A size of which one side is 0 is none.
fn size(width: i32, height: i32) -> Option<Size> {
    match (u32::try_from(width), u32::try_from(height)) {
        (Ok(width @ 1..), Ok(height @ 1..)) => Some(Size::new(width, height)),
        _ => None,
    }
}

impl Dispatch<xdg_toplevel::XdgToplevel, ()> for State {
    fn event(
        state: &mut State,
        _: &xdg_toplevel::XdgToplevel,
        event: xdg_toplevel::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        match event {
            xdg_toplevel::Event::Configure { width, height, states } => {
                let maximized = u32::from(xdg_toplevel::State::Maximized).to_ne_bytes();
                state.unacknowledged.size = size(width, height);
                state.unacknowledged.exact = states.chunks_exact(4).any(|s| s == maximized);
            }
            xdg_toplevel::Event::ConfigureBounds { width, height } => {
                state.unacknowledged.bounds = size(width, height);
            }
            xdg_toplevel::Event::Close => state.closed = true,
            _ => {}
        }
    }
}

impl Dispatch<wp_presentation::WpPresentation, ()> for State {
    fn event(
        state: &mut State,
        _: &wp_presentation::WpPresentation,
        event: wp_presentation::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        if let wp_presentation::Event::ClockId { clk_id } = event {
            state.clock = PresentationClock::new(clk_id);
        }
    }
}

impl Dispatch<color_manager::WpColorRepresentationManagerV1, ()> for State {
    fn event(
        state: &mut State,
        _: &color_manager::WpColorRepresentationManagerV1,
        event: color_manager::Event,
        _: &(),
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        if let color_manager::Event::SupportedCoefficientsAndRanges {
            coefficients: WEnum::Value(coefficients),
            range: WEnum::Value(range),
        } = event
        {
            state.colors.push((coefficients, range));
        }
    }
}

/// The frame's time of capture goes along.
impl Dispatch<wp_presentation_feedback::WpPresentationFeedback, Timestamp> for State {
    fn event(
        state: &mut State,
        _: &wp_presentation_feedback::WpPresentationFeedback,
        event: wp_presentation_feedback::Event,
        &captured: &Timestamp,
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        use wp_presentation_feedback::{Event, Kind};
        match event {
            Event::Presented { tv_sec_hi, tv_sec_lo, tv_nsec, flags, .. } => {
                state.untold = state.untold.saturating_sub(1);
                state.presented += 1;
                let seconds = u64::from(tv_sec_hi) << 32 | u64::from(tv_sec_lo);
                let at = seconds.saturating_mul(1_000_000_000).saturating_add(tv_nsec.into());
                if matches!(flags, WEnum::Value(flags) if flags.contains(Kind::ZeroCopy)) {
                    state.scanned_out += 1;
                }
                if let Some(clock) = state.clock
                    && state.shown.len() < TOLD_AT_ONCE
                {
                    state.shown.push((captured, clock.monotonic(at)));
                }
            }
            Event::Discarded => {
                state.untold = state.untold.saturating_sub(1);
                state.discarded += 1;
            }
            _ => {}
        }
    }
}

/// The number of the commit goes along.
impl Dispatch<release::ZwpLinuxBufferReleaseV1, u64> for State {
    fn event(
        state: &mut State,
        _: &release::ZwpLinuxBufferReleaseV1,
        event: release::Event,
        &commit: &u64,
        _: &Connection,
        _: &QueueHandle<State>,
    ) {
        match event {
            release::Event::FencedRelease { fence } => state.released(commit, Some(fence)),
            _ => state.released(commit, None),
        }
    }
}

delegate_noop!(State: wl_compositor::WlCompositor);
delegate_noop!(State: wl_region::WlRegion);
delegate_noop!(State: wl_shm_pool::WlShmPool);
delegate_noop!(State: ignore wl_surface::WlSurface);
delegate_noop!(State: wp_viewporter::WpViewporter);
delegate_noop!(State: wp_viewport::WpViewport);
delegate_noop!(State: color_surface::WpColorRepresentationSurfaceV1);
delegate_noop!(State: syncobj_manager::WpLinuxDrmSyncobjManagerV1);
delegate_noop!(State: syncobj_surface::WpLinuxDrmSyncobjSurfaceV1);
delegate_noop!(State: syncobj_timeline::WpLinuxDrmSyncobjTimelineV1);
delegate_noop!(State: explicit_sync::ZwpLinuxExplicitSynchronizationV1);
delegate_noop!(State: surface_sync::ZwpLinuxSurfaceSynchronizationV1);
delegate_noop!(State: zxdg_decoration_manager_v1::ZxdgDecorationManagerV1);
delegate_noop!(State: ignore zxdg_toplevel_decoration_v1::ZxdgToplevelDecorationV1);

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
