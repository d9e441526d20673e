//! One consumer, as its producer sees it: what it may hold, what it holds, and what waits for it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::buffer::Shrbuf;
use crate::pool::MAX_BUFFERS;
use crate::state::State;
use crate::sys::seqpacket;

use super::message::{ConsumerStatus, FrameInfo, NAME, Policy, Reason, ToConsumer};
use super::packet::Packet;

/// A monitor may ask again after this time, in ns.
const ASK_AGAIN: u64 = 20_000_000;
/// Messages of an answer that are sent at once.
const ANSWERS: usize = 32;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// The peer closed it, by whatever way it ended.
    Gone,
    /// We do, and say why.
    Because(Reason),
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has said nothing yet.
    Silent,
    /// It is being told of the buffers.
    Told,
    /// It has them all.
    Ready,
    /// It takes frames.
    Started,
    /// It takes no more, and gives back what it has.
    Stopped,
    /// It asks questions.
    Monitor,
}

/// A frame on its way to a consumer.
pub(super) struct Waiting {
    pub(super) index: usize,
    pub(super) buffer: Shrbuf,
    pub(super) info: FrameInfo,
}

struct Held {
    buffer: Shrbuf,
    since: u64,
}

pub(super) struct Peer {
    pub(super) socket: OwnedFd,
    pub(super) id: u32,
    pub(super) pid: u32,
    pub(super) uid: u32,
    pub(super) name: [u8; NAME],
    pub(super) phase: Phase,
    pub(super) policy: Policy,
    pub(super) window: u32,
    /// Frames that may wait where the policy drops the oldest.
    pub(super) depth: usize,
    pub(super) since: u64,
    /// When a monitor last asked.
    asked: u64,
    /// What a monitor has asked for and its socket had no room for yet.
    pub(super) answers: VecDeque<ToConsumer>,
    /// Whether the producer is woken by what it says; by its end always.
    watched: bool,
    held: [Option<Held>; MAX_BUFFERS],
    in_flight: u32,
    waiting: VecDeque<Waiting>,
    sent: u64,
    released: u64,
    dropped: u64,
    skipped: u64,
}

impl Peer {
    pub(super) fn new(socket: OwnedFd, id: u32, pid: u32, uid: u32, since: u64) -> Peer {
        Peer {
            socket,
            id,
            pid,
            uid,
            name: [0; NAME],
            phase: Phase::Silent,
            policy: Policy::Latest,
            window: 0,
            depth: 0,
            since,
            asked: 0,
            answers: VecDeque::new(),
            watched: true,
            held: [const { None }; MAX_BUFFERS],
            in_flight: 0,
            // As many as there can be buffers, so that it never grows.
            waiting: VecDeque::with_capacity(MAX_BUFFERS),
            sent: 0,
            released: 0,
            dropped: 0,
            skipped: 0,
        }
    }

    pub(super) fn send(&self, message: &ToConsumer, packet: &mut Packet) -> Result<(), Close> {
        sent(seqpacket::send(self.socket.as_fd(), message.encode(packet), &[]))
    }

    /// What is to be watched of its socket.
    pub(super) fn interest(&self) -> EpollEvent {
        let flags = match (self.watched, self.answers.is_empty()) {
            (true, true) => EpollFlags::EPOLLIN,
            // It has nothing to say before it has read its answer.
            (_, false) => EpollFlags::EPOLLOUT,
            (false, true) => EpollFlags::empty(),
        };
        EpollEvent::new(flags, u64::from(self.id))
    }

    pub(super) fn watch(&mut self, epoll: &Epoll, watched: bool) -> Result<(), Close> {
        if self.watched != watched {
            self.watched = watched;
            epoll.modify(&self.socket, &mut self.interest()).map_err(|_| Close::Because(Reason::Resources))?;
        }
        Ok(())
    }

    /// Holds something that it may have given back unnoticed.
    pub(super) fn is_behind(&self) -> bool {
        !self.watched && self.in_flight > 0
    }

    /// Holds as much as it may.
    pub(super) fn is_full(&self) -> bool {
        self.in_flight >= self.window
    }

    /// A monitor asks, and not too often.
    pub(super) fn may_ask(&mut self, now: u64) -> Result<(), Close> {
        if now.saturating_sub(self.asked) < ASK_AGAIN {
            return Err(Close::Because(Reason::Rate));
        }
        self.asked = now;
        Ok(())
    }

    /// Tells a monitor what it has asked for, as far as its socket has room; the rest when it has more. No more than a few
    /// messages at once, since frames may be waiting to be sent.
    pub(super) fn answer(&mut self, epoll: &Epoll, packet: &mut Packet) -> Result<(), Close> {
        for _ in 0..ANSWERS {
            let Some(answer) = self.answers.front() else { break };
            match seqpacket::send(self.socket.as_fd(), answer.encode(packet), &[]) {
                Ok(()) => drop(self.answers.pop_front()),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(e) => return sent(Err(e)),
            }
        }
        epoll.modify(&self.socket, &mut self.interest()).map_err(|_| Close::Because(Reason::Resources))
    }

    /// Sends a frame, has it wait, or drops it, as the policy says; whether it was sent.
    pub(super) fn offer(&mut self, frame: Waiting, now: u64, packet: &mut Packet) -> Result<bool, Close> {
        if self.waiting.is_empty() && self.has_room(frame.index) {
            return self.transmit(frame, now, packet).map(|()| true);
        }
        let most = match self.policy {
            Policy::Block => MAX_BUFFERS,
            Policy::DropOldest => self.depth.max(1),
            Policy::Latest => 1,
        };
        while self.waiting.len() >= most.min(MAX_BUFFERS) {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(frame);
        Ok(false)
    }

    fn has_room(&self, index: usize) -> bool {
        !self.is_full() && self.held[index].is_none()
    }

    fn transmit(&mut self, frame: Waiting, now: u64, packet: &mut Packet) -> Result<(), Close> {
        let Waiting { index, buffer, info } = frame;
        let state = if info.corrupt { State::Corrupt } else { buffer.state() };
        self.send(&ToConsumer::Frame { buffer: index as u32, state, dropped: self.dropped, info }, packet)?;
        self.held[index] = Some(Held { buffer, since: now });
        self.in_flight += 1;
        self.sent += 1;
        Ok(())
    }

    /// The consumer gives a buffer back. What waits may go now.
    pub(super) fn release(&mut self, index: u32, skipped: bool, now: u64, packet: &mut Packet) -> Result<(), Close> {
        let held = self.held.get_mut(index as usize).and_then(Option::take);
        let held = held.ok_or(Close::Because(Reason::Protocol))?;
        self.in_flight -= 1;
        self.released += 1;
        self.skipped += u64::from(skipped);
        drop(held);
        while let Some(next) = self.waiting.front().map(|w| w.index)
            && self.has_room(next)
            && let Some(frame) = self.waiting.pop_front()
        {
            self.transmit(frame, now, packet)?;
        }
        Ok(())
    }

    /// Takes no more frames.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Stopped;
        self.waiting.clear();
    }

    /// The state of a buffer that it has, or that waits for it.
    pub(super) fn state_of(&self, index: usize) -> Option<State> {
        let held = self.held[index].as_ref().map(|h| &h.buffer);
        let buffer = held.or_else(|| self.waiting.iter().find(|w| w.index == index).map(|w| &w.buffer));
        buffer.map(Shrbuf::state)
    }

    /// Tells the state of a buffer, if the consumer has it.
    pub(super) fn tell_state(&self, index: usize, packet: &mut Packet) -> Result<(), Close> {
        match &self.held[index] {
            Some(held) => self.send(&ToConsumer::State { buffer: index as u32, state: held.buffer.state() }, packet),
            None => Ok(()),
        }
    }

    /// Frames that wait and will not be dropped.
    pub(super) fn owed(&self) -> usize {
        if self.policy == Policy::Block { self.waiting.len() } else { 0 }
    }

    /// Frames sent and frames dropped.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.sent, self.dropped)
    }

    pub(super) fn status(&self) -> ConsumerStatus {
        ConsumerStatus {
            id: self.id,
            pid: self.pid,
            uid: self.uid,
            name: self.name,
            policy: self.policy,
            started: self.phase == Phase::Started,
            window: self.window,
            pending: self.waiting.len() as u32,
            since: self.since,
            sent: self.sent,
            released: self.released,
            dropped: self.dropped,
            skipped: self.skipped,
            held_since: std::array::from_fn(|i| self.held[i].as_ref().map_or(0, |h| h.since)),
        }
    }
}

/// What a failure to send means for the connection.
pub(super) fn sent(result: std::io::Result<()>) -> Result<(), Close> {
    result.map_err(|e| match e.kind() {
        // A consumer that keeps to its window leaves room in its socket.
        std::io::ErrorKind::WouldBlock => Close::Because(Reason::Resources),
        // Descriptors in flight are counted against the user (ETOOMANYREFS).
        _ if e.raw_os_error() == Some(libc::ETOOMANYREFS) => Close::Because(Reason::Resources),
        _ => Close::Gone,
    })
}
