//! Residuals to symbols: those of words are cut into buckets, and what they have below is stored as it is.

use super::super::bits::{BitReader, BitWriter};
use super::linear::Linear;

/// Samples whose residuals are coded so.
pub(crate) trait Bucket: Linear {
    /// Most bits that are stored as they are.
    const MOST_LOW: u32;
    /// Bytes of an escaped bucket.
    const BYTES: usize;

    /// The bucket of a residual and its lowest bits.
    fn cut(self, low: u32) -> (Self, u16);
    /// The reverse.
    fn join(self, bits: u16, low: u32) -> Self;
    /// The symbol, or the escape where there is none.
    fn symbol(self) -> u8;
    fn from_symbol(symbol: u8) -> Self;
    fn put(self, out: &mut Vec<u8>);
    fn get(bytes: &mut &[u8]) -> Option<Self>;
}

impl Bucket for u8 {
    const MOST_LOW: u32 = 0;
    const BYTES: usize = 1;

    #[inline(always)]
    fn cut(self, _: u32) -> (u8, u16) {
        (self, 0)
    }

    #[inline(always)]
    fn join(self, _: u16, _: u32) -> u8 {
        self
    }

    #[inline(always)]
    fn symbol(self) -> u8 {
        self
    }

    #[inline(always)]
    fn from_symbol(symbol: u8) -> u8 {
        symbol
    }

    fn put(self, out: &mut Vec<u8>) {
        out.push(self);
    }

    fn get(bytes: &mut &[u8]) -> Option<u8> {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        Some(*first)
    }
}

/// Buckets are about differences with their sign: bucket 0 reaches from -half to half.
impl Bucket for u16 {
    const MOST_LOW: u32 = 12;
    const BYTES: usize = 2;

    #[inline(always)]
    fn cut(self, low: u32) -> (u16, u16) {
        let moved = signed(self).wrapping_add(half(low));
        (unsigned(moved >> low), moved as u16 & ((1 << low) - 1))
    }

    #[inline(always)]
    fn join(self, bits: u16, low: u32) -> u16 {
        unsigned((signed(self) << low | bits as i16).wrapping_sub(half(low)))
    }

    #[inline(always)]
    fn symbol(self) -> u8 {
        self.min(255) as u8
    }

    #[inline(always)]
    fn from_symbol(symbol: u8) -> u16 {
        symbol.into()
    }

    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn get(bytes: &mut &[u8]) -> Option<u16> {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(u16::from_le_bytes(*first))
    }
}

#[inline(always)]
fn half(low: u32) -> i16 {
    (1 << low) >> 1
}

#[inline(always)]
fn signed(residual: u16) -> i16 {
    ((residual >> 1) ^ 0u16.wrapping_sub(residual & 1)) as i16
}

#[inline(always)]
fn unsigned(difference: i16) -> u16 {
    (difference << 1 ^ difference >> 15) as u16
}

/// Residuals cut together, by vectors.
const TOGETHER: usize = 32;

/// The lowest bits of four residuals at a time, in words.
type Fours = [u64; TOGETHER / 4];

/// Turns residuals into their buckets, and puts their lowest bits.
#[inline(always)]
pub(crate) fn cut<S: Bucket>(residuals: &mut [S], low: u32, bits: &mut BitWriter, to: &mut [u8]) {
    let (whole, rest) = residuals.as_chunks_mut();
    for residuals in whole {
        for four in cut_together(residuals, low) {
            bits.put(to, four, 4 * low);
        }
    }
    let mut last = [S::default(); TOGETHER];
    last[..rest.len()].copy_from_slice(rest);
    let fours = cut_together(&mut last, low);
    rest.copy_from_slice(&last[..rest.len()]);
    let mut left = rest.len() as u32 * low;
    for four in fours {
        let count = left.min(4 * low);
        bits.put(to, four & ((1 << count) - 1), count);
        left -= count;
    }
}

/// The reverse.
#[inline(always)]
pub(crate) fn join<S: Bucket>(buckets: &mut [S], low: u32, bits: &mut BitReader<'_>) {
    let (whole, rest) = buckets.as_chunks_mut();
    for buckets in whole {
        let mut fours = [0; TOGETHER / 4];
        for four in &mut fours {
            *four = bits.peek();
            bits.skip(4 * low);
        }
        join_together(buckets, low, &fours);
    }
    let mut fours = [0; TOGETHER / 4];
    for (four, buckets) in fours.iter_mut().zip(rest.chunks(4)) {
        *four = bits.peek();
        bits.skip(buckets.len() as u32 * low);
    }
    let mut last = [S::default(); TOGETHER];
    last[..rest.len()].copy_from_slice(rest);
    join_together(&mut last, low, &fours);
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Every second number of 16 bits.
const EVEN: u64 = 0x0000_ffff_0000_ffff;

// Loops, as closures would not have the instructions that their callers have.
#[inline(always)]
fn cut_together<S: Bucket>(residuals: &mut [S; TOGETHER], low: u32) -> Fours {
    let mut below = [0; TOGETHER];
    for i in 0..TOGETHER {
        (residuals[i], below[i]) = residuals[i].cut(low);
    }
    let mut fours = [0; TOGETHER / 4];
    for (four, [a, b, c, d]) in fours.iter_mut().zip(below.as_chunks::<4>().0) {
        let apart = u64::from(*a) | u64::from(*b) << 16 | u64::from(*c) << 32 | u64::from(*d) << 48;
        let pairs = apart & EVEN | (apart >> 16 & EVEN) << low;
        *four = pairs & u64::from(u32::MAX) | pairs >> 32 << (2 * low);
    }
    fours
}

#[inline(always)]
fn join_together<S: Bucket>(buckets: &mut [S; TOGETHER], low: u32, fours: &Fours) {
    let (one, two) = ((1u64 << low) - 1, (1u64 << (2 * low)) - 1);
    let mut below = [0; TOGETHER];
    for (below, &four) in below.as_chunks_mut::<4>().0.iter_mut().zip(fours) {
        let pairs = four & two | (four >> (2 * low) & two) << 32;
        let apart = pairs & (one | one << 32) | (pairs >> low & (one | one << 32)) << 16;
        *below = [apart as u16, (apart >> 16) as u16, (apart >> 32) as u16, (apart >> 48) as u16];
    }
    for i in 0..TOGETHER {
        buckets[i] = buckets[i].join(below[i], low);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_bits_of_any_number_of_residuals_come_back_in_order() {
        for low in 1..=u16::MOST_LOW {
            for len in 0..100 {
                let residuals: Vec<u16> = (0..len).map(|i| ((i as u32 * 40_503) >> 3) as u16).collect();
                let (mut buckets, mut bytes, mut writer) =
                    (residuals.clone(), vec![0; 2 * len + 8], BitWriter::default());
                cut(&mut buckets, low, &mut writer, &mut bytes);
                let bytes = &bytes[..writer.len()];
                assert_eq!(bytes.len(), (len * low as usize).div_ceil(8));
                let mut one = BitReader::new(bytes);
                for (residual, bucket) in residuals.iter().zip(&buckets) {
                    assert_eq!(residual.cut(low), (*bucket, one.peek() as u16 & ((1 << low) - 1)), "{low} {len}");
                    one.skip(low);
                }
                let mut all = BitReader::new(bytes);
                join(&mut buckets, low, &mut all);
                assert_eq!(buckets, residuals, "{low} {len}");
                assert_eq!(all.bytes(), bytes.len());
            }
        }
    }

    #[test]
    fn every_residual_comes_back() {
        for low in 0..=u16::MOST_LOW {
            for residual in 0..=u16::MAX {
                let (bucket, bits) = residual.cut(low);
                assert_eq!(bucket.join(bits, low), residual, "{residual} {low}");
            }
        }
    }
}
