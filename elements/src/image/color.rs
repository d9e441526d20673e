//! RGB ↔ YUV for single pixels, in 16.16 fixed point.
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

impl Coefficients {
    pub(crate) fn of(color: Colorimetry) -> Coefficients {
        let (kr, kb) = weights(color.matrix);
        let kg = 1.0 - kr - kb;
        let (luma, chroma, black) = match color.range {
            Range::Limited => (219.0 / 255.0, 224.0 / 255.0, 16),
            Range::Full => (1.0, 1.0, 0),
        };
        let fixed = |f: f64| (f * ONE).round() as i32;
        let u = chroma / (2.0 * (1.0 - kb));
        let v = chroma / (2.0 * (1.0 - kr));
        Coefficients {
            black,
            forward: [
                [fixed(kr * luma), fixed(kg * luma), fixed(kb * luma)],
                [fixed(-kr * u), fixed(-kg * u), fixed((1.0 - kb) * u)],
                [fixed((1.0 - kr) * v), fixed(-kg * v), fixed(-kb * v)],
            ],
            inverse: [
                fixed(1.0 / luma),
                fixed(2.0 * (1.0 - kr) / chroma),
                fixed(-2.0 * kb * (1.0 - kb) / (kg * chroma)),
                fixed(-2.0 * kr * (1.0 - kr) / (kg * chroma)),
                fixed(2.0 * (1.0 - kb) / chroma),
            ],
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
