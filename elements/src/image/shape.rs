//! How each format packs its samples, as the few cases that pixel code has to tell apart.

use shrbuf::Format;

/// Position of a colour in a 2x2 mosaic: index `(y & 1) * 2 + (x & 1)`, value 0 red, 1 green, 2 blue.
pub(crate) type Mosaic = [u8; 4];

/// A format's packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Bytes of a pixel and the offsets of red, green, blue, and of a fourth byte that is written as 255.
    Rgb { bytes: usize, offsets: [usize; 3], fourth: Option<usize> },
    /// 5, 6, 5 bits, little-endian.
    Rgb565,
    /// Offsets in four bytes that hold two pixels; the second luma lies two bytes after the first.
    Packed422 { y: usize, u: usize, v: usize },
    /// Luma plane, and interleaved chroma subsampled by two horizontally and `vsub` vertically.
    SemiPlanar { vsub: usize, u: usize, v: usize },
    /// Luma plane and two chroma planes.
    Planar { hsub: usize, vsub: usize, u: usize, v: usize },
    /// Luma alone.
    Gray,
    /// One sample a pixel; two little-endian bytes where `bits` are more than 8.
    Bayer { mosaic: Mosaic, bits: u32 },
}

const BGGR: Mosaic = [2, 1, 1, 0];
const GBRG: Mosaic = [1, 2, 0, 1];
const GRBG: Mosaic = [1, 0, 2, 1];
const RGGB: Mosaic = [0, 1, 1, 2];

impl Shape {
    /// The packing of `format`; `None` for a format that was added to the list and is not known here yet.
    pub(crate) fn of(format: Format) -> Option<Shape> {
        let rgbx = |offsets, fourth| Shape::Rgb { bytes: 4, offsets, fourth: Some(fourth) };
        let bayer = |mosaic, bits| Shape::Bayer { mosaic, bits };
        Some(match format {
            Format::Xr24 | Format::Ar24 => rgbx([2, 1, 0], 3),
            Format::Xb24 | Format::Ab24 => rgbx([0, 1, 2], 3),
            Format::Rg24 => Shape::Rgb { bytes: 3, offsets: [2, 1, 0], fourth: None },
            Format::Bg24 => Shape::Rgb { bytes: 3, offsets: [0, 1, 2], fourth: None },
            Format::Rg16 => Shape::Rgb565,
            Format::Yuyv => Shape::Packed422 { y: 0, u: 1, v: 3 },
            Format::Uyvy => Shape::Packed422 { y: 1, u: 0, v: 2 },
            Format::Yvyu => Shape::Packed422 { y: 0, u: 3, v: 1 },
            Format::Vyuy => Shape::Packed422 { y: 1, u: 2, v: 0 },
            Format::Nv12 => Shape::SemiPlanar { vsub: 2, u: 0, v: 1 },
            Format::Nv21 => Shape::SemiPlanar { vsub: 2, u: 1, v: 0 },
            Format::Nv16 => Shape::SemiPlanar { vsub: 1, u: 0, v: 1 },
            Format::Yu12 => Shape::Planar { hsub: 2, vsub: 2, u: 1, v: 2 },
            Format::Yv12 => Shape::Planar { hsub: 2, vsub: 2, u: 2, v: 1 },
            Format::Yu16 => Shape::Planar { hsub: 2, vsub: 1, u: 1, v: 2 },
            Format::Yu24 => Shape::Planar { hsub: 1, vsub: 1, u: 1, v: 2 },
            Format::Grey => Shape::Gray,
            Format::Sbggr8 => bayer(BGGR, 8),
            Format::Sgbrg8 => bayer(GBRG, 8),
            Format::Sgrbg8 => bayer(GRBG, 8),
            Format::Srggb8 => bayer(RGGB, 8),
            Format::Sbggr10 => bayer(BGGR, 10),
            Format::Sgbrg10 => bayer(GBRG, 10),
            Format::Sgrbg10 => bayer(GRBG, 10),
            Format::Srggb10 => bayer(RGGB, 10),
            Format::Sbggr12 => bayer(BGGR, 12),
            Format::Sgbrg12 => bayer(GBRG, 12),
            Format::Sgrbg12 => bayer(GRBG, 12),
            Format::Srggb12 => bayer(RGGB, 12),
            Format::Sbggr16 => bayer(BGGR, 16),
            Format::Sgbrg16 => bayer(GBRG, 16),
            Format::Sgrbg16 => bayer(GRBG, 16),
            Format::Srggb16 => bayer(RGGB, 16),
            _ => return None,
        })
    }
}

/// Every format that pixel code can draw and read.
pub(crate) fn formats() -> impl Iterator<Item = Format> {
    Format::all().filter(|&f| Shape::of(f).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_of_the_list_has_a_shape() {
        for f in Format::all() {
            assert!(Shape::of(f).is_some(), "{f}");
        }
    }
}
