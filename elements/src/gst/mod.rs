//! `gst`: a part of a GStreamer pipeline as an element.
//!
//! | file | story |
//! | --- | --- |
//! | `mod` | the element: properties, ports, negotiation |
//! | `run` | frames in, frames out, stamps, the end |
//! | `fragment` | the launch fragment, parsed, with our ends |
//! | `message` | errors in GStreamer's words |
//! | `caps`, `video` | what a picture is called on both sides, in the words of a pipeline |
//! | `dma_buf` | which caps frames have, where elements insist on dma-bufs |
//! | `pool` | our buffers, lent to GStreamer for writing |
//! | `gather` | a source's first pictures, before anything streams |
//! | `theirs` | GStreamer's own memory, as our buffers |
//! | `sys` | the one call for which the bindings have no safe one |
//!
//! Lending our buffers for reading, and looking at GStreamer's memories, is `shrbuf-gst-memory`'s, which the GStreamer
//! plugin has too.

mod caps;
mod dma_buf;
mod fragment;
mod gather;
mod message;
#[allow(missing_docs, reason = "the bindings' macros make items that cannot be documented")]
mod pool;
mod run;
mod sys;
mod theirs;
mod video;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::gst::PadDirection;
pub use message::GstError;
use shrbuf::{Ledger, MemoryKind, Shrbuf};
use shrbuf_gst_memory::Lender;
use shrbuf_pipeline::graph::Copies;
use shrbuf_pipeline::property::{Build, BuildError};
use shrbuf_pipeline::{
    Consumes, Context, Element, Environment, Events, Failure, FailureKind, Frame, InputOffer, Origin, OutputOffer,
    Ports, Produces, Refusal, Role, Start, Stream, Video, Wanted,
};

use self::dma_buf::Called;
use self::fragment::{Fragment, Offered};
use self::gather::Begun;
use self::pool::{Buffers, LendingPool};
use self::run::{Input, Made, Output, Run};
use crate::memory::{self, Memory};

shrbuf_pipeline::properties! {
    /// A part of a GStreamer pipeline.
    ///
    /// Where `launch` begins without a source, our frames go in; where it ends without a sink, its frames come out: so
    /// it is a sink, a source, or both. Where that is not plain, call the elements that are meant `name=in` and
    /// `name=out`. Frames go in as they are, memfds and dma-bufs; elements that insist on the caps feature
    /// `memory:DMABuf` have it for dma-bufs. What comes out is written straight into our buffers by every element that
    /// takes the pool of the next one: decoders, converters, test pictures; what is only passed on is the frame that
    /// came in; and dma-bufs and sealed memfds of GStreamer's own, such as a camera's, come out as they are. Other frames
    /// have to be copied, which `copies` of the pipeline denies unless it is told otherwise. Time stamps keep their
    /// values. Only in builds with the feature `gstreamer`.
    ///
    /// ```toml
    /// [element.record]
    /// type = "gst"
    /// launch = "x264enc tune=zerolatency ! matroskamux ! filesink location=out.mkv"
    /// ```
    pub struct Gst = "gst" {
        /// A part of a gst-launch-1.0 line.
        launch: String = String::new(),
        /// Frames that GStreamer keeps at once, at each end, 8 if not set; encoders that look ahead keep as many more. Of frames
        /// that come out of a `shrbufsrc` none if not set: its producer's `window` is what there is, for all who hold them.
        holds: Option<u32> = None,
        /// Of a source: frames come out at their time; if not, as soon as they are made.
        sync: bool = true,
        /// Longest time that the first picture may take, where it must be seen before anything streams; and that GStreamer
        /// may have `holds` frames without giving one back or getting another.
        timeout: Duration = Duration::from_secs(10),
        /// Memory of frames that come out: "auto" takes the first that all consumers can import, or what the part brings
        /// itself.
        memory: Memory = Memory::Auto,
    }
}

/// Where `holds` is not set.
const HOLDS: u32 = 8;

/// GStreamer pads rows to this many bytes by itself.
const STRIDE: u32 = 4;

/// What helps where frames are memfds that have to be dma-bufs.
const DMA_BUFS: &str = "memory = \"udmabuf\" or \"dma-heap\" where they are allocated makes them dma-bufs, and cameras and \
    GPUs have their own; /dev/udmabuf and /dev/dma_heap have to be there for this user";

impl Build for Gst {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        let most = shrbuf::pool::MAX_BUFFERS as u32;
        if self.holds.is_some_and(|holds| !(1..=most).contains(&holds)) {
            return Err(BuildError::of("holds", format!("must be 1 to {most}")));
        }
        let fragment = Fragment::parse(&self.launch, self.sync).map_err(|e| BuildError::of("launch", e.to_string()))?;
        let ends = (fragment.input.is_some(), fragment.output.is_some());
        let environment = Environment::new("gst", Ledger::default());
        let element = Part {
            config: self,
            environment,
            ends,
            passes_on: fragment.passes_on(),
            copies: Copies::Deny,
            fragment: None,
            tried: false,
            brings: None,
            playing: None,
            keeps: 0,
            input: None,
            output: None,
            buffers: Vec::new(),
            run: None,
            counts: Arc::default(),
        };
        Ok(Box::new(element))
    }
}

/// What the element itself counts, over all runs.
#[derive(Debug, Default)]
struct Counts {
    /// Frames that came out in other memory, and were copied.
    copied: AtomicU64,
    /// Buffers of GStreamer's own that frames came out in, the first time that each was seen.
    imported: AtomicU64,
}

struct Part {
    config: Gst,
    environment: Environment,
    /// It has an input; it has an output.
    ends: (bool, bool),
    /// What comes out is what came in.
    passes_on: bool,
    copies: Copies,
    /// From the first offer on, until the run is over.
    fragment: Option<Fragment>,
    /// It has been tried with one candidate, at least.
    tried: bool,
    /// The memory of its own that it is known to make frames in.
    brings: Option<MemoryKind>,
    /// A first look has let it play, and its frames are in memory of its own: it plays on, for the candidate that takes them so.
    playing: Option<Output>,
    /// Frames of its output that GStreamer keeps, as negotiated.
    keeps: u32,
    /// Between negotiation and start.
    input: Option<Input>,
    output: Option<Output>,
    buffers: Vec<Shrbuf>,
    run: Option<Run>,
    counts: Arc<Counts>,
}

fn config(what: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Config, what.to_string())
}

fn refusal(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(what.to_string())
}

impl Part {
    /// The fragment, its devices and files looked for, but without a picture.
    fn fragment(&mut self) -> Result<&Fragment, Failure> {
        if self.fragment.is_none() {
            let fragment = Fragment::parse(&self.config.launch, self.config.sync);
            let fragment = fragment.map_err(|e| config(format!("launch {e}")))?;
            fragment.reach(::gst::State::Ready, self.config.timeout)?;
            self.fragment = Some(fragment);
        }
        self.fragment.as_ref().ok_or_else(|| config("there is no fragment"))
    }

    /// The fragment anew: what has had pictures does not go back. The parser links an element that makes its pads as it
    /// goes (a demuxer) once only.
    fn again(&mut self) -> Result<&Fragment, Failure> {
        (self.fragment, self.playing) = (None, None);
        self.fragment()
    }

    /// What the pad beyond our end can do.
    fn offers(&mut self, direction: PadDirection) -> Result<Option<Vec<Video>>, Failure> {
        let Some(caps) = self.fragment()?.can(direction) else { return Ok(None) };
        let offers = caps::offers(&caps, direction == PadDirection::Sink);
        if offers.is_empty() {
            let formats: Vec<&str> = shrbuf_gst_memory::video::formats().map(|f| f.name()).collect();
            let does = if direction == PadDirection::Sink { "takes" } else { "gives" };
            return Err(config(format!(
                "the fragment {does} no raw pictures of a format that both sides know ({}); a videoconvert there helps",
                formats.join(", ")
            )));
        }
        Ok(Some(offers))
    }

    /// What the pad beyond our end calls the frames of `stream`. Of what comes out plain caps where it has them, since
    /// whoever gives frames with those takes our memory; but of its own dma-bufs that they are, since some make them only
    /// where that is said.
    fn called(&mut self, direction: PadDirection, stream: &Stream) -> Result<Called, Refusal> {
        let plain = video::caps(stream.format, stream.size, stream.rate).map_err(refusal)?;
        let fragment = self.fragment().map_err(refusal)?;
        let calls = |kind| fragment.calls(direction, &plain, kind);
        if stream.origin == Origin::Gstreamer {
            return Ok(fragment.calls_dma_bufs(&plain).unwrap_or(Called::Plain));
        }
        if direction == PadDirection::Src && calls(MemoryKind::Memfd).is_some() {
            return Ok(Called::Plain);
        }
        match (calls(MemoryKind::DmaBuf), stream.origin.kind()) {
            (Some(Called::DmaBuf | Called::Drm), MemoryKind::Memfd) if calls(MemoryKind::Memfd).is_none() => {
                let who = fragment.insists(direction).unwrap_or_else(|| "the fragment".to_owned());
                let what = format!("{who} insists on dma-bufs for {} (memory:DMABuf), these are memfds", stream.format);
                Err(Refusal::new(what).instead(DMA_BUFS))
            }
            (Some(called), MemoryKind::DmaBuf) => Ok(called),
            // Where it has none of them, it says so itself.
            _ => Ok(Called::Plain),
        }
    }

    /// Has the fragment say what it makes of `stream`.
    fn expect(&mut self, stream: &Stream) -> Result<(), Refusal> {
        let plain = video::caps(stream.format, stream.size, stream.rate).map_err(refusal)?;
        let called = self.called(PadDirection::Sink, stream)?;
        let fragment = self.fragment().map_err(refusal)?;
        fragment.expect(Some(called.caps(plain)));
        fragment.take_every();
        Ok(())
    }

    /// What a fragment that is a source gives. One that does not say how large pictures are before it is paused, or has one,
    /// is let do that.
    fn source_offers(&mut self) -> Result<Vec<Video>, Failure> {
        let sized = |offers: Option<Vec<Video>>| offers.filter(|offers| caps::sized(offers));
        if let Some(offers) = sized(self.offers(PadDirection::Src)?) {
            return Ok(offers);
        }
        let longest = self.config.timeout;
        if !self.fragment()?.reach(::gst::State::Paused, longest)? {
            // It may have connected to somebody who knows.
            if let Some(offers) = sized(self.offers(PadDirection::Src)?) {
                return Ok(offers);
            }
            self.fragment = None;
            return Err(config(
                "the fragment is live and does not say how large its pictures are before they come; end it with that, \
                 such as `! video/x-raw,width=1280,height=720,framerate=30/1`",
            ));
        }
        let first = self.fragment()?.size_of_first();
        let offers = self.offers(PadDirection::Src);
        self.again()?;
        let nothing = || config("the fragment ends before its first picture");
        let (first, mut offers) = (first.ok_or_else(nothing)?, offers?.ok_or_else(nothing)?);
        // Decoders say what they could do with any file.
        for video in &mut offers {
            video.sizes = first.clone();
        }
        offers.dedup();
        Ok(offers)
    }

    /// Where frames are another process's and come out as they are: how many of them there may be.
    fn granted(&mut self, source: bool) -> Result<Option<u32>, Failure> {
        let longest = self.config.timeout;
        if !source || self.config.memory != Memory::Auto || self.fragment()?.granted().is_none() {
            return Ok(None);
        }
        // It connects as it is paused.
        let fragment = self.fragment()?;
        fragment.reach(::gst::State::Paused, longest)?;
        Ok(fragment.granted().filter(|&granted| granted > 0))
    }

    /// Lets a source that has been offered our buffers make its first frame, and looks where it is. `None` where it is in
    /// one of them, or cannot be known yet; else why it would have to be copied.
    fn look_at_first(&mut self) -> Result<Option<String>, Refusal> {
        let (Some(fragment), Some(output)) = (&self.fragment, &mut self.output) else { return Ok(None) };
        let Some(sink) = fragment.output.as_ref().filter(|_| fragment.input.is_none()) else { return Ok(None) };
        let Some(made @ Made { buffers: Some(_), .. }) = &mut output.made else { return Ok(None) };
        let preroll = fragment.reach(::gst::State::Paused, self.config.timeout).map_err(refusal)?;
        let first = if preroll {
            sink.try_pull_preroll(::gst::ClockTime::ZERO)
        } else if fragment.films() {
            let begun = gather::first(fragment, sink, self.config.timeout).map_err(refusal)?;
            made.begun.insert(begun).held.front().cloned()
        } else {
            None
        };
        let first = first.as_ref().and_then(|sample| sample.buffer_owned());
        let ours = |frame: &::gst::Buffer| made.buffers.as_ref().is_some_and(|buffers| buffers.has(frame));
        let Some(first) = first.filter(|first| !ours(first)) else { return Ok(None) };
        self.brings = gather::kind_of(&first, &made.info);
        Ok(Some(self.brings.map_or_else(|| run::elsewhere(sink), |kind| self.brings_its_own(kind))))
    }

    /// The origin of streams in the part's own memory, where that is known and comes out without a copy, of this stream or
    /// of another candidate.
    fn own_origin(&self, stream: &Stream) -> Option<Origin> {
        let own = match self.brings.filter(|_| !self.ends.0)? {
            MemoryKind::DmaBuf => Origin::Gstreamer,
            MemoryKind::Memfd => Origin::Memfd,
        };
        (self.config.memory == Memory::Auto || own == stream.origin).then_some(own)
    }

    fn brings_its_own(&self, kind: MemoryKind) -> String {
        let sink = self.fragment.as_ref().and_then(|fragment| fragment.output.as_ref());
        format!(
            "{} makes frames in {kind}s of its own",
            sink.map_or_else(|| "GStreamer".to_owned(), message::origin_of)
        )
    }

    /// What plays already, if that is this stream, with as many buffers. A camera takes long to start, and some do not like it
    /// twice.
    fn played(&mut self, stream: &Stream) -> Option<(::gst::Caps, Begun)> {
        let Output { caps, made, .. } = self.playing.take()?;
        let Made { stream: played, begun, .. } = made?;
        let what = |stream: &Stream| (stream.format, stream.size, stream.rate);
        let same = what(&played) == what(stream) && played.buffers >= stream.buffers;
        Some((caps, begun?)).filter(|_| same)
    }

    /// All buffers of the part's own memory.
    fn gather(&mut self, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        let info = video::info(stream.format, stream.size, stream.rate, None).map_err(refusal)?;
        let (caps, begun) = match self.played(stream) {
            Some((caps, begun)) => (caps, Some(begun)),
            None => {
                if std::mem::take(&mut self.tried) {
                    self.again().map_err(refusal)?;
                }
                let caps = video::caps(stream.format, stream.size, stream.rate).map_err(refusal)?;
                (self.called(PadDirection::Src, stream)?.caps(caps), None)
            }
        };
        let (longest, needed) = (self.config.timeout, stream.buffers);
        let fragment = self.fragment().map_err(refusal)?;
        let Some(sink) = fragment.output.clone() else { return Err(refusal("there is no output")) };
        fragment.offer(Offered::Theirs(needed));
        sink.set_caps(Some(&caps));
        let gathered = gather::all(fragment, &sink, &info, needed as usize, longest, begun);
        self.tried = true;
        self.brings = gathered.as_ref().ok().and_then(|(buffers, _)| buffers.first()).map(Shrbuf::kind);
        let gathered = gathered.and_then(|(buffers, begun)| {
            let (kind, wanted) = (self.brings, stream.origin.kind());
            match kind.filter(|kind| *kind != wanted) {
                Some(kind) => Err(config(self.brings_its_own(kind))),
                None => Ok((buffers, begun)),
            }
        });
        let (buffers, begun) = gathered.map_err(|failure| {
            self.fragment = None;
            Refusal::new(failure.to_string())
        })?;
        let made = Made { info, stream: *stream, buffers: None, begun: Some(begun) };
        self.output = Some(Output { caps, made: Some(made), elsewhere: None });
        self.buffers = buffers;
        Ok(self.buffers.clone())
    }
}

impl Element for Part {
    fn ports(&self) -> Ports {
        match self.ends {
            (true, true) => Ports::filter(),
            (true, false) => Ports::sink(),
            (false, _) => Ports::source(),
        }
    }

    fn role(&self) -> Role {
        match self.ends {
            (true, true) if self.passes_on => Role::Tap,
            (true, true) => Role::Transform,
            _ => Role::Endpoint,
        }
    }

    fn join(&mut self, environment: &Environment) {
        self.environment = environment.clone();
    }

    fn allow_copies(&mut self, copies: Copies) {
        self.copies = copies;
    }

    fn copies(&self, _output: usize) -> Option<String> {
        self.output.as_ref().and_then(|output| output.elsewhere.clone())
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        let video = self.offers(PadDirection::Sink)?.unwrap_or_default();
        let insists = self.fragment()?.insists(PadDirection::Sink);
        let holds = self.config.holds.unwrap_or(HOLDS);
        let mut memory = Consumes { holds, stride_align: STRIDE, insists, ..Consumes::cpu() };
        if memory.insists.is_some() {
            memory.kinds = vec![MemoryKind::DmaBuf];
        }
        Ok(InputOffer { video, memory, wanted: Wanted::default(), natural: None })
    }

    fn output_offer(&mut self, _output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        if self.playing.is_some() {
            // Nobody took it so.
            self.again()?;
        }
        let video = match input {
            Some(stream) => {
                self.expect(stream).map_err(config)?;
                self.offers(PadDirection::Src)?.unwrap_or_default()
            }
            None => {
                self.fragment()?.take_every();
                self.source_offers()?
            }
        };
        self.keeps = self.config.holds.unwrap_or(HOLDS);
        let mut memory = Produces { max_stride_align: STRIDE, ..self.config.memory.offer() };
        if let Some(most) = self.granted(input.is_none())? {
            // What waits for room waits with the producer.
            (self.keeps, memory.max_buffers) = (self.config.holds.unwrap_or(0), most);
        }
        memory.keeps = self.keeps;
        if input.is_none() && self.config.memory == Memory::Auto {
            match self.brings {
                Some(MemoryKind::DmaBuf) => memory.origins = vec![Origin::Gstreamer],
                Some(MemoryKind::Memfd) => memory.origins = vec![Origin::Memfd],
                // What they are shows once the first of ours has been offered.
                None => memory.origins.insert(memory.origins.len().min(1), Origin::Gstreamer),
            }
        }
        Ok(OutputOffer { video, memory, wanted: Wanted::default() })
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.output = None;
        self.buffers.clear();
        let own = self.own_origin(stream);
        if let Some((kind, _)) = self.brings.zip(own).filter(|(_, own)| *own != stream.origin) {
            return Err(Refusal::new(self.brings_its_own(kind)));
        }
        if own.is_some() || stream.origin == Origin::Gstreamer {
            return self.gather(stream);
        }
        if std::mem::take(&mut self.tried) {
            self.again().map_err(refusal)?;
        }
        let info = video::info(stream.format, stream.size, stream.rate, None).map_err(refusal)?;
        let layout = shrbuf_gst_memory::video::layout(stream.format, &info).map_err(refusal)?;
        let memory = memory::allocate_as(stream, &layout, &self.environment.name)?;
        let buffers = Buffers::new(&memory, info.clone()).map_err(refusal)?;
        if let Some(input) = self.input.as_ref().map(|input| input.stream) {
            self.expect(&input)?;
        }
        let called = self.called(PadDirection::Src, stream)?;
        let caps = called.caps(video::caps(stream.format, stream.size, stream.rate).map_err(refusal)?);
        let fragment = self.fragment().map_err(refusal)?;
        // What takes ours needs none but them; a camera that does not is asked to have enough from its only start on.
        let camera = fragment.is_camera();
        let least = if camera { stream.buffers } else { 0 };
        fragment.offer(Offered::Ours(LendingPool::of(&buffers), least));
        if let Some(sink) = &fragment.output {
            sink.set_caps(Some(&caps));
        }
        let made = Made { info, stream: *stream, buffers: Some(buffers), begun: None };
        self.output = Some(Output { caps, made: Some(made), elsewhere: None });
        self.tried = true;
        let elsewhere = self.look_at_first()?;
        let own = self.own_origin(stream);
        if own.is_some() {
            let plays = |output: &Output| output.made.as_ref().is_some_and(|made| made.begun.is_some());
            self.playing = self.output.take().filter(|output| camera && plays(output));
        }
        if own == Some(stream.origin) {
            return self.gather(stream);
        }
        if let Some(why) = elsewhere.as_ref().filter(|_| own.is_some() || self.copies == Copies::Deny) {
            let refusal = Refusal::new(why.clone());
            if self.playing.is_none() {
                self.fragment = None;
            }
            return Err(match (self.brings, own) {
                (None, _) => refusal.instead(run::ADVICE),
                (Some(_), None) => refusal.instead("memory = \"auto\" takes them as they are"),
                (Some(_), Some(_)) => refusal,
            });
        }
        if let Some(output) = &mut self.output {
            output.elsewhere = elsewhere;
        }
        self.buffers = memory;
        Ok(self.buffers.clone())
    }

    fn import(&mut self, _input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        self.input = None;
        let called = self.called(PadDirection::Sink, stream)?;
        let lender = Lender::new(buffers, video::planes(buffers).map_err(refusal)?).map_err(refusal)?;
        self.input = Some(Input { stream: *stream, called, lender });
        Ok(())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let missing = || config("started before it was negotiated");
        self.fragment()?;
        let fragment = self.fragment.take().ok_or_else(missing)?;
        self.tried = false;
        let input = self.input.take();
        let passed_on = input.as_ref().filter(|_| self.passes_on).map(Output::of_input).transpose()?;
        let output = self.output.take().or(passed_on);
        if (input.is_some(), output.is_some()) != self.ends {
            return Err(missing());
        }
        let buffers = std::mem::take(&mut self.buffers);
        let terms = run::Terms {
            environment: self.environment.clone(),
            copies: self.copies,
            holds: self.config.holds.unwrap_or(HOLDS),
            keeps: self.keeps,
            timeout: self.config.timeout,
            counts: Arc::clone(&self.counts),
        };
        self.run = Some(Run::begin(fragment, terms, input, output, buffers, start)?);
        Ok(())
    }

    fn ready(&mut self, token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        self.run.as_mut().map_or(Ok(()), |run| run.ready(token, context))
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.run.as_mut().map_or(Ok(()), |run| run.process(&frame, context))
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        match &mut self.run {
            Some(run) => run.end(),
            None => context.end_all(),
        }
    }

    fn stop(&mut self) {
        self.run = None;
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        if self.ends.1 {
            report("copied-frames", self.counts.copied.load(Ordering::Relaxed));
            report("imports", self.counts.imported.load(Ordering::Relaxed));
        }
    }
}
