//! A row taken apart: samples of one component and one column phase lie next to each other.
//!
//! Each component of a row is cut into four lanes by column: lane 0 has columns 0, 4, 8, …, lane 2 has 2, 6, …, lanes 1
//! and 3 the odd ones. Lane 2 is predicted from lane 0 on both sides of it, lanes 1 and 3 from lanes 0 and 2: most
//! samples have neighbours left and right, and yet each lane decodes at full vector width.

use super::super::picture::{Pattern, Plane};
use super::sample::Sample;

/// Samples before and after each lane. Vector loops may write beyond the end of a lane, up to the next multiple of this.
pub(crate) const PAD: usize = 32;

/// Most components of a row.
const COMPONENTS: usize = 4;

/// Where a lane lies in a row's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lane {
    /// First sample.
    pub start: usize,
    /// Samples.
    pub len: usize,
}

/// The four lanes of each component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lanes {
    pattern: Pattern,
    /// Samples of the row.
    samples: usize,
    components: usize,
    lanes: [[Lane; 4]; COMPONENTS],
    /// Samples of a row's buffer.
    size: usize,
}

/// The order in which lanes are coded: each after those that it is predicted from.
pub(crate) const ORDER: [usize; 4] = [0, 2, 1, 3];

impl Lanes {
    pub fn of(plane: &Plane) -> Lanes {
        let samples = plane.samples();
        let mut counts = [0; COMPONENTS];
        let components = match plane.pattern {
            Pattern::Components(n) => {
                let n = usize::from(n);
                for (c, count) in counts[..n].iter_mut().enumerate() {
                    *count = (samples + n - 1 - c) / n;
                }
                n
            }
            Pattern::LumaFirst | Pattern::ChromaFirst => {
                counts = [samples / 2, samples / 4, samples / 4, 0];
                3
            }
        };
        let mut lanes = [[Lane::default(); 4]; COMPONENTS];
        let mut next = PAD;
        for (component, count) in lanes.iter_mut().zip(counts).take(components) {
            for phase in ORDER {
                let len = (count + 3 - phase) / 4;
                component[phase] = Lane { start: next, len };
                next += len.next_multiple_of(PAD) + PAD;
            }
        }
        Lanes { pattern: plane.pattern, samples, components, lanes, size: next }
    }

    pub fn components(&self) -> &[[Lane; 4]] {
        &self.lanes[..self.components]
    }

    /// Samples of a row's buffer.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Samples of the row.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Takes a row apart. `spare` has room for two rows.
    #[inline(always)]
    pub fn split<S: Sample>(&self, row: &[S], into: &mut [S], spare: &mut [S]) {
        let row = &row[..self.samples];
        match self.pattern {
            Pattern::Components(1) => self.split_component(0, row, into),
            Pattern::Components(2) => {
                let (a, b) = spare.split_at_mut(self.samples.div_ceil(2));
                let b = &mut b[..self.samples / 2];
                split2(row, a, b);
                self.split_component(0, a, into);
                self.split_component(1, b, into);
            }
            Pattern::Components(3) => {
                let n = self.samples / 3;
                let (a, rest) = spare.split_at_mut(n);
                let (b, rest) = rest.split_at_mut(n);
                let c = &mut rest[..n];
                for (((x, a), b), c) in row.chunks_exact(3).zip(&mut *a).zip(&mut *b).zip(&mut *c) {
                    (*a, *b, *c) = (x[0], x[1], x[2]);
                }
                self.split_component(0, a, into);
                self.split_component(1, b, into);
                self.split_component(2, c, into);
            }
            Pattern::Components(_) | Pattern::LumaFirst | Pattern::ChromaFirst => {
                let n = self.samples / 4;
                let (a, rest) = spare.split_at_mut(n);
                let (b, rest) = rest.split_at_mut(n);
                let (c, rest) = rest.split_at_mut(n);
                let d = &mut rest[..n];
                split4(row, a, b, c, d);
                match self.pattern {
                    Pattern::LumaFirst => self.split_yuv(a, c, b, d, into),
                    Pattern::ChromaFirst => self.split_yuv(b, d, a, c, into),
                    Pattern::Components(_) => {
                        self.split_component(0, a, into);
                        self.split_component(1, b, into);
                        self.split_component(2, c, into);
                        self.split_component(3, d, into);
                    }
                }
            }
        }
        self.pad(into);
    }

    #[inline(always)]
    fn split_yuv<S: Sample>(&self, even: &[S], odd: &[S], u: &[S], v: &[S], into: &mut [S]) {
        let [l0, l1, l2, l3] = self.component_mut(0, into);
        split2(even, l0, l2);
        split2(odd, l1, l3);
        self.split_component(1, u, into);
        self.split_component(2, v, into);
    }

    #[inline(always)]
    fn split_component<S: Sample>(&self, component: usize, samples: &[S], into: &mut [S]) {
        let [l0, l1, l2, l3] = self.component_mut(component, into);
        split4(samples, l0, l1, l2, l3);
    }

    /// Puts a row together again.
    #[inline(always)]
    pub fn join<S: Sample>(&self, from: &[S], row: &mut [S], spare: &mut [S]) {
        let row = &mut row[..self.samples];
        match self.pattern {
            Pattern::Components(1) => self.join_component(0, from, row),
            Pattern::Components(2) => {
                let (a, b) = spare.split_at_mut(self.samples.div_ceil(2));
                let b = &mut b[..self.samples / 2];
                self.join_component(0, from, a);
                self.join_component(1, from, b);
                join2(a, b, row);
            }
            Pattern::Components(3) => {
                let n = self.samples / 3;
                let (a, rest) = spare.split_at_mut(n);
                let (b, rest) = rest.split_at_mut(n);
                let c = &mut rest[..n];
                self.join_component(0, from, a);
                self.join_component(1, from, b);
                self.join_component(2, from, c);
                for (((x, a), b), c) in row.chunks_exact_mut(3).zip(a).zip(b).zip(c) {
                    (x[0], x[1], x[2]) = (*a, *b, *c);
                }
            }
            Pattern::Components(_) | Pattern::LumaFirst | Pattern::ChromaFirst => {
                let n = self.samples / 4;
                let (a, rest) = spare.split_at_mut(n);
                let (b, rest) = rest.split_at_mut(n);
                let (c, rest) = rest.split_at_mut(n);
                let d = &mut rest[..n];
                match self.pattern {
                    Pattern::LumaFirst => self.join_yuv(from, a, c, b, d),
                    Pattern::ChromaFirst => self.join_yuv(from, b, d, a, c),
                    Pattern::Components(_) => {
                        self.join_component(0, from, a);
                        self.join_component(1, from, b);
                        self.join_component(2, from, c);
                        self.join_component(3, from, d);
                    }
                }
                join4(a, b, c, d, row);
            }
        }
    }

    #[inline(always)]
    fn join_yuv<S: Sample>(&self, from: &[S], even: &mut [S], odd: &mut [S], u: &mut [S], v: &mut [S]) {
        let [l0, l1, l2, l3] = self.component(0, from);
        join2(l0, l2, even);
        join2(l1, l3, odd);
        self.join_component(1, from, u);
        self.join_component(2, from, v);
    }

    #[inline(always)]
    fn join_component<S: Sample>(&self, component: usize, from: &[S], samples: &mut [S]) {
        let [l0, l1, l2, l3] = self.component(component, from);
        join4(l0, l1, l2, l3, samples);
    }

    #[inline(always)]
    fn component<'a, S>(&self, component: usize, row: &'a [S]) -> [&'a [S]; 4] {
        let [l0, l1, l2, l3] = self.lanes[component];
        let of = |lane: Lane| &row[lane.start..lane.start + lane.len];
        [of(l0), of(l1), of(l2), of(l3)]
    }

    #[inline(always)]
    fn component_mut<'a, S>(&self, component: usize, row: &'a mut [S]) -> [&'a mut [S]; 4] {
        // In the order in which they lie.
        let [l0, l1, l2, l3] = self.lanes[component];
        let (row, after) = row.split_at_mut(l3.start);
        let s3 = &mut after[..l3.len];
        let (row, after) = row.split_at_mut(l1.start);
        let s1 = &mut after[..l1.len];
        let (row, after) = row.split_at_mut(l2.start);
        [&mut row[l0.start..l0.start + l0.len], s1, &mut after[..l2.len], s3]
    }

    /// Gives every lane a sample before and after it.
    #[inline(always)]
    pub fn pad<S: Sample>(&self, row: &mut [S]) {
        for lanes in self.components() {
            let Some((first, last)) = ends(lanes, row) else { continue };
            for lane in lanes {
                row[lane.start + lane.len] = last;
            }
            row[lanes[2].start - 1] = first;
            row[lanes[3].start - 1] = first;
        }
    }
}

/// The first and last sample of lane 0, which stand for what lies beyond the row on either side.
#[inline(always)]
pub(crate) fn ends<S: Sample>(lanes: &[Lane; 4], row: &[S]) -> Option<(S, S)> {
    let lane = lanes[0];
    (lane.len > 0).then(|| (row[lane.start], row[lane.start + lane.len - 1]))
}

#[inline(always)]
fn split2<S: Sample>(from: &[S], a: &mut [S], b: &mut [S]) {
    let whole = from.len() / 2;
    for ((x, a), b) in from.chunks_exact(2).zip(&mut a[..whole]).zip(&mut b[..whole]) {
        (*a, *b) = (x[0], x[1]);
    }
    if from.len() % 2 == 1 {
        a[whole] = from[from.len() - 1];
    }
}

#[inline(always)]
fn join2<S: Sample>(a: &[S], b: &[S], to: &mut [S]) {
    let whole = to.len() / 2;
    for ((x, a), b) in to.chunks_exact_mut(2).zip(&a[..whole]).zip(&b[..whole]) {
        (x[0], x[1]) = (*a, *b);
    }
    if to.len() % 2 == 1 {
        to[whole * 2] = a[whole];
    }
}

#[inline(always)]
fn split4<S: Sample>(from: &[S], a: &mut [S], b: &mut [S], c: &mut [S], d: &mut [S]) {
    let whole = from.len() / 4;
    let (blocks, rest) = from.as_chunks::<4>();
    for ((((x, a), b), c), d) in
        blocks.iter().zip(&mut a[..whole]).zip(&mut b[..whole]).zip(&mut c[..whole]).zip(&mut d[..whole])
    {
        [*a, *b, *c, *d] = *x;
    }
    for (x, to) in rest.iter().zip([a, b, c]) {
        to[whole] = *x;
    }
}

#[inline(always)]
fn join4<S: Sample>(a: &[S], b: &[S], c: &[S], d: &[S], to: &mut [S]) {
    let whole = to.len() / 4;
    let (blocks, rest) = to.as_chunks_mut::<4>();
    for ((((x, a), b), c), d) in blocks.iter_mut().zip(&a[..whole]).zip(&b[..whole]).zip(&c[..whole]).zip(&d[..whole]) {
        *x = [*a, *b, *c, *d];
    }
    for (x, from) in rest.iter_mut().zip([a, b, c]) {
        *x = from[whole];
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Picture;
    use super::*;
    use shrbuf::{Format, Layout};

    #[test]
    fn a_row_taken_apart_is_put_together_again() {
        for format in Format::all() {
            for width in [1, 2, 3, 4, 5, 7, 31, 64, 133] {
                let picture = Picture::of(&Layout::linear(format, width, 1, 1).unwrap()).unwrap();
                for plane in picture.planes() {
                    let lanes = Lanes::of(plane);
                    let row: Vec<u16> = (0..lanes.samples() as u16).map(|i| i + 1).collect();
                    let mut apart = vec![0; lanes.size()];
                    let mut spare = vec![0; 2 * row.len()];
                    lanes.split(&row, &mut apart, &mut spare);
                    let counted: usize = lanes.components().iter().flatten().map(|l| l.len).sum();
                    assert_eq!(counted, row.len(), "{format} {width}");
                    let mut back = vec![0; row.len()];
                    lanes.join(&apart, &mut back, &mut spare);
                    assert_eq!(back, row, "{format} {width}");
                }
            }
        }
    }

    #[test]
    fn yuyv_lanes_are_columns_of_luma_and_chroma() {
        let picture = Picture::of(&Layout::linear(Format::Yuyv, 16, 1, 1).unwrap()).unwrap();
        let lanes = Lanes::of(&picture.planes()[0]);
        // Y0 U0 Y1 V0 …: luma is even, and its number is half of that.
        let row: Vec<u8> = (0..32).collect();
        let mut apart = vec![0; lanes.size()];
        lanes.split(&row, &mut apart, &mut [0; 64]);
        assert_eq!(lanes.component(0, &apart)[3], [6, 14, 22, 30]);
        assert_eq!(lanes.component(1, &apart)[1], [5, 21]);
        assert_eq!(lanes.component(2, &apart)[0], [3, 19]);
    }
}
