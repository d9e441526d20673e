//! Our buffers as GStreamer's memories: each is wrapped once, lent for a frame, and back when nobody has it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gst::glib;
use shrbuf::ipc::FrameInfo;
use shrbuf::{BufferId, Shrbuf, WeakShrbuf};

use crate::sys::{self, FdMemories, Spent, WayBack};
use crate::video::{Planes, PlanesError};

/// Why a buffer has no memory of GStreamer's.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// It has no further descriptor.
    #[error("a buffer cannot be passed on: {0}; raise the descriptor limit (ulimit -n)")]
    Export(#[from] std::io::Error),
    /// Those before are described by one `VideoInfo`.
    #[error(
        "a frame has its planes elsewhere than those before it, which caps do not tell GStreamer of; link whoever makes it \
             to something else, or have it pad rows alike"
    )]
    Unlike,
    /// They cannot be told.
    #[error("{0}")]
    Planes(#[from] PlanesError),
    /// In GStreamer's words.
    #[error("GStreamer takes no memory of ours: {0}")]
    Gst(#[from] glib::BoolError),
}

/// What a lock guards is whole at every step, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One memory of one buffer.
struct Slot {
    /// Where the memory is, for as long as the slot is not closed: it is known by that.
    address: usize,
    lent: Mutex<Lent>,
}

#[derive(Default)]
struct Lent {
    /// While nobody has it.
    memory: Option<gst::Memory>,
    /// While somebody has: keeps the buffer from its producer.
    frame: Option<Shrbuf>,
    /// It need not come back.
    closed: bool,
}

impl Slot {
    fn come_back(&self, spent: Spent<'_>) {
        let mut lent = lock(&self.lent);
        if !lent.closed {
            lent.memory = Some(spent.revive());
        }
        let frame = lent.frame.take();
        drop(lent);
        // Last: the producer may write to it again from now on.
        drop(frame);
    }
}

/// Lends the memories of all buffers of a stream.
pub struct Lender {
    buffers: Vec<Wrapped>,
    memories: FdMemories,
    planes: Planes,
}

impl Lender {
    /// Exports and wraps every buffer.
    ///
    /// # Errors
    /// There are too few descriptors, or GStreamer does not take one.
    pub fn new(buffers: &[Shrbuf], planes: Planes) -> Result<Lender, WrapError> {
        let mut lender = Lender { buffers: Vec::with_capacity(buffers.len()), memories: FdMemories::new(), planes };
        buffers.iter().try_for_each(|buffer| lender.add(buffer))?;
        Ok(lender)
    }

    fn add(&mut self, buffer: &Shrbuf) -> Result<(), WrapError> {
        let slots = Vec::with_capacity(buffer.segments().len());
        let mut wrapped = Wrapped { id: buffer.id(), buffer: buffer.downgrade(), slots };
        for (index, &size) in self.planes.sizes.iter().enumerate() {
            let mut memory = self.wrap(buffer, index, size)?;
            let slot = Arc::new(Slot { address: memory.as_ptr().addr(), lent: Mutex::default() });
            let owner = Arc::clone(&slot);
            let way_back: WayBack = Arc::new(move |spent| owner.come_back(spent));
            sys::lend(memory.make_mut(), way_back);
            lock(&slot.lent).memory = Some(memory);
            wrapped.slots.push(slot);
        }
        // Last: one that is not whole is none.
        self.buffers.push(wrapped);
        Ok(())
    }

    fn wrap(&self, buffer: &Shrbuf, index: usize, size: usize) -> Result<gst::Memory, WrapError> {
        let fd = buffer.export(index)?;
        let mut memory = self.memories.wrap(buffer.segments()[index].kind(), fd, size)?;
        // Others hold the same frame.
        sys::forbid_writing(memory.make_mut());
        Ok(memory)
    }

    /// The frame as GStreamer has it; `None` where it is in none of the buffers, or in one that GStreamer still has.
    /// Our reference is dropped when the last memory that was made of it is freed.
    ///
    /// # Errors
    /// GStreamer cannot say where the planes lie.
    pub fn lend(&self, frame: &Shrbuf, info: &FrameInfo) -> Result<Option<gst::Buffer>, glib::BoolError> {
        let Some(Wrapped { slots, .. }) = self.buffers.iter().find(|wrapped| wrapped.id == frame.id()) else {
            return Ok(None);
        };
        let mut buffer = gst::Buffer::new();
        let writable = buffer.make_mut();
        for (slot, &size) in slots.iter().zip(&self.planes.sizes) {
            let mut lent = lock(&slot.lent);
            let Some(mut memory) = lent.memory.take() else { return Ok(None) };
            lent.frame = Some(frame.clone());
            drop(lent);
            // Whoever had it last may have made it smaller.
            memory.make_mut().resize_maxsize(..size);
            writable.append_memory(memory);
        }
        self.describe(writable, info)?;
        Ok(Some(buffer))
    }

    /// As [`Lender::lend`], in memory wrapped for this once: for a frame that somebody upstream repeats while GStreamer
    /// still has it.
    ///
    /// # Errors
    /// As of [`Lender::new`] and [`Lender::lend`].
    pub fn lend_again(&self, frame: &Shrbuf, info: &FrameInfo) -> Result<gst::Buffer, WrapError> {
        let mut buffer = gst::Buffer::new();
        let writable = buffer.make_mut();
        for (index, &size) in self.planes.sizes.iter().enumerate() {
            let mut memory = self.wrap(frame, index, size)?;
            sys::tie(memory.make_mut(), frame.clone());
            writable.append_memory(memory);
        }
        self.describe(writable, info)?;
        Ok(buffer)
    }

    /// The frame as GStreamer has it, whatever it is in: a buffer that was not here before is wrapped for keeps, and one that
    /// GStreamer still has once more, for this once.
    ///
    /// # Errors
    /// As of [`Lender::new`], or a buffer has its planes elsewhere than those before.
    pub fn pass(&mut self, frame: &Shrbuf, info: &FrameInfo) -> Result<gst::Buffer, WrapError> {
        if !self.buffers.iter().any(|wrapped| wrapped.id == frame.id()) {
            self.learn(frame)?;
        }
        match self.lend(frame, info)? {
            Some(buffer) => Ok(buffer),
            None => self.lend_again(frame, info),
        }
    }

    fn learn(&mut self, buffer: &Shrbuf) -> Result<(), WrapError> {
        let Planes { offsets, strides, sizes, .. } =
            Planes::of(std::slice::from_ref(buffer), self.planes.info.clone())?;
        if (&offsets, &strides, &sizes) != (&self.planes.offsets, &self.planes.strides, &self.planes.sizes) {
            return Err(WrapError::Unlike);
        }
        // Their memory is kept by nobody but us.
        self.buffers.retain(|wrapped| !wrapped.buffer.is_gone());
        self.add(buffer)
    }

    /// The buffer that a frame of GStreamer's is in, all of it and as it was lent; `None` where it is in other memory.
    pub fn lent_as(&self, frame: &gst::BufferRef) -> Option<Shrbuf> {
        let whole = |index: usize, memory: &gst::MemoryRef| {
            memory.offset() == 0 && self.planes.sizes.get(index).is_some_and(|size| memory.size() >= *size)
        };
        if frame.n_memory() != self.planes.sizes.len() || !frame.iter_memories().enumerate().all(|(i, m)| whole(i, m)) {
            return None;
        }
        let first = frame.peek_memory(0);
        if let Some(again) = sys::tied::<Shrbuf>(first) {
            return Some(again.clone());
        }
        let is = |slot: &Arc<Slot>, memory: &gst::MemoryRef| slot.address == memory.as_ptr().addr();
        let of = |slots: &[Arc<Slot>]| slots.iter().zip(frame.iter_memories()).all(|(slot, memory)| is(slot, memory));
        let wrapped = self.buffers.iter().find(|wrapped| of(&wrapped.slots))?;
        lock(&wrapped.slots.first()?.lent).frame.clone()
    }

    /// How many buffers GStreamer has.
    pub fn lent(&self) -> usize {
        self.buffers.iter().filter(|wrapped| wrapped.is_lent()).count()
    }

    /// Where the planes lie.
    pub fn planes(&self) -> &Planes {
        &self.planes
    }

    fn describe(&self, buffer: &mut gst::BufferRef, info: &FrameInfo) -> Result<(), glib::BoolError> {
        let Planes { info: video, offsets, strides, .. } = &self.planes;
        let flags = gst_video::VideoFrameFlags::empty();
        gst_video::VideoMeta::add_full(buffer, flags, video.format(), video.width(), video.height(), offsets, strides)?;
        if let Some([x, y, width, height]) = info.crop {
            gst_video::VideoCropMeta::add(buffer, (x, y, width, height));
        }
        if info.corrupt {
            buffer.set_flags(gst::BufferFlags::CORRUPTED);
        }
        buffer.set_offset(info.sequence);
        buffer.set_offset_end(info.sequence.wrapping_add(1));
        Ok(())
    }
}

/// A buffer, with a memory for each of its planes' own.
struct Wrapped {
    id: BufferId,
    /// Lent memory keeps a reference: so one that is gone is not lent.
    buffer: WeakShrbuf,
    slots: Vec<Arc<Slot>>,
}

impl Wrapped {
    fn is_lent(&self) -> bool {
        self.slots.iter().any(|slot| lock(&slot.lent).frame.is_some())
    }
}

impl Drop for Wrapped {
    /// What is out need not come back.
    fn drop(&mut self) {
        for slot in &self.slots {
            let mut lent = lock(&slot.lent);
            lent.closed = true;
            let memory = lent.memory.take();
            drop(lent);
            // Not under the lock: its end looks at the slot once more.
            drop(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use shrbuf::exporter::Memfd;
    use shrbuf::layout::{Layout, Plane};
    use shrbuf::{Format, Pool, State};

    use super::*;

    fn of(layout: Layout) -> (Pool, Lender) {
        gst::init().unwrap();
        let buffers: Vec<_> = (0..2).map(|_| Memfd::new("test").allocate(&layout).unwrap()).collect();
        let info =
            gst_video::VideoInfo::builder(crate::video::theirs(layout.format).unwrap(), layout.width, layout.height);
        let lender = Lender::new(&buffers, Planes::of(&buffers, info.build().unwrap()).unwrap()).unwrap();
        (Pool::new(buffers, |_| {}).unwrap(), lender)
    }

    fn grey() -> (Pool, Lender) {
        of(Layout::linear(Format::Grey, 64, 48, 1).unwrap())
    }

    fn lend(pool: &Pool, lender: &Lender, index: usize) -> gst::Buffer {
        let buffer = pool.take(index).unwrap();
        buffer.set_state(State::Filled);
        lender.lend(&buffer, &FrameInfo::default()).unwrap().unwrap()
    }

    #[test]
    fn frame_is_given_back_with_the_last_memory_made_of_it() {
        let (pool, lender) = grey();
        let frame = lend(&pool, &lender, 0);
        let part = frame.copy_region(gst::BufferCopyFlags::MEMORY, 64..128).unwrap();
        let whole = frame.copy();
        drop(frame);
        assert_eq!(pool.idle(), 1);
        drop(whole);
        assert_eq!(pool.idle(), 1);
        drop(part);
        assert_eq!(pool.idle(), 2);
    }

    #[test]
    fn memory_is_wrapped_once_and_whole_each_time() {
        let (pool, lender) = grey();
        let at = |frame: &gst::Buffer| frame.peek_memory(0).as_ptr();
        let mut first = lend(&pool, &lender, 0);
        let memory = at(&first);
        first.make_mut().set_size(10);
        drop(first);
        for _ in 0..10 {
            let again = lend(&pool, &lender, 0);
            assert_eq!((at(&again), again.size()), (memory, 64 * 48));
        }
    }

    #[test]
    fn frame_outlives_the_lender() {
        let (pool, lender) = grey();
        let frame = lend(&pool, &lender, 0);
        drop(lender);
        assert_eq!((pool.idle(), frame.map_readable().unwrap().len()), (1, 64 * 48));
        drop(frame);
        assert_eq!(pool.idle(), 2);
    }

    #[test]
    fn writing_makes_a_copy() {
        let (pool, lender) = grey();
        let mut frame = lend(&pool, &lender, 0);
        frame.make_mut().map_writable().unwrap()[0] = 77;
        drop(frame);
        let again = lend(&pool, &lender, 0);
        assert_eq!(again.map_readable().unwrap()[0], 0);
    }

    #[test]
    fn every_memory_of_a_frame_holds_it_and_outlives_the_lender() {
        let plane = |segment| Plane { segment, offset: 0, stride: 64 };
        let (pool, lender) = of(Layout::new(Format::Nv12, None, 64, 48, &[plane(0), plane(1)]).unwrap());
        let frame = lend(&pool, &lender, 1);
        let [luma, chroma] = [frame.memory(0), frame.memory(1)];
        drop((frame, lender));
        drop(luma);
        assert_eq!(pool.idle(), 1);
        drop(chroma);
        assert_eq!(pool.idle(), 2);
    }

    #[test]
    fn a_frame_that_is_still_out_is_lent_once_more() {
        let (pool, lender) = grey();
        let frame = pool.take(0).unwrap();
        let first = lender.lend(&frame, &FrameInfo::default()).unwrap().unwrap();
        assert!(lender.lend(&frame, &FrameInfo::default()).unwrap().is_none());
        let second = lender.lend_again(&frame, &FrameInfo::default()).unwrap();
        assert_ne!(first.peek_memory(0).as_ptr(), second.peek_memory(0).as_ptr());
        drop(frame);
        drop(first);
        assert_eq!((pool.idle(), lender.lent()), (1, 0));
        drop(second);
        assert_eq!(pool.idle(), 2);
    }

    #[test]
    fn frame_of_which_a_part_is_still_out_is_not_lent_and_what_was_taken_for_it_is_back() {
        let plane = |segment| Plane { segment, offset: 0, stride: 64 };
        let (pool, lender) = of(Layout::new(Format::Nv12, None, 64, 48, &[plane(0), plane(1)]).unwrap());
        let frame = pool.take(0).unwrap();
        let chroma = lender.lend(&frame, &FrameInfo::default()).unwrap().unwrap().memory(1);
        assert!(lender.lend(&frame, &FrameInfo::default()).unwrap().is_none());
        drop(chroma);
        assert_eq!(lender.lent(), 0);
        assert!(lender.lend(&frame, &FrameInfo::default()).unwrap().is_some());
    }

    #[test]
    fn frame_that_comes_back_is_found_in_the_buffer_that_was_lent() {
        let (pool, lender) = grey();
        let (_, other) = grey();
        let (buffer, again) =
            (pool.take(0).unwrap(), |b: &Shrbuf| lender.lend_again(b, &FrameInfo::default()).unwrap());
        let lent = lender.lend(&buffer, &FrameInfo::default()).unwrap().unwrap();
        for frame in [lent.copy(), again(&buffer), lent.clone()] {
            assert_eq!(lender.lent_as(&frame).map(|b| b.id()), Some(buffer.id()));
        }
        let part = lent.copy_region(gst::BufferCopyFlags::MEMORY, 64..128).unwrap();
        let deep = lent.copy_deep().unwrap();
        assert!(lender.lent_as(&part).is_none() && lender.lent_as(&deep).is_none() && other.lent_as(&lent).is_none());
        let found = lender.lent_as(&lent).unwrap();
        drop((lent, part, buffer));
        assert_eq!((pool.idle(), lender.lent()), (1, 0));
        drop(found);
        assert_eq!(pool.idle(), 2);
    }

    #[test]
    fn a_buffer_that_was_not_there_at_first_is_wrapped_once_and_one_laid_out_otherwise_is_none() {
        let (pool, mut lender) = grey();
        let late = |align| Memfd::new("test").allocate(&Layout::linear(Format::Grey, 64, 48, align).unwrap()).unwrap();
        let (frame, info) = (late(1), FrameInfo::default());
        let at: Vec<_> = (0..10).map(|_| lender.pass(&frame, &info).unwrap().peek_memory(0).as_ptr()).collect();
        assert!(at.iter().all(|memory| *memory == at[0]));
        let still_out = [lender.pass(&frame, &info).unwrap(), lender.pass(&frame, &info).unwrap()];
        assert_eq!((frame.references(), lender.lent()), (3, 1));
        drop(still_out);
        assert_eq!((frame.references(), lender.lent(), pool.idle()), (1, 0, 2));
        assert!(matches!(lender.pass(&late(128), &info), Err(WrapError::Unlike)));
        // Those that are gone are let go of as soon as another comes, and those that are out once they are back.
        (0..100).for_each(|_| drop(lender.pass(&late(1), &info).unwrap()));
        assert_eq!(lender.buffers.len(), 2 + 1 + 1);
        let out: Vec<_> = (0..10).map(|_| lender.pass(&late(1), &info).unwrap()).collect();
        assert_eq!((lender.buffers.len(), lender.lent()), (2 + 1 + 10, 10));
        drop(out);
        drop(lender.pass(&late(1), &info).unwrap());
        assert_eq!((lender.buffers.len(), lender.lent()), (2 + 1 + 1, 0));
    }

    #[test]
    fn what_is_said_of_a_frame_goes_along() {
        let (pool, lender) = grey();
        let info = FrameInfo { sequence: 7, crop: Some([2, 4, 32, 16]), corrupt: true, ..FrameInfo::default() };
        let frame = lender.lend(&pool.take(0).unwrap(), &info).unwrap().unwrap();
        let crop = frame.meta::<gst_video::VideoCropMeta>().unwrap().rect();
        assert_eq!((frame.offset(), frame.offset_end(), crop), (7, 8, (2, 4, 32, 16)));
        assert!(frame.flags().contains(gst::BufferFlags::CORRUPTED));
    }
}
