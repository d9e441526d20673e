//! One consumer, as its producer sees it: what it may hold, what it holds, and what waits for it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::buffer::Shrbuf;
use crate::pool::MAX_BUFFERS;
use crate::state::State;
use crate::sys::seqpacket;

use super::channel::Channel;
use super::message::{ConsumerStatus, FrameInfo, NAME, Policy, Reason, ToConsumer};
use super::packet::Packet;
use super::releases::{Ear, Returned};
use super::slots::Outgoing;
use super::wire::OLDEST;

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
    /// It was sent before it was filled, and the consumer has yet to hear that it is.
    filling: bool,
}

pub(super) struct Peer {
    pub(super) socket: OwnedFd,
    pub(super) id: u32,
    /// Of the protocol, that both speak.
    pub(super) version: u32,
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
    /// Buffers that it was told of at first.
    pub(super) told: u32,
    /// How many since, each just before the first frame in it.
    late: u32,
    /// All that it has been told of, a bit for each number.
    knows: u64,
    /// What frames go by and come back by, once it has been told of the buffers.
    pub(super) channel: Option<Channel>,
    ear: Ear,
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
            version: OLDEST,
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
            told: 0,
            late: 0,
            knows: 0,
            channel: None,
            ear: Ear::default(),
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

    /// Sends what comes by the pipe, where there is one.
    fn record(&self, record: &ToConsumer, packet: &mut Packet) -> Result<(), Close> {
        let written = self.channel.as_ref().and_then(|channel| channel.write(record.encode(packet)));
        written.map_or_else(|| self.send(record, packet), sent)
    }

    /// What is to be watched of its socket.
    pub(super) fn interest(&self) -> EpollEvent {
        // It has nothing to say before it has read its answer.
        let flags = if self.answers.is_empty() { EpollFlags::EPOLLIN } else { EpollFlags::EPOLLOUT };
        EpollEvent::new(flags, u64::from(self.id))
    }

    /// Tells it of a buffer, so that it imports it.
    pub(super) fn tell(&mut self, index: usize, out: &mut Outgoing<'_>) -> Result<(), Close> {
        let (message, fds) = out.slots[index].message(index);
        sent(seqpacket::send(self.socket.as_fd(), message.encode(out.packet), &fds))?;
        self.knows |= 1 << index;
        Ok(())
    }

    /// Another buffer has this number from now on, of which it is told where a frame in it goes there. One that takes none, or does
    /// not read, so has no more to read than its window, nor descriptors that the kernel counts against this user.
    pub(super) fn forget(&mut self, index: usize) {
        self.knows &= !(1 << index);
    }

    /// It has closed, by whatever way it ended, though some of what it said before may be unread.
    pub(super) fn has_gone(&self) -> bool {
        // Where there is no saying it is read as any other.
        crate::poll::hung_up(self.socket.as_fd()).unwrap_or(false)
    }

    /// It has been told of buffers, or is about to be.
    pub(super) fn is_consumer(&self) -> bool {
        !matches!(self.phase, Phase::Silent | Phase::Monitor)
    }

    /// It takes frames, or has some to give back.
    pub(super) fn takes_part(&self) -> bool {
        matches!(self.phase, Phase::Started | Phase::Stopped)
    }

    /// Holds as much as it may.
    fn is_full(&self) -> bool {
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

    /// Sends a frame, has it wait, or drops it, as the policy says. What has been given back is looked at first only where
    /// there would be no room, so that the frame is on its way the sooner.
    pub(super) fn offer(&mut self, frame: Waiting, out: &mut Outgoing<'_>) -> Result<(), Close> {
        if !self.takes(frame.index) {
            self.collect(out)?;
        }
        if self.takes(frame.index) {
            return self.transmit(frame, out);
        }
        let most = match self.policy {
            Policy::Block => MAX_BUFFERS,
            Policy::DropOldest => self.depth.max(1),
            Policy::Latest => 1,
        };
        self.shed(most.min(MAX_BUFFERS) - 1);
        self.waiting.push_back(frame);
        Ok(())
    }

    /// Drops the oldest frames that wait, but for so many; counted on both sides.
    pub(super) fn shed(&mut self, most: usize) {
        let too_many = self.waiting.len().saturating_sub(most);
        if too_many == 0 {
            return;
        }
        self.waiting.drain(..too_many);
        self.dropped += too_many as u64;
        if let Some(channel) = &self.channel {
            channel.page.tell_dropped(self.dropped);
        }
    }

    /// A frame in such a buffer may go there at once.
    fn takes(&self, index: usize) -> bool {
        self.waiting.is_empty() && self.has_room(index)
    }

    fn has_room(&self, index: usize) -> bool {
        !self.is_full() && self.held[index].is_none()
    }

    fn transmit(&mut self, frame: Waiting, out: &mut Outgoing<'_>) -> Result<(), Close> {
        let Waiting { index, buffer, info } = frame;
        if self.knows & 1 << index == 0 {
            self.tell(index, out)?;
            self.late = self.late.wrapping_add(1);
        }
        let state = if info.corrupt { State::Corrupt } else { buffer.state() };
        let (buffer_index, dropped, late) = (index as u32, self.dropped, self.late);
        self.record(&ToConsumer::Frame { buffer: buffer_index, state, dropped, info, late }, out.packet)?;
        self.held[index] = Some(Held { buffer, since: out.now, filling: state == State::Filling });
        self.in_flight += 1;
        self.sent += 1;
        Ok(())
    }

    /// Takes what the consumer has given back. What waits may go now.
    pub(super) fn collect(&mut self, out: &mut Outgoing<'_>) -> Result<(), Close> {
        let Some(channel) = &self.channel else { return Ok(()) };
        let Returned { mut buffers, skipped } = channel.page.take();
        self.skipped += u64::from(skipped.count_ones());
        while buffers != 0 {
            let held = self.held[buffers.trailing_zeros() as usize].take();
            buffers &= buffers - 1;
            drop(held.ok_or(Close::Because(Reason::Protocol))?);
            self.in_flight -= 1;
            self.released += 1;
        }
        while let Some(next) = self.waiting.front().map(|w| w.index)
            && self.has_room(next)
            && let Some(frame) = self.waiting.pop_front()
        {
            self.transmit(frame, out)?;
        }
        Ok(())
    }

    /// Has the consumer wake the producer as it gives something back, if that is needed: `at_once`, or for what waits, or
    /// because no more frames go there, with which it would be noticed.
    pub(super) fn listen(&mut self, at_once: bool, out: &mut Outgoing<'_>) -> Result<(), Close> {
        let Some(channel) = &self.channel else { return Ok(()) };
        let wanted = at_once || !self.waiting.is_empty() || self.phase == Phase::Stopped;
        if self.ear.listen(&channel.page, wanted && self.in_flight > 0) { self.collect(out) } else { Ok(()) }
    }

    /// The consumer has woken the producer: once for each frame at most that it has given back.
    pub(super) fn woken(&mut self, out: &mut Outgoing<'_>) -> Result<(), Close> {
        let wakes = self.ear.woken();
        self.collect(out)?;
        if wakes <= self.released { Ok(()) } else { Err(Close::Because(Reason::Protocol)) }
    }

    /// Takes no more frames.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Stopped;
        self.shed(0);
    }

    /// The state of a buffer that it has, or that waits for it.
    pub(super) fn state_of(&self, index: usize) -> Option<State> {
        let held = self.held[index].as_ref().map(|h| &h.buffer);
        let buffer = held.or_else(|| self.waiting.iter().find(|w| w.index == index).map(|w| &w.buffer));
        buffer.map(Shrbuf::state)
    }

    /// Tells the state of a buffer, if the consumer has it and it was not filled as it went there.
    pub(super) fn tell_state(&mut self, index: usize, packet: &mut Packet) -> Result<(), Close> {
        let Some(held) = self.held[index].as_mut().filter(|held| held.filling) else { return Ok(()) };
        held.filling = false;
        let state = ToConsumer::State { buffer: index as u32, state: held.buffer.state() };
        self.record(&state, packet)
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
        // A consumer that keeps to its window leaves room in its socket and its pipe.
        std::io::ErrorKind::WouldBlock => Close::Because(Reason::Resources),
        // Descriptors in flight are counted against the user (ETOOMANYREFS).
        _ if e.raw_os_error() == Some(libc::ETOOMANYREFS) => Close::Because(Reason::Resources),
        _ => Close::Gone,
    })
}
