//! Memory for elements that bring none of their own: which allocators are on offer, and their buffers.

use shrbuf::exporter::{DmaHeap, ExportError, Exporter, Memfd, Udmabuf};
use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{Layout, LayoutError, Shrbuf};
use shrbuf_pipeline::{Origin, Produces, Refusal, Stream};

shrbuf_pipeline::choices! {
    /// Where an element's memory comes from.
    pub enum Memory {
        /// The first that every consumer takes: udmabuf, dma-heap, memfd.
        Auto = "auto",
        /// memfd: CPUs only.
        Memfd = "memfd",
        /// A dma-buf of ordinary pages.
        Udmabuf = "udmabuf",
        /// A dma-buf of the system heap.
        DmaHeap = "dma-heap",
    }
}

const HEAP: &str = "system";

impl Memory {
    /// What an output offers, which keeps one buffer to write into. A choice that was made is offered whether it
    /// works or not, so that the refusal says why; `auto` leaves out what this machine does not have.
    pub(crate) fn offer(self) -> Produces {
        let origins = match self {
            Memory::Memfd => vec![Origin::Memfd],
            Memory::Udmabuf => vec![Origin::Udmabuf],
            Memory::DmaHeap => vec![Origin::DmaHeap],
            Memory::Auto => [Origin::Udmabuf, Origin::DmaHeap, Origin::Memfd].into_iter().filter(works).collect(),
        };
        Produces { origins, max_stride_align: 4096, keeps: 1, max_buffers: MAX_BUFFERS as u32 }
    }
}

fn works(origin: &Origin) -> bool {
    exporter(*origin, "probe").is_ok()
}

/// The kernel's allocators of dma-bufs that can be opened, best first.
#[cfg(feature = "gpu")]
pub(crate) fn dma_bufs() -> Vec<Origin> {
    [Origin::Udmabuf, Origin::DmaHeap].into_iter().filter(works).collect()
}

fn exporter(origin: Origin, name: &str) -> Result<Exporter, ExportError> {
    match origin {
        Origin::Udmabuf => Udmabuf::open(name).map(Exporter::Udmabuf),
        Origin::DmaHeap => DmaHeap::open(HEAP, name).map(Exporter::DmaHeap),
        // A device's own memory is never asked of an element that offers none.
        _ => Ok(Exporter::Memfd(Memfd::new(name))),
    }
}

/// The buffers that `stream` asks for, called `name` in debugfs.
pub(crate) fn allocate(stream: &Stream, name: &str) -> Result<Vec<Shrbuf>, Refusal> {
    let refuse = |e: LayoutError| Refusal::new(e.to_string());
    let room = stream.room();
    let room = Layout::linear(stream.format, room.width, room.height, stream.stride_align).map_err(refuse)?;
    let (width, height) = (stream.size.width, stream.size.height);
    if (room.width, room.height) == (width, height) {
        return allocate_as(stream, &room, name);
    }
    let picture = Layout::new(stream.format, room.modifier, width, height, room.planes()).map_err(refuse)?;
    allocate_as(stream, &room, name)?.into_iter().map(|b| inside(b, picture)).collect()
}

/// A buffer that has room for more than the picture that it is for.
pub(crate) fn inside(buffer: Shrbuf, picture: Layout) -> Result<Shrbuf, Refusal> {
    let segments = buffer.segments().to_vec();
    // The same memory cannot be buffers of two layouts at once.
    drop(buffer);
    Shrbuf::new(segments, picture).map_err(|e| Refusal::new(e.to_string()))
}

/// As [`allocate`], with planes where `layout` has them.
pub(crate) fn allocate_as(stream: &Stream, layout: &Layout, name: &str) -> Result<Vec<Shrbuf>, Refusal> {
    let exporter = exporter(stream.origin, name)
        .map_err(|e| Refusal::new(e.to_string()).instead("memory = \"auto\" takes what this machine has"))?;
    (0..stream.buffers.max(1)).map(|_| exporter.allocate(layout)).collect::<Result<_, _>>().map_err(|e| {
        Refusal::new(e.to_string()).instead("a smaller size, fewer frames in queues, or memory = \"memfd\" may fit")
    })
}

/// Why a frame in a buffer that nobody knew of in negotiation is not where it was agreed on; `None` where it is.
pub(crate) fn unfit(layout: &Layout, stream: &Stream) -> Option<String> {
    let align = stream.stride_align.max(1);
    if let Some(plane) = layout.planes().iter().find(|plane| !plane.stride.is_multiple_of(align)) {
        return Some(format!("with rows of {} bytes, where multiples of {align} were agreed on", plane.stride));
    }
    let (segments, agreed) = (layout.segments(), stream.origin.kind());
    (segments > 1 && !stream.plane_segments).then(|| format!("in {segments} {agreed}s each, where one was agreed on"))
}

#[cfg(test)]
mod tests {
    use shrbuf::Format;
    use shrbuf_pipeline::Size;

    use super::*;

    #[test]
    fn memory_has_room_for_whole_blocks_below_the_picture() {
        let stream = Stream {
            format: Format::Nv12,
            modifier: Some(shrbuf::Modifier::LINEAR),
            size: Size::new(652, 360),
            rate: None,
            origin: Origin::Memfd,
            stride_align: 1,
            block: Some(Size::new(16, 16)),
            plane_segments: false,
            read_only: false,
            buffers: 2,
        };

        let buffers = allocate(&stream, "test").unwrap();

        assert_eq!(buffers.len(), 2);
        for buffer in buffers {
            let layout = buffer.layout();
            assert_eq!((layout.width, layout.height), (652, 360));
            let planes: Vec<_> = layout.planes().iter().map(|p| (p.offset, p.stride)).collect();
            assert_eq!(planes, [(0, 656), (656 * 368, 656)]);
            assert!(buffer.segments()[0].size() >= 656 * 368 * 3 / 2);
        }
    }
}
