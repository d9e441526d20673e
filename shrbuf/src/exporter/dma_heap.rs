//! `/dev/dma_heap/*`.

use std::path::PathBuf;

use dma_heap::{Heap, HeapKind};

use super::{ExportError, page_aligned};
use crate::buffer::Shrbuf;
use crate::layout::Layout;
use crate::segment::Segment;

const FOLDER: &str = "/dev/dma_heap";

/// dma-bufs of one heap.
#[derive(Debug)]
pub struct DmaHeap {
    heap: Heap,
    name: String,
}

impl DmaHeap {
    /// The heaps of this machine by name; empty where the kernel has none.
    pub fn list() -> Vec<String> {
        let entries = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Opens heap `heap` (`system`, `linux,cma`, …); its dma-bufs are called `name` in debugfs.
    ///
    /// # Errors
    /// [`ExportError::NoHeap`], [`ExportError::Open`].
    pub fn open(heap: &str, name: &str) -> Result<DmaHeap, ExportError> {
        let path = PathBuf::from(FOLDER).join(heap);
        if heap.contains('/') || !path.exists() {
            return Err(ExportError::NoHeap { name: heap.to_owned(), found: DmaHeap::list().join(", ") });
        }
        let heap = Heap::new(HeapKind::Custom(path.clone())).map_err(|e| ExportError::Open {
            path: path.display().to_string(),
            source: std::io::Error::other(e),
            hint: "join the group that owns the node (often `video`)",
        })?;
        Ok(DmaHeap { heap, name: name.to_owned() })
    }

    /// A new, zeroed buffer.
    ///
    /// # Errors
    /// [`ExportError::Allocate`]: the heap is exhausted.
    pub fn allocate(&self, layout: &Layout) -> Result<Shrbuf, ExportError> {
        let segments = (0..layout.segments())
            .map(|s| {
                let size = page_aligned(layout.segment_size(s));
                let fd = self.heap.allocate(size as usize).map_err(|source| ExportError::Allocate {
                    call: "DMA_HEAP_IOCTL_ALLOC",
                    size,
                    source,
                })?;
                let segment = Segment::import(fd)?;
                // A name is for people reading debugfs; a kernel without it is no reason to fail.
                let _ = segment.set_name(&self.name);
                Ok(segment)
            })
            .collect::<Result<_, ExportError>>()?;
        Ok(Shrbuf::new(segments, *layout)?)
    }
}
