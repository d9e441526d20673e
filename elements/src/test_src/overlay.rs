//! Drawing the marker and the number and time that people read, over a background that has black in their place.
//!
//! Everything is black or white, and in blocks of 2x2 pixels: so it differs in the first plane alone, whatever the
//! format, and is put together from bytes that were encoded once.

use shrbuf::access::WriteGuard;
use shrbuf::{Account, Format};
use shrbuf_pipeline::{Size, Timestamp};

use super::marker::{self, Marker};
use crate::image::color::Coefficients;
use crate::image::encode::Encoder;
use crate::image::font;

/// Characters of a line: `#0000001234`, `012345.678s`.
const LINE: usize = 11;
const LINES: usize = 2;

/// Bytes of the first plane for black and for white, ready to be put together.
#[derive(Debug)]
pub(crate) struct Overlay {
    size: Size,
    cell: usize,
    /// Pixels to a dot of the font.
    dot: usize,
    /// A cell of the marker, black and white.
    cells: [Vec<u8>; 2],
    /// Rows of every glyph, black and lit, one after the other.
    glyphs: Vec<u8>,
    glyph_bytes: usize,
    row: Vec<u8>,
}

/// The pixels that the overlay takes at the top left of a picture of this size, if there is room for it.
pub(crate) fn extent(size: Size) -> Option<(usize, usize)> {
    let (width, height) = marker::extent(size)?;
    let dot = dot(size);
    let text = LINE * font::WIDTH * dot;
    let whole = (width.max(text).min(size.width as usize), height + LINES * font::HEIGHT * dot);
    Some((whole.0, whole.1.min(size.height as usize)))
}

fn dot(size: Size) -> usize {
    if size.width < 1600 { 2 } else { 4 }
}

impl Overlay {
    /// For pictures of this format and size; `None` where there is no room.
    pub(crate) fn new(format: Format, color: Coefficients, size: Size) -> Option<Overlay> {
        let cell = marker::cell(size)?;
        let dot = dot(size);
        let bytes = |white: u8, pixels: usize| {
            let rgb = vec![white; pixels * 3];
            let mut encoder = Encoder::new(format, color, pixels as u32)?;
            encoder.encode(&rgb, &rgb);
            Some(encoder.row(0, 0).to_vec())
        };
        let cells = [bytes(0, cell)?, bytes(255, cell)?];
        let dots = [bytes(0, dot)?, bytes(255, dot)?];
        let mut glyphs = Vec::new();
        for glyph in 0..font::GLYPHS.len() {
            for y in 0..font::HEIGHT {
                for x in 0..font::WIDTH {
                    glyphs.extend_from_slice(&dots[usize::from(font::lit(glyph, x, y))]);
                }
            }
        }
        let glyph_bytes = dots[0].len() * font::WIDTH;
        let row = vec![0; (cells[0].len() * 32).max(glyph_bytes * LINE)];
        Some(Overlay { size, cell, dot, cells, glyphs, glyph_bytes, row })
    }

    /// Draws number and time into the first plane.
    pub(crate) fn draw(&mut self, guard: &mut WriteGuard<'_>, frame: u64, timestamp: Timestamp, account: &Account) {
        let mut plane = guard.plane(0);
        let mut y = 0;
        let marker = Marker { frame: frame as u32, timestamp };
        for bits in marker.cells() {
            let cell_bytes = self.cells[0].len();
            for (i, out) in self.row.chunks_exact_mut(cell_bytes).take(32).enumerate() {
                out.copy_from_slice(&self.cells[(bits >> (31 - i) & 1) as usize]);
            }
            for _ in 0..self.cell {
                plane.write(y, 0, &self.row[..cell_bytes * 32], account);
                y += 1;
            }
        }
        for line in [number(frame), time(timestamp)] {
            for glyph_row in 0..font::HEIGHT {
                for (c, out) in line.iter().zip(self.row.chunks_exact_mut(self.glyph_bytes)) {
                    let at = (c * font::HEIGHT + glyph_row) * self.glyph_bytes;
                    out.copy_from_slice(&self.glyphs[at..at + self.glyph_bytes]);
                }
                let visible = (self.glyph_bytes * LINE).min(plane.row_bytes());
                for _ in 0..self.dot {
                    if y < self.size.height as usize {
                        plane.write(y, 0, &self.row[..visible], account);
                    }
                    y += 1;
                }
            }
        }
    }
}

const HASH: usize = 10;
const DOT: usize = 11;
const SECONDS: usize = 12;
const SPACE: usize = 13;

/// Decimal digits of `n` as indices of glyphs, filling `out` from the right.
fn digits(mut n: u64, out: &mut [usize]) {
    for d in out.iter_mut().rev() {
        *d = (n % 10) as usize;
        n /= 10;
    }
}

fn number(frame: u64) -> [usize; LINE] {
    let mut line = [HASH; LINE];
    digits(frame, &mut line[1..]);
    line
}

fn time(t: Timestamp) -> [usize; LINE] {
    let mut line = [SPACE; LINE];
    digits(t.0 / 1_000_000_000, &mut line[..6]);
    line[6] = DOT;
    digits(t.0 / 1_000_000 % 1000, &mut line[7..10]);
    line[10] = SECONDS;
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: [usize; LINE]) -> String {
        line.iter().map(|&g| font::GLYPHS[g] as char).collect()
    }

    #[test]
    fn number_and_time_are_readable() {
        assert_eq!(text(number(1234)), "#0000001234");
        assert_eq!(text(time(Timestamp(12_345_678_901_234))), "012345.678s");
    }
}
