//! What an element registers as it starts: descriptors, timers, wakers.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::element::{Failure, FailureKind};
use crate::frame::Timestamp;
use crate::ring::Bell;

use super::waker::{Calls, Waker};

/// Kept until its element stops.
pub(super) type Watched = Arc<dyn AsFd + Send + Sync>;

/// What a descriptor is ready for; nothing at all where a [`Waker`] called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Events {
    /// EPOLLIN.
    pub readable: bool,
    /// EPOLLOUT, where it is watched for.
    pub writable: bool,
    /// EPOLLPRI: an event of a V4L2 device.
    pub priority: bool,
    /// EPOLLERR or EPOLLHUP.
    pub error: bool,
}

/// What an element can register as it starts.
pub struct Start<'a> {
    pub(super) slot: usize,
    pub(super) watched: &'a mut Vec<Watched>,
    pub(super) epoll: &'a Arc<Epoll>,
    pub(super) wakers: &'a mut Vec<(Arc<Calls>, usize, u32)>,
    pub(super) ticks: &'a mut Vec<Tick>,
    pub(super) alarms: &'a mut Vec<Due>,
    pub(super) bell: &'a Arc<Bell>,
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

/// A descriptor that is watched as the element says.
pub struct Watch {
    epoll: Arc<Epoll>,
    fd: Watched,
    data: u64,
    on: bool,
    /// What for when it is on, and when it is not.
    flags: (EpollFlags, EpollFlags),
}

impl Watch {
    /// Has `ready` called while the descriptor is readable, or not any more. A system call where that is a change. Errors
    /// of the descriptor are told either way.
    ///
    /// One of [`Start::watch_priority`] that is off is still told all that is new, once: for a device that may be in error
    /// for as long as it has nothing to do.
    ///
    /// # Errors
    /// That of epoll_ctl(2).
    pub fn set(&mut self, on: bool) -> Result<(), Failure> {
        if on != self.on {
            let mut event = EpollEvent::new(if on { self.flags.0 } else { self.flags.1 }, self.data);
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

/// Calls `ready` again and again.
pub(super) struct Tick {
    pub(super) clock: Arc<TimerFd>,
    pub(super) slot: usize,
    pub(super) token: u32,
}

/// In an event's data, that the rest of it is the number of a tick.
pub(super) const TICK: u64 = 1 << 63;

/// Calls `ready` when an alarm goes off.
#[derive(Clone)]
pub(super) struct Due {
    pub(super) at: Arc<AtomicU64>,
    pub(super) slot: usize,
    pub(super) token: u32,
}

pub(super) const NEVER: u64 = u64::MAX;

impl Start<'_> {
    /// Has `ready(token)` called while `fd` is readable (level-triggered), or in error. The descriptor is kept until
    /// the run ends, or the source has.
    ///
    /// # Errors
    /// That of epoll_ctl(2).
    pub fn watch(&mut self, fd: impl AsFd + Send + Sync + 'static, token: u32) -> Result<(), Failure> {
        self.register(fd, EpollFlags::EPOLLIN, token).map(drop)
    }

    /// As [`Start::watch`], when the element says, for those whose news can mostly wait: not yet, to begin with.
    ///
    /// # Errors
    /// That of epoll_ctl(2).
    pub fn watch_at_times(&mut self, fd: impl AsFd + Send + Sync + 'static, token: u32) -> Result<Watch, Failure> {
        let flags = (EpollFlags::EPOLLIN, EpollFlags::empty());
        let (fd, data) = self.register(fd, flags.1, token)?;
        Ok(Watch { epoll: Arc::clone(self.epoll), fd, data, on: false, flags })
    }

    /// As [`Start::watch`], for EPOLLPRI too.
    ///
    /// # Errors
    /// That of epoll_ctl(2).
    pub fn watch_priority(&mut self, fd: impl AsFd + Send + Sync + 'static, token: u32) -> Result<Watch, Failure> {
        let on = EpollFlags::EPOLLIN | EpollFlags::EPOLLPRI;
        let (fd, data) = self.register(fd, on, token)?;
        let flags = (on, on | EpollFlags::EPOLLET);
        Ok(Watch { epoll: Arc::clone(self.epoll), fd, data, on: true, flags })
    }

    /// As [`Start::watch_priority`], for EPOLLOUT too, and edge-triggered: `ready` is called when something is new, and
    /// not again for what it left. For devices that are writable or in error for as long as they have nothing to do: a
    /// V4L2 output or memory-to-memory queue.
    ///
    /// # Errors
    /// That of epoll_ctl(2).
    pub fn watch_edges(&mut self, fd: impl AsFd + Send + Sync + 'static, token: u32) -> Result<(), Failure> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLPRI | EpollFlags::EPOLLET;
        self.register(fd, flags, token).map(drop)
    }

    fn register(
        &mut self,
        fd: impl AsFd + Send + Sync + 'static,
        flags: EpollFlags,
        token: u32,
    ) -> Result<(Watched, u64), Failure> {
        let data = (self.slot as u64) << 32 | u64::from(token);
        Ok((self.register_as(fd, flags, data)?, data))
    }

    fn register_as(
        &mut self,
        fd: impl AsFd + Send + Sync + 'static,
        flags: EpollFlags,
        data: u64,
    ) -> Result<Watched, Failure> {
        self.epoll.add(&fd, EpollEvent::new(flags, data)).map_err(|e| limit("epoll_ctl", e))?;
        let fd: Watched = Arc::new(fd);
        self.watched.push(Arc::clone(&fd));
        Ok(fd)
    }

    /// Has `ready(token)` called each `interval`, or later where the domain is busy: for watchdogs. Ticks that were
    /// missed are not made up for. A timerfd, which costs nothing between two ticks.
    ///
    /// # Errors
    /// That of timerfd_create(2), timerfd_settime(2) or epoll_ctl(2).
    pub fn every(&mut self, interval: Duration, token: u32) -> Result<(), Failure> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let clock = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(|e| limit("timerfd_create", e))?;
        // None at all would be no timer.
        let interval = Expiration::Interval(TimeSpec::from_duration(interval.max(Duration::from_nanos(1))));
        clock.set(interval, TimerSetTimeFlags::empty()).map_err(|e| limit("timerfd_settime", e))?;
        let clock = Arc::new(clock);
        self.register_as(Arc::clone(&clock), EpollFlags::EPOLLIN, TICK | self.ticks.len() as u64)?;
        self.ticks.push(Tick { clock, slot: self.slot, token });
        Ok(())
    }

    /// As [`Start::every`], once, when the element says. No descriptor and no system call: it is the time-out of the
    /// loop's own wait, to the millisecond.
    pub fn alarm(&mut self, token: u32) -> Alarm {
        let at = Arc::new(AtomicU64::new(NEVER));
        self.alarms.push(Due { at: Arc::clone(&at), slot: self.slot, token });
        Alarm(at)
    }

    /// Something that has `ready(token)` called from other threads, or from a buffer's release.
    pub fn waker(&mut self, token: u32) -> Waker {
        let calls = Arc::new(Calls::default());
        self.wakers.push((Arc::clone(&calls), self.slot, token));
        Waker::new(calls, Arc::clone(self.bell))
    }
}

pub(super) fn limit(call: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Limit, format!("{call} failed: {error}"))
}
