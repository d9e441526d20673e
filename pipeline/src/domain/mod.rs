//! A domain: the elements between queues, and the thread whose epoll loop runs them.
//!
//! Elements lie in topological order, so that whatever an element pushes to lies behind it. A push splits the slice
//! there and calls: no lookup, no lock, no allocation.

mod context;
mod start;
mod waker;

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::Sender;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::element::{Element, Failure, FailureKind};
use crate::frame::Timestamp;
use crate::graph::Node;
use crate::ring::{Bell, Item, Ring};
use crate::spin::Spin;

pub use context::Context;
pub(crate) use context::Target;
use context::{Flags, Slot};
pub use start::{Alarm, Events, Start, Watch};
use start::{Due, NEVER, TICK, Tick, limit};
use waker::Calls;
pub use waker::Waker;

/// What all domains of a run obey, asleep or not.
#[derive(Debug)]
pub(crate) struct Control {
    command: AtomicU8,
    bells: Vec<Arc<Bell>>,
    /// From which node to which, in topological order of the former.
    links: Vec<(usize, usize)>,
    /// The nodes that have said that their stream is another one.
    changed: Vec<AtomicBool>,
    owner: Sender<News>,
}

/// What the owner of a run is woken for.
#[derive(Debug)]
pub(crate) enum News {
    /// The thread of this domain is over.
    Over(usize),
    /// Everybody has been told to end, or to stop.
    Told,
}

impl Control {
    const END: u8 = 1;
    const STOP: u8 = 2;

    /// Of domains that are woken by these, so many nodes, and an owner.
    pub(crate) fn new(bells: Vec<Arc<Bell>>, nodes: usize, links: Vec<(usize, usize)>, owner: Sender<News>) -> Control {
        let changed = (0..nodes).map(|_| AtomicBool::new(false)).collect();
        Control { command: AtomicU8::new(0), bells, links, changed, owner }
    }

    /// Sources end; what is on its way arrives.
    pub(crate) fn end(&self) {
        self.say(Control::END);
    }

    /// As [`Control::end`], because of this node.
    fn change(&self, node: usize) {
        self.changed[node].store(true, Ordering::Relaxed);
        self.end();
    }

    /// Whether what `node` sends comes to one that has changed.
    fn leads_to_change(&self, node: usize) -> bool {
        let mut reached = vec![false; self.changed.len()];
        reached[node] = true;
        self.links.iter().any(|&(from, to)| {
            reached[to] |= reached[from];
            reached[from] && self.changed[to].load(Ordering::Relaxed)
        })
    }

    /// Every loop ends at its next step.
    pub(crate) fn stop(&self) {
        self.say(Control::STOP);
    }

    fn say(&self, command: u8) {
        if self.command.fetch_max(command, Ordering::Relaxed) < command {
            // Nobody listens where the owner has gone.
            let _ = self.owner.send(News::Told);
        }
        self.bells.iter().for_each(|bell| bell.ring());
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.get() >= Control::END
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.get() == Control::STOP
    }

    fn get(&self) -> u8 {
        self.command.load(Ordering::Relaxed)
    }
}

/// One thread's share of a graph.
pub(crate) struct Domain {
    pub(crate) slots: Vec<Slot>,
    /// Rings that lead here, and the slot and input that each feeds.
    pub(crate) rings: Vec<(Arc<Ring>, usize, usize)>,
    epoll: Arc<Epoll>,
    bell: Arc<Bell>,
    wakers: Vec<(Arc<Calls>, usize, u32)>,
    ticks: Vec<Tick>,
    alarms: Vec<Due>,
    control: Arc<Control>,
    spin: Spin,
    /// Another thread ended the last sleep, not a descriptor or the time: so looking again may do instead of the next.
    rung: bool,
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
            ticks: Vec::new(),
            alarms: Vec::new(),
            control,
            spin: Spin::new(),
            rung: false,
        })
    }

    /// Adds an element behind those there are. `limit` is how many frames a source may push.
    pub(crate) fn add(&mut self, node: usize, of: &mut Node, outputs: Vec<Target>, limit: Option<u64>) {
        let (name, stats, element) = (of.name.clone(), Arc::clone(&of.stats), of.lend());
        let source = element.ports().inputs.is_empty();
        let (control, bell) = (Arc::clone(&self.control), Arc::clone(&self.bell));
        let flags = Flags::new(node, source, limit.unwrap_or(u64::MAX), control, bell);
        self.slots.push(Slot { name, element, node, outputs, stats, flags, watched: Vec::new() });
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
                ticks: &mut self.ticks,
                alarms: &mut self.alarms,
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
        let mut result = self.caught(Domain::cycle);
        self.close_rings();
        for i in 0..self.slots.len() {
            let stopped = self.caught(|domain| {
                domain.stop_one(i);
                Ok(())
            });
            result = result.and(stopped);
        }
        result
    }

    /// A panic in an element is that element's failure; the others are still to be stopped.
    fn caught(&mut self, f: impl FnOnce(&mut Domain) -> Result<(), Failure>) -> Result<(), Failure> {
        // What it left half done is seen by its own `stop` alone: it is not started again.
        let panic = match catch_unwind(AssertUnwindSafe(|| f(self))) {
            Ok(result) => return result,
            Err(panic) => panic,
        };
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        let help = "that is a bug in this element, which is not tried again; please report it with these lines";
        let failure = Failure::new(FailureKind::Panic, format!("{text}\n{help}"));
        Err(match self.slots.iter().rfind(|s| s.stats.is_inside()) {
            Some(slot) => failure.at(&slot.name),
            None => failure,
        })
    }

    /// Why the run is to be negotiated anew, where an element has said so.
    pub(crate) fn take_change(&mut self) -> Option<Failure> {
        self.slots.iter_mut().find_map(|slot| slot.flags.changed.take().map(|failure| failure.at(&slot.name)))
    }

    fn close_rings(&self) {
        for (ring, ..) in &self.rings {
            ring.close();
        }
    }

    /// Stops the elements and forgets their descriptors.
    pub(crate) fn stop(&mut self) {
        for i in 0..self.slots.len() {
            self.stop_one(i);
        }
    }

    fn stop_one(&mut self, slot: usize) {
        let s = &mut self.slots[slot];
        s.stats.enter();
        s.element.stop();
        s.stats.leave();
        self.unwatch(slot);
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
            let busy = worked || self.rung && self.spin.until(|_| self.has_work());
            rounds = if busy { rounds + 1 } else { 0 };
            if busy && rounds % ROUNDS != 0 {
                continue;
            }
            let until_due = self.alarms_round()?;
            let sleeps = !busy && self.may_sleep();
            let timeout = if sleeps { until_due } else { EpollTimeout::ZERO };
            let result = self.epoll.wait(&mut events, timeout);
            self.bell.awake();
            let n = match result {
                Ok(n) => n,
                Err(nix::Error::EINTR) => 0,
                Err(e) => return Err(limit("epoll_wait", e)),
            };
            let mut rung = false;
            for event in &events[..n] {
                if event.data() == BELL {
                    rung = true;
                } else {
                    self.dispatch(event)?;
                }
            }
            if sleeps {
                self.rung = rung;
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
        self.rings.iter().any(|(r, ..)| !r.is_empty()) || self.wakers.iter().any(|(calls, ..)| calls.are_due())
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
            let (calls, slot, token) = &self.wakers[i];
            let (slot, token) = (*slot, *token);
            if calls.take() {
                worked = true;
                self.call(slot, |element, context| element.ready(token, Events::default(), context))?;
            }
        }
        Ok(worked)
    }

    /// Calls what is due, and says how long nothing more will be. Looks at the clock only where an alarm is set.
    fn alarms_round(&mut self) -> Result<EpollTimeout, Failure> {
        if self.alarms.iter().all(|alarm| alarm.at.load(Ordering::Relaxed) == NEVER) {
            return Ok(EpollTimeout::NONE);
        }
        let now = Timestamp::now();
        let (mut next, mut called) = (NEVER, false);
        for i in 0..self.alarms.len() {
            // A source that ends takes its alarms with it.
            let Some(alarm) = self.alarms.get(i) else { break };
            let due = alarm.at.load(Ordering::Relaxed);
            if due > now.0 {
                next = next.min(due);
                continue;
            }
            alarm.at.store(NEVER, Ordering::Relaxed);
            let (slot, token) = (alarm.slot, alarm.token);
            self.call(slot, |element, context| element.ready(token, Events::default(), context))?;
            called = true;
        }
        if called {
            // That took time, and may have set others.
            return Ok(EpollTimeout::ZERO);
        }
        // Rounded up, so that the last millisecond does not become a busy loop.
        let left = Timestamp(next).since(now).div_ceil(1_000_000);
        Ok(EpollTimeout::try_from(left.min(i32::MAX as u64) as i32).unwrap_or(EpollTimeout::MAX))
    }

    fn dispatch(&mut self, event: &EpollEvent) -> Result<(), Failure> {
        let data = event.data();
        if data & TICK != 0 {
            return self.tick((data & !TICK) as usize);
        }
        let (slot, token) = ((data >> 32) as usize, data as u32);
        let flags = event.events();
        let events = Events {
            readable: flags.contains(EpollFlags::EPOLLIN),
            writable: flags.contains(EpollFlags::EPOLLOUT),
            priority: flags.contains(EpollFlags::EPOLLPRI),
            error: flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP),
        };
        self.call(slot, |element, context| element.ready(token, events, context))
    }

    #[cold]
    fn tick(&mut self, number: usize) -> Result<(), Failure> {
        let Tick { clock, slot, token } = &self.ticks[number];
        let (slot, token) = (*slot, *token);
        // Which starts it again. It has gone off, and nobody else reads it.
        let _ = clock.wait();
        self.call(slot, |element, context| element.ready(token, Events::default(), context))
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
        context.stats.enter();
        let result = f(element, &mut context);
        context.stats.leave();
        result.map_err(|f| f.at(&self.slots[slot].name))?;
        let flags = &self.slots[slot].flags;
        if flags.source && flags.ended.get() && !was_ended {
            // Its device goes on being ready, which is nobody's business any more.
            self.unwatch(slot);
        }
        Ok(())
    }

    fn unwatch(&mut self, slot: usize) {
        self.alarms.retain(|alarm| alarm.slot != slot);
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
