//! Rows of RGB into a buffer of any format, two at a time because chroma and mosaics span two.

use std::ops::Range;

use shrbuf::access::WriteGuard;
use shrbuf::{Account, Format};

use super::bayer;
use super::color::Coefficients;
use super::shape::Shape;

/// Encodes two rows of RGB (three bytes a pixel) at a time. Allocates when made, never after.
#[derive(Debug)]
pub(crate) struct Encoder {
    format: Format,
    shape: Shape,
    color: Coefficients,
    width: usize,
    /// Two rows of each plane, or one where the plane is subsampled vertically.
    rows: [Vec<u8>; 3],
    lengths: [usize; 3],
}

impl Encoder {
    /// For stripes of `width` pixels; `None` for a format without a [`Shape`].
    pub(crate) fn new(format: Format, color: Coefficients, width: u32) -> Option<Encoder> {
        let shape = Shape::of(format)?;
        let mut rows = [const { Vec::new() }; 3];
        let mut lengths = [0; 3];
        for (p, s) in format.planes().iter().enumerate() {
            lengths[p] = width.div_ceil(s.hsub) as usize * s.bytes as usize;
            rows[p] = vec![0; lengths[p] * (2 / s.vsub as usize)];
        }
        Some(Encoder { format, shape, color, width: width as usize, rows, lengths })
    }

    /// Bytes of row `row` (0 or 1) of plane `plane`, as of the last [`Encoder::encode`].
    pub(crate) fn row(&self, plane: usize, row: usize) -> &[u8] {
        &self.rows[plane][row * self.lengths[plane]..][..self.lengths[plane]]
    }

    /// Encodes two rows. Where the picture's height is odd, the last one is given twice.
    pub(crate) fn encode(&mut self, top: &[u8], bottom: &[u8]) {
        for (r, rgb) in [top, bottom].into_iter().enumerate() {
            let pixels = &rgb.as_chunks::<3>().0[..self.width];
            let length = self.lengths[0];
            let out = &mut self.rows[0][r * length..][..length];
            samples(self.shape, &self.color, r, pixels, out);
        }
        let (top, bottom) = (top.as_chunks::<3>().0, bottom.as_chunks::<3>().0);
        match self.shape {
            Shape::SemiPlanar { vsub, u, v } => {
                let (_, chroma) = self.rows.split_at_mut(1);
                for r in 0..2 / vsub {
                    let pair = if vsub == 2 { [top, bottom] } else { [[top, bottom][r]; 2] };
                    let row = &mut chroma[0][r * self.lengths[1]..][..self.lengths[1]];
                    for (i, uv) in row.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                        let c = self.color.chroma(mean(pair, i * 2, 2));
                        (uv[u], uv[v]) = (c[0], c[1]);
                    }
                }
            }
            Shape::Planar { hsub, vsub, u, v } => {
                for r in 0..2 / vsub {
                    let pair = if vsub == 2 { [top, bottom] } else { [[top, bottom][r]; 2] };
                    let at = r * self.lengths[1];
                    for i in 0..self.lengths[1] {
                        let c = self.color.chroma(mean(pair, i * hsub, hsub));
                        (self.rows[u][at + i], self.rows[v][at + i]) = (c[0], c[1]);
                    }
                }
            }
            _ => {}
        }
    }

    /// Writes what was encoded to rows `y` and `y + 1`, from pixel `x` on. Both are even; what lies below the
    /// picture's last row is left out.
    pub(crate) fn put(&self, guard: &mut WriteGuard<'_>, x: u32, y: u32, account: &Account) {
        self.put_part(guard, 0..self.width as u32, (x, y), account);
    }

    /// As [`Encoder::put`], of the pixels `part` of the stripe alone, which begin at an even one.
    pub(crate) fn put_part(&self, guard: &mut WriteGuard<'_>, part: Range<u32>, (x, y): (u32, u32), account: &Account) {
        for (p, s) in self.format.planes().iter().enumerate() {
            let mut plane = guard.plane(p);
            let byte = |x: u32| (x.div_ceil(s.hsub) * s.bytes) as usize;
            for r in 0..(2 / s.vsub) as usize {
                let row = (y / s.vsub) as usize + r;
                if row < plane.rows() {
                    plane.write(row, byte(x), &self.row(p, r)[byte(part.start)..byte(part.end)], account);
                }
            }
        }
    }
}

/// Plane 0 of row `r` of a stripe.
fn samples(shape: Shape, color: &Coefficients, r: usize, pixels: &[[u8; 3]], out: &mut [u8]) {
    match shape {
        Shape::Rgb { bytes, offsets, fourth } => {
            for (o, p) in out.chunks_exact_mut(bytes).zip(pixels) {
                for (at, value) in offsets.into_iter().zip(p) {
                    o[at] = *value;
                }
                if let Some(at) = fourth {
                    o[at] = 255;
                }
            }
        }
        Shape::Rgb565 => {
            for (o, p) in out.as_chunks_mut::<2>().0.iter_mut().zip(pixels) {
                *o = rgb565(*p).to_le_bytes();
            }
        }
        Shape::Packed422 { y, u, v } => {
            for (o, p) in out.as_chunks_mut::<4>().0.iter_mut().zip(pixels.chunks(2)) {
                let second = p.get(1).unwrap_or(&p[0]);
                let c = color.chroma(average(&[p[0], *second]));
                (o[y], o[y + 2]) = (color.luma(p[0]), color.luma(*second));
                (o[u], o[v]) = (c[0], c[1]);
            }
        }
        Shape::SemiPlanar { .. } | Shape::Planar { .. } | Shape::Gray => {
            for (o, p) in out.iter_mut().zip(pixels) {
                *o = color.luma(*p);
            }
        }
        Shape::Bayer { mosaic, bits } => {
            let bytes = if bits > 8 { 2 } else { 1 };
            for (x, (o, p)) in out.chunks_exact_mut(bytes).zip(pixels).enumerate() {
                let value = p[usize::from(mosaic[(r & 1) * 2 + (x & 1)])];
                o.copy_from_slice(&bayer::from_8_bit(value, bits)[..bytes]);
            }
        }
    }
}

/// 5, 6, 5 bits, rounded to the nearest.
pub(crate) fn rgb565([r, g, b]: [u8; 3]) -> u16 {
    let scale = |n: u8, max: u16| (u16::from(n) * max + 127) / 255;
    scale(r, 31) << 11 | scale(g, 63) << 5 | scale(b, 31)
}

fn average(pixels: &[[u8; 3]]) -> [u8; 3] {
    let n = pixels.len() as u16;
    [0, 1, 2].map(|c| ((pixels.iter().map(|p| u16::from(p[c])).sum::<u16>() + n / 2) / n) as u8)
}

/// The mean colour of `n` pixels from `x` on, in two rows.
fn mean(rows: [&[[u8; 3]]; 2], x: usize, n: usize) -> [u8; 3] {
    let end = (x + n).min(rows[0].len());
    let both = [average(&rows[0][x..end]), average(&rows[1][x..end])];
    average(&both)
}
