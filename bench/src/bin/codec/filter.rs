//! Delta filters, as users put them before general compressors: each byte as the difference to one before it.
//!
//! `Group` is the filter that the goals were set by. The others know the format: they take samples of 16 bits as such,
//! and store their low and high bytes apart.

use shrbuf_bench::sets::{Format, Set};

/// Which sample is subtracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The byte that is a whole group of samples earlier, as filters that know no more than that do it.
    Group,
    /// The nearest of the same component on the left.
    Left,
    /// The nearest of the same component above.
    Above,
}

impl Filter {
    /// For names of codecs.
    pub fn name(self) -> &'static str {
        match self {
            Filter::Group => "byte delta",
            Filter::Left => "delta",
            Filter::Above => "delta above",
        }
    }

    /// Filters a frame.
    pub fn apply(self, set: &Set, from: &[u8], to: &mut [u8]) {
        match (set.format, self) {
            (_, Filter::Group) => bytes(from, to, self.distance(set)),
            (Format::Rg12, _) => words(from, to, self.distance(set)),
            (Format::Yuyv, Filter::Left) => {
                let step = |b: &[u8; 4], a: &[u8; 4]| {
                    let y0 = b[0].wrapping_sub(a[2]);
                    [y0, b[1].wrapping_sub(a[1]), b[2].wrapping_sub(b[0]), b[3].wrapping_sub(a[3])]
                };
                let (from, to) = (from.as_chunks::<4>().0, to.as_chunks_mut::<4>().0);
                to[0] = step(&from[0], &[0; 4]);
                for (to, pair) in to[1..].iter_mut().zip(from.windows(2)) {
                    *to = step(&pair[1], &pair[0]);
                }
            }
            (Format::Nv12, Filter::Left) => {
                let luma = set.width * set.height;
                bytes(&from[..luma], &mut to[..luma], 1);
                bytes(&from[luma..], &mut to[luma..], 2);
            }
            _ => bytes(from, to, self.distance(set)),
        }
    }

    /// Undoes it.
    pub fn undo(self, set: &Set, from: &[u8], to: &mut [u8]) {
        match (set.format, self) {
            (Format::Nv12, Filter::Group) => undo_near::<2>(from, to),
            (Format::Grey, Filter::Group) => undo_near::<1>(from, to),
            (_, Filter::Group) => undo_near::<4>(from, to),
            (Format::Rg12, _) => undo_words(from, to, self.distance(set)),
            (Format::Yuyv, Filter::Left) => {
                let mut last = [0u8; 4];
                for (to, d) in to.as_chunks_mut::<4>().0.iter_mut().zip(from.as_chunks::<4>().0) {
                    let y0 = last[2].wrapping_add(d[0]);
                    last = [y0, last[1].wrapping_add(d[1]), y0.wrapping_add(d[2]), last[3].wrapping_add(d[3])];
                    *to = last;
                }
            }
            (Format::Nv12, Filter::Left) => {
                let luma = set.width * set.height;
                undo_near::<1>(&from[..luma], &mut to[..luma]);
                undo_near::<2>(&from[luma..], &mut to[luma..]);
            }
            (Format::Xr24, Filter::Left) => undo_near::<4>(from, to),
            (_, Filter::Left) => undo_near::<1>(from, to),
            (_, Filter::Above) => undo_far(from, to, self.distance(set)),
        }
    }

    /// Samples between the two, where that is the same all over the frame.
    fn distance(self, set: &Set) -> usize {
        match (self, set.format) {
            (Filter::Group, Format::Nv12) => 2,
            (Filter::Group, Format::Grey) => 1,
            (Filter::Group, _) | (Filter::Left, Format::Xr24) => 4,
            (Filter::Left, Format::Rg12) => 2,
            (Filter::Left, _) => 1,
            (Filter::Above, Format::Yuyv) => set.width * 2,
            (Filter::Above, Format::Xr24) => set.width * 4,
            // Two rows up is the same colour filter.
            (Filter::Above, Format::Rg12) => set.width * 2,
            (Filter::Above, Format::Nv12 | Format::Grey) => set.width,
        }
    }
}

fn bytes(from: &[u8], to: &mut [u8], distance: usize) {
    to[..distance].copy_from_slice(&from[..distance]);
    for ((to, b), a) in to[distance..].iter_mut().zip(&from[distance..]).zip(from) {
        *to = b.wrapping_sub(*a);
    }
}

/// By groups as long as the distance, each of which waits only for the one before.
fn undo_near<const DISTANCE: usize>(from: &[u8], to: &mut [u8]) {
    let mut last = [0u8; DISTANCE];
    for (to, d) in to.as_chunks_mut::<DISTANCE>().0.iter_mut().zip(from.as_chunks::<DISTANCE>().0) {
        for (last, d) in last.iter_mut().zip(d) {
            *last = last.wrapping_add(*d);
        }
        *to = last;
    }
}

/// By rows, each of which can be done at full width.
fn undo_far(from: &[u8], to: &mut [u8], distance: usize) {
    to[..distance].copy_from_slice(&from[..distance]);
    for at in (distance..to.len()).step_by(distance) {
        let (above, row) = to[at - distance..].split_at_mut(distance);
        for ((row, above), d) in row.iter_mut().zip(above).zip(&from[at..]) {
            *row = above.wrapping_add(*d);
        }
    }
}

fn words(from: &[u8], to: &mut [u8], distance: usize) {
    let from = from.as_chunks::<2>().0;
    let (low, high) = to.split_at_mut(from.len());
    for (i, word) in from[..distance].iter().enumerate() {
        [low[i], high[i]] = *word;
    }
    let (low, high) = (low[distance..].iter_mut(), high[distance..].iter_mut());
    for (((low, high), b), a) in low.zip(high).zip(&from[distance..]).zip(from) {
        [*low, *high] = u16::from_le_bytes(*b).wrapping_sub(u16::from_le_bytes(*a)).to_le_bytes();
    }
}

fn undo_words(from: &[u8], to: &mut [u8], distance: usize) {
    let to = to.as_chunks_mut::<2>().0;
    let (low, high) = from.split_at(to.len());
    for (word, (low, high)) in to[..distance].iter_mut().zip(low.iter().zip(high)) {
        *word = [*low, *high];
    }
    for at in (distance..to.len()).step_by(distance) {
        let (above, row) = to[at - distance..].split_at_mut(distance);
        for (((row, above), low), high) in row.iter_mut().zip(above).zip(&low[at..]).zip(&high[at..]) {
            *row = u16::from_le_bytes(*above).wrapping_add(u16::from_le_bytes([*low, *high])).to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use shrbuf_bench::sets::Kind;

    use super::*;

    #[test]
    fn undo_gives_back_what_apply_took_in_every_format() {
        for format in [Format::Yuyv, Format::Nv12, Format::Xr24, Format::Grey, Format::Rg12] {
            let (width, height) = (8, 6);
            let (scene, noise) = ("none".into(), "none".into());
            let set = Set { scene, kind: Kind::Random, noise, format, width, height, frames: 1, noise_bits: None };
            let frame: Vec<u8> = (0..set.frame_bytes()).map(|i| (i * 37 % 251) as u8).collect();
            for filter in [Filter::Group, Filter::Left, Filter::Above] {
                let (mut filtered, mut restored) = (vec![1; frame.len()], vec![1; frame.len()]);
                filter.apply(&set, &frame, &mut filtered);
                filter.undo(&set, &filtered, &mut restored);
                assert_eq!(restored, frame, "{format:?} {filter:?}");
            }
        }
    }
}
