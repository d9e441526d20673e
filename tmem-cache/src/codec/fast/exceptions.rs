//! Residuals of bytes that their block's fields are too narrow for. One of 200 among 63 small ones would make all 64
//! fields wide; as an *exception* it is stored apart, with its number, and its field is 0. Where most residuals of a block
//! are 0 and the others large, as at the edges of drawn pictures, all of these are exceptions.

use super::super::bits::MOST;
use super::kernel::{BYTES, Kernel};

/// The least code of blocks with exceptions: of one that has no fields and a list of exceptions. Those of the next codes
/// have fields of 1 to [`WIDEST`] bits, too.
pub(super) const LISTED: u8 = 9;

/// The widest fields of a block with exceptions.
const WIDEST: u32 = 4;

/// The code of a block that has no fields, and a mask of exceptions.
const MASKED: u8 = LISTED + WIDEST as u8 + 1;

/// In a list: an exception with another one after it.
const MORE: u8 = 64;

/// Exceptions from which on a mask is shorter than a list.
const MANY: u32 = 9;

/// Bits that exceptions must save in a block: less is not worth the time they take.
const WIN: u32 = 40;

/// Where more quotients than these are not 0, and more residuals than those, exceptions would not save that.
const MOST_ABOVE: u32 = 8;
const MOST_MASKED: u32 = 40;

/// Bits of fields that a block with exceptions has, by its code; and nothing of other blocks.
#[inline(always)]
pub(super) fn width(code: u8) -> u8 {
    if code < MASKED { code.saturating_sub(LISTED) } else { 0 }
}

/// True where a block has exceptions.
#[inline(always)]
pub(super) fn has(code: u8) -> bool {
    code >= LISTED
}

/// How a block is cut into fields and exceptions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pub code: u8,
    /// The least exception.
    pub least: u8,
    exceptions: u64,
}

/// What takes the fewest bits, if that is [`WIN`] less than the block has without exceptions, whose fields have `k` + 1.
#[inline(always)]
pub(super) fn choose<K: Kernel>(kernel: K, v: K::Vector, k: u32) -> Option<Choice> {
    let all = kernel.reach(v, 1);
    let above = kernel.reach(v, 1 << k).count_ones();
    if above > MOST_ABOVE && all.count_ones() > MOST_MASKED {
        return None;
    }
    let mut bits = BYTES as u32 * (k + 1) + above - WIN;
    let mut choice = None;
    let n = all.count_ones();
    let (code, bytes) = if n < MANY { (LISTED, 2 * n) } else { (MASKED, 8 + n) };
    if 8 * bytes < bits {
        bits = 8 * bytes;
        choice = Some(Choice { code, least: 1, exceptions: all });
    }
    for width in 1..=WIDEST.min(k) {
        // The quotients of what is left are 4 at most.
        let one = 1 << (width - 1);
        let exceptions = kernel.reach(v, 5 * one);
        let n = exceptions.count_ones();
        let size = BYTES as u32 * width + 16 * n;
        if size >= bits {
            continue;
        }
        let first = kernel.reach(v, one).count_ones() - n;
        let others = kernel.reach(v, 2 * one).count_ones() + kernel.reach(v, 3 * one).count_ones() - 2 * n;
        let size = size + first + others;
        if size < bits && first.max(others) <= MOST {
            bits = size;
            choice = Some(Choice { code: LISTED + width as u8, least: 5 * one, exceptions });
        }
    }
    choice
}

impl Choice {
    /// Appends the exceptions among a block's residuals.
    #[inline(always)]
    pub fn put(self, residuals: &[u8; BYTES], out: &mut Vec<u8>) {
        let listed = self.code != MASKED;
        if !listed {
            out.extend_from_slice(&self.exceptions.to_le_bytes());
        }
        let mut rest = self.exceptions;
        while rest != 0 {
            let number = rest.trailing_zeros() as usize % BYTES;
            rest &= rest - 1;
            if listed {
                out.push(number as u8 | if rest > 0 { MORE } else { 0 });
            }
            out.push(residuals[number]);
        }
    }
}

/// A stripe's exceptions, as they are stored.
#[derive(Debug)]
pub(super) struct Exceptions<'a>(pub &'a [u8]);

impl Exceptions<'_> {
    /// Puts those of a block among the differences of its unit, of which it is the `component`-th block.
    ///
    /// # Errors
    /// There are none left, or one has a number that no residual has.
    #[inline(always)]
    pub fn take<const N: usize>(
        &mut self,
        code: u8,
        unit: &mut [[u8; BYTES]; N],
        component: usize,
    ) -> Result<(), &'static str> {
        const SHORT: &str = "it has fewer exceptions than its codes say";
        let unit = unit.as_flattened_mut();
        let mut put = |number: u8, residual: u8| {
            unit[place::<N>(usize::from(number)) * N + component] = residual >> 1 ^ 0u8.wrapping_sub(residual & 1);
        };
        if code == MASKED {
            let (mask, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
            let mut mask = u64::from_le_bytes(*mask);
            let (residuals, rest) = rest.split_at_checked(mask.count_ones() as usize).ok_or(SHORT)?;
            self.0 = rest;
            for &residual in residuals {
                put(mask.trailing_zeros() as u8, residual);
                mask &= mask - 1;
            }
            return Ok(());
        }
        loop {
            let [number, residual, rest @ ..] = self.0 else { return Err(SHORT) };
            self.0 = rest;
            if *number >= 2 * MORE {
                return Err("it has an exception of no block");
            }
            put(number % MORE, *residual);
            if *number < MORE {
                return Ok(());
            }
        }
    }
}

/// The place in a block of the residual of that number, as [`super::sort`] leaves them.
#[inline(always)]
fn place<const N: usize>(number: usize) -> usize {
    match N {
        2 => number & 0b100111 | (number & 8) << 1 | (number & 16) >> 1,
        4 => number & 0b100011 | (number & 0b1100) << 1 | (number & 16) >> 2,
        _ => number % BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::super::portable::Portable;
    use super::super::sort::{sort, unsort};
    use super::*;

    fn come_back<const N: usize>() {
        // So many large ones, and the others up to a small number.
        for (large, smalls) in [(1, 0..9), (2, 0..9), (5, 0..9), (8, 0..9), (9, 0..1), (40, 0..1)] {
            for small in smalls {
                let mut unit = [[0; BYTES]; N];
                for i in 0..large * N {
                    unit.as_flattened_mut()[(i * 29 + 7) % (N * BYTES)] = 100 + (i % 100) as u8;
                }
                for (i, v) in unit.as_flattened_mut().iter_mut().enumerate().filter(|(_, v)| **v == 0) {
                    *v = (i % 7 % (small + 1)) as u8;
                }
                let sorted = sort::<_, N>(Portable, unit);
                let (mut codes, mut bytes, mut rest) = ([0; N], Vec::new(), sorted);
                for component in 0..N {
                    let choice = choose(Portable, sorted[component], 6).unwrap();
                    choice.put(&sorted[component], &mut bytes);
                    codes[component] = choice.code;
                    rest[component] = Portable.below(sorted[component], choice.least);
                }
                let mut back = unsort::<_, N>(Portable, rest);
                let mut exceptions = Exceptions(&bytes);
                for (component, code) in codes.into_iter().enumerate() {
                    exceptions.take(code, &mut back, component).unwrap();
                }
                assert!(exceptions.0.is_empty());
                assert_eq!(back, unit, "{N} {large} {small}");
            }
        }
    }

    #[test]
    fn exceptions_come_back() {
        come_back::<1>();
        come_back::<2>();
        come_back::<4>();
    }

    #[test]
    fn exceptions_that_are_not_there_are_refused() {
        let masked = [3, 0, 0, 0, 0, 0, 0, 0, 9];
        for (code, bytes) in
            [(LISTED, &[][..]), (LISTED, &[1]), (LISTED, &[65, 9]), (LISTED, &[128, 9]), (MASKED, &masked)]
        {
            let mut unit = [[0; BYTES]];
            assert!(Exceptions(bytes).take(code, &mut unit, 0).is_err(), "{code} {bytes:?}");
        }
    }
}
