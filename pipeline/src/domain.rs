//! A domain: the elements between queues, and the thread whose epoll loop runs them.
//!
//! Elements lie in topological order, so that whatever an element pushes to lies behind it. A push splits the slice
//! there and calls: no lookup, no lock, no allocation.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::element::{Element, Failure, FailureKind};
use crate::frame::{Frame, Timestamp};
use crate::ring::{Bell, Item, Ring};
use crate::spin::Spin;
use crate::stats::NodeStats;

/// What all domains of a run obey.
#[derive(Debug, Default)]
pub(crate) struct Control {
    command: AtomicU8,
}

impl Control {
    const END: u8 = 1;
    const STOP: u8 = 2;

    /// Sources end; what is on its way arrives.
    pub(crate) fn end(&self) {
        self.command.fetch_max(Control::END, Ordering::Relaxed);
    }

    /// Every loop ends at its next step.
    pub(crate) fn stop(&self) {
        self.command.fetch_max(Control::STOP, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.command.load(Ordering::Relaxed)
    }
}

/// Where an output leads.
pub(crate) enum Target {
    /// Behind us in this domain.
    Local { slot: usize, input: usize },
    /// Into another domain.
    Ring(Arc<Ring>),
    /// Nobody is linked there.
    Nowhere,
}

type Watched = Arc<dyn AsFd + Send + Sync>;

/// An element and what the loop knows about it.
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) element: Box<dyn Element>,
    pub(crate) node: usize,
    pub(crate) outputs: Vec<Target>,
    pub(crate) stats: Arc<NodeStats>,
    flags: Flags,
    watched: Vec<Watched>,
}

struct Flags {
    source: bool,
    /// Frames that a source may still push.
    left: Cell<u64>,
    /// An end has been passed on, or a sink is done.
    ended: Cell<bool>,
}

impl Slot {
    pub(crate) fn new(
        name: String,
        element: Box<dyn Element>,
        node: usize,
        outputs: Vec<Target>,
        stats: Arc<NodeStats>,
        limit: Option<u64>,
    ) -> Slot {
        let source = element.ports().inputs.is_empty();
        let flags = Flags { source, left: Cell::new(limit.unwrap_or(u64::MAX)), ended: Cell::new(false) };
        Slot { name, element, node, outputs, stats, flags, watched: Vec::new() }
    }

    /// The element, and the context in which it may be called.
    fn split<'a>(&'a mut self, later: &'a mut [Slot], base: usize) -> (&'a mut dyn Element, Context<'a>) {
        let context = Context { later, base, outputs: &self.outputs, stats: &self.stats, flags: &self.flags };
        (self.element.as_mut(), context)
    }
}

/// What a descriptor is ready for; nothing at all where a [`Waker`] called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// EPOLLIN.
    pub readable: bool,
    /// EPOLLPRI: an event of a V4L2 device.
    pub priority: bool,
    /// EPOLLERR or EPOLLHUP.
    pub error: bool,
}

/// Calls an element's `ready` from any thread.
#[derive(Debug, Clone)]
pub struct Waker {
    pending: Arc<AtomicBool>,
    bell: Arc<Bell>,
}

impl Waker {
    /// Has `ready` called soon, once for any number of wakes. A system call only where the domain sleeps.
    pub fn wake(&self) {
        self.pending.store(true, Ordering::Release);
        self.bell.ring();
    }
}

/// What an element can register as it starts.
pub struct Start<'a> {
    slot: usize,
    watched: &'a mut Vec<Watched>,
    epoll: &'a Arc<Epoll>,
    wakers: &'a mut Vec<(Arc<AtomicBool>, usize, u32)>,
    timers: &'a mut Vec<Timer>,
    bell: &'a Arc<Bell>,
}

/// Has an element's `ready` called once, at a time it sets as it runs. For the element's own thread.
#[derive(Debug)]
pub struct Alarm(Arc<AtomicU64>);

impl Alarm {
    /// Sets it, in place of a time set before. It goes off then, or later where the domain is busy; to the
    /// millisecond, and never early.
    pub fn set(&self, due: Timestamp) {
        self.0.store(due.0, Ordering::Relaxed);
    }

    /// It does not go off any more.
    pub fn clear(&self) {
        self.0.store(NEVER, Ordering::Relaxed);
    }
}

/// A descriptor that is watched when the element says, for those whose news can mostly wait.
pub struct Watch {
    epoll: Arc<Epoll>,
    fd: Watched,
    data: u64,
    on: bool,
}

impl Watch {
    /// Has `ready` called while the descriptor is readable, or not any more. A system call where that is a change. Errors
    /// of the descriptor are told either way.
    ///
    /// # Errors
    /// That of epoll_ctl(2).
    pub fn set(&mut self, on: bool) -> Result<(), Failure> {
        if on != self.on {
            let flags = if on { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(flags, self.data);
            self.epoll.modify(self.fd.as_fd(), &mut event).map_err(|e| limit("epoll_ctl", e))?;
            self.on = on;
        }
        Ok(())
    }

    /// Whether it is watched.
    pub fn is_on(&self) -> bool {
        self.on
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("on", &self.on).finish_non_exhaustive()
    }
}

/// Calls `ready` when due.
#[derive(Clone)]
struct Timer {
    due: Arc<AtomicU64>,
    /// From one time to the next; [`NEVER`] for an alarm.
    interval: u64,
    slot: usize,
    token: u32,
}

const NEVER: u64 = u64::MAX;

impl Start<'_> {
    /// Has `ready(token)` called while `fd` is readable (level-triggered), or in error. The descriptor is kept until
    /// the run ends, or the source has.
    ///
    /// # Errors
    /// That of epoll_ctl(2).
    pub fn watch(&mut self, fd: impl AsFd + Send + Sync + 'static, token: u32) -> Result<(), Failure> {
        self.register(fd, EpollFlags::EPOLLIN, token).map(drop)
    }

    /// As [`Start::watch`], when the element says: not yet, to begin with.
    ///
    /// # Errors
    /// That of epoll_ctl(2).
    pub fn watch_at_times(&mut self, fd: impl AsFd + Send + Sync + 'static, token: u32) -> Result<Watch, Failure> {
        let (fd, data) = self.register(fd, EpollFlags::empty(), token)?;
        Ok(Watch { epoll: Arc::clone(self.epoll), fd, data, on: false })
    }

    /// As [`Start::watch`], for EPOLLPRI too.
    ///
    /// # Errors
    /// That of epoll_ctl(2).
    pub fn watch_priority(&mut self, fd: impl AsFd + Send + Sync + 'static, token: u32) -> Result<(), Failure> {
        self.register(fd, EpollFlags::EPOLLIN | EpollFlags::EPOLLPRI, token).map(drop)
    }

    fn register(
        &mut self,
        fd: impl AsFd + Send + Sync + 'static,
        flags: EpollFlags,
        token: u32,
    ) -> Result<(Watched, u64), Failure> {
        let data = (self.slot as u64) << 32 | u64::from(token);
        self.epoll.add(&fd, EpollEvent::new(flags, data)).map_err(|e| limit("epoll_ctl", e))?;
        let fd: Watched = Arc::new(fd);
        self.watched.push(Arc::clone(&fd));
        Ok((fd, data))
    }

    /// Has `ready(token)` called each `interval`, or later where the domain is busy: for watchdogs. Ticks that were
    /// missed are not made up for. No descriptor and no system call: it is the time-out of the loop's own wait, to
    /// the millisecond. What needs a clock watches a timerfd.
    pub fn every(&mut self, interval: Duration, token: u32) {
        let interval = interval.as_nanos().min(u128::from(u64::MAX / 2)) as u64;
        let due = Arc::new(AtomicU64::new(Timestamp::now().0.saturating_add(interval)));
        self.timers.push(Timer { due, interval, slot: self.slot, token });
    }

    /// As [`Start::every`], once, when the element says.
    pub fn alarm(&mut self, token: u32) -> Alarm {
        let due = Arc::new(AtomicU64::new(NEVER));
        self.timers.push(Timer { due: Arc::clone(&due), interval: NEVER, slot: self.slot, token });
        Alarm(due)
    }

    /// Something that has `ready(token)` called from other threads, or from a buffer's release.
    pub fn waker(&mut self, token: u32) -> Waker {
        let pending = Arc::new(AtomicBool::new(false));
        self.wakers.push((Arc::clone(&pending), self.slot, token));
        Waker { pending, bell: Arc::clone(self.bell) }
    }
}

fn limit(call: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Limit, format!("{call} failed: {error}"))
}

/// What an element can do while it runs.
pub struct Context<'a> {
    later: &'a mut [Slot],
    base: usize,
    outputs: &'a [Target],
    stats: &'a NodeStats,
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
            return Ok(());
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
                slot.process(*input, frame, &mut context)
            }
            Target::Ring(ring) => {
                ring.push(Item::Frame(frame));
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
        if self.flags.ended.replace(true) {
            return Ok(());
        }
        for output in 0..self.outputs.len() {
            match &self.outputs[output] {
                Target::Local { slot, input } => {
                    let (slot, mut context) = self.downstream(*slot);
                    slot.end(*input, &mut context).map_err(|f| self.name(f, output))?;
                }
                Target::Ring(ring) => ring.push(Item::End),
                Target::Nowhere => {}
            }
        }
        Ok(())
    }

    /// Of a sink: the last frame is dealt with. The run ends when every element has.
    pub fn finish(&mut self) {
        self.flags.ended.set(true);
    }

    /// Of a source: no more frames are wanted. One that is not driven by a descriptor stops making them.
    pub fn ended(&self) -> bool {
        self.flags.ended.get()
    }

    /// Counts frames that this element dropped, or knows to have been dropped before it.
    pub fn dropped(&self, frames: u64) {
        self.stats.dropped(frames);
    }

    /// Of a sink: a frame captured at `captured` was shown or consumed at `shown`.
    pub fn shown(&self, captured: Timestamp, shown: Timestamp) {
        self.stats.latency(shown.since(captured));
    }
}

/// One thread's share of a graph.
pub(crate) struct Domain {
    pub(crate) slots: Vec<Slot>,
    /// Rings that lead here, and the slot and input that each feeds.
    pub(crate) rings: Vec<(Arc<Ring>, usize, usize)>,
    epoll: Arc<Epoll>,
    bell: Arc<Bell>,
    wakers: Vec<(Arc<AtomicBool>, usize, u32)>,
    timers: Vec<Timer>,
    control: Arc<Control>,
    spin: Spin,
}

/// No slot has this number.
const BELL: u64 = u64::MAX;
/// Events taken from the kernel at once.
const EVENTS: usize = 32;
/// Rounds of work from rings alone before descriptors are asked too.
const ROUNDS: u32 = 16;

impl Domain {
    pub(crate) fn new(bell: Arc<Bell>, control: Arc<Control>) -> io::Result<Domain> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(bell.fd(), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, BELL))?;
        Ok(Domain {
            slots: Vec::new(),
            rings: Vec::new(),
            epoll: Arc::new(epoll),
            bell,
            wakers: Vec::new(),
            timers: Vec::new(),
            control,
            spin: Spin::new(),
        })
    }

    /// Starts the elements, sinks first; those started are stopped again where one fails.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        for i in (0..self.slots.len()).rev() {
            let slot = &mut self.slots[i];
            let mut start = Start {
                slot: i,
                watched: &mut slot.watched,
                epoll: &self.epoll,
                wakers: &mut self.wakers,
                timers: &mut self.timers,
                bell: &self.bell,
            };
            if let Err(failure) = slot.element.start(&mut start) {
                let failure = failure.at(&slot.name);
                self.slots[i..].iter_mut().rev().for_each(|s| s.element.stop());
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Runs until every element has ended, a stop, or a failure. The elements are stopped then.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        let result = self.cycle();
        self.close_rings();
        self.stop();
        result
    }

    fn close_rings(&self) {
        for (ring, ..) in &self.rings {
            ring.close();
        }
    }

    /// Stops the elements and forgets their descriptors.
    pub(crate) fn stop(&mut self) {
        for i in 0..self.slots.len() {
            self.slots[i].element.stop();
            self.unwatch(i);
        }
    }

    fn cycle(&mut self) -> Result<(), Failure> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let mut rounds = 0;
        loop {
            match self.control.get() {
                Control::STOP => return Ok(()),
                Control::END => self.end_sources()?,
                _ => {}
            }
            if self.slots.iter().all(|s| s.flags.ended.get()) {
                return Ok(());
            }
            let worked = self.rings_round()? | self.wakers_round()?;
            let busy = worked || self.spin.until(|| self.has_work());
            rounds = if busy { rounds + 1 } else { 0 };
            if busy && rounds % ROUNDS != 0 {
                continue;
            }
            let until_due = self.timers_round()?;
            let timeout = if busy || !self.may_sleep() { EpollTimeout::ZERO } else { until_due };
            let result = self.epoll.wait(&mut events, timeout);
            self.bell.awake();
            let n = match result {
                Ok(n) => n,
                Err(nix::Error::EINTR) => 0,
                Err(e) => return Err(limit("epoll_wait", e)),
            };
            for event in &events[..n] {
                self.dispatch(event)?;
            }
        }
    }

    /// Says that we sleep, and looks once more whether there is reason not to.
    fn may_sleep(&self) -> bool {
        self.bell.sleep();
        let obeyed = match self.control.get() {
            Control::STOP => false,
            Control::END => self.slots.iter().all(|s| !s.flags.source || s.flags.ended.get()),
            _ => true,
        };
        obeyed && !self.has_work()
    }

    fn has_work(&self) -> bool {
        self.rings.iter().any(|(r, ..)| !r.is_empty())
            || self.wakers.iter().any(|(pending, ..)| pending.load(Ordering::Relaxed))
    }

    fn rings_round(&mut self) -> Result<bool, Failure> {
        let mut worked = false;
        for i in 0..self.rings.len() {
            // No more than there is now: the other rings and the devices have their turn.
            for _ in 0..EVENTS {
                let (ring, slot, input) = &self.rings[i];
                let Some(item) = ring.pop() else { break };
                let (slot, input) = (*slot, *input);
                worked = true;
                self.call(slot, |element, context| match item {
                    Item::Frame(frame) => {
                        context.stats.frame();
                        element.process(input, frame, context)
                    }
                    Item::End => element.end(input, context),
                })?;
            }
        }
        Ok(worked)
    }

    fn wakers_round(&mut self) -> Result<bool, Failure> {
        let mut worked = false;
        for i in 0..self.wakers.len() {
            let (pending, slot, token) = &self.wakers[i];
            let (slot, token) = (*slot, *token);
            if pending.load(Ordering::Relaxed) && pending.swap(false, Ordering::Acquire) {
                worked = true;
                self.call(slot, |element, context| element.ready(token, Events::default(), context))?;
            }
        }
        Ok(worked)
    }

    /// Calls what is due, and says how long nothing more will be: one look at the clock for both.
    fn timers_round(&mut self) -> Result<EpollTimeout, Failure> {
        if self.timers.is_empty() {
            return Ok(EpollTimeout::NONE);
        }
        let now = Timestamp::now();
        let (mut next, mut called) = (NEVER, false);
        for i in 0..self.timers.len() {
            // A source that ends takes its timers with it.
            let Some(timer) = self.timers.get(i) else { break };
            let due = timer.due.load(Ordering::Relaxed);
            if due > now.0 {
                next = next.min(due);
                continue;
            }
            timer.due.store(now.0.saturating_add(timer.interval), Ordering::Relaxed);
            let (slot, token) = (timer.slot, timer.token);
            self.call(slot, |element, context| element.ready(token, Events::default(), context))?;
            called = true;
        }
        if called {
            // That took time, and may have set others.
            return Ok(EpollTimeout::ZERO);
        }
        if next == NEVER {
            return Ok(EpollTimeout::NONE);
        }
        // Rounded up, so that the last millisecond does not become a busy loop.
        let left = Timestamp(next).since(now).div_ceil(1_000_000);
        Ok(EpollTimeout::try_from(left.min(i32::MAX as u64) as i32).unwrap_or(EpollTimeout::MAX))
    }

    fn dispatch(&mut self, event: &EpollEvent) -> Result<(), Failure> {
        let data = event.data();
        if data == BELL {
            return Ok(());
        }
        let (slot, token) = ((data >> 32) as usize, data as u32);
        let flags = event.events();
        let events = Events {
            readable: flags.contains(EpollFlags::EPOLLIN),
            priority: flags.contains(EpollFlags::EPOLLPRI),
            error: flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP),
        };
        self.call(slot, |element, context| element.ready(token, events, context))
    }

    fn call(
        &mut self,
        slot: usize,
        f: impl FnOnce(&mut dyn Element, &mut Context<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (before, later) = self.slots.split_at_mut(slot + 1);
        let s = &mut before[slot];
        let was_ended = s.flags.ended.get();
        let (element, mut context) = s.split(later, slot + 1);
        f(element, &mut context).map_err(|f| f.at(&self.slots[slot].name))?;
        let flags = &self.slots[slot].flags;
        if flags.source && flags.ended.get() && !was_ended {
            // Its device goes on being ready, which is nobody's business any more.
            self.unwatch(slot);
        }
        Ok(())
    }

    fn unwatch(&mut self, slot: usize) {
        self.timers.retain(|t| t.slot != slot);
        for fd in self.slots[slot].watched.drain(..) {
            // A descriptor that is already gone from the set needs no removing.
            let _ = self.epoll.delete(fd.as_fd());
        }
    }

    fn end_sources(&mut self) -> Result<(), Failure> {
        for i in 0..self.slots.len() {
            if self.slots[i].flags.source && !self.slots[i].flags.ended.get() {
                self.call(i, |_, context| context.end_all())?;
            }
        }
        Ok(())
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // Where an element panicked: a domain that waits for room here must not wait for ever.
        self.close_rings();
    }
}
