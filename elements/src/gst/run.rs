//! A fragment while it runs: frames in, frames out, stamps, the end.
//!
//! Nothing here blocks but GStreamer's changes of state: its threads call wakers, and the domain's thread looks. What
//! bounds the frames on their way is the buffers that there are, so GStreamer's queues at our ends never refuse one: a
//! source without a free buffer waits or drops as it always does, and an upstream of GStreamer's without one waits in
//! its pool.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_queue::SegQueue;
use gst::ClockTime;
use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks};
use gst_video::VideoCropMeta;
use shrbuf::{Account, Reason, Shrbuf};
use shrbuf_gst_memory::{Lender, WrapError};
use shrbuf_pipeline::graph::Copies;
use shrbuf_pipeline::{
    Colorimetry, Context, Environment, Failure, FailureKind, Frame, Rect, Start, Stream, Timestamp, Waker,
};

use super::dma_buf::Called;
use super::fragment::Fragment;
use super::gather::Begun;
use super::message::{Heard, name_of, origin_of};
use super::pool::Buffers;
use super::theirs::{Found, Theirs};
use super::{Counts, config, video};
use crate::ipc;

const CAME: u32 = 0;
const SAID: u32 = 1;
const FENCES: u32 = 2;
const WATCHDOG: u32 = 3;

/// Of the watchdog, in `timeout`: it counts them, so that a thread that was itself kept away has ticked once.
const TICKS: u32 = 4;

/// What helps where frames come out in memory that cannot be shared.
pub(super) const ADVICE: &str = "have it make dma-bufs, where it can (io-mode=dmabuf); or put an element there that takes \
    the pool of the next one and makes its frames anew, such as a videoconvert to another format; or have them copied \
    with copies = \"allow\"";

/// The terms of a run.
pub(super) struct Terms {
    pub(super) environment: Environment,
    pub(super) copies: Copies,
    /// Of what goes in.
    pub(super) holds: u32,
    /// Of what comes out.
    pub(super) keeps: u32,
    /// Longest time that GStreamer may have all these frames and take no other.
    pub(super) timeout: Duration,
    pub(super) counts: Arc<Counts>,
}

/// What goes in, as negotiated.
pub(super) struct Input {
    pub(super) stream: Stream,
    /// What the caps call its frames.
    pub(super) called: Called,
    pub(super) lender: Lender,
}

/// What comes out, as negotiated.
pub(super) struct Output {
    pub(super) caps: gst::Caps,
    /// `None` where it is what came in.
    pub(super) made: Option<Made>,
    /// Frames have to be copied: why.
    pub(super) elsewhere: Option<String>,
}

/// Frames that GStreamer makes.
pub(super) struct Made {
    pub(super) info: gst_video::VideoInfo,
    pub(super) stream: Stream,
    /// Ours, for it to write; `None` where it brings its own.
    pub(super) buffers: Option<Arc<Buffers>>,
    /// It plays already.
    pub(super) begun: Option<Begun>,
}

impl Output {
    /// What comes out where it is what came in.
    pub(super) fn of_input(input: &Input) -> Result<Output, Failure> {
        let Stream { format, size, rate, .. } = input.stream;
        let caps = input.called.caps(video::caps(format, size, rate).map_err(config)?);
        Ok(Output { caps, made: None, elsewhere: None })
    }
}

struct In {
    input: Input,
    /// What the caps say.
    color: Option<Colorimetry>,
    /// Frames that went in, and how many GStreamer had, at the watchdog's last tick.
    seen: (u64, usize),
    frames: u64,
    /// Ticks since that has changed.
    quiet: u32,
}

struct Out {
    sink: AppSink,
    /// Ours, that it writes; `None` where frames are in those of the input, or in its own.
    buffers: Option<Arc<Buffers>>,
    /// Its own; `None` where frames are in those of the input.
    theirs: Option<Theirs>,
    account: Account,
    /// Has itself called again.
    waker: Waker,
    /// Come before all others: what was made before the start, and what waits for a buffer to be copied into.
    waiting: VecDeque<gst::Sample>,
    /// What the caps say, and the caps.
    caps: Option<gst::Caps>,
    color: Colorimetry,
    number: u64,
    warned: bool,
}

/// See the module.
pub(super) struct Run {
    terms: Terms,
    input: Option<In>,
    output: Option<Out>,
    bus: gst::Bus,
    posted: Arc<SegQueue<gst::Message>>,
    heard: Heard,
    /// CLOCK_MONOTONIC at running time 0, once it plays.
    base: Option<u64>,
    /// Last: it stops when dropped, and what it holds goes back.
    fragment: Fragment,
}

/// Why a frame would have to be copied.
pub(super) fn elsewhere(sink: &AppSink) -> String {
    format!("{} makes frames in memory of its own", origin_of(sink))
}

impl Run {
    /// Starts the pipeline; where frames go in, up to where it waits for the first.
    pub(super) fn begin(
        fragment: Fragment,
        terms: Terms,
        input: Option<Input>,
        output: Option<Output>,
        buffers: Vec<Shrbuf>,
        start: &mut Start<'_>,
    ) -> Result<Run, Failure> {
        let bus = fragment.bus()?;
        let said = start.waker(SAID);
        // What has been said since negotiation is heard at once.
        said.wake();
        let posted = Arc::new(SegQueue::<gst::Message>::new());
        let poster = Arc::clone(&posted);
        // Not passed on to the bus's own queue: that has a message only after this has returned, when nobody looks.
        bus.set_sync_handler(move |_, message| {
            poster.push(message.clone());
            said.wake();
            gst::BusSyncReply::Drop
        });
        let mut begun = None;
        let output = match (output, fragment.output.clone()) {
            (Some(output), Some(sink)) => {
                let Output { caps, mut made, elsewhere } = output;
                begun = made.as_mut().and_then(|made| made.begun.take());
                let mut out = Out::of(sink, &terms, start.waker(CAME));
                // What was known before has been said before.
                out.warned = elsewhere.is_some();
                out.sink.set_caps(Some(&caps));
                if let Some(made) = made {
                    let gathered = out.make(made, buffers, terms.keeps, start)?;
                    terms.counts.imported.fetch_add(gathered, Ordering::Relaxed);
                }
                Some(out)
            }
            _ => None,
        };
        let input = input.map(|input| In { input, color: None, seen: (0, 0), frames: 0, quiet: 0 });
        if input.is_some() {
            start.every(terms.timeout / TICKS, WATCHDOG)?;
        }
        let mut run = Run { terms, input, output, bus, posted, heard: Heard::default(), base: None, fragment };
        if let (Some(Begun { base, held, heard }), Some(out)) = (begun, &mut run.output) {
            (run.base, run.heard, out.waiting) = (Some(base), heard, held);
            out.sink.set_drop(false);
        }
        run.fragment.expect(None);
        if let Some(input) = &run.input {
            // Files are opened here, and devices.
            if !input.input.lender.planes().are_usual() {
                run.fragment.insist_on_video_meta();
            }
            run.caps_of(&input.input, None).and_then(|caps| run.set_caps(&caps))?;
            run.fragment.say_latency(input.input.stream.rate, run.terms.holds);
            run.change(gst::State::Paused)?;
        } else if run.base.is_none() {
            run.play(Timestamp::now().0)?;
        }
        Ok(run)
    }

    fn change(&mut self, state: gst::State) -> Result<(), Failure> {
        self.fragment.change(state).or_else(|silent| self.hear().and(Err(silent)))
    }

    /// Lets it play, with running time 0 at this moment.
    fn play(&mut self, base: u64) -> Result<(), Failure> {
        self.base = Some(base);
        self.fragment.play(base).or_else(|silent| self.hear().and(Err(silent)))
    }

    /// What was said in negotiation and since.
    fn hear(&mut self) -> Result<(), Failure> {
        self.heard.hear_all(&self.bus)?;
        while let Some(message) = self.posted.pop() {
            self.heard.hear(&message)?;
        }
        Ok(())
    }

    fn caps_of(&self, input: &Input, color: Option<Colorimetry>) -> Result<gst::Caps, Failure> {
        let Stream { format, size, rate, .. } = input.stream;
        let caps = video::info(format, size, rate, color).and_then(|info| Ok(info.to_caps()?));
        caps.map(|plain| input.called.caps(plain)).map_err(config)
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), Failure> {
        if let Some(source) = &self.fragment.input {
            source.set_caps(Some(caps));
        }
        Ok(())
    }

    /// A frame goes in.
    pub(super) fn process(&mut self, frame: &Frame, context: &Context<'_>) -> Result<(), Failure> {
        let Some(input) = &self.input else { return Ok(()) };
        if input.color != Some(frame.color) {
            self.set_caps(&self.caps_of(&input.input, Some(frame.color))?)?;
        }
        let Some(input) = &mut self.input else { return Ok(()) };
        input.color = Some(frame.color);
        input.frames += 1;
        let lent = input.input.lender.pass(&frame.buffer, &ipc::info(frame));
        let mut buffer = lent.map_err(|e| match e {
            WrapError::Unlike => Failure::new(FailureKind::Data, e),
            e => Failure::new(FailureKind::Limit, e),
        })?;
        let period = input.input.stream.rate.map(|rate| ClockTime::from_nseconds(rate.period_ns()));
        if self.base.is_none() {
            // The first frame is at 0, as in a file: stamps may be of long ago where frames were kept.
            self.play(frame.timestamp.0)?;
        }
        let base = Timestamp(self.base.unwrap_or_default());
        let writable = buffer.make_mut();
        writable.set_pts(ClockTime::from_nseconds(frame.timestamp.since(base)));
        writable.set_duration(period);
        let Some(source) = &self.fragment.input else { return Ok(()) };
        // Refused by one that has ended or failed, which the bus tells of.
        if source.push_buffer(buffer).is_err() {
            context.dropped(1);
        } else if self.output.is_none() {
            context.shown(frame.timestamp, Timestamp::now());
        }
        Ok(())
    }

    /// No more frames go in: GStreamer finishes with those that it has.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        if self.base.is_none() {
            self.play(Timestamp::now().0)?;
        }
        if let Some(source) = &self.fragment.input {
            // Refused by one that has ended already, which is as well.
            let _ = source.end_of_stream();
        }
        Ok(())
    }

    pub(super) fn ready(&mut self, token: u32, context: &mut Context<'_>) -> Result<(), Failure> {
        match token {
            CAME => self.take_one(context)?,
            WATCHDOG => return self.watch(),
            FENCES => {
                let reaped = self.output.as_ref().map_or(Ok(()), Out::reap);
                return reaped.map_err(|e| Failure::new(FailureKind::Device, e));
            }
            _ => {
                self.hear()?;
                self.look_ahead()?;
            }
        }
        // The last sink has had everything, ours too, before that is said.
        if self.heard.ended && self.output.as_ref().is_none_or(|out| out.waiting.is_empty()) {
            if self.output.is_some() {
                return context.end_all();
            }
            context.finish();
        }
        Ok(())
    }

    /// An encoder that keeps more frames than it may have would wait for ever for one more.
    fn look_ahead(&mut self) -> Result<(), Failure> {
        if self.heard.latency.is_empty() {
            return Ok(());
        }
        // Fails where there is no sink that keeps time.
        let _ = self.fragment.pipeline.recalculate_latency();
        let rate = self.input.as_ref().and_then(|input| input.input.stream.rate);
        for source in self.heard.latency.drain(..) {
            let Some(element) = source.downcast_ref::<gst::Element>() else { continue };
            let encodes = element.metadata(gst::ELEMENT_METADATA_KLASS).is_some_and(|class| class.contains("Encoder"));
            let mut latency = gst::query::Latency::new();
            let Some(rate) = rate.filter(|_| encodes && element.query(&mut latency)) else { continue };
            let (_, least, _) = latency.result();
            let ahead = (least.nseconds() as f64 * rate.hz() / 1e9).round() as u32;
            if ahead >= self.terms.holds {
                return Err(config(format!(
                    "{} keeps {ahead} frames before it gives one, and may hold {}; set `holds` to {} or more, or have \
                     it look less far ahead (x264enc: tune=zerolatency)",
                    name_of(Some(&source)),
                    self.terms.holds,
                    ahead + 2
                )));
            }
        }
        Ok(())
    }

    /// Many a part that keeps frames does not say so. Without this the stream would stand still for ever.
    fn watch(&mut self) -> Result<(), Failure> {
        let Some(input) = &mut self.input else { return Ok(()) };
        let (now, holds) = ((input.frames, input.input.lender.lent()), self.terms.holds);
        input.quiet = if now == input.seen && now.1 >= holds as usize { input.quiet + 1 } else { 0 };
        input.seen = now;
        if input.quiet <= TICKS {
            return Ok(());
        }
        let text = format!(
            "GStreamer has had {} frames for {:.1?} and gives none back: where it keeps that many, set `holds`, now {holds}, \
             higher (a filesink keeps 64 KiB: buffer-mode=unbuffered); where it waits for somebody, set `timeout` higher",
            now.1, self.terms.timeout
        );
        Err(Failure::new(FailureKind::Stalled, text))
    }

    /// One frame comes out; the loop calls again for the next, so that it can see to other things between.
    fn take_one(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let Some(out) = &mut self.output else { return Ok(()) };
        if context.ended() && self.input.is_none() {
            return Ok(());
        }
        let lender = self.input.as_ref().map(|input| &input.input.lender);
        if out.theirs.as_ref().is_some_and(|theirs| !theirs.has_room()) {
            return Ok(());
        }
        let Some(sample) = out.waiting.pop_front().or_else(|| out.sink.try_pull_sample(ClockTime::ZERO)) else {
            return Ok(());
        };
        let Some(frame) = out.frame(sample, self.base.unwrap_or_default(), &self.terms, lender)? else { return Ok(()) };
        out.waker.again();
        context.push(0, frame)
    }
}

impl Out {
    fn of(sink: AppSink, terms: &Terms, waker: Waker) -> Out {
        let came = waker.clone();
        let callbacks = AppSinkCallbacks::builder().new_sample(move |_| {
            came.wake();
            Ok(gst::FlowSuccess::Ok)
        });
        sink.set_callbacks(callbacks.build());
        // A frame that was looked at in negotiation is there already.
        waker.wake();
        let account = terms.environment.ledger.account(&terms.environment.name, Reason::Transfer);
        let (color, waiting) = (Colorimetry::default(), VecDeque::new());
        Out { sink, buffers: None, theirs: None, account, waker, waiting, caps: None, color, number: 0, warned: false }
    }

    /// Frames that GStreamer makes come in these buffers. Says how many of them are its own.
    fn make(&mut self, made: Made, buffers: Vec<Shrbuf>, keeps: u32, start: &mut Start<'_>) -> Result<u64, Failure> {
        let limit = |e: &dyn std::fmt::Display| Failure::new(FailureKind::Limit, e.to_string());
        let mut gathered = buffers;
        if let Some(ours) = &made.buffers {
            let back = self.waker.clone();
            let pool = ours.settle(std::mem::take(&mut gathered), move || back.wake()).map_err(|e| limit(&e))?;
            start.watch(pool.fences_fd().try_clone_to_owned().map_err(|e| limit(&e))?, FENCES)?;
        }
        let imported = gathered.len() as u64;
        let ours = made.buffers.as_ref().and_then(|ours| ours.pool()).map_or(0, |pool| pool.len());
        // What consumers hold, and one on its way to them; all others are GStreamer's to keep.
        let (most, back) = (made.stream.buffers.saturating_sub(keeps) + 1, self.waker.clone());
        let theirs = Theirs::new(made.info, made.stream, gathered, ours, most, move || back.wake())?;
        start.watch(theirs.fences_fd().map_err(|e| limit(&e))?, FENCES)?;
        (self.buffers, self.theirs) = (made.buffers, Some(theirs));
        Ok(imported)
    }

    /// GStreamer gets back what no device reads any more.
    fn reap(&self) -> std::io::Result<()> {
        let pool = self.buffers.as_ref().and_then(|buffers| buffers.pool());
        pool.map_or(Ok(()), |pool| pool.reap()).and(self.theirs.as_ref().map_or(Ok(()), Theirs::reap))
    }

    /// `None` where it waits for a buffer.
    fn frame(
        &mut self,
        sample: gst::Sample,
        base: u64,
        terms: &Terms,
        lender: Option<&Lender>,
    ) -> Result<Option<Frame>, Failure> {
        if let Some(caps) = sample.caps_owned().filter(|caps| self.caps.as_ref() != Some(caps)) {
            let info = shrbuf_gst_memory::dma_buf::info(&caps)
                .map_err(|e| Failure::new(FailureKind::Changed, e.to_string()))?;
            self.color = video::color(&info);
            self.caps = Some(caps);
        }
        let segment = sample.segment().and_then(|segment| segment.downcast_ref::<ClockTime>().cloned());
        let Some(frame) = sample.buffer_owned() else { return Ok(None) };
        let time = segment.and_then(|segment| segment.to_running_time(frame.pts()));
        let timestamp = time.map_or_else(Timestamp::now, |time| Timestamp(base.saturating_add(time.nseconds())));
        let crop = frame.meta::<VideoCropMeta>().map(|meta| {
            let (x, y, width, height) = meta.rect();
            Rect { x, y, width, height }
        });
        let corrupt = frame.flags().contains(gst::BufferFlags::CORRUPTED);
        let Some(buffer) = self.buffer(frame, terms, lender)? else {
            self.waiting.push_front(sample);
            return Ok(None);
        };
        let sequence = self.number;
        self.number += 1;
        Ok(Some(Frame { buffer, timestamp, sequence, color: self.color, crop, corrupt, payload: 0 }))
    }

    /// The buffer that a frame is in, or where that has to be a copy of it; `None` where none is free for one.
    fn buffer(
        &mut self,
        frame: gst::Buffer,
        terms: &Terms,
        lender: Option<&Lender>,
    ) -> Result<Option<Shrbuf>, Failure> {
        let frame = match self.buffers.as_ref() {
            Some(ours) => match ours.adopt(frame) {
                Ok(buffer) => return Ok(Some(buffer)),
                Err(frame) => frame,
            },
            None => frame,
        };
        let Some(theirs) = &mut self.theirs else {
            let came_in = lender.and_then(|lender| lender.lent_as(&frame));
            let lost = || config(format!("{}, and there is none of ours to copy them to", elsewhere(&self.sink)));
            return came_in.ok_or_else(lost).map(Some);
        };
        match theirs.adopt(&frame)? {
            Found::Buffer { buffer, new } => {
                terms.counts.imported.fetch_add(u64::from(new), Ordering::Relaxed);
                Ok(Some(buffer))
            }
            Found::Not(why) => self.copied(&frame, why, terms),
        }
    }

    /// A copy of a frame in other memory, where copies are allowed.
    fn copied(&mut self, frame: &gst::Buffer, why: Option<String>, terms: &Terms) -> Result<Option<Shrbuf>, Failure> {
        let why = match why {
            Some(why) => format!("{} makes frames {why}", origin_of(&self.sink)),
            None => elsewhere(&self.sink),
        };
        let Some(buffers) = &self.buffers else {
            // It has given others before.
            return Err(config(format!(
                "{why}, and did not before: where it has no buffer left that it could share it may copy, so set `holds` \
                 higher, for it to have more"
            )));
        };
        if terms.copies == Copies::Deny {
            return Err(config(format!("{why}, so that they would have to be copied; {ADVICE}")));
        }
        if terms.copies == Copies::Warn && !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(element = terms.environment.name, "{why}; they are copied");
        }
        let copy = buffers.copy(frame, &self.account).map_err(|e| Failure::new(FailureKind::Data, e))?;
        if copy.is_some() {
            terms.counts.copied.fetch_add(1, Ordering::Relaxed);
        }
        Ok(copy)
    }
}
