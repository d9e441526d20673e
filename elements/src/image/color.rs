//! RGB ↔ YUV for single pixels, in 16.16 fixed point, and as matrices for those who have their own arithmetic.
//!
//! Source: ITU-R BT.601-7, BT.709-6, BT.2020-2 (Kr, Kb); limited range is 16..235 for luma, 16..240 for chroma.

use shrbuf_pipeline::{Colorimetry, Matrix, Range, Size};

const ONE: f64 = 65536.0;
const HALF: i32 = 1 << 15;

/// Coefficients of one colorimetry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coefficients {
    black: i32,
    /// Rows Y, U, V; columns R, G, B.
    forward: [[i32; 3]; 3],
    /// Luma gain, V to R, U to G, V to G, U to B.
    inverse: [i32; 5],
}

/// What pictures of this size are where nobody says: BT.709 for high definition, else BT.601, of limited range.
pub(crate) fn usual(size: Size) -> Colorimetry {
    let matrix = if size.height >= 720 { Matrix::Bt709 } else { Matrix::Bt601 };
    Colorimetry { matrix, range: Range::Limited }
}

/// Luma weights of red and blue.
fn weights(matrix: Matrix) -> (f64, f64) {
    match matrix {
        Matrix::Bt601 => (0.299, 0.114),
        Matrix::Bt709 => (0.2126, 0.0722),
        Matrix::Bt2020 => (0.2627, 0.0593),
    }
}

/// Coefficients of one colorimetry, of code values from 0 to 1.
#[derive(Debug, Clone, Copy)]
struct Exact {
    black: f64,
    forward: [[f64; 3]; 3],
    inverse: [f64; 5],
}

impl Exact {
    fn of(color: Colorimetry) -> Exact {
        let (kr, kb) = weights(color.matrix);
        let kg = 1.0 - kr - kb;
        let (luma, chroma, black) = match color.range {
            Range::Limited => (219.0 / 255.0, 224.0 / 255.0, 16.0 / 255.0),
            Range::Full => (1.0, 1.0, 0.0),
        };
        let u = chroma / (2.0 * (1.0 - kb));
        let v = chroma / (2.0 * (1.0 - kr));
        Exact {
            black,
            forward: [
                [kr * luma, kg * luma, kb * luma],
                [-kr * u, -kg * u, (1.0 - kb) * u],
                [(1.0 - kr) * v, -kg * v, -kb * v],
            ],
            inverse: [
                1.0 / luma,
                2.0 * (1.0 - kr) / chroma,
                -2.0 * kb * (1.0 - kb) / (kg * chroma),
                -2.0 * kr * (1.0 - kr) / (kg * chroma),
                2.0 * (1.0 - kb) / chroma,
            ],
        }
    }
}

impl Coefficients {
    pub(crate) fn of(color: Colorimetry) -> Coefficients {
        let exact = Exact::of(color);
        let fixed = |f: f64| (f * ONE).round() as i32;
        Coefficients {
            black: (exact.black * 255.0).round() as i32,
            forward: exact.forward.map(|row| row.map(fixed)),
            inverse: exact.inverse.map(fixed),
        }
    }

    /// Y of an RGB pixel.
    pub(crate) fn luma(&self, [r, g, b]: [u8; 3]) -> u8 {
        let [cr, cg, cb] = self.forward[0];
        let sum = cr * i32::from(r) + cg * i32::from(g) + cb * i32::from(b);
        clamp(((sum + HALF) >> 16) + self.black)
    }

    /// U and V of an RGB pixel.
    pub(crate) fn chroma(&self, [r, g, b]: [u8; 3]) -> [u8; 2] {
        let one = |[cr, cg, cb]: [i32; 3]| {
            let sum = cr * i32::from(r) + cg * i32::from(g) + cb * i32::from(b);
            clamp(((sum + HALF) >> 16) + 128)
        };
        [one(self.forward[1]), one(self.forward[2])]
    }

    /// RGB of a YUV pixel.
    pub(crate) fn rgb(&self, y: u8, u: u8, v: u8) -> [u8; 3] {
        let [gain, v_r, u_g, v_g, u_b] = self.inverse;
        let y = (i32::from(y) - self.black) * gain + HALF;
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        [clamp((y + v_r * v) >> 16), clamp((y + u_g * u + v_g * v) >> 16), clamp((y + u_b * u) >> 16)]
    }
}

/// What makes three code values of three others, all from 0 to 1: a matrix of rows, and what is added then.
#[cfg(feature = "gpu")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Affine {
    pub(crate) rows: [[f64; 3]; 3],
    pub(crate) offset: [f64; 3],
}

#[cfg(feature = "gpu")]
impl Affine {
    pub(crate) const IDENTITY: Affine =
        Affine { rows: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], offset: [0.0; 3] };

    /// YUV to RGB of full range.
    pub(crate) fn to_rgb(color: Colorimetry) -> Affine {
        let exact = Exact::of(color);
        let [gain, v_r, u_g, v_g, u_b] = exact.inverse;
        let rows = [[gain, 0.0, v_r], [gain, u_g, v_g], [gain, u_b, 0.0]];
        let zero = [exact.black, 128.0 / 255.0, 128.0 / 255.0];
        Affine { rows, offset: rows.map(|row| -dot(row, zero)) }
    }

    /// RGB of full range to YUV.
    pub(crate) fn from_rgb(color: Colorimetry) -> Affine {
        let exact = Exact::of(color);
        Affine { rows: exact.forward, offset: [exact.black, 128.0 / 255.0, 128.0 / 255.0] }
    }

    /// This first, `next` then.
    pub(crate) fn then(&self, next: &Affine) -> Affine {
        let column = |c: usize| self.rows.map(|row| row[c]);
        let rows = next.rows.map(|row| [0, 1, 2].map(|c| dot(row, column(c))));
        let offset = [0, 1, 2].map(|i| dot(next.rows[i], self.offset) + next.offset[i]);
        Affine { rows, offset }
    }
}

#[cfg(feature = "gpu")]
fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// How code values of a picture are to be understood that was made of one of colorimetry `input`.
pub(crate) fn made_of(input: Colorimetry, from_yuv: bool, to_yuv: bool) -> Colorimetry {
    match (to_yuv, from_yuv) {
        (true, true) => input,
        (true, false) => Colorimetry { range: Range::Limited, ..input },
        (false, _) => Colorimetry { range: Range::Full, ..input },
    }
}

fn clamp(n: i32) -> u8 {
    n.clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_black_and_grey_have_no_chroma() {
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
            let limited = Coefficients::of(Colorimetry { matrix, range: Range::Limited });
            let full = Coefficients::of(Colorimetry { matrix, range: Range::Full });
            assert_eq!((limited.luma([0; 3]), limited.luma([255; 3])), (16, 235));
            assert_eq!((full.luma([0; 3]), full.luma([255; 3])), (0, 255));
            for grey in 0..=255 {
                assert_eq!(limited.chroma([grey; 3]), [128, 128]);
            }
        }
    }

    #[test]
    fn there_and_back_is_right_to_two_steps() {
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
            for range in [Range::Limited, Range::Full] {
                let c = Coefficients::of(Colorimetry { matrix, range });
                for rgb in [[255, 0, 0], [0, 255, 0], [0, 0, 255], [191, 191, 0], [12, 34, 56], [200, 100, 50]] {
                    let [u, v] = c.chroma(rgb);
                    let back = c.rgb(c.luma(rgb), u, v);
                    for i in 0..3 {
                        assert!(back[i].abs_diff(rgb[i]) <= 2, "{matrix:?} {range:?} {rgb:?} {back:?}");
                    }
                }
            }
        }
    }
}
