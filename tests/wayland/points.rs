//! The compositor's side of linux-drm-syncobj: waits for the points from which frames may be read, and signals those at
//! which it has done with them.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use drm::control::{Device, syncobj};
use drm::{Device as _, DriverCapability};

/// A DRM device that has timelines.
pub struct Card(File);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Card {}
impl Device for Card {}

impl Card {
    /// `None`, and a word about it, where there is none and none is required.
    pub fn find() -> Option<Card> {
        let paths = std::fs::read_dir("/dev/dri").into_iter().flatten().flatten().map(|e| e.path());
        let opened = paths.filter_map(|p| OpenOptions::new().read(true).write(true).open(p).ok());
        let has = |card: &Card| card.get_driver_capability(DriverCapability::TimelineSyncObj).is_ok_and(|has| has != 0);
        let found = opened.map(Card).find(has);
        if found.is_none() {
            assert!(std::env::var_os("SHRBUF_REQUIRE_TIMELINES").is_none(), "a DRM with timelines is required");
            println!("needs a DRM driver with timelines: scripts/test-guest runs this in the virtual machine");
        }
        found
    }

    /// A fence that has signalled.
    pub fn fence(&self) -> OwnedFd {
        let object = self.create_syncobj(true).unwrap();
        let fence = self.syncobj_to_fd(object, true).unwrap();
        self.destroy_syncobj(object).unwrap();
        fence
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub timeline: syncobj::Handle,
    pub at: u64,
}

/// What a client has said of its commits.
pub struct Points {
    card: Card,
    pub acquire: Option<Point>,
    pub release: Option<Point>,
    shown: Option<Point>,
}

impl Points {
    pub fn on(card: Card) -> Points {
        Points { card, acquire: None, release: None, shown: None }
    }

    pub fn import(&self, timeline: BorrowedFd<'_>) -> syncobj::Handle {
        self.card.fd_to_syncobj(timeline, false).unwrap()
    }

    /// A frame is shown in place of the one before. False where the client has not said both points.
    pub fn commit(&mut self) -> bool {
        let (Some(acquire), Some(release)) = (self.acquire.take(), self.release.take()) else { return false };
        let seconds = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap().tv_sec() + 10;
        let (timeline, at, until) = ([acquire.timeline], [acquire.at], seconds * 1_000_000_000);
        self.card.syncobj_timeline_wait(&timeline, &at, until, true, true, false).expect("the frame is made in time");
        if let Some(Point { timeline, at }) = self.shown.replace(release) {
            self.card.syncobj_timeline_signal(&[timeline], &[at]).unwrap();
        }
        true
    }
}
