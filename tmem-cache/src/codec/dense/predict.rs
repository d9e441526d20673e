//! Prediction: what a sample is likely to be, from samples that the decoder already has.
//!
//! Every prediction is parallel along a lane (see [`super::lanes`]), but for the first lane of a stripe's first row.

use super::lanes::{Lane, Lanes, ORDER, PAD, ends};
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
    fn step<S: Sample>(sample: &mut S, residual: &mut S, prediction: S);

    #[inline(always)]
    fn chunk<S: Sample>(samples: &mut [S; PAD], residuals: &mut [S; PAD], predictions: &[S; PAD]) {
        let (mut x, mut r) = (*samples, *residuals);
        for i in 0..PAD {
            Self::step(&mut x[i], &mut r[i], predictions[i]);
        }
        (*samples, *residuals) = (x, r);
    }
}

/// Samples to residuals.
pub(crate) struct Forward;

/// Residuals to samples.
pub(crate) struct Back;

impl Way for Forward {
    #[inline(always)]
    fn step<S: Sample>(sample: &mut S, residual: &mut S, prediction: S) {
        *residual = sample.residual(prediction);
    }
}

impl Way for Back {
    #[inline(always)]
    fn step<S: Sample>(sample: &mut S, residual: &mut S, prediction: S) {
        *sample = residual.restore(prediction);
    }
}

/// Steps along a lane: `samples` and `residuals` may be longer than the inputs, which all have the same length, a
/// multiple of [`PAD`].
macro_rules! run {
    ($way:ident, $samples:ident, $residuals:ident, [$($input:ident),+] => $prediction:expr) => {{
        let n = [$($input.len()),+][0];
        let (samples, _) = $samples[..n].as_chunks_mut::<PAD>();
        let (residuals, _) = $residuals[..n].as_chunks_mut::<PAD>();
        $(let ($input, _) = $input[..n].as_chunks::<PAD>();)+
        for chunk in 0..n / PAD {
            // Copies, so that the compiler need not ask whether what is written is read again.
            $(let $input = $input[chunk];)+
            let mut predictions = [S::default(); PAD];
            for i in 0..PAD {
                $(let $input = $input[i];)+
                predictions[i] = $prediction;
            }
            $way::chunk(&mut samples[chunk], &mut residuals[chunk], &predictions);
        }
    }};
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
                    (Mode::Reference, _, Some(r)) => {
                        let t = span(r, lane, 0);
                        run!(W, rest, residuals, [t] => t);
                    }
                    (Mode::Both, _, Some(r)) => place.between::<W>(above, Some(span(r, lane, 0)), rest, residuals),
                    (Mode::Above, Some(above), _) => {
                        let a = span(above, lane, 0);
                        run!(W, rest, residuals, [a] => a);
                    }
                    _ => place.between::<W>(above, None, rest, residuals),
                }
                at += lane.len;
            }
            right_edge(component, lane, row);
        }
        left_edges(component, row);
    }
}

/// The sample that stands for what lies beyond the right end of a lane; lanes that follow look at it.
#[inline(always)]
pub(super) fn right_edge<S: Sample>(component: &[Lane; 4], lane: Lane, row: &mut [S]) {
    if let Some((_, last)) = ends(component, row) {
        row[lane.start + lane.len] = last;
    }
}

/// The samples that stand for what lies beyond the left end of lanes.
#[inline(always)]
pub(super) fn left_edges<S: Sample>(component: &[Lane; 4], row: &mut [S]) {
    if let Some((first, _)) = ends(component, row) {
        row[component[2].start - 1] = first;
        row[component[3].start - 1] = first;
    }
}

/// The samples of a lane, up to the next multiple of [`PAD`], `shift` further to the right.
#[inline(always)]
pub(super) fn span<S>(row: &[S], lane: Lane, shift: isize) -> &[S] {
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
    #[inline(always)]
    fn between<W: Way>(&self, above: Option<&[S]>, reference: Option<&[S]>, rest: &mut [S], residuals: &mut [S]) {
        let lane = self.component[self.phase];
        let [left, right] = sides(self.component, self.phase);
        let beside = |row| (part(row, left, lane.len), part(row, right, lane.len));
        if self.phase == 0 {
            match (above, reference) {
                (None, None) => {
                    let mut before = S::default();
                    for (sample, residual) in rest[..lane.len].iter_mut().zip(residuals) {
                        W::step(sample, residual, before);
                        before = *sample;
                    }
                }
                (None, Some(t)) => run!(W, rest, residuals, [t] => t),
                (Some(above), None) => {
                    let (a, (al, ar)) = (span(above, lane, 0), beside(above));
                    run!(W, rest, residuals, [a, al, ar] => a.avg(al.avg(ar)));
                }
                (Some(above), Some(t)) => {
                    let (a, (al, ar)) = (span(above, lane, 0), beside(above));
                    run!(W, rest, residuals, [a, al, ar, t] => a.avg(al.avg(ar)).avg(t));
                }
            }
            return;
        }
        let (l, r) = beside(self.before);
        match (above, reference) {
            (None, None) => run!(W, rest, residuals, [l, r] => l.avg(r)),
            (None, Some(t)) => run!(W, rest, residuals, [l, r, t] => l.avg(r).avg(t)),
            (Some(above), None) => {
                let (a, (al, ar)) = (span(above, lane, 0), beside(above));
                run!(W, rest, residuals, [l, r, a, al, ar] => slope(l, r, a, al, ar));
            }
            (Some(above), Some(t)) => {
                let (a, (al, ar)) = (span(above, lane, 0), beside(above));
                run!(W, rest, residuals, [l, r, a, al, ar, t] => slope(l, r, a, al, ar).avg(t));
            }
        }
    }
}

/// Neighbours left and right: lane and shift of each. Lane 0 has none in its own row.
#[inline(always)]
pub(super) fn sides(component: &[Lane; 4], phase: usize) -> [(Lane, isize); 2] {
    let [l0, l1, l2, l3] = *component;
    match phase {
        0 => [(l3, -1), (l1, 0)],
        1 => [(l0, 0), (l2, 0)],
        2 => [(l0, 0), (l0, 1)],
        _ => [(l2, 0), (l0, 1)],
    }
}

/// As many samples as a lane of `len` has, from another one.
#[inline(always)]
pub(super) fn part<S>(row: &[S], (lane, shift): (Lane, isize), len: usize) -> &[S] {
    span(row, Lane { start: lane.start, len }, shift)
}

/// The mean of the neighbours, and of what the row above says lies between them.
#[inline(always)]
fn slope<S: Sample>(l: S, r: S, a: S, al: S, ar: S) -> S {
    let g = l.avg(r);
    g.avg(a.slope(g, al.avg(ar)))
}
