//! The task of the source pad: what was asked for goes out.

use std::sync::Arc;

use gst::prelude::*;
use shrbuf::ipc::FrameInfo;
use tmem_cache::preroll::{Entry, Got, Next};

use super::run::{Emission, Info, Run, Shared, State};
/// What downstream has been told. The task's own.
#[derive(Default)]
pub(super) struct Told {
    caps: Option<gst::Caps>,
    segment: Option<gst::Segment>,
}

impl Told {
    /// Downstream has forgotten the segment.
    pub(super) fn flushed(&mut self) {
        self.segment = None;
    }
}

/// What there is to do.
enum Do {
    /// Somebody wants the task to end, or there will be nothing more.
    Stop,
    Start(gst::Event),
    /// Has sinks preroll.
    Announce(Arc<Run>, Info),
    Begin(Option<gst::ClockTime>),
    Send(Arc<Run>, Entry<Info>),
    End(Emission),
    Eos(gst::Event),
}

/// What the task needs of its element.
pub(super) struct Player<'a> {
    pub(super) element: &'a gst::Element,
    pub(super) pad: &'a gst::Pad,
    pub(super) shared: &'a Shared,
    pub(super) told: &'a mut Told,
    /// Nanoseconds that follow a trigger.
    pub(super) after: u64,
}

impl Player<'_> {
    /// Waits for something to do, and does it; `false` where the task is to pause.
    pub(super) fn step(&mut self) -> bool {
        let sent = match self.next() {
            Do::Stop => return false,
            Do::Start(event) => {
                self.pad.push_event(event);
                Ok(())
            }
            Do::Announce(run, info) => {
                self.tell(&run, &info);
                if let Some(pts) = info.pts {
                    self.pad.push_event(gst::event::Gap::builder(pts).duration(info.duration).build());
                }
                Ok(())
            }
            Do::Begin(first) => {
                self.post(gst::Structure::builder("shrbuftmem-begin").field("first", first).build());
                Ok(())
            }
            Do::Send(run, entry) => self.send(&run, &entry),
            Do::End(emission) => {
                self.post_end(&emission);
                Ok(())
            }
            Do::Eos(event) => {
                self.pad.push_event(event);
                Ok(())
            }
        };
        match sent {
            Ok(()) => true,
            Err(gst::FlowError::Flushing) => false,
            // Nobody wants it any more, or nobody is there: what was asked for is over, the taking goes on.
            Err(gst::FlowError::Eos | gst::FlowError::NotLinked) => {
                self.shared.state().give_up();
                true
            }
            Err(flow) => {
                self.shared.state().give_up();
                gst::element_error!(
                    self.element,
                    gst::StreamError::Failed,
                    ["downstream failed ({flow:?}) while frames were sent; see its own message"]
                );
                false
            }
        }
    }

    /// **Blocks** until there is something to do.
    fn next(&self) -> Do {
        let mut state = self.shared.state();
        loop {
            if state.flushing {
                return Do::Stop;
            }
            if let Some(event) = state.stream_start.take() {
                return Do::Start(event);
            }
            let Some(run) = state.run.clone() else {
                match state.eos.take() {
                    Some(event) => return Do::Eos(event),
                    None => state = self.shared.wait(state),
                }
                continue;
            };
            if let Some(info) = state.first.take() {
                return Do::Announce(run, info);
            }
            if let Some(todo) = state.next(&run, self.after) {
                return todo;
            }
            // Not the last: there is the state's.
            drop(run);
            state = self.shared.wait(state);
        }
    }

    /// Caps and segment, where they are others than before.
    fn tell(&mut self, run: &Run, info: &Info) {
        if self.told.caps.as_ref() != Some(&run.caps) {
            self.pad.push_event(gst::event::Caps::new(&run.caps));
            self.told.caps = Some(run.caps.clone());
        }
        if self.told.segment.as_ref() != Some(&info.segment) {
            self.pad.push_event(gst::event::Segment::new(&info.segment));
            self.told.segment = Some(info.segment.clone());
        }
    }

    fn send(&mut self, run: &Run, entry: &Entry<Info>) -> Result<(), gst::FlowError> {
        let buffer = loop {
            match run.preroll.get(entry, &run.buffers) {
                Got::Frame(buffer) => break buffer,
                Got::Gone => {
                    let mut state = self.shared.state();
                    state.counts.missed += 1;
                    state.emission.iter_mut().for_each(|emission| emission.missed += 1);
                    return Ok(());
                }
                Got::NoBuffer => {
                    let mut state = self.shared.state();
                    while run.buffers.idle() == 0 {
                        if state.flushing {
                            return Err(gst::FlowError::Flushing);
                        }
                        state = self.shared.wait(state);
                    }
                }
            }
        };
        let info = &entry.info;
        self.tell(run, info);
        let corrupt = info.flags.contains(gst::BufferFlags::CORRUPTED);
        let described = FrameInfo { sequence: info.offset, crop: info.crop, corrupt, ..FrameInfo::default() };
        let out = || gst::glib::bool_error!("buffer {} is still out", buffer.id());
        let lent = run.lender.lend(&buffer, &described).and_then(|lent| lent.ok_or_else(out));
        let mut frame = lent.map_err(|e| {
            gst::element_error!(self.element, gst::ResourceError::Failed, ["{e}"]);
            gst::FlowError::Error
        })?;
        drop(buffer);
        let writable = frame.make_mut();
        writable.set_pts(info.pts);
        writable.set_dts(info.dts);
        writable.set_duration(info.duration);
        self.pad.push(frame)?;
        let mut state = self.shared.state();
        state.counts.emitted += 1;
        if let Some(emission) = &mut state.emission {
            emission.frames += 1;
            emission.last = info.pts;
        }
        Ok(())
    }

    fn post_end(&self, emission: &Emission) {
        let Emission { frames, missed, first, last } = emission;
        let end = gst::Structure::builder("shrbuftmem-end").field("frames", frames).field("missed", missed);
        self.post(end.field("first", first).field("last", last).build());
    }

    fn post(&self, what: gst::Structure) {
        // Without a bus nobody listens.
        let _ = self.element.post_message(gst::message::Element::builder(what).src(self.element).build());
    }
}

impl State {
    /// What a trigger has asked for, what follows from its end, and the end of everything.
    fn next(&mut self, run: &Run, after: u64) -> Option<Do> {
        let drained = self.ended && self.incoming.is_empty() && !self.putting;
        if self.wished {
            let after = std::time::Duration::from_nanos(after);
            if self.replays.trigger(&run.preroll, run.preroll.newest(), after) {
                self.counts.triggers += 1;
                self.wished = false;
            } else {
                // Where nothing was kept, and nothing will be, there is nothing to wait for.
                self.wished = !drained;
            }
        }
        if let Some(entry) = self.pending.take() {
            return Some(Do::Send(self.run.clone()?, entry));
        }
        match self.replays.next(&run.preroll) {
            Next::Send(entry) if self.emission.is_none() => {
                let first = entry.info.pts;
                self.emission = Some(Emission { frames: 0, missed: 0, first, last: None });
                self.pending = Some(entry);
                Some(Do::Begin(first))
            }
            Next::Send(entry) => Some(Do::Send(self.run.clone()?, entry)),
            Next::Later if drained => {
                self.replays.give_up();
                self.next(run, after)
            }
            Next::Later => None,
            Next::Idle => match self.emission.take() {
                Some(emission) => Some(Do::End(emission)),
                None if drained => self.eos.take().map(Do::Eos),
                None => None,
            },
        }
    }
}
