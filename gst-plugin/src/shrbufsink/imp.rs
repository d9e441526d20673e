//! The element.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::{VideoCropMeta, VideoInfo, VideoMeta};
use shrbuf::ipc::{Counts, FrameInfo, IpcError};
use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{Account, Ledger, Reason, Shrbuf};
use shrbuf_gst_memory::Seen;

use super::pool::LendingPool;
use super::run::{Offer, Refused, Run, Settings, Share, Total};
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
        blurb = "The first frame waits until so many consumers are there"
    )]
    settings: Mutex<Settings>,
    /// Until it is known in which memory frames come.
    offer: Mutex<Option<Offer>>,
    run: Mutex<Option<Arc<Run>>>,
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
            let blurb = "Frames sent, lagged, unseen and copied, and bytes copied";
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
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = VideoInfo::from_caps(caps).map_err(|e| gst::loggable_error!(CATEGORY, "{e}"))?;
        let drm = video::drm_of(caps);
        let drm = drm.map_err(|e| gst::loggable_error!(CATEGORY, "{e}"))?;
        if lock(&self.run).as_ref().is_some_and(|run| (&run.buffers.info, run.buffers.drm) == (&info, drm))
            || lock(&self.offer).as_ref().is_some_and(|offer| (&offer.info, offer.drm) == (&info, drm))
        {
            return Ok(());
        }
        let run = lock(&self.run).clone();
        if let Some(run) = run {
            self.drain(&run);
        }
        self.end_run();
        let settings = lock(&self.settings).clone();
        match Offer::new(&self.obj().name(), settings, info, drm) {
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
        let running = || lock(&self.run).as_ref().map(|run| (run.buffers.info.clone(), Some(Arc::clone(&run.buffers))));
        let (Some(caps), need_pool) = query.get_owned() else { return Ok(()) };
        let asked = VideoInfo::from_caps(&caps).ok();
        let Some((info, buffers)) = offered.or_else(running).filter(|(info, _)| asked.as_ref() == Some(info)) else {
            return Ok(());
        };
        let Share { out, .. } = lock(&self.settings).share();
        // As many as may be away at once, and one to write to: where upstream keeps to memory of its own, it makes them
        // all at once, so that all of them come by before one comes again.
        let (size, least) = (u32::try_from(info.size()).unwrap_or(0), out.saturating_add(1));
        let dma_buf = caps.features(0).is_some_and(|features| features.contains(video::DMA_BUF));
        let ours = buffers.filter(|buffers| need_pool && !dma_buf && !buffers.are_upstreams());
        let Some(buffers) = ours else {
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
            self.begin(taken.taken());
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
        let Some(buffer) = self.shared(&run, frame)? else { return Err(gst::FlowError::Error) };
        let info = self.describe(&run, frame);
        run.service.with(|producer| producer.send(&buffer, &info)).map_err(|e| self.fail(&e))?;
        Ok(gst::FlowSuccess::Ok)
    }

    fn event(&self, event: gst::Event) -> bool {
        let run = lock(&self.run).clone().filter(|_| event.type_() == gst::EventType::Eos);
        if let Some(run) = run
            && self.drain(&run)
        {
            run.service.with(|producer| producer.end());
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
    /// True where `frame` goes to nobody, because it is not known yet which memory upstream has. Once it is, consumers
    /// are told.
    fn gathers(&self, frame: &gst::Buffer) -> bool {
        let mut offer = lock(&self.offer);
        let Some(Offer { gathering, info, drm, .. }) = &mut *offer else { return false };
        match gathering.see(frame, info, *drm) {
            Seen::New => {
                lock(&self.total).counts.unseen += 1;
                return true;
            }
            Seen::Again => {
                let begun = offer.take().map(Offer::gathered);
                drop(offer);
                begun.into_iter().for_each(|begun| self.begin(begun));
            }
            // Then all of it is treated alike: as memory that consumers cannot have.
            Seen::Not => {
                let begun = offer.take().map(Offer::taken);
                drop(offer);
                begun.into_iter().for_each(|begun| self.begin(begun));
            }
        }
        false
    }

    fn begin(&self, run: Result<Run, Refused>) {
        match run {
            Ok(run) => {
                gst::info!(CATEGORY, imp = self, "consumers are told of {} buffers", run.buffers.lent());
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
        let mut total = lock(&self.total);
        total.counts = total.counts + run.service.counts().0;
    }

    /// The frame in a buffer that consumers know: the one it is in, or a copy. `None` where that has been said not to
    /// be.
    fn shared(&self, run: &Run, frame: &gst::Buffer) -> Result<Option<Shrbuf>, gst::FlowError> {
        if !run.gathered.load(Ordering::Relaxed) {
            self.wait_for(run, |producer| (producer.consumers() >= run.wait_for).then_some(()))?;
            run.gathered.store(true, Ordering::Relaxed);
        }
        if let Some(buffer) = run.buffers.adopt(frame) {
            return Ok(Some(buffer));
        }
        if run.buffers.are_upstreams() {
            let (origin, told) = (self.origin(), run.buffers.lent());
            let message = format!(
                "{origin} passes a frame in memory that consumers were not told of: they know the {told} buffers that it \
                 had at first; have its pool allocate all of its buffers at once, or put a videoconvert before this one"
            );
            gst::element_imp_error!(self, gst::StreamError::WrongType, ["{message}"]);
            return Ok(None);
        }
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
                return Ok(None);
            }
            gst::element_imp_warning!(self, gst::StreamError::WrongType, ["{message}; they are copied"]);
        }
        let mut buffer = self.wait_for(run, |_| run.buffers.for_copy())?;
        let account = self.account();
        shrbuf_gst_memory::copy(frame, &run.buffers.info, &mut buffer, &account).map_err(|e| {
            gst::element_imp_error!(self, gst::StreamError::Format, ["{e}"]);
            gst::FlowError::Error
        })?;
        lock(&self.total).copied_frames += 1;
        Ok(Some(buffer))
    }

    /// **Blocks** until `look` finds something and the pipeline plays. Called by the streaming thread, for a frame or
    /// an end.
    fn wait_for<T>(
        &self,
        run: &Run,
        mut look: impl FnMut(&mut shrbuf::ipc::Producer) -> Option<T>,
    ) -> Result<T, gst::FlowError> {
        loop {
            self.wait_while_paused()?;
            let calls = run.service.calls();
            let found = sys::wait_prerolled(&*self.obj(), || run.service.wait_for(calls, &mut look))?;
            if let Some(found) = found.map_err(|e| self.fail(&e))? {
                self.wait_while_paused()?;
                return Ok(found);
            }
        }
    }

    /// **Blocks** until those who must have every frame have the last ones; false where a flush or a stop does not wait for that.
    fn drain(&self, run: &Run) -> bool {
        self.wait_for(run, |producer| (producer.owed() == 0).then_some(())).is_ok()
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
        if let Some(run) = &*lock(&self.run) {
            run.service.call();
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
        let now = lock(&self.run).as_ref().map_or((Counts::default(), 0), |run| run.service.counts());
        let total = lock(&self.total);
        let Counts { frames, unseen, sent, dropped, refused } = total.counts + now.0;
        gst::Structure::builder("shrbufsink-stats")
            .field("consumers", now.1 as u64)
            .field("frames", frames)
            .field("unseen", unseen)
            .field("sent", sent)
            .field("lagged", dropped)
            .field("refused", refused)
            .field("copied-frames", total.copied_frames)
            .field("copied-bytes", self.account().bytes())
            .build()
    }
}
