//! The producer's side: who is connected, and one frame to all of them.
//!
//! Everything happens on the thread that calls, and nothing blocks: one descriptor says when [`Producer::ready`] is to be
//! called. What a frame costs is a write(2); one for a consumer that lags waits here, and goes out as another is given back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::geteuid;

use crate::buffer::Shrbuf;
use crate::state::State;
use crate::sys::seqpacket;

use super::arrivals::Arrivals;
use super::channel::Channel;
use super::message::{FrameInfo, Overview, Policy, Reason, Role, ToConsumer, ToProducer, Welcome};
use super::options::{Counts, Options, Returns};
use super::packet::Packet;
use super::path::Listener;
use super::peer::{Close, Peer, Phase, Waiting, sent};
use super::slots::{Outgoing, STATE, Slots};
use super::wire::{OLDEST, VERSION};
use super::{Announced, IpcError, now};

const LISTENER: u64 = u64::MAX;
/// The listener is to be watched again.
const RESTED: u64 = u64::MAX - 1;
/// More than any message that a consumer may send has: what is longer is not whole.
const LONGEST: usize = 64;
/// Events taken at once.
const EVENTS: usize = 32;
/// Connections beyond the consumers': monitors, and those who have yet to say what they are.
const OTHERS: usize = 4;

/// Frames for other processes, at a socket.
pub struct Producer {
    epoll: Epoll,
    listener: Listener,
    arrivals: Arrivals,
    options: Options,
    rate: Option<(u32, u32)>,
    slots: Slots,
    peers: Vec<Peer>,
    next_id: u32,
    /// User that it listens as, which is who it is for its consumers whatever becomes of the process.
    user: u32,
    counts: Counts,
    since: u64,
    packet: Packet,
    /// Given up for a moment where there is no other descriptor left, so that a connection can be refused.
    spare: Option<OwnedFd>,
}

impl Producer {
    /// Listens at `path` for consumers of frames in the announced buffers, at `rate` frames a second (numerator and
    /// denominator) where there is one.
    ///
    /// # Errors
    /// [`IpcError::InUse`] where another producer listens, [`IpcError::NoPlace`], [`IpcError::Taken`], [`IpcError::NoLock`] where
    /// the path will not do, [`IpcError::Options`], and the kernel's.
    pub fn bind(
        path: &Path,
        options: Options,
        announced: Vec<Announced>,
        rate: Option<(u32, u32)>,
    ) -> Result<Producer, IpcError> {
        options.check(announced.len())?;
        let listener = Listener::bind(path, options.mode)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(IpcError::os("epoll_create1"))?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
        epoll.add(&listener.socket, event).map_err(IpcError::os("epoll_ctl"))?;
        let arrivals = Arrivals::new(options.arrivals, 2 * (options.consumers + OTHERS as u32))?;
        epoll.add(&arrivals, EpollEvent::new(EpollFlags::EPOLLIN, RESTED)).map_err(IpcError::os("epoll_ctl"))?;
        let spare = epoll.0.try_clone().map_err(IpcError::os("dup"))?;
        Ok(Producer {
            epoll,
            listener,
            arrivals,
            rate,
            slots: Slots::new(announced),
            peers: Vec::with_capacity(options.consumers as usize + OTHERS),
            options,
            next_id: 1,
            user: geteuid().as_raw(),
            counts: Counts::default(),
            since: now(),
            packet: Packet::default(),
            spare: Some(spare),
        })
    }

    /// Sends a frame to every consumer that has started: at once, or when it has room, or not at all, as its policy says.
    /// Each holds a reference until it gives the buffer back or its connection ends. Returns for how many it was.
    ///
    /// # Errors
    /// [`IpcError::NotAnnounced`].
    pub fn send(&mut self, buffer: &Shrbuf, info: &FrameInfo) -> Result<usize, IpcError> {
        let index = self.slots.number_of(buffer)?;
        if buffer.state() == State::Filling {
            self.slots.watch_state(index, buffer, &self.epoll)?;
        }
        let at_once = self.at_once();
        let mut takers = 0;
        self.each(|peer, out| {
            if !peer.takes_part() {
                return Ok(());
            }
            if peer.phase == Phase::Started {
                takers += 1;
                peer.offer(Waiting { index, buffer: buffer.clone(), info: *info }, out)?;
            }
            peer.collect(out)?;
            peer.listen(at_once, out)
        });
        if takers > 0 {
            self.counts.frames += 1
        } else {
            self.counts.unseen += 1
        }
        Ok(takers)
    }

    /// Has frames come in one buffer more, of the kind of those before, or in the place of one that is gone. A consumer is told of
    /// it with the first frame in it that goes there. Buffers are best all announced from the start, as consumers then import them
    /// before anything streams.
    ///
    /// # Errors
    /// [`IpcError::Unlike`], [`IpcError::TooMany`].
    pub fn announce(&mut self, announced: Announced) -> Result<(), IpcError> {
        let index = self.slots.place(announced)?;
        self.peers.iter_mut().for_each(|peer| peer.forget(index));
        Ok(())
    }

    /// Begins anew with other frames, in these buffers alone: another format or size, or memory of another device. Consumers hear
    /// that they have changed ([`Next::Changed`](super::Next::Changed)), and whoever connects is told of these; those who have
    /// connected meanwhile have waited. Lets go of all buffers of before, which must not be written again until then. Returns how
    /// many have heard of it of those who took frames and must have every one ([`Policy::Block`]): for whoever waits for them to
    /// come again, as others would hold everybody up by not coming, and miss nothing that they may not.
    ///
    /// # Errors
    /// [`IpcError::Options`].
    pub fn change(&mut self, announced: Vec<Announced>, rate: Option<(u32, u32)>) -> Result<usize, IpcError> {
        self.options.check(announced.len())?;
        let (packet, counts, mut told) = (&mut self.packet, &mut self.counts, 0);
        self.peers.retain_mut(|peer| {
            if !peer.is_consumer() {
                return true;
            }
            let heard = farewell(peer, Close::Because(Reason::Changed), packet, counts);
            told += usize::from(heard && peer.phase == Phase::Started && peer.policy == Policy::Block);
            false
        });
        self.slots.replace(announced, &self.epoll);
        self.rate = rate;
        Ok(told)
    }

    /// Deals with whatever has come: connections, buffers given back, the end of consumers. To be called whenever the
    /// descriptor is readable; does not block.
    ///
    /// # Errors
    /// That of epoll_wait(2); no peer causes one.
    pub fn ready(&mut self) -> Result<(), IpcError> {
        self.poll(EpollTimeout::ZERO)
    }

    /// **Blocks** until something has come, or `timeout` is over, and deals with it.
    ///
    /// # Errors
    /// As [`Producer::ready`].
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<(), IpcError> {
        self.poll(timeout.map_or(EpollTimeout::NONE, |t| EpollTimeout::try_from(t).unwrap_or(EpollTimeout::MAX)))
    }

    /// Consumers that take frames.
    pub fn consumers(&self) -> usize {
        self.peers.iter().filter(|p| p.phase == Phase::Started).count()
    }

    /// Frames that wait for consumers whose policy is [`Policy::Block`].
    pub fn owed(&self) -> usize {
        self.peers.iter().map(|p| p.owed()).sum()
    }

    /// What has been done so far.
    pub fn counts(&self) -> Counts {
        self.peers.iter().map(|p| p.counts()).fold(self.counts, |counts, (sent, dropped)| Counts {
            sent: counts.sent + sent,
            dropped: counts.dropped + dropped,
            ..counts
        })
    }

    /// Tells all consumers that the stream has ended, and lets go of everything. Without it they learn only that the
    /// producer has gone.
    pub fn end(&mut self) {
        self.each(|_, _| Err(Close::Because(Reason::Ended)));
    }

    fn at_once(&self) -> bool {
        self.options.returns == Returns::AtOnce
    }

    /// Calls `f` with every connection, and closes those for which it says so.
    fn each(&mut self, mut f: impl FnMut(&mut Peer, &mut Outgoing<'_>) -> Result<(), Close>) {
        let mut out = Outgoing { slots: &self.slots, packet: &mut self.packet, now: now() };
        let counts = &mut self.counts;
        self.peers.retain_mut(|peer| match f(peer, &mut out) {
            Ok(()) => true,
            Err(close) => {
                farewell(peer, close, out.packet, counts);
                false
            }
        });
    }

    fn poll(&mut self, timeout: EpollTimeout) -> Result<(), IpcError> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let n = match self.epoll.wait(&mut events, timeout) {
            Ok(n) => n,
            Err(nix::Error::EINTR) => 0,
            Err(e) => return Err(IpcError::os("epoll_wait")(e)),
        };
        let mut called = false;
        for event in &events[..n] {
            match event.data() {
                LISTENER => called = true,
                RESTED => {
                    self.arrivals.rested();
                    self.listen(true);
                }
                data if data & STATE != 0 => self.state_changed((data & !STATE) as usize),
                id => self.serve(id as u32),
            }
        }
        // Last, so that one who has died and comes again finds its place free.
        if called {
            self.accept();
        }
        Ok(())
    }

    /// Tells those who have the buffer once it is filled, after which nothing about it is worth a wake-up. The first event
    /// may be about a change from before it was watched.
    fn state_changed(&mut self, index: usize) {
        if self.peers.iter().find_map(|p| p.state_of(index)) == Some(State::Filling) {
            return;
        }
        self.each(|peer, out| peer.tell_state(index, out.packet));
        self.slots.ignore_state(index, &self.epoll);
    }

    fn listen(&mut self, watched: bool) {
        let flags = if watched { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
        // It is registered for as long as there is a producer, so there is nothing that could fail.
        let _ = self.epoll.modify(&self.listener.socket, &mut EpollEvent::new(flags, LISTENER));
    }

    fn accept(&mut self) {
        match seqpacket::accept(self.listener.socket.as_fd()) {
            Ok(socket) => self.welcome(socket),
            Err(nix::Error::EMFILE | nix::Error::ENFILE) => {
                // Or the listener would stay ready, and we would never sleep again.
                self.spare = None;
                self.counts.refused += u64::from(seqpacket::accept(self.listener.socket.as_fd()).is_ok());
                self.spare = self.epoll.0.try_clone().ok();
            }
            // One that has gone again meanwhile.
            Err(_) => {}
        }
    }

    /// Takes a connection, or refuses it.
    fn welcome(&mut self, socket: OwnedFd) {
        let Ok(who) = getsockopt(&socket, PeerCredentials) else { return };
        let mut peer = Peer::new(socket, self.next_id, who.pid() as u32, who.uid(), now());
        let most = self.options.consumers as usize + OTHERS;
        let refused = if !self.arrivals.may_come(who.uid(), peer.since) {
            // Without a timer the next one would not be looked at.
            self.listen(self.arrivals.rest().is_err());
            Some(Reason::Rate)
        } else if !self.options.users.is_empty() && !self.options.users.contains(&who.uid()) {
            Some(Reason::NotAllowed)
        } else {
            if self.peers.len() >= most {
                let gone = self.make_room(Close::Gone, Peer::has_gone);
                gone.or_else(|| self.make_room(Close::Because(Reason::Full), |peer| peer.phase == Phase::Silent));
            }
            if self.peers.len() >= most {
                Some(Reason::Full)
            } else {
                self.epoll.add(&peer.socket, peer.interest()).err().map(|_| Reason::Resources)
            }
        };
        match refused {
            Some(reason) => {
                farewell(&mut peer, Close::Because(reason), &mut self.packet, &mut self.counts);
            }
            None => {
                self.peers.push(peer);
                // After 2^32 connections an early one may still be there.
                while self.peers.iter().any(|p| p.id == self.next_id) {
                    self.next_id = self.next_id.wrapping_add(1);
                }
            }
        }
    }

    /// Closes the oldest connection that gives way to a newcomer, if there is one; where it was. One that has gone, though not all
    /// that it said is read, keeps nobody out, nor does somebody who connects and then keeps silent.
    fn make_room(&mut self, close: Close, gives_way: impl Fn(&Peer) -> bool) -> Option<usize> {
        let at = self.peers.iter().position(gives_way)?;
        let mut peer = self.peers.remove(at);
        farewell(&mut peer, close, &mut self.packet, &mut self.counts);
        Some(at)
    }

    /// Finds a place for peer `at`, which says what it is; where that peer is then.
    fn admit(&mut self, at: usize, role: Role) -> Result<usize, Close> {
        let is = |wanted: Role| {
            move |phase| match phase {
                Phase::Silent => false,
                Phase::Monitor => wanted == Role::Monitor,
                _ => wanted == Role::Consumer,
            }
        };
        let most = if role == Role::Monitor { OTHERS } else { self.options.consumers as usize };
        if self.peers.iter().filter(|p| is(role)(p.phase)).count() < most {
            return Ok(at);
        }
        let full = Close::Because(Reason::Full);
        let gone = self.make_room(Close::Gone, |peer| is(role)(peer.phase) && peer.has_gone());
        let told = |peer: &Peer| role == Role::Consumer && peer.phase == Phase::Told;
        let gone = gone.or_else(|| self.make_room(full, told)).ok_or(full)?;
        Ok(if gone < at { at - 1 } else { at })
    }

    /// Reads a message of peer `id`, or goes on answering it; for more than one the descriptor is ready again, after the
    /// others had their turn.
    fn serve(&mut self, id: u32) {
        // It may have been closed by an event before this one.
        if let Some(at) = self.place(id) {
            let peer = &mut self.peers[at];
            let read =
                if peer.answers.is_empty() { self.message(at) } else { peer.answer(&self.epoll, &mut self.packet) };
            self.ended(id, read);
        }
    }

    /// Closes a peer where that is what reading from it has come to.
    fn ended(&mut self, id: u32, read: Result<(), Close>) {
        if let Err(close) = read
            // Another may have given way to it meanwhile.
            && let Some(at) = self.place(id)
        {
            let mut peer = self.peers.remove(at);
            farewell(&mut peer, close, &mut self.packet, &mut self.counts);
        }
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.peers.iter().position(|p| p.id == id)
    }

    /// Reads and obeys one message, if there is one.
    fn message(&mut self, at: usize) -> Result<(), Close> {
        let mut bytes = [0; LONGEST];
        match seqpacket::receive_plain(self.peers[at].socket.as_fd(), &mut bytes) {
            Ok((len, whole)) => self.obey(at, &bytes[..len], whole),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Close::Gone),
        }
    }

    fn obey(&mut self, at: usize, bytes: &[u8], whole: bool) -> Result<(), Close> {
        if bytes.is_empty() {
            return Err(Close::Gone);
        }
        let at_once = self.at_once();
        let peer = &mut self.peers[at];
        let out = &mut Outgoing { slots: &self.slots, packet: &mut self.packet, now: now() };
        let broken = Close::Because(Reason::Protocol);
        let message = if whole { ToProducer::parse(bytes).map_err(|_| broken)? } else { return Err(broken) };
        match (peer.phase, message) {
            (Phase::Silent, ToProducer::Hello { version, role, policy, window, name }) => {
                if version < OLDEST {
                    return Err(Close::Because(Reason::Version));
                }
                let at = self.admit(at, role)?;
                let peer = &mut self.peers[at];
                peer.version = version.min(VERSION);
                peer.name = name;
                if role == Role::Monitor {
                    peer.phase = Phase::Monitor;
                    return Ok(());
                }
                let wish = policy.filter(|&p| p != Policy::Block).unwrap_or(self.options.policy);
                peer.policy = wish;
                peer.window = if window == 0 { self.options.window } else { window.min(self.options.window) };
                peer.depth = self.options.depth as usize;
                self.tell(at)?;
            }
            (Phase::Told, ToProducer::Ready { buffers }) if buffers == peer.told => {
                peer.phase = Phase::Ready;
            }
            (Phase::Ready, ToProducer::Start) => peer.phase = Phase::Started,
            (Phase::Started, ToProducer::Stop) => {
                peer.stop();
                peer.listen(at_once, out)?;
            }
            (Phase::Started | Phase::Stopped, ToProducer::Wake) => {
                peer.woken(out)?;
                peer.listen(at_once, out)?;
            }
            (Phase::Monitor, ToProducer::Query) => {
                peer.may_ask(out.now)?;
                let id = peer.id;
                self.each(|peer, out| peer.collect(out));
                let at = self.place(id).ok_or(Close::Gone)?;
                self.report(at);
                self.peers[at].answer(&self.epoll, &mut self.packet)?;
            }
            _ => return Err(broken),
        }
        Ok(())
    }

    /// What a consumer is granted, every buffer, and what frames come by.
    fn tell(&mut self, at: usize) -> Result<(), Close> {
        let peer = &mut self.peers[at];
        let welcome = Welcome {
            version: peer.version,
            id: peer.id,
            policy: peer.policy,
            window: peer.window,
            buffers: self.slots.len() as u32,
            rate: self.rate,
        };
        peer.send(&ToConsumer::Welcome(welcome), &mut self.packet)?;
        let out = &mut Outgoing { slots: &self.slots, packet: &mut self.packet, now: now() };
        (0..self.slots.len()).try_for_each(|index| peer.tell(index, out))?;
        let pipe = peer.uid == self.user;
        let (channel, page) = Channel::new(peer.window, pipe).map_err(|_| Close::Because(Reason::Resources))?;
        let fds: Vec<BorrowedFd<'_>> = [Some(page.as_fd()), channel.pipe()].into_iter().flatten().collect();
        sent(seqpacket::send(peer.socket.as_fd(), ToConsumer::Channel { pipe }.encode(&mut self.packet), &fds))?;
        peer.channel = Some(channel);
        peer.told = self.slots.len() as u32;
        peer.phase = Phase::Told;
        Ok(())
    }

    /// What a monitor is to be told: of everybody, as things are now.
    fn report(&mut self, at: usize) {
        let consumers = self.peers.iter().filter(|p| p.is_consumer());
        let consumers: Vec<_> = consumers.map(|c| ToConsumer::Consumer(Box::new(c.status()))).collect();
        let overview = Overview {
            consumers: consumers.len() as u32,
            buffers: self.slots.len() as u32,
            pid: std::process::id(),
            frames: self.counts.frames,
            unseen: self.counts.unseen,
            refused: self.counts.refused,
            now: now(),
            since: self.since,
        };
        let answers = &mut self.peers[at].answers;
        answers.push_back(ToConsumer::Overview(overview));
        answers.extend(consumers);
    }
}

/// The last word to a peer, as far as it can be said; whether that was so. Its references go with it.
fn farewell(peer: &mut Peer, close: Close, packet: &mut Packet, counts: &mut Counts) -> bool {
    peer.shed(0);
    let (sent, dropped) = peer.counts();
    counts.sent += sent;
    counts.dropped += dropped;
    let Close::Because(reason) = close else { return false };
    counts.refused += u64::from(!matches!(reason, Reason::Ended | Reason::Changed));
    if reason == Reason::Changed && peer.version < VERSION {
        // It knows of no changes: as if this producer had ended without a word, and another begun.
        return false;
    }
    // A peer that is gone, or whose socket is full, hears nothing.
    let version = if reason == Reason::Version { OLDEST as u16 } else { 0 };
    peer.send(&ToConsumer::Bye { reason, version }, packet).is_ok()
}

impl AsFd for Producer {
    /// Readable while [`Producer::ready`] has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Producer of {} buffers, {} consumers", self.slots.len(), self.consumers())
    }
}
