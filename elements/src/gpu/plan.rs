//! How a format's planes are seen by a GPU: as textures of plain formats, one a plane, whose meaning the shaders know.
//!
//! So a format needs no support of the driver's but for one, two and four bytes a texel; the matrix is exactly the one
//! that the frame asks for, on every driver alike; and planes may lie in different buffers. A driver's own sampling of
//! YUV leaves rounding, siting and the matrix to the driver.

use shrbuf::Format;

use crate::image::shape::{self, Shape};

/// A plane as a texture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Surface {
    /// DRM's name for what its texels are.
    pub(super) fourcc: u32,
    /// Bytes of a texel.
    pub(super) bytes: u32,
    /// Texels.
    pub(super) width: u32,
    /// Texels.
    pub(super) height: u32,
}

const R8: u32 = u32::from_le_bytes(*b"R8  ");
const GR88: u32 = u32::from_le_bytes(*b"GR88");
const AR24: u32 = u32::from_le_bytes(*b"AR24");

/// The shape of a format that can be sampled and rendered.
pub(super) fn shape(format: Format) -> Option<Shape> {
    Shape::of(format).filter(|s| !matches!(s, Shape::Bayer { .. }))
}

/// Every format that can be sampled and rendered.
pub(super) fn formats() -> impl Iterator<Item = Format> {
    shape::formats().filter(|f| shape(*f).is_some())
}

/// Luma and chroma, or luma alone.
pub(super) fn is_yuv(shape: Shape) -> bool {
    !matches!(shape, Shape::Rgb { .. } | Shape::Rgb565)
}

/// The textures of a picture; `None` for a format without.
pub(super) fn surfaces(format: Format, width: u32, height: u32) -> Option<Vec<Surface>> {
    let surface = |fourcc, bytes, width, height| Surface { fourcc, bytes, width, height };
    Some(match shape(format)? {
        Shape::Rgb { bytes: 3, .. } => vec![surface(R8, 1, width.saturating_mul(3), height)],
        Shape::Rgb { .. } => vec![surface(format.drm()?, 4, width, height)],
        Shape::Rgb565 => vec![surface(format.drm()?, 2, width, height)],
        Shape::Packed422 { .. } => vec![surface(AR24, 4, width.div_ceil(2), height)],
        _ => {
            let texel = |bytes: u32| if bytes == 1 { R8 } else { GR88 };
            let planes = format.planes().iter();
            planes.map(|p| surface(texel(p.bytes), p.bytes, width.div_ceil(p.hsub), height.div_ceil(p.vsub))).collect()
        }
    })
}

/// True where a GPU sees the format as what it is, so that it may lie in memory as the GPU likes best. The others are
/// read as something else, which is right only for rows that follow one another.
pub(super) fn is_native(format: Format) -> bool {
    matches!(shape(format), Some(Shape::Rgb { bytes: 4, .. } | Shape::Rgb565 | Shape::Gray))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surfaces_are_as_wide_as_the_rows_of_their_planes() {
        for format in formats() {
            let surfaces = surfaces(format, 37, 21).unwrap();
            let planes = format.planes();
            assert_eq!(surfaces.len(), planes.len(), "{format}");
            for (s, p) in surfaces.iter().zip(planes) {
                assert_eq!((s.width * s.bytes, s.height), (37u32.div_ceil(p.hsub) * p.bytes, 21u32.div_ceil(p.vsub)));
            }
        }
    }

    #[test]
    fn mosaics_have_none() {
        assert_eq!(surfaces(Format::Srggb8, 8, 8), None);
        assert!(formats().all(|f| f.family() != shrbuf::Family::Bayer));
    }
}
