//! The fast kind of stripe: several GB/s a core, both ways.
//!
//! A stripe is worked on as one run of bytes, whatever the rows in it: each is predicted from what lies a fixed
//! distance *back*, which is the row above, or from the reference. So every prediction is parallel, and no row's end
//! needs care. Residuals are sorted by component into *blocks* of 64, and of each block the lowest bits are stored as
//! fields of one width, what is above them in unary: one mask says which of the 64 quotients are at least 1, the next
//! which *of those* are at least 2, up to 4. The few that are larger, where it pays, are stored apart. A block takes a few vector and word operations, and hardly a branch that
//! depends on a sample. Work goes by chunks in short passes, so that a processor has several blocks in work at a
//! time.
//!
//! | file | story |
//! | --- | --- |
//! | [`kernel`], [`portable`], [`avx2`], [`avx512`] | vectors of 64 bytes |
//! | [`unary`], [`bmi2`] | quotients to masks and back, on any processor and with BMI2 |
//! | [`predict`] | samples to differences and back |
//! | [`sort`] | differences to residuals and back |
//! | [`codes`] | the widths of blocks |
//! | [`exceptions`] | what is too large for its block |
//! | [`encode`], [`decode`] | stripes to bytes and back |

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
mod bmi2;
mod codes;
pub(crate) mod decode;
pub(crate) mod encode;
mod exceptions;
mod kernel;
pub(crate) mod portable;
mod predict;
mod sort;
mod unary;

use std::collections::TryReserveError;

use super::picture::{Pattern, Plane};
use kernel::BYTES;
pub(crate) use kernel::Kernel;

/// Residuals of a block.
const BLOCK: usize = 64;

/// Bytes of a stripe that share a mode. Units of all shapes divide it.
const CHUNK: usize = 4096;

/// Bytes to either side of the place above that predictions look at, at most.
const MARGIN: usize = 8;

/// The least distance back: a vector is predicted from whole ones before it.
const LEAST_BACK: usize = BYTES + MARGIN;

/// Bytes before the codes: how many there are of them, and of masks.
const SIZES: usize = 2 + 4;

/// What a chunk is predicted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Mode {
    /// The sample above: exact repeats, drawn pictures.
    Above = 0,
    /// The mean of it and its neighbours, which has less noise: photographs.
    Smooth = 1,
    /// The shared reference: what does not move.
    Reference = 2,
    /// The mean of the last two.
    Both = 3,
}

impl Mode {
    const ALL: [Mode; 4] = [Mode::Above, Mode::Smooth, Mode::Reference, Mode::Both];

    fn of(number: u8) -> Option<Mode> {
        Mode::ALL.into_iter().find(|&m| m as u8 == number)
    }

    fn needs_reference(self) -> bool {
        matches!(self, Mode::Reference | Mode::Both)
    }
}

/// How many components a unit is sorted into, and their samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A unit of 64 bytes, one block.
    Single,
    /// 128 bytes: those at even places, those at odd ones.
    Pairs,
    /// 256 bytes, by turns in four blocks.
    Quads,
    /// 64 words, one block.
    Words,
}

/// Where the samples lie that others are predicted from, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    back: usize,
    /// After so many bytes components repeat.
    period: usize,
}

impl Geometry {
    fn of(plane: &Plane) -> Geometry {
        let period = match plane.pattern {
            // Of luma every other sample: its neighbours share more noise with it, where a camera has demosaiced it.
            Pattern::LumaFirst | Pattern::ChromaFirst => 4,
            Pattern::Components(n) => usize::from(n) * if plane.wide { 2 } else { 1 },
        };
        let above = plane.up * plane.row_bytes;
        Geometry { back: above * LEAST_BACK.div_ceil(above), period }
    }

    /// Where the first vector starts that has all that it is predicted from in the stripe.
    #[inline(always)]
    fn head(&self) -> usize {
        (self.back + MARGIN).next_multiple_of(BYTES)
    }
}

impl Shape {
    /// The shape of a plane's units.
    pub(crate) fn of(plane: &Plane) -> Shape {
        match plane.pattern {
            _ if plane.wide => Shape::Words,
            Pattern::Components(4) => Shape::Quads,
            Pattern::Components(2) | Pattern::LumaFirst | Pattern::ChromaFirst => Shape::Pairs,
            Pattern::Components(_) => Shape::Single,
        }
    }
}

/// A stripe of a plane, and the reference's samples of the same place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task<'a> {
    pub plane: &'a Plane,
    pub reference: Option<&'a [u8]>,
}

/// Most bytes that a stripe of so many takes before it is known that it takes too many: its modes and codes, and fields and
/// masks as large as their room.
pub(crate) fn most_bytes(stripe: usize) -> usize {
    SIZES + stripe / CHUNK + 1 + most_codes(stripe) + 2 * most_room(stripe)
}

/// Of one stripe, most bytes of codes. No unit has more than 256 bytes.
fn most_codes(stripe: usize) -> usize {
    stripe / BLOCK + 256 / BLOCK
}

/// As many bytes of fields, or of masks, as blocks ever have, and what a store beyond the last one writes.
fn most_room(stripe: usize) -> usize {
    stripe.next_multiple_of(4 * BYTES) + BYTES
}

/// Room for `len` bytes in all.
pub(crate) fn reserve(room: &mut Vec<u8>, len: usize) -> Result<(), TryReserveError> {
    room.try_reserve(len.saturating_sub(room.len()))
}

/// Blocks of so many bytes.
fn blocks(bytes: usize, vectors: usize, wide: bool) -> usize {
    let units = bytes.div_ceil(vectors * BYTES);
    if wide { units } else { units * vectors }
}

/// The low bits of each residual of a block whose largest one this is: as few as quotients of 4 at most allow.
#[inline(always)]
fn low_bits(most: u32) -> u32 {
    u32::BITS - (most / 5).leading_zeros()
}
