//! GStreamer's memories as our buffers: the dma-buf or sealed memfd that a frame lies in.

use std::sync::Arc;

use gst_video::{VideoInfo, VideoMeta};
use shrbuf::layout::{Layout, Plane};
use shrbuf::{ImportError, MemoryKind, Segment, Shrbuf};

use crate::dma_buf::Drm;
use crate::{sys, video};

/// Most memories that a frame lies in.
const MEMORIES: usize = 4;

/// Where a frame lies, if all of it lies in dma-bufs and sealed memfds: their segments, and the layout of what is in
/// them.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    segments: [Option<&'a Arc<Segment>>; MEMORIES],
    layout: Layout,
}

impl<'a> Place<'a> {
    /// `None` where some of it lies elsewhere, or as no layout says. Each memory is imported once, by whoever asks
    /// first.
    pub fn of(frame: &'a gst::BufferRef, info: &VideoInfo, drm: Option<Drm>) -> Option<Place<'a>> {
        let meta = frame.meta::<VideoMeta>();
        let (offsets, strides) =
            meta.as_ref().map_or((info.offset(), info.stride()), |meta| (meta.offset(), meta.stride()));
        let mut place = [const { Plane { segment: 0, offset: 0, stride: 0 } }; MEMORIES];
        let mut segments = [None; MEMORIES];
        for ((plane, &offset), &stride) in place.iter_mut().zip(offsets).zip(strides) {
            let (memories, skipped) = frame.find_memory(offset..offset.checked_add(1)?)?;
            let memory = frame.peek_memory(memories.start);
            let segment = segment(memory)?;
            let at = segments.iter().position(|s| s.is_none_or(|s| Arc::ptr_eq(s, segment)))?;
            segments[at] = Some(segment);
            let offset = u32::try_from(memory.offset().checked_add(skipped)?).ok()?;
            *plane = Plane { segment: at as u8, offset, stride: u32::try_from(stride).ok()? };
        }
        let planes = &place[..offsets.len().min(MEMORIES)];
        Some(Place { segments, layout: video::layout_of(info, drm, planes)? })
    }

    /// True where `buffer` is of this memory and layout.
    pub fn is(&self, buffer: &Shrbuf) -> bool {
        self.has(buffer.segments(), buffer.layout())
    }

    /// As [`Place::is`], of what a buffer is made of.
    pub fn has(&self, segments: &[Arc<Segment>], layout: &Layout) -> bool {
        let mine = self.segments.iter().flatten();
        *layout == self.layout
            && mine.clone().count() == segments.len()
            && mine.zip(segments).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// True where some of this memory is among `segments`.
    pub fn shares(&self, segments: &[Arc<Segment>]) -> bool {
        self.segments.iter().flatten().any(|mine| segments.iter().any(|segment| Arc::ptr_eq(mine, segment)))
    }

    /// Its layout, which names the segments in the order of [`Place::buffer`].
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What holds the memory.
    pub fn kind(&self) -> MemoryKind {
        self.segments.iter().flatten().next().map_or(MemoryKind::Memfd, |segment| segment.kind())
    }

    /// A buffer of this memory that is nobody else's: `None` where it is in a pool of this process already, to which it
    /// would go back, or cannot be one.
    pub fn buffer_of_its_own(&self) -> Option<Shrbuf> {
        // Gone with its only handle, it is nobody else's.
        let elsewhere = self.buffer().ok()?.downgrade();
        if elsewhere.is_gone() { self.buffer().ok() } else { None }
    }

    /// A buffer of this memory.
    ///
    /// # Errors
    /// As [`Shrbuf::new`].
    pub fn buffer(&self) -> Result<Shrbuf, ImportError> {
        let buffer = Shrbuf::new(self.segments.iter().flatten().map(|s| Arc::clone(s)).collect(), self.layout)?;
        // Whoever wrote it may have had a device do so.
        buffer.expect_fences();
        Ok(buffer)
    }
}

/// What a memory's descriptor stands for; `None` where it has none that can be shared.
fn segment(memory: &gst::MemoryRef) -> Option<&Arc<Segment>> {
    let import = || Some(sys::descriptor(memory)?.ok().and_then(|fd| Segment::import(fd).ok()));
    sys::made_once::<Option<Arc<Segment>>>(memory, import)?.as_ref()
}
