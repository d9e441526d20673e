//! `v4l2-src`: frames from a capture device, in the driver's own memory or in memory that it is lent.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use shrbuf::{Format, Pool, Shrbuf, State};
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::{
    Build, BuildError, Colorimetry, Context, Element, Environment, Events, Failure, FailureKind, Frame, Origin,
    OutputOffer, Ports, Produces, Rate, Refusal, Size, Start, Stream, Timestamp, Video, Wanted, choices, properties,
};

use super::failure::{dequeue_failed, failed, open_failed, set_controls};
use super::ioctl::{self, Clock, Dequeued, DqbufError, DvTimingsError, Event, Fraction};
use super::picture::{Whole, allocate, colorimetry, set_format, video};
use super::sequence::{Sequence, Told};
use super::{CaptureQueue, Device};

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
            allocated: None,
            streaming: None,
            wrong: Wrong::default(),
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
    color: Colorimetry,
    rate: Option<Rate>,
}

struct Streaming {
    queue: CaptureQueue,
    pool: Arc<Pool>,
    whole: Vec<Whole>,
    color: Colorimetry,
    stall: Duration,
    first_ticks: u32,
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

struct Source {
    config: V4l2Src,
    name: String,
    device: Option<Device>,
    allocated: Option<Allocated>,
    streaming: Option<Streaming>,
    wrong: Wrong,
    /// Of the last stream, what the driver said in its frames' numbers.
    told: Told,
}

/// What the driver did that cannot be.
#[derive(Default)]
struct Wrong {
    /// Buffers returned though it did not have them, or with a picture elsewhere than agreed.
    buffers: u64,
    /// Time stamps of the future.
    stamps: u64,
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
            let device = self.open()?;
            self.device = Some(device);
        }
        self.device.as_ref().ok_or_else(|| Failure::new(FailureKind::Config, "no device"))
    }

    fn open(&self) -> Result<Device, Failure> {
        let device = match &self.config.device {
            Some(path) => Device::open(path).map_err(open_failed)?,
            None => Device::first().map_err(open_failed)?,
        };
        if let Some(input) = &self.config.input {
            device.select_input(input).map_err(|e| Failure::new(FailureKind::Config, e))?;
        }
        device.follow_signal().map_err(|error| match error {
            DvTimingsError::Failure(failure) => failed(failure),
            error => Failure::new(FailureKind::Stalled, error),
        })?;
        set_controls(&device, &self.config.controls)?;
        Ok(device)
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
        Ok(Allocated {
            queue,
            buffers,
            color: colorimetry(stream.format, format.colorimetry, stream.size.width),
            rate: stream.rate,
        })
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
        let Some(Allocated { mut queue, buffers, color, rate }) = self.allocated.take() else {
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
        queue.device().subscribe_source_change().map_err(failed)?;
        queue.start().map_err(|e| match e {
            super::StartError::Qbuf(ioctl::QbufError::Failure(f))
            | super::StartError::Streamon(ioctl::StreamonError::Failure(f)) => failed(f),
            other => Failure::new(FailureKind::Device, other),
        })?;
        let (stall, first_ticks) = self.config.stall.map_or_else(
            || {
                let frames = rate.map_or(Duration::ZERO, |r| Duration::from_nanos(4 * r.period_ns()));
                (frames.max(Duration::from_secs(1)), FIRST_TICKS)
            },
            |asked| (asked, TICKS),
        );
        // Some ticks in the limit, not a timer armed for each frame: that would be a system call a frame.
        start.every(stall / TICKS, WATCHDOG)?;
        start.watch_priority(queue.device().clone(), FRAME)?;
        start.watch(Fences(Arc::clone(&pool)), FENCES)?;
        let (quiet, quiet_ticks, frames, sequence) = (Quiet::default(), 0, 0, Sequence::default());
        self.streaming =
            Some(Streaming { queue, pool, whole, color, stall, first_ticks, quiet, quiet_ticks, frames, sequence });
        Ok(())
    }

    fn ready(&mut self, token: u32, events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(streaming) = &mut self.streaming else { return Ok(()) };
        match token {
            FRAME => {
                if events.priority {
                    streaming.event()?;
                }
                if events.readable || events.error {
                    streaming.frame(&mut self.wrong, context)?;
                }
                Ok(())
            }
            FENCES => streaming.pool.reap().map_err(|e| Failure::new(FailureKind::Device, e)),
            RETRY => streaming.queue.queue_free().map(drop).map_err(|e| match e {
                ioctl::QbufError::Failure(f) => failed(f),
                other => Failure::new(FailureKind::Device, other),
            }),
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
        report("unexpected_buffers", self.wrong.buffers);
        report("future_stamps", self.wrong.stamps);
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
    fn frame(&mut self, wrong: &mut Wrong, context: &mut Context<'_>) -> Result<(), Failure> {
        let buffer = match self.queue.dequeue() {
            Ok(Dequeued::Buffer(buffer)) => buffer,
            // With POLLERR too: a queue that had failed would say so here. vb2_fop_poll() reports it also where a signal
            // interrupts its wait for the driver's lock.
            Ok(Dequeued::NotReady) => return Ok(()),
            Ok(Dequeued::EndOfStream) => return context.end_all(),
            Err(DqbufError::Overrun { index, .. }) => {
                // Its first reference is its last: back it goes.
                drop(self.pool.take(index as usize));
                wrong.buffers += 1;
                return Ok(());
            }
            Err(e) => return Err(dequeue_failed(e)),
        };
        let Some(memory) = self.pool.take(buffer.index as usize) else {
            wrong.buffers += 1;
            return Ok(());
        };
        let now = Timestamp::now();
        let timestamp = match buffer.timestamp.clock {
            Clock::Monotonic if buffer.timestamp.ns <= now.0 => Timestamp(buffer.timestamp.ns),
            // What has come was captured before. vivid hands a picture out as it begins, with the time at which it would end.
            Clock::Monotonic => {
                wrong.stamps += 1;
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

    fn event(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.queue.device().next_event().map_err(failed)? {
            if let Event::SourceChange { .. } = event {
                return Err(Failure::new(FailureKind::Changed, "the signal on the input has changed"));
            }
        }
        Ok(())
    }

    /// Counts quiet ticks, not time: where this thread itself was kept away, the timer has ticked once, and where every
    /// buffer was held until just now, the driver has had no chance yet.
    fn watch(&mut self) -> Result<(), Failure> {
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
