//! The window: a surface with its roles.

use std::time::Duration;

use wayland_client::QueueHandle;
use wayland_client::protocol::{wl_buffer::WlBuffer, wl_surface::WlSurface};
use wayland_protocols::wp::linux_explicit_synchronization::zv1::client::zwp_linux_surface_synchronization_v1::ZwpLinuxSurfaceSynchronizationV1;
use wayland_protocols::wp::viewporter::client::wp_viewport::WpViewport;
use wayland_protocols::xdg::decoration::zv1::client::zxdg_toplevel_decoration_v1::Mode;
use wayland_protocols::xdg::shell::client::xdg_surface::XdgSurface;

use super::globals::{DMABUF_FEEDBACK, Globals};
use super::state::State;

/// What a window is to be like.
pub(super) struct WindowSpec<'a> {
    pub(super) title: &'a str,
    pub(super) app_id: &'a str,
    pub(super) fullscreen: bool,
    /// Longest time for an answer of the compositor.
    pub(super) patience: Duration,
}

/// A surface that is a window. It is gone with its connection.
pub(super) struct Window {
    pub(super) surface: WlSurface,
    pub(super) shell_surface: XdgSurface,
    pub(super) viewport: Option<WpViewport>,
    pub(super) sync: Option<ZwpLinuxSurfaceSynchronizationV1>,
}

impl Window {
    /// Asks for one: its first configuration is on its way.
    pub(super) fn new(globals: &Globals, handle: &QueueHandle<State>, spec: &WindowSpec<'_>) -> Window {
        let surface = globals.compositor.create_surface(handle, ());
        let shell_surface = globals.shell.get_xdg_surface(&surface, handle, ());
        let toplevel = shell_surface.get_toplevel(handle, ());
        toplevel.set_title(spec.title.to_owned());
        toplevel.set_app_id(spec.app_id.to_owned());
        if spec.fullscreen {
            toplevel.set_fullscreen(None);
        }
        if let Some(decorations) = &globals.decorations {
            decorations.get_toplevel_decoration(&toplevel, handle, ()).set_mode(Mode::ServerSide);
        }
        if let Some(dmabuf) = globals.dmabuf.as_ref().filter(|d| wayland_client::Proxy::version(*d) >= DMABUF_FEEDBACK)
        {
            dmabuf.get_surface_feedback(&surface, handle, ());
        }
        // Frames have no meaning behind them: what is in an alpha channel is not shown.
        let region = globals.compositor.create_region(handle, ());
        region.add(0, 0, i32::MAX, i32::MAX);
        surface.set_opaque_region(Some(&region));
        region.destroy();
        let viewport = globals.viewporter.as_ref().map(|v| v.get_viewport(&surface, handle, ()));
        let sync = globals.explicit_sync.as_ref().map(|s| s.get_synchronization(&surface, handle, ()));
        surface.commit();
        Window { surface, shell_surface, viewport, sync }
    }

    /// The next commit shows all of `buffer`.
    pub(super) fn attach(&self, buffer: &WlBuffer) {
        self.surface.attach(Some(buffer), 0, 0);
        self.surface.damage_buffer(0, 0, i32::MAX, i32::MAX);
    }
}
