//! Our buffers as GStreamer's memories: each is wrapped once, lent for a frame, and back when nobody has it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gst::glib;
use shrbuf::{BufferId, Shrbuf};
use shrbuf_pipeline::{Frame, Rect};

use super::sys::{self, FdMemories, Spent, WayBack};
use super::video::Picture;

/// Why a buffer has no memory of GStreamer's.
#[derive(Debug, thiserror::Error)]
pub(super) enum WrapError {
    #[error("a buffer cannot be passed on: {0}; raise the descriptor limit (ulimit -n)")]
    Export(#[from] std::io::Error),
    #[error("GStreamer does not take its memory: {0}")]
    Gst(#[from] glib::BoolError),
}

/// What a lock guards is whole at every step, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One memory of one buffer.
#[derive(Default)]
struct Slot(Mutex<Lent>);

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
        let mut lent = lock(&self.0);
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
pub(super) struct Lender {
    buffers: Vec<(BufferId, Vec<Arc<Slot>>)>,
    memories: FdMemories,
    pub(super) picture: Picture,
}

impl Lender {
    /// Exports and wraps every buffer.
    pub(super) fn new(buffers: &[Shrbuf], picture: Picture) -> Result<Lender, WrapError> {
        // Whole at every step: a memory that is wrapped is freed only by `drop`.
        let mut lender = Lender { buffers: Vec::with_capacity(buffers.len()), memories: FdMemories::new(), picture };
        for buffer in buffers {
            lender.buffers.push((buffer.id(), Vec::with_capacity(buffer.segments().len())));
            for index in 0..buffer.segments().len() {
                let mut memory = lender.wrap(buffer, index)?;
                let slot = Arc::new(Slot::default());
                let owner = Arc::clone(&slot);
                let way_back: WayBack = Arc::new(move |spent| owner.come_back(spent));
                sys::lend(memory.make_mut(), way_back);
                lock(&slot.0).memory = Some(memory);
                if let Some((_, slots)) = lender.buffers.last_mut() {
                    slots.push(slot);
                }
            }
        }
        Ok(lender)
    }

    fn wrap(&self, buffer: &Shrbuf, index: usize) -> Result<gst::Memory, WrapError> {
        let size = self.picture.sizes.get(index).copied().unwrap_or(0);
        let mut memory = self.memories.wrap(buffer.segments()[index].kind(), buffer.export(index)?, size)?;
        // Others hold the same frame.
        sys::forbid_writing(memory.make_mut());
        Ok(memory)
    }

    /// The frame as GStreamer has it. Our reference is dropped when the last that was made of it is freed.
    pub(super) fn lend(&self, frame: &Frame) -> Result<gst::Buffer, WrapError> {
        let slots = self.buffers.iter().find(|(id, _)| *id == frame.buffer.id()).map(|(_, slots)| slots);
        let mut buffer = gst::Buffer::new();
        let writable = buffer.make_mut();
        for (index, &size) in self.picture.sizes.iter().enumerate() {
            let idle = slots.and_then(|slots| slots.get(index)).and_then(|slot| {
                let mut lent = lock(&slot.0);
                let memory = lent.memory.take()?;
                lent.frame = Some(frame.buffer.clone());
                Some(memory)
            });
            let mut memory = match idle {
                Some(memory) => memory,
                // The same buffer again while GStreamer still has it: somebody upstream repeats frames.
                None => {
                    let mut memory = self.wrap(&frame.buffer, index)?;
                    sys::tie(memory.make_mut(), frame.buffer.clone());
                    memory
                }
            };
            // Whoever had it last may have made it smaller.
            memory.make_mut().resize_maxsize(..size);
            writable.append_memory(memory);
        }
        self.describe(writable, frame)?;
        Ok(buffer)
    }

    /// How many buffers GStreamer has.
    pub(super) fn lent(&self) -> usize {
        let is_lent = |slots: &[Arc<Slot>]| slots.iter().any(|slot| lock(&slot.0).frame.is_some());
        self.buffers.iter().filter(|(_, slots)| is_lent(slots)).count()
    }

    fn describe(&self, buffer: &mut gst::BufferRef, frame: &Frame) -> Result<(), WrapError> {
        let Picture { info: video, offsets, strides, .. } = &self.picture;
        let flags = gst_video::VideoFrameFlags::empty();
        gst_video::VideoMeta::add_full(buffer, flags, video.format(), video.width(), video.height(), offsets, strides)?;
        if let Some(Rect { x, y, width, height }) = frame.crop {
            gst_video::VideoCropMeta::add(buffer, (x, y, width, height));
        }
        if frame.corrupt {
            buffer.set_flags(gst::BufferFlags::CORRUPTED);
        }
        buffer.set_offset(frame.sequence);
        buffer.set_offset_end(frame.sequence.wrapping_add(1));
        Ok(())
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        for slot in self.buffers.iter().flat_map(|(_, slots)| slots) {
            let mut lent = lock(&slot.0);
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
    use shrbuf::{Format, Pool};
    use shrbuf_pipeline::Timestamp;

    use super::*;

    fn of(layout: Layout) -> (Pool, Lender) {
        gst::init().unwrap();
        let buffers: Vec<_> = (0..2).map(|_| Memfd::new("test").allocate(&layout).unwrap()).collect();
        let lender = Lender::new(&buffers, Picture::of(&buffers).unwrap()).unwrap();
        (Pool::new(buffers, |_| {}).unwrap(), lender)
    }

    fn lend(pool: &Pool, lender: &Lender, index: usize) -> gst::Buffer {
        lender.lend(&Frame::new(pool.take(index).unwrap(), Timestamp(1), 7)).unwrap()
    }

    #[test]
    fn buffer_is_back_with_the_last_memory_made_of_it_and_lent_again_as_the_same() {
        let (pool, lender) = of(Layout::linear(Format::Grey, 64, 48, 1).unwrap());
        let mut frame = lend(&pool, &lender, 0);
        let memory = frame.peek_memory(0).as_ptr();
        let part = frame.copy_region(gst::BufferCopyFlags::MEMORY, 64..128).unwrap();
        frame.make_mut().set_size(10);
        drop(frame);
        assert_eq!(pool.idle(), 1);
        drop(part);
        assert_eq!(pool.idle(), 2);
        let again = lend(&pool, &lender, 0);
        assert_eq!((again.peek_memory(0).as_ptr(), again.size()), (memory, 64 * 48));
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
        let (pool, lender) = of(Layout::linear(Format::Grey, 64, 48, 1).unwrap());
        let frame = Frame::new(pool.take(0).unwrap(), Timestamp(1), 7);
        let (first, second) = (lender.lend(&frame).unwrap(), lender.lend(&frame).unwrap());
        assert_ne!(first.peek_memory(0).as_ptr(), second.peek_memory(0).as_ptr());
        drop(frame);
        drop(first);
        assert_eq!(pool.idle(), 1);
        drop(second);
        assert_eq!(pool.idle(), 2);
    }

    #[test]
    fn writing_makes_a_copy() {
        let (pool, lender) = of(Layout::linear(Format::Grey, 64, 48, 1).unwrap());
        let mut frame = lend(&pool, &lender, 0);
        frame.make_mut().map_writable().unwrap()[0] = 77;
        drop(frame);
        assert_eq!(lend(&pool, &lender, 0).map_readable().unwrap()[0], 0);
    }
}
