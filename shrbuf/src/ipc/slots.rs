//! The buffers of a producer, by the numbers that its consumers know them by.

use std::ops::Index;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use crate::buffer::Shrbuf;
use crate::pool::MAX_BUFFERS;

use super::message::ToConsumer;
use super::packet::Packet;
use super::{Announced, IpcError};

/// With a buffer's number: its state has changed.
pub(super) const STATE: u64 = 1 << 32;

/// One of them. Another takes its place once it has gone.
pub(super) struct Slot {
    announced: Announced,
    /// What its state is watched by, once a frame of it was sent before it was filled.
    state: Option<OwnedFd>,
    /// It is: until the frame is filled.
    watched: bool,
}

impl Slot {
    fn new(announced: Announced) -> Slot {
        Slot { announced, state: None, watched: false }
    }

    /// What a consumer is told of it, as number `index`.
    pub(super) fn message(&self, index: usize) -> (ToConsumer, Vec<BorrowedFd<'_>>) {
        let Announced { layout, fds, .. } = &self.announced;
        let message = ToConsumer::Buffer { index: index as u32, layout: *layout };
        (message, fds.iter().map(AsFd::as_fd).collect())
    }
}

/// See the module.
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    pub(super) fn new(announced: Vec<Announced>) -> Slots {
        Slots(announced.into_iter().map(Slot::new).collect())
    }

    /// All others, of which nobody knows yet.
    pub(super) fn replace(&mut self, announced: Vec<Announced>, epoll: &Epoll) {
        let watched: Vec<usize> = (0..self.len()).filter(|&index| self.0[index].watched).collect();
        watched.into_iter().for_each(|index| self.ignore_state(index, epoll));
        *self = Slots::new(announced);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The number of `buffer`.
    pub(super) fn number_of(&self, buffer: &Shrbuf) -> Result<usize, IpcError> {
        let index = self.0.iter().position(|slot| slot.announced.id == buffer.id());
        index.ok_or(IpcError::NotAnnounced(buffer.id()))
    }

    /// Gives one more a number: that of one that is gone, whose memory is kept no longer than that, or a new one.
    pub(super) fn place(&mut self, announced: Announced) -> Result<usize, IpcError> {
        let have = announced.kind;
        if let Some(what) = self.0.first().and_then(|slot| difference(&slot.announced, &announced)) {
            return Err(IpcError::Unlike { have, what });
        }
        let gone = self.0.iter().position(|slot| slot.announced.buffer.is_gone());
        let index = gone.unwrap_or(self.0.len());
        match self.0.get_mut(index) {
            Some(slot) => *slot = Slot::new(announced),
            None if index < MAX_BUFFERS => self.0.push(Slot::new(announced)),
            None => return Err(IpcError::TooMany),
        }
        Ok(index)
    }

    /// Has `epoll` tell of it once the state of `buffer` changes.
    pub(super) fn watch_state(&mut self, index: usize, buffer: &Shrbuf, epoll: &Epoll) -> Result<(), IpcError> {
        let slot = &mut self.0[index];
        if slot.watched {
            return Ok(());
        }
        if slot.state.is_none() {
            let fd = buffer.state_fd().and_then(|fd| fd.try_clone_to_owned());
            slot.state = Some(fd.map_err(IpcError::os("eventfd"))?);
        }
        let Some(fd) = &slot.state else { return Ok(()) };
        // Edge-triggered, so that it never needs to be read.
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, STATE | index as u64);
        epoll.add(fd, event).map_err(IpcError::os("epoll_ctl"))?;
        slot.watched = true;
        Ok(())
    }

    /// The opposite.
    pub(super) fn ignore_state(&mut self, index: usize, epoll: &Epoll) {
        let slot = &mut self.0[index];
        if let Some(fd) = &slot.state {
            slot.watched = epoll.delete(fd).is_err();
        }
    }
}

impl Index<usize> for Slots {
    type Output = Slot;

    fn index(&self, index: usize) -> &Slot {
        &self.0[index]
    }
}

/// What sending to a consumer takes.
pub(super) struct Outgoing<'a> {
    /// It may have to be told of a buffer first.
    pub(super) slots: &'a Slots,
    pub(super) packet: &'a mut Packet,
    pub(super) now: u64,
}

/// What a consumer that knows one buffer would not expect of another.
fn difference(a: &Announced, b: &Announced) -> Option<&'static str> {
    let (l, m) = (&a.layout, &b.layout);
    if a.kind != b.kind {
        return Some("kind");
    }
    if (l.format, l.modifier) != (m.format, m.modifier) {
        return Some("format");
    }
    ((l.width, l.height) != (m.width, m.height)).then_some("size")
}
