//! `/dev/udmabuf`: a dma-buf whose pages are a memfd's.

use std::fs::File;
use std::os::fd::AsFd;

use super::{ExportError, Memfd, page_aligned};
use crate::buffer::Shrbuf;
use crate::layout::Layout;
use crate::segment::Segment;
use crate::sys;

const PATH: &str = "/dev/udmabuf";

/// dma-bufs of ordinary pages.
#[derive(Debug)]
pub struct Udmabuf {
    device: File,
    memory: Memfd,
    name: String,
}

impl Udmabuf {
    /// Opens `/dev/udmabuf`; its dma-bufs are called `name` in debugfs.
    ///
    /// # Errors
    /// [`ExportError::Open`].
    pub fn open(name: &str) -> Result<Udmabuf, ExportError> {
        let device = File::options().read(true).write(true).open(PATH).map_err(|source| ExportError::Open {
            path: PATH.to_owned(),
            source,
            hint: "load the module udmabuf, or join the group that owns the node (often `kvm`)",
        })?;
        Ok(Udmabuf { device, memory: Memfd::new(name), name: name.to_owned() })
    }

    /// A new, zeroed buffer.
    ///
    /// # Errors
    /// [`ExportError::Allocate`]; a buffer above the module's `size_limit_mb` (64 by default) is EINVAL.
    pub fn allocate(&self, layout: &Layout) -> Result<Shrbuf, ExportError> {
        let segments = (0..layout.segments())
            .map(|s| {
                let size = page_aligned(layout.segment_size(s));
                // The memfd is closed again: the dma-buf keeps its pages, and one segment has one descriptor.
                let memfd = self.memory.create(size)?;
                let fd = sys::udmabuf::create(self.device.as_fd(), memfd.as_fd(), size)
                    .map_err(|source| ExportError::Allocate { call: "UDMABUF_CREATE", size, source })?;
                let segment = Segment::import(fd)?;
                // A name is for people reading debugfs; a kernel without it is no reason to fail.
                let _ = segment.set_name(&self.name);
                Ok(segment)
            })
            .collect::<Result<_, ExportError>>()?;
        Ok(Shrbuf::new(segments, *layout)?)
    }
}
