//! Conversion in floating point, which shares nothing with what it is compared to.

use shrbuf::{Format, Shrbuf};
use shrbuf_pipeline::{Colorimetry, Matrix, Range, Size};

use super::plane;

/// Every matrix in every range.
pub fn colours() -> impl Iterator<Item = Colorimetry> {
    let matrices = [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020];
    matrices.into_iter().flat_map(|matrix| [Range::Limited, Range::Full].map(|range| Colorimetry { matrix, range }))
}

/// Y, U, V at a pixel, or R, G, B; each plane's bytes as they lie in memory.
pub fn sample(format: Format, planes: &[(Vec<u8>, usize)], x: usize, y: usize) -> [f64; 3] {
    let at = |p: usize, y: usize, x: usize| f64::from(planes[p].0[y * planes[p].1 + x]);
    let packed = |luma: usize, u: usize, v: usize| {
        let x4 = x / 2 * 4;
        [at(0, y, x4 + luma + x % 2 * 2), at(0, y, x4 + u), at(0, y, x4 + v)]
    };
    let rgb = |bytes: usize, [r, g, b]: [usize; 3]| [r, g, b].map(|c| at(0, y, x * bytes + c));
    match format {
        Format::Xr24 | Format::Ar24 => rgb(4, [2, 1, 0]),
        Format::Xb24 | Format::Ab24 => rgb(4, [0, 1, 2]),
        Format::Rg24 => rgb(3, [2, 1, 0]),
        Format::Bg24 => rgb(3, [0, 1, 2]),
        Format::Rg16 => {
            let word = at(0, y, 2 * x) as u32 | (at(0, y, 2 * x + 1) as u32) << 8;
            [(word >> 11, 31), (word >> 5 & 63, 63), (word & 31, 31)]
                .map(|(n, max)| f64::from(n * 255) / f64::from(max))
        }
        Format::Yuyv => packed(0, 1, 3),
        Format::Uyvy => packed(1, 0, 2),
        Format::Yvyu => packed(0, 3, 1),
        Format::Vyuy => packed(1, 2, 0),
        Format::Nv12 => [at(0, y, x), at(1, y / 2, x / 2 * 2), at(1, y / 2, x / 2 * 2 + 1)],
        Format::Nv21 => [at(0, y, x), at(1, y / 2, x / 2 * 2 + 1), at(1, y / 2, x / 2 * 2)],
        Format::Nv16 => [at(0, y, x), at(1, y, x / 2 * 2), at(1, y, x / 2 * 2 + 1)],
        Format::Yu12 => [at(0, y, x), at(1, y / 2, x / 2), at(2, y / 2, x / 2)],
        Format::Yv12 => [at(0, y, x), at(2, y / 2, x / 2), at(1, y / 2, x / 2)],
        Format::Yu16 => [at(0, y, x), at(1, y, x / 2), at(2, y, x / 2)],
        Format::Yu24 => [at(0, y, x), at(1, y, x), at(2, y, x)],
        Format::Grey => [at(0, y, x), 128.0, 128.0],
        other => panic!("no reference for {other}"),
    }
}

/// Whether its pixels are red, green and blue.
pub fn is_rgb(format: Format) -> bool {
    matches!(
        format,
        Format::Xr24 | Format::Ar24 | Format::Xb24 | Format::Ab24 | Format::Rg24 | Format::Bg24 | Format::Rg16
    )
}

/// Whether each of its pixels is one colour.
pub fn is_bayer(format: Format) -> bool {
    format.family() == shrbuf::Family::Bayer
}

/// Of red, green and blue in Y.
pub fn weights(matrix: Matrix) -> [f64; 3] {
    match matrix {
        Matrix::Bt601 => [0.299, 0.587, 0.114],
        Matrix::Bt709 => [0.2126, 0.7152, 0.0722],
        Matrix::Bt2020 => [0.2627, 0.678, 0.0593],
    }
}

/// R, G, B from 0 to 255.
pub fn to_rgb([y, u, v]: [f64; 3], c: Colorimetry) -> [f64; 3] {
    let [kr, kg, kb] = weights(c.matrix);
    let (y, u, v) = match c.range {
        Range::Limited => ((y - 16.0) / 219.0, (u - 128.0) / 224.0, (v - 128.0) / 224.0),
        Range::Full => (y / 255.0, (u - 128.0) / 255.0, (v - 128.0) / 255.0),
    };
    let (r, b) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
    let g = (y - kr * r - kb * b) / kg;
    [r, g, b].map(|n| (n * 255.0).clamp(0.0, 255.0))
}

/// Y from 16 to 235, U and V from 16 to 240.
pub fn to_yuv_limited(rgb: [f64; 3], matrix: Matrix) -> [f64; 3] {
    let [kr, kg, kb] = weights(matrix);
    let [r, g, b] = rgb.map(|n| n / 255.0);
    let y = kr * r + kg * g + kb * b;
    [16.0 + 219.0 * y, 128.0 + 112.0 * (b - y) / (1.0 - kb), 128.0 + 112.0 * (r - y) / (1.0 - kr)]
}

/// Each plane as [`plane`] has it.
pub fn planes(buffer: &Shrbuf) -> Vec<(Vec<u8>, usize)> {
    (0..buffer.layout().planes().len()).map(|p| plane(buffer, p)).collect()
}

/// Largest and mean difference of a picture, given as its planes, from what `expected(x, y)` gives.
pub fn difference(
    format: Format,
    made: &[(Vec<u8>, usize)],
    size: Size,
    expected: impl Fn(usize, usize) -> [f64; 3],
) -> (f64, f64) {
    let (mut most, mut sum) = (0.0f64, 0.0);
    for y in 0..size.height as usize {
        for x in 0..size.width as usize {
            let (is, should) = (sample(format, made, x, y), expected(x, y));
            for c in 0..3 {
                most = most.max((is[c] - should[c]).abs());
                sum += (is[c] - should[c]).abs();
            }
        }
    }
    (most, sum / f64::from(size.width * size.height * 3))
}
