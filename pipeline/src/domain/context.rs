//! Elements in a row, and what one can do while it runs: push to those behind it.

use std::cell::{Cell, OnceCell};
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::element::{Element, Failure};
use crate::frame::{Frame, Timestamp};
use crate::ring::{Bell, Ring};
use crate::stats::NodeStats;

use super::Control;
use super::start::{Watched, limit};

/// Where an output leads.
pub(crate) enum Target {
    /// Behind us in this domain.
    Local { slot: usize, input: usize },
    /// Into another domain.
    Ring(Arc<Ring>),
    /// Nobody is linked there.
    Nowhere,
}

/// An element and what the loop knows about it.
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) element: Box<dyn Element>,
    pub(crate) node: usize,
    pub(crate) outputs: Vec<Target>,
    pub(crate) stats: Arc<NodeStats>,
    pub(super) flags: Flags,
    pub(super) watched: Vec<Watched>,
}

pub(super) struct Flags {
    node: usize,
    pub(super) source: bool,
    /// Frames that a source may still push.
    left: Cell<u64>,
    /// An end has been passed on, or a sink is done.
    pub(super) ended: Cell<bool>,
    /// What goes out has ended already, for this reason.
    pub(super) changed: OnceCell<Failure>,
    control: Arc<Control>,
    bell: Arc<Bell>,
}

impl Flags {
    /// Of an element that is a source or not, which may push so many frames.
    pub(super) fn new(node: usize, source: bool, left: u64, control: Arc<Control>, bell: Arc<Bell>) -> Flags {
        let (left, ended, changed) = (Cell::new(left), Cell::new(false), OnceCell::new());
        Flags { node, source, left, ended, changed, control, bell }
    }
}

impl Slot {
    /// The element, and the context in which it may be called.
    pub(super) fn split<'a>(&'a mut self, later: &'a mut [Slot], base: usize) -> (&'a mut dyn Element, Context<'a>) {
        let context = Context { later, base, outputs: &self.outputs, stats: &self.stats, flags: &self.flags };
        (self.element.as_mut(), context)
    }
}

/// What an element can do while it runs.
pub struct Context<'a> {
    later: &'a mut [Slot],
    base: usize,
    outputs: &'a [Target],
    pub(super) stats: &'a NodeStats,
    flags: &'a Flags,
}

impl Context<'_> {
    /// Sends a frame on. Inside the domain this is a function call that returns when everything downstream is done
    /// with it; into a full queue that blocks it waits for room.
    ///
    /// # Errors
    /// That of an element downstream, to be returned upwards.
    ///
    /// # Panics
    /// Where the element has no such output.
    pub fn push(&mut self, output: usize, frame: Frame) -> Result<(), Failure> {
        if self.flags.source { self.push_first(output, frame) } else { self.send(output, frame) }
    }

    /// A source's push: counted, and limited.
    #[inline(never)]
    fn push_first(&mut self, output: usize, frame: Frame) -> Result<(), Failure> {
        let left = self.flags.left.get();
        if left == 0 || self.flags.ended.get() {
            // One that had sent all before the graph was started again.
            return self.end_all();
        }
        self.flags.left.set(left - 1);
        self.stats.frame();
        if frame.corrupt {
            self.stats.corrupt();
        }
        self.send(output, frame)?;
        if left == 1 { self.end_all() } else { Ok(()) }
    }

    // Part of `push`, or each hop would move the frame once more.
    #[inline(always)]
    fn send(&mut self, output: usize, frame: Frame) -> Result<(), Failure> {
        match &self.outputs[output] {
            Target::Local { slot, input } => {
                let (slot, mut context) = self.downstream(*slot);
                context.stats.frame();
                context.stats.enter();
                let result = slot.process(*input, frame, &mut context);
                context.stats.leave();
                result
            }
            Target::Ring(ring) => {
                ring.push(frame);
                Ok(())
            }
            Target::Nowhere => Ok(()),
        }
        .map_err(|f: Failure| self.name(f, output))
    }

    fn downstream(&mut self, slot: usize) -> (&mut dyn Element, Context<'_>) {
        let (before, later) = self.later.split_at_mut(slot + 1 - self.base);
        before[slot - self.base].split(later, slot + 1)
    }

    #[cold]
    fn name(&self, failure: Failure, output: usize) -> Failure {
        match &self.outputs[output] {
            Target::Local { slot, .. } => failure.at(&self.later[slot - self.base].name),
            Target::Ring(_) | Target::Nowhere => failure,
        }
    }

    /// Passes the end on through every output; of a sink, says that it is done. Only the first call counts.
    ///
    /// # Errors
    /// That of an element downstream.
    pub fn end_all(&mut self) -> Result<(), Failure> {
        if self.flags.ended.replace(true) || self.flags.changed.get().is_some() {
            return Ok(());
        }
        self.end_outputs()
    }

    /// Says that from here on something else will go out than was agreed (a decoder has found pictures of another size).
    /// The sources of every domain end, and what is on its way arrives, before and behind this element; then the run is
    /// over because of `failure`, and one of kind [`Changed`](crate::FailureKind::Changed) has the graph negotiated anew.
    /// What comes in until then is the element's to keep for that; it pushes nothing more, and passes the end on as ever.
    ///
    /// # Errors
    /// That of an element downstream.
    pub fn change(&mut self, failure: Failure) -> Result<(), Failure> {
        if self.flags.changed.set(failure).is_err() {
            return Ok(());
        }
        self.flags.control.change(self.flags.node);
        if self.flags.ended.get() { Ok(()) } else { self.end_outputs() }
    }

    /// Whether an element that this one's frames come to has called [`Context::change`]. It gives back nothing of what it
    /// keeps: who cannot go on without that keeps the rest, for the next start too.
    pub fn leads_to_change(&self) -> bool {
        self.flags.control.leads_to_change(self.flags.node)
    }

    fn end_outputs(&mut self) -> Result<(), Failure> {
        for output in 0..self.outputs.len() {
            match &self.outputs[output] {
                Target::Local { slot, input } => {
                    let (slot, mut context) = self.downstream(*slot);
                    context.stats.enter();
                    let result = slot.end(*input, &mut context);
                    context.stats.leave();
                    result.map_err(|f| self.name(f, output))?;
                }
                Target::Ring(ring) => ring.end(),
                Target::Nowhere => {}
            }
        }
        Ok(())
    }

    /// Of a sink: the last frame is dealt with. The run ends when every element has.
    pub fn finish(&mut self) {
        self.flags.ended.set(true);
    }

    /// Of a sink: its user has had enough (a window was closed). The sources of every domain end, soon; what is on its way
    /// arrives.
    pub fn end_run(&mut self) {
        self.flags.control.end();
    }

    /// Whether the sources have been told to end, rather than having sent all: by the user, or as an element's frames are others
    /// from now on.
    pub fn ends_early(&self) -> bool {
        self.flags.control.is_ending()
    }

    /// Of a source: no more frames are wanted. One that is not driven by a descriptor stops making them.
    pub fn ended(&self) -> bool {
        self.flags.ended.get()
    }

    /// **Blocks** until `fd` is writable or in error; false where the run is stopped meanwhile. For an element that writes
    /// to what may have no room for as long as somebody else likes (a pipe), so that a stop finds it.
    ///
    /// # Errors
    /// That of poll(2).
    pub fn wait_writable(&self, fd: impl AsFd) -> Result<bool, Failure> {
        let Flags { control, bell, .. } = self.flags;
        loop {
            bell.sleep();
            let stopped = control.is_stopping();
            let waited = if stopped { Ok(false) } else { bell.wait_writable(fd.as_fd()) };
            bell.awake();
            match waited {
                Ok(false) if !stopped => {}
                Err(nix::Error::EINTR) => {}
                waited => return waited.map_err(|e| limit("poll", e)),
            }
        }
    }

    /// Counts frames that this element dropped, or knows to have been dropped before it.
    pub fn dropped(&self, frames: u64) {
        self.stats.dropped(frames);
    }

    /// Of a sink: a frame captured at `captured` was shown or consumed at `shown`. Where that is earlier, it is counted as
    /// [misdated](crate::stats::NodeCounts::misdated).
    pub fn shown(&self, captured: Timestamp, shown: Timestamp) {
        self.stats.shown(captured, shown);
    }
}
