//! Buffers that a producer tells its consumer of as the first frames in them come: one more, or another in the place of one that
//! has gone. Each is a pool of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::buffer::{Shrbuf, WeakShrbuf};
use crate::layout::Layout;
use crate::pool::Pool;
use crate::segment::MemoryKind;

use super::IpcError;
use super::consumer::Way;

/// Buffers that the producer has told of since the consumer has started.
pub(super) struct Later {
    /// The consumer's, for what it attaches.
    number: u64,
    /// What all buffers are alike in.
    first: Option<(Layout, MemoryKind)>,
    all: Vec<Late>,
    /// How many there have been, as frames count them.
    told: u32,
    /// Of all pools.
    fences: Epoll,
}

/// One of them, which may have the place of another.
pub(super) struct Late {
    index: u32,
    /// Of this one alone.
    pub(super) pool: Pool,
    pub(super) weak: WeakShrbuf,
}

impl Later {
    /// None yet, beside the buffers of `pool`.
    pub(super) fn new(number: u64, first: Option<(Layout, MemoryKind)>, pool: &Pool) -> Result<Later, IpcError> {
        let fences = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(IpcError::os("epoll_create1"))?;
        fences.add(pool.fences_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0)).map_err(IpcError::os("epoll_ctl"))?;
        Ok(Later { number, first, all: Vec::new(), told: 0, fences })
    }

    /// The one that has this number now.
    pub(super) fn of(&self, index: u32) -> Option<&Late> {
        self.all.iter().find(|later| later.index == index)
    }

    /// How many the producer had told of, as a frame says, beyond those that were read of here. Less than none where the socket is
    /// ahead of the pipe; counts go round.
    pub(super) fn beyond(&self, late: u32) -> i32 {
        late.wrapping_sub(self.told) as i32
    }

    /// It is as all buffers are.
    pub(super) fn is_alike(&self, buffer: &Shrbuf) -> bool {
        let what = |layout: &Layout, kind| (layout.format, layout.modifier, layout.width, layout.height, kind);
        self.first.as_ref().is_none_or(|(layout, kind)| what(layout, *kind) == what(buffer.layout(), buffer.kind()))
    }

    /// Takes one in, whose frames go back by `way`.
    pub(super) fn know(&mut self, index: u32, buffer: Shrbuf, way: &Arc<Way>) -> Result<(), IpcError> {
        let (weak, released) = (buffer.downgrade(), Arc::clone(way));
        buffer.attach(self.number, Arc::clone(way) as _);
        let pool = Pool::new(vec![buffer], move |_| released.release(index as usize)).inspect_err(|_| {
            weak.detach(self.number);
        })?;
        self.fences
            .add(pool.fences_fd(), EpollEvent::new(EpollFlags::EPOLLIN, 0))
            .map_err(IpcError::os("epoll_ctl"))?;
        // The producer's has gone, of which nothing is held here any more.
        self.all.retain(|later| later.index != index);
        self.all.push(Late { index, pool, weak });
        self.told = self.told.wrapping_add(1);
        Ok(())
    }

    /// Readable while fences have signalled, those of the first buffers too; see [`Pool::fences_fd`].
    pub(super) fn fences_fd(&self) -> BorrowedFd<'_> {
        self.fences.0.as_fd()
    }

    /// See [`Pool::reap`].
    pub(super) fn reap(&self) -> io::Result<()> {
        self.all.iter().try_for_each(|later| later.pool.reap())
    }
}
