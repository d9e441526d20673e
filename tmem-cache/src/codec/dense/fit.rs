//! The weights of [`super::linear`] that suit a stripe: least squares over a quarter of its rows, without the
//! samples that a plain prediction misses by far. Those are edges; what is to be coded well is all the rest.

#![expect(clippy::needless_range_loop, reason = "rows and columns of matrices")]

use super::lanes::{Lane, ORDER, PAD};
use super::linear::{ALONE, Linear, REFERRING, far, near, weights};
use super::predict::{self, Forward, Mode};
use super::rows::Task;

/// Of so many rows one is looked at.
const EVERY: usize = 4;

/// Of a lane only so many samples at a time count.
const WHOLE: usize = 8;

/// Samples worked on together: [`MOST`] squared, so many times, fits 31 bits.
const TOGETHER: usize = 2 * PAD;

/// Most that a difference counts.
pub(super) const MOST: i32 = 2047;

/// Sums of products of features, the last of which is what is to be predicted.
#[derive(Debug, Clone)]
struct Sums<const M: usize>([[i64; M]; M]);

/// The weights of all lanes of all components. `rows` are the stripe's, taken apart.
#[inline(always)]
pub(crate) fn fit<S: Linear>(task: &Task<'_, S>, rows: &[S], trial: &mut [S], out: &mut Vec<i8>) {
    out.clear();
    if task.reference.is_some() {
        fit_all::<S, { REFERRING + 1 }>(task, rows, trial, out);
    } else {
        fit_all::<S, { ALONE + 1 }>(task, rows, trial, out);
    }
}

#[inline(always)]
fn fit_all<S: Linear, const M: usize>(task: &Task<'_, S>, rows: &[S], trial: &mut [S], out: &mut Vec<i8>) {
    let (lanes, up) = (task.lanes, task.plane.up);
    let mut sums = [const { [const { Sums([[0; M]; M]) }; 4] }; 4];
    let mut row = vec![S::default(); lanes.size()];
    for y in (up..task.rows).step_by(EVERY) {
        row.copy_from_slice(task.part(rows, y));
        let above = task.part(rows, y - up);
        predict::row::<Forward, S>(lanes, Mode::Between, &mut row, Some(above), None, trial);
        let reference = task.reference(y).zip(task.reference(y - up));
        let mut residuals = trial.iter().as_slice();
        for (component, sums) in lanes.components().iter().zip(&mut sums) {
            for phase in ORDER {
                add(component, phase, &row, above, reference, residuals, &mut sums[phase]);
                residuals = &residuals[component[phase].len..];
            }
        }
    }
    for sums in &sums[..lanes.components().len()] {
        for lane in sums {
            let solved = solve(&lane.0);
            out.extend(solved[..weights(task.reference.is_some())].iter().map(|w| (w * 64.0).round() as i8));
        }
    }
}

/// Adds the products of a lane, whose residuals are the first of those.
#[inline(always)]
fn add<S: Linear, const M: usize>(
    component: &[Lane; 4],
    phase: usize,
    row: &[S],
    above: &[S],
    reference: Option<(&[S], &[S])>,
    residuals: &[S],
    sums: &mut Sums<M>,
) {
    let lane = component[phase];
    let whole = lane.len / WHOLE * WHOLE;
    if whole == 0 {
        return;
    }
    let mut sum = 0;
    for residuals in residuals[..lane.len].chunks(PAD) {
        sum += u64::from(residuals.iter().fold(0, |sum: u32, v| sum + u32::from(v.to_u16())));
    }
    let mean = sum / lane.len as u64;
    let (limit, down) = ((2 * mean + 2).min(u16::MAX.into()) as u16, (mean | 1).ilog2().saturating_sub(5));
    let near = near(component, phase, row, above);
    let far = reference.map(|(same, up)| far(component, phase, same, up));
    for start in (0..whole).step_by(TOGETHER) {
        let mut features = [[0i16; TOGETHER]; M];
        let mut counts = [0i16; TOGETHER];
        for at in (start..whole.min(start + TOGETHER)).step_by(PAD) {
            let to = at - start;
            let base = chunk(near.base, at);
            for (feature, other) in features.iter_mut().zip(near.others) {
                differences(chunk(other, at), base, down, &mut feature[to..]);
            }
            if let Some([same, up, left, right]) = far
                && M == REFERRING + 1
            {
                differences(chunk(same, at), base, down, &mut features[ALONE][to..]);
                differences(chunk(up, at), base, down, &mut features[ALONE + 1][to..]);
                let (left, right, mut mean) = (chunk(left, at), chunk(right, at), [S::default(); PAD]);
                for i in 0..PAD {
                    mean[i] = left[i].avg(right[i]);
                }
                differences(&mean, base, down, &mut features[ALONE + 2][to..]);
            }
            differences(chunk(&row[lane.start..], at), base, down, &mut features[M - 1][to..]);
            let residuals = chunk(residuals, at);
            for i in 0..PAD {
                counts[to + i] = -i16::from(residuals[i].to_u16() <= limit);
            }
        }
        counts[TOGETHER.min(whole - start)..].fill(0);
        for a in 0..M - 1 {
            let mut masked = features[a];
            for i in 0..TOGETHER {
                masked[i] &= counts[i];
            }
            for b in a..M {
                sums.0[a][b] += i64::from(product(&masked, &features[b]));
            }
        }
    }
}

#[inline(always)]
fn chunk<S>(samples: &[S], at: usize) -> &[S; PAD] {
    samples[at..].first_chunk().unwrap_or_else(|| unreachable!("beyond the end of a lane there are as many"))
}

#[inline(always)]
fn differences<S: Linear>(samples: &[S; PAD], base: &[S; PAD], down: u32, out: &mut [i16]) {
    for ((sample, base), out) in samples.iter().zip(base).zip(out) {
        *out = sample.difference(*base, down);
    }
}

#[inline(always)]
fn product(a: &[i16; TOGETHER], b: &[i16; TOGETHER]) -> i32 {
    a.iter().zip(b).fold(0, |sum, (&a, &b)| sum + i32::from(a) * i32::from(b))
}

/// Solves the normal equations; a little is added to the diagonal, so that there is always one solution.
fn solve<const M: usize>(sums: &[[i64; M]; M]) -> [f64; M] {
    let n = M - 1;
    let mut m = [[0.0; M]; M];
    for a in 0..n {
        for b in 0..M {
            m[a][b] = sums[a.min(b)][a.max(b)] as f64;
        }
        m[a][a] += 1.0 + m[a][a] / 4096.0;
    }
    for i in 0..n {
        for k in i + 1..n {
            let factor = m[k][i] / m[i][i];
            for c in i..M {
                m[k][c] -= factor * m[i][c];
            }
        }
    }
    let mut out = [0.0; M];
    for i in (0..n).rev() {
        let rest: f64 = (i + 1..n).map(|c| m[i][c] * out[c]).sum();
        out[i] = (m[i][n] - rest) / m[i][i];
    }
    out
}

/// Samples beyond a row's that a trial has room for.
pub(crate) const SLACK: usize = 2 * PAD;
