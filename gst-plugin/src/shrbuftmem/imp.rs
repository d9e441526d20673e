//! The element.

use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_video::{VideoCropMeta, VideoInfo, VideoMeta};
use shrbuf::{Account, Ledger, Reason};

use super::keeper;
use super::player::{Player, Told};
use super::run::{Counts, Incoming, Info, MOST_WAITING, Run, RunError, Shared};
use crate::{lock, video};

static CATEGORY: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new("shrbuftmem", gst::DebugColorFlags::empty(), Some("pre-roll in compressed memory"))
});

#[derive(Clone, Copy)]
struct Settings {
    keep: u64,
    max: u64,
    after: u64,
    waiting: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { keep: 30_000_000_000, max: 1 << 30, after: 0, waiting: 2 }
    }
}

/// See [`super`].
#[derive(glib::Properties)]
#[properties(wrapper_type = super::ShrbufTmem)]
pub struct ShrbufTmem {
    #[property(
        name = "keep", nick = "Keep", get, set, type = u64, member = keep, minimum = 1, default = 30_000_000_000,
        blurb = "How long frames are kept, in ns; another value counts from the next caps on"
    )]
    #[property(
        name = "max", nick = "Max", get, set, type = u64, member = max, minimum = 8 << 20, default = 1 << 30,
        blurb = "Most bytes of memory, from the next caps on; what is older goes first where `keep` would take more"
    )]
    #[property(
        name = "after", nick = "After", get, set, type = u64, member = after,
        blurb = "What follows a trigger, in ns"
    )]
    #[property(
        name = "waiting", nick = "Waiting", get, set, type = u32, member = waiting,
        minimum = 1, maximum = MOST_WAITING, default = 2,
        blurb = "Frames that may wait to be compressed; one that finds no room is dropped"
    )]
    settings: Mutex<Settings>,
    sink: gst::Pad,
    src: gst::Pad,
    shared: Arc<Shared>,
    told: Mutex<Told>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    ledger: Ledger,
}

#[glib::object_subclass]
impl ObjectSubclass for ShrbufTmem {
    const NAME: &'static str = "GstShrbufTmem";
    type Type = super::ShrbufTmem;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> ShrbufTmem {
        // The templates are there: `pad_templates` made them.
        let pad = |name| gst::Pad::builder_from_template(&class.pad_template(name).expect("a template"));
        let sink = pad("sink")
            .chain_function(|_, parent, frame| {
                let panicked = || Err(gst::FlowError::Error);
                ShrbufTmem::catch_panic_pad_function(parent, panicked, |tmem| tmem.take(frame))
            })
            .event_function(|pad, parent, event| {
                ShrbufTmem::catch_panic_pad_function(parent, || false, |tmem| tmem.sink_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                ShrbufTmem::catch_panic_pad_function(parent, || false, |tmem| tmem.sink_query(pad, query))
            })
            .flags(gst::PadFlags::PROXY_CAPS | gst::PadFlags::ACCEPT_TEMPLATE)
            .build();
        let src = pad("src")
            .activatemode_function(|pad, parent, mode, active| {
                let panicked = || Err(gst::loggable_error!(CATEGORY, "panicked"));
                ShrbufTmem::catch_panic_pad_function(parent, panicked, |tmem| tmem.activate(pad, mode, active))
            })
            .event_function(|pad, parent, event| {
                ShrbufTmem::catch_panic_pad_function(parent, || false, |tmem| tmem.src_event(pad, event))
            })
            .query_function(|pad, parent, query| {
                ShrbufTmem::catch_panic_pad_function(parent, || false, |tmem| tmem.src_query(pad, query))
            })
            .flags(gst::PadFlags::PROXY_CAPS | gst::PadFlags::FIXED_CAPS)
            .build();
        let (settings, shared, told, keeper) = (Mutex::default(), Arc::default(), Mutex::default(), Mutex::default());
        ShrbufTmem { settings, sink, src, shared, told, keeper, ledger: Ledger::default() }
    }
}

impl ObjectImpl for ShrbufTmem {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let blurb =
                "Seconds and bytes held, ratio, frames kept, dropped, refused, emitted and missed, and bytes copied";
            let stats = glib::ParamSpecBoxed::builder::<gst::Structure>("stats");
            let stats = stats.nick("Statistics").blurb(blurb).read_only().build();
            ShrbufTmem::derived_properties().iter().cloned().chain([stats]).collect()
        });
        &PROPERTIES
    }

    fn set_property(&self, id: usize, value: &glib::Value, property: &glib::ParamSpec) {
        self.derived_set_property(id, value, property);
    }

    fn property(&self, id: usize, property: &glib::ParamSpec) -> glib::Value {
        if property.name() == "stats" { self.stats().to_value() } else { self.derived_property(id, property) }
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            let trigger = glib::subclass::Signal::builder("trigger").return_type::<bool>().action();
            vec![trigger.class_handler(|values| Some(trigger_of(values.first()?).to_value())).build()]
        });
        &SIGNALS
    }

    fn constructed(&self) {
        self.parent_constructed();
        let element = self.obj();
        // They have names of their own.
        let _ = element.add_pad(&self.sink);
        let _ = element.add_pad(&self.src);
    }
}

fn trigger_of(element: &glib::Value) -> bool {
    element.get::<super::ShrbufTmem>().is_ok_and(|element| element.imp().trigger())
}

impl GstObjectImpl for ShrbufTmem {}

impl ElementImpl for ShrbufTmem {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            let about = "The last seconds in compressed memory, sent when they are asked for";
            gst::subclass::ElementMetadata::new("Pre-roll", "Filter/Video", about, "shrbuf")
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let (always, caps) = (gst::PadPresence::Always, video::plain());
            let template = |name, direction| gst::PadTemplate::new(name, direction, always, &caps);
            // Fails only for a name or caps that cannot be.
            let pads = [template("sink", gst::PadDirection::Sink), template("src", gst::PadDirection::Src)];
            pads.into_iter().flatten().collect()
        });
        &TEMPLATES
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            self.start().map_err(|e| {
                gst::element_imp_error!(self, gst::ResourceError::Failed, ["{e}"]);
                gst::StateChangeError
            })?;
        }
        let changed = self.parent_change_state(transition);
        if transition == gst::StateChange::PausedToReady
            || (changed.is_err() && transition == gst::StateChange::ReadyToPaused)
        {
            self.stop();
        }
        changed
    }
}

impl ShrbufTmem {
    /// The keeper, before there is a frame.
    fn start(&self) -> Result<(), RunError> {
        let settings = *lock(&self.settings);
        let mut state = self.shared.state();
        (state.stopping, state.ended, state.waiting) = (false, false, settings.waiting as usize);
        drop(state);
        let (shared, copies) = (Arc::clone(&self.shared), self.account());
        let thread = std::thread::Builder::new().name("shrbuftmem".to_owned());
        let thread = thread.spawn(move || keeper::run(&shared, &copies))?;
        *lock(&self.keeper) = Some(thread);
        Ok(())
    }

    /// After the pads have stopped.
    fn stop(&self) {
        self.shared.state().stopping = true;
        self.shared.changed();
        if let Some(thread) = lock(&self.keeper).take() {
            // It does not panic; where it did, it is gone as well.
            let _ = thread.join();
        }
        let mut state = self.shared.state();
        let gone = state.begin(None);
        (state.eos, state.stream_start, state.segment, state.emission) = (None, None, None, None);
        drop(state);
        drop(gone);
    }

    /// False where there is no stream to keep anything of.
    fn trigger(&self) -> bool {
        let mut state = self.shared.state();
        let possible = state.run.is_some() && !state.stopping;
        state.wished |= possible;
        drop(state);
        self.shared.changed();
        possible
    }

    /// A frame that came.
    fn take(&self, frame: gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let element = self.obj();
        let mut state = self.shared.state();
        if state.ended {
            return Err(gst::FlowError::Eos);
        }
        let (Some(run), Some(segment)) = (&state.run, &state.segment) else {
            drop(state);
            return Err(gst::FlowError::NotNegotiated);
        };
        let time = segment.downcast_ref::<gst::ClockTime>().and_then(|segment| segment.to_running_time(frame.pts()));
        // A frame without a time came just now.
        let at = time.or_else(|| element.current_running_time()).map_or(state.newest, |time| time.nseconds());
        let info = Info {
            segment: segment.clone(),
            pts: frame.pts(),
            dts: frame.dts(),
            duration: frame.duration().or_else(|| gst::ClockTime::try_from(run.frame_time()).ok()),
            offset: frame.offset(),
            flags: frame.flags(),
            crop: frame.meta::<VideoCropMeta>().map(|meta| meta.rect().into()),
        };
        if !std::mem::replace(&mut state.begun, true) {
            state.first = Some(info.clone());
        }
        state.newest = at;
        let full = state.incoming.len() >= state.waiting;
        if full {
            state.counts.dropped += 1;
        } else {
            state.incoming.push_back(Incoming { frame: frame.clone(), at, info });
        }
        drop(state);
        self.shared.changed();
        Ok(gst::FlowSuccess::Ok)
    }

    fn sink_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::StreamStart(_) => {
                self.shared.state().stream_start = Some(event.clone());
                self.shared.changed();
                true
            }
            gst::EventView::Caps(caps) => self.renegotiate(caps.caps_owned()),
            gst::EventView::Segment(segment) => {
                self.shared.state().segment = Some(segment.segment().clone());
                true
            }
            gst::EventView::Eos(_) => {
                let mut state = self.shared.state();
                (state.eos, state.ended) = (Some(event.clone()), true);
                drop(state);
                self.shared.changed();
                true
            }
            gst::EventView::FlushStart(_) => {
                self.shared.state().flushing = true;
                self.shared.changed();
                let passed = self.src.push_event(event.clone());
                // Waits for the task to be out of downstream.
                let _ = self.src.stop_task();
                passed
            }
            gst::EventView::FlushStop(_) => self.flushed(event.clone()),
            // They are of the frames' time, not of when these are sent.
            gst::EventView::Gap(_) | gst::EventView::Tag(_) => true,
            _ if event.is_serialized() => true,
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    /// Other pictures: what was kept of the last ones is empty, and an emission of them ends.
    fn renegotiate(&self, caps: gst::Caps) -> bool {
        let Ok(video) = VideoInfo::from_caps(&caps) else { return false };
        if self.shared.state().run.as_ref().is_some_and(|run| run.video == video) {
            return true;
        }
        let run = match self.run(caps, video) {
            Ok(run) => run,
            Err(e) => {
                gst::element_imp_error!(self, gst::StreamError::Format, ["{e}"]);
                return false;
            }
        };
        gst::info!(CATEGORY, imp = self, "keeps {}", run.caps);
        let gone = self.shared.state().begin(Some(Arc::new(run)));
        drop(gone);
        self.shared.changed();
        true
    }

    fn run(&self, caps: gst::Caps, video: VideoInfo) -> Result<Run, RunError> {
        let Settings { keep, max, .. } = *lock(&self.settings);
        let (name, shared) = (self.obj().name(), Arc::downgrade(&self.shared));
        Run::new(&name, (caps, video), (Duration::from_nanos(keep), max), &self.ledger, &shared)
    }

    /// After a flush time begins anew, and with it what is kept.
    fn flushed(&self, event: gst::Event) -> bool {
        let of = self.shared.state().run.as_ref().map(|run| (run.caps.clone(), run.video.clone()));
        let run = of.and_then(|(caps, video)| self.run(caps, video).ok());
        let mut state = self.shared.state();
        let gone = state.begin(run.map(Arc::new));
        (state.ended, state.flushing) = (false, false);
        let eos = state.eos.take();
        drop(state);
        drop((gone, eos));
        lock(&self.told).flushed();
        let passed = self.src.push_event(event);
        if self.src.is_active() { self.go().is_ok() && passed } else { passed }
    }

    fn activate(&self, pad: &gst::Pad, mode: gst::PadMode, active: bool) -> Result<(), gst::LoggableError> {
        if mode != gst::PadMode::Push {
            return Err(gst::loggable_error!(CATEGORY, "only push mode is possible"));
        }
        self.shared.state().flushing = !active;
        self.shared.changed();
        if active {
            *lock(&self.told) = Told::default();
            self.go()
        } else {
            pad.stop_task().map_err(|e| gst::loggable_error!(CATEGORY, "{e}"))
        }
    }

    /// Has the player play.
    fn go(&self) -> Result<(), gst::LoggableError> {
        let element = self.obj().downgrade();
        let task = move || {
            let Some(element) = element.upgrade() else { return };
            let tmem = element.imp();
            let after = lock(&tmem.settings).after;
            let mut told = lock(&tmem.told);
            let mut player =
                Player { element: element.upcast_ref(), pad: &tmem.src, shared: &tmem.shared, told: &mut told, after };
            if !player.step() {
                // Until it is started again.
                let _ = tmem.src.pause_task();
            }
        };
        self.src.start_task(task).map_err(|e| gst::loggable_error!(CATEGORY, "{e}"))
    }

    fn sink_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Allocation(allocation) => {
                allocation.add_allocation_meta::<VideoMeta>(None);
                allocation.add_allocation_meta::<VideoCropMeta>(None);
                let size = allocation.get_owned().0.and_then(|caps| VideoInfo::from_caps(&caps).ok());
                if let Some(size) = size.and_then(|info| u32::try_from(info.size()).ok()) {
                    // Those that wait, and the one that is being compressed.
                    let held = lock(&self.settings).waiting + 1;
                    allocation.add_allocation_pool(None::<&gst::BufferPool>, size, held, 0);
                }
                true
            }
            gst::QueryViewMut::Drain(_) => {
                let mut state = self.shared.state();
                while !state.stopping && (state.putting || !state.incoming.is_empty()) {
                    state = self.shared.wait(state);
                }
                true
            }
            _ => gst::Pad::query_default(pad, Some(&*self.obj()), query),
        }
    }

    fn src_event(&self, pad: &gst::Pad, event: gst::Event) -> bool {
        match event.type_() {
            // What is late here is late on purpose; and nothing upstream can seek in what is kept.
            gst::EventType::Qos | gst::EventType::Reconfigure => true,
            gst::EventType::Seek => false,
            _ => gst::Pad::event_default(pad, Some(&*self.obj()), event),
        }
    }

    fn src_query(&self, pad: &gst::Pad, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(latency) = query.view_mut() {
            let mut above = gst::query::Latency::new();
            let known = self.sink.peer_query(&mut above);
            let (live, least, _) = above.result();
            // Frames wait here for as long as it takes.
            latency.set(live, least, gst::ClockTime::NONE);
            return known;
        }
        gst::Pad::query_default(pad, Some(&*self.obj()), query)
    }

    fn account(&self) -> Account {
        self.ledger.account("shrbuftmem", Reason::Transfer)
    }

    fn stats(&self) -> gst::Structure {
        let state = self.shared.state();
        let Counts { kept, dropped, refused, triggers, emitted, missed } = state.counts;
        let pool = state.run.as_ref().map(|run| run.preroll.pool().stats()).unwrap_or_default();
        drop(state);
        let ratio =
            if pool.bytes_compressed == 0 { 0.0 } else { pool.bytes_original as f64 / pool.bytes_compressed as f64 };
        gst::Structure::builder("shrbuftmem-stats")
            .field("seconds-held", pool.seconds_held())
            .field("bytes-held", pool.bytes_compressed)
            .field("bytes-original", pool.bytes_original)
            .field("ratio", ratio)
            .field("kept", kept)
            .field("dropped", dropped)
            .field("refused", refused)
            .field("triggers", triggers)
            .field("emitted", emitted)
            .field("missed", missed)
            .field("copied-bytes", self.account().bytes())
            .build()
    }
}
