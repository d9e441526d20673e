//! `v4l2-m2m`: frames through a memory-to-memory device, in the driver's memory on neither side more than needed.
//!
//! `run` has what happens between start and stop. A decoder is special in one thing: it knows its pictures only from the
//! stream. So its buffers are allocated elsewhere and lent to it once it has said what they are to hold, as the kernel's
//! "Memory-to-Memory Stateful Video Decoder Interface" wants it. Where that is not what was negotiated, or is not any more,
//! what was made before goes out and the graph is negotiated anew with what the decoder has said. Meanwhile the decoder
//! keeps what it has of the stream: `incoming` is the side of it that goes on streaming through that. An encoder that feeds it
//! gets no buffer back meanwhile, so it cannot be drained: it makes what it has buffers for, and has the rest once more later.

mod habit;
mod incoming;
mod run;

use std::collections::BTreeMap;
use std::time::Duration;

use shrbuf::{Format, MemoryKind, Shrbuf};
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::{
    Build, BuildError, Colorimetry, Consumes, Context, Element, Environment, Events, Failure, FailureKind, Frame,
    InputOffer, Origin, OutputOffer, Ports, Produces, Rates, Rect, Refusal, Role, Size, SizeOffer, Sizes, Start,
    Stream, Video, Wanted, properties,
};

use self::incoming::Incoming;
use self::run::Run;
use super::failure::{failed, open_failed, set_controls};
use super::ioctl::{self, Codec, FormatDescription, SelectionTarget};
use super::{CaptureQueue, Device, Memory, NodeKind, OutputQueue, Present, blocks, node, picture, sink};

properties! {
    /// Frames through a V4L2 memory-to-memory device: a stateful codec, a scaler, a converter.
    ///
    /// What comes in is imported as it is (V4L2_MEMORY_DMABUF), each buffer once, and held until the driver gives it
    /// back. What goes out is in the driver's own buffers, exported once (VIDIOC_EXPBUF) and queued again when the last
    /// reference is dropped; a decoder, which knows its pictures only from the stream, is lent buffers of a dma-heap or
    /// udmabuf. Time stamps and numbers pass through. At the end a codec is drained. A decoder whose stream turns out to
    /// be of another size or kind than agreed, or becomes so, has the graph negotiated anew: what was made before arrives,
    /// and the decoder keeps what it has for afterwards, as does an encoder before it. A codec that works in whole blocks is
    /// told which part of them is picture, and says so of what it makes. A device that cannot be told of longer rows than
    /// the picture's is offered none. A frame that the device reports as damaged is dropped and counted.
    ///
    /// ```toml
    /// [element.encode]
    /// type = "v4l2-m2m"
    /// format = "FWHT"
    /// controls = { fwht_i_frame_qp_value = 10 }
    /// ```
    pub struct V4l2M2m = "v4l2-m2m" {
        /// Device node; not set, the first memory-to-memory device that takes what comes in and makes `format`.
        device: Option<String> = None,
        /// Format to make, of pixels or of a codec; not set, the first that the neighbours take.
        format: Option<Format> = None,
        /// Width and height to make, of a scaler.
        size: Option<Size> = None,
        /// Controls by name, set before streaming; bit rate and quality are among them.
        controls: BTreeMap<String, Value> = BTreeMap::new(),
        /// Who allocates the memory of what goes out.
        memory: Memory = Memory::Auto,
        /// Longest time without progress while there is work; then the run fails as stalled.
        stall: Duration = Duration::from_millis(1500),
    }
}

impl Build for V4l2M2m {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        if self.stall.is_zero() {
            return Err(BuildError::of("stall", "must be longer than 0"));
        }
        Ok(Box::new(M2m {
            config: self,
            name: String::new(),
            devices: Vec::new(),
            input: None,
            kept: None,
            rest: Vec::new(),
            made: None,
            found: None,
            run: None,
            counts: Counts::default(),
        }))
    }
}

/// `VIDEO_MAX_FRAME`.
const MAX_BUFFERS: u32 = 32;
/// The buffer being filled and the next.
const KEEPS: u32 = 2;

/// A device that is open.
struct Opened {
    /// The side that frames go into.
    takes: Device,
    /// The side that frames come out of.
    gives: Device,
    /// `None` for a device whose frames are pixels on both sides.
    codec: Option<Codec>,
    /// Formats that go in.
    reads: Vec<Format>,
    /// Formats that come out, before a decoder has seen its stream.
    makes: Vec<Format>,
}

impl Opened {
    fn of((takes, gives): (Device, Device)) -> Result<Opened, Failure> {
        let formats = |device: &Device| ioctl::enum_fmt(device, device.buf_type()).map_err(failed);
        let (into, out) = (formats(&takes)?, formats(&gives)?);
        let compressed = |f: &[FormatDescription]| !f.is_empty() && f.iter().all(|f| f.compressed);
        let codec = match (compressed(&into), compressed(&out)) {
            (true, _) => Some(Codec::Decoder),
            (false, true) => Some(Codec::Encoder),
            (false, false) => None,
        };
        let mut makes = node::known(&out);
        makes.retain(|f| f.is_compressed() == (codec == Some(Codec::Encoder)));
        Ok(Opened { takes, gives, codec, reads: node::known(&into), makes })
    }

    fn fits(&self, format: Option<Format>) -> bool {
        !self.reads.is_empty() && format.map_or(!self.makes.is_empty(), |format| self.makes.contains(&format))
    }
}

/// What was allocated for the frames that go out.
struct Made {
    /// Of a decoder there is none before it has seen the stream.
    queue: Option<CaptureQueue>,
    buffers: Vec<Shrbuf>,
    stream: Stream,
    /// The size that the driver was asked to have room for.
    asked: Size,
    color: Colorimetry,
    /// The picture, where that is known and does not begin at the corner of its buffer.
    shown: Option<Rect>,
}

/// What a decoder has said of its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// Of what comes in this is said.
    of: Stream,
    size: Size,
    /// The size that its pictures take in memory.
    room: Size,
    /// The format that the driver would make by itself, where it is one of the list.
    native: Option<Format>,
    /// Formats that it does not make of this stream.
    refused: Vec<Format>,
}

#[derive(Default)]
struct Counts {
    /// Frames that the driver gave as damaged: dropped.
    damaged: u64,
    /// Frames that the driver took and gave back as not understood.
    not_understood: u64,
    /// Frames that came before a change and are lost to what came after it: of another stream, or there was no start.
    left_behind: u64,
    /// Buffers that came in and nobody knew of in negotiation.
    late: u64,
}

struct M2m {
    config: V4l2M2m,
    name: String,
    /// All that would do, in negotiation; then the one that does it.
    devices: Vec<Opened>,
    input: Option<(OutputQueue, Stream)>,
    /// What the device has of a stream that goes on after a change.
    kept: Option<Incoming>,
    /// Frames that came before a change, and of which it has made nothing.
    rest: Vec<Frame>,
    made: Option<Made>,
    found: Option<Found>,
    run: Option<Run>,
    counts: Counts,
}

impl M2m {
    /// The device that is asked for, or each that makes what is.
    fn open(&self) -> Result<Vec<Opened>, Failure> {
        let found = match &self.config.device {
            Some(path) => vec![Device::open_m2m(path).map_err(open_failed)?],
            None => Device::every_m2m().map_err(open_failed)?,
        };
        let (mut fit, mut refused) = (Vec::new(), None);
        for opened in found.into_iter().map(Opened::of) {
            if opened.as_ref().is_ok_and(|o| !o.fits(self.config.format)) {
                continue;
            }
            match opened.and_then(|o| set_controls(&o.takes, &self.config.controls).map(|()| o)) {
                Ok(opened) => fit.push(opened),
                Err(failure) => refused = refused.or(Some(failure)),
            }
        }
        if fit.is_empty() { Err(refused.unwrap_or_else(|| self.none_fits())) } else { Ok(fit) }
    }

    fn none_fits(&self) -> Failure {
        let device = self.config.device.as_deref().unwrap_or("no memory-to-memory device");
        let format = self.config.format.map_or("of formats that are known here", |f| f.name());
        let present = Present::look(NodeKind::M2m);
        let verb = if self.config.device.is_some() { "does not make" } else { "makes" };
        Failure::new(FailureKind::Config, format!("{device} {verb} {format}; {present}"))
    }

    /// The device that a stream of this format goes into.
    fn device(&self, format: Format) -> Option<&Opened> {
        self.devices.iter().find(|d| d.reads.contains(&format))
    }

    /// Whose memory can go out.
    fn origins(&self, codec: Option<Codec>) -> Result<Vec<Origin>, Failure> {
        let others = vec![Origin::DmaHeap, Origin::Udmabuf];
        let config = |text: &str| Err(Failure::new(FailureKind::Config, text));
        match (codec, self.config.memory) {
            (Some(Codec::Decoder), Memory::V4l2) => config(
                "memory = \"v4l2\": a decoder knows its pictures only from the stream, so its buffers are allocated \
                 elsewhere; \"dma-heap\" and \"udmabuf\" can be had",
            ),
            (Some(Codec::Encoder), Memory::DmaHeap | Memory::Udmabuf) => {
                config("memory: only the driver knows how large a compressed frame becomes; \"v4l2\" can be had")
            }
            (Some(Codec::Decoder), Memory::Auto) => Ok(others),
            (Some(Codec::Encoder), _) | (None, Memory::V4l2) => Ok(vec![Origin::V4l2]),
            (None, Memory::Auto) => Ok(std::iter::once(Origin::V4l2).chain(others).collect()),
            (_, Memory::DmaHeap) => Ok(vec![Origin::DmaHeap]),
            (_, Memory::Udmabuf) => Ok(vec![Origin::Udmabuf]),
        }
    }

    /// What it can make of `input`.
    fn makes(&self, opened: &Opened, input: &Stream) -> Result<Vec<Video>, Failure> {
        let found = self.found.as_ref().filter(|f| f.of == *input);
        let size = found.map_or(input.size, |f| f.size);
        let formats = opened.gives.formats().map_err(failed)?;
        let mut video: Vec<Video> = formats.iter().filter_map(|info| picture::video(info, size)).collect();
        video.retain(|v| v.format.is_compressed() == (opened.codec == Some(Codec::Encoder)));
        if let Some(found) = found {
            video.retain(|v| !found.refused.contains(&v.format));
            if let Some(native) = found.native.filter(|_| !found.refused.is_empty()) {
                video.retain(|v| same_samples(v.format, native));
            }
        }
        // Frames with the samples of those that came in lose least.
        video.sort_by_key(|v| (v.format != input.format, v.format.bits() < 8));
        let rates = input.rate.map_or(Rates::Any, |rate| Rates::List(vec![rate]));
        for offer in &mut video {
            if opened.codec.is_some() {
                any_size(offer);
                offer.sizes = vec![SizeOffer { sizes: Sizes::Exact(size), rates: Rates::Any }];
            }
            offer.sizes.iter_mut().for_each(|s| s.rates = rates.clone());
        }
        Ok(video)
    }
}

fn not_open() -> Refusal {
    Refusal::new("the device is not open")
}

/// The steps of a codec's sizes are those of its blocks, and of the last of them it takes a part.
fn any_size(video: &mut Video) {
    for offer in &mut video.sizes {
        if let Sizes::Range { step, .. } = &mut offer.sizes {
            *step = Size::new(1, 1);
        }
    }
}

/// True where both have the same components at the same places.
fn same_samples(a: Format, b: Format) -> bool {
    let chroma = |f: Format| f.planes().iter().map(|p| (p.hsub, p.vsub)).max();
    a.family() == b.family() && chroma(a) == chroma(b)
}

impl Element for M2m {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Transform
    }

    fn join(&mut self, environment: &Environment) {
        self.name.clone_from(&environment.name);
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        self.made = None;
        self.input = None;
        // What fails here is to find a device opened anew the next time.
        let (kept, devices) = (self.kept.take(), std::mem::take(&mut self.devices));
        let devices = if kept.is_some() { devices } else { self.open()? };
        let (mut video, mut blocks, mut holds) = (Vec::<Video>::new(), Vec::new(), 0);
        for opened in &devices {
            let takes = &opened.takes;
            let current = takes.format().map_err(|e| Failure::new(FailureKind::Device, e))?;
            let current = Size::new(current.width, current.height);
            let formats = takes.formats().map_err(failed)?;
            let offers = formats.iter().filter_map(|info| picture::video(info, current));
            // What several take goes into the first.
            let mut offers: Vec<Video> = offers.filter(|v| !video.iter().any(|o| o.format == v.format)).collect();
            if opened.codec.is_some() {
                offers.iter_mut().for_each(any_size);
            }
            let own = blocks::blocks(takes, &formats).into_iter();
            blocks.extend(own.filter(|(format, _)| offers.iter().any(|o| o.format == *format)));
            holds = holds.max(sink::holds(takes));
            video.extend(offers);
        }
        (self.devices, self.kept) = (devices, kept);
        let memory = Consumes { kinds: vec![MemoryKind::DmaBuf], blocks, holds, ..Consumes::cpu() };
        Ok(InputOffer { video, memory, wanted: Wanted::default(), natural: None })
    }

    fn output_offer(&mut self, _output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        let none = || Failure::new(FailureKind::Config, "nothing comes in");
        let input = input.ok_or_else(none)?;
        let opened = self.device(input.format).ok_or_else(none)?;
        let origins = self.origins(opened.codec)?;
        Ok(OutputOffer {
            video: self.makes(opened, input)?,
            memory: Produces { origins, max_stride_align: 4096, keeps: keeps(&opened.gives), max_buffers: MAX_BUFFERS },
            wanted: Wanted { format: self.config.format, size: self.config.size, rate: None },
        })
    }

    fn import(&mut self, _input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        // What goes out follows from what comes in, so it is made anew.
        self.made = None;
        self.input = None;
        match self.kept.take() {
            Some(kept) if (kept.stream.format, kept.stream.size) == (stream.format, stream.size) => {
                return self.kept.insert(kept).queue.go_on(stream, buffers);
            }
            // Whoever feeds it has changed too: what it had is of no use for what comes now.
            Some(kept) => self.counts.left_behind += kept.unfinished(),
            None => {}
        }
        let opened = self.device(stream.format).ok_or_else(not_open)?;
        let queue = OutputQueue::import(&opened.takes, stream, buffers)?;
        self.input = Some((queue, *stream));
        Ok(())
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.made = None;
        let of = self.kept.as_ref().map(|kept| kept.stream).or(self.input.as_ref().map(|(_, of)| *of));
        let opened = of.and_then(|of| self.device(of.format)).ok_or_else(not_open)?;
        let decodes = opened.codec == Some(Codec::Decoder);
        let found = self.found.as_ref().filter(|f| decodes && Some(f.of) == of && f.size == stream.size);
        let asked = found.map_or(stream.size, |f| f.room);
        let format = picture::set_room(&opened.gives, stream, asked)?;
        let mut shown = None;
        let (queue, buffers) = if decodes && self.kept.is_none() {
            (None, picture::lend(stream, &format, &self.name)?)
        } else {
            if decodes {
                let room = Size::new(format.width, format.height);
                let picture = picture::composed(&opened.gives, room).map_err(|e| Refusal::new(e.to_string()))?;
                shown = picture::off_corner(picture);
            } else if !stream.format.is_compressed() {
                picture::select(&opened.gives, SelectionTarget::Compose, stream.size, &format)?;
            }
            let (queue, buffers) = picture::allocate(&opened.gives, stream, &format, &self.name)?;
            (Some(queue), buffers)
        };
        let color = picture::colorimetry(stream.format, format.colorimetry, stream.size.width);
        let to_show = buffers.clone();
        self.made = Some(Made { queue, buffers, stream: *stream, asked, color, shown });
        Ok(to_show)
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let fresh = self.input.take().map(|(queue, stream)| {
            let fits = |frame: &Frame| frame.buffer.layout() == queue.layout();
            let (first, others): (Vec<_>, Vec<_>) = self.rest.drain(..).partition(fits);
            self.counts.left_behind += others.len() as u64;
            Incoming::new(queue, stream, first)
        });
        let input = self.kept.take().or(fresh);
        // Those that were not needed are closed.
        let takes = |d: &Opened| input.as_ref().is_some_and(|i| d.reads.contains(&i.stream.format));
        self.devices = std::mem::take(&mut self.devices).into_iter().find(takes).into_iter().collect();
        let (Some(opened), Some(input), Some(made)) = (self.devices.first(), input, self.made.take()) else {
            return Err(Failure::new(FailureKind::Config, "started without a negotiated stream"));
        };
        let from_before = input.unfinished();
        let run = Run::start(opened, input, made, self.config.stall, start);
        self.run = Some(run.inspect_err(|_| self.counts.left_behind += from_before)?);
        Ok(())
    }

    fn ready(&mut self, token: u32, events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        run.ready(token, events, context, &mut self.counts)
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.run.as_mut().map_or(Ok(()), |run| run.take(frame, context, &mut self.counts))
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        match &mut self.run {
            Some(run) => run.end(context),
            None => context.end_all(),
        }
    }

    fn stop(&mut self) {
        self.made = None;
        self.input = None;
        let stream = self.run.take().and_then(|run| {
            let (stream, rest) = run.stop(&mut self.counts);
            self.rest = rest;
            stream
        });
        let Some((input, now)) = stream else {
            self.devices.clear();
            return;
        };
        let earlier = self.found.take().filter(|f| (f.of, f.size) == (now.of, now.size));
        let refused = earlier.into_iter().flat_map(|f| f.refused).chain(now.refused.iter().copied()).collect();
        self.found = Some(Found { refused, ..now });
        self.kept = Some(input);
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        report("damaged", self.counts.damaged);
        report("not_understood", self.counts.not_understood);
        report("left_behind", self.counts.left_behind);
        report("late", self.counts.late);
    }
}

/// Buffers that the device must have to run.
fn keeps(gives: &Device) -> u32 {
    let least = gives.control("min_number_of_capture_buffers").ok().and_then(|c| gives.control_value(&c).ok());
    match least {
        Some(ioctl::ControlValue::Integer(n)) => u32::try_from(n).unwrap_or(0).saturating_add(1).max(KEEPS),
        _ => KEEPS,
    }
}
