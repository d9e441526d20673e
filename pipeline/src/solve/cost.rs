//! What a conversion costs: how much of the picture it loses, and how much it writes.

use shrbuf::{Family, Format};

use crate::offer::Stream;

/// Compared in this order: a plain transfer before a conversion, one that keeps the picture before one that loses some
/// of it, then the fewest bytes for each pixel. Not the fewest of all, or the smallest picture would always win.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    conversions: u32,
    losses: u32,
    /// Of a block of 16 x 16 pixels, which every format's samples divide.
    block_bytes: u64,
}

impl Cost {
    /// Of making `to` out of `from`.
    pub(super) fn of(from: &Stream, to: &Stream) -> Cost {
        let converts = from.format != to.format || from.size != to.size;
        let shrinks = to.size.width < from.size.width || to.size.height < from.size.height;
        Cost {
            conversions: u32::from(converts),
            losses: u32::from(loses(from.format, to.format)) + u32::from(shrinks),
            block_bytes: to.format.frame_bytes(16, 16),
        }
    }

    pub(super) fn plus(self, other: Cost) -> Cost {
        Cost {
            conversions: self.conversions + other.conversions,
            losses: self.losses + other.losses,
            block_bytes: self.block_bytes + other.block_bytes,
        }
    }
}

/// True where `to` holds less of a picture than `from`: fewer bits, fewer chroma samples, no colour.
fn loses(from: Format, to: Format) -> bool {
    to.bits() < from.bits() || chroma(to) < chroma(from)
}

/// Chroma samples for each four pixels.
fn chroma(format: Format) -> u32 {
    match format.family() {
        Family::Gray | Family::Compressed => 0,
        // A sensor has one colour at each pixel, which is what 4:2:2 keeps.
        Family::Bayer => 2,
        Family::Rgb => 4,
        Family::Yuv => {
            let subsampled = format.planes().iter().map(|p| p.hsub * p.vsub).max().unwrap_or(1);
            4 / subsampled.clamp(1, 4)
        }
    }
}

/// `2 inputs in one of XR24 1280x720 writes 3.7 MB per frame`.
pub(super) fn describe_composed(inputs: usize, to: &Stream) -> String {
    let bytes = to.format.frame_bytes(to.size.width, to.size.height) as f64 / 1e6;
    format!("{inputs} inputs in one of {} {} writes {bytes:.1} MB per frame", to.format, to.size)
}

/// `YUYV → XR24 writes 3.7 MB per frame, 221 MB/s`.
pub(super) fn describe(from: &Stream, to: &Stream) -> String {
    let bytes = to.format.frame_bytes(to.size.width, to.size.height) as f64 / 1e6;
    let what = match (from.format == to.format, from.size == to.size) {
        (true, true) => format!("a copy of {} into {} memory", to.format, to.origin),
        (false, true) => format!("{} → {}", from.format, to.format),
        (_, false) => format!("{} {} → {} {}", from.format, from.size, to.format, to.size),
    };
    match to.rate {
        Some(rate) => format!("{what} writes {bytes:.1} MB per frame, {:.0} MB/s", bytes * rate.hz()),
        None => format!("{what} writes {bytes:.1} MB per frame"),
    }
}
