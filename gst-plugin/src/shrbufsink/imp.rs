//! The element.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::{VideoCropMeta, VideoInfo, VideoMeta};
use shrbuf::ipc::{Announced, Counts, FrameInfo, IpcError};
use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{Account, Ledger, Reason, Shrbuf};
use shrbuf_gst_memory::{Place, Seen, TheirsError};

use super::pool::LendingPool;
use super::run::{Offer, Refused, Run, Settings, Share, Total};
use super::serve::Service;
use super::{Copies, Policy};
use crate::{clock, lock, sys, video};

static CATEGORY: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("shrbufsink", gst::DebugColorFlags::empty(), Some("frames for other processes"))
});

/// See [`super`].
#[derive(Default, glib::Properties)]
#[properties(wrapper_type = super::ShrbufSink)]
pub struct ShrbufSink {
    #[property(
        name = "path", nick = "Path", get, set, type = Option<String>, member = path,
        blurb = "Where consumers connect: a socket, made here"
    )]
    #[property(
        name = "mode", nick = "Mode", get, set, type = String, member = mode,
        blurb = "Permission bits of the socket, in octal: who has w may connect"
    )]
    #[property(
        name = "users", nick = "Users", get, set, type = Option<String>, member = users,
        blurb = "Users who may connect, by name or number, with commas between; not set, all whom `mode` lets"
    )]
    #[property(
        name = "policy", nick = "Policy", get, set, type = Policy, member = policy,
        blurb = "What happens to a frame for a consumer that holds as many as it may; it may ask for another",
        builder(Policy::default())
    )]
    #[property(
        name = "copies", nick = "Copies", get, set, type = Copies, member = copies,
        blurb = "What happens to a frame that is not in shared memory",
        builder(Copies::default())
    )]
    #[property(
        name = "consumers", nick = "Consumers", get, set, type = u32, member = consumers,
        minimum = 1, maximum = MAX_BUFFERS as u32, default = 4,
        blurb = "Connections at most"
    )]
    #[property(
        name = "window", nick = "Window", get, set, type = u32, member = window,
        minimum = 1, maximum = MAX_BUFFERS as u32, default = 3,
        blurb = "Frames that each consumer may hold at once"
    )]
    #[property(
        name = "depth", nick = "Depth", get, set, type = u32, member = depth,
        minimum = 1, maximum = MAX_BUFFERS as u32, default = 2,
        blurb = "Frames that wait for a consumer, with drop-oldest"
    )]
    #[property(
        name = "buffers", nick = "Buffers", get, set, type = u32, member = buffers,
        minimum = 1, maximum = MAX_BUFFERS as u32, default = 4,
        blurb = "Buffers that upstream may hold, beside those that consumers do"
    )]
    #[property(
        name = "wait-for", nick = "Wait for", get, set, type = u32, member = wait_for, maximum = MAX_BUFFERS as u32,
        blurb = "The first frame waits until so many consumers are there; with policy=block that after other caps too, for those who were"
    )]
    settings: Mutex<Settings>,
    /// Until it is known in which memory frames come.
    offer: Mutex<Option<Offer>>,
    run: Mutex<Option<Arc<Run>>>,
    /// From the first run on: consumers are sent from one to the next.
    service: Mutex<Option<Arc<Service>>>,
    /// Why there is no run.
    refused: Mutex<Option<Refused>>,
    total: Mutex<Total>,
    ledger: Ledger,
}

#[glib::object_subclass]
impl ObjectSubclass for ShrbufSink {
    const NAME: &'static str = "GstShrbufSink";
    type Type = super::ShrbufSink;
    type ParentType = gst_base::BaseSink;
}

impl ObjectImpl for ShrbufSink {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let blurb = "Frames sent, lagged, unseen and copied, bytes copied, and buffers that came late";
            let stats = glib::ParamSpecBoxed::builder::<gst::Structure>("stats");
            let stats = stats.nick("Statistics").blurb(blurb).read_only().build();
            ShrbufSink::derived_properties().iter().cloned().chain([stats]).collect()
        });
        &PROPERTIES
    }

    fn set_property(&self, id: usize, value: &glib::Value, property: &glib::ParamSpec) {
        self.derived_set_property(id, value, property);
    }

    fn property(&self, id: usize, property: &glib::ParamSpec) -> glib::Value {
        if property.name() == "stats" { self.stats().to_value() } else { self.derived_property(id, property) }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let sink = self.obj();
        sink.set_sync(false);
        // It would be one buffer fewer for upstream.
        sink.set_property("enable-last-sample", false);
    }
}

impl GstObjectImpl for ShrbufSink {}

impl ElementImpl for ShrbufSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            let about = "Frames for other processes, in memory that upstream writes to";
            gst::subclass::ElementMetadata::new("Shared buffer sink", "Sink/Video", about, "shrbuf")
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let always = gst::PadPresence::Always;
            // Fails only for a name or caps that cannot be.
            gst::PadTemplate::new("sink", gst::PadDirection::Sink, always, &video::template()).into_iter().collect()
        });
        &TEMPLATES
    }
}

impl BaseSinkImpl for ShrbufSink {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let checked = lock(&self.settings).check();
        checked.map_err(|what| gst::error_msg!(gst::ResourceError::Settings, ["{what}"]))
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.end_run();
        // Consumers hear that it is the end.
        if let Some(service) = lock(&self.service).take() {
            let mut total = lock(&self.total);
            total.counts = total.counts + service.counts().0;
        }
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = VideoInfo::from_caps(caps).map_err(|e| gst::loggable_error!(CATEGORY, "{e}"))?;
        let drm = video::drm_of(caps);
        let drm = drm.map_err(|e| gst::loggable_error!(CATEGORY, "{e}"))?;
        if lock(&self.run).as_ref().is_some_and(|run| (&run.info, run.drm) == (&info, drm))
            || lock(&self.offer).as_ref().is_some_and(|offer| (&offer.info, offer.drm) == (&info, drm))
        {
            return Ok(());
        }
        let run = lock(&self.run).clone();
        if let Some(run) = run {
            self.drain(&run.service);
        }
        self.end_run();
        match Offer::new(&self.obj().name(), self.settings(), info, drm) {
            Ok(offer) => *lock(&self.offer) = Some(offer),
            // The caps are good, so they are not refused, or upstream would negotiate again and again: the first frame
            // ends it.
            Err(why) => *lock(&self.refused) = Some(why),
        }
        Ok(())
    }

    fn propose_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        query.add_allocation_meta::<VideoMeta>(None);
        query.add_allocation_meta::<VideoCropMeta>(None);
        let offered = lock(&self.offer).as_ref().map(|offer| (offer.info.clone(), offer.buffers().cloned()));
        let running = || lock(&self.run).as_ref().map(|run| (run.info.clone(), run.ours.clone()));
        let (Some(caps), need_pool) = query.get_owned() else { return Ok(()) };
        let asked = VideoInfo::from_caps(&caps).ok();
        let Some((info, buffers)) = offered.or_else(running).filter(|(info, _)| asked.as_ref() == Some(info)) else {
            return Ok(());
        };
        let Share { out, .. } = self.settings().share();
        // As many as may be away at once, and one to write to: where upstream keeps to memory of its own, it makes them
        // all at once, so that all of them come by before one comes again.
        let (size, least) = (u32::try_from(info.size()).unwrap_or(0), out.saturating_add(1));
        let dma_buf = caps.features(0).is_some_and(|features| features.contains(video::DMA_BUF));
        let Some(buffers) = buffers.filter(|_| need_pool && !dma_buf) else {
            query.add_allocation_pool(None::<&gst::BufferPool>, size, least, 0);
            return Ok(());
        };
        let most = buffers.lent() as u32;
        let pool = LendingPool::of(&buffers);
        let mut config = pool.config();
        config.set_params(Some(&caps), size, least, most);
        pool.set_config(config).map_err(|e| gst::loggable_error!(CATEGORY, "{e}"))?;
        query.add_allocation_pool(Some(&pool), size, least, most);
        Ok(())
    }

    // Before the pipeline is paused upon the first frame: it would be told that all is well.
    fn prepare(&self, frame: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut offer = lock(&self.offer);
        // Upstream's own memory is looked at as it comes to be rendered, which is once for each frame.
        if let Some(taken) = offer.take_if(|offer| !offer.is_theirs(frame)) {
            drop(offer);
            self.begin(taken.taken(self.service()));
        } else if offer.is_some() {
            return Ok(gst::FlowSuccess::Ok);
        }
        self.run().map(|_| gst::FlowSuccess::Ok)
    }

    fn render(&self, frame: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.wait_while_paused()?;
        if self.gathers(frame) {
            return Ok(gst::FlowSuccess::Ok);
        }
        let run = self.run()?;
        let buffer = self.shared(&run, frame)?;
        let info = self.describe(&run, frame);
        run.service.with(|producer| producer.send(&buffer, &info)).map_err(|e| self.fail(&e))?;
        Ok(gst::FlowSuccess::Ok)
    }

    fn event(&self, event: gst::Event) -> bool {
        if let Some(service) = self.service().filter(|_| event.type_() == gst::EventType::Eos) {
            if !self.drain(&service) {
                // A flush has woken this thread, and would not wake it again where the end waits for PLAYING.
                return false;
            }
            service.with(|producer| producer.end());
        }
        self.parent_event(event)
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        self.call();
        Ok(())
    }

    // Called with the lock held that a waiting thread is away from: what `unlock` announced has happened.
    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        self.call();
        Ok(())
    }
}

impl ShrbufSink {
    fn service(&self) -> Option<Arc<Service>> {
        lock(&self.service).clone()
    }

    /// Those of the service, for as long as there is one.
    fn settings(&self) -> Settings {
        lock(&self.service).as_ref().map_or_else(|| lock(&self.settings).clone(), |service| service.settings.clone())
    }

    /// True where `frame` goes to nobody, because it is not known yet which memory upstream has. Once it is, consumers
    /// are told.
    fn gathers(&self, frame: &gst::Buffer) -> bool {
        let service = self.service();
        let mut offer = lock(&self.offer);
        let Some(Offer { gathering, info, drm, .. }) = &mut *offer else { return false };
        // A buffer that is still out is of the stream before.
        let held = service.as_ref().is_some_and(|service| service.still_has(frame, info, *drm));
        let seen = if held { Seen::New } else { gathering.see(frame, info, *drm) };
        if seen == Seen::New {
            lock(&self.total).counts.unseen += 1;
            return true;
        }
        let Some(known) = offer.take() else { return false };
        drop(offer);
        // More than can be known at once, or laid out otherwise, is told of as it comes.
        let theirs = seen == Seen::Again || (known.is_theirs(frame) && !known.gathering.buffers().is_empty());
        // Or it is memory that consumers cannot have, and all of it is treated alike.
        self.begin(if theirs { known.gathered(service) } else { known.taken(service) });
        false
    }

    fn begin(&self, run: Result<Run, Refused>) {
        match run {
            Ok(run) => {
                gst::info!(CATEGORY, imp = self, "consumers are told of {} buffers", run.announced);
                *lock(&self.service) = Some(Arc::clone(&run.service));
                *lock(&self.run) = Some(Arc::new(run));
            }
            Err(why) => *lock(&self.refused) = Some(why),
        }
    }

    /// The run there is, or why there is none.
    fn run(&self) -> Result<Arc<Run>, gst::FlowError> {
        let run = lock(&self.run).clone();
        if let (None, Some((resource, why))) = (&run, lock(&self.refused).take()) {
            gst::element_imp_error!(self, resource, ["{why}"]);
        }
        run.ok_or(gst::FlowError::Error)
    }

    fn end_run(&self) {
        *lock(&self.offer) = None;
        let Some(run) = lock(&self.run).take() else { return };
        lock(&self.total).late += run.late.load(Ordering::Relaxed);
    }

    /// The frame in a buffer that consumers know: the one it is in, or a copy.
    fn shared(&self, run: &Run, frame: &gst::Buffer) -> Result<Shrbuf, gst::FlowError> {
        let awaited = run.service.awaited();
        if awaited > 0 {
            self.wait_for(&run.service, |producer| (producer.consumers() >= awaited).then_some(()))?;
            run.service.gathered();
        }
        if let Some(buffer) = run.ours.as_ref().and_then(|ours| ours.adopt(frame)) {
            return Ok(buffer);
        }
        match self.upstreams(run, frame)? {
            Some(buffer) => Ok(buffer),
            None => self.copied(run, frame),
        }
    }

    /// The buffer of upstream's own that the frame is in. Consumers are told of it where they do not know it yet. `None` where
    /// they cannot know it.
    fn upstreams(&self, run: &Run, frame: &gst::Buffer) -> Result<Option<Shrbuf>, gst::FlowError> {
        let place = Place::of(frame, &run.info, run.drm).filter(|place| place.kind() == run.kind);
        let Some(place) = place else { return Ok(None) };
        let known = lock(&run.theirs).find(&place, frame);
        if known.is_some() {
            return Ok(known);
        }
        // A pool that grows holds nobody up, so that this has to.
        let has_room = || lock(&run.theirs).out() < run.most;
        if run.most > 0 && !has_room() {
            self.wait_for(&run.service, |_| has_room().then_some(()))?;
        }
        let added = lock(&run.theirs).add(&place, frame);
        let added = added.map_err(|e| {
            let why = match e {
                TheirsError::Full(room) => format!(
                    "{} passes frames in memory of its own, and consumers can know {MAX_BUFFERS} buffers, of which {} are \
                     of the pool that it was offered, and {room} may be others; set consumers, window or buffers lower",
                    self.origin(),
                    MAX_BUFFERS - room
                ),
                e => e.to_string(),
            };
            gst::element_imp_error!(self, gst::ResourceError::NoSpaceLeft, ["{why}"]);
            gst::FlowError::Error
        })?;
        let Some(buffer) = added else { return Ok(None) };
        let announced = Announced::of(&buffer);
        let told = announced.and_then(|announced| run.service.with(|producer| producer.announce(announced)));
        told.map_err(|e| self.fail(&e))?;
        let late = 1 + run.late.fetch_add(1, Ordering::Relaxed);
        if run.announced as u64 + late == MAX_BUFFERS as u64 + 1 {
            let message = format!(
                "{} has passed frames in more than {MAX_BUFFERS} buffers, which is as many as consumers can know at once: \
                 each further one takes the place of another, and is imported anew by all; have it use its buffers again",
                self.origin()
            );
            gst::element_imp_warning!(self, gst::ResourceError::NoSpaceLeft, ["{message}"]);
        }
        Ok(Some(buffer))
    }

    /// A copy of the frame, where that is allowed.
    fn copied(&self, run: &Run, frame: &gst::Buffer) -> Result<Shrbuf, gst::FlowError> {
        let Some(ours) = &run.ours else {
            let message = format!(
                "{} passes a frame in other memory than before, when it was in {}s of its own that consumers can have; where \
                 it copies because it has no buffer left, have it allocate more, or set consumers or window lower; else \
                 put a videoconvert to another format before this one",
                self.origin(),
                run.kind
            );
            gst::element_imp_error!(self, gst::StreamError::WrongType, ["{message}"]);
            return Err(gst::FlowError::Error);
        };
        if run.copies == Copies::Deny || (run.copies == Copies::Warn && !run.warned.swap(true, Ordering::Relaxed)) {
            let message = format!(
                "{} passes frames in memory of its own, not of the pool that it was offered; only elements that take \
                 the pool of the next one (videotestsrc, videoconvert to another format, decoders) can be right before \
                 this one",
                self.origin()
            );
            if run.copies == Copies::Deny {
                let advice = "copies=allow has them copied";
                gst::element_imp_error!(self, gst::StreamError::WrongType, ["{message}; {advice}"]);
                return Err(gst::FlowError::Error);
            }
            gst::element_imp_warning!(self, gst::StreamError::WrongType, ["{message}; they are copied"]);
        }
        let mut buffer = self.wait_for(&run.service, |_| ours.for_copy())?;
        let account = self.account();
        shrbuf_gst_memory::copy(frame, &run.info, &mut buffer, &account).map_err(|e| {
            gst::element_imp_error!(self, gst::StreamError::Format, ["{e}"]);
            gst::FlowError::Error
        })?;
        lock(&self.total).copied_frames += 1;
        Ok(buffer)
    }

    /// **Blocks** until `look` finds something and the pipeline plays. Called by the streaming thread, for a frame or
    /// an end.
    fn wait_for<T>(
        &self,
        service: &Service,
        mut look: impl FnMut(&mut shrbuf::ipc::Producer) -> Option<T>,
    ) -> Result<T, gst::FlowError> {
        loop {
            self.wait_while_paused()?;
            let calls = service.calls();
            let found = sys::wait_prerolled(&*self.obj(), || service.wait_for(calls, &mut look))?;
            if let Some(found) = found.map_err(|e| self.fail(&e))? {
                self.wait_while_paused()?;
                return Ok(found);
            }
        }
    }

    /// **Blocks** until those who must have every frame have the last ones; false where a flush or a stop does not wait for that.
    fn drain(&self, service: &Service) -> bool {
        self.wait_for(service, |producer| (producer.owed() == 0).then_some(())).is_ok()
    }

    /// **Blocks** while the pipeline is paused. GStreamer does that before it calls `render`, but not where the
    /// pipeline is paused before the thread has run that the last change to PLAYING woke.
    fn wait_while_paused(&self) -> Result<(), gst::FlowError> {
        let sink = self.obj();
        // In this order: a change that ends in between would look like none.
        let paused = || match sink.pending_state() {
            gst::State::VoidPending => sink.current_state() != gst::State::Playing,
            pending => pending != gst::State::Playing,
        };
        while paused() {
            sink.wait_preroll()?;
        }
        Ok(())
    }

    fn call(&self) {
        if let Some(service) = &*lock(&self.service) {
            service.call();
        }
    }

    fn describe(&self, run: &Run, frame: &gst::Buffer) -> FrameInfo {
        let segment = self.obj().segment();
        let time = segment.downcast_ref::<gst::ClockTime>().and_then(|segment| segment.to_running_time(frame.pts()));
        FrameInfo {
            timestamp: clock::stamp(&*self.obj(), time),
            sequence: run.sequence.fetch_add(1, Ordering::Relaxed),
            matrix: run.color.0,
            full_range: run.color.1,
            crop: frame.meta::<VideoCropMeta>().map(|meta| meta.rect().into()),
            corrupt: frame.flags().contains(gst::BufferFlags::CORRUPTED),
        }
    }

    fn fail(&self, error: &IpcError) -> gst::FlowError {
        gst::element_imp_error!(self, gst::ResourceError::Write, ["{error}"]);
        gst::FlowError::Error
    }

    fn account(&self) -> Account {
        self.ledger.account("shrbufsink", Reason::Transfer)
    }

    /// The element that frames come from, past those that only hand them on.
    fn origin(&self) -> String {
        let mut pad = self.obj().sink_pad().peer();
        while let Some(element) = pad.as_ref().and_then(|pad| pad.parent_element()) {
            let hands_on = element.metadata(gst::ELEMENT_METADATA_KLASS).is_some_and(|class| class.contains("Generic"));
            let passes = element.downcast_ref::<gst_base::BaseTransform>().is_some_and(|e| e.is_passthrough());
            let before = element.sink_pads().first().and_then(|sink| sink.peer());
            match before.filter(|_| hands_on || passes) {
                Some(before) => pad = Some(before),
                None => return element.name().into(),
            }
        }
        "the element before".to_owned()
    }

    fn stats(&self) -> gst::Structure {
        let (counts, consumers) =
            lock(&self.service).as_ref().map_or_else(Default::default, |service| service.counts());
        let late = lock(&self.run).as_ref().map_or(0, |run| run.late.load(Ordering::Relaxed));
        let total = lock(&self.total);
        let Counts { frames, unseen, sent, dropped, refused } = total.counts + counts;
        gst::Structure::builder("shrbufsink-stats")
            .field("consumers", consumers as u64)
            .field("frames", frames)
            .field("unseen", unseen)
            .field("sent", sent)
            .field("lagged", dropped)
            .field("refused", refused)
            .field("copied-frames", total.copied_frames)
            .field("copied-bytes", self.account().bytes())
            .field("late", total.late + late)
            .build()
    }
}
