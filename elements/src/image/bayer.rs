//! Mosaics: one colour a sample. Widening to 8 bits, and bilinear interpolation.
//!
//! Bilinear is what a preview needs; an image signal processor does better, and is an element of its own.

use super::shape::Mosaic;

/// Samples of one row as 8 bits each, from bytes as they lie in memory.
pub(crate) fn to_8_bit(raw: &[u8], bits: u32, out: &mut [u8]) {
    if bits <= 8 {
        out.copy_from_slice(&raw[..out.len()]);
        return;
    }
    for (o, s) in out.iter_mut().zip(raw.as_chunks::<2>().0) {
        *o = (u16::from_le_bytes(*s) >> (bits - 8)).min(255) as u8;
    }
}

/// Bytes of one sample of `bits` that means `value` of 255: as bright, with the low bits filled.
pub(crate) fn from_8_bit(value: u8, bits: u32) -> [u8; 2] {
    let wide = u32::from(value) * 0x101;
    ((wide >> (16 - bits.min(16))) as u16).to_le_bytes()
}

/// Three consecutive rows of 8-bit samples; at the top and bottom edge the row at the other side, which has the same
/// colours, stands in for the missing one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) above: &'a [u8],
    pub(crate) row: &'a [u8],
    pub(crate) below: &'a [u8],
}

/// Interpolates row `y` of a mosaic; `put(x, rgb)` receives each pixel.
pub(crate) fn bilinear(mosaic: Mosaic, y: usize, rows: Rows<'_>, mut put: impl FnMut(usize, [u8; 3])) {
    let Rows { above, row, below } = rows;
    let width = row.len();
    let at = |r: &[u8], x: usize| u16::from(r[x]);
    for x in 0..width {
        // At the left and right edge the neighbour on the other side, which has the same colour.
        let left = if x > 0 { x - 1 } else { (x + 1).min(width - 1) };
        let right = if x + 1 < width { x + 1 } else { x.saturating_sub(1) };
        let own = mosaic[(y & 1) * 2 + (x & 1)];
        let beside = mosaic[(y & 1) * 2 + ((x + 1) & 1)];
        let here = row[x];
        let horizontal = (at(row, left) + at(row, right)).div_ceil(2) as u8;
        let vertical = (at(above, x) + at(below, x)).div_ceil(2) as u8;
        let mut rgb = [0; 3];
        if own == 1 {
            rgb[1] = here;
            rgb[usize::from(beside)] = horizontal;
            rgb[usize::from(2 - beside)] = vertical;
        } else {
            let cross = (at(row, left) + at(row, right) + at(above, x) + at(below, x) + 2) / 4;
            let corners = (at(above, left) + at(above, right) + at(below, left) + at(below, right) + 2) / 4;
            rgb[usize::from(own)] = here;
            rgb[1] = cross as u8;
            rgb[usize::from(2 - own)] = corners as u8;
        }
        put(x, rgb);
    }
}

/// The rows above and below row `y` of `rows`, mirrored at the edges so that colours stay in phase.
pub(crate) fn neighbours(y: usize, rows: usize) -> (usize, usize) {
    let above = if y > 0 { y - 1 } else { 1.min(rows - 1) };
    let below = if y + 1 < rows { y + 1 } else { y.saturating_sub(1) };
    (above, below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_colour_stays_flat() {
        let mosaic = [0, 1, 1, 2];
        let colour = [200u8, 100, 50];
        let line = |y: usize| (0..6).map(|x| colour[usize::from(mosaic[(y & 1) * 2 + (x & 1)])]).collect::<Vec<_>>();
        for y in 0..4 {
            let (a, b) = neighbours(y, 4);
            let (above, row, below) = (line(a), line(y), line(b));
            let rows = Rows { above: &above, row: &row, below: &below };
            bilinear(mosaic, y, rows, |x, rgb| assert_eq!(rgb, colour, "{x},{y}"));
        }
    }

    #[test]
    fn depths_there_and_back() {
        for bits in [8, 10, 12, 16] {
            for value in 0..=255u8 {
                let mut out = [0];
                to_8_bit(&from_8_bit(value, bits), bits, &mut out);
                assert_eq!(out[0], value, "{bits} bits");
            }
        }
        assert_eq!(from_8_bit(255, 10), 1023u16.to_le_bytes());
    }

    #[test]
    fn a_picture_of_one_pixel_has_itself_as_neighbour() {
        assert_eq!(neighbours(0, 1), (0, 0));
        bilinear([0, 1, 1, 2], 0, Rows { above: &[9], row: &[9], below: &[9] }, |_, rgb| assert_eq!(rgb, [9; 3]));
    }
}
