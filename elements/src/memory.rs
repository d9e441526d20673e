//! Memory for elements that bring none of their own: which allocators are on offer, and their buffers.

use shrbuf::exporter::{DmaHeap, ExportError, Exporter, Memfd, Udmabuf};
use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{Layout, Shrbuf};
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
    let layout = Layout::linear(stream.format, stream.size.width, stream.size.height, stream.stride_align)
        .map_err(|e| Refusal::new(e.to_string()))?;
    allocate_as(stream, &layout, name)
}

/// As [`allocate`], with planes where `layout` has them.
pub(crate) fn allocate_as(stream: &Stream, layout: &Layout, name: &str) -> Result<Vec<Shrbuf>, Refusal> {
    let exporter = exporter(stream.origin, name)
        .map_err(|e| Refusal::new(e.to_string()).instead("memory = \"auto\" takes what this machine has"))?;
    (0..stream.buffers.max(1)).map(|_| exporter.allocate(layout)).collect::<Result<_, _>>().map_err(|e| {
        Refusal::new(e.to_string()).instead("a smaller size, fewer frames in queues, or memory = \"memfd\" may fit")
    })
}
