//! What the compositor offers.

use std::ops::RangeInclusive;

use wayland_client::protocol::wl_registry;

use super::error::WaylandError;
use super::object::{Id, Kind};
use super::wire::{Arg, Wire};

/// One global object, as the registry lists it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) name: u32,
    pub(super) interface: String,
    pub(super) version: u32,
}

/// linux-dmabuf.
#[derive(Debug, Clone, Copy)]
pub(super) struct DmaBufGlobal {
    pub(super) id: Id,
    version: u32,
}

impl DmaBufGlobal {
    /// Whether it says what it can take for each surface, and not in one list.
    pub(super) fn gives_feedback(self) -> bool {
        self.version >= DMABUF_FEEDBACK
    }
}

/// Those that a window of frames uses.
#[derive(Debug)]
pub(super) struct Globals {
    pub(super) compositor: Id,
    pub(super) shell: Id,
    pub(super) shm: Id,
    pub(super) dmabuf: Option<DmaBufGlobal>,
    pub(super) timelines: Option<Id>,
    pub(super) explicit_sync: Option<Id>,
    pub(super) presentation: Option<Id>,
    pub(super) viewporter: Option<Id>,
    pub(super) color: Option<Id>,
    pub(super) decorations: Option<Id>,
}

/// From this version on linux-dmabuf names modifiers.
const DMABUF_MODIFIERS: u32 = 3;
/// From this version on linux-dmabuf gives feedback.
const DMABUF_FEEDBACK: u32 = 4;

impl Globals {
    pub(super) fn bind(registry: Id, listed: &[Listed], wire: &mut Wire) -> Result<Globals, WaylandError> {
        let mut bound = Binder { registry, listed, wire };
        Ok(Globals {
            compositor: bound.needed("wl_compositor", 4..=6, "surfaces")?,
            shell: bound.needed("xdg_wm_base", 1..=6, "windows")?,
            shm: bound.needed("wl_shm", 1..=1, "memory that is no dma-buf")?,
            dmabuf: bound
                .offered("zwp_linux_dmabuf_v1", DMABUF_MODIFIERS..=5)
                .map(|(id, version)| DmaBufGlobal { id, version }),
            timelines: bound.first("wp_linux_drm_syncobj_manager_v1"),
            explicit_sync: bound.first("zwp_linux_explicit_synchronization_v1"),
            presentation: bound.first("wp_presentation"),
            viewporter: bound.first("wp_viewporter"),
            color: bound.first("wp_color_representation_manager_v1"),
            decorations: bound.first("zxdg_decoration_manager_v1"),
        })
    }
}

/// What an interface's events are to us.
fn kind(interface: &'static str) -> Kind {
    match interface {
        "xdg_wm_base" => Kind::Shell,
        "wl_shm" => Kind::Shm,
        "zwp_linux_dmabuf_v1" => Kind::DmaBuf,
        "wp_presentation" => Kind::Presentation,
        "wp_color_representation_manager_v1" => Kind::Colors,
        _ => Kind::Silent(interface),
    }
}

struct Binder<'a> {
    registry: Id,
    listed: &'a [Listed],
    wire: &'a mut Wire,
}

impl Binder<'_> {
    /// With its version, the highest of these that there is.
    fn offered(&mut self, interface: &'static str, versions: RangeInclusive<u32>) -> Option<(Id, u32)> {
        let global = self.listed.iter().find(|g| g.interface == interface)?;
        let version = global.version.min(*versions.end());
        if version < *versions.start() {
            return None;
        }
        let id = self.wire.new_object(kind(interface));
        let args = [Arg::Uint(global.name), Arg::Text(interface), Arg::Uint(version), Arg::Id(id)];
        self.wire.request(self.registry, wl_registry::REQ_BIND_OPCODE, args);
        Some((id, version))
    }

    /// Of version 1.
    fn first(&mut self, interface: &'static str) -> Option<Id> {
        self.offered(interface, 1..=1).map(|(id, _)| id)
    }

    fn needed(
        &mut self,
        interface: &'static str,
        versions: RangeInclusive<u32>,
        need: &'static str,
    ) -> Result<Id, WaylandError> {
        let version = *versions.start();
        let found = self.offered(interface, versions).ok_or(WaylandError::Missing { interface, version, need })?;
        Ok(found.0)
    }
}
