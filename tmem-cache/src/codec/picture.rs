//! What the codec knows of a layout, and how a picture is cut into stripes.

use std::fmt;
use std::ops::Range;

use shrbuf::{Family, Format, Layout, Modifier};

/// Bytes of source that a stripe has about.
const STRIPE_BYTES: usize = 64 << 10;

/// Most rows of a stripe, so that the side information of narrow pictures stays small.
const STRIPE_ROWS: usize = 4096;

/// How the samples of a row repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    /// So many components, one sample of each after the other.
    Components(u8),
    /// Two luma samples for one of each chroma, luma first: YUYV and YVYU.
    LumaFirst,
    /// The same, chroma first: UYVY and VYUY.
    ChromaFirst,
}

/// One plane, as the codec sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Plane {
    /// Bytes of a row, without padding.
    pub row_bytes: usize,
    pub rows: usize,
    /// Samples are 16-bit little-endian words rather than bytes.
    pub wide: bool,
    /// Rows to the one above of the same colours.
    pub up: usize,
    pub pattern: Pattern,
    /// Rows of a stripe; the last one may have fewer.
    pub stripe_rows: usize,
    /// First byte in the packed picture.
    pub start: usize,
    /// Number of its first stripe.
    pub first_stripe: usize,
    /// Pixels that a block of samples covers, horizontally and vertically, and its bytes.
    block: (u32, u32, usize),
}

impl Plane {
    /// Samples of a row.
    pub fn samples(&self) -> usize {
        self.row_bytes / if self.wide { 2 } else { 1 }
    }

    fn stripes(&self) -> usize {
        self.rows.div_ceil(self.stripe_rows)
    }
}

/// Some rows of one plane that are coded by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stripe {
    pub index: usize,
    pub plane: usize,
    /// Rows of the plane.
    pub rows: Range<usize>,
    /// Bytes of the packed picture.
    pub bytes: Range<usize>,
}

/// What the codec knows of a layout: for each plane its rows, samples and how they repeat. Strides and offsets are not
/// part of it, so that a frame may come back with another padding. Plain data, cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Picture {
    format: Format,
    width: u32,
    height: u32,
    planes: [Plane; 3],
}

/// Why a layout is no picture of this codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// A compressed format has no samples.
    #[error("{0} is compressed already; keep its bytes as they are, or decode it first")]
    Compressed(Format),
    /// Rows do not follow one another.
    #[error("the picture is laid out as {0}, of which a CPU knows no rows; ask its producer for LINEAR")]
    Tiled(Modifier),
    /// The size is not one that a layout can have.
    #[error("size {width}x{height} is outside 1..=65535")]
    Size {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
}

/// Part of a picture, in pixels. Formats that subsample have no half blocks: a plane gives all blocks that the region
/// touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Region {
    /// Leftmost column.
    pub x: u32,
    /// Topmost row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// The part of one plane that a region touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    pub rows: Range<usize>,
    /// Bytes of each row.
    pub columns: Range<usize>,
}

impl Picture {
    /// The picture of a layout.
    ///
    /// # Errors
    /// [`PictureError`]: a compressed format, a modifier that is not linear, or a size that a public field has been given and cannot be.
    pub fn of(layout: &Layout) -> Result<Picture, PictureError> {
        if layout.format.is_compressed() {
            return Err(PictureError::Compressed(layout.format));
        }
        if let Some(modifier) = layout.modifier.filter(|_| !layout.is_linear()) {
            return Err(PictureError::Tiled(modifier));
        }
        let (width, height) = (layout.width, layout.height);
        let range = 1..=65535;
        if !range.contains(&width) || !range.contains(&height) {
            return Err(PictureError::Size { width, height });
        }
        let format = layout.format;
        let none = Plane {
            row_bytes: 0,
            rows: 0,
            wide: false,
            up: 1,
            pattern: Pattern::Components(1),
            stripe_rows: 1,
            start: 0,
            first_stripe: 0,
            block: (1, 1, 1),
        };
        let mut picture = Picture { format, width, height, planes: [none; 3] };
        let (mut start, mut first_stripe) = (0, 0);
        for (i, sampling) in format.planes().iter().enumerate() {
            let (row_bytes, rows) = (layout.row_bytes(i) as usize, layout.rows(i) as usize);
            let bayer = format.family() == Family::Bayer;
            let pattern = match format {
                Format::Yuyv | Format::Yvyu => Pattern::LumaFirst,
                Format::Uyvy | Format::Vyuy => Pattern::ChromaFirst,
                _ if bayer => Pattern::Components(2),
                _ => Pattern::Components(sampling.bytes as u8),
            };
            let plane = Plane {
                row_bytes,
                rows,
                wide: format.bits() > 8,
                up: if bayer { 2 } else { 1 },
                pattern,
                stripe_rows: (STRIPE_BYTES / row_bytes).clamp(8, STRIPE_ROWS),
                start,
                first_stripe,
                block: (sampling.hsub, sampling.vsub, sampling.bytes as usize),
            };
            start += row_bytes * rows;
            first_stripe += plane.stripes();
            picture.planes[i] = plane;
        }
        Ok(picture)
    }

    /// Bytes of all rows of all planes, without padding.
    pub fn bytes(&self) -> usize {
        self.planes().iter().map(|p| p.row_bytes * p.rows).sum()
    }

    /// Bytes of a region's rows in all planes, without padding; 0 where it leaves the picture.
    pub fn region_bytes(&self, region: Region) -> usize {
        let windows = (0..self.planes().len()).filter_map(|p| self.window(p, region));
        windows.map(|w| w.rows.len() * w.columns.len()).sum()
    }

    /// Stripes of the picture.
    pub fn stripes(&self) -> usize {
        self.planes().iter().map(Plane::stripes).sum()
    }

    /// Bytes of the largest stripe.
    pub(crate) fn largest_stripe(&self) -> usize {
        self.planes().iter().map(|p| p.stripe_rows.min(p.rows) * p.row_bytes).max().unwrap_or(0)
    }

    pub(crate) fn planes(&self) -> &[Plane] {
        &self.planes[..self.format.planes().len()]
    }

    /// Stripe `index`, which must be less than [`Picture::stripes`].
    pub(crate) fn stripe(&self, index: usize) -> Stripe {
        let plane = self.planes().iter().rposition(|p| p.first_stripe <= index).unwrap_or(0);
        let p = &self.planes[plane];
        let first = (index - p.first_stripe) * p.stripe_rows;
        let rows = first..(first + p.stripe_rows).min(p.rows);
        let bytes = p.start + rows.start * p.row_bytes..p.start + rows.end * p.row_bytes;
        Stripe { index, plane, rows, bytes }
    }

    /// What a region touches of plane `plane`; `None` where it is empty or leaves the picture.
    pub(crate) fn window(&self, plane: usize, region: Region) -> Option<Window> {
        let (right, bottom) = (region.x.checked_add(region.width)?, region.y.checked_add(region.height)?);
        if region.width == 0 || region.height == 0 || right > self.width || bottom > self.height {
            return None;
        }
        let (hsub, vsub, bytes) = self.planes[plane].block;
        Some(Window {
            rows: (region.y / vsub) as usize..bottom.div_ceil(vsub) as usize,
            columns: (region.x / hsub) as usize * bytes..right.div_ceil(hsub) as usize * bytes,
        })
    }

    /// What tells streams of different pictures apart: format, size and nothing of the memory.
    pub(crate) fn identity(&self) -> u32 {
        let mut hash = crc32fast::Hasher::new();
        hash.update(self.format.name().as_bytes());
        hash.update(&self.width.to_le_bytes());
        hash.update(&self.height.to_le_bytes());
        hash.finalize()
    }
}

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}x{}", self.format, self.width, self.height)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(format: Format, width: u32, height: u32) -> Picture {
        Picture::of(&Layout::linear(format, width, height, 1).unwrap()).unwrap()
    }

    #[test]
    fn stripes_cover_every_byte_once() {
        for format in Format::all() {
            let picture = picture(format, 1283, 721);
            let mut next = 0;
            for i in 0..picture.stripes() {
                let stripe = picture.stripe(i);
                assert_eq!((stripe.index, stripe.bytes.start), (i, next), "{format}");
                next = stripe.bytes.end;
            }
            assert_eq!(next, picture.bytes(), "{format}");
        }
    }

    #[test]
    fn tiled_layout_is_refused() {
        let plane = shrbuf::Plane { segment: 0, offset: 0, stride: 64 };
        let modifier = Modifier(0x0100_0000_0000_0001);
        let layout = Layout::new(Format::Xr24, Some(modifier), 16, 16, &[plane]).unwrap();
        assert_eq!(Picture::of(&layout), Err(PictureError::Tiled(modifier)));
    }

    #[test]
    fn compressed_layout_is_refused() {
        let plane = shrbuf::Plane { segment: 0, offset: 0, stride: 0 };
        let layout = Layout::new(Format::Mjpg, None, 16, 16, &[plane]).unwrap();
        assert_eq!(Picture::of(&layout), Err(PictureError::Compressed(Format::Mjpg)));
    }

    #[test]
    fn size_changed_after_the_fact_is_refused() {
        let mut layout = Layout::linear(Format::Grey, 16, 16, 1).unwrap();
        layout.width = 0;
        assert_eq!(Picture::of(&layout), Err(PictureError::Size { width: 0, height: 16 }));
    }

    #[test]
    fn region_gives_whole_blocks() {
        let picture = picture(Format::Nv12, 9, 9);
        let region = Region { x: 3, y: 1, width: 2, height: 1 };
        assert_eq!(picture.window(1, region), Some(Window { rows: 0..1, columns: 2..6 }));
        assert_eq!(picture.region_bytes(region), 2 + 4);
        assert_eq!(picture.region_bytes(Region { width: 7, ..region }), 0);
    }
}
