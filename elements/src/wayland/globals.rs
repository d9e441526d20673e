//! What the compositor offers.

use wayland_client::protocol::{wl_compositor::WlCompositor, wl_registry::WlRegistry, wl_shm::WlShm};
use wayland_client::{Dispatch, Proxy, QueueHandle};
use wayland_protocols::wp::color_representation::v1::client::wp_color_representation_manager_v1::WpColorRepresentationManagerV1;
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_dmabuf_v1::ZwpLinuxDmabufV1;
use wayland_protocols::wp::linux_drm_syncobj::v1::client::wp_linux_drm_syncobj_manager_v1::WpLinuxDrmSyncobjManagerV1;
use wayland_protocols::wp::linux_explicit_synchronization::zv1::client::zwp_linux_explicit_synchronization_v1::ZwpLinuxExplicitSynchronizationV1;
use wayland_protocols::wp::presentation_time::client::wp_presentation::WpPresentation;
use wayland_protocols::wp::viewporter::client::wp_viewporter::WpViewporter;
use wayland_protocols::xdg::decoration::zv1::client::zxdg_decoration_manager_v1::ZxdgDecorationManagerV1;
use wayland_protocols::xdg::shell::client::xdg_wm_base::XdgWmBase;

use super::error::WaylandError;
use super::state::State;

/// One global object, as the registry lists it.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub(super) name: u32,
    pub(super) interface: String,
    pub(super) version: u32,
}

/// Those that a window of frames uses.
#[derive(Debug)]
pub(super) struct Globals {
    pub(super) compositor: WlCompositor,
    pub(super) shell: XdgWmBase,
    pub(super) shm: WlShm,
    pub(super) dmabuf: Option<ZwpLinuxDmabufV1>,
    pub(super) timelines: Option<WpLinuxDrmSyncobjManagerV1>,
    pub(super) explicit_sync: Option<ZwpLinuxExplicitSynchronizationV1>,
    pub(super) presentation: Option<WpPresentation>,
    pub(super) viewporter: Option<WpViewporter>,
    pub(super) color: Option<WpColorRepresentationManagerV1>,
    pub(super) decorations: Option<ZxdgDecorationManagerV1>,
}

/// From this version on linux-dmabuf names modifiers.
const DMABUF_MODIFIERS: u32 = 3;
/// From this version on linux-dmabuf gives feedback.
pub(super) const DMABUF_FEEDBACK: u32 = 4;

impl Globals {
    pub(super) fn bind(
        registry: &WlRegistry,
        listed: &[Listed],
        handle: &QueueHandle<State>,
    ) -> Result<Globals, WaylandError> {
        let bound = Binder { registry, listed, handle };
        Ok(Globals {
            compositor: bound.needed(4..=6, "surfaces")?,
            shell: bound.needed(1..=6, "windows")?,
            shm: bound.needed(1..=1, "memory that is no dma-buf")?,
            dmabuf: bound.offered(DMABUF_MODIFIERS..=5),
            timelines: bound.offered(1..=1),
            explicit_sync: bound.offered(1..=2),
            presentation: bound.offered(1..=1),
            viewporter: bound.offered(1..=1),
            color: bound.offered(1..=1),
            decorations: bound.offered(1..=1),
        })
    }
}

struct Binder<'a> {
    registry: &'a WlRegistry,
    listed: &'a [Listed],
    handle: &'a QueueHandle<State>,
}

impl Binder<'_> {
    fn offered<I>(&self, versions: std::ops::RangeInclusive<u32>) -> Option<I>
    where
        I: Proxy + 'static,
        State: Dispatch<I, ()>,
    {
        let global = self.listed.iter().find(|g| g.interface == I::interface().name)?;
        let version = global.version.min(*versions.end());
        (version >= *versions.start()).then(|| self.registry.bind(global.name, version, self.handle, ()))
    }

    fn needed<I>(&self, versions: std::ops::RangeInclusive<u32>, need: &'static str) -> Result<I, WaylandError>
    where
        I: Proxy + 'static,
        State: Dispatch<I, ()>,
    {
        let (interface, version) = (I::interface().name, *versions.start());
        self.offered(versions).ok_or(WaylandError::Missing { interface, version, need })
    }
}
