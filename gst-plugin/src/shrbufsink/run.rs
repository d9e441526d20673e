//! A stream of one format: first what upstream is offered, then, once it is known which memory frames come in, what consumers
//! are told of.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use gst_video::VideoInfo;
use shrbuf::ipc::{Announced, Counts, Options, Returns, access};
use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{MemoryKind, Shrbuf};
use shrbuf_gst_memory::{Gathering, Place, Theirs};

use super::pool::Buffers;
use super::serve::{Service, Told};
use super::{Copies, Policy};
use crate::video::{self, Drm};

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) path: Option<String>,
    pub(super) mode: String,
    pub(super) users: Option<String>,
    pub(super) policy: Policy,
    pub(super) copies: Copies,
    pub(super) consumers: u32,
    pub(super) window: u32,
    pub(super) depth: u32,
    pub(super) buffers: u32,
    pub(super) wait_for: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        let (policy, copies, mode) = (Policy::default(), Copies::default(), "600".to_owned());
        let (path, users) = (None, None);
        Settings { path, mode, users, policy, copies, consumers: 4, window: 3, depth: 2, buffers: 4, wait_for: 0 }
    }
}

/// How many buffers are for what.
pub(super) struct Share {
    /// That consumers hold, or that wait for them.
    pub(super) out: u32,
    /// Those, and upstream's.
    pub(super) lent: u32,
    pub(super) for_copies: u32,
}

/// Why there is no run, and of which kind that is.
pub(super) type Refused = (gst::ResourceError, String);

impl Settings {
    pub(super) fn share(&self) -> Share {
        let waiting = if self.policy == Policy::DropOldest { self.depth } else { 1 };
        let out = self.consumers.saturating_mul(self.window).saturating_add(waiting);
        let for_copies = if self.copies == Copies::Deny { 0 } else { out.saturating_add(1) };
        Share { out, lent: out.saturating_add(self.buffers), for_copies }
    }

    /// Says what cannot be.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.path.as_ref().is_none_or(|path| path.is_empty()) {
            return Err("path is not set; it says where consumers connect, such as /tmp/picture".to_owned());
        }
        if self.wait_for > self.consumers {
            return Err(format!("wait-for is above consumers, {}", self.consumers));
        }
        let Share { lent, for_copies, .. } = self.share();
        let all = lent.saturating_add(for_copies);
        if all > MAX_BUFFERS as u32 {
            let of = "consumers x window, depth, buffers and those for copies";
            return Err(format!("{of} add up to {all}; {MAX_BUFFERS} are possible"));
        }
        self.options().map(drop)
    }

    pub(super) fn options(&self) -> Result<Options, String> {
        let policy = match self.policy {
            Policy::Block => shrbuf::ipc::Policy::Block,
            Policy::DropOldest => shrbuf::ipc::Policy::DropOldest,
            Policy::Latest => shrbuf::ipc::Policy::Latest,
        };
        let mode = access::mode(&self.mode).map_err(|e| format!("mode: {e}"))?;
        let users = self.users.as_deref().map(access::users).transpose().map_err(|e| format!("users: {e}"))?;
        let Settings { consumers, window, depth, .. } = *self;
        // Upstream may have no buffer left but those that consumers hold, and waits for one.
        let returns = Returns::AtOnce;
        Ok(Options {
            mode,
            users: users.unwrap_or_default(),
            consumers,
            window,
            policy,
            depth,
            returns,
            ..Options::default()
        })
    }
}

/// What upstream is offered for frames of some caps.
pub(super) struct Offer {
    pub(super) settings: Settings,
    pub(super) info: VideoInfo,
    pub(super) drm: Option<Drm>,
    /// Ours, and what is announced of them; none for what only devices write.
    ours: Option<(Arc<Buffers>, Vec<Announced>)>,
    /// Upstream's own memory, where that is what it passes.
    pub(super) gathering: Gathering,
}

impl Offer {
    pub(super) fn new(name: &str, settings: Settings, info: VideoInfo, drm: Option<Drm>) -> Result<Offer, Refused> {
        let Share { lent, for_copies, .. } = settings.share();
        let make = || Buffers::new(name, &info, lent as usize, for_copies as usize);
        let ours = drm.is_none().then(make).transpose();
        let ours = ours.map_err(no_space)?;
        Ok(Offer { settings, info, drm, ours, gathering: Gathering::default() })
    }

    pub(super) fn buffers(&self) -> Option<&Arc<Buffers>> {
        self.ours.as_ref().map(|(buffers, _)| buffers)
    }

    /// True where `frame` lies in upstream's own memory, which consumers could have.
    pub(super) fn is_theirs(&self, frame: &gst::Buffer) -> bool {
        self.buffers().is_none_or(|ours| ours.place_of(frame).is_none())
            && Place::of(frame, &self.info, self.drm).is_some()
    }

    /// Consumers are told of our buffers, by `before` where they were told of others.
    pub(super) fn taken(mut self, before: Option<Arc<Service>>) -> Result<Run, Refused> {
        let none = || {
            let message = "frames with DMA_DRM caps have to lie in dma-bufs, with GstVideoMeta, and these do not";
            (gst::ResourceError::Failed, message.to_owned())
        };
        let (buffers, announced) = self.ours.take().ok_or_else(none)?;
        Run::new(self, Some(buffers), Vec::new(), announced, before)
    }

    /// The same of upstream's.
    pub(super) fn gathered(mut self, before: Option<Arc<Service>>) -> Result<Run, Refused> {
        let theirs = std::mem::take(&mut self.gathering).into_buffers();
        let announced = theirs.iter().map(Announced::of).collect::<Result<_, _>>().map_err(no_space)?;
        Run::new(self, None, theirs, announced, before)
    }
}

fn no_space(e: impl std::fmt::Display) -> Refused {
    (gst::ResourceError::NoSpaceLeft, e.to_string())
}

pub(super) struct Run {
    pub(super) info: VideoInfo,
    pub(super) drm: Option<Drm>,
    /// Those that upstream was offered; `None` where it began with its own.
    pub(super) ours: Option<Arc<Buffers>>,
    /// Upstream's own. Consumers are told as they come of those that they do not know from the start.
    pub(super) theirs: Arc<Mutex<Theirs>>,
    /// Of those, how many may be out before a further one is waited with.
    pub(super) most: usize,
    /// Of all that consumers know.
    pub(super) kind: MemoryKind,
    /// Buffers that they were told of from the start.
    pub(super) announced: usize,
    /// And since.
    pub(super) late: AtomicU64,
    pub(super) service: Arc<Service>,
    pub(super) copies: Copies,
    pub(super) warned: AtomicBool,
    pub(super) sequence: AtomicU64,
    pub(super) color: (u8, bool),
}

impl Run {
    fn new(
        offer: Offer,
        ours: Option<Arc<Buffers>>,
        theirs: Vec<Shrbuf>,
        announced: Vec<Announced>,
        before: Option<Arc<Service>>,
    ) -> Result<Run, Refused> {
        let Offer { settings, info, drm, .. } = offer;
        let number = |n: i32| u32::try_from(n).ok().filter(|&n| n > 0);
        let rate = number(info.fps().numer()).zip(number(info.fps().denom()));
        let color = video::h273(&info.colorimetry());
        let kind = theirs.first().map_or(MemoryKind::Memfd, Shrbuf::kind);
        let room = MAX_BUFFERS - ours.as_ref().map_or(0, |ours| ours.all());
        let most = room.min(settings.share().lent as usize);
        let theirs = Theirs::new(theirs, room, || {}).map_err(no_space)?;
        let (theirs, count) = (Arc::new(Mutex::new(theirs)), announced.len());
        let (copies, told) = (settings.copies, Told { announced, rate, theirs: Arc::clone(&theirs) });
        let service = match before {
            Some(service) => service.change(told).map(|()| service),
            None => Service::start(settings, told).map(Arc::new),
        };
        Ok(Run {
            info,
            drm,
            ours,
            theirs,
            most,
            kind,
            announced: count,
            late: AtomicU64::new(0),
            service: service?,
            copies,
            warned: AtomicBool::new(false),
            sequence: AtomicU64::new(0),
            color,
        })
    }
}

/// What has been counted in earlier streams, and outside of any.
#[derive(Default)]
pub(super) struct Total {
    pub(super) counts: Counts,
    pub(super) copied_frames: u64,
    pub(super) late: u64,
}
