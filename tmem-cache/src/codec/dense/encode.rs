//! One stripe to bytes.

use super::super::bits::BitWriter;
use super::context::{self, CONTEXTS, Ring, SETS};
use super::fit::{self, SLACK};
use super::lanes::{ORDER, PAD};
use super::linear;
use super::predict::{self, Forward, Mode};
use super::rans::{Chosen, Models, Symbols, Writer};
use super::rows::BLOCK;
use super::rows::{Task, estimate};
use super::{Bucket, LINEAR, MODES, bucket};

/// Room for a stripe's samples.
#[derive(Debug, Default)]
pub(crate) struct Rows<S> {
    /// All rows, taken apart.
    rows: Vec<S>,
    row: Vec<S>,
    spare: Vec<S>,
    /// Residuals, later buckets, in the order of coding.
    residuals: Vec<S>,
    trial: Vec<S>,
}

/// Room that does not depend on the samples' type.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    weights: Vec<i8>,
    modes: Vec<u8>,
    ring: Ring,
    /// The metrics of a lane.
    metrics: Vec<u8>,
    /// Contexts and symbols, in the order of coding.
    cells: Vec<u16>,
    /// How often each cell of a set occurs.
    counts: Vec<[u32; CELLS]>,
    /// Half a MiB, for which the fast tier has no use.
    models: Option<Models>,
    writer: Writer,
    /// Which symbols are escaped.
    escaped: Vec<u32>,
    low: Vec<u8>,
}

/// A symbol in each of the contexts of a set.
const CELLS: usize = CONTEXTS << 8;

/// Appends the coded stripe to `out`, and says whether the fast tier may come to fewer bytes: see [`doubtful`].
#[inline(always)]
pub(crate) fn encode<S: Bucket, W: Symbols>(
    way: W,
    task: &Task<'_, S>,
    samples: &[u8],
    rows: &mut Rows<S>,
    shared: &mut Shared,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    residuals(task, samples, rows, shared);
    let (lanes, n) = (task.lanes, task.lanes.samples());
    let components = lanes.components().len();
    let Shared { weights, modes, ring, metrics, cells, counts, models, writer, escaped, low } = shared;
    let models = models.get_or_insert_default();
    let Rows { residuals, .. } = rows;

    out.extend_from_slice(modes);
    if modes.contains(&LINEAR) {
        out.extend(weights.iter().map(|&w| w as u8));
    }
    let low_bits = low_bits(task, residuals);
    out.extend(low_bits[..components].iter().map(|&l| l as u8));

    let mut bits = BitWriter::default();
    low.resize(task.rows * (2 * n + 8 * 4 * components) + 8, 0);
    metrics.resize(n + PAD, 0);
    cells.resize(task.rows * n, 0);
    counts.clear();
    counts.resize(components * SETS, [0; CELLS]);
    ring.clear(lanes.size());
    let mut at = 0;
    for y in 0..task.rows {
        let (row, above) = ring.turn(y, task.plane.up);
        let mut of_row = at;
        for (component, &low_bits) in lanes.components().iter().zip(&low_bits) {
            for phase in ORDER {
                let lane = component[phase];
                let residuals = &mut residuals[of_row..of_row + lane.len];
                of_row += lane.len;
                if low_bits > 0 {
                    bucket::cut(residuals, low_bits, &mut bits, low);
                }
                let symbols = &mut row[lane.start..lane.start + lane.len];
                symbols.iter_mut().zip(residuals).for_each(|(symbol, v)| *symbol = v.symbol());
            }
        }
        let from = at;
        for component in lanes.components() {
            for phase in ORDER {
                let lane = component[phase];
                context::metrics(component, phase, row, above, metrics);
                let cells = &mut cells[at..at + lane.len];
                at += lane.len;
                way.cells(&metrics[..lane.len], &row[lane.start..lane.start + lane.len], cells);
            }
        }
        // Once they are all stored: those just stored are not loaded at once.
        let mut cells = &cells[from..at];
        for (component, counts) in lanes.components().iter().zip(counts.chunks_exact_mut(SETS)) {
            for phase in ORDER {
                let here;
                (here, cells) = cells.split_at(component[phase].len);
                let counts = &mut counts[usize::from(phase > 0)];
                here.iter().for_each(|&cell| counts[usize::from(cell) % CELLS] += 1);
            }
        }
    }

    let (mut chosen, mut zeros) = ([Chosen::default(); 4 * SETS], 0);
    for (chosen, counts) in chosen.iter_mut().zip(&*counts) {
        let at = out.len();
        out.extend_from_slice(&[0; 2]);
        let mut used = 0u16;
        // No closure, which would not have the instructions that this function has.
        for (context, counts) in counts.as_chunks::<256>().0.iter().enumerate() {
            zeros += counts[0];
            if let Some(model) = models.best(way, counts, S::BYTES) {
                (chosen.models[context], chosen.limits[context]) = (model, models.limit(model));
                used |= 1 << context;
                out.push(model);
            }
        }
        out[at..at + 2].copy_from_slice(&used.to_le_bytes());
    }

    escaped.clear();
    let (mut rest, mut number) = (cells.as_mut_slice(), 0);
    for _ in 0..task.rows {
        for (component, chosen) in lanes.components().iter().zip(chosen.chunks(SETS)) {
            for phase in ORDER {
                let cells;
                (cells, rest) = rest.split_at_mut(component[phase].len);
                way.choose(&chosen[usize::from(phase > 0)], cells, number, escaped);
                number += cells.len();
            }
        }
    }
    writer.begin(cells.len());
    for _ in 0..task.rows {
        for component in lanes.components().iter().rev() {
            for phase in ORDER.into_iter().rev() {
                let range = at - component[phase].len..at;
                at = range.start;
                way.put(writer, models.shares(), &cells[range]);
            }
        }
    }

    out.extend_from_slice(&((escaped.len() * S::BYTES) as u32).to_le_bytes());
    out.extend_from_slice(&(bits.len() as u32).to_le_bytes());
    for &place in &*escaped {
        residuals[place as usize].put(out);
    }
    out.extend_from_slice(&low[..bits.len()]);
    out.extend(writer.states.iter().flat_map(|state| state.to_le_bytes()));
    out.extend_from_slice(writer.words());
    let zeros = if low_bits.iter().any(|&low| low > 0) { zeros as usize } else { 0 };
    let bytes = out.len() - start;
    bytes >= samples.len() || doubtful(bytes, cells.len(), zeros, escaped.len())
}

/// Samples of a stripe beside which its models and states are little.
const LARGE: usize = 8192;

/// Whether the fast tier may be the better one for a stripe of so many samples that takes so many bytes: where it is small or
/// takes few bits a sample, so that models and states weigh; where many buckets are 0, though low bits are stored with them,
/// so that residuals are not alike; or where many symbols are escaped, so that they are not as models have them.
///
/// That is measured, not proven: a picture can be drawn that one tier predicts exactly and the other does not. Of the sets
/// that bench/data/make makes, the largest loss is 0.03 %; of photographs one stripe in twenty is in doubt.
fn doubtful(bytes: usize, samples: usize, zeros: usize, escaped: usize) -> bool {
    samples < LARGE || 16 * bytes < 3 * samples || 4 * zeros > samples || 256 * escaped > samples
}

/// All residuals of the stripe, and the mode of each group.
#[inline(always)]
fn residuals<S: Bucket>(task: &Task<'_, S>, samples: &[u8], room: &mut Rows<S>, shared: &mut Shared) {
    let (lanes, n, size) = (task.lanes, task.lanes.samples(), task.lanes.size());
    let Rows { rows, row, spare, residuals, trial } = room;
    rows.resize(task.rows * size, S::default());
    row.resize(n, S::default());
    spare.resize(2 * n, S::default());
    residuals.resize(task.rows * n + SLACK, S::default());
    trial.resize(n + BLOCK + SLACK, S::default());
    for (bytes, into) in samples.chunks_exact(task.plane.row_bytes).zip(rows.chunks_exact_mut(size)) {
        lanes.split(S::load(bytes, row), into, spare);
    }
    let Shared { weights, modes, .. } = shared;
    fit::fit(task, rows, trial, weights);
    modes.clear();
    for y in 0..task.rows {
        let (before, rest) = rows.split_at_mut(y * size);
        let now = &mut rest[..size];
        let above = y.checked_sub(task.plane.up).map(|y| &before[y * size..][..size]);
        let reference = task.reference(y);
        let both = task.reference(y).zip(y.checked_sub(task.plane.up).and_then(|y| task.reference(y)));
        let residuals = &mut residuals[y * n..];
        let group = task.group(y);
        let mut best = (usize::MAX, Mode::Between as u8);
        // The first row of a group is predicted by all modes, to choose one; then, as all rows, by the one chosen.
        // Both in one place, as every mode has code of its own for every kind of lane.
        let mut number = if group == modes.len() { 0 } else { MODES };
        loop {
            let mode = if number < MODES { number } else { modes[group] };
            let possible = match Mode::of(mode) {
                Some(Mode::Between) => true,
                Some(Mode::Reference | Mode::Both) => reference.is_some(),
                Some(Mode::Above) | None => above.is_some(),
            };
            match (Mode::of(mode), above) {
                _ if !possible => {}
                (None, Some(above)) => linear::row::<Forward, S>(lanes, weights, now, above, both, residuals),
                (mode, _) => {
                    let mode = mode.unwrap_or(Mode::Between);
                    predict::row::<Forward, S>(lanes, mode, now, above, reference, residuals);
                }
            }
            if number == MODES {
                break;
            }
            if possible {
                let cost = residuals[..n].chunks(BLOCK).map(estimate).sum();
                if cost < best.0 || cost == best.0 && mode == LINEAR {
                    best = (cost, mode);
                }
            }
            number += 1;
            if number == MODES {
                modes.push(best.1);
            }
        }
    }
}

/// The bits below the buckets of each component: so many that its mean residual is of bucket 8 to 15.
#[inline(always)]
fn low_bits<S: Bucket>(task: &Task<'_, S>, residuals: &[S]) -> [u32; 4] {
    let mut out = [0; 4];
    let mut first = 0;
    for (component, out) in task.lanes.components().iter().zip(&mut out) {
        let len: usize = component.iter().map(|lane| lane.len).sum();
        if S::MOST_LOW > 0 && len > 0 {
            let rows = residuals.chunks_exact(task.lanes.samples()).take(task.rows);
            let sum: u64 =
                rows.map(|row| row[first..first + len].iter().map(|v| u64::from(v.to_u16())).sum::<u64>()).sum();
            let mean = sum / (len * task.rows) as u64;
            *out = (mean.max(8).ilog2() - 3).min(S::MOST_LOW);
        }
        first += len;
    }
    out
}
