//! The shared memory of a stream: lent to upstream through a `GstBufferPool`, or filled by a copy; out with consumers, and
//! back.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock};

use gst::glib;
use gst::subclass::prelude::*;
use gst_video::VideoInfo;
use shrbuf::exporter::{ExportError, Memfd};
use shrbuf::ipc::{Announced, IpcError};
use shrbuf::{PoolError, Shrbuf};
use shrbuf_gst_memory::{FdMemories, Home};

use crate::lock;
use crate::video::{self, VideoError};

/// Why there are no buffers.
#[derive(Debug, thiserror::Error)]
pub(super) enum BuffersError {
    #[error("{0}")]
    Video(#[from] VideoError),
    #[error("{0}")]
    Export(#[from] ExportError),
    #[error("{0}")]
    Ipc(#[from] IpcError),
    #[error("{0}")]
    Pool(#[from] PoolError),
    #[error("{0}; raise the descriptor limit (ulimit -n)")]
    Os(#[from] std::io::Error),
}

/// All buffers of a stream. The first `lent` are upstream's to write, the rest is for copies.
pub(super) struct Buffers {
    pub(super) info: VideoInfo,
    lent: usize,
    home: Home,
    fds: Vec<OwnedFd>,
    memories: FdMemories,
    /// Of the first, those that are not memory of a `GstBuffer`.
    spare: Mutex<Vec<usize>>,
}

/// One of the buffers is memory of a `GstBuffer`; tied to that memory.
struct Lease {
    buffers: Arc<Buffers>,
    index: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.buffers.spare).push(self.index);
    }
}

impl Buffers {
    /// New ones for frames of `info`, and what to announce. No page of them is there before it is written.
    pub(super) fn new(
        name: &str,
        info: &VideoInfo,
        lent: usize,
        copies: usize,
    ) -> Result<(Arc<Buffers>, Vec<Announced>), BuffersError> {
        let (exporter, layout) = (Memfd::new(name), video::layout(info)?);
        let buffers = (0..lent + copies).map(|_| exporter.allocate(&layout)).collect::<Result<Vec<_>, _>>()?;
        let announced = buffers.iter().map(Announced::of).collect::<Result<_, _>>()?;
        let fds = buffers[..lent].iter().map(|b| b.export(0)).collect::<Result<_, _>>()?;
        let home = Home::of(buffers, |_, _| {})?;
        let (info, memories, spare) = (info.clone(), FdMemories::new(), Mutex::new((0..lent).collect()));
        Ok((Arc::new(Buffers { info, lent, home, fds, memories, spare }), announced))
    }

    /// How many there are.
    pub(super) fn all(&self) -> usize {
        self.home.pool().len()
    }

    /// How many upstream may have.
    pub(super) fn lent(&self) -> usize {
        self.lent
    }

    /// One of those that are upstream's, as a memory to write to; `None` where all are out.
    fn lease(self: &Arc<Self>) -> Result<Option<gst::Memory>, glib::BoolError> {
        let Some(index) = lock(&self.spare).pop() else { return Ok(None) };
        // From here on it is given back by its drop.
        let lease = Lease { buffers: Arc::clone(self), index };
        let fd = self.fds[index].try_clone().map_err(|e| glib::bool_error!("dup failed: {e}"))?;
        let mut memory = self.memories.wrap(shrbuf::MemoryKind::Memfd, fd, self.info.size())?;
        shrbuf_gst_memory::tie(memory.make_mut(), lease);
        Ok(Some(memory))
    }

    /// The buffer that `frame` is in, without a copy, to be sent: `None` where it is in other memory, or not where
    /// consumers look for its planes. `frame` is kept until the last consumer has given it back.
    pub(super) fn adopt(self: &Arc<Self>, frame: &gst::Buffer) -> Option<Shrbuf> {
        Some(self.home.send(self.place_of(frame)?, frame.clone()))
    }

    /// Which of them `frame` is in.
    pub(super) fn place_of(self: &Arc<Self>, frame: &gst::Buffer) -> Option<usize> {
        let memory = (frame.n_memory() == 1).then(|| frame.peek_memory(0))?;
        let lease = shrbuf_gst_memory::tied::<Lease>(memory).filter(|lease| Arc::ptr_eq(&lease.buffers, self))?;
        let usual = frame
            .meta::<gst_video::VideoMeta>()
            .is_none_or(|meta| meta.offset() == self.info.offset() && meta.stride() == self.info.stride());
        (usual && memory.offset() == 0 && memory.size() >= self.info.size()).then_some(lease.index)
    }

    /// A buffer to copy into; `None` where all are out.
    pub(super) fn for_copy(&self) -> Option<Shrbuf> {
        (self.lent..self.home.pool().len()).find_map(|index| self.home.take(index))
    }
}

glib::wrapper! {
    /// What upstream takes its buffers from.
    pub(super) struct LendingPool(ObjectSubclass<LendingPoolImpl>) @extends gst::BufferPool, gst::Object;
}

impl LendingPool {
    pub(super) fn of(buffers: &Arc<Buffers>) -> LendingPool {
        let pool: LendingPool = glib::Object::new();
        // A new pool has none yet.
        let _ = pool.imp().buffers.set(Arc::clone(buffers));
        pool
    }
}

/// See [`LendingPool`].
#[derive(Default)]
pub(super) struct LendingPoolImpl {
    buffers: OnceLock<Arc<Buffers>>,
}

#[glib::object_subclass]
impl ObjectSubclass for LendingPoolImpl {
    const NAME: &'static str = "GstShrbufLendingPool";
    type Type = LendingPool;
    type ParentType = gst::BufferPool;
}

impl ObjectImpl for LendingPoolImpl {}
impl GstObjectImpl for LendingPoolImpl {}

impl BufferPoolImpl for LendingPoolImpl {
    fn options() -> &'static [&'static str] {
        &["GstBufferPoolOptionVideoMeta"]
    }

    fn set_config(&self, config: &mut gst::BufferPoolConfigRef) -> bool {
        let Some((buffers, (Some(caps), _, least, most))) = self.buffers.get().zip(config.params()) else {
            return false;
        };
        // Other caps are another stream: upstream then makes do without this pool.
        let same = VideoInfo::from_caps(&caps).is_ok_and(|info| {
            (info.format(), info.width(), info.height(), info.size())
                == (buffers.info.format(), buffers.info.width(), buffers.info.height(), buffers.info.size())
        });
        let there_are = buffers.lent() as u32;
        if !same || least > there_are {
            return false;
        }
        let most = if most == 0 { there_are } else { most.min(there_are) };
        // None before it is needed, whatever upstream would have: pages that were never written cost nothing.
        config.set_params(Some(&caps), buffers.info.size() as u32, 0, most);
        self.parent_set_config(config)
    }

    fn alloc_buffer(&self, _: Option<&gst::BufferPoolAcquireParams>) -> Result<gst::Buffer, gst::FlowError> {
        let buffers = self.buffers.get().ok_or(gst::FlowError::NotNegotiated)?;
        let memory = buffers.lease().map_err(|e| {
            gst::error!(gst::CAT_RUST, imp = self, "{e}");
            gst::FlowError::Error
        })?;
        // Somebody keeps memories without the frames that they came in.
        let memory = memory.ok_or(gst::FlowError::Error)?;
        let mut buffer = gst::Buffer::new();
        let writable = buffer.make_mut();
        writable.append_memory(memory);
        let flags = gst_video::VideoFrameFlags::empty();
        let i = &buffers.info;
        gst_video::VideoMeta::add_full(writable, flags, i.format(), i.width(), i.height(), i.offset(), i.stride())
            .map_err(|_| gst::FlowError::Error)?;
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use gst::prelude::*;
    use gst_video::VideoFormat;
    use shrbuf::{Ledger, Reason};

    use super::*;

    fn buffers() -> Arc<Buffers> {
        gst::init().unwrap();
        let info = VideoInfo::builder(VideoFormat::Nv12, 64, 48).build().unwrap();
        Buffers::new("test", &info, 2, 1).unwrap().0
    }

    /// As upstream would have it.
    fn pool(buffers: &Arc<Buffers>) -> LendingPool {
        let pool = LendingPool::of(buffers);
        let mut config = pool.config();
        config.set_params(Some(&buffers.info.to_caps().unwrap()), buffers.info.size() as u32, 0, 0);
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        pool
    }

    fn acquire(pool: &LendingPool) -> Result<gst::Buffer, gst::FlowError> {
        pool.acquire_buffer(Some(&gst::BufferPoolAcquireParams::with_flags(gst::BufferPoolAcquireFlags::DONTWAIT)))
    }

    #[test]
    fn buffer_is_upstreams_again_after_the_last_reference() {
        let buffers = buffers();
        let pool = pool(&buffers);
        let frame = acquire(&pool).unwrap();
        let at = frame.as_ptr();
        let sent = buffers.adopt(&frame).unwrap();
        drop(frame);
        let other = acquire(&pool).unwrap();
        assert_ne!(other.as_ptr(), at);
        assert_eq!(acquire(&pool).err(), Some(gst::FlowError::Eos));
        drop(sent);
        assert_eq!(acquire(&pool).unwrap().as_ptr(), at);
        drop(other);
        pool.set_active(false).unwrap();
    }

    #[test]
    fn same_frame_twice_is_two_references_to_one_buffer() {
        let buffers = buffers();
        let pool = pool(&buffers);
        let frame = acquire(&pool).unwrap();
        let (first, second) = (buffers.adopt(&frame).unwrap(), buffers.adopt(&frame).unwrap());
        assert_eq!((first.id(), first.references()), (second.id(), 2));
        drop(first);
        // Back and out again, while upstream still has it.
        drop(second);
        let third = buffers.adopt(&frame).unwrap();
        drop(frame);
        assert_eq!(buffers.home.frames(), 1);
        drop(third);
        assert_eq!(buffers.home.frames(), 0);
        pool.set_active(false).unwrap();
    }

    #[test]
    fn frames_elsewhere_are_not_adopted() {
        let (buffers, others) = (buffers(), buffers());
        let (pool, other) = (pool(&buffers), pool(&others));
        let system = gst::Buffer::with_size(buffers.info.size()).unwrap();
        assert!(buffers.adopt(&system).is_none());
        let foreign = acquire(&other).unwrap();
        assert!(buffers.adopt(&foreign).is_none());
        // Memory of ours, but the planes are not where they were announced.
        let mut shifted = acquire(&pool).unwrap();
        shifted.make_mut().set_size(100);
        assert!(buffers.adopt(&shifted).is_none());
        drop((foreign, shifted));
        pool.set_active(false).unwrap();
        other.set_active(false).unwrap();
    }

    #[test]
    fn pool_takes_no_other_caps_and_no_more_buffers_than_there_are() {
        let buffers = buffers();
        let configure = |format, least| {
            let pool = LendingPool::of(&buffers);
            let caps = VideoInfo::builder(format, 64, 48).build().unwrap().to_caps().unwrap();
            let mut config = pool.config();
            config.set_params(Some(&caps), buffers.info.size() as u32, least, 0);
            pool.set_config(config).is_ok()
        };
        assert!(configure(VideoFormat::Nv12, 2));
        assert!(!configure(VideoFormat::Nv12, 3));
        assert!(!configure(VideoFormat::I420, 0));
    }

    #[test]
    fn copy_is_counted_and_rows_are_found_by_their_stride() {
        let buffers = buffers();
        let (stride, size) = ([80, 80], 80 * 48 * 3 / 2);
        let mut frame = gst::Buffer::from_mut_slice((0..size).map(|i| (i % 80) as u8).collect::<Vec<u8>>());
        let flags = gst_video::VideoFrameFlags::empty();
        let offset = [0, 80 * 48];
        gst_video::VideoMeta::add_full(frame.make_mut(), flags, VideoFormat::Nv12, 64, 48, &offset, &stride).unwrap();
        let mut into = buffers.for_copy().unwrap();
        assert!(buffers.for_copy().is_none());
        let account = Ledger::default().account("test", Reason::Transfer);
        shrbuf_gst_memory::copy(&frame, &buffers.info, &mut into, &account).unwrap();
        assert_eq!(account.bytes(), 64 * 48 * 3 / 2);
        let (inspect, mut row) = (Ledger::default().account("test", Reason::Inspect), [0; 64]);
        into.read().unwrap().plane(1).read(23, 0, &mut row, &inspect);
        assert_eq!(row, std::array::from_fn(|x| x as u8));
        drop(into);
        assert!(buffers.for_copy().is_some());
    }
}
