//! Rows of a buffer of any format into RGB, for pictures that people look at.

use shrbuf::access::ReadGuard;
use shrbuf::{Account, Format, Layout};

use super::bayer;
use super::color::Coefficients;
use super::shape::Shape;

/// Reads rows as RGB, three bytes a pixel. Allocates when made, never after.
#[derive(Debug)]
pub(crate) struct Decoder {
    shape: Shape,
    width: usize,
    height: usize,
    raw: [Vec<u8>; 3],
    /// Three rows of 8-bit samples, of mosaics.
    mosaic: [Vec<u8>; 3],
    vsub: [usize; 3],
}

impl Decoder {
    /// For pictures of this format and size; `None` for a format without a [`Shape`].
    pub(crate) fn new(format: Format, width: u32, height: u32) -> Option<Decoder> {
        let shape = Shape::of(format)?;
        let mut raw = [const { Vec::new() }; 3];
        let mut vsub = [1; 3];
        for (p, s) in format.planes().iter().enumerate() {
            raw[p] = vec![0; width.div_ceil(s.hsub) as usize * s.bytes as usize];
            vsub[p] = s.vsub as usize;
        }
        let samples = if matches!(shape, Shape::Bayer { .. }) { width as usize } else { 0 };
        let mosaic = std::array::from_fn(|_| vec![0; samples]);
        Some(Decoder { shape, width: width as usize, height: height as usize, raw, mosaic, vsub })
    }

    /// As [`Decoder::new`], for pictures laid out so.
    pub(crate) fn of(layout: &Layout) -> Option<Decoder> {
        Decoder::new(layout.format, layout.width, layout.height)
    }

    /// Row `y` as RGB into `out`, which has room for a row.
    pub(crate) fn row(
        &mut self,
        guard: &ReadGuard<'_>,
        color: &Coefficients,
        y: usize,
        out: &mut [u8],
        account: &Account,
    ) {
        let out = &mut out.as_chunks_mut::<3>().0[..self.width];
        if let Shape::Bayer { mosaic, bits } = self.shape {
            return self.bayer_row(guard, (mosaic, bits), y, out, account);
        }
        for (p, raw) in self.raw.iter_mut().enumerate().filter(|(_, raw)| !raw.is_empty()) {
            guard.plane(p).read(y / self.vsub[p], 0, raw, account);
        }
        let [luma, ..] = &self.raw;
        match self.shape {
            Shape::Rgb { bytes, offsets, .. } => {
                for (o, p) in out.iter_mut().zip(luma.chunks_exact(bytes)) {
                    *o = offsets.map(|at| p[at]);
                }
            }
            Shape::Rgb565 => {
                for (o, p) in out.iter_mut().zip(luma.as_chunks::<2>().0) {
                    *o = from_rgb565(u16::from_le_bytes(*p));
                }
            }
            Shape::Packed422 { y, u, v } => {
                for (o, p) in out.chunks_mut(2).zip(luma.as_chunks::<4>().0) {
                    for (i, o) in o.iter_mut().enumerate() {
                        *o = color.rgb(p[y + 2 * i], p[u], p[v]);
                    }
                }
            }
            Shape::SemiPlanar { u, v, .. } => {
                for (x, (o, y)) in out.iter_mut().zip(luma).enumerate() {
                    let at = x / 2 * 2;
                    *o = color.rgb(*y, self.raw[1][at + u], self.raw[1][at + v]);
                }
            }
            Shape::Planar { hsub, u, v, .. } => {
                for (x, (o, y)) in out.iter_mut().zip(luma).enumerate() {
                    *o = color.rgb(*y, self.raw[u][x / hsub], self.raw[v][x / hsub]);
                }
            }
            Shape::Gray => {
                for (o, y) in out.iter_mut().zip(luma) {
                    *o = color.rgb(*y, 128, 128);
                }
            }
            Shape::Bayer { .. } => {}
        }
    }

    fn bayer_row(
        &mut self,
        guard: &ReadGuard<'_>,
        (mosaic, bits): (super::shape::Mosaic, u32),
        y: usize,
        out: &mut [[u8; 3]],
        account: &Account,
    ) {
        let (above, below) = bayer::neighbours(y, self.height);
        for (row, samples) in [above, y, below].into_iter().zip(&mut self.mosaic) {
            guard.plane(0).read(row, 0, &mut self.raw[0], account);
            bayer::to_8_bit(&self.raw[0], bits, samples);
        }
        let [above, row, below] = &self.mosaic;
        bayer::bilinear(mosaic, y, bayer::Rows { above, row, below }, |x, rgb| out[x] = rgb);
    }
}

/// 8 bits each, the high bits repeated into the low ones.
pub(crate) fn from_rgb565(p: u16) -> [u8; 3] {
    let (r, g, b) = (p >> 11, p >> 5 & 63, p & 31);
    [(r << 3 | r >> 2) as u8, (g << 2 | g >> 4) as u8, (b << 3 | b >> 2) as u8]
}

#[cfg(test)]
mod tests {
    use shrbuf::exporter::Memfd;
    use shrbuf::{Ledger, Reason};
    use shrbuf_pipeline::Colorimetry;

    use super::*;
    use crate::image::encode::Encoder;

    #[test]
    fn flat_colours_come_back_in_every_format_and_odd_sizes() {
        let account = Ledger::default().account("test", Reason::Generate);
        let color = Coefficients::of(Colorimetry::default());
        for format in crate::image::shape::formats() {
            for (width, height) in [(8, 6), (7, 5), (1, 1), (2, 1)] {
                let mut buffer = Memfd::new("t").allocate(&Layout::linear(format, width, height, 1).unwrap()).unwrap();
                let rgb = [200u8, 90, 40].repeat(width as usize);
                let mut encoder = Encoder::new(format, color, width).unwrap();
                let mut guard = buffer.write().unwrap();
                for y in (0..height).step_by(2) {
                    encoder.encode(&rgb, &rgb);
                    encoder.put(&mut guard, 0, y, &account);
                }
                drop(guard);
                let mut decoder = Decoder::of(buffer.layout()).unwrap();
                let mut row = vec![0; rgb.len()];
                let guard = buffer.read().unwrap();
                let mosaic = matches!(Shape::of(format), Some(Shape::Bayer { .. }));
                for y in 0..height as usize {
                    decoder.row(&guard, &color, y, &mut row, &account);
                    let near = row.iter().zip(&rgb).all(|(a, b)| a.abs_diff(*b) <= 4);
                    let gray = format == Format::Grey && row.as_chunks::<3>().0.iter().all(|p| p[0] == p[2]);
                    let too_small = mosaic && (width == 1 || height == 1);
                    assert!(near || gray || too_small, "{format} {width}x{height} row {y}: {row:?}");
                }
            }
        }
    }
}
