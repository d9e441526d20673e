//! Residuals to symbols: those of words are cut into buckets, and what they have below is stored as it is.

use super::linear::Linear;

/// Samples whose residuals are coded so.
pub(crate) trait Bucket: Linear {
    /// Most bits that are stored as they are.
    const MOST_LOW: u32;
    /// Bytes of an escaped bucket.
    const BYTES: usize;

    /// The bucket of a residual and its lowest bits.
    fn cut(self, low: u32) -> (Self, u64);
    /// The reverse.
    fn join(self, bits: u64, low: u32) -> Self;
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
    fn cut(self, _: u32) -> (u8, u64) {
        (self, 0)
    }

    #[inline(always)]
    fn join(self, _: u64, _: u32) -> u8 {
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
    fn cut(self, low: u32) -> (u16, u64) {
        let moved = signed(self).wrapping_add(half(low));
        (unsigned(moved >> low), (moved as u16 & ((1 << low) - 1)).into())
    }

    #[inline(always)]
    fn join(self, bits: u64, low: u32) -> u16 {
        unsigned((signed(self) << low | (bits as i16 & ((1 << low) - 1))).wrapping_sub(half(low)))
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

#[cfg(test)]
mod tests {
    use super::*;

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
