//! Where memory comes from, when no device brings its own.
//!
//! - [`Memfd`]: any Linux; CPUs only.
//! - [`Udmabuf`]: a dma-buf made of a memfd's pages (`/dev/udmabuf`); most devices with an IOMMU, vkms, GPUs.
//! - [`DmaHeap`]: `/dev/dma_heap/*`; the kernel's allocator for devices, contiguous where the heap is.
//!
//! Devices that export their own memory (V4L2, DRM) are elements.
//! A new exporter is a file here, a variant of [`Exporter`], and a line in the conformance suite
//! (`shrbuf/tests/exporters.rs`).

mod dma_heap;
mod memfd;
mod udmabuf;

use std::io;

pub use dma_heap::DmaHeap;
pub use memfd::Memfd;
pub use udmabuf::Udmabuf;

use nix::unistd::{SysconfVar, sysconf};

use crate::buffer::Shrbuf;
use crate::layout::{Layout, LayoutError};
use crate::segment::ImportError;

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The device node is missing or may not be opened.
    #[error("cannot open {path}: {source}; {hint}")]
    Open {
        /// Device node.
        path: String,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// No heap of that name.
    #[error("there is no dma-heap `{name}` in /dev/dma_heap (found: {found})")]
    NoHeap {
        /// Name asked for.
        name: String,
        /// Names there are.
        found: String,
    },
    /// The kernel refused the allocation.
    #[error("{call} of {size} bytes failed: {source}")]
    Allocate {
        /// Call.
        call: &'static str,
        /// Bytes asked for.
        size: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// The layout cannot be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The new memory was not taken as a buffer, which would be a bug of the kernel or ours.
    #[error(transparent)]
    Import(#[from] ImportError),
}

fn allocate_error(call: &'static str, size: u64) -> impl Fn(nix::Error) -> ExportError {
    move |e| ExportError::Allocate { call, size, source: e.into() }
}

/// Bytes rounded up to whole pages, as dma-bufs are.
pub(crate) fn page_aligned(size: u64) -> u64 {
    // A kernel that does not say has the size that all of them have had for long.
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|n| u64::try_from(n).ok()).unwrap_or(4096).max(1);
    size.div_ceil(page).saturating_mul(page)
}

/// Any of the exporters, chosen at run time.
#[derive(Debug)]
pub enum Exporter {
    /// CPU memory.
    Memfd(Memfd),
    /// A dma-buf of CPU pages.
    Udmabuf(Udmabuf),
    /// A dma-buf of a heap.
    DmaHeap(DmaHeap),
}

impl Exporter {
    /// The first that works here, best for devices first: udmabuf, the system heap, memfd.
    pub fn find(name: &str) -> Exporter {
        if let Ok(e) = Udmabuf::open(name) {
            return Exporter::Udmabuf(e);
        }
        match DmaHeap::open("system", name) {
            Ok(e) => Exporter::DmaHeap(e),
            Err(_) => Exporter::Memfd(Memfd::new(name)),
        }
    }

    /// A new buffer of this layout, a segment for each that the layout names. Zeroed. May block on reclaim.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn allocate(&self, layout: &Layout) -> Result<Shrbuf, ExportError> {
        match self {
            Exporter::Memfd(e) => e.allocate(layout),
            Exporter::Udmabuf(e) => e.allocate(layout),
            Exporter::DmaHeap(e) => e.allocate(layout),
        }
    }

    /// What it is called in TOML and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Exporter::Memfd(_) => "memfd",
            Exporter::Udmabuf(_) => "udmabuf",
            Exporter::DmaHeap(_) => "dma-heap",
        }
    }
}
