//! The weights of [`super::linear`] that suit a stripe: least squares over a quarter of its rows, without the
//! samples that a plain prediction misses by far. Those are edges; what is to be coded well is all the rest.

#![expect(clippy::needless_range_loop, reason = "rows and columns of matrices")]

use super::lanes::{Lane, ORDER, PAD};
use super::linear::{ALONE, Linear, REFERRING, far, near, weights};
use super::predict::{self, Forward, Mode};
use super::rows::Task;

/// Of so many rows one is looked at.
const EVERY: usize = 4;

/// Samples worked on together.
const WIDE: usize = 8;

/// Chunks after which sums are moved to wider ones: 2^11 squared, 2^6 times, fits 31 bits.
const CHUNKS: usize = 64;

/// Most that a difference counts.
const MOST: i32 = 2047;

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
                let of_lane;
                (of_lane, residuals) = residuals.split_at(component[phase].len);
                add(component, phase, &row, above, reference, of_lane, &mut sums[phase]);
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

/// Adds the products of a lane.
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
    let n = lane.len / WIDE;
    if n == 0 {
        return;
    }
    let mean = residuals.iter().map(|v| u64::from(v.to_u16())).sum::<u64>() / residuals.len() as u64;
    let (limit, down) = (2 * mean as i32 + 2, (mean | 1).ilog2().saturating_sub(5));
    let near = near(component, phase, row, above);
    let far = reference.map(|(same, up)| far(component, phase, same, up));
    let chunks = |s| -> &[[S; WIDE]] { <[S]>::as_chunks(s).0 };
    let (base, target, residuals) = (chunks(near.base), chunks(&row[lane.start..]), chunks(residuals));
    let others = near.others.map(chunks);
    let far = far.map(|f| f.map(chunks));
    let mut acc = [[[0i32; WIDE]; M]; M];
    for i in 0..n {
        let mut features = [[0i32; WIDE]; M];
        let base = base[i].map(|s| i32::from(s.to_u16()));
        let difference = |s: [S; WIDE]| -> [i32; WIDE] {
            std::array::from_fn(|j| ((i32::from(s[j].to_u16()) - base[j]) >> down).clamp(-MOST, MOST))
        };
        for (feature, other) in features.iter_mut().zip(others) {
            *feature = difference(other[i]);
        }
        if let Some([same, up, left, right]) = far
            && M == REFERRING + 1
        {
            features[ALONE] = difference(same[i]);
            features[ALONE + 1] = difference(up[i]);
            features[ALONE + 2] = difference(std::array::from_fn(|j| left[i][j].avg(right[i][j])));
        }
        features[M - 1] = difference(target[i]);
        let counts: [i32; WIDE] = std::array::from_fn(|j| -i32::from(i32::from(residuals[i][j].to_u16()) <= limit));
        for a in 0..M - 1 {
            let masked: [i32; WIDE] = std::array::from_fn(|j| features[a][j] & counts[j]);
            for b in a..M {
                for j in 0..WIDE {
                    acc[a][b][j] += masked[j] * features[b][j];
                }
            }
        }
        if i % CHUNKS == CHUNKS - 1 || i == n - 1 {
            for a in 0..M - 1 {
                for b in a..M {
                    sums.0[a][b] += acc[a][b].iter().map(|&v| i64::from(v)).sum::<i64>();
                }
            }
            acc = [[[0; WIDE]; M]; M];
        }
    }
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
