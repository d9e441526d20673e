//! What the codec knows of a layout, and how a picture is cut into stripes.

use shrbuf::Layout;

/// What the codec knows of a layout: for each plane its rows, samples and how they repeat. Strides and offsets are not
/// part of it, so that a frame may come back with another padding. Plain data, cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Picture {}

/// Why a layout is no picture of this codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// Rows do not follow one another.
    #[error("the picture is laid out as {0}, of which a CPU knows no rows; ask its producer for LINEAR")]
    Tiled(shrbuf::Modifier),
    /// More than 4 GiB of samples.
    #[error("{0} bytes of samples are more than the format's 4 GiB; cut the picture")]
    TooLarge(u64),
}

/// Part of a picture, in pixels. Formats that subsample give whole blocks: a region is widened to the blocks it touches.
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

impl Picture {
    /// The picture of a layout.
    ///
    /// # Errors
    /// [`PictureError`]: a modifier that is not linear, or more than 4 GiB.
    pub fn of(layout: &Layout) -> Result<Picture, PictureError> {
        let _ = layout;
        todo!()
    }

    /// Bytes of all rows of all planes, without padding.
    pub fn bytes(&self) -> usize {
        todo!()
    }

    /// Bytes of a region's rows in all planes, without padding; 0 where it leaves the picture.
    pub fn region_bytes(&self, region: Region) -> usize {
        let _ = region;
        todo!()
    }
}
