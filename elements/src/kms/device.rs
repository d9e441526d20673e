//! A card: one open `/dev/dri/card*`, what it has, and whether it is ours to drive.
//!
//! Opening a card that nobody drives makes us its DRM master; there is one master at a time, and only the master may
//! commit. Listing and importing need no master.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use drm::control::{Device as _, Mode, ModeTypeFlags, PlaneType, connector, crtc, plane};
use drm::{ClientCapability, Device as _, DriverCapability};

use super::formats::{PlaneFormats, parse_in_formats};
use super::props::Props;
use super::sys;

/// An open card. Clones are the same open file, which closes with the last of them: frame buffers hold one each.
#[derive(Clone)]
pub struct Card(Arc<Shared>);

struct Shared {
    fd: OwnedFd,
    path: PathBuf,
    driver: String,
    modifiers: bool,
    /// GEM handles in use in this open file, with the number of their users: see [`super::gem`].
    gem: Mutex<HashMap<u32, usize>>,
    /// Of a lease: the card that it is of, which must stay open.
    _lessor: Option<Card>,
}

/// An open card that is not kept open.
pub(super) struct WeakCard(Weak<Shared>);

impl WeakCard {
    /// The card, while somebody else keeps it open.
    pub(super) fn upgrade(&self) -> Option<Card> {
        self.0.upgrade().map(Card)
    }
}

/// What goes wrong with a card itself.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The node cannot be opened.
    #[error("{}: {source}{}", .path.display(), open_hint(.source))]
    Open {
        /// The node.
        path: PathBuf,
        /// What open(2) said.
        source: io::Error,
    },
    /// The driver only renders, as vgem and GPU-only drivers do.
    #[error("{} ({driver}) drives no display", .path.display())]
    NoDisplay {
        /// The node.
        path: PathBuf,
        /// The driver's name.
        driver: String,
    },
    /// The driver has displays but no atomic mode setting.
    #[error("{} ({driver}) has no atomic mode setting, which shrbuf needs: {source}", .path.display())]
    NotAtomic {
        /// The node.
        path: PathBuf,
        /// The driver's name.
        driver: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process is the DRM master.
    #[error(
        "{} ({driver}): the display is in use by another DRM master; stop the desktop session \
         (systemctl isolate multi-user.target), or switch to a text console (Ctrl+Alt+F3) and start from there; \
         or type = \"wayland-sink\" shows the frames in a window of a Wayland session",
        .path.display()
    )]
    InUse {
        /// The node.
        path: PathBuf,
        /// The driver's name.
        driver: String,
        /// EBUSY, or EACCES for a process that may not even ask.
        source: io::Error,
    },
    /// An object lacks a property that atomic drivers have.
    #[error("{}: KMS object {object} has no property {property}", .path.display())]
    MissingProperty {
        /// The node.
        path: PathBuf,
        /// The object's number.
        object: u32,
        /// The property.
        property: &'static str,
    },
    /// The kernel refused to say what it has.
    #[error("{}: {asked}: {source}", .path.display())]
    Query {
        /// The node.
        path: PathBuf,
        /// What was asked.
        asked: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn open_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; add the user to the group `video` (usermod -aG video NAME) and log in again"
        }
        io::ErrorKind::NotFound => "; is the driver loaded (ls /dev/dri)?",
        _ => "; is it a display's node, as /dev/dri/card0 is one?",
    }
}

/// What a card has, as [`Card::find`] lists it.
#[derive(Debug, Clone)]
pub struct CardInfo {
    /// The node, as /dev/dri/card0.
    pub path: PathBuf,
    /// The driver's name, as `vkms` or `i915`.
    pub driver: String,
    /// True when another open file is the DRM master, so that this one could not show anything now.
    pub in_use: bool,
    /// Every connector, connected or not, writeback ones included.
    pub connectors: Vec<ConnectorInfo>,
    /// Every plane.
    pub planes: Vec<PlaneInfo>,
}

/// A connector.
#[derive(Debug, Clone)]
pub struct ConnectorInfo {
    /// The kernel's number.
    pub handle: connector::Handle,
    /// The kernel's name, as `Virtual-1` or `HDMI-A-1`.
    pub name: String,
    /// True for a connector that writes the picture to memory instead of showing it.
    pub writeback: bool,
    /// Whether a display is connected; a driver that cannot tell counts as connected.
    pub connected: bool,
    /// What the display can show, the driver's favourites first.
    pub modes: Vec<Mode>,
    /// CRTCs that can drive it.
    pub crtcs: Vec<crtc::Handle>,
    /// The CRTC that drives it now.
    pub crtc: Option<crtc::Handle>,
}

impl ConnectorInfo {
    /// The mode that the display prefers, or the first one.
    pub fn preferred(&self) -> Option<Mode> {
        let preferred = |m: &&Mode| m.mode_type().contains(ModeTypeFlags::PREFERRED);
        self.modes.iter().find(preferred).or(self.modes.first()).copied()
    }
}

/// A plane.
#[derive(Debug, Clone)]
pub struct PlaneInfo {
    /// The kernel's number.
    pub handle: plane::Handle,
    /// Primary, overlay or cursor.
    pub kind: PlaneType,
    /// CRTCs it can be shown on.
    pub crtcs: Vec<crtc::Handle>,
    /// What it takes.
    pub formats: PlaneFormats,
}

impl Card {
    /// Opens a card for displaying: read-write, close-on-exec, non-blocking (only reading events could block), with
    /// universal planes, atomic commits and, where the kernel has them, writeback connectors.
    ///
    /// # Errors
    /// [`DeviceError::Open`], [`DeviceError::NoDisplay`], [`DeviceError::NotAtomic`].
    pub fn open(path: impl AsRef<Path>) -> Result<Card, DeviceError> {
        let path = path.as_ref().to_owned();
        let flags = nix::libc::O_CLOEXEC | nix::libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path);
        match file {
            Ok(file) => Card::of(file.into(), path, None),
            Err(source) => Err(DeviceError::Open { path, source }),
        }
    }

    /// The card that is a lease of `lessor`'s displays.
    pub(super) fn leased(fd: OwnedFd, lessor: &Card) -> Result<Card, DeviceError> {
        Card::of(fd, lessor.path().to_owned(), Some(lessor.clone()))
    }

    fn of(fd: OwnedFd, path: PathBuf, lessor: Option<Card>) -> Result<Card, DeviceError> {
        let gem = Mutex::new(HashMap::new());
        let mut shared = Shared { fd, path, driver: String::new(), modifiers: false, gem, _lessor: lessor };
        let driver = Fd(&shared.fd).get_driver();
        shared.driver = match driver {
            Ok(driver) => driver.name().to_string_lossy().into_owned(),
            Err(source) => return Err(DeviceError::Open { path: shared.path, source }),
        };
        let mut card = Card(Arc::new(shared));
        card.set_client_capability(ClientCapability::UniversalPlanes, true)
            .map_err(|_| DeviceError::NoDisplay { path: card.path().to_owned(), driver: card.driver().to_owned() })?;
        card.set_client_capability(ClientCapability::Atomic, true).map_err(|source| DeviceError::NotAtomic {
            path: card.path().to_owned(),
            driver: card.driver().to_owned(),
            source,
        })?;
        // Refused before Linux 4.19, which has no such connectors either.
        let _ = card.set_client_capability(ClientCapability::WritebackConnectors, true);
        let modifiers = matches!(card.get_driver_capability(DriverCapability::AddFB2Modifiers), Ok(1));
        if let Some(shared) = Arc::get_mut(&mut card.0) {
            shared.modifiers = modifiers;
        }
        Ok(card)
    }

    /// Lists every card that drives displays, in the order of their numbers, and for each that cannot be opened or
    /// asked, why. Reads the EDID of every connector of the cards that nobody drives: some 10 ms each on real ones.
    pub fn find() -> Vec<Result<CardInfo, DeviceError>> {
        nodes("card")
            .into_iter()
            .map(|path| Card::open(path).and_then(|card| card.info()))
            .filter(|found| !matches!(found, Err(DeviceError::NoDisplay { .. })))
            .collect()
    }

    /// What this card has; blocks while the EDIDs are read.
    ///
    /// # Errors
    /// [`DeviceError::Query`].
    pub fn info(&self) -> Result<CardInfo, DeviceError> {
        Ok(CardInfo {
            path: self.path().to_owned(),
            driver: self.driver().to_owned(),
            in_use: !self.is_master(),
            connectors: self.connectors()?,
            planes: self.planes()?,
        })
    }

    /// The node that was opened.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The driver's name.
    pub fn driver(&self) -> &str {
        &self.0.driver
    }

    /// Whether frame buffers may be made with a modifier (`DRM_CAP_ADDFB2_MODIFIERS`).
    pub fn has_modifiers(&self) -> bool {
        self.0.modifiers
    }

    /// Whether we are the DRM master now.
    pub fn is_master(&self) -> bool {
        sys::is_master(self.as_fd())
    }

    /// Makes us the DRM master where we are not yet; free of effect where we are.
    ///
    /// # Errors
    /// [`DeviceError::InUse`] where another process is.
    pub fn become_master(&self) -> Result<(), DeviceError> {
        if self.is_master() {
            return Ok(());
        }
        self.acquire_master_lock().map_err(|source| DeviceError::InUse {
            path: self.path().to_owned(),
            driver: self.driver().to_owned(),
            source,
        })
    }

    /// Every connector. Probes each anew when we are the master (reads EDIDs, blocks), else says what is known.
    ///
    /// # Errors
    /// [`DeviceError::Query`].
    pub fn connectors(&self) -> Result<Vec<ConnectorInfo>, DeviceError> {
        let resources = self.resource_handles().map_err(self.asked("resources"))?;
        resources
            .connectors()
            .iter()
            .map(|&handle| {
                let info = self.get_connector(handle, true).map_err(self.asked("connector"))?;
                let mut crtcs = Vec::new();
                for &encoder in info.encoders() {
                    let encoder = self.get_encoder(encoder).map_err(self.asked("encoder"))?;
                    crtcs.extend(resources.filter_crtcs(encoder.possible_crtcs()));
                }
                crtcs.sort_by_key(|&c| u32::from(c));
                crtcs.dedup();
                // The legacy encoder→CRTC link is not kept by every atomic driver; the property is.
                let props = Props::query(self, handle).map_err(self.asked("connector properties"))?;
                let crtc = props.value("CRTC_ID").and_then(|id| drm::control::from_u32(id as u32));
                let writeback = info.interface() == connector::Interface::Writeback;
                Ok(ConnectorInfo {
                    handle,
                    name: info.to_string(),
                    writeback,
                    connected: !writeback && info.state() != connector::State::Disconnected,
                    modes: info.modes().to_vec(),
                    crtcs,
                    crtc,
                })
            })
            .collect()
    }

    /// Every plane, with what it takes.
    ///
    /// # Errors
    /// [`DeviceError::Query`].
    pub fn planes(&self) -> Result<Vec<PlaneInfo>, DeviceError> {
        let resources = self.resource_handles().map_err(self.asked("resources"))?;
        let planes = self.plane_handles().map_err(self.asked("planes"))?;
        planes
            .into_iter()
            .map(|handle| {
                let info = self.get_plane(handle).map_err(self.asked("plane"))?;
                let props = Props::query(self, handle).map_err(self.asked("plane properties"))?;
                let kind = match props.value("type") {
                    Some(t) if t == PlaneType::Primary as u64 => PlaneType::Primary,
                    Some(t) if t == PlaneType::Cursor as u64 => PlaneType::Cursor,
                    _ => PlaneType::Overlay,
                };
                let blob = match props.value("IN_FORMATS") {
                    None | Some(0) => None,
                    Some(blob) => Some(self.get_property_blob(blob).map_err(self.asked("IN_FORMATS"))?),
                };
                let formats = blob
                    .and_then(|blob| parse_in_formats(&blob))
                    .unwrap_or_else(|| PlaneFormats::linear(info.formats()));
                Ok(PlaneInfo { handle, kind, crtcs: resources.filter_crtcs(info.possible_crtcs()), formats })
            })
            .collect()
    }

    pub(super) fn downgrade(&self) -> WeakCard {
        WeakCard(Arc::downgrade(&self.0))
    }

    /// GEM handles open in this file by our count; 0 once every frame buffer of the card is dropped.
    pub fn gem_handles(&self) -> usize {
        self.gem().lock().unwrap_or_else(std::sync::PoisonError::into_inner).len()
    }

    pub(super) fn gem(&self) -> &Mutex<HashMap<u32, usize>> {
        &self.0.gem
    }

    /// Wraps what the kernel said to a question.
    pub(super) fn asked(&self, asked: &'static str) -> impl Fn(io::Error) -> DeviceError + '_ {
        move |source| DeviceError::Query { path: self.path().to_owned(), asked, source }
    }
}

impl std::fmt::Debug for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Card").field("path", &self.path()).field("driver", &self.driver()).finish()
    }
}

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl drm::Device for Card {}
impl drm::control::Device for Card {}

/// An open file that is not yet known to be a card.
pub(super) struct Fd<'a>(pub(super) &'a OwnedFd);

impl AsFd for Fd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Fd<'_> {}

/// `/dev/dri/card*` or what else its nodes begin with, in the order of their numbers, so that card10 comes after card9.
pub(super) fn nodes(prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/dev/dri") else { return Vec::new() };
    let mut nodes: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?, e.path())))
        .collect();
    nodes.sort();
    nodes.into_iter().map(|(_, path)| path).collect()
}
