//! The element.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gst_video::{VideoCropMeta, VideoInfo, VideoMeta};
use shrbuf::ipc::{Counts, FrameInfo, IpcError, Options};
use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{Account, Ledger, Reason, Shrbuf};

use super::pool::{Buffers, LendingPool};
use super::serve::Service;
use super::{Copies, Policy};
use crate::{clock, lock, sys, upstream, video};

static CATEGORY: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("shrbufsink", gst::DebugColorFlags::empty(), Some("frames for other processes"))
});

#[derive(Clone)]
struct Settings {
    path: Option<String>,
    policy: Policy,
    copies: Copies,
    consumers: u32,
    window: u32,
    depth: u32,
    buffers: u32,
    wait_for: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        let (policy, copies) = (Policy::default(), Copies::default());
        Settings { path: None, policy, copies, consumers: 4, window: 3, depth: 2, buffers: 4, wait_for: 0 }
    }
}

/// How many buffers are for what.
struct Share {
    lent: u32,
    for_copies: u32,
}

impl Settings {
    fn share(&self) -> Share {
        let waiting = if self.policy == Policy::DropOldest { self.depth } else { 1 };
        let out = self.consumers.saturating_mul(self.window).saturating_add(waiting);
        let for_copies = if self.copies == Copies::Deny { 0 } else { out.saturating_add(1) };
        Share { lent: out.saturating_add(self.buffers), for_copies }
    }
}

/// A stream of one format.
struct Run {
    buffers: Arc<Buffers>,
    service: Service,
    copies: Copies,
    /// Consumers that the first frame waits for.
    wait_for: usize,
    gathered: AtomicBool,
    warned: AtomicBool,
    sequence: AtomicU64,
    color: (u8, bool),
}

/// What has been counted in earlier streams.
#[derive(Default)]
struct Total {
    counts: Counts,
    copied_frames: u64,
}

/// See [`super`].
#[derive(Default, glib::Properties)]
#[properties(wrapper_type = super::ShrbufSink)]
pub struct ShrbufSink {
    #[property(
        name = "path", nick = "Path", get, set, type = Option<String>, member = path,
        blurb = "Where consumers connect: a socket, made here"
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
    run: Mutex<Option<Arc<Run>>>,
    /// Why there is no run.
    refused: Mutex<Option<(gst::ResourceError, String)>>,
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
            gst::PadTemplate::new("sink", gst::PadDirection::Sink, always, &video::plain()).into_iter().collect()
        });
        &TEMPLATES
    }
}

impl BaseSinkImpl for ShrbufSink {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings);
        if settings.path.as_ref().is_none_or(|path| path.is_empty()) {
            let message = "path is not set; it says where consumers connect, such as /tmp/picture";
            return Err(gst::error_msg!(gst::ResourceError::Settings, ["{message}"]));
        }
        if settings.wait_for > settings.consumers {
            let most = settings.consumers;
            return Err(gst::error_msg!(gst::ResourceError::Settings, ["wait-for is above consumers, {most}"]));
        }
        let Share { lent, for_copies } = settings.share();
        let all = lent.saturating_add(for_copies);
        if all > MAX_BUFFERS as u32 {
            let of = "consumers x window, depth, buffers and those for copies";
            let message = format!("{of} add up to {all}; {MAX_BUFFERS} are possible");
            return Err(gst::error_msg!(gst::ResourceError::Settings, ["{message}"]));
        }
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        self.end_run();
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = VideoInfo::from_caps(caps).map_err(|e| gst::loggable_error!(CATEGORY, "{e}"))?;
        if lock(&self.run).as_ref().is_some_and(|run| run.buffers.info == info) {
            return Ok(());
        }
        self.end_run();
        let settings = lock(&self.settings).clone();
        match self.begin_run(settings, info) {
            Ok(run) => *lock(&self.run) = Some(Arc::new(run)),
            // The caps are good, so they are not refused, or upstream would negotiate again and again: the first frame ends it.
            Err(why) => *lock(&self.refused) = Some(why),
        }
        Ok(())
    }

    fn propose_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        query.add_allocation_meta::<VideoMeta>(None);
        query.add_allocation_meta::<VideoCropMeta>(None);
        let run = lock(&self.run).clone();
        let (Some(caps), need_pool) = query.get_owned() else { return Ok(()) };
        let info = VideoInfo::from_caps(&caps).ok();
        let Some(run) = run.filter(|run| need_pool && info.is_some_and(|info| info == run.buffers.info)) else {
            return Ok(());
        };
        let (size, most) = (run.buffers.info.size() as u32, run.buffers.lent() as u32);
        let pool = LendingPool::of(&run.buffers);
        let mut config = pool.config();
        config.set_params(Some(&caps), size, 0, most);
        pool.set_config(config).map_err(|e| gst::loggable_error!(CATEGORY, "{e}"))?;
        query.add_allocation_pool(Some(&pool), size, 0, most);
        Ok(())
    }

    // Before the pipeline is paused upon the first frame: it would be told that all is well.
    fn prepare(&self, _frame: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.run().map(|_| gst::FlowSuccess::Ok)
    }

    fn render(&self, frame: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let run = self.run()?;
        self.wait_while_paused()?;
        let Some(buffer) = self.shared(&run, frame)? else { return Err(gst::FlowError::Error) };
        let info = self.describe(&run, frame);
        run.service.with(|producer| producer.send(&buffer, &info)).map_err(|e| self.fail(&e))?;
        Ok(gst::FlowSuccess::Ok)
    }

    fn event(&self, event: gst::Event) -> bool {
        let run = lock(&self.run).clone().filter(|_| event.type_() == gst::EventType::Eos);
        if let Some(run) = run {
            // Those who must have every frame get the last ones first; a flush or a stop does not wait for that.
            let drained = self.wait_for(&run, |producer| (producer.owed() == 0).then_some(()));
            if drained.is_ok() {
                run.service.with(|producer| producer.end());
            }
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
    fn begin_run(&self, settings: Settings, info: VideoInfo) -> Result<Run, (gst::ResourceError, String)> {
        let Share { lent, for_copies } = settings.share();
        let Settings { path, policy, copies, consumers, window, depth, wait_for, .. } = settings;
        let name = self.obj().name();
        let made = Buffers::new(&name, &info, lent as usize, for_copies as usize);
        let (buffers, announced) = made.map_err(|e| (gst::ResourceError::NoSpaceLeft, e.to_string()))?;
        let policy = match policy {
            Policy::Block => shrbuf::ipc::Policy::Block,
            Policy::DropOldest => shrbuf::ipc::Policy::DropOldest,
            Policy::Latest => shrbuf::ipc::Policy::Latest,
        };
        let options = Options { consumers, window, policy, depth, ..Options::default() };
        let number = |n: i32| u32::try_from(n).ok().filter(|&n| n > 0);
        let rate = number(info.fps().numer()).zip(number(info.fps().denom()));
        let color = video::h273(&info.colorimetry());
        let path = path.unwrap_or_default();
        let service = Service::start(path.as_ref(), options, announced, rate);
        let service = service.map_err(|e| (gst::ResourceError::OpenWrite, e.to_string()))?;
        gst::info!(CATEGORY, imp = self, "listens at {path} with {} buffers", lent + for_copies);
        let (gathered, warned, sequence) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
        let wait_for = wait_for as usize;
        Ok(Run { buffers, service, copies, wait_for, gathered, warned, sequence, color })
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
        let Some(run) = lock(&self.run).take() else { return };
        let mut total = lock(&self.total);
        total.counts = sum(&total.counts, &run.service.counts().0);
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
        upstream::copy(frame, &run.buffers.info, &mut buffer, &account).map_err(|e| {
            gst::element_imp_error!(self, gst::StreamError::Format, ["{e}"]);
            gst::FlowError::Error
        })?;
        lock(&self.total).copied_frames += 1;
        Ok(Some(buffer))
    }

    /// **Blocks** until `look` finds something and the pipeline plays. Called by the streaming thread, for a frame or an
    /// end.
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

    /// **Blocks** while the pipeline is paused. GStreamer does that before it calls `render`, but not where the pipeline
    /// is paused before the thread has run that the last change to PLAYING woke.
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
        let Counts { frames, unseen, sent, dropped, refused } = sum(&total.counts, &now.0);
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

fn sum(a: &Counts, b: &Counts) -> Counts {
    Counts {
        frames: a.frames + b.frames,
        unseen: a.unseen + b.unseen,
        sent: a.sent + b.sent,
        dropped: a.dropped + b.dropped,
        refused: a.refused + b.refused,
    }
}
