//! The arithmetic, stripe by stripe: rows into scratch memory, converted there, and out again. Device memory is never
//! a slice, and a stripe is small enough to stay in the CPU's cache.
//!
//! YUV ↔ RGB is the crate `yuv`'s, with SIMD; rearranging bytes is plain loops, which the compiler vectorises.

use shrbuf::access::{ReadGuard, WriteGuard};
use shrbuf::{Account, Format};
use shrbuf_pipeline::{Colorimetry, Matrix, Range, Size};
use yuv::{
    BufferStoreMut, YuvBiPlanarImage, YuvBiPlanarImageMut, YuvConversionMode, YuvError, YuvGrayImage, YuvPackedImage,
    YuvPlanarImage, YuvRange, YuvStandardMatrix,
};

use super::chroma::{self, Rows};
use crate::image::bayer;
use crate::image::color::made_of;
use crate::image::decode::from_rgb565;
use crate::image::encode::rgb565;
use crate::image::shape::Shape;

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Bgra,
    Bgr,
    Rgb565,
    Nv12,
    Yu12,
}

impl Target {
    /// Formats that can be made, best first.
    pub(super) fn formats() -> impl Iterator<Item = Format> {
        [Format::Xr24, Format::Ar24, Format::Rg24, Format::Nv12, Format::Yu12, Format::Rg16].into_iter()
    }

    /// One that is YUV: luma and chroma, which are made as NV12.
    fn is_yuv(self) -> bool {
        matches!(self, Target::Nv12 | Target::Yu12)
    }

    fn of(format: Format) -> Option<Target> {
        match format {
            Format::Xr24 | Format::Ar24 => Some(Target::Bgra),
            Format::Rg24 => Some(Target::Bgr),
            Format::Rg16 => Some(Target::Rgb565),
            Format::Nv12 => Some(Target::Nv12),
            Format::Yu12 => Some(Target::Yu12),
            _ => None,
        }
    }
}

/// Bytes of RGB that a stripe has, about; with its YUV they fit into an L2 cache, and mostly into L1.
const STRIPE: usize = 48 << 10;

/// A plane's rows in scratch memory.
#[derive(Debug, Default)]
struct Band {
    bytes: Vec<u8>,
    row: usize,
    vsub: usize,
}

impl Band {
    /// What `rows` rows of the picture are of it.
    fn used(&self, rows: usize) -> &[u8] {
        &self.bytes[..self.row * rows.div_ceil(self.vsub.max(1))]
    }

    fn rows_of(&mut self, rows: usize) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_exact_mut(self.row.max(1)).take(rows)
    }
}

/// Converts frames of one format and size into another format. Allocates when made, never after.
#[derive(Debug)]
pub(super) struct Kernel {
    shape: Shape,
    target: Target,
    width: usize,
    height: usize,
    stripe: usize,
    input: [Band; 3],
    planes: usize,
    /// 8-bit samples of a mosaic's stripe, and of the rows above and below it.
    mosaic: Vec<u8>,
    /// Three or four bytes a pixel.
    pixels: Vec<u8>,
    channels: usize,
    /// Rows of RG16; or of luma, and of chroma as in NV12, and of its two halves as in YU12.
    output: [Vec<u8>; 4],
}

impl Kernel {
    /// `None` where `to` is no [`Target`].
    pub(super) fn new(from: Format, to: Format, size: Size) -> Option<Kernel> {
        let (shape, target) = (Shape::of(from)?, Target::of(to)?);
        let (width, height) = (size.width as usize, size.height as usize);
        let channels = if target == Target::Bgr { 3 } else { 4 };
        let stripe = ((STRIPE / (width * channels)) & !1).clamp(2, 32);
        let mut input: [Band; 3] = Default::default();
        for (band, s) in input.iter_mut().zip(from.planes()) {
            let row = width.div_ceil(s.hsub as usize) * s.bytes as usize;
            *band = Band { bytes: vec![0; row * stripe.div_ceil(s.vsub as usize)], row, vsub: s.vsub as usize };
        }
        let mosaic = if matches!(shape, Shape::Bayer { .. }) { width * (stripe + 2) } else { 0 };
        let chroma = width.div_ceil(2) * stripe / 2;
        let output = match target {
            Target::Rgb565 => [width * 2 * stripe, 0, 0, 0],
            Target::Nv12 => [width * stripe, 2 * chroma, 0, 0],
            Target::Yu12 => [width * stripe, 2 * chroma, chroma, chroma],
            Target::Bgra | Target::Bgr => [0; 4],
        };
        Some(Kernel {
            shape,
            target,
            width,
            height,
            stripe,
            input,
            planes: from.planes().len(),
            mosaic: vec![0; mosaic],
            pixels: vec![0; width * channels * stripe],
            channels,
            output: output.map(|n| vec![0; n]),
        })
    }

    /// How code values of the output are to be understood.
    pub(super) fn output_color(&self, input: Colorimetry) -> Colorimetry {
        made_of(input, self.is_yuv(), self.target.is_yuv())
    }

    fn is_yuv(&self) -> bool {
        !matches!(self.shape, Shape::Rgb { .. } | Shape::Rgb565 | Shape::Bayer { .. })
    }

    /// Converts a frame.
    ///
    /// # Errors
    /// That of the crate `yuv` about sizes, which are ours and right.
    pub(super) fn convert(
        &mut self,
        from: &ReadGuard<'_>,
        into: &mut WriteGuard<'_>,
        color: Colorimetry,
        read: &Account,
        written: &Account,
    ) -> Result<(), YuvError> {
        for y in (0..self.height).step_by(self.stripe) {
            let rows = self.stripe.min(self.height - y);
            self.load(from, y, rows, read);
            if self.target.is_yuv() && self.is_yuv() {
                self.resample(rows);
            } else {
                self.make_rgb(rows, y, color)?;
                match self.target {
                    Target::Nv12 | Target::Yu12 => self.make_nv12(rows, color)?,
                    Target::Rgb565 => self.pack_rgb565(rows),
                    Target::Bgra | Target::Bgr => {}
                }
            }
            if self.target == Target::Yu12 {
                self.split(rows);
            }
            self.store(into, y, rows, written);
        }
        Ok(())
    }

    fn load(&mut self, from: &ReadGuard<'_>, y: usize, rows: usize, account: &Account) {
        if let Shape::Bayer { bits, .. } = self.shape {
            let plane = from.plane(0);
            let (above, below) = (bayer::neighbours(y, self.height).0, bayer::neighbours(y + rows - 1, self.height).1);
            let lines = [above].into_iter().chain(y..y + rows).chain([below]);
            let raw = &mut self.input[0].bytes[..plane.row_bytes()];
            for (line, samples) in lines.zip(self.mosaic.chunks_exact_mut(self.width)) {
                plane.read(line, 0, raw, account);
                bayer::to_8_bit(raw, bits, samples);
            }
            return;
        }
        for (p, band) in self.input.iter_mut().enumerate().take(self.planes) {
            let plane = from.plane(p);
            let first = y / band.vsub;
            for (i, row) in band.rows_of(rows.div_ceil(band.vsub)).enumerate() {
                plane.read(first + i, 0, row, account);
            }
        }
    }

    fn store(&self, into: &mut WriteGuard<'_>, y: usize, rows: usize, account: &Account) {
        let mut put = |plane: usize, first: usize, rows: usize, bytes: &[u8]| {
            let mut plane = into.plane(plane);
            for (i, row) in bytes.chunks_exact(plane.row_bytes()).take(rows).enumerate() {
                plane.write(first + i, 0, row, account);
            }
        };
        match self.target {
            Target::Bgra | Target::Bgr => put(0, y, rows, &self.pixels),
            Target::Rgb565 => put(0, y, rows, &self.output[0]),
            Target::Nv12 => {
                put(0, y, rows, &self.output[0]);
                put(1, y / 2, rows.div_ceil(2), &self.output[1]);
            }
            Target::Yu12 => {
                put(0, y, rows, &self.output[0]);
                put(1, y / 2, rows.div_ceil(2), &self.output[2]);
                put(2, y / 2, rows.div_ceil(2), &self.output[3]);
            }
        }
    }

    fn resample(&mut self, rows: usize) {
        let [y, u, v] = &self.input;
        let planes = Rows { planes: [&y.bytes, &u.bytes, &v.bytes], strides: [y.row, u.row, v.row] };
        let [luma, pairs, ..] = &mut self.output;
        for (y, out) in luma.chunks_exact_mut(self.width).take(rows).enumerate() {
            chroma::luma(self.shape, planes, y, out);
        }
        let row = self.width.next_multiple_of(2);
        for (y, out) in pairs.chunks_exact_mut(row).take(rows.div_ceil(2)).enumerate() {
            chroma::chroma(self.shape, planes, (2 * y, (2 * y + 1).min(rows - 1)), out);
        }
    }

    fn make_rgb(&mut self, rows: usize, y: usize, color: Colorimetry) -> Result<(), YuvError> {
        let (matrix, range) = (matrix(color.matrix), range(color.range));
        let (width, height) = (self.width as u32, rows as u32);
        let stride = (self.width * self.channels) as u32;
        let out = &mut self.pixels[..self.width * self.channels * rows];
        let [a, b, c] = &self.input;
        let bgr = self.channels == 3;
        match self.shape {
            Shape::Packed422 { y, u, .. } => {
                let image = YuvPackedImage { yuy: a.used(rows), yuy_stride: a.row as u32, width, height };
                let convert = match (y, u, bgr) {
                    (0, 1, false) => yuv::yuyv422_to_bgra,
                    (0, 1, true) => yuv::yuyv422_to_bgr,
                    (0, _, false) => yuv::yvyu422_to_bgra,
                    (0, _, true) => yuv::yvyu422_to_bgr,
                    (_, 0, false) => yuv::uyvy422_to_bgra,
                    (_, 0, true) => yuv::uyvy422_to_bgr,
                    (_, _, false) => yuv::vyuy422_to_bgra,
                    (_, _, true) => yuv::vyuy422_to_bgr,
                };
                convert(&image, out, stride, range, matrix)
            }
            Shape::SemiPlanar { vsub, u, .. } => {
                let image = YuvBiPlanarImage {
                    y_plane: a.used(rows),
                    y_stride: a.row as u32,
                    uv_plane: b.used(rows),
                    uv_stride: b.row as u32,
                    width,
                    height,
                };
                let convert = match (vsub, u, bgr) {
                    (2, 0, false) => yuv::yuv_nv12_to_bgra,
                    (2, 0, true) => yuv::yuv_nv12_to_bgr,
                    (2, _, false) => yuv::yuv_nv21_to_bgra,
                    (2, _, true) => yuv::yuv_nv21_to_bgr,
                    (_, _, false) => yuv::yuv_nv16_to_bgra,
                    (_, _, true) => yuv::yuv_nv16_to_bgr,
                };
                convert(&image, out, stride, range, matrix, YuvConversionMode::Balanced)
            }
            Shape::Planar { hsub, vsub, u, .. } => {
                let (u, v) = if u == 1 { (b, c) } else { (c, b) };
                let image = YuvPlanarImage {
                    y_plane: a.used(rows),
                    y_stride: a.row as u32,
                    u_plane: u.used(rows),
                    u_stride: u.row as u32,
                    v_plane: v.used(rows),
                    v_stride: v.row as u32,
                    width,
                    height,
                };
                let convert = match (hsub, vsub, bgr) {
                    (2, 2, false) => yuv::yuv420_to_bgra,
                    (2, 2, true) => yuv::yuv420_to_bgr,
                    (2, _, false) => yuv::yuv422_to_bgra,
                    (2, _, true) => yuv::yuv422_to_bgr,
                    (_, _, false) => yuv::yuv444_to_bgra,
                    (_, _, true) => yuv::yuv444_to_bgr,
                };
                convert(&image, out, stride, range, matrix)
            }
            Shape::Gray => {
                let image = YuvGrayImage { y_plane: a.used(rows), y_stride: a.row as u32, width, height };
                let convert = if bgr { yuv::yuv400_to_bgr } else { yuv::yuv400_to_bgra };
                convert(&image, out, stride, range, matrix)
            }
            Shape::Rgb { bytes, offsets, .. } => {
                let rgb = a.bytes.chunks_exact(bytes).map(|p| offsets.map(|at| p[at]));
                put_all(out, self.channels, rgb);
                Ok(())
            }
            Shape::Rgb565 => {
                let rgb = a.bytes.as_chunks::<2>().0.iter().map(|p| from_rgb565(u16::from_le_bytes(*p)));
                put_all(out, self.channels, rgb);
                Ok(())
            }
            Shape::Bayer { mosaic, .. } => {
                for (i, out) in out.chunks_exact_mut(stride as usize).enumerate() {
                    let line = |i: usize| &self.mosaic[i * self.width..][..self.width];
                    let around = bayer::Rows { above: line(i), row: line(i + 1), below: line(i + 2) };
                    bayer::bilinear(mosaic, y + i, around, |x, rgb| {
                        put(&mut out[x * self.channels..][..self.channels], rgb);
                    });
                }
                Ok(())
            }
        }
    }

    /// Chroma as YU12 has it, of chroma as NV12 has it.
    fn split(&mut self, rows: usize) {
        let [_, pairs, u, v] = &mut self.output;
        let used = self.width.div_ceil(2) * rows.div_ceil(2);
        for (([from_u, from_v], u), v) in pairs.as_chunks::<2>().0[..used].iter().zip(u).zip(v) {
            (*u, *v) = (*from_u, *from_v);
        }
    }

    fn pack_rgb565(&mut self, rows: usize) {
        let pixels = self.pixels.as_chunks::<4>().0[..self.width * rows].iter();
        for (o, [b, g, r, _]) in self.output[0].as_chunks_mut::<2>().0.iter_mut().zip(pixels) {
            *o = rgb565([*r, *g, *b]).to_le_bytes();
        }
    }

    fn make_nv12(&mut self, rows: usize, color: Colorimetry) -> Result<(), YuvError> {
        let row = self.width.next_multiple_of(2);
        let [luma, pairs, ..] = &mut self.output;
        let mut image = YuvBiPlanarImageMut {
            y_plane: BufferStoreMut::Borrowed(&mut luma[..self.width * rows]),
            y_stride: self.width as u32,
            uv_plane: BufferStoreMut::Borrowed(&mut pairs[..row * rows.div_ceil(2)]),
            uv_stride: row as u32,
            width: self.width as u32,
            height: rows as u32,
        };
        let (matrix, mode) = (matrix(color.matrix), YuvConversionMode::Balanced);
        let pixels = &self.pixels[..self.width * 4 * rows];
        yuv::bgra_to_yuv_nv12(&mut image, pixels, self.width as u32 * 4, YuvRange::Limited, matrix, mode)
    }
}

fn put(out: &mut [u8], [r, g, b]: [u8; 3]) {
    match out {
        [ob, og, or, alpha] => (*ob, *og, *or, *alpha) = (b, g, r, 255),
        [ob, og, or] => (*ob, *og, *or) = (b, g, r),
        _ => {}
    }
}

fn put_all(out: &mut [u8], channels: usize, rgb: impl Iterator<Item = [u8; 3]>) {
    if channels == 4 {
        out.as_chunks_mut::<4>().0.iter_mut().zip(rgb).for_each(|(o, [r, g, b])| *o = [b, g, r, 255]);
    } else {
        out.as_chunks_mut::<3>().0.iter_mut().zip(rgb).for_each(|(o, [r, g, b])| *o = [b, g, r]);
    }
}

fn matrix(matrix: Matrix) -> YuvStandardMatrix {
    match matrix {
        Matrix::Bt601 => YuvStandardMatrix::Bt601,
        Matrix::Bt709 => YuvStandardMatrix::Bt709,
        Matrix::Bt2020 => YuvStandardMatrix::Bt2020,
    }
}

fn range(range: Range) -> YuvRange {
    match range {
        Range::Limited => YuvRange::Limited,
        Range::Full => YuvRange::Full,
    }
}
