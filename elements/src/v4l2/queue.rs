//! A capture device's buffers and the stream through them.
//!
//! The [`CaptureQueue`] is the half that one thread owns: it starts, dequeues, stops and frees. [`Requeue`] is the
//! other half: any number of handles, on any thread, that give buffers back to the driver.
//!
//! ```text
//!            mmap(), dmabuf()            start()
//!   Device ------------------> stopped ----------> streaming
//!      ^                        |   ^                  |
//!      +------------------------+   +------------------+
//!                 drop                     stop()
//! ```
//! A frame costs one system call to dequeue and one to queue, and no memory allocation. Stopping or dropping the
//! queue takes nothing from those who still read a buffer: its dma-buf lives until the last fd or mapping is gone,
//! after `REQBUFS(0)`, after the device is closed, and after it is unplugged.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::unistd::{Whence, lseek};
use shrbuf::Access;

use super::device::{Device, WeakDevice};
use super::ioctl::{
    self, Dequeued, DmabufPlane, DqbufError, ExpbufError, Failure, FmtError, Memory, QbufError, QbufPlanes,
    QuerybufError, ReqbufsError, StreamonError,
};
use super::ownership::Ownership;

/// A device's capture buffers. One exists at a time for a [`Device`]; dropping it stops the stream and frees them.
#[derive(Debug)]
pub struct CaptureQueue {
    device: Device,
    shared: Arc<Shared>,
    streaming: bool,
}

#[derive(Debug)]
struct Shared {
    /// Weak, so that frames held somewhere do not keep a device open whose queue is gone: an unplugged camera gets its
    /// /dev/video number back only when its file is closed.
    device: WeakDevice,
    buffers: Buffers,
    num_planes: usize,
    ownership: Ownership,
}

#[derive(Debug)]
enum Buffers {
    Mmap,
    /// The planes of each buffer.
    Dmabuf(Box<[Box<[DmabufPlane]>]>),
}

/// A driver's buffer, exported.
#[derive(Debug)]
pub struct ExportedBuffer {
    /// What DQBUF and [`Requeue::requeue`] call it.
    pub index: u32,
    /// One a memory plane, in order.
    pub planes: Vec<ExportedPlane>,
}

/// A plane of a driver's buffer, exported.
#[derive(Debug)]
pub struct ExportedPlane {
    /// The dma-buf: the only one for this plane, so that its inode identifies it.
    pub fd: OwnedFd,
    /// Bytes of memory.
    pub length: u32,
}

/// Why there is no queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// This device has a queue already.
    #[error("the device has buffers allocated already; drop its queue first")]
    AlreadyAllocated,
    /// The driver needs another number of buffers than were given to import.
    #[error("{given} buffers were given to import, but the driver runs with {granted}; give that many")]
    Count {
        /// What was given.
        given: usize,
        /// What the driver wants.
        granted: u32,
    },
    /// A buffer to import has another number of planes than the format.
    #[error("buffer {index} has {given} planes to import, but the format has {expected}; give one dma-buf a plane")]
    PlaneCount {
        /// The buffer.
        index: usize,
        /// Planes given.
        given: usize,
        /// Planes of the format.
        expected: usize,
    },
    /// A dma-buf to import is smaller than the picture.
    #[error("buffer {index} plane {plane} has {size} bytes, but the driver needs {sizeimage}; allocate larger ones")]
    TooSmall {
        /// The buffer.
        index: usize,
        /// The plane.
        plane: usize,
        /// Bytes of the dma-buf; 0 where the fd is not of memory.
        size: u64,
        /// Bytes the driver needs.
        sizeimage: u32,
    },
    /// The kernel's answer.
    #[error(transparent)]
    Reqbufs(#[from] ReqbufsError),
    /// The kernel's answer.
    #[error(transparent)]
    Querybuf(#[from] QuerybufError),
    /// The kernel's answer.
    #[error(transparent)]
    Expbuf(#[from] ExpbufError),
    /// The kernel's answer.
    #[error(transparent)]
    Fmt(#[from] FmtError),
}

/// Why a stream did not start. The queue is stopped, and may be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A buffer was not accepted.
    #[error(transparent)]
    Qbuf(#[from] QbufError),
    /// The stream was not.
    #[error(transparent)]
    Streamon(#[from] StreamonError),
}

/// Why a buffer did not go back to the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequeueError {
    /// The queue is stopped or freed. The buffer is noted as free, and the next start queues it.
    #[error("the queue is stopped; buffer {index} is queued by the next start")]
    Stopped {
        /// The buffer.
        index: u32,
    },
    /// The buffer was not dequeued, or has been given back already.
    #[error("buffer {index} is not out of the queue: it was given back twice, or never dequeued")]
    NotHeld {
        /// The buffer.
        index: u32,
    },
    /// The kernel's answer. The buffer is noted as free: [`CaptureQueue::queue_free`] tries again.
    #[error(transparent)]
    Qbuf(#[from] QbufError),
}

impl CaptureQueue {
    /// Allocates about `count` buffers of the device's own memory (`V4L2_MEMORY_MMAP`) for the format that is set, and
    /// exports every plane, once, for `access` by CPUs: the dma-bufs are the caller's. The driver may give more or fewer
    /// buffers.
    ///
    /// # Errors
    /// See [`AllocateError`]; nothing stays allocated.
    pub fn mmap(
        device: &Device,
        count: u32,
        access: Access,
    ) -> Result<(CaptureQueue, Vec<ExportedBuffer>), AllocateError> {
        let mut request = Request::new(device, Memory::Mmap, count)?;
        let mut exported = Vec::new();
        for index in 0..request.granted {
            let planes = ioctl::querybuf(device, device.buf_type(), Memory::Mmap, index)?;
            request.num_planes = planes.len();
            let planes = (0..).zip(planes).map(|(plane, memory)| {
                let fd = ioctl::expbuf(device, device.buf_type(), index, plane, access)?;
                Ok(ExportedPlane { fd, length: memory.length })
            });
            exported.push(ExportedBuffer { index, planes: planes.collect::<Result<_, ExpbufError>>()? });
        }
        Ok((request.into_queue(Buffers::Mmap), exported))
    }

    /// Lets the device write into the caller's dma-bufs (`V4L2_MEMORY_DMABUF`): one fd for each plane of each buffer,
    /// whose place in the list is its index. The queue keeps the fds until it is freed and no [`Requeue`] is left.
    ///
    /// # Errors
    /// See [`AllocateError`]; nothing stays allocated. Whether the driver can reach the memory shows at
    /// [`CaptureQueue::start`].
    pub fn dmabuf(device: &Device, buffers: Vec<Vec<OwnedFd>>) -> Result<CaptureQueue, AllocateError> {
        let sizes: Vec<u32> = device.format()?.planes.iter().map(|plane| plane.sizeimage).collect();
        let given = buffers.len();
        let buffers: Box<[_]> = buffers
            .into_iter()
            .enumerate()
            .map(|(index, planes)| dmabuf_planes(index, planes, &sizes))
            .collect::<Result<_, _>>()?;
        let mut request = Request::new(device, Memory::Dmabuf, u32::try_from(given).unwrap_or(u32::MAX))?;
        request.num_planes = sizes.len();
        if request.granted as usize != given {
            return Err(AllocateError::Count { given, granted: request.granted });
        }
        Ok(request.into_queue(Buffers::Dmabuf(buffers)))
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Number of buffers.
    pub fn count(&self) -> u32 {
        self.shared.ownership.count()
    }

    /// How many buffers are dequeued and not given back. Where it is all of them, no frame can come.
    pub fn held(&self) -> usize {
        self.shared.ownership.held()
    }

    /// True between [`CaptureQueue::start`] and [`CaptureQueue::stop`].
    pub fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// Where the picture will begin in each plane of buffer `index`, in bytes: what [`PlanePayload::data_offset`] will
    /// say of each frame, so far as the driver knows before the first. Only before [`CaptureQueue::start`].
    ///
    /// [`PlanePayload::data_offset`]: ioctl::PlanePayload::data_offset
    ///
    /// # Errors
    /// See [`QbufError`]: a driver that refuses the buffer's memory does so here already.
    pub fn data_offsets(&self, index: u32) -> Result<Vec<u32>, QbufError> {
        let planes = self.shared.planes(index).ok_or(QbufError::Refused { index })?;
        ioctl::prepare_buf(self, self.device.buf_type(), index, planes)
    }

    /// A handle that gives buffers back from any thread.
    pub fn requeue_handle(&self) -> Requeue {
        Requeue { shared: Arc::clone(&self.shared) }
    }

    /// Queues every free buffer and starts the stream; buffers that are still held follow when they are given back.
    /// Does nothing on a queue that is streaming. Some drivers take hundreds of milliseconds (a sensor waking up).
    ///
    /// # Errors
    /// See [`StartError`]; the queue is stopped then.
    pub fn start(&mut self) -> Result<(), StartError> {
        if self.streaming {
            return Ok(());
        }
        self.streaming = true;
        self.shared.ownership.open();
        let started = self.try_start();
        if started.is_err() {
            // Buffers that were queued before the failure come back only through STREAMOFF.
            let _ = self.stop();
        }
        started
    }

    fn try_start(&mut self) -> Result<(), StartError> {
        self.queue_free()?;
        Ok(ioctl::streamon(&*self, self.device.buf_type())?)
    }

    /// Queues the buffers that are neither held nor queued: those whose QBUF failed. Returns how many. Nothing
    /// happens on a stopped queue.
    ///
    /// # Errors
    /// The first failure; the buffers after it are not tried.
    pub fn queue_free(&mut self) -> Result<u32, QbufError> {
        let Some(_inside) = self.shared.ownership.enter() else { return Ok(0) };
        let mut queued = 0;
        for index in 0..self.count() {
            queued += u32::from(self.shared.queue_if_free(&self.device, index)?);
        }
        Ok(queued)
    }

    /// Takes the oldest frame, which is the caller's until [`Requeue::requeue`]. Never waits: poll the fd with
    /// [`Readiness::INTEREST`](super::Readiness::INTEREST) first.
    ///
    /// # Errors
    /// See [`DqbufError`]. After [`DqbufError::Overrun`] the buffer is the caller's, to give back.
    pub fn dequeue(&mut self) -> Result<Dequeued, DqbufError> {
        let dequeued = ioctl::dqbuf(&*self, self.device.buf_type(), self.shared.memory(), self.shared.num_planes);
        match dequeued {
            Ok(Dequeued::Buffer(ref buffer)) => self.shared.dequeued(buffer.index)?,
            Err(DqbufError::Overrun { index, .. }) => self.shared.dequeued(index)?,
            _ => {}
        }
        dequeued
    }

    /// Stops the stream: waits for calls of [`Requeue::requeue`] that are under way and for the hardware, and drops
    /// frames not dequeued. Frames that are held stay so. Does nothing on a stopped queue.
    ///
    /// # Errors
    /// What STREAMOFF said; the queue counts as stopped all the same.
    pub fn stop(&mut self) -> Result<(), Failure> {
        if !self.streaming {
            return Ok(());
        }
        self.streaming = false;
        self.shared.ownership.close();
        let stopped = ioctl::streamoff(&*self, self.device.buf_type());
        self.shared.ownership.take_all_from_driver();
        stopped
    }
}

/// For polling; see [`Readiness`](super::Readiness).
impl AsFd for CaptureQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Drop for CaptureQueue {
    fn drop(&mut self) {
        // After an unplug both fail, and the kernel has cleaned up by itself.
        if let Err(failure) = self.stop() {
            tracing::debug!(device = %self.device.path().display(), %failure, "stopping a capture queue");
        }
        free(&self.device, self.shared.memory());
    }
}

/// Gives a queue's buffers back to the driver, from any thread: no lock of ours, no allocation, one system call. The
/// device stays open during the call; a handle that outlives the queue keeps nothing open, and does nothing.
#[derive(Debug, Clone)]
pub struct Requeue {
    shared: Arc<Shared>,
}

impl Requeue {
    /// Queues a buffer that was dequeued. Only when nothing reads it any more: the driver waits for nobody, and
    /// overwrites it at once.
    ///
    /// # Errors
    /// See [`RequeueError`]. None needs to be handled for the buffer's sake: it is not lost.
    pub fn requeue(&self, index: u32) -> Result<(), RequeueError> {
        if !self.shared.ownership.give_back(index) {
            return Err(RequeueError::NotHeld { index });
        }
        let Some(_inside) = self.shared.ownership.enter() else {
            return Err(RequeueError::Stopped { index });
        };
        let device = self.shared.device.upgrade().ok_or(RequeueError::Stopped { index })?;
        self.shared.queue_if_free(&device, index)?;
        Ok(())
    }
}

impl Shared {
    fn memory(&self) -> Memory {
        match self.buffers {
            Buffers::Mmap => Memory::Mmap,
            Buffers::Dmabuf(_) => Memory::Dmabuf,
        }
    }

    /// What QBUF is told of buffer `index`.
    fn planes(&self, index: u32) -> Option<QbufPlanes<'_>> {
        match &self.buffers {
            Buffers::Mmap => Some(QbufPlanes::Mmap(self.num_planes)),
            Buffers::Dmabuf(buffers) => buffers.get(index as usize).map(|planes| QbufPlanes::Dmabuf(planes)),
        }
    }

    /// Inside the gate only. False where the buffer was not free.
    fn queue_if_free(&self, device: &Device, index: u32) -> Result<bool, QbufError> {
        if !self.ownership.claim(index) {
            return Ok(false);
        }
        let planes = self.planes(index).ok_or(QbufError::Refused { index });
        let queued = planes.and_then(|planes| ioctl::qbuf(device, device.buf_type(), index, planes));
        if queued.is_err() {
            self.ownership.unclaim(index);
        }
        queued.map(|()| true)
    }

    fn dequeued(&self, index: u32) -> Result<(), DqbufError> {
        if self.ownership.dequeued(index) { Ok(()) } else { Err(DqbufError::NotQueued { index }) }
    }
}

/// Buffers that the kernel has granted and no queue owns yet: freed when something goes wrong before.
struct Request<'a> {
    device: &'a Device,
    memory: Memory,
    granted: u32,
    num_planes: usize,
}

impl<'a> Request<'a> {
    fn new(device: &'a Device, memory: Memory, count: u32) -> Result<Request<'a>, AllocateError> {
        if !device.take_queue() {
            return Err(AllocateError::AlreadyAllocated);
        }
        // From here on dropping `request` gives the queue back, also where REQBUFS fails.
        let mut request = Request { device, memory, granted: 0, num_planes: 1 };
        request.granted = ioctl::reqbufs(device, device.buf_type(), memory, count)?.count;
        Ok(request)
    }

    fn into_queue(self, buffers: Buffers) -> CaptureQueue {
        let shared = Shared {
            device: self.device.downgrade(),
            buffers,
            num_planes: self.num_planes,
            ownership: Ownership::new(self.granted as usize),
        };
        let device = self.device.clone();
        std::mem::forget(self);
        CaptureQueue { device, shared: Arc::new(shared), streaming: false }
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        free(self.device, self.memory);
    }
}

fn free(device: &Device, memory: Memory) {
    if let Err(error) = ioctl::reqbufs(device, device.buf_type(), memory, 0) {
        tracing::debug!(device = %device.path().display(), %error, "freeing capture buffers");
    }
    device.put_queue();
}

fn dmabuf_planes(index: usize, fds: Vec<OwnedFd>, sizes: &[u32]) -> Result<Box<[DmabufPlane]>, AllocateError> {
    if fds.len() != sizes.len() {
        return Err(AllocateError::PlaneCount { index, given: fds.len(), expected: sizes.len() });
    }
    fds.into_iter()
        .zip(sizes)
        .enumerate()
        .map(|(plane, (fd, &sizeimage))| {
            // A dma-buf tells its size as the end of the file.
            let size = lseek(&fd, 0, Whence::SeekEnd).ok().and_then(|end| u64::try_from(end).ok()).unwrap_or(0);
            if size < u64::from(sizeimage) {
                return Err(AllocateError::TooSmall { index, plane, size, sizeimage });
            }
            Ok(DmabufPlane { fd, length: u32::try_from(size).unwrap_or(u32::MAX) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_send_sync_clone<T: Send + Sync + Clone>() {}
    fn assert_send<T: Send>() {}

    #[test]
    fn handles_cross_threads() {
        assert_send_sync_clone::<Requeue>();
        assert_send::<CaptureQueue>();
    }

    #[test]
    fn memory_smaller_than_the_picture_is_refused_with_its_size() {
        let fd = nix::sys::memfd::memfd_create("small", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, 100).unwrap();
        let error = dmabuf_planes(3, vec![fd], &[101]).unwrap_err();
        assert_eq!(error, AllocateError::TooSmall { index: 3, plane: 0, size: 100, sizeimage: 101 });
    }

    #[test]
    fn one_fd_for_a_two_plane_format_is_refused() {
        let fd = nix::sys::memfd::memfd_create("one", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        let error = dmabuf_planes(0, vec![fd], &[1, 1]).unwrap_err();
        assert_eq!(error, AllocateError::PlaneCount { index: 0, given: 1, expected: 2 });
    }
}
