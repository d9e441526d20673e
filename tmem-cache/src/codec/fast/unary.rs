//! Quotients to masks and back on any processor, eight residuals at a time by tables.
//!
//! A mask has bits only where the one before it has some. So there are three cases for each residual, and 3^8 for eight,
//! few enough for a table in the processor's first cache.

use super::super::bits::BitReader;
use super::kernel::{BYTES, Masks};

/// A byte of a mask, as it is looked up.
#[derive(Debug, Clone, Copy)]
struct Eight {
    /// Its bits as digits to the base of 3. With those of a byte that has some of its bits, one number says both.
    ternary: u32,
    count: u32,
}

/// A byte of a mask, as it is filled.
#[derive(Debug, Clone, Copy)]
struct Sieve {
    /// Where [`DEPOSIT`] has the bytes that it is filled to.
    start: u16,
    /// As many ones as the mask has.
    low: u8,
    count: u8,
}

/// A power of two, so that no place needs to be checked, is more than 3^8.
const CASES: usize = 1 << 13;

static EIGHTS: [Eight; 256] = {
    let mut out = [Eight { ternary: 0, count: 0 }; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut bit, mut digit) = (0, 1);
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                out[byte].ternary += digit;
                out[byte].count += 1;
            }
            digit *= 3;
            bit += 1;
        }
        byte += 1;
    }
    out
};

static SIEVES: [Sieve; 256] = {
    let mut out = [Sieve { start: 0, low: 0, count: 0 }; 256];
    let (mut mask, mut start) = (0, 0);
    while mask < 256 {
        let count = EIGHTS[mask].count as u8;
        out[mask] = Sieve { start, low: ((1u16 << count) - 1) as u8, count };
        start += 1 << count;
        mask += 1;
    }
    out
};

/// Bits moved together, by the sum of both bytes' [`Eight::ternary`].
static EXTRACT: [u8; CASES] = {
    let mut out = [0; CASES];
    let mut mask = 0;
    while mask < 256 {
        let mut bits = 0;
        while bits <= SIEVES[mask].low as usize {
            let value = deposited(bits, mask);
            out[(EIGHTS[mask].ternary + EIGHTS[value].ternary) as usize] = bits as u8;
            bits += 1;
        }
        mask += 1;
    }
    out
};

/// Bits moved to where a mask has ones, by [`Sieve::start`] and the bits.
static DEPOSIT: [u8; CASES] = {
    let mut out = [0; CASES];
    let mut mask = 0;
    while mask < 256 {
        let mut bits = 0;
        while bits <= SIEVES[mask].low as usize {
            out[SIEVES[mask].start as usize + bits] = deposited(bits, mask) as u8;
            bits += 1;
        }
        mask += 1;
    }
    out
};

/// Eight bits, one in each byte.
static SPREAD: [u64; 256] = {
    let mut out = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            out[byte] |= (byte as u64 >> bit & 1) << (8 * bit);
            bit += 1;
        }
        byte += 1;
    }
    out
};

const fn deposited(mut bits: usize, mask: usize) -> usize {
    let (mut bit, mut out) = (0, 0);
    while bit < 8 {
        if mask >> bit & 1 == 1 {
            out |= (bits & 1) << bit;
            bits >>= 1;
        }
        bit += 1;
    }
    out
}

/// Which of 64 residuals have quotients of at least 1, 2, 3 and 4.
pub(crate) type Levels = [[u8; 8]; 4];

/// The masks of these levels.
#[inline(always)]
pub(super) fn masks(levels: &Levels) -> Masks {
    let (first, n1) = extract(&levels[1], &levels[0]);
    let (second, n2) = extract(&levels[2], &levels[1]);
    let (third, n3) = if levels[2] == [0; 8] { (0, 0) } else { extract(&levels[3], &levels[2]) };
    Masks { words: [first, second | third.wrapping_shl(n2)], counts: [n1, n2 + n3] }
}

/// Not inlined: three at a time, what each has in registers is too much for these.
#[inline(never)]
fn extract(values: &[u8; 8], masks: &[u8; 8]) -> (u64, u32) {
    let (mut word, mut count) = (0, 0);
    for (value, mask) in values.iter().zip(masks) {
        let mask = &EIGHTS[usize::from(*mask)];
        let case = mask.ternary + EIGHTS[usize::from(*value)].ternary;
        word |= u64::from(EXTRACT[case as usize % CASES]).wrapping_shl(count);
        count += mask.count;
    }
    (word, count)
}

/// See [`super::kernel::Kernel::raise`].
#[inline(always)]
pub(super) fn raise(first: u64, masks: &mut BitReader<'_>, one: u8, fields: &mut [u8; BYTES]) {
    let mut second = [0; 8];
    masks.skip(deposit(&first.to_le_bytes(), masks.peek(), &mut second));
    masks.skip(later(&second, masks.peek(), one, fields));
}

/// As [`raise`], from the second level on, by a word that begins with the masks that are left. How many bits these have.
#[inline(never)]
fn later(second: &[u8; 8], word: u64, one: u8, fields: &mut [u8; BYTES]) -> u32 {
    const LOW: u64 = 0x7f * SPREAD[255];
    let (mut third, mut fourth) = ([0; 8], [0; 8]);
    let n = deposit(second, word, &mut third);
    let count = n + deposit(&third, word.wrapping_shr(n), &mut fourth);
    // What a byte has too much for it goes into the lowest bits of the next one.
    let keep = u64::from(0u8.wrapping_sub(one)) * SPREAD[255];
    for (i, eight) in fields.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let [a, b, c] = [second[i], third[i], fourth[i]].map(|level| SPREAD[usize::from(level)]);
        let (x, y) = (u64::from_le_bytes(*eight), (a + b + c).wrapping_mul(one.into()) & keep);
        // Bytes by themselves: the highest bit of each without its carry.
        *eight = (((x & LOW) + (y & LOW)) ^ ((x ^ y) & !LOW)).to_le_bytes();
    }
    count
}

#[inline(always)]
fn deposit(masks: &[u8; 8], mut word: u64, out: &mut [u8; 8]) -> u32 {
    let mut count = 0;
    for (mask, out) in masks.iter().zip(out) {
        let sieve = &SIEVES[usize::from(*mask)];
        *out = DEPOSIT[(usize::from(sieve.start) + usize::from(word as u8 & sieve.low)) % CASES];
        word = word.wrapping_shr(sieve.count.into());
        count += u32::from(sieve.count);
    }
    count
}
