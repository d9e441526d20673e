//! A launch fragment as a pipeline: parsed, with our ends where it has none of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::{PadDirection, PadPresence, glib};
use gst_app::{AppSink, AppSrc};
use shrbuf::MemoryKind;
use shrbuf_pipeline::nearest::nearest;
use shrbuf_pipeline::{Failure, FailureKind, Rate, SizeOffer};

use super::caps;
use super::dma_buf::{self, Called};
use super::message::{Heard, name_of};
use super::pool::LendingPool;

/// Elements of these names are where frames go in and come out.
const IN: &str = "in";
const OUT: &str = "out";

/// What is left to say of a pipeline that does not come up.
const SILENT: &str = "GStreamer cannot bring it up, and does not say why; GST_DEBUG=3 in the environment tells more";

/// Elements behind which frames are the very same, in the same memory.
const PASS_ON: [&str; 6] = ["capsfilter", "clocksync", "identity", "queue", "tee", "valve"];

/// Of the plugin here, which need not be installed.
const OURS: [&str; 3] = ["shrbufsrc", "shrbufsink", "shrbuftmem"];

fn who_has(element: &str) -> &'static str {
    if OURS.contains(&element) {
        return "it is of shrbuf's own plugin, which `make install-gst` installs";
    }
    "`gst-inspect-1.0` lists them, and a package of GStreamer plugins (-base, -good, -bad, -ugly, -libav) may have it"
}

/// Why a fragment is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FragmentError {
    #[error("cannot be run: GStreamer does not start: {0}")]
    Init(String),
    #[error(
        "is not set; it is a part of a gst-launch-1.0 line, such as \"vp8enc ! webmmux ! filesink location=a.webm\""
    )]
    Empty,
    #[error(
        "names `{name}`, which is no GStreamer element of this machine{}; {}",
        .nearest.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default(), who_has(.name)
    )]
    NoElement { name: String, nearest: Option<String> },
    #[error("is refused by GStreamer: {0}")]
    Parse(String),
    #[error("has several open {ends}: {}; call the one that is meant `name={name}`", .pads.join(", "))]
    Several { ends: &'static str, name: &'static str, pads: Vec<String> },
    #[error(
        "begins with a source and ends with a sink of its own, so that frames neither go in nor come out; leave out \
         one of the two, or call an element `name=in` or `name=out`"
    )]
    Closed,
    #[error("{does} no raw video: the `{pad}` of `{element}` is open for {media}; {advice}")]
    NotRaw { does: &'static str, pad: String, element: String, media: String, advice: &'static str },
    #[error("has an element called `{name}` that pictures cannot be linked to: {why}")]
    Unfit { name: String, why: String },
}

/// What upstream is told about memory when it asks.
#[derive(Debug)]
pub(super) enum Offered {
    /// To take its buffers from there; where it has its own all the same, so many of them at least.
    Ours(LendingPool, u32),
    /// To have so many of its own, at least.
    Theirs(u32),
}

/// What upstream is offered, once that is known.
type OfferCell = Arc<Mutex<Option<Offered>>>;

type CapsCell = Arc<Mutex<Option<gst::Caps>>>;

/// A pipeline of GStreamer's, with our ends. It stops when dropped.
pub(super) struct Fragment {
    pub(super) pipeline: gst::Pipeline,
    pub(super) input: Option<AppSrc>,
    pub(super) output: Option<AppSink>,
    offered: OfferCell,
    /// What is going to come in, while that is being negotiated.
    coming: CapsCell,
}

impl Fragment {
    /// `synchronised`: frames come out at their time.
    pub(super) fn parse(launch: &str, synchronised: bool) -> Result<Fragment, FragmentError> {
        if launch.trim().is_empty() {
            return Err(FragmentError::Empty);
        }
        gst::init().map_err(|e| FragmentError::Init(e.to_string()))?;
        let mut context = gst::ParseContext::new();
        let flags = gst::ParseFlags::FATAL_ERRORS;
        let launch = with_caps_filters(launch);
        let bin = gst::parse::bin_from_description_full(&launch, false, Some(&mut context), flags)
            .map_err(|e| refused(&e, &context))?
            .downcast::<gst::Bin>()
            .map_err(|_| FragmentError::Parse("it is no bin".to_owned()))?;
        let pipeline = gst::Pipeline::new();
        // Both are new.
        let add = |e: glib::BoolError| FragmentError::Parse(e.to_string());
        pipeline.add(&bin).map_err(add)?;
        let mut fragment = Fragment {
            pipeline,
            input: None,
            output: None,
            offered: OfferCell::default(),
            coming: CapsCell::default(),
        };
        // Both looked for before either is linked.
        let (first, last) = (open_end(&bin, PadDirection::Sink)?, open_end(&bin, PadDirection::Src)?);
        if let Some(element) = first {
            fragment.input = Some(link_input(&bin, &element, &fragment.coming)?);
        }
        if let Some(element) = last {
            let synchronised = synchronised && fragment.input.is_none();
            fragment.output = Some(link_output(&bin, &element, synchronised, &fragment.offered)?);
        }
        if fragment.input.is_none() && fragment.output.is_none() {
            return Err(not_raw(&bin).unwrap_or(FragmentError::Closed));
        }
        // Our stamps are of this clock.
        fragment.pipeline.use_clock(Some(&gst::SystemClock::obtain()));
        fragment.pipeline.set_start_time(gst::ClockTime::NONE);
        Ok(fragment)
    }

    /// **Blocks** until the pipeline is in `state`; true where it is, false where it is live, and so gives nothing
    /// before it plays.
    ///
    /// # Errors
    /// GStreamer's, or it took longer than `longest`.
    pub(super) fn reach(&self, state: gst::State, longest: Duration) -> Result<bool, Failure> {
        let bus = self.bus()?;
        let begin = Instant::now();
        let mut heard = Heard::default();
        // What an earlier try had to say.
        bus.set_flushing(true);
        bus.set_flushing(false);
        let change = self.pipeline.set_state(state);
        match change {
            Ok(gst::StateChangeSuccess::NoPreroll) => return Ok(false),
            Ok(gst::StateChangeSuccess::Success) => return heard.hear_all(&bus).map(|()| true),
            Ok(_) | Err(_) => {}
        }
        while let Some(left) = longest.checked_sub(begin.elapsed()) {
            let left = gst::ClockTime::try_from(left).unwrap_or(gst::ClockTime::SECOND);
            // A change that failed has said why by now.
            let left = if change.is_err() { gst::ClockTime::ZERO } else { left };
            let Some(message) = bus.timed_pop(left) else { break };
            heard.hear(&message)?;
            let done = matches!(message.view(), gst::MessageView::AsyncDone(_));
            if done || heard.ended {
                return Ok(true);
            }
        }
        let what = if change.is_err() {
            SILENT.to_owned()
        } else {
            format!("GStreamer has no picture after {longest:?}; where that is not enough set `timeout`")
        };
        Err(Failure::new(FailureKind::Config, what))
    }

    /// Its messages.
    pub(super) fn bus(&self) -> Result<gst::Bus, Failure> {
        self.pipeline.bus().ok_or_else(|| Failure::new(FailureKind::Limit, "the pipeline has no bus"))
    }

    /// True where what comes out is what came in.
    pub(super) fn passes_on(&self) -> bool {
        let source = self.input.as_ref().map(|source| source.upcast_ref::<gst::Element>());
        source.is_some_and(|source| self.beginning(passes_on).as_ref() == Some(source))
    }

    /// What comes out begins there, past elements of which `through` says so.
    fn beginning(&self, through: impl Fn(&gst::Element) -> bool) -> Option<gst::Element> {
        let mut pad = self.end(PadDirection::Src)?.peer();
        while let Some(element) = pad.as_ref().and_then(|pad| pad.parent_element()) {
            match element.sink_pads().first() {
                Some(sink) => pad = sink.peer().filter(|_| through(&element)),
                None => return Some(element),
            }
        }
        None
    }

    /// Our pad at that end: frames leave us where the fragment's is one that takes.
    fn end(&self, direction: PadDirection) -> Option<gst::Pad> {
        match direction {
            PadDirection::Sink => self.input.as_ref()?.static_pad("src"),
            _ => self.output.as_ref()?.static_pad("sink"),
        }
    }

    /// What the pad beyond our end takes or gives now; `None` where there is none yet.
    pub(super) fn can(&self, direction: PadDirection) -> Option<gst::Caps> {
        let pad = self.end(direction)?;
        pad.peer().map(|_| pad.peer_query_caps(Some(&dma_buf::every())))
    }

    /// What the pad beyond our end calls frames of these plain caps in such memory, what it likes best; `None` where it
    /// has none of them.
    pub(super) fn calls(&self, direction: PadDirection, plain: &gst::Caps, kind: MemoryKind) -> Option<Called> {
        let pad = self.end(direction).filter(|pad| pad.is_linked())?;
        // In its own order, which a filter would change.
        Called::first_of(&pad.peer_query_caps(None), plain, kind)
    }

    /// What the pad beyond our output calls frames of these plain caps where it says that they are dma-bufs; `None` where it
    /// does not.
    pub(super) fn calls_dma_bufs(&self, plain: &gst::Caps) -> Option<Called> {
        let pad = self.end(PadDirection::Src).filter(|pad| pad.is_linked())?;
        let said = shrbuf_gst_memory::dma_buf::caps(plain);
        Called::first_of(&pad.peer_query_caps(Some(&said)), plain, MemoryKind::DmaBuf)
    }

    /// Who beyond our end has frames in dma-bufs alone; `None` where nobody insists on that.
    pub(super) fn insists(&self, direction: PadDirection) -> Option<String> {
        dma_buf::who_insists(&self.end(direction)?)
    }

    /// Size and rate of the picture that has come, if one has.
    pub(super) fn size_of_first(&self) -> Option<Vec<SizeOffer>> {
        let caps = self.output.as_ref()?.static_pad("sink")?.current_caps()?;
        caps::offers(&caps, false).into_iter().next().map(|video| video.sizes)
    }

    /// Has the run fail with a message that says so where the next element does not look at where our planes lie.
    pub(super) fn insist_on_video_meta(&self) {
        let Some(pad) = self.input.as_ref().and_then(|source| source.static_pad("src")) else { return };
        // Upon the first frame, which comes behind its caps: what appsrc asks by itself, it asks without.
        pad.add_probe(gst::PadProbeType::BUFFER, |pad, _| {
            let mut query = gst::query::Allocation::new(pad.current_caps().as_ref(), false);
            if pad.peer_query(&mut query) && query.find_allocation_meta::<gst_video::VideoMeta>().is_some() {
                return gst::PadProbeReturn::Remove;
            }
            if let (Some(source), Some(next)) = (pad.parent_element(), pad.peer().and_then(|p| p.parent_element())) {
                let next = name_of(Some(next.upcast_ref()));
                gst::element_error!(
                    source,
                    gst::StreamError::Format,
                    ["{next} does not look at where planes lie (GstVideoMeta), and these do not lie as it expects; \
                          put a videoconvert to another format before it"]
                );
            }
            gst::PadProbeReturn::Drop
        });
    }

    /// Tells sinks that keep time how long frames may wait on their way: GStreamer has so many, and needs no queue for that.
    pub(super) fn say_latency(&self, rate: Option<Rate>, holds: u32) {
        let period = rate.map(Rate::period_ns).filter(|&period| period > 0);
        let longest = period.map(|period| gst::ClockTime::from_nseconds(period * u64::from(holds)));
        if let Some(source) = &self.input {
            source.set_latency(gst::ClockTime::ZERO, longest);
        }
    }

    /// Has our end take every picture there is, as before anything was decided.
    pub(super) fn take_every(&self) {
        if let Some(sink) = &self.output {
            sink.set_caps(Some(&dma_buf::every()));
        }
    }

    /// What is going to come in: what the fragment gives follows from it.
    pub(super) fn expect(&self, caps: Option<gst::Caps>) {
        *self.coming.lock().unwrap_or_else(PoisonError::into_inner) = caps;
    }

    /// Tells upstream of this the next time it asks.
    pub(super) fn offer(&self, offered: Offered) {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = Some(offered);
    }

    /// True where what comes out begins with a device that makes pictures, and not with somebody who may have none yet.
    pub(super) fn films(&self) -> bool {
        self.beginning(|_| true).is_some_and(|source| makes_pictures(&source))
    }

    /// True where what comes out is what such a device makes.
    pub(super) fn is_camera(&self) -> bool {
        self.beginning(passes_on).is_some_and(|source| makes_pictures(&source))
    }

    /// Where what comes out are frames of another process (`shrbufsrc`): how many its producer lets out at once; 0 where it is
    /// not connected.
    pub(super) fn granted(&self) -> Option<u32> {
        let source = self.beginning(passes_on)?;
        source.factory().filter(|factory| factory.name() == "shrbufsrc")?;
        source.find_property("granted").and_then(|granted| source.property_value(granted.name()).get().ok())
    }

    /// Plays, with running time 0 at `base`. Does not wait.
    ///
    /// # Errors
    /// GStreamer's.
    pub(super) fn play(&self, base: u64) -> Result<(), Failure> {
        self.pipeline.set_base_time(gst::ClockTime::from_nseconds(base));
        self.change(gst::State::Playing)
    }

    /// Goes to `state`. Does not wait.
    ///
    /// # Errors
    /// GStreamer's, where it has not said them on the bus.
    pub(super) fn change(&self, state: gst::State) -> Result<(), Failure> {
        match self.pipeline.set_state(state) {
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::new(FailureKind::Config, SILENT)),
        }
    }
}

impl Drop for Fragment {
    fn drop(&mut self) {
        // A thread that waits for a buffer would not see that the pipeline stops.
        if let Some(Offered::Ours(pool, _)) = self.offered.lock().unwrap_or_else(PoisonError::into_inner).take() {
            pool.set_flushing(true);
        }
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
        // There is nobody left to tell where it fails.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn passes_on(element: &gst::Element) -> bool {
    element.factory().is_some_and(|factory| PASS_ON.contains(&factory.name().as_str()))
}

fn makes_pictures(source: &gst::Element) -> bool {
    source.metadata(gst::ELEMENT_METADATA_KLASS).is_some_and(|class| class.contains("Source/Video"))
}

/// gst-launch's grammar has caps between two elements only; at the ends they become what they are between.
fn with_caps_filters(launch: &str) -> String {
    let filter = |part: &str| {
        let word = part.trim().split([',', ' ', '(', ';']).next().unwrap_or_default();
        let is_name = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphanumeric() || "-+.*".contains(c));
        let caps = word.split_once('/').is_some_and(|(a, b)| is_name(a) && is_name(b));
        caps.then(|| format!("capsfilter caps=\"{}\"", part.trim().replace('\\', "\\\\").replace('"', "\\\"")))
    };
    let mut launch = launch.to_owned();
    if let Some((first, rest)) = launch.split_once('!')
        && let Some(first) = filter(first)
    {
        launch = format!("{first} !{rest}");
    }
    if let Some((rest, last)) = launch.rsplit_once('!')
        && let Some(last) = filter(last)
    {
        launch = format!("{rest}! {last}");
    }
    launch
}

fn refused(error: &glib::Error, context: &gst::ParseContext) -> FragmentError {
    let missing = context.missing_elements().into_iter().next();
    if let (Some(name), true) = (missing, error.matches(gst::ParseError::NoSuchElement)) {
        let registry = gst::Registry::get();
        let known = registry.features(gst::ElementFactory::static_type());
        let known: Vec<_> = known.iter().map(|feature| feature.name()).collect();
        // Whoever has ours in mind means no other.
        let nearest = nearest(&name, known.iter().map(|n| n.as_str())).filter(|_| !OURS.contains(&name.as_str()));
        let nearest = nearest.map(str::to_owned);
        return FragmentError::NoElement { name, nearest };
    }
    FragmentError::Parse(error.message().to_owned())
}

/// The element whose pad in this direction is open for pictures, if there is one.
fn open_end(bin: &gst::Bin, direction: PadDirection) -> Result<Option<gst::Element>, FragmentError> {
    let (name, ends) = if direction == PadDirection::Sink { (IN, "inputs") } else { (OUT, "outputs") };
    if let Some(named) = bin.by_name(name) {
        return Ok(Some(named));
    }
    let elements: Vec<gst::Element> = bin.iterate_elements().into_iter().flatten().collect();
    // What follows an element whose pads come later has an open input until then, which is not ours. Which one, the
    // parser keeps to itself.
    if direction == PadDirection::Sink && elements.iter().any(is_linked_later) {
        return Ok(None);
    }
    let mut open: Vec<(String, gst::Element)> = Vec::new();
    for element in elements {
        let pads = if direction == PadDirection::Sink { element.sink_pads() } else { element.src_pads() };
        for pad in pads.iter().filter(|pad| pad.peer().is_none() && takes_pictures(&pad.pad_template_caps())) {
            open.push((format!("{}.{}", element.name(), pad.name()), element.clone()));
        }
        // Those that make their pads as they are asked to, or as they find out what is in a file.
        let made = |t: &gst::PadTemplate| {
            t.direction() == direction && t.presence() != PadPresence::Always && takes_pictures(&t.caps().copy())
        };
        if pads.is_empty() && !is_linked_later(&element) && element.pad_template_list().iter().any(made) {
            open.push((element.name().into(), element));
        }
    }
    open.reverse();
    match open.len() {
        0 | 1 => Ok(open.pop().map(|(_, element)| element)),
        _ => Err(FragmentError::Several { ends, name, pads: open.into_iter().map(|(pad, _)| pad).collect() }),
    }
}

/// An end that is open, but for something else.
fn not_raw(bin: &gst::Bin) -> Option<FragmentError> {
    let open = |pads: fn(&gst::Element) -> Vec<gst::Pad>| {
        let pads = bin.iterate_elements().into_iter().flatten().flat_map(|element| pads(&element));
        pads.filter(|pad| pad.peer().is_none()).last()
    };
    let of = |pad: gst::Pad, does, advice| {
        let factory = pad.parent_element().and_then(|element| element.factory());
        let element = factory.map(|factory| factory.name().into()).unwrap_or_default();
        let caps = pad.pad_template_caps();
        let mut media: Vec<&str> = caps.iter().map(|structure| structure.name().as_str()).collect();
        media.dedup();
        FragmentError::NotRaw { does, pad: pad.name().into(), element, media: media.join(", "), advice }
    };
    // As in `open_end`.
    let waits = bin.iterate_elements().into_iter().flatten().any(|element| is_linked_later(&element));
    let (takes, gives) = (open(|e| e.sink_pads()).filter(|_| !waits), open(|e| e.src_pads()));
    let takes = takes.map(|pad| of(pad, "takes", "begin with an element that takes it, as encoders do"));
    takes.or_else(|| gives.map(|pad| of(pad, "gives", "end with an element that gives it, as decoders do")))
}

/// True where the parser waits for the element's pads, to link them then.
fn is_linked_later(element: &gst::Element) -> bool {
    super::sys::has_handler(element, "pad-added")
}

fn takes_pictures(caps: &gst::Caps) -> bool {
    caps.is_any() || caps.can_intersect(&dma_buf::every())
}

fn unfit(element: &gst::Element, why: impl std::fmt::Display) -> FragmentError {
    FragmentError::Unfit { name: element.name().into(), why: why.to_string() }
}

fn link_input(bin: &gst::Bin, element: &gst::Element, coming: &CapsCell) -> Result<AppSrc, FragmentError> {
    let source = AppSrc::builder().name("shrbuf-in").format(gst::Format::Time).is_live(true).build();
    // Frames are bounded by the buffers that there are, so that it never has to refuse one.
    source.set_max_bytes(0);
    source.set_max_buffers(0);
    source.set_block(false);
    bin.add(&source).map_err(|e| unfit(element, e))?;
    source.link(element).map_err(|_| unfit(element, "it has no open input for raw video"))?;
    if let Some(pad) = source.static_pad("src") {
        answer_caps(&pad, Arc::clone(coming));
    }
    Ok(source)
}

fn link_output(
    bin: &gst::Bin,
    element: &gst::Element,
    synchronised: bool,
    offered: &OfferCell,
) -> Result<AppSink, FragmentError> {
    let sink = AppSink::builder().name("shrbuf-out").sync(synchronised).max_buffers(2).drop(false);
    // A frame is on its way as soon as it is here: GStreamer need not have it earlier.
    let sink = sink.processing_deadline(gst::ClockTime::ZERO).build();
    sink.set_enable_last_sample(false);
    sink.set_caps(Some(&dma_buf::every()));
    bin.add(&sink).map_err(|e| unfit(element, e))?;
    let pad = sink.static_pad("sink").ok_or_else(|| unfit(element, "there is no pad to link it to"))?;
    answer_allocation(&pad, Arc::clone(offered));
    let sometimes = |t: &gst::PadTemplate| t.direction() == PadDirection::Src && t.presence() == PadPresence::Sometimes;
    if element.src_pads().is_empty() && element.pad_template_list().iter().any(sometimes) {
        let ours = pad.downgrade();
        element.connect_pad_added(move |_, theirs| {
            let pictures = || takes_pictures(&theirs.query_caps(None));
            if let Some(ours) = ours.upgrade().filter(|ours| !ours.is_linked() && pictures()) {
                // A pad that does not fit is an error of the stream, which upstream reports.
                let _ = theirs.link(&ours);
            }
        });
        return Ok(sink);
    }
    element.link(&sink).map_err(|_| unfit(element, "it has no open output of raw video"))?;
    Ok(sink)
}

/// appsrc itself tells of its caps only once it runs.
fn answer_caps(pad: &gst::Pad, coming: CapsCell) {
    pad.add_probe(gst::PadProbeType::QUERY_UPSTREAM | gst::PadProbeType::PUSH, move |_, info| {
        let Some(query) = info.query_mut() else { return gst::PadProbeReturn::Ok };
        let gst::QueryViewMut::Caps(query) = query.view_mut() else { return gst::PadProbeReturn::Ok };
        let Some(caps) = coming.lock().unwrap_or_else(PoisonError::into_inner).clone() else {
            return gst::PadProbeReturn::Ok;
        };
        let caps = query.filter().map_or_else(|| caps.clone(), |filter| filter.intersect(&caps));
        query.set_result(&caps);
        gst::PadProbeReturn::Handled
    });
}

/// appsink itself has no answer before 1.24.
fn answer_allocation(pad: &gst::Pad, offered: OfferCell) {
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH, move |_, info| {
        let Some(query) = info.query_mut() else { return gst::PadProbeReturn::Ok };
        let gst::QueryViewMut::Allocation(query) = query.view_mut() else { return gst::PadProbeReturn::Ok };
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        query.add_allocation_meta::<gst_video::VideoCropMeta>(None);
        let (Some(caps), needs_pool) = query.get_owned() else { return gst::PadProbeReturn::Handled };
        match &*offered.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Offered::Ours(pool, least)) if needs_pool => {
                if let Some((size, most)) = pool.prepare(&caps) {
                    query.add_allocation_pool(Some(pool), size, *least, most);
                }
            }
            Some(Offered::Theirs(least)) => {
                let size = shrbuf_gst_memory::dma_buf::info(&caps).map_or(0, |info| info.size());
                query.add_allocation_pool(None::<&gst::BufferPool>, u32::try_from(size).unwrap_or(0), *least, 0);
            }
            _ => {}
        }
        gst::PadProbeReturn::Handled
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(launch: &str) -> String {
        Fragment::parse(launch, false).err().unwrap().to_string()
    }

    fn ends(launch: &str) -> (bool, bool) {
        let fragment = Fragment::parse(launch, false).unwrap_or_else(|e| panic!("{launch}: {e}"));
        (fragment.input.is_some(), fragment.output.is_some())
    }

    #[test]
    fn open_ends_become_ours() {
        assert_eq!(ends("fakesink"), (true, false));
        assert_eq!(ends("videotestsrc"), (false, true));
        assert_eq!(ends("videoconvert ! videoscale"), (true, true));
        assert_eq!(ends("videotestsrc ! video/x-raw,width=320,height=240"), (false, true));
        assert_eq!(ends("video/x-raw,format=NV12 ! fakesink"), (true, false));
        assert_eq!(ends("filesrc location=a ! decodebin ! videoconvert"), (false, true));
        assert_eq!(ends("filesrc location=a ! decodebin"), (false, true));
    }

    #[test]
    fn named_elements_are_the_ends() {
        assert_eq!(ends("tee name=out ! queue ! fakesink"), (true, true));
        assert_eq!(ends("videotestsrc ! tee name=out ! queue ! fakesink"), (false, true));
        assert_eq!(ends("compositor name=in ! fakesink videotestsrc ! in."), (true, false));
    }

    #[test]
    fn frames_are_passed_on_where_every_element_from_end_to_end_does() {
        let passes_on = |launch: &str| Fragment::parse(launch, false).unwrap().passes_on();
        for launch in ["identity", "video/x-raw(memory:DMABuf) ! queue ! valve", "tee name=out ! queue ! fakesink"] {
            assert!(passes_on(launch), "{launch}");
        }
        for launch in ["videoconvert", "queue ! videoflip ! identity", "queue ! fakesink", "videotestsrc ! identity"] {
            assert!(!passes_on(launch), "{launch}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (launch, said) in [
            (" ", "is not set"),
            ("vp8encc ! fakesink", "`vp8encc`, which is no GStreamer element of this machine (did you mean `vp8enc`?)"),
            ("videotestsrc ! vp8dec ! fakesink", "could not link videotestsrc"),
            ("videotestsrc ! fakesink", "neither go in nor come out"),
            ("filesrc location=a ! matroskademux ! vp8dec ! fakesink", "neither go in nor come out"),
            (
                "vp8dec ! videoconvert ! fakesink",
                "takes no raw video: the `sink` of `vp8dec` is open for video/x-vp8; begin with",
            ),
            ("videotestsrc ! pngenc", "gives no raw video: the `src` of `pngenc` is open for image/png; end with"),
            ("videotestsrc patern=ball", "no property \"patern\""),
            ("videotestsrc ! !", "syntax"),
            ("filesrc name=in location=a ! fakesink", "no open input"),
        ] {
            assert!(error(launch).contains(said), "{launch}: {}", error(launch));
        }
        let ours = FragmentError::NoElement { name: "shrbufsrc".to_owned(), nearest: None }.to_string();
        assert!(ours.contains("`make install-gst`"), "{ours}");
        let several = error("videoconvert name=a ! fakesink videoconvert name=b ! fakesink");
        assert!(several.contains("several open inputs: a.sink, b.sink") && several.contains("name=in"), "{several}");
    }
}
