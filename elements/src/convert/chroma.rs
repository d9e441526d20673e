//! YUV of any packing to 4:2:0 without a detour through RGB, which would lose what RGB cannot express.

use crate::image::shape::Shape;

/// Rows of one picture's planes, as they lie one after the other in scratch memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) planes: [&'a [u8]; 3],
    pub(super) strides: [usize; 3],
}

impl<'a> Rows<'a> {
    pub(super) fn row(&self, plane: usize, row: usize) -> &'a [u8] {
        &self.planes[plane][row * self.strides[plane]..][..self.strides[plane]]
    }
}

/// Luma of a row.
pub(super) fn luma(shape: Shape, rows: Rows<'_>, y: usize, out: &mut [u8]) {
    match shape {
        Shape::Packed422 { y: at, .. } => {
            out.iter_mut().zip(rows.row(0, y).as_chunks::<2>().0).for_each(|(o, p)| *o = p[at]);
        }
        _ => out.copy_from_slice(&rows.row(0, y)[..out.len()]),
    }
}

/// Interleaved U and V for rows `top` and `bottom`, which are one where the height is odd, as the mean of what lies
/// there, rounded to the nearest.
pub(super) fn chroma(shape: Shape, rows: Rows<'_>, (top, bottom): (usize, usize), out: &mut [u8]) {
    let pairs = out.as_chunks_mut::<2>().0;
    let mean2 = |a: u8, b: u8| (u16::from(a) + u16::from(b)).div_ceil(2) as u8;
    match shape {
        Shape::Packed422 { u, v, .. } => {
            let above = rows.row(0, top).as_chunks::<4>().0;
            let below = rows.row(0, bottom).as_chunks::<4>().0;
            for (o, (a, b)) in pairs.iter_mut().zip(above.iter().zip(below)) {
                *o = [mean2(a[u], b[u]), mean2(a[v], b[v])];
            }
        }
        Shape::SemiPlanar { vsub, u, v } => {
            let above = rows.row(1, top / vsub).as_chunks::<2>().0;
            let below = rows.row(1, bottom / vsub).as_chunks::<2>().0;
            for (o, (a, b)) in pairs.iter_mut().zip(above.iter().zip(below)) {
                *o = [mean2(a[u], b[u]), mean2(a[v], b[v])];
            }
        }
        Shape::Planar { hsub, vsub, u, v } => {
            for (component, plane) in [u, v].into_iter().enumerate() {
                let (above, below) = (rows.row(plane, top / vsub), rows.row(plane, bottom / vsub));
                if hsub == 2 {
                    for (o, (a, b)) in pairs.iter_mut().zip(above.iter().zip(below)) {
                        o[component] = mean2(*a, *b);
                    }
                } else {
                    for (o, (a, b)) in pairs.iter_mut().zip(above.chunks(2).zip(below.chunks(2))) {
                        let sum: u16 = a.iter().chain(b).map(|n| u16::from(*n)).sum();
                        let n = (a.len() + b.len()) as u16;
                        o[component] = ((sum + n / 2) / n) as u8;
                    }
                }
            }
        }
        _ => out.fill(128),
    }
}
