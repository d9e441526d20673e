//! `v4l2-src`: frames from a capture device, in the driver's own memory or in memory that it is lent.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shrbuf::{Format, Pool, Shrbuf, State};
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::{
    Build, BuildError, Colorimetry, Context, Element, Environment, Events, Failure, FailureKind, Frame, Origin,
    OutputOffer, Ports, Produces, Rate, Refusal, Size, Start, Stream, Timestamp, Video, Wanted, Watch, choices,
    properties,
};

use super::failure::{dequeue_failed, failed, open_failed, set_controls, start_queue_failed};
use super::ioctl::{self, Clock, Dequeued, DqbufError, DvTimings, DvTimingsError, Fraction};
use super::picture::{Whole, allocate, set_format, video};
use super::sequence::{Sequence, Told};
use super::signal::{Captured, Now, has_changed, no_signal};
use super::{CaptureQueue, Device, StartError, color};

choices! {
    /// Who allocates the frames' memory.
    pub enum Memory {
        /// The driver if the neighbours can import that, else a dma-heap, else udmabuf.
        Auto = "auto",
        /// The driver: VIDIOC_REQBUFS, VIDIOC_EXPBUF.
        V4l2 = "v4l2",
        /// The dma-heap `system`; the driver imports it.
        DmaHeap = "dma-heap",
        /// `/dev/udmabuf`; the driver imports it.
        Udmabuf = "udmabuf",
    }
}

properties! {
    /// Frames from a camera or another V4L2 capture device.
    ///
    /// The driver's buffers are exported once (VIDIOC_EXPBUF) and go downstream as dma-bufs; a buffer is queued
    /// again (VIDIOC_QBUF) when its last reference is dropped and its readers' fences have signalled. For a consumer that
    /// reads whole blocks (a codec) the picture has room around it: in a part of the driver's buffers, where it can be told
    /// to write to one, or in memory that it is lent; otherwise the link is refused, or goes through `gpu`.
    ///
    /// A frame's time stamp is the driver's: of when its exposure began, as webcams have it (UVC: when its first bytes came),
    /// or of when its last byte came. Latencies begin there. Where the driver's is not of CLOCK_MONOTONIC, or lies in the future
    /// (counted as `future_stamps`), it is the time at which the frame was dequeued.
    ///
    /// Where the signal on an input (HDMI, SDI) is disturbed or lost and comes back as it was, the stream goes on in the
    /// same buffers, and no other element notices but for the time; what a receiver makes of no signal is not sent. Where
    /// another signal comes, what was captured before arrives, and the graph is negotiated anew.
    ///
    /// ```toml
    /// [element.camera]
    /// type = "v4l2-src"
    /// device = "/dev/video0"
    /// format = "XR24"
    /// size = [1280, 720]
    /// rate = 60
    /// controls = { brightness = 128 }
    /// ```
    pub struct V4l2Src = "v4l2-src" {
        /// Device node; not set, the first that captures video.
        device: Option<String> = None,
        /// Pixel format; not set, the first that the neighbours take.
        format: Option<Format> = None,
        /// Width and height.
        size: Option<Size> = None,
        /// Frames a second.
        rate: Option<Rate> = None,
        /// Input by name or number, such as "HDMI 0"; not set, the one in use.
        input: Option<String> = None,
        /// Controls by name, set before streaming; `shrbuf devices` lists them.
        controls: BTreeMap<String, Value> = BTreeMap::new(),
        /// Who allocates the frames' memory.
        memory: Memory = Memory::Auto,
        /// Longest time without a frame before the run fails as stalled; not set, 1 s or four frames, whichever is more, and
        /// half as long again for the first, before which some cameras measure the light.
        stall: Option<Duration> = None,
        /// Longest time that a signal lost in mid-stream is waited for, before the run fails as stalled or a placeholder
        /// takes over. Sources are silent for some seconds when they change their resolution.
        no_signal: Duration = Duration::from_secs(10),
    }
}

impl Build for V4l2Src {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        if self.stall.is_some_and(|s| s.is_zero()) {
            return Err(BuildError::of("stall", "must be longer than 0"));
        }
        Ok(Box::new(Source {
            config: self,
            name: String::new(),
            device: None,
            signal: None,
            allocated: None,
            streaming: None,
            counts: Counts::default(),
            told: Told::default(),
        }))
    }
}

const FRAME: u32 = 0;
const FENCES: u32 = 1;
const RETRY: u32 = 2;
const WATCHDOG: u32 = 3;

/// Ticks of the watchdog in the time that counts as stalled. It says so up to a tick late.
const TICKS: u32 = 8;
/// Before the first frame, where nothing is asked for.
const FIRST_TICKS: u32 = 12;
/// Buffers that videobuf2 needs queued so that none is waited for: the one being filled and the next.
const KEEPS: u32 = 2;
/// `VIDEO_MAX_FRAME`.
const MAX_BUFFERS: u32 = 32;

struct Allocated {
    queue: CaptureQueue,
    buffers: Vec<Shrbuf>,
    stream: Stream,
    captured: Captured,
}

struct Streaming {
    queue: CaptureQueue,
    /// Of the queue: while frames come. It may be in error while there is no signal (a driver that has given it up over
    /// that), and is with no buffer queued since it was started: of such only what is new is told.
    frames_come: Watch,
    pool: Arc<Pool>,
    whole: Vec<Whole>,
    stream: Stream,
    color: Colorimetry,
    captured: Captured,
    /// While there is nothing to capture.
    lost: Option<Lost>,
    /// Another signal has come: nothing more goes out.
    over: bool,
    stall: Duration,
    first_ticks: u32,
    no_signal: Duration,
    /// As the watchdog last saw things, and how often it has seen them so.
    quiet: Quiet,
    quiet_ticks: u32,
    /// Frames dequeued.
    frames: u64,
    sequence: Sequence,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Quiet {
    frames: u64,
    /// Every buffer is held downstream.
    starved: bool,
}

/// A signal that is not there.
struct Lost {
    why: DvTimingsError,
    since: Instant,
    /// Of the watchdog, since then.
    ticks: u32,
}

#[derive(Default)]
struct Counts {
    /// Buffers that the driver returned though it did not have them, or with a picture elsewhere than agreed.
    unexpected: u64,
    /// Frames that the driver stamped with a time that was still to come.
    future_stamps: u64,
    /// Times that the signal was lost in mid-stream.
    signal_losses: u64,
    /// Times that the stream went on with the signal there was before.
    signal_returns: u64,
}

struct Source {
    config: V4l2Src,
    name: String,
    device: Option<Device>,
    /// What `device` was told to capture.
    signal: Option<DvTimings>,
    allocated: Option<Allocated>,
    streaming: Option<Streaming>,
    counts: Counts,
    /// Of the last stream, what the driver said in its frames' numbers.
    told: Told,
}

struct Fences(Arc<Pool>);

impl AsFd for Fences {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fences_fd()
    }
}

impl Source {
    fn device(&mut self) -> Result<&Device, Failure> {
        if self.device.is_none() {
            let (device, signal) = self.open()?;
            (self.device, self.signal) = (Some(device), signal);
        }
        self.device.as_ref().ok_or_else(|| Failure::new(FailureKind::Config, "no device"))
    }

    fn open(&self) -> Result<(Device, Option<DvTimings>), Failure> {
        let device = match &self.config.device {
            Some(path) => Device::open(path).map_err(open_failed)?,
            None => Device::first().map_err(open_failed)?,
        };
        if let Some(input) = &self.config.input {
            device.select_input(input).map_err(|e| Failure::new(FailureKind::Config, e))?;
        }
        set_controls(&device, &self.config.controls)?;
        // Before it is looked at, so that no change goes by unheard; after the controls, some of which are told as changes.
        device.subscribe_source_change().map_err(failed)?;
        let mut signal = device.follow_signal().map_err(no_signal)?;
        if has_changed(&device)? {
            // Or a driver that tells of what we have set.
            signal = device.follow_signal().map_err(no_signal)?;
        }
        Ok((device, signal))
    }

    fn try_allocate(&mut self, stream: &Stream) -> Result<Allocated, Refusal> {
        let device = self.device.as_ref().ok_or_else(|| Refusal::new("the device is not open"))?;
        let format = set_format(device, stream)?;
        let refuse = |e: &dyn std::fmt::Display| Refusal::new(e.to_string());
        if let Some(rate) = stream.rate {
            let interval = Fraction { numerator: rate.den, denominator: rate.num };
            let set = device.set_frame_interval(interval).map_err(|e| refuse(&e))?;
            if let Some(set) = set.filter(|s| Rate::new(s.denominator, s.numerator) != rate) {
                return Err(Refusal::new(format!("the driver answers {} fps to {rate}", set.rate())));
            }
        }
        let (queue, buffers) = allocate(device, stream, &format, &self.name)?;
        let captured = Captured { signal: self.signal, format };
        Ok(Allocated { queue, buffers, stream: *stream, captured })
    }
}

impl Element for Source {
    fn ports(&self) -> Ports {
        Ports::source()
    }

    fn join(&mut self, environment: &Environment) {
        self.name.clone_from(&environment.name);
    }

    fn output_offer(&mut self, _output: usize, _input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        // Formats and sizes may be other ones since the last run; a device that went away is opened anew.
        self.allocated = None;
        self.device = None;
        let device = self.device()?;
        let current = device.format().map_err(|e| Failure::new(FailureKind::Device, e))?;
        let current = Size::new(current.width, current.height);
        let mut video: Vec<Video> =
            device.formats().map_err(failed)?.iter().filter_map(|info| video(info, current)).collect();
        // A stream of a codec's frames is for those who decode, and begins in the middle.
        video.retain(|v| !v.format.is_compressed());
        // A driver's order is by no rule; 5 bits a colour are for those who ask for them.
        video.sort_by_key(|v| v.format.bits() < 8);
        let origins = match self.config.memory {
            Memory::Auto => vec![Origin::V4l2, Origin::DmaHeap, Origin::Udmabuf],
            Memory::V4l2 => vec![Origin::V4l2],
            Memory::DmaHeap => vec![Origin::DmaHeap],
            Memory::Udmabuf => vec![Origin::Udmabuf],
        };
        Ok(OutputOffer {
            video,
            // Whether the driver pads rows as asked shows only in its answer to VIDIOC_S_FMT.
            memory: Produces { origins, max_stride_align: 4096, keeps: KEEPS, max_buffers: MAX_BUFFERS },
            wanted: Wanted { format: self.config.format, size: self.config.size, rate: self.config.rate },
        })
    }

    fn allocate(&mut self, _output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.allocated = None;
        let allocated = self.try_allocate(stream)?;
        let shown = allocated.buffers.clone();
        self.allocated = Some(allocated);
        Ok(shown)
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let Some(Allocated { mut queue, buffers, stream, captured }) = self.allocated.take() else {
            return Err(Failure::new(FailureKind::Config, "started without buffers"));
        };
        let whole = buffers.first().map_or_else(Vec::new, |b| Whole::of(b.layout()));
        let (requeue, retry) = (queue.requeue_handle(), start.waker(RETRY));
        let pool = Pool::new(buffers, move |index| {
            if let Err(super::RequeueError::Qbuf(_)) = requeue.requeue(index as u32) {
                // The loop tries again, and says why where that fails too.
                retry.wake();
            }
        });
        let pool = Arc::new(pool.map_err(|e| Failure::new(FailureKind::Limit, e))?);
        queue.start().map_err(start_queue_failed)?;
        let (stall, first_ticks) = self.config.stall.map_or_else(
            || {
                let frames = stream.rate.map_or(Duration::ZERO, |r| Duration::from_nanos(4 * r.period_ns()));
                (frames.max(Duration::from_secs(1)), FIRST_TICKS)
            },
            |asked| (asked, TICKS),
        );
        // Some ticks in the limit, not a timer armed for each frame: that would be a system call a frame.
        start.every(stall / TICKS, WATCHDOG)?;
        let frames_come = start.watch_priority(queue.device().clone(), FRAME)?;
        start.watch(Fences(Arc::clone(&pool)), FENCES)?;
        self.streaming = Some(Streaming {
            queue,
            frames_come,
            pool,
            whole,
            stream,
            color: color::meant(stream.format, captured.format.colorimetry, stream.size.width),
            captured,
            lost: None,
            over: false,
            stall,
            first_ticks,
            no_signal: self.config.no_signal,
            quiet: Quiet::default(),
            quiet_ticks: 0,
            frames: 0,
            sequence: Sequence::default(),
        });
        Ok(())
    }

    fn ready(&mut self, token: u32, events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(streaming) = &mut self.streaming else { return Ok(()) };
        match token {
            FENCES => streaming.pool.reap().map_err(|e| Failure::new(FailureKind::Device, e)),
            _ if streaming.over => Ok(()),
            FRAME => {
                // An error may be of what the device has told, or of one that is gone.
                if events.priority || events.error {
                    streaming.events(context, &mut self.counts)?;
                }
                // Without a signal, what the queue has and what it says of itself are of no signal.
                let more = (events.readable || events.error) && !streaming.over && streaming.lost.is_none();
                if more { streaming.frame(context, &mut self.counts) } else { Ok(()) }
            }
            RETRY => streaming.queue_free(context, &mut self.counts),
            _ => streaming.watch(),
        }
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(mut streaming) = self.streaming.take() {
            self.told = streaming.sequence.told;
            if let Err(failure) = streaming.queue.stop() {
                tracing::debug!(element = self.name, %failure, "stopping");
            }
        }
        self.device = None;
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        report("unexpected_buffers", self.counts.unexpected);
        report("future_stamps", self.counts.future_stamps);
        report("signal_losses", self.counts.signal_losses);
        report("signal_returns", self.counts.signal_returns);
        // What `dropped` can be checked by: last - first + 1 is frames + dropped - repeated, where nothing restarted.
        let told = self.streaming.as_ref().map_or(self.told, |s| s.sequence.told);
        report("first_sequence", told.first.into());
        report("last_sequence", told.last.into());
        report("repeated_sequences", told.repeated);
        report("restarted_sequences", told.restarted);
    }
}

impl Streaming {
    /// One DQBUF.
    fn frame(&mut self, context: &mut Context<'_>, counts: &mut Counts) -> Result<(), Failure> {
        match self.dequeue(counts) {
            Ok(Dequeued::Buffer(buffer)) => {
                self.frames_come.set(true)?;
                self.send(&buffer, context, counts)
            }
            // With POLLERR too: a queue that had failed would say so here. vb2_fop_poll() reports it also where a signal
            // interrupts its wait for the driver's lock.
            Ok(Dequeued::NotReady) => Ok(()),
            Ok(Dequeued::EndOfStream) => context.end_all(),
            Err(e) => Err(dequeue_failed(e)),
        }
    }

    fn dequeue(&mut self, counts: &mut Counts) -> Result<Dequeued, DqbufError> {
        loop {
            match self.queue.dequeue() {
                Err(DqbufError::Overrun { index, .. }) => {
                    // Its first reference is its last: back it goes.
                    drop(self.pool.take(index as usize));
                    counts.unexpected += 1;
                }
                dequeued => return dequeued,
            }
        }
    }

    fn send(&mut self, buffer: &ioctl::Buffer, context: &mut Context<'_>, counts: &mut Counts) -> Result<(), Failure> {
        let Some(memory) = self.pool.take(buffer.index as usize) else {
            counts.unexpected += 1;
            return Ok(());
        };
        if self.lost.is_some() {
            // Of no signal some receivers make noise or a blue screen. Its first reference is its last, too.
            return Ok(());
        }
        let now = Timestamp::now();
        let timestamp = match buffer.timestamp.clock {
            Clock::Monotonic if buffer.timestamp.ns <= now.0 => Timestamp(buffer.timestamp.ns),
            // What has come was captured before. vivid hands a picture out as it begins, with the time at which it would end.
            Clock::Monotonic => {
                counts.future_stamps += 1;
                now
            }
            Clock::Copy | Clock::Unknown => now,
        };
        self.frames += 1;
        let counted = self.sequence.count(buffer.sequence);
        context.dropped(counted.dropped);
        let corrupt = buffer.is_corrupt() || !Whole::are_in(&self.whole, buffer.planes());
        memory.set_state(if corrupt { State::Corrupt } else { State::Filled });
        let (sequence, color) = (counted.number, self.color);
        let frame = Frame { buffer: memory, timestamp, sequence, color, crop: None, corrupt, payload: 0 };
        context.push(0, frame)
    }

    /// A buffer was not taken, perhaps because the driver has given the queue up over what it has told. Then those that are
    /// free are queued as it is started again.
    fn queue_free(&mut self, context: &mut Context<'_>, counts: &mut Counts) -> Result<(), Failure> {
        self.events(context, counts)?;
        if self.over || self.lost.is_some() {
            return Ok(());
        }
        self.queue.queue_free().map(drop).map_err(|e| start_queue_failed(StartError::Qbuf(e)))
    }

    /// The device has something to say.
    fn events(&mut self, context: &mut Context<'_>, counts: &mut Counts) -> Result<(), Failure> {
        if !has_changed(self.queue.device())? {
            return Ok(());
        }
        self.frames_come.set(false)?;
        // What was captured before. A driver that has given its queue up over this is started again, or not, below.
        while let Ok(Dequeued::Buffer(buffer)) = self.dequeue(counts) {
            self.send(&buffer, context, counts)?;
        }
        if context.ended() {
            return Ok(());
        }
        match self.captured.look(self.queue.device())? {
            Now::Same(said) => {
                self.color = color::meant(self.stream.format, said, self.stream.size.width);
                self.restart(counts)
            }
            Now::Lost(why) => self.lose(why, counts),
            Now::Other(now) => {
                self.over = true;
                let what = format!("the signal is {now} from here on, agreed was {}", self.stream);
                context.change(Failure::new(FailureKind::Changed, what))
            }
        }
    }

    /// Goes on with the signal there was before, in the same buffers. Those held downstream come when they are given back.
    fn restart(&mut self, counts: &mut Counts) -> Result<(), Failure> {
        self.queue.stop().map_err(failed)?;
        self.queue.start().map_err(start_queue_failed)?;
        self.sequence.restart();
        (self.lost, self.quiet_ticks) = (None, 0);
        counts.signal_returns += 1;
        Ok(())
    }

    fn lose(&mut self, why: DvTimingsError, counts: &mut Counts) -> Result<(), Failure> {
        match &mut self.lost {
            Some(lost) => lost.why = why,
            None => {
                tracing::warn!(device = %self.queue.device().path().display(), %why, "signal lost; waiting for it");
                counts.signal_losses += 1;
                self.lost = Some(Lost { why, since: Instant::now(), ticks: 0 });
            }
        }
        self.wait_for_signal(0)
    }

    /// So many ticks later there is still none. Ticks alone are early by as much as the first was; for time alone, see
    /// [`Streaming::watch`].
    fn wait_for_signal(&mut self, ticks: u32) -> Result<(), Failure> {
        let Some(lost) = &mut self.lost else { return Ok(()) };
        lost.ticks += ticks;
        if self.stall * lost.ticks / TICKS < self.no_signal || lost.since.elapsed() < self.no_signal {
            return Ok(());
        }
        let (limit, why) = (self.no_signal, &lost.why);
        Err(Failure::new(FailureKind::Stalled, format!("no signal for {limit:.1?} (`no-signal`): {why}")))
    }

    /// Counts quiet ticks, not time: where this thread itself was kept away, the timer has ticked once, and where every
    /// buffer was held until just now, the driver has had no chance yet.
    fn watch(&mut self) -> Result<(), Failure> {
        if self.lost.is_some() {
            return self.wait_for_signal(1);
        }
        let (held, all) = (self.queue.held() as u32, self.queue.count());
        let now = Quiet { frames: self.frames, starved: held == all };
        self.quiet_ticks = if now == self.quiet { self.quiet_ticks + 1 } else { 0 };
        self.quiet = now;
        let ticks = if self.frames == 0 { self.first_ticks } else { TICKS };
        if self.quiet_ticks < ticks {
            return Ok(());
        }
        let limit = self.stall * ticks / TICKS;
        let why = if now.starved {
            format!("no frame for {limit:.1?}: all {all} buffers are held downstream; something there lets go of none")
        } else {
            format!(
                "no frame for {limit:.1?}, with {} of {all} buffers queued; check the signal and the cable",
                all - held
            )
        };
        Err(Failure::new(FailureKind::Stalled, why))
    }
}
