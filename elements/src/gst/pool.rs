//! Our buffers for GStreamer to write to: lent to upstream through a `GstBufferPool`, or filled by a copy; out as
//! frames, and back.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use gst::glib;
use gst::subclass::prelude::*;
use gst_video::VideoInfo;
use shrbuf::{Account, MemoryKind, Pool, PoolError, Shrbuf};
use shrbuf_gst_memory::{CopyError, FdMemories, Home, dma_buf};

/// What a lock guards is whole at every step, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All buffers of a stream.
pub(super) struct Buffers {
    info: VideoInfo,
    kind: MemoryKind,
    /// Once negotiation is over, and the buffers are nobody else's.
    home: OnceLock<Home>,
    fds: Vec<OwnedFd>,
    memories: FdMemories,
    /// Those that are not memory of a `GstBuffer`.
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
    /// These, for frames of `info`, which has their planes where they lie.
    pub(super) fn new(buffers: &[Shrbuf], info: VideoInfo) -> std::io::Result<Arc<Buffers>> {
        let fds = buffers.iter().map(|b| b.export(0)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Buffers {
            info,
            kind: buffers.first().map_or(MemoryKind::Memfd, Shrbuf::kind),
            home: OnceLock::new(),
            fds,
            memories: FdMemories::new(),
            spare: Mutex::new((0..buffers.len()).collect()),
        }))
    }

    /// The buffers themselves, of which nobody else has a reference any more. `copy_back` is called from any thread
    /// when one that was copied into is free again.
    pub(super) fn settle(
        self: &Arc<Self>,
        buffers: Vec<Shrbuf>,
        copy_back: impl Fn() + Send + Sync + 'static,
    ) -> Result<&Pool, PoolError> {
        let this = Arc::downgrade(self);
        let home = Home::of(buffers, move |index, sent| {
            let Some(this) = this.upgrade().filter(|_| !sent) else { return };
            lock(&this.spare).push(index);
            copy_back();
        })?;
        Ok(self.home.get_or_init(|| home).pool())
    }

    /// Where they come back to, once they are settled.
    pub(super) fn pool(&self) -> Option<&Pool> {
        self.home.get().map(Home::pool)
    }

    /// One of those that are not out, as a memory to write to.
    fn lease(self: &Arc<Self>) -> Result<Option<gst::Memory>, glib::BoolError> {
        let Some(index) = lock(&self.spare).pop() else { return Ok(None) };
        // From here on it is given back by its drop.
        let lease = Lease { buffers: Arc::clone(self), index };
        let fd = self.fds[index].try_clone().map_err(|e| glib::bool_error!("dup failed: {e}"))?;
        let mut memory = self.memories.wrap(self.kind, fd, self.info.size())?;
        shrbuf_gst_memory::tie(memory.make_mut(), lease);
        Ok(Some(memory))
    }

    /// Which of the buffers `frame` is in, with its planes where they are looked for.
    fn index_of(self: &Arc<Self>, frame: &gst::BufferRef) -> Option<usize> {
        let memory = (frame.n_memory() == 1).then(|| frame.peek_memory(0))?;
        let lease = shrbuf_gst_memory::tied::<Lease>(memory).filter(|lease| Arc::ptr_eq(&lease.buffers, self))?;
        let usual = frame
            .meta::<gst_video::VideoMeta>()
            .is_none_or(|meta| meta.offset() == self.info.offset() && meta.stride() == self.info.stride());
        (usual && memory.offset() == 0 && memory.size() >= self.info.size()).then_some(lease.index)
    }

    /// True where `frame` is in one of the buffers.
    pub(super) fn has(self: &Arc<Self>, frame: &gst::BufferRef) -> bool {
        self.index_of(frame).is_some()
    }

    /// The buffer that `frame` is in, without a copy; `None` where it is in other memory. `frame` is kept until the
    /// last reference is dropped.
    pub(super) fn adopt(self: &Arc<Self>, frame: gst::Buffer) -> Result<Shrbuf, gst::Buffer> {
        match self.home.get().zip(self.index_of(&frame)) {
            Some((home, index)) => Ok(home.send(index, frame)),
            None => Err(frame),
        }
    }

    /// Copies the frame's pixels into a buffer that is not upstream's, each byte counted; `None` where all are out.
    pub(super) fn copy(&self, frame: &gst::BufferRef, account: &Account) -> Result<Option<Shrbuf>, CopyError> {
        let Some(home) = self.home.get() else { return Ok(None) };
        let Some(index) = lock(&self.spare).pop() else { return Ok(None) };
        let Some(mut into) = home.take(index) else {
            lock(&self.spare).push(index);
            return Ok(None);
        };
        // From here on its last drop gives it back.
        shrbuf_gst_memory::copy(frame, &self.info, &mut into, account)?;
        Ok(Some(into))
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

    /// Bytes of a frame and most buffers, where it is for such caps.
    pub(super) fn prepare(&self, caps: &gst::Caps) -> Option<(u32, u32)> {
        let buffers = self.imp().buffers.get()?;
        let info = dma_buf::info(caps).ok()?;
        (same(&info, &buffers.info)).then(|| (buffers.info.size() as u32, buffers.fds.len() as u32))
    }
}

fn same(a: &VideoInfo, b: &VideoInfo) -> bool {
    (a.format(), a.width(), a.height(), a.size()) == (b.format(), b.width(), b.height(), b.size())
}

/// See [`LendingPool`].
#[derive(Default)]
pub(super) struct LendingPoolImpl {
    buffers: OnceLock<Arc<Buffers>>,
}

#[glib::object_subclass]
impl ObjectSubclass for LendingPoolImpl {
    const NAME: &'static str = "GstShrbufElementPool";
    type Type = LendingPool;
    type ParentType = gst::BufferPool;
}

impl ObjectImpl for LendingPoolImpl {}
impl GstObjectImpl for LendingPoolImpl {}

impl BufferPoolImpl for LendingPoolImpl {
    fn set_config(&self, config: &mut gst::BufferPoolConfigRef) -> bool {
        let Some((buffers, (Some(caps), _, least, most))) = self.buffers.get().zip(config.params()) else {
            return false;
        };
        // Other caps are another stream: upstream then makes do without this pool.
        let fits = dma_buf::info(&caps).is_ok_and(|info| same(&info, &buffers.info));
        let there_are = buffers.fds.len() as u32;
        if !fits || least > there_are {
            return false;
        }
        let most = if most == 0 { there_are } else { most.min(there_are) };
        // None before it is needed, whatever upstream would have: those that are left can be copied into.
        config.set_params(Some(&caps), buffers.info.size() as u32, 0, most);
        self.parent_set_config(config)
    }

    fn alloc_buffer(&self, _: Option<&gst::BufferPoolAcquireParams>) -> Result<gst::Buffer, gst::FlowError> {
        let buffers = self.buffers.get().ok_or(gst::FlowError::NotNegotiated)?;
        // None is left where somebody keeps memories without the frames that they came in.
        let memory = buffers.lease().ok().flatten().ok_or(gst::FlowError::Error)?;
        let mut buffer = gst::Buffer::new();
        buffer.make_mut().append_memory(memory);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use gst::prelude::*;
    use shrbuf::exporter::Memfd;
    use shrbuf::{Format, Ledger, Reason};
    use shrbuf_pipeline::Size;

    use super::super::video;
    use super::*;

    fn buffers() -> Arc<Buffers> {
        gst::init().unwrap();
        let info = video::info(Format::Nv12, Size::new(64, 48), None, None).unwrap();
        let layout = shrbuf_gst_memory::video::layout(Format::Nv12, &info).unwrap();
        let memory: Vec<_> = (0..2).map(|_| Memfd::new("test").allocate(&layout).unwrap()).collect();
        let buffers = Buffers::new(&memory, info).unwrap();
        buffers.settle(memory, || {}).unwrap();
        buffers
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
        let sent = buffers.adopt(frame).unwrap();
        let twice = sent.clone();
        let other = acquire(&pool).unwrap();
        assert_eq!(acquire(&pool).err(), Some(gst::FlowError::Eos));
        drop(sent);
        assert_eq!(acquire(&pool).err(), Some(gst::FlowError::Eos));
        drop(twice);
        assert_eq!(acquire(&pool).unwrap().as_ptr(), at);
        drop(other);
        pool.set_active(false).unwrap();
    }

    #[test]
    fn same_frame_twice_is_two_references_to_one_buffer() {
        let buffers = buffers();
        let pool = pool(&buffers);
        let frame = acquire(&pool).unwrap();
        let (first, second) = (buffers.adopt(frame.clone()).unwrap(), buffers.adopt(frame).unwrap());
        assert_eq!((first.id(), first.references()), (second.id(), 2));
        drop((first, second));
        assert_eq!(buffers.home.get().unwrap().frames(), 0);
        pool.set_active(false).unwrap();
    }

    #[test]
    fn frames_elsewhere_are_copied_and_every_byte_is_counted() {
        let buffers = buffers();
        let account = Ledger::default().account("test", Reason::Transfer);
        let system = gst::Buffer::from_mut_slice((0..buffers.info.size()).map(|i| i as u8).collect::<Vec<u8>>());
        assert!(!buffers.has(&system));
        let system = buffers.adopt(system).unwrap_err();
        let held = [(); 2].map(|()| buffers.copy(&system, &account).unwrap().unwrap());
        assert_eq!(account.bytes(), 2 * 64 * 48 * 3 / 2);
        assert!(buffers.copy(&system, &account).unwrap().is_none());
        let (inspect, mut row) = (Ledger::default().account("test", Reason::Inspect), [0; 64]);
        held[0].read().unwrap().plane(1).read(1, 0, &mut row, &inspect);
        assert_eq!(row, std::array::from_fn(|x| (64 * 49 + x) as u8));
        drop(held);
        assert!(buffers.copy(&system, &account).unwrap().is_some());
    }

    #[test]
    fn pool_takes_no_other_caps_and_no_more_buffers_than_there_are() {
        let buffers = buffers();
        let configure = |format, least| {
            let pool = LendingPool::of(&buffers);
            let caps = video::info(format, Size::new(64, 48), None, None).unwrap().to_caps().unwrap();
            let mut config = pool.config();
            config.set_params(Some(&caps), buffers.info.size() as u32, least, 0);
            pool.set_config(config).is_ok()
        };
        assert!(configure(Format::Nv12, 2));
        assert!(!configure(Format::Nv12, 3));
        assert!(!configure(Format::Yu12, 0));
    }
}
