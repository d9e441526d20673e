//! Several displays of one card in one process.
//!
//! A card has one DRM master, which is an open file, and the events of all displays come out of that file. So the first
//! display that a process drives on a card opens it, and every further one is leased what it takes (its connector, CRTC
//! and planes; kernel doc: `gpu/drm-uapi.rst`, "Display Resource Leasing"). A lease is an open file of its own: it may
//! commit what it holds, gets the events of its own CRTC, and knows no other. So no two displays wait for each other,
//! wake each other up or share a lock, and each has one commit a refresh.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use drm::control::{Device as _, PlaneType, RawResourceHandle, connector, crtc};
use nix::libc;

use super::device::{Card, DeviceError, WeakCard};
use super::output::{Output, OutputError};

/// What one display of this process takes, for as long as its [`Output`] is there.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) connector: connector::Handle,
    pub(super) crtc: crtc::Handle,
}

/// A card that this process has open to show something.
struct Shared {
    device: u64,
    card: WeakCard,
    claims: Vec<Weak<Claim>>,
}

static CARDS: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

/// The display `connector` of the card at `path`, or its first that nobody drives, beside those that this process
/// drives on it already. We are its master then, or hold a lease of the master's.
pub(super) fn output(path: &Path, connector: Option<&str>) -> Result<Output, OutputError> {
    let mut cards = CARDS.lock().unwrap_or_else(PoisonError::into_inner);
    cards.retain(|shared| shared.card.upgrade().is_some());
    let device = std::fs::metadata(path).map(|node| std::os::unix::fs::MetadataExt::rdev(&node)).ok();
    let known = cards.iter_mut().find(|shared| Some(shared.device) == device);
    let open = known.as_ref().and_then(|shared| shared.card.upgrade());
    let card = open.map_or_else(|| Card::open(path), Ok)?;
    card.become_master()?;
    let claims: Vec<Arc<Claim>> = known.iter().flat_map(|shared| &shared.claims).filter_map(Weak::upgrade).collect();
    let mut output = Output::find_beside(&card, connector, &claims)?;
    if !claims.is_empty() {
        output = Output::find(&card.lease(&output)?, Some(output.name()))?;
    }
    let claim = Arc::new(Claim { connector: output.connector(), crtc: output.crtc() });
    match (known, device) {
        (Some(shared), _) => {
            shared.claims.retain(|claim| claim.strong_count() > 0);
            shared.claims.push(Arc::downgrade(&claim));
        }
        (None, Some(device)) => {
            cards.push(Shared { device, card: card.downgrade(), claims: vec![Arc::downgrade(&claim)] });
        }
        (None, None) => {}
    }
    output.claim = Some(claim);
    Ok(output)
}

impl Card {
    /// Leases what `output` takes: its connector, its CRTC, and the planes and writeback connectors that only this CRTC
    /// can use, or where there are no such planes, one. The lease is a card by itself, of which nobody else of this
    /// process or another can drive anything; this card stays open as long.
    ///
    /// # Errors
    /// [`DeviceError::Query`]: we are not the master, or have leased some of it already.
    pub fn lease(&self, output: &Output) -> Result<Card, DeviceError> {
        let crtc = output.crtc();
        let own = |crtcs: &[crtc::Handle]| *crtcs == [crtc];
        let mut objects: Vec<RawResourceHandle> = vec![crtc.into(), output.connector().into()];
        objects.extend(output.writebacks.iter().filter(|w| own(&w.crtcs)).map(|w| RawResourceHandle::from(w.handle)));
        let planes = || output.planes().map(|p| (p, RawResourceHandle::from(p.handle)));
        let before = objects.len();
        objects.extend(planes().filter(|(p, _)| own(&p.crtcs)).map(|(_, handle)| handle));
        if objects.len() == before {
            let shared = planes().find(|(p, _)| p.kind == PlaneType::Primary).or_else(|| planes().next());
            objects.extend(shared.map(|(_, handle)| handle));
        }
        let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as u32;
        let (_, fd) = self.create_lease(&objects, flags).map_err(self.asked("a lease of one display"))?;
        Card::leased(fd, self)
    }
}
