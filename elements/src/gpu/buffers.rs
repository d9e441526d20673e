//! Buffers to render into.

use shrbuf::format::Sampling;
use shrbuf::{Layout, LayoutError, Modifier, Plane, Shrbuf};
use shrbuf_pipeline::{Copies, Origin, Refusal, Size, Stream};

use super::device::Gpu;
use super::error::GpuError;
use super::sys::Memory as Made;
use crate::memory;

shrbuf_pipeline::choices! {
    /// Where the memory that is rendered into comes from.
    pub enum Memory {
        /// The first that every consumer takes: of a GPU its own (gbm), then udmabuf, then dma-heap; of a renderer on
        /// the CPU udmabuf, then dma-heap, and gbm where neither can be opened. memfd where there is none of these and
        /// copies are allowed.
        Auto = "auto",
        /// Memory of the GPU's driver, by its render node; for a renderer on the CPU that of a display's driver.
        Gbm = "gbm",
        /// A dma-buf of ordinary pages.
        Udmabuf = "udmabuf",
        /// A dma-buf of the system heap.
        DmaHeap = "dma-heap",
        /// Memory for CPUs only, which no GPU reaches: each picture is copied there, where copies are allowed.
        Memfd = "memfd",
    }
}

/// Rows are this many bytes apart, or a multiple: what AMD's GPUs ask for, and nobody asks for more.
const STRIDE: u32 = 256;

/// Every plane has rows for a multiple of this: Mesa's renderer for the CPU (llvmpipe, up to 25.0 at least) writes tiles of
/// 4 x 4 pixels whole, and faults where the memory ends within one. A plane of chroma has half the rows.
const TILE: u32 = 4;

/// Four bytes that every driver allocates.
const XR24: u32 = u32::from_le_bytes(*b"XR24");

impl Memory {
    /// Who may allocate, best first; not empty.
    ///
    /// # Errors
    /// There is nobody, or only with copies, which are denied.
    pub(super) fn origins(self, gpu: &Gpu, copies: Copies) -> Result<Vec<Origin>, GpuError> {
        match self {
            Memory::Memfd if copies == Copies::Deny => Err(GpuError::Copy),
            Memory::Memfd => Ok(vec![Origin::Memfd]),
            Memory::Gbm => gpu.memory().map(|_| vec![Origin::Gbm]),
            Memory::Udmabuf => Ok(vec![Origin::Udmabuf]),
            Memory::DmaHeap => Ok(vec![Origin::DmaHeap]),
            Memory::Auto => {
                let mut origins = memory::dma_bufs();
                if !gpu.context.is_software() && gpu.memory().is_ok() {
                    origins.insert(0, Origin::Gbm);
                }
                if origins.is_empty() {
                    origins.push(match gpu.memory() {
                        Ok(_) => Origin::Gbm,
                        Err(error) if copies == Copies::Deny => return Err(GpuError::NoMemory(Box::new(error))),
                        Err(_) => Origin::Memfd,
                    });
                }
                Ok(origins)
            }
        }
    }
}

/// The buffers that `stream` asks for, called `name` in debugfs, laid out so that GPUs can render into them where they
/// reach them.
pub(super) fn allocate(gpu: &Gpu, stream: &Stream, name: &str) -> Result<Vec<Shrbuf>, Refusal> {
    let impossible = |e: &dyn std::error::Error| Refusal::new(e.to_string());
    let (format, width, height) = (stream.format, stream.size.width, stream.size.height);
    let modifier = stream.modifier.filter(|m| *m != Modifier::LINEAR);
    if let (Some(modifier), true) = (modifier, stream.origin != Origin::Gbm) {
        return Err(Refusal::new(format!("only gbm makes {modifier}, not {}", stream.origin)));
    }
    if stream.origin == Origin::Memfd {
        return memory::allocate(stream, name);
    }
    let roomy = room(stream).map_err(|e| impossible(&e))?;
    let layout = Layout::new(format, roomy.modifier, width, height, roomy.planes()).map_err(|e| impossible(&e))?;
    if stream.origin != Origin::Gbm {
        let fit = |roomy: Shrbuf| {
            let segments = roomy.segments().to_vec();
            // The memory can be a buffer of another layout only when it is no longer this one.
            drop(roomy);
            Shrbuf::new(segments, layout).map_err(|e| impossible(&e))
        };
        return memory::allocate_as(stream, &roomy, name)?.into_iter().map(fit).collect();
    }
    let memory = gpu.memory()?;
    let one = || match (modifier, format.drm()) {
        (Some(modifier), Some(fourcc)) => {
            let Size { width: across, height: down } = stream.room();
            let Made { fd, stride } = memory.arranged(across, down, fourcc, modifier)?;
            let plane = [Plane { segment: 0, offset: 0, stride }];
            let layout = Layout::new(format, Some(modifier), width, height, &plane).map_err(|e| impossible(&e))?;
            Shrbuf::import(vec![fd], layout).map_err(|e| impossible(&e))
        }
        // What planes are in it is no matter of GBM's, of which only the memory is wanted.
        _ => {
            let row = roomy.planes().first().map_or(STRIDE, |p| p.stride).next_multiple_of(STRIDE);
            let bytes = end(&roomy);
            let rows = u32::try_from(bytes.div_ceil(u64::from(row))).map_err(|e| impossible(&e))?;
            let Made { fd, .. } = memory.linear(row / 4, rows, XR24)?;
            Shrbuf::import(vec![fd], layout).map_err(|e| impossible(&e))
        }
    };
    (0..stream.buffers.max(1)).map(|_| one()).collect()
}

/// What a buffer has room for. A consumer that works in whole blocks, or in those of a single pixel, reads rows of just
/// these, one after another; where a GPU wants longer ones, negotiation tries those next.
fn room(stream: &Stream) -> Result<Layout, LayoutError> {
    let Size { width, height } = stream.room();
    let planes = stream.format.planes();
    let across = |s: &Sampling| (width / s.hsub).is_multiple_of(TILE);
    let down = |s: &Sampling| (height / s.vsub).is_multiple_of(TILE);
    if stream.block.is_some() && planes.iter().all(across) {
        if planes.iter().all(down) {
            return Layout::linear(stream.format, width, height, stream.stride_align);
        }
        // Behind a single plane there may be more.
        if planes.len() == 1 {
            return Layout::linear(stream.format, width, height.next_multiple_of(TILE), stream.stride_align);
        }
    }
    Layout::linear(stream.format, width, height.next_multiple_of(2 * TILE), stride(stream))
}

/// Bytes that a layout in one segment needs.
fn end(layout: &Layout) -> u64 {
    let of = |(plane, at): (usize, &Plane)| {
        let rows = layout.height.div_ceil(layout.format.planes()[plane].vsub);
        u64::from(at.offset) + u64::from(at.stride) * u64::from(rows)
    };
    layout.planes().iter().enumerate().map(of).max().unwrap_or(0)
}

/// The multiple of bytes that rows are apart. The consumers' wish, and ours where both can be had.
fn stride(stream: &Stream) -> u32 {
    // Planes of chroma may have rows of half the bytes.
    let halved = stream.format.planes().iter().any(|p| p.hsub > p.bytes);
    let least = if halved { 2 * STRIDE } else { STRIDE };
    if least.is_multiple_of(stream.stride_align.max(1)) { least } else { stream.stride_align }
}

#[cfg(test)]
mod tests {
    use shrbuf::Format;

    use super::*;

    fn planes(format: Format, size: Size, block: Option<Size>, stride_align: u32) -> Vec<(u32, u32)> {
        let (modifier, origin) = (Some(Modifier::LINEAR), Origin::Udmabuf);
        let (rate, plane_segments, read_only, buffers) = (None, false, false, 2);
        let stream =
            Stream { format, modifier, size, rate, origin, stride_align, block, plane_segments, read_only, buffers };
        room(&stream).unwrap().planes().iter().map(|p| (p.offset, p.stride)).collect()
    }

    #[test]
    fn rows_are_as_a_gpu_has_them_best() {
        let size = Size::new(652, 362);
        assert_eq!(planes(Format::Nv12, size, None, 1), [(0, 768), (768 * 368, 768)]);
        assert_eq!(planes(Format::Yu12, size, None, 64), [(0, 1024), (1024 * 368, 512), (1024 * (368 + 92), 512)]);
    }

    #[test]
    fn whole_blocks_are_laid_out_as_their_reader_has_them() {
        let (size, block) = (Size::new(652, 362), Some(Size::new(16, 16)));
        assert_eq!(planes(Format::Nv12, size, block, 1), [(0, 656), (656 * 368, 656)]);
        assert_eq!(planes(Format::Yu12, size, block, 1), [(0, 656), (656 * 368, 328), (656 * (368 + 92), 328)]);
        assert_eq!(planes(Format::Nv12, size, block, 256), [(0, 768), (768 * 368, 768)]);
        // Rows without a multiple of four pixels would have tiles end in the next.
        assert_eq!(planes(Format::Nv12, Size::new(650, 362), Some(Size::new(2, 2)), 1)[0], (0, 768));
    }

    #[test]
    fn rows_are_no_longer_than_the_picture_s_for_a_reader_of_just_these() {
        let pixel = Some(Size::new(1, 1));
        assert_eq!(planes(Format::Yuyv, Size::new(328, 243), pixel, 1), [(0, 656)]);
        assert_eq!(planes(Format::Nv12, Size::new(328, 240), pixel, 1), [(0, 328), (328 * 240, 328)]);
        // Chroma would begin where a tile of luma has not ended yet.
        assert_eq!(planes(Format::Nv12, Size::new(328, 242), pixel, 1)[0], (0, 512));
    }
}
