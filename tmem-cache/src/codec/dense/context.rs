//! Which distribution a symbol is of: told by the symbols around it, of which the decoder has those of earlier lanes and
//! of the row above. No symbol of a lane is the context of another one of it, so that lanes are worked on as a whole.

use super::lanes::{Lane, PAD};
use super::predict::{part, sides, span};

/// Contexts of a set.
pub(crate) const CONTEXTS: usize = 16;

/// Sets of contexts of a component: lane 0, and the others.
pub(crate) const SETS: usize = 2;

/// The least metric of each context.
const LEAST: [u8; CONTEXTS] = [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181];

/// The context of each metric.
pub(crate) const OF: [u8; 256] = {
    let mut of = [0; 256];
    let mut metric = 0;
    while metric < 256 {
        let mut context = CONTEXTS - 1;
        while LEAST[context] as usize > metric {
            context -= 1;
        }
        of[metric] = context as u8;
        metric += 1;
    }
    of
};

/// What is known of nothing: the metric of lane 0 where there is no row above.
const UNKNOWN: u8 = 255;

/// The metric of each symbol of a lane, from symbols that lie like samples in `row` and `above`. Those beyond a lane are 0.
/// Writes up to [`PAD`] more than the lane has.
#[inline(always)]
pub(crate) fn metrics(component: &[Lane; 4], phase: usize, row: &[u8], above: Option<&[u8]>, out: &mut [u8]) {
    let lane = component[phase];
    let [left, right] = sides(component, phase);
    let beside = |row, side| part::<u8>(row, side, lane.len);
    let out = &mut out[..lane.len.next_multiple_of(PAD)];
    match above {
        None if phase == 0 => out.fill(UNKNOWN),
        None => {
            let (l, r) = (beside(row, left), beside(row, right));
            sum([l, l, r, r], out);
        }
        Some(above) if phase == 2 => {
            let [one, three] = [component[1], component[3]].map(|lane| beside(above, (lane, 0)));
            sum([beside(row, left), beside(row, right), one, three], out);
        }
        Some(above) => {
            let near = if phase == 0 { above } else { row };
            let up = span(above, lane, 0);
            sum([beside(near, left), beside(near, right), up, up], out);
        }
    }
}

#[inline(always)]
fn sum(four: [&[u8]; 4], out: &mut [u8]) {
    let [a, b, c, d] = four.map(|s| s.as_chunks::<PAD>().0);
    for ((((out, a), b), c), d) in out.as_chunks_mut::<PAD>().0.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        for i in 0..PAD {
            out[i] = a[i].saturating_add(b[i]).saturating_add(c[i]).saturating_add(d[i]);
        }
    }
}

/// Symbols of the row in work and the two above, taken apart as samples are, with zeros beyond the lanes.
#[derive(Debug, Default)]
pub(crate) struct Ring([Vec<u8>; 3]);

impl Ring {
    pub fn clear(&mut self, size: usize) {
        for row in &mut self.0 {
            row.clear();
            row.resize(size, 0);
        }
    }

    /// The row to work on, and the one above of the same colours.
    pub fn turn(&mut self, row: usize, up: usize) -> (&mut [u8], Option<&[u8]>) {
        let [a, b, c] = &mut self.0;
        let (now, one, two) = match row % 3 {
            0 => (a, c, b),
            1 => (b, a, c),
            _ => (c, b, a),
        };
        let above = if up == 1 { one } else { two };
        (now, (row >= up).then_some(above.as_slice()))
    }
}
