//! A memory-to-memory device while it streams.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use shrbuf::{Format, Layout, Pool, Shrbuf, State};
use shrbuf_pipeline::{
    Alarm, Colorimetry, Context, Events, Failure, FailureKind, Frame, Rect, Size, Start, Stream, Timestamp,
};

use super::habit::{DoneAtOnce, OneOfEach};
use super::incoming::{Incoming, Meta};
use super::{Counts, Found, Made, Opened};
use crate::v4l2::color;
use crate::v4l2::failure::{dequeue_failed, failed, format_failed, start_failed, start_queue_failed};
use crate::v4l2::ioctl::{self, Codec, CodecCmdError, Dequeued, DqbufError, Event};
use crate::v4l2::picture::{self, Whole};
use crate::v4l2::sink;
use crate::v4l2::{AllocateError, CaptureQueue, Device, Requeue, RequeueError, StartError};

const DEVICE: u32 = 0;
const FENCES: u32 = 1;
const RETRY: u32 = 2;
const WATCHDOG: u32 = 3;
const ASK: u32 = 4;

/// Ticks of the watchdog in the time that counts as stalled.
const TICKS: u32 = 4;

/// Until what it leads to is asked again whether it has changed: in the 2 s that there are for an end.
const ASKS: Duration = Duration::from_millis(50);

struct Fences(Arc<Pool>);

impl AsFd for Fences {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fences_fd()
    }
}

/// See the module.
pub(super) struct Run {
    gives: Device,
    codec: Option<Codec>,
    input: Incoming,
    /// Of a decoder there is none before it has seen the stream.
    output: Option<CaptureQueue>,
    to: Stream,
    /// The size that the driver was asked to have room for.
    asked: Size,
    /// The picture, where it does not begin at the corner of its buffer.
    shown: Option<Rect>,
    /// The dma-bufs that a decoder is lent once it has seen the stream.
    lent: Vec<Vec<OwnedFd>>,
    pool: Arc<Pool>,
    requeue: Arc<OnceLock<Requeue>>,
    whole: Vec<Whole>,
    layout: Layout,
    /// Colours of what goes out, where they are not those of what comes in.
    color: Option<Colorimetry>,
    /// Of what came in when the device was asked for them.
    color_of: Option<Colorimetry>,
    stall: Duration,
    /// Frames that the device was promised at once.
    holds: u32,
    given: u64,
    /// Frames that it began with.
    from_before: u64,
    done_at_once: DoneAtOnce,
    one_of_each: OneOfEach,
    /// As the watchdog last saw them, and how often it has seen them so.
    seen: (u64, u64, u32),
    quiet_ticks: u32,
    ask: Alarm,
    /// The stream is another one from here on.
    changed: bool,
    /// What it has turned out to be, where that is not what was agreed: nothing more goes out.
    found: Option<Found>,
    ending: bool,
    stopped: bool,
    /// All that it can make is kept by one whose stream has changed: the rest is for the next start.
    stuck: bool,
}

impl Run {
    pub(super) fn start(
        opened: &Opened,
        mut input: Incoming,
        made: Made,
        stall: Duration,
        start: &mut Start<'_>,
    ) -> Result<Run, Failure> {
        let Made { queue: mut output, buffers, stream: to, asked, shown } = made;
        let Some(layout) = buffers.first().map(|b| *b.layout()) else {
            return Err(Failure::new(FailureKind::Config, "started without buffers"));
        };
        let requeue: Arc<OnceLock<Requeue>> = Arc::default();
        let (handle, retry) = (Arc::clone(&requeue), start.waker(RETRY));
        let lent = if output.is_none() { picture::dma_bufs(&buffers) } else { Ok(Vec::new()) };
        let lent = lent.map_err(|e| Failure::new(FailureKind::Limit, e))?;
        let pool = Pool::new(buffers, move |index| {
            if let Some(Err(RequeueError::Qbuf(_))) = handle.get().map(|requeue| requeue.requeue(index as u32)) {
                // The loop tries again, and says why where that fails too.
                retry.wake();
            }
        });
        let pool = Arc::new(pool.map_err(|e| Failure::new(FailureKind::Limit, e))?);
        if opened.codec == Some(Codec::Decoder) {
            ioctl::subscribe_source_change(&opened.gives, 0).map_err(failed)?;
        }
        input.queue.start().map_err(start_failed)?;
        if let Some(queue) = &mut output {
            let _ = requeue.set(queue.requeue_handle());
            queue.start().map_err(start_queue_failed)?;
        }
        // What came while the graph was negotiated anew.
        let from_before = input.unfinished();
        input.feed()?;
        start.every(stall / TICKS, WATCHDOG)?;
        start.watch_edges(opened.gives.clone(), DEVICE)?;
        start.watch(Fences(Arc::clone(&pool)), FENCES)?;
        Ok(Run {
            gives: opened.gives.clone(),
            codec: opened.codec,
            input,
            output,
            to,
            asked,
            shown,
            lent,
            pool,
            requeue,
            whole: Whole::of(&layout),
            layout,
            color: None,
            color_of: None,
            stall,
            holds: sink::holds(&opened.takes),
            given: 0,
            from_before,
            done_at_once: DoneAtOnce::default(),
            one_of_each: OneOfEach::default(),
            seen: (0, 0, 0),
            quiet_ticks: 0,
            ask: start.alarm(ASK),
            changed: false,
            found: None,
            ending: false,
            stopped: false,
            stuck: false,
        })
    }

    /// A frame has come.
    pub(super) fn take(&mut self, frame: Frame, context: &mut Context<'_>, counts: &mut Counts) -> Result<(), Failure> {
        self.input.take(frame)?;
        if self.output.is_none() || self.found.is_some() || !self.done_at_once.is_likely() {
            return Ok(());
        }
        // Not to be woken for it. What has not read the frame has made nothing of it.
        self.input.reap(counts)?;
        self.input.feed()?;
        let read = self.input.queued() == 0;
        let result = if read { self.work(context, counts) } else { Ok(()) };
        self.done_at_once.looked(read && !self.input.is_inside());
        result
    }

    /// No more will come.
    pub(super) fn end(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        self.ending = true;
        self.finish(context)
    }

    /// Stops, and says what there is for the next start: of a stream that goes on as another one, what the device has of it
    /// and what it is; or frames that the device had no room to make anything of.
    pub(super) fn stop(self, counts: &mut Counts) -> (Option<(Incoming, Found)>, Vec<Frame>) {
        let Run { input, output, found, stuck, from_before, given, .. } = self;
        drop(output);
        match found {
            Some(found) => (Some((input, found)), Vec::new()),
            None if stuck => (None, input.into_frames()),
            None => {
                // Another element has not started, say.
                counts.left_behind += if given == 0 { from_before } else { 0 };
                (None, Vec::new())
            }
        }
    }

    pub(super) fn ready(
        &mut self,
        token: u32,
        events: Events,
        context: &mut Context<'_>,
        counts: &mut Counts,
    ) -> Result<(), Failure> {
        match token {
            FENCES => return self.pool.reap().map_err(|e| Failure::new(FailureKind::Device, e)),
            _ if self.found.is_some() || self.stuck => return Ok(()),
            RETRY => {
                let queued = self.output.as_mut().map_or(Ok(0), CaptureQueue::queue_free);
                return queued.map(drop).map_err(|e| start_queue_failed(StartError::Qbuf(e)));
            }
            WATCHDOG => return self.watch(context),
            ASK => return self.finish(context),
            _ => {}
        }
        if events.priority {
            self.events()?;
        }
        self.work(context, counts)
    }

    /// Takes from the device all that it is done with, on both sides, and does what follows from that.
    fn work(&mut self, context: &mut Context<'_>, counts: &mut Counts) -> Result<(), Failure> {
        self.input.reap(counts)?;
        self.input.feed()?;
        // What is left here is not told a second time.
        let last = self.give(context, counts)?;
        if last && self.codec == Some(Codec::Decoder) {
            // Whether it is the last of all, or the last before a change that came after we had looked.
            self.events()?;
        }
        if self.changed && (last || self.output.is_none()) {
            self.changed = false;
            self.follow(context)?;
        } else if last {
            return context.end_all();
        }
        self.finish(context)
    }

    fn events(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.gives.next_event().map_err(failed)? {
            self.changed |= matches!(event, Event::SourceChange { resolution: true, .. });
        }
        Ok(())
    }

    /// Sends on what the device has made. True after the last of a stream.
    fn give(&mut self, context: &mut Context<'_>, counts: &mut Counts) -> Result<bool, Failure> {
        let before = self.given;
        loop {
            let Some(output) = &mut self.output else { return Ok(false) };
            let all = self.given > before && !self.input.is_inside();
            // A decoder may find several in one buffer at any time, and at the end there is no next frame to wake us.
            if all && self.one_of_each.is_likely() && self.codec != Some(Codec::Decoder) && !self.ending {
                return Ok(false);
            }
            let buffer = match output.dequeue() {
                Ok(Dequeued::Buffer(buffer)) => buffer,
                Ok(Dequeued::NotReady) => {
                    if all {
                        self.one_of_each.hit();
                    }
                    return Ok(false);
                }
                Ok(Dequeued::EndOfStream) => return Ok(true),
                Err(DqbufError::Overrun { index, .. }) => {
                    // Its first reference is its last: back it goes.
                    drop(self.pool.take(index as usize));
                    self.damaged(context, counts);
                    continue;
                }
                Err(e) => return Err(dequeue_failed(e)),
            };
            let memory = self.pool.take(buffer.index as usize);
            let payload = buffer.planes().first().map_or(0, |p| p.bytesused);
            if buffer.is_last() && payload == 0 {
                // Nothing but that; its time may be that of the first frame after a change.
                drop(memory);
                return Ok(true);
            }
            let meta = self.input.recall(buffer.timestamp.ns);
            if meta.is_none() {
                self.one_of_each.missed();
            }
            match memory {
                Some(memory) if !buffer.is_corrupt() && Whole::are_in(&self.whole, buffer.planes()) => {
                    self.given += 1;
                    memory.set_state(State::Filled);
                    let payload = if self.to.format.is_compressed() { payload } else { 0 };
                    let frame = self.frame(memory, meta, &buffer, payload)?;
                    context.push(0, frame)?;
                }
                memory => {
                    drop(memory);
                    self.damaged(context, counts);
                }
            }
            if buffer.is_last() {
                return Ok(true);
            }
        }
    }

    fn damaged(&mut self, context: &Context<'_>, counts: &mut Counts) {
        self.given += 1;
        counts.damaged += 1;
        context.dropped(1);
    }

    fn frame(
        &mut self,
        buffer: Shrbuf,
        meta: Option<Meta>,
        from: &ioctl::Buffer,
        payload: u32,
    ) -> Result<Frame, Failure> {
        let color = meta.map_or(self.input.color, |meta| meta.color);
        if self.color_of != Some(color) {
            // Of a stream that goes on in other colours not every decoder says so by itself.
            let said = self.gives.format().map_err(format_failed)?.colorimetry;
            self.color = color::made(self.codec, self.input.stream.format, &self.to, said);
            self.color_of = Some(color);
        }
        let mut frame = match meta {
            Some(meta) => {
                let crop = meta.crop.filter(|_| self.input.stream.size == self.to.size).or(self.shown);
                Frame { crop, ..Frame::new(buffer, meta.timestamp, meta.sequence) }
            }
            None => Frame::new(buffer, Timestamp(from.timestamp.ns), from.sequence.into()),
        };
        frame.color = self.color.unwrap_or(color);
        frame.payload = payload;
        Ok(frame)
    }

    /// A decoder has seen what its stream is: lends it the buffers, or has the graph negotiated anew.
    fn follow(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let format = self.gives.format().map_err(format_failed)?;
        let room = Size::new(format.width, format.height);
        let picture = picture::composed(&self.gives, room).map_err(failed)?;
        let size = Size::new(picture.x + picture.width, picture.y + picture.height);
        let native = Format::from_v4l2(format.pixelformat.0).map(|(format, _)| format);
        if size == self.to.size && self.output.is_none() {
            match self.lend(room) {
                Ok(()) => {
                    self.shown = picture::off_corner(picture);
                    return Ok(());
                }
                Err(failure) if failure.kind() != FailureKind::Changed => return Err(failure),
                Err(_) => {}
            }
        }
        // Told of a change to what it is already: it does not make this format of this stream, whatever it has said.
        let again = (size, room) == (self.to.size, self.asked) && self.output.is_some();
        let refused = if again && native != Some(self.to.format) { vec![self.to.format] } else { Vec::new() };
        let what = format!("its pictures are {} {size} from here on, agreed were {}", format.pixelformat, self.to);
        let failure = Failure::new(FailureKind::Changed, what);
        self.found = Some(Found { of: self.input.stream, size, room, native, refused });
        context.change(failure)
    }

    fn lend(&mut self, room: Size) -> Result<(), Failure> {
        let changed = |e: shrbuf_pipeline::Refusal| Failure::new(FailureKind::Changed, e.to_string());
        let format = picture::set_room(&self.gives, &self.to, room).map_err(changed)?;
        let layout = picture::layout(self.to.format, self.to.size, &format, &[]).map_err(changed)?;
        if layout != self.layout {
            return Err(Failure::new(FailureKind::Changed, "the driver lays pictures out in another way now"));
        }
        let queue = CaptureQueue::dmabuf(&self.gives, std::mem::take(&mut self.lent));
        let mut queue = queue.map_err(|e| match e {
            // It needs more behind a picture than it said before it had seen the stream.
            AllocateError::TooSmall { .. } => Failure::new(FailureKind::Changed, e),
            e => Failure::new(FailureKind::Device, e),
        })?;
        let _ = self.requeue.set(queue.requeue_handle());
        queue.start().map_err(start_queue_failed)?;
        self.output = Some(queue);
        self.asked = room;
        Ok(())
    }

    /// At the end: has a codec work off what it has; a converter is done when it has given back all.
    fn finish(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        if !self.ending {
            return Ok(());
        }
        let makes_no_more = self.makes_no_more();
        self.stuck = makes_no_more && context.leads_to_change();
        if self.stuck || self.found.is_some() {
            return context.end_all();
        }
        if makes_no_more {
            // It may change yet, and nobody tells.
            self.ask.set(Timestamp(Timestamp::now().0 + ASKS.as_nanos() as u64));
        }
        if self.input.is_waiting() {
            return Ok(());
        }
        let empty = self.input.queued() == 0;
        match self.codec {
            // Nothing of the stream, or nothing that could be understood.
            Some(_) if self.input.taken == 0 || (self.output.is_none() && empty) => context.end_all(),
            // It will say what the stream is first.
            Some(_) if self.output.is_none() || self.stopped => Ok(()),
            Some(codec) => {
                self.stopped = true;
                ioctl::codec_stop(&self.gives, codec).map_err(|e| match e {
                    CodecCmdError::Failure(failure) => failed(failure),
                    other => Failure::new(FailureKind::Device, other),
                })
            }
            None if empty && self.given >= self.input.taken => context.end_all(),
            None => Ok(()),
        }
    }

    /// Whether all of its buffers are held downstream.
    fn makes_no_more(&self) -> bool {
        self.output.as_ref().is_some_and(|output| output.held() as u32 == output.count())
    }

    /// Counts quiet ticks, not time: where this thread itself was kept away, the timer has ticked once.
    fn watch(&mut self, context: &mut Context<'_>) -> Result<(), Failure> {
        let queued = self.input.queued();
        let now = (self.input.taken, self.given, queued);
        self.quiet_ticks = if now == self.seen { self.quiet_ticks + 1 } else { 0 };
        self.seen = now;
        // A codec may keep frames that it needs for the next, as long as there is room for that.
        let work = self.ending || self.input.is_waiting() || queued >= self.holds;
        if self.quiet_ticks < TICKS || !work {
            return Ok(());
        }
        if self.codec.is_none() && self.ending && queued == 0 {
            // Not every converter makes a frame of each, as a deinterlacer.
            return context.end_all();
        }
        let limit = self.stall;
        let why =
            if self.makes_no_more() { "all that it can make are held downstream" } else { "the device does not go on" };
        Err(Failure::new(FailureKind::Stalled, format!("no frame for {limit:.1?}, with {queued} to work on: {why}")))
    }
}
