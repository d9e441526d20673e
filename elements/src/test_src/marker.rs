//! A frame's number and time stamp as black and white cells in the top left corner, for programs to read back.
//!
//! 128 bits in 4 rows of 32 cells, most significant bit first: 16 bits of [`MAGIC`], 32 of the frame number, 64 of
//! the time stamp, 16 of CRC-16/CCITT over the rest. Cells are 8 pixels wide in pictures from 320 pixels on, 4 from
//! 128, 2 from 64; smaller pictures have no marker. Only luma is used, in cells that chroma and mosaics divide evenly,
//! so the marker survives conversion to any format, and scaling of its values, but not of its size.

use shrbuf::{AccessError, Account, Shrbuf};
use shrbuf_pipeline::{Size, Timestamp};

use crate::image::bayer;
use crate::image::shape::Shape;

const COLUMNS: usize = 32;
const ROWS: usize = 4;
const BYTES: usize = COLUMNS * ROWS / 8;
/// As many white cells as black ones, which tell the reader what white and black are.
const MAGIC: u16 = 0xA3C5;
/// Less than this between black and white is no marker.
const CONTRAST: u32 = 32;

/// What a marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// The frame's number, its lower 32 bits.
    pub frame: u32,
    /// Its time stamp.
    pub timestamp: Timestamp,
}

/// Why no marker was read.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// The picture has no room for one.
    #[error("a picture of {0} has no marker; it takes 64x8 pixels")]
    TooSmall(Size),
    /// There is something else in its place.
    #[error("no marker in the top left corner: the first cells read {found:#06x} instead of {MAGIC:#06x}")]
    Missing {
        /// The first cells as bits.
        found: u16,
    },
    /// It is damaged.
    #[error("the marker is damaged: its checksum is {found:#06x}, its cells give {computed:#06x}")]
    Damaged {
        /// As drawn.
        found: u16,
        /// Of what was drawn.
        computed: u16,
    },
    /// The memory cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Pixels of this format cannot be read here.
    #[error("no luma can be had from {0}")]
    Format(shrbuf::Format),
}

/// Pixels of a cell's side in a picture of this size; `None` where there is no room.
pub(crate) fn cell(size: Size) -> Option<usize> {
    let cell = match size.width {
        320.. => 8,
        128.. => 4,
        64.. => 2,
        _ => return None,
    };
    (size.height as usize >= ROWS * cell).then_some(cell)
}

/// The marker's pixels in a picture of this size, which are black where there is no cell.
pub(crate) fn extent(size: Size) -> Option<(usize, usize)> {
    cell(size).map(|c| (COLUMNS * c, ROWS * c))
}

fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xFFFF, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |c, _| if c & 0x8000 != 0 { c << 1 ^ 0x1021 } else { c << 1 })
    })
}

impl Marker {
    /// The cells, a row an element, the leftmost cell in the most significant bit.
    pub(crate) fn cells(&self) -> [u32; ROWS] {
        let mut bytes = [0; BYTES];
        bytes[..2].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[2..6].copy_from_slice(&self.frame.to_be_bytes());
        bytes[6..14].copy_from_slice(&self.timestamp.0.to_be_bytes());
        let sum = crc(&bytes[..14]);
        bytes[14..].copy_from_slice(&sum.to_be_bytes());
        let mut rows = [0; ROWS];
        for (row, four) in rows.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *row = u32::from_be_bytes(*four);
        }
        rows
    }

    /// Reads a marker from a picture of `size`, of which `luma(x, y)` gives the brightness of a pixel: for pictures
    /// that are in no buffer, such as a screenshot.
    ///
    /// # Errors
    /// [`MarkerError`].
    pub fn decode(size: Size, luma: impl Fn(usize, usize) -> u8) -> Result<Marker, MarkerError> {
        let cell = cell(size).ok_or(MarkerError::TooSmall(size))?;
        // Four pixels in the middle, on an even position, so that a mosaic's colours are all among them.
        let value = |bit: usize| {
            let (x, y) = (bit % COLUMNS * cell + cell / 4 * 2, bit / COLUMNS * cell + cell / 4 * 2);
            [(0, 0), (1, 0), (0, 1), (1, 1)].iter().map(|(dx, dy)| u32::from(luma(x + dx, y + dy))).sum::<u32>()
        };
        let level = |colour: u16| {
            let cells = (0..16).filter(|bit| MAGIC >> (15 - bit) & 1 == colour);
            cells.map(value).sum::<u32>() / 8
        };
        let (black, white) = (level(0), level(1));
        let middle = (black + white) / 2;
        let mut bytes = [0u8; BYTES];
        for bit in 0..BYTES * 8 {
            bytes[bit / 8] |= u8::from(value(bit) > middle) << (7 - bit % 8);
        }
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        if word(0) != MAGIC || white < black + 4 * CONTRAST {
            return Err(MarkerError::Missing { found: word(0) });
        }
        let (found, computed) = (word(14), crc(&bytes[..14]));
        if found != computed {
            return Err(MarkerError::Damaged { found, computed });
        }
        let number = |range: std::ops::Range<usize>| bytes[range].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        Ok(Marker { frame: number(2..6) as u32, timestamp: Timestamp(number(6..14)) })
    }
}

/// Reads the marker that `test-src` drew, from a buffer of any format. Waits for fences as [`Shrbuf::read`] does.
///
/// ```
/// use shrbuf::{exporter::Memfd, Format, Layout, Ledger, Reason};
/// use shrbuf_elements::test_src::{read_marker, MarkerError};
/// let buffer = Memfd::new("example").allocate(&Layout::linear(Format::Nv12, 640, 360, 1)?)?;
/// let account = Ledger::default().account("example", Reason::Inspect);
/// assert!(matches!(read_marker(&buffer, &account), Err(MarkerError::Missing { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`MarkerError`].
pub fn read_marker(buffer: &Shrbuf, account: &Account) -> Result<Marker, MarkerError> {
    let layout = buffer.layout();
    let size = Size::new(layout.width, layout.height);
    let (width, height) = extent(size).ok_or(MarkerError::TooSmall(size))?;
    let shape = Shape::of(layout.format).ok_or(MarkerError::Format(layout.format))?;
    let sampling = layout.format.planes()[0];
    let guard = buffer.read()?;
    let plane = guard.plane(0);
    let row = width / sampling.hsub as usize * sampling.bytes as usize;
    let mut raw = vec![0; row];
    let mut luma = vec![0; width * height];
    for (y, out) in luma.chunks_exact_mut(width).enumerate() {
        plane.read(y, 0, &mut raw, account);
        brightness(shape, &raw, out);
    }
    Marker::decode(size, |x, y| luma[y * width + x])
}

/// Luma, or what comes nearest to it, of a row.
fn brightness(shape: Shape, raw: &[u8], out: &mut [u8]) {
    match shape {
        Shape::Rgb { bytes, offsets, .. } => {
            out.iter_mut().zip(raw.chunks_exact(bytes)).for_each(|(o, p)| *o = p[offsets[1]]);
        }
        Shape::Rgb565 => {
            let words = raw.as_chunks::<2>().0;
            out.iter_mut().zip(words).for_each(|(o, p)| *o = (u16::from_le_bytes(*p) >> 3) as u8 & 0xFC);
        }
        Shape::Packed422 { y, .. } => {
            out.iter_mut().zip(raw.as_chunks::<2>().0).for_each(|(o, p)| *o = p[y]);
        }
        Shape::SemiPlanar { .. } | Shape::Planar { .. } | Shape::Gray => out.copy_from_slice(raw),
        Shape::Bayer { bits, .. } => bayer::to_8_bit(raw, bits, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size::new(128, 16);
    const MARKER: Marker = Marker { frame: 0xDEAD_BEEF, timestamp: Timestamp(0x0123_4567_89AB_CDEF) };

    fn draw(marker: Marker, black: u8, white: u8) -> impl Fn(usize, usize) -> u8 {
        let cells = marker.cells();
        move |x, y| if cells[y / 4] >> (31 - x / 4) & 1 == 1 { white } else { black }
    }

    #[test]
    fn what_is_drawn_is_read_whatever_black_and_white_are() {
        for (black, white) in [(0, 255), (16, 235), (60, 130)] {
            assert_eq!(Marker::decode(SIZE, draw(MARKER, black, white)).unwrap(), MARKER);
        }
    }

    #[test]
    fn magic_has_as_many_white_cells_as_black_ones() {
        assert_eq!(MAGIC.count_ones(), 8);
    }

    #[test]
    fn one_wrong_cell_is_noticed() {
        for bit in 16..128 {
            let good = draw(MARKER, 0, 255);
            let bad = |x: usize, y: usize| good(x, y) ^ if y / 4 * 32 + x / 4 == bit { 255 } else { 0 };
            assert!(matches!(Marker::decode(SIZE, bad), Err(MarkerError::Damaged { .. })), "bit {bit}");
        }
    }

    #[test]
    fn a_picture_without_marker_says_so() {
        assert!(matches!(Marker::decode(SIZE, |_, _| 90), Err(MarkerError::Missing { .. })));
        assert!(matches!(Marker::decode(Size::new(63, 100), |_, _| 0), Err(MarkerError::TooSmall(_))));
    }
}
