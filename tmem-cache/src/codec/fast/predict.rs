//! Units to residuals and back.
//!
//! `N` is the vectors of a unit; see [`super::Shape`].

use super::kernel::{BYTES, Kernel};
use super::{Geometry, MARGIN, Mode};

/// What a vector's samples are likely to be. `rows` is the stripe from its start, of which all before the unit is known;
/// `at` is the vector's place, not in the head. `reference` is there where the mode needs it.
#[inline(always)]
pub(super) fn above<K: Kernel, const N: usize, const WIDE: bool>(
    kernel: K,
    geometry: &Geometry,
    mode: Mode,
    rows: &[u8],
    at: usize,
    reference: &[u8; BYTES],
) -> K::Vector {
    if mode == Mode::Reference {
        return kernel.load(reference);
    }
    let window = &rows[at - geometry.back - MARGIN..][..BYTES + 2 * MARGIN];
    let same = kernel.load(part(window, MARGIN));
    if mode == Mode::Above {
        return same;
    }
    let [even, odd] = geometry.beside.map(|beside| beside.min(MARGIN));
    let mut left = kernel.load(part(window, MARGIN - even));
    let mut right = kernel.load(part(window, MARGIN + even));
    if N == 2 && !WIDE {
        left = kernel.mix(left, kernel.load(part(window, MARGIN - odd)));
        right = kernel.mix(right, kernel.load(part(window, MARGIN + odd)));
    }
    let smooth = kernel.avg::<WIDE>(same, kernel.avg::<WIDE>(left, right));
    if mode == Mode::Both { kernel.avg::<WIDE>(smooth, kernel.load(reference)) } else { smooth }
}

/// A vector's worth of bytes from there.
#[inline(always)]
pub(super) fn part(bytes: &[u8], at: usize) -> &[u8; BYTES] {
    bytes[at..].first_chunk().unwrap_or_else(|| unreachable!("whole units are worked on"))
}

/// As [`part`], to be written.
#[inline(always)]
pub(super) fn part_mut(bytes: &mut [u8], at: usize) -> &mut [u8; BYTES] {
    bytes[at..].first_chunk_mut().unwrap_or_else(|| unreachable!("whole units are worked on"))
}

/// Differences of a unit to residuals, by component; words stay where they are.
#[inline(always)]
pub(super) fn sort<K: Kernel, const N: usize, const WIDE: bool>(kernel: K, unit: [K::Vector; N]) -> [K::Vector; N] {
    let mut v = unit;
    if !WIDE && N == 2 {
        (v[0], v[1]) = kernel.split(v[0], v[1]);
    }
    if N == 4 {
        let (first, second) = kernel.split(v[0], v[1]);
        let (third, fourth) = kernel.split(v[2], v[3]);
        (v[0], v[2]) = kernel.split(first, third);
        (v[1], v[3]) = kernel.split(second, fourth);
    }
    for v in &mut v {
        *v = kernel.zigzag::<WIDE>(*v);
    }
    v
}

/// The reverse.
#[inline(always)]
pub(super) fn unsort<K: Kernel, const N: usize, const WIDE: bool>(kernel: K, unit: [K::Vector; N]) -> [K::Vector; N] {
    let mut v = unit;
    for v in &mut v {
        *v = kernel.unzigzag::<WIDE>(*v);
    }
    if !WIDE && N == 2 {
        (v[0], v[1]) = kernel.join(v[0], v[1]);
    }
    if N == 4 {
        let (first, third) = kernel.join(v[0], v[2]);
        let (second, fourth) = kernel.join(v[1], v[3]);
        (v[0], v[1]) = kernel.join(first, second);
        (v[2], v[3]) = kernel.join(third, fourth);
    }
    v
}
