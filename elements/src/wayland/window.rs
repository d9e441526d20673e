//! The window: a surface with its roles.

use std::time::Duration;

use wayland_client::protocol::{wl_compositor, wl_region, wl_surface};
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_dmabuf_v1 as dmabuf;
use wayland_protocols::wp::linux_explicit_synchronization::zv1::client::zwp_linux_explicit_synchronization_v1 as explicit_sync;
use wayland_protocols::wp::viewporter::client::wp_viewporter;
use wayland_protocols::xdg::decoration::zv1::client::{
    zxdg_decoration_manager_v1 as decorations, zxdg_toplevel_decoration_v1 as decoration,
};
use wayland_protocols::xdg::shell::client::{xdg_surface, xdg_toplevel, xdg_wm_base};

use super::globals::Globals;
use super::object::{Id, Kind};
use super::wire::{Arg, Wire};

/// What a window is to be like.
pub(super) struct WindowSpec<'a> {
    pub(super) title: &'a str,
    pub(super) app_id: &'a str,
    pub(super) fullscreen: bool,
    /// Longest time for an answer of the compositor.
    pub(super) patience: Duration,
}

/// A surface that is a window. It is gone with its connection.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) surface: Id,
    pub(super) shell_surface: Id,
    pub(super) viewport: Option<Id>,
    pub(super) sync: Option<Id>,
}

impl Window {
    /// Asks for one: its first configuration is on its way.
    pub(super) fn new(globals: &Globals, wire: &mut Wire, spec: &WindowSpec<'_>) -> Window {
        let surface = wire.new_object(Kind::Surface);
        wire.request(globals.compositor, wl_compositor::REQ_CREATE_SURFACE_OPCODE, [Arg::Id(surface)]);
        // Another object of the surface's, whose request is of a manager.
        let mut of_surface = |kind, manager, opcode| {
            let object = wire.new_object(kind);
            wire.request(manager, opcode, [Arg::Id(object), Arg::Id(surface)]);
            object
        };
        let shell_surface = of_surface(Kind::ShellSurface, globals.shell, xdg_wm_base::REQ_GET_XDG_SURFACE_OPCODE);
        let viewport = globals
            .viewporter
            .map(|v| of_surface(Kind::Silent("wp_viewport"), v, wp_viewporter::REQ_GET_VIEWPORT_OPCODE));
        let sync = globals.explicit_sync.map(|manager| {
            let kind = Kind::Silent("zwp_linux_surface_synchronization_v1");
            of_surface(kind, manager, explicit_sync::REQ_GET_SYNCHRONIZATION_OPCODE)
        });
        if let Some(dmabuf) = globals.dmabuf.filter(|d| d.gives_feedback()) {
            of_surface(Kind::DmaBufFeedback, dmabuf.id, dmabuf::REQ_GET_SURFACE_FEEDBACK_OPCODE);
        }
        let toplevel = wire.new_object(Kind::Toplevel);
        wire.request(shell_surface, xdg_surface::REQ_GET_TOPLEVEL_OPCODE, [Arg::Id(toplevel)]);
        wire.request(toplevel, xdg_toplevel::REQ_SET_TITLE_OPCODE, [Arg::Text(spec.title)]);
        wire.request(toplevel, xdg_toplevel::REQ_SET_APP_ID_OPCODE, [Arg::Text(spec.app_id)]);
        if spec.fullscreen {
            wire.request(toplevel, xdg_toplevel::REQ_SET_FULLSCREEN_OPCODE, [Arg::Null]);
        }
        if let Some(manager) = globals.decorations {
            let object = wire.new_object(Kind::Silent("zxdg_toplevel_decoration_v1"));
            let of_toplevel = [Arg::Id(object), Arg::Id(toplevel)];
            wire.request(manager, decorations::REQ_GET_TOPLEVEL_DECORATION_OPCODE, of_toplevel);
            let mode = Arg::Uint(decoration::Mode::ServerSide.into());
            wire.request(object, decoration::REQ_SET_MODE_OPCODE, [mode]);
        }
        // Frames have no meaning behind them: what is in an alpha channel is not shown.
        let region = wire.new_object(Kind::Silent("wl_region"));
        wire.request(globals.compositor, wl_compositor::REQ_CREATE_REGION_OPCODE, [Arg::Id(region)]);
        wire.request(region, wl_region::REQ_ADD_OPCODE, EVERYTHING);
        wire.request(surface, wl_surface::REQ_SET_OPAQUE_REGION_OPCODE, [Arg::Id(region)]);
        wire.destroy(region, wl_region::REQ_DESTROY_OPCODE);
        wire.request(surface, wl_surface::REQ_COMMIT_OPCODE, []);
        Window { surface, shell_surface, viewport, sync }
    }

    /// The next commit shows all of `buffer`.
    pub(super) fn attach(&self, buffer: Id, wire: &mut Wire) {
        let at = [Arg::Id(buffer), Arg::Int(0), Arg::Int(0)];
        wire.request(self.surface, wl_surface::REQ_ATTACH_OPCODE, at);
        wire.request(self.surface, wl_surface::REQ_DAMAGE_BUFFER_OPCODE, EVERYTHING);
    }

    pub(super) fn commit(&self, wire: &mut Wire) {
        wire.request(self.surface, wl_surface::REQ_COMMIT_OPCODE, []);
    }
}

/// A rectangle around all pixels.
const EVERYTHING: [Arg<'static>; 4] = [Arg::Int(0), Arg::Int(0), Arg::Int(i32::MAX), Arg::Int(i32::MAX)];
