//! `v4l2-sink`: frames into an output device, as they are.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shrbuf::{MemoryKind, Shrbuf};
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::{
    Build, BuildError, Consumes, Context, Element, Environment, Events, Failure, FailureKind, Frame, InputOffer, Ports,
    Rate, Refusal, Size, Start, Stream, Timestamp, Video, Wanted, properties,
};

use super::failure::{dequeue_failed, failed, open_failed, queue_failed, set_controls, start_failed};
use super::ioctl::{Clock, Fraction};
use super::{Device, OutputQueue, Returned, blocks, picture};

properties! {
    /// Frames out of a V4L2 output device: an HDMI or SDI transmitter, a modulator, a loop-back.
    ///
    /// The driver imports the frames' memory as it is (VIDIOC_QBUF with V4L2_MEMORY_DMABUF), each buffer once. A frame
    /// is held until the driver gives it back, which is when another has replaced it; the device sets the pace. A frame
    /// whose producer has not finished with it (a GPU) is waited for. A driver that cannot be told of longer rows than the
    /// picture's is offered none.
    ///
    /// The device is told what the frames' YUV code values mean, before the first of them and whenever that changes; RGB is
    /// said to be sRGB. Frames that it takes for others, as it cannot be told of their range, say, are counted as
    /// `miscolored`, with a warning.
    ///
    /// ```toml
    /// [element.out]
    /// type = "v4l2-sink"
    /// device = "/dev/video1"
    /// output = "HDMI 0"
    /// ```
    pub struct V4l2Sink = "v4l2-sink" {
        /// Device node; not set, the first that puts video out.
        device: Option<String> = None,
        /// Output by name or number, such as "HDMI 0"; not set, the one in use.
        output: Option<String> = None,
        /// Controls by name, set before streaming.
        controls: BTreeMap<String, Value> = BTreeMap::new(),
        /// Longest time in which the device gives back none of the frames it has; then the run fails as stalled.
        stall: Duration = Duration::from_millis(1500),
    }
}

impl Build for V4l2Sink {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        if self.stall.is_zero() {
            return Err(BuildError::of("stall", "must be longer than 0"));
        }
        Ok(Box::new(Sink {
            config: self,
            name: String::new(),
            device: None,
            queue: None,
            run: None,
            damaged: 0,
            late: 0,
            miscolored: 0,
        }))
    }
}

const DEVICE: u32 = 0;
const WATCHDOG: u32 = 1;

/// Ticks of the watchdog in the time that counts as stalled.
const TICKS: u32 = 8;

/// Frames held where the driver does not say what it needs: one on the line, the next, and one that came early.
const HOLDS: u32 = 3;

struct Sink {
    config: V4l2Sink,
    name: String,
    device: Option<Device>,
    queue: Option<OutputQueue>,
    run: Option<Run>,
    /// Frames that the driver gave back as not shown.
    damaged: u64,
    /// Buffers that came and nobody knew of in negotiation.
    late: u64,
    /// Frames that the device takes for frames of other colours.
    miscolored: u64,
}

struct Run {
    queue: OutputQueue,
    /// Came while every index was taken.
    waiting: VecDeque<Frame>,
    holds: u32,
    /// Frames given back, as the watchdog last saw it, and how often it has seen that.
    returned: u64,
    seen: u64,
    quiet_ticks: u32,
    ending: bool,
}

impl Sink {
    fn open(&self) -> Result<Device, Failure> {
        let device = match &self.config.device {
            Some(path) => Device::open_output(path).map_err(open_failed)?,
            None => Device::first_output().map_err(open_failed)?,
        };
        if let Some(output) = &self.config.output {
            device.select_output(output).map_err(|e| Failure::new(FailureKind::Config, e))?;
        }
        set_controls(&device, &self.config.controls)?;
        Ok(device)
    }
}

/// Frames that an output, or the input of a memory-to-memory device, holds at once.
pub(super) fn holds(device: &Device) -> u32 {
    let least = device.control("min_number_of_output_buffers").ok().and_then(|c| device.control_value(&c).ok());
    match least {
        Some(super::ioctl::ControlValue::Integer(n)) => u32::try_from(n).unwrap_or(0).saturating_add(1).max(HOLDS),
        _ => HOLDS,
    }
}

impl Element for Sink {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn join(&mut self, environment: &Environment) {
        self.name.clone_from(&environment.name);
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        self.queue = None;
        self.device = None;
        let device = self.open()?;
        let current = device.format().map_err(|e| Failure::new(FailureKind::Device, e))?;
        let current = Size::new(current.width, current.height);
        let formats = device.formats().map_err(failed)?;
        let mut video: Vec<Video> = formats.iter().filter_map(|info| picture::video(info, current)).collect();
        video.retain(|v| !v.format.is_compressed());
        let (kinds, blocks) = (vec![MemoryKind::DmaBuf], blocks::blocks(&device, &formats));
        let memory = Consumes { kinds, blocks, holds: holds(&device), ..Consumes::cpu() };
        self.device = Some(device);
        Ok(InputOffer { video, memory, wanted: Wanted::default(), natural: Some(current) })
    }

    fn import(&mut self, _input: usize, stream: &Stream, buffers: &[Shrbuf]) -> Result<(), Refusal> {
        self.queue = None;
        let device = self.device.as_ref().ok_or_else(|| Refusal::new("the device is not open"))?;
        let queue = OutputQueue::import(device, stream, buffers)?;
        if let Some(Rate { num, den }) = stream.rate {
            // A device with a clock of its own goes on at its rate, which is no reason not to show anything.
            let _ = device.set_frame_interval(Fraction { numerator: den, denominator: num });
        }
        self.queue = Some(queue);
        Ok(())
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        let Some(mut queue) = self.queue.take() else {
            return Err(Failure::new(FailureKind::Config, "started without a negotiated stream"));
        };
        queue.start().map_err(start_failed)?;
        start.watch_edges(queue.device().clone(), DEVICE)?;
        start.every(self.config.stall / TICKS, WATCHDOG)?;
        self.run = Some(Run {
            holds: holds(queue.device()),
            queue,
            waiting: VecDeque::with_capacity(shrbuf::pool::MAX_BUFFERS),
            returned: 0,
            seen: 0,
            quiet_ticks: 0,
            ending: false,
        });
        Ok(())
    }

    fn ready(&mut self, token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        match token {
            DEVICE => self.damaged += run.reap(context)?,
            _ => run.watch(self.config.stall)?,
        }
        let given = run.next();
        self.late += run.queue.take_late();
        self.miscolored += run.queue.take_miscolored();
        given?;
        run.finish_if_done(context);
        Ok(())
    }

    fn process(&mut self, _input: usize, frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(run) = &mut self.run else { return Ok(()) };
        run.waiting.push_back(frame);
        let given = run.next();
        self.late += run.queue.take_late();
        self.miscolored += run.queue.take_miscolored();
        given
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        match &mut self.run {
            Some(run) => {
                run.ending = true;
                run.finish_if_done(context);
            }
            None => context.finish(),
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.run = None;
        self.queue = None;
        self.device = None;
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        report("damaged", self.damaged);
        report("late", self.late);
        report("miscolored", self.miscolored);
    }
}

impl Run {
    /// Takes back all that the device is done with: what it leaves is not told a second time. Returns how many were
    /// damaged.
    fn reap(&mut self, context: &Context<'_>) -> Result<u64, Failure> {
        let mut damaged = 0;
        while let Returned::Frame { frame, buffer } = self.queue.dequeue().map_err(dequeue_failed)? {
            self.returned += 1;
            damaged += u64::from(buffer.is_corrupt());
            let shown = match buffer.timestamp.clock {
                Clock::Monotonic => Timestamp(buffer.timestamp.ns),
                Clock::Copy | Clock::Unknown => Timestamp::now(),
            };
            context.shown(frame.timestamp, shown);
        }
        Ok(damaged)
    }

    fn next(&mut self) -> Result<(), Failure> {
        while let Some(frame) = self.waiting.pop_front() {
            if let Some(back) = self.queue.queue(frame).map_err(queue_failed)? {
                self.waiting.push_front(back);
                break;
            }
        }
        Ok(())
    }

    /// The last frame stays with the device: it is on the line until another replaces it.
    fn finish_if_done(&self, context: &mut Context<'_>) {
        if self.ending && self.waiting.is_empty() && self.queue.queued() <= 1 {
            context.finish();
        }
    }

    /// Counts quiet ticks, not time: where this thread itself was kept away, the timer has ticked once. A device that
    /// has too few frames may keep them as long as it likes.
    fn watch(&mut self, limit: Duration) -> Result<(), Failure> {
        let enough = self.ending || !self.waiting.is_empty() || self.queue.queued() >= self.holds;
        let quiet = enough && self.returned == self.seen;
        self.seen = self.returned;
        self.quiet_ticks = if quiet { self.quiet_ticks + 1 } else { 0 };
        if self.quiet_ticks < TICKS {
            return Ok(());
        }
        let has = self.queue.queued();
        let text = format!("the device has given back none of {has} frames for {limit:.1?}; is its output connected?");
        Err(Failure::new(FailureKind::Stalled, text))
    }
}
