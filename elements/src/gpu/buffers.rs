//! Buffers to render into.

use shrbuf::{Layout, Shrbuf};
use shrbuf_pipeline::{Refusal, Stream};

use crate::memory;

/// Rows are this many bytes apart, or a multiple: what AMD's GPUs ask for, and nobody asks for more.
const STRIDE: u32 = 256;

/// Every plane has room for this many rows, or a multiple: Mesa's renderer for the CPU (llvmpipe, up to 25.0 at least)
/// writes blocks of 4 x 4 pixels whole, and faults where the memory ends within one. A plane of chroma has half the
/// rows.
const ROWS: u32 = 8;

/// The buffers that `stream` asks for, called `name` in debugfs, laid out so that GPUs can render into them.
pub(super) fn allocate(stream: &Stream, name: &str) -> Result<Vec<Shrbuf>, Refusal> {
    let impossible = |e: &dyn std::error::Error| Refusal::new(e.to_string());
    let (format, width, height) = (stream.format, stream.size.width, stream.size.height);
    let roomy =
        Layout::linear(format, width, height.next_multiple_of(ROWS), stride(stream)).map_err(|e| impossible(&e))?;
    let layout = Layout::new(format, roomy.modifier, width, height, roomy.planes()).map_err(|e| impossible(&e))?;
    let buffers = memory::allocate_as(stream, &roomy, name)?;
    let fit = |roomy: Shrbuf| {
        let segments = roomy.segments().to_vec();
        // The memory can be a buffer of another layout only when it is no longer this one.
        drop(roomy);
        Shrbuf::new(segments, layout).map_err(|e| impossible(&e))
    };
    buffers.into_iter().map(fit).collect()
}

/// The multiple of bytes that rows are apart. The consumers' wish, and ours where both can be had.
fn stride(stream: &Stream) -> u32 {
    // Planes of chroma may have rows of half the bytes.
    let halved = stream.format.planes().iter().any(|p| p.hsub > p.bytes);
    let least = if halved { 2 * STRIDE } else { STRIDE };
    if least.is_multiple_of(stream.stride_align.max(1)) { least } else { stream.stride_align }
}
