//! Our buffers as GStreamer's memories: each is wrapped once, lent for a frame, and back when nobody has it.

use std::sync::{Arc, Mutex};

use gst::glib;
use shrbuf::ipc::{FrameInfo, Received};
use shrbuf::{BufferId, Shrbuf};

use crate::lock;
use crate::sys::{self, FdMemories, Spent, WayBack};
use crate::video::Picture;

/// Why a buffer has no memory of GStreamer's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WrapError {
    #[error("a buffer cannot be passed on: {0}; raise the descriptor limit (ulimit -n)")]
    Export(#[from] std::io::Error),
    #[error("GStreamer takes no memory of ours: {0}")]
    Gst(#[from] glib::BoolError),
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
        // Last: the producer may send it again from now on.
        drop(frame);
    }
}

/// Lends the memories of all buffers of a connection, or of a pool.
pub(crate) struct Frames {
    buffers: Vec<(BufferId, Vec<Arc<Slot>>)>,
    picture: Picture,
}

impl Frames {
    /// Exports and wraps every buffer.
    pub(crate) fn new(buffers: &[Shrbuf], picture: Picture) -> Result<Frames, WrapError> {
        let memories = FdMemories::new();
        // Whole at every step: a memory that is wrapped is freed only by `drop`.
        let mut frames = Frames { buffers: Vec::with_capacity(buffers.len()), picture };
        for buffer in buffers {
            frames.buffers.push((buffer.id(), Vec::with_capacity(buffer.segments().len())));
            for (index, (segment, &size)) in buffer.segments().iter().zip(&frames.picture.sizes).enumerate() {
                let mut memory = memories.wrap(segment.kind(), buffer.export(index)?, size)?;
                let slot = Arc::new(Slot::default());
                let owner = Arc::clone(&slot);
                let way_back: WayBack = Arc::new(move |spent| owner.come_back(spent));
                let writable = memory.make_mut();
                sys::forbid_writing(writable);
                sys::lend(writable, way_back);
                lock(&slot.0).memory = Some(memory);
                if let Some((_, slots)) = frames.buffers.last_mut() {
                    slots.push(slot);
                }
            }
        }
        Ok(frames)
    }

    /// The frame as GStreamer has it. Its memory goes back to the producer when the last that was made of it is freed.
    pub(crate) fn lend(&self, received: Received) -> Result<gst::Buffer, glib::BoolError> {
        let Received { buffer: frame, info } = received;
        let unknown = || glib::bool_error!("buffer {} is not one of the connection's, or is still out", frame.id());
        let slots = self.buffers.iter().find(|(id, _)| *id == frame.id()).map(|(_, slots)| slots);
        let mut buffer = gst::Buffer::new();
        let writable = buffer.make_mut();
        for (slot, &size) in slots.ok_or_else(unknown)?.iter().zip(&self.picture.sizes) {
            let mut lent = lock(&slot.0);
            let mut memory = lent.memory.take().ok_or_else(unknown)?;
            lent.frame = Some(frame.clone());
            drop(lent);
            // Whoever had it last may have made it smaller.
            memory.make_mut().resize_maxsize(..size);
            writable.append_memory(memory);
        }
        self.describe(writable, &info)?;
        Ok(buffer)
    }

    fn describe(&self, buffer: &mut gst::BufferRef, info: &FrameInfo) -> Result<(), glib::BoolError> {
        let Picture { info: video, offsets, strides, .. } = &self.picture;
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

impl Drop for Frames {
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
    use shrbuf::{Format, Pool, State};

    use super::*;

    /// Lends buffers of a pool of ours, in place of a producer's.
    fn of(layout: Layout) -> (Pool, Frames) {
        gst::init().unwrap();
        let buffers: Vec<_> = (0..2).map(|_| Memfd::new("test").allocate(&layout).unwrap()).collect();
        let frames = Frames::new(&buffers, Picture::of(&buffers, None).unwrap()).unwrap();
        (Pool::new(buffers, |_| {}).unwrap(), frames)
    }

    fn grey() -> (Pool, Frames) {
        of(Layout::linear(Format::Grey, 64, 48, 1).unwrap())
    }

    fn lend(pool: &Pool, frames: &Frames, index: usize) -> gst::Buffer {
        let buffer = pool.take(index).unwrap();
        buffer.set_state(State::Filled);
        frames.lend(Received { buffer, info: FrameInfo::default() }).unwrap()
    }

    #[test]
    fn frame_is_given_back_with_the_last_memory_made_of_it() {
        let (pool, frames) = grey();
        let frame = lend(&pool, &frames, 0);
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
        let (pool, frames) = grey();
        let at = |frame: &gst::Buffer| frame.peek_memory(0).as_ptr();
        let mut first = lend(&pool, &frames, 0);
        let memory = at(&first);
        first.make_mut().set_size(10);
        drop(first);
        for _ in 0..10 {
            let again = lend(&pool, &frames, 0);
            assert_eq!((at(&again), again.size()), (memory, 64 * 48));
        }
    }

    #[test]
    fn frame_outlives_the_connection() {
        let (pool, frames) = grey();
        let frame = lend(&pool, &frames, 0);
        drop(frames);
        assert_eq!((pool.idle(), frame.map_readable().unwrap().len()), (1, 64 * 48));
        drop(frame);
        assert_eq!(pool.idle(), 2);
    }

    #[test]
    fn writing_makes_a_copy() {
        let (pool, frames) = grey();
        let mut frame = lend(&pool, &frames, 0);
        frame.make_mut().map_writable().unwrap()[0] = 77;
        drop(frame);
        let again = lend(&pool, &frames, 0);
        assert_eq!(again.map_readable().unwrap()[0], 0);
    }

    #[test]
    fn every_memory_of_a_frame_holds_it() {
        let plane = |segment| Plane { segment, offset: 0, stride: 64 };
        let (pool, frames) = of(Layout::new(Format::Nv12, None, 64, 48, &[plane(0), plane(1)]).unwrap());
        let frame = lend(&pool, &frames, 1);
        let [luma, chroma] = [frame.memory(0), frame.memory(1)];
        drop(frame);
        drop(luma);
        assert_eq!(pool.idle(), 1);
        drop(chroma);
        assert_eq!(pool.idle(), 2);
    }

    #[test]
    fn frame_of_no_buffer_of_the_connection_is_an_error() {
        let ((_, frames), (other, _)) = (grey(), grey());
        let buffer = other.take(0).unwrap();
        let lent = frames.lend(Received { buffer, info: FrameInfo::default() });
        assert!(lent.unwrap_err().to_string().contains("not one of the connection's"));
    }
}
