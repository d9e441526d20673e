//! The rows of a stripe in work, and what their residuals would cost.

use super::super::picture::Plane;
use super::lanes::{Lanes, PAD};
use super::sample::Sample;

/// Rows that share a mode.
const GROUP: usize = 8;

/// Residuals whose cost is estimated together.
pub(super) const BLOCK: usize = 64;

/// What a stripe is, apart from its samples.
#[derive(Debug)]
pub(crate) struct Task<'a, S> {
    pub plane: &'a Plane,
    pub lanes: &'a Lanes,
    /// Rows of the stripe.
    pub rows: usize,
    /// The reference's rows of the same stripe, taken apart.
    pub reference: Option<&'a [S]>,
}

impl<S> Task<'_, S> {
    pub(super) fn reference(&self, row: usize) -> Option<&[S]> {
        self.reference.map(|all| self.part(all, row))
    }

    /// A row of `rows`, which has all of the stripe's, taken apart.
    pub(super) fn part<'r>(&self, rows: &'r [S], row: usize) -> &'r [S] {
        &rows[row * self.lanes.size()..][..self.lanes.size()]
    }

    /// The group of a row. The first rows, which have nothing above them, are one by themselves.
    pub(super) fn group(&self, row: usize) -> usize {
        (row + GROUP - self.plane.up) / GROUP
    }

    pub(super) fn groups(&self) -> usize {
        self.group(self.rows - 1) + 1
    }
}

/// Room for the reference's rows of a stripe, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Apart<S> {
    rows: Vec<S>,
    row: Vec<S>,
    spare: Vec<S>,
}

impl<S: Sample> Apart<S> {
    /// Takes packed rows apart.
    pub(crate) fn take<'r>(&'r mut self, lanes: &Lanes, packed: &[u8], row_bytes: usize) -> &'r [S] {
        let Self { rows, row, spare } = self;
        rows.clear();
        row.resize(lanes.samples(), S::default());
        spare.resize(2 * lanes.samples(), S::default());
        for packed in packed.chunks_exact(row_bytes) {
            let at = rows.len();
            rows.resize(at + lanes.size(), S::default());
            lanes.split(S::load(packed, row), &mut rows[at..], spare);
        }
        rows
    }
}

/// Room for the rows of a stripe in work.
#[derive(Debug, Default)]
pub(crate) struct RowScratch<S> {
    /// The row in work and the two above, taken apart.
    ring: [Vec<S>; 3],
    row: Vec<S>,
    spare: Vec<S>,
    residuals: Vec<S>,
}

/// The room for one row.
pub(super) struct Turn<'a, S> {
    /// The row to work on, and the one above of the same colours, both taken apart.
    pub now: &'a mut [S],
    pub above: Option<&'a [S]>,
    pub row: &'a mut [S],
    pub spare: &'a mut [S],
    pub residuals: &'a mut [S],
}

impl<S: Sample> RowScratch<S> {
    pub(super) fn fit(&mut self, lanes: &Lanes) {
        let grow = |v: &mut Vec<S>, len| {
            if v.len() < len {
                v.resize(len, S::default());
            }
        };
        self.ring.iter_mut().for_each(|r| grow(r, lanes.size()));
        grow(&mut self.row, lanes.samples());
        grow(&mut self.spare, 2 * lanes.samples());
        grow(&mut self.residuals, lanes.samples() + 2 * PAD);
    }

    #[inline(always)]
    pub(super) fn turn(&mut self, row: usize, up: usize) -> Turn<'_, S> {
        let [a, b, c] = &mut self.ring;
        let (now, one, two) = match row % 3 {
            0 => (a, c, b),
            1 => (b, a, c),
            _ => (c, b, a),
        };
        let above = if up == 1 { one } else { two };
        let above = (row >= up).then_some(above.as_slice());
        let Self { row, spare, residuals, .. } = self;
        Turn { now, above, row, spare, residuals }
    }
}

/// About how many bits a block takes.
#[inline(always)]
pub(super) fn estimate<S: Sample>(block: &[S]) -> usize {
    let sum = block.iter().fold(0u32, |sum, &v| sum + u32::from(v.to_u16()));
    if sum == 0 {
        return 0;
    }
    let k = low_bits(sum);
    (BLOCK * (k as usize + 1)) + (sum >> k) as usize
}

/// Low bits to store as they are, from the sum of a block: Rice's rule, tuned on residuals of noisy photographs.
#[inline(always)]
fn low_bits(sum: u32) -> u32 {
    (((sum | 1) * 9 / 8 / BLOCK as u32) | 1).ilog2()
}
