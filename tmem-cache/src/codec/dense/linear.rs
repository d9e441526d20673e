//! Prediction by weights that each stripe brings along.
//!
//! The weights are those of neighbours on both sides, of the row above and of the reference. Fitted to a stripe they take
//! account of what a fixed formula cannot: how much of the picture is noise, and how the camera has smoothed it.

use super::fit::MOST;
use super::lanes::{Lane, Lanes, ORDER, PAD};
use super::predict::{Way, left_edges, part, right_edge, sides, span};
use super::sample::Sample;

/// Weights of a lane without a reference, and with one.
pub(crate) const ALONE: usize = 4;
pub(crate) const REFERRING: usize = 7;

/// Weights of a lane.
pub(crate) fn weights(referring: bool) -> usize {
    if referring { REFERRING } else { ALONE }
}

/// Samples that are predicted so.
pub(crate) trait Linear: Sample {
    /// `base`, and the differences of the others from it by their weights in 64ths.
    fn predict<const N: usize>(base: &[Self; PAD], others: &[[Self; PAD]; N], weights: &[i8; N]) -> [Self; PAD];
    /// The difference from `base`, shifted down, as [`super::fit`] counts it.
    fn difference(self, base: Self, down: u32) -> i16;
}

macro_rules! linear {
    ($type:ident, $sum:ident, $add:ident) => {
        impl Linear for $type {
            #[inline(always)]
            fn predict<const N: usize>(
                base: &[$type; PAD],
                others: &[[$type; PAD]; N],
                weights: &[i8; N],
            ) -> [$type; PAD] {
                let mut sums = [32 as $sum; PAD];
                for (other, &weight) in others.iter().zip(weights) {
                    for i in 0..PAD {
                        let difference = other[i] as $sum - base[i] as $sum;
                        sums[i] = sums[i].$add(difference * $sum::from(weight));
                    }
                }
                // A loop, as a closure would not have the instructions that this function's caller has.
                let mut out = [0; PAD];
                for i in 0..PAD {
                    out[i] = (base[i] as $sum + (sums[i] >> 6)).clamp(0, $type::MAX as $sum) as $type;
                }
                out
            }

            #[inline(always)]
            fn difference(self, base: $type, down: u32) -> i16 {
                let difference = (self as $sum - base as $sum) >> down;
                difference.clamp(-MOST as $sum, MOST as $sum) as i16
            }
        }
    };
}
// Products fit; sums of bytes saturate, which vectors do in one step, and those of words fit.
linear!(u8, i16, saturating_add);
linear!(u16, i32, wrapping_add);

/// One row to residuals or back, as [`super::predict::row`] does it. `all` has the weights of each lane of each component.
#[inline(always)]
pub(crate) fn row<W: Way, S: Linear>(
    lanes: &Lanes,
    all: &[i8],
    row: &mut [S],
    above: &[S],
    reference: Option<(&[S], &[S])>,
    residuals: &mut [S],
) {
    let mut at = 0;
    let each = weights(reference.is_some());
    for (component, all) in lanes.components().iter().zip(all.chunks_exact(4 * each)) {
        for phase in ORDER {
            let lane = component[phase];
            if lane.len > 0 {
                let weights = &all[phase * each..][..each];
                let (before, rest) = row.split_at_mut(lane.start);
                let near = near(component, phase, before, above);
                let residuals = &mut residuals[at..];
                match reference {
                    Some((same, up)) => {
                        let far = far(component, phase, same, up);
                        let [a, b, c, d] = near.others;
                        step::<W, S, REFERRING>(
                            near.base,
                            [a, b, c, d, far[0], far[1], far[2]],
                            far[3],
                            weights,
                            rest,
                            residuals,
                        );
                    }
                    None => step::<W, S, ALONE>(near.base, near.others, near.base, weights, rest, residuals),
                }
                at += lane.len;
            }
            right_edge(component, lane, row);
        }
        left_edges(component, row);
    }
}

/// What a lane is predicted from in its own picture, each for as many samples as the lane has.
pub(crate) struct Near<'a, S> {
    pub base: &'a [S],
    pub others: [&'a [S]; ALONE],
}

/// Lane 0 has the two on either side above; the others have those beside them, and above those.
#[inline(always)]
pub(crate) fn near<'a, S: Sample>(component: &[Lane; 4], phase: usize, row: &'a [S], above: &'a [S]) -> Near<'a, S> {
    let lane = component[phase];
    let [left, right] = sides(component, phase);
    let beside = |row, side| part(row, side, lane.len);
    let others = if phase == 0 {
        let two = component[2];
        [beside(above, left), beside(above, right), beside(above, (two, -1)), beside(above, (two, 0))]
    } else {
        [beside(above, left), beside(above, right), beside(row, left), beside(row, right)]
    };
    Near { base: span(above, lane, 0), others }
}

/// The reference's samples: of the same place, of the one above, and on either side, of which the mean is taken.
#[inline(always)]
pub(crate) fn far<'a, S: Sample>(component: &[Lane; 4], phase: usize, same: &'a [S], up: &'a [S]) -> [&'a [S]; 4] {
    let lane = component[phase];
    let [left, right] = sides(component, phase);
    [span(same, lane, 0), span(up, lane, 0), part(same, left, lane.len), part(same, right, lane.len)]
}

/// Along a lane. With a reference, the last of `others` is averaged with `last`.
#[inline(always)]
fn step<W: Way, S: Linear, const N: usize>(
    base: &[S],
    others: [&[S]; N],
    last: &[S],
    weights: &[i8],
    samples: &mut [S],
    residuals: &mut [S],
) {
    let n = base.len();
    let Some(weights) = weights.first_chunk::<N>() else { unreachable!("as many weights as samples") };
    let (samples, _) = samples[..n].as_chunks_mut::<PAD>();
    let (residuals, _) = residuals[..n].as_chunks_mut::<PAD>();
    let (base, _) = base.as_chunks::<PAD>();
    let others = others.map(|o| o[..n].as_chunks::<PAD>().0);
    let (last, _) = last[..n].as_chunks::<PAD>();
    for i in 0..n / PAD {
        let mut now = [[S::default(); PAD]; N];
        for (now, others) in now.iter_mut().zip(&others) {
            *now = others[i];
        }
        if N == REFERRING {
            for (x, y) in now[N - 1].iter_mut().zip(&last[i]) {
                *x = x.avg(*y);
            }
        }
        let predictions = S::predict(&base[i], &now, weights);
        W::chunk(&mut samples[i], &mut residuals[i], &predictions);
    }
}
