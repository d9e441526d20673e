//! Explicit synchronization by timelines of the DRM (`wp_linux_drm_syncobj_v1`).
//!
//! A timeline is a kernel object with points on it, each of which is signalled when what was promised for it is done. A
//! commit names two: that from which the compositor may read the frame, at which the fences of its producer are put, and
//! that which the compositor signals when it has read it. The first are on one timeline for all frames. The others are on
//! a timeline for each buffer, since a compositor may be done with a later frame first, and a point is signalled with all
//! those before it. Where somebody waits for one, an eventfd says that it was (DRM_IOCTL_SYNCOBJ_EVENTFD, Linux 6.6); which,
//! the frames are asked.
//!
//! The objects belong to no GPU: any DRM device makes them that has any.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drm::control::{Device, syncobj};
use nix::sys::eventfd::{EfdFlags, EventFd};
use shrbuf::{Access, Shrbuf};
use wayland_protocols::wp::linux_drm_syncobj::v1::client::{
    wp_linux_drm_syncobj_manager_v1 as manager, wp_linux_drm_syncobj_surface_v1 as synced,
    wp_linux_drm_syncobj_timeline_v1 as timeline,
};

use super::object::{Id, Kind};
use super::sys;
use super::wire::{Arg, Owned, Wire};

/// A DRM device that has timelines.
#[derive(Debug)]
struct Node(File);

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Node {}
impl Device for Node {}

impl Node {
    /// The first that works; a render node before one that may show things.
    fn find() -> Option<Node> {
        let names = std::fs::read_dir("/dev/dri").into_iter().flatten().flatten();
        let mut paths: Vec<_> = names.map(|e| e.path()).filter(|p| !p.is_dir()).collect();
        paths.sort_by_key(|p| std::cmp::Reverse(p.clone()));
        let opened = paths.iter().filter_map(|p| OpenOptions::new().read(true).write(true).open(p).ok());
        opened.map(Node).find(|node| {
            drm::Device::get_driver_capability(node, drm::DriverCapability::TimelineSyncObj).is_ok_and(|has| has != 0)
        })
    }

    fn object(self: &Arc<Node>) -> io::Result<Object> {
        Ok(Object { handle: self.create_syncobj(false)?, node: Arc::clone(self) })
    }
}

/// One kernel object.
#[derive(Debug)]
struct Object {
    node: Arc<Node>,
    handle: syncobj::Handle,
}

impl Drop for Object {
    fn drop(&mut self) {
        if let Err(error) = self.node.destroy_syncobj(self.handle) {
            tracing::debug!(%error, "destroying a timeline");
        }
    }
}

/// A timeline that the compositor knows too.
#[derive(Debug)]
pub(super) struct Timeline {
    object: Object,
    known: Owned,
    /// The last point that was given away.
    last: AtomicU64,
}

impl Timeline {
    fn new(node: &Arc<Node>, manager: Id, wire: &mut Wire) -> io::Result<Timeline> {
        let object = node.object()?;
        let shared = node.syncobj_to_fd(object.handle, false)?;
        let known = wire.new_object(Kind::Silent("wp_linux_drm_syncobj_timeline_v1"));
        wire.request(manager, manager::REQ_IMPORT_TIMELINE_OPCODE, [Arg::Id(known), Arg::Fd(shared)]);
        let known = wire.owned(known, timeline::REQ_DESTROY_OPCODE);
        Ok(Timeline { object, known, last: AtomicU64::new(0) })
    }

    /// As an argument of two words.
    fn at(&self, point: u64) -> [Arg<'static>; 3] {
        [Arg::Id(self.known.id), Arg::Uint((point >> 32) as u32), Arg::Uint(point as u32)]
    }

    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// True once `point` has been signalled.
    pub(super) fn is_past(&self, point: u64) -> io::Result<bool> {
        let mut now = [0];
        self.object.node.syncobj_timeline_query(&[self.object.handle], &mut now, false)?;
        Ok(now[0] >= point)
    }
}

/// The point of a frame that is there.
const AT_ONCE: u64 = 1;

/// What a window's commits are synchronized by.
#[derive(Debug)]
pub(super) struct Timelines {
    manager: Id,
    node: Arc<Node>,
    /// Where the frames may be read from; the first point is that of all frames that may be at once.
    ready: Timeline,
    /// A fence on its way to a point.
    fence: Object,
    /// Only while frames are dma-bufs: with others a compositor ends the connection.
    synced: Option<Id>,
    /// Readable when the compositor is done with a frame that somebody waits for.
    done: Arc<EventFd>,
}

impl Timelines {
    /// `None` where this machine's kernel has none, or no eventfd for them.
    pub(super) fn new(manager: Id, wire: &mut Wire) -> Option<Timelines> {
        let node = Arc::new(Node::find()?);
        let done = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok()?;
        let fence = node.object().ok()?;
        // A point that nobody will signal.
        node.syncobj_eventfd(fence.handle, 1, done.as_fd(), false).ok()?;
        let fence = node.object().ok()?;
        let ready = Timeline::new(&node, manager, wire).ok()?;
        node.syncobj_timeline_signal(&[ready.object.handle], &[ready.next()]).ok()?;
        Some(Timelines { manager, node, ready, fence, synced: None, done: Arc::new(done) })
    }

    pub(super) fn done(&self) -> Arc<EventFd> {
        Arc::clone(&self.done)
    }

    /// Has the eventfd say when that point is signalled, or at once where it is.
    pub(super) fn await_point(&self, released: &Timeline, point: u64) -> io::Result<()> {
        self.node.syncobj_eventfd(released.object.handle, point, self.done.as_fd(), false)
    }

    /// Takes note of what the eventfd has said.
    pub(super) fn heard(&self) {
        // Nothing to read is nothing said.
        let _ = self.done.read();
    }

    /// A timeline for the points at which the compositor has done with a buffer.
    pub(super) fn of_buffer(&self, wire: &mut Wire) -> io::Result<Timeline> {
        Timeline::new(&self.node, self.manager, wire)
    }

    /// The next commit shows `buffer`: not before its producer's fences have signalled. Returns the point of `released` at
    /// which the compositor has done with it.
    pub(super) fn commit(
        &mut self,
        (surface, wire): (Id, &mut Wire),
        buffer: &Shrbuf,
        released: &Timeline,
    ) -> io::Result<u64> {
        let synced = *self.synced.get_or_insert_with(|| {
            let synced = wire.new_object(Kind::Silent("wp_linux_drm_syncobj_surface_v1"));
            wire.request(self.manager, manager::REQ_GET_SURFACE_OPCODE, [Arg::Id(synced), Arg::Id(surface)]);
            synced
        });
        let ready = &self.ready;
        let mut fenced = None;
        for segment in (0..buffer.segments().len()).filter(|_| buffer.has_fences()) {
            let Some(fence) = buffer.export_fence(segment, Access::Read)? else { continue };
            // A point is signalled with all those before it: the last stands for every one.
            let point = ready.next();
            sys::import_sync_file(self.node.as_fd(), self.fence.handle.into(), fence.as_fd())?;
            self.node.syncobj_timeline_transfer(self.fence.handle, ready.object.handle, 0, point)?;
            fenced = Some(point);
        }
        let (from, until) = (fenced.unwrap_or(AT_ONCE), released.next());
        wire.request(synced, synced::REQ_SET_ACQUIRE_POINT_OPCODE, ready.at(from));
        wire.request(synced, synced::REQ_SET_RELEASE_POINT_OPCODE, released.at(until));
        Ok(until)
    }

    /// The next commit shows memory that is no dma-buf.
    pub(super) fn leave_out(&mut self, wire: &mut Wire) {
        if let Some(synced) = self.synced.take() {
            wire.destroy(synced, synced::REQ_DESTROY_OPCODE);
        }
    }
}
