//! Prediction: what a sample is likely to be, from samples that the decoder already has.
//!
//! Every prediction is parallel along a lane (see [`super::lanes`]), but for the first lane of a stripe's first row.

use super::lanes::{Lane, Lanes, ORDER, PAD};
use super::sample::Sample;

/// What a group of rows is predicted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// The row above: exact repeats, drawn pictures.
    Above = 0,
    /// Neighbours on both sides and the slope above: photographs.
    Between = 1,
    /// The shared reference: what does not move.
    Reference = 2,
    /// The mean of the last two.
    Both = 3,
}

impl Mode {
    pub const ALL: [Mode; 4] = [Mode::Above, Mode::Between, Mode::Reference, Mode::Both];

    pub fn of(number: u8) -> Option<Mode> {
        Mode::ALL.into_iter().find(|&m| m as u8 == number)
    }

    pub fn needs_reference(self) -> bool {
        matches!(self, Mode::Reference | Mode::Both)
    }
}

/// Turns samples and predictions into residuals, or residuals and predictions into samples.
pub(crate) trait Way {
    /// `samples` and `residuals` may be longer than `inputs`, which all have the same length, a multiple of [`PAD`].
    fn run<S: Sample, const N: usize>(
        samples: &mut [S],
        residuals: &mut [S],
        inputs: [&[S]; N],
        predict: impl Fn([S; N]) -> S,
    );

    /// Each sample is predicted from the one before it, the first from `before`.
    fn chain<S: Sample>(samples: &mut [S], residuals: &mut [S], before: S);
}

/// Samples to residuals.
pub(crate) struct Forward;

/// Residuals to samples.
pub(crate) struct Back;

macro_rules! each {
    ($samples:ident, $residuals:ident, $inputs:ident, |$x:ident, $r:ident, $p:ident| $step:expr, $predict:ident) => {{
        let n = $inputs.iter().map(|i| i.len()).min().unwrap_or(0);
        let inputs = $inputs.map(|i| i[..n].as_chunks::<PAD>().0);
        let samples = $samples[..n].as_chunks_mut::<PAD>().0;
        let residuals = $residuals[..n].as_chunks_mut::<PAD>().0;
        for (chunk, ($x, $r)) in samples.iter_mut().zip(residuals).enumerate() {
            let inputs = inputs.map(|i| &i[chunk]);
            for i in 0..PAD {
                let $p = $predict(inputs.map(|v| v[i]));
                let ($x, $r) = (&mut $x[i], &mut $r[i]);
                $step;
            }
        }
    }};
}

impl Way for Forward {
    #[inline(always)]
    fn run<S: Sample, const N: usize>(
        samples: &mut [S],
        residuals: &mut [S],
        inputs: [&[S]; N],
        predict: impl Fn([S; N]) -> S,
    ) {
        each!(samples, residuals, inputs, |x, r, p| *r = x.residual(p), predict);
    }

    #[inline(always)]
    fn chain<S: Sample>(samples: &mut [S], residuals: &mut [S], mut before: S) {
        for (x, r) in samples.iter().zip(residuals) {
            *r = x.residual(before);
            before = *x;
        }
    }
}

impl Way for Back {
    #[inline(always)]
    fn run<S: Sample, const N: usize>(
        samples: &mut [S],
        residuals: &mut [S],
        inputs: [&[S]; N],
        predict: impl Fn([S; N]) -> S,
    ) {
        each!(samples, residuals, inputs, |x, r, p| *x = r.restore(p), predict);
    }

    #[inline(always)]
    fn chain<S: Sample>(samples: &mut [S], residuals: &mut [S], mut before: S) {
        for (x, r) in samples.iter_mut().zip(residuals) {
            *x = r.restore(before);
            before = *x;
        }
    }
}

/// One row to residuals or back. The residuals of all lanes lie one after the other in the order of coding; `residuals`
/// has [`PAD`] more than the row's. In `row` and `above` every lane has a sample before and after it; going back, those
/// of `row` are set here. `reference` is there where the mode needs it.
#[inline(always)]
pub(crate) fn row<W: Way, S: Sample>(
    lanes: &Lanes,
    mode: Mode,
    row: &mut [S],
    above: Option<&[S]>,
    reference: Option<&[S]>,
    residuals: &mut [S],
) {
    let mut at = 0;
    for component in lanes.components() {
        for phase in ORDER {
            let lane = component[phase];
            if lane.len > 0 {
                let residuals = &mut residuals[at..];
                let (before, rest) = row.split_at_mut(lane.start);
                let place = Place { component, phase, before };
                match (mode, above, reference) {
                    (Mode::Reference, _, Some(r)) => W::run(rest, residuals, [span(r, lane, 0)], |[t]| t),
                    (Mode::Both, _, Some(r)) => place.between::<W>(above, Some(span(r, lane, 0)), rest, residuals),
                    (Mode::Above, Some(above), _) => W::run(rest, residuals, [span(above, lane, 0)], |[a]| a),
                    _ => place.between::<W>(above, None, rest, residuals),
                }
                at += lane.len;
            }
            // The sample that stands for what lies beyond the right edge; lanes that follow look at it.
            let first = component[0];
            if first.len > 0 {
                row[lane.start + lane.len] = row[first.start + first.len - 1];
            }
        }
        if component[0].len > 0 {
            row[component[3].start - 1] = row[component[0].start];
        }
    }
}

/// The samples of a lane, up to the next multiple of [`PAD`], `shift` further to the right.
#[inline(always)]
fn span<S>(row: &[S], lane: Lane, shift: isize) -> &[S] {
    let start = lane.start.wrapping_add_signed(shift);
    &row[start..start + lane.len.next_multiple_of(PAD)]
}

/// A lane and those before it.
struct Place<'a, S> {
    component: &'a [Lane; 4],
    phase: usize,
    before: &'a [S],
}

impl<S: Sample> Place<'_, S> {
    /// Neighbours left and right: lane and shift of each. Lane 0 has none in its own row.
    #[inline(always)]
    fn sides(&self) -> [(Lane, isize); 2] {
        let [l0, l1, l2, l3] = *self.component;
        match self.phase {
            0 => [(l3, -1), (l1, 0)],
            1 => [(l0, 0), (l2, 0)],
            2 => [(l0, 0), (l0, 1)],
            _ => [(l2, 0), (l0, 1)],
        }
    }

    #[inline(always)]
    fn between<W: Way>(&self, above: Option<&[S]>, reference: Option<&[S]>, rest: &mut [S], residuals: &mut [S]) {
        let lane = self.component[self.phase];
        // As many as this lane has, from whatever lane.
        let of = |row, (l, shift): (Lane, isize)| span(row, Lane { start: l.start, len: lane.len }, shift);
        let [left, right] = self.sides();
        match (self.phase, above, reference) {
            (0, None, None) => W::chain(&mut rest[..lane.len], residuals, S::default()),
            (0, None, Some(t)) => W::run(rest, residuals, [t], |[t]| t),
            (0, Some(above), None) => {
                let inputs = [of(above, (lane, 0)), of(above, left), of(above, right)];
                W::run(rest, residuals, inputs, |[a, al, ar]| a.avg(al.avg(ar)));
            }
            (0, Some(above), Some(t)) => {
                let inputs = [of(above, (lane, 0)), of(above, left), of(above, right), t];
                W::run(rest, residuals, inputs, |[a, al, ar, t]| a.avg(al.avg(ar)).avg(t));
            }
            (_, None, None) => {
                W::run(rest, residuals, [of(self.before, left), of(self.before, right)], |[l, r]| l.avg(r));
            }
            (_, None, Some(t)) => {
                let inputs = [of(self.before, left), of(self.before, right), t];
                W::run(rest, residuals, inputs, |[l, r, t]| l.avg(r).avg(t));
            }
            (_, Some(above), None) => {
                let (b, l) = (self.before, (lane, 0));
                let inputs = [of(b, left), of(b, right), of(above, l), of(above, left), of(above, right)];
                W::run(rest, residuals, inputs, slope);
            }
            (_, Some(above), Some(t)) => {
                let (b, l) = (self.before, (lane, 0));
                let inputs = [of(b, left), of(b, right), of(above, l), of(above, left), of(above, right), t];
                W::run(rest, residuals, inputs, |[l, r, a, al, ar, t]| slope([l, r, a, al, ar]).avg(t));
            }
        }
    }
}

/// The mean of the neighbours, and of what the row above says lies between them.
#[inline(always)]
fn slope<S: Sample>([l, r, a, al, ar]: [S; 5]) -> S {
    let g = l.avg(r);
    g.avg(a.slope(g, al.avg(ar)))
}
