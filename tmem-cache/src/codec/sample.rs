//! Arithmetic on samples, the same for bytes and 16-bit words. Loops over these become vector code.

use std::fmt::Debug;

use super::block::{BLOCK, Kernel};

/// A sample: a byte or a 16-bit word.
pub(crate) trait Sample: Copy + Default + PartialEq + Debug + Send + Sync + 'static {
    /// Bits of a sample.
    const BITS: u32;

    fn to_u16(self) -> u16;

    /// The mean, rounded up.
    fn avg(self, other: Self) -> Self;
    /// `self + g - m`, kept within the range of a sample.
    fn slope(self, g: Self, m: Self) -> Self;
    /// `self - p` as a number without sign, small where the difference is small: 0, -1, 1, -2, ….
    fn residual(self, p: Self) -> Self;
    /// The sample of which `self` is the residual.
    fn restore(self, p: Self) -> Self;

    /// The samples of a row, little-endian in memory; in `room` where they must be moved first.
    fn load<'a>(bytes: &'a [u8], room: &'a mut [Self]) -> &'a [Self];
    /// Where to put the samples of a row before [`Sample::store`].
    fn place<'a>(bytes: &'a mut [u8], room: &'a mut [Self]) -> &'a mut [Self];
    /// Moves them from `room` into `bytes`, where they are not there yet.
    fn store(bytes: &mut [u8], room: &[Self]);

    /// The sum of a block, and a number with the bits that any of them has.
    fn measure<K: Kernel>(block: &[Self; BLOCK]) -> (u32, u16);
    /// The least number of low bits, `k` or more, that a block can have: the format has no 14 of 16.
    fn storable(k: u32) -> u32;
    /// The code of a block with `k` low bits.
    fn code(k: u32) -> u8;
    /// The low bits of a block by its code: `Some(None)` where all are zero, `None` where there is no such code.
    fn low_bits_of(code: u8) -> Option<Option<u32>>;
    /// Low bits and quotients; of 16-bit residuals with 8 low bits or more, only those above the lowest 8.
    fn cut(block: &[Self; BLOCK], k: u32) -> ([u8; BLOCK], [u8; BLOCK]);
    /// The lowest 8 bits.
    fn low_bytes(block: &[Self; BLOCK]) -> [u8; BLOCK];
    /// The reverse of the two.
    fn uncut(low: &[u8; BLOCK], quotients: &[u8; BLOCK], low_bytes: &[u8; BLOCK], k: u32, block: &mut [Self; BLOCK]);
}

macro_rules! sample {
    ($type:ident, $signed:ident, $wide:ident { $($blocks:item)* }) => {
        impl Sample for $type {
            const BITS: u32 = $type::BITS;

            #[inline(always)]
            fn to_u16(self) -> u16 {
                u16::from(self)
            }

            #[inline(always)]
            fn avg(self, other: Self) -> Self {
                ((self as $wide + other as $wide + 1) >> 1) as $type
            }

            #[inline(always)]
            fn slope(self, g: Self, m: Self) -> Self {
                // One of the two differences is 0.
                self.saturating_add(g.saturating_sub(m)).saturating_sub(m.saturating_sub(g))
            }

            #[inline(always)]
            fn residual(self, p: Self) -> Self {
                let d = self.wrapping_sub(p);
                d.wrapping_add(d) ^ ((d as $signed) >> ($type::BITS - 1)) as $type
            }

            #[inline(always)]
            fn restore(self, p: Self) -> Self {
                let d = (self >> 1) ^ (0 as $type).wrapping_sub(self & 1);
                p.wrapping_add(d)
            }

            $($blocks)*
        }
    };
}

sample!(u8, i8, u16 {
    #[inline(always)]
    fn load<'a>(bytes: &'a [u8], _: &'a mut [u8]) -> &'a [u8] {
        bytes
    }

    #[inline(always)]
    fn place<'a>(bytes: &'a mut [u8], _: &'a mut [u8]) -> &'a mut [u8] {
        bytes
    }

    #[inline(always)]
    fn store(_: &mut [u8], _: &[u8]) {}

    #[inline(always)]
    fn measure<K: Kernel>(block: &[u8; BLOCK]) -> (u32, u16) {
        // SAFETY: whoever chose `K` has asked the processor.
        let (sum, any) = unsafe { K::measure(block) };
        (sum, u16::from(any))
    }

    #[inline(always)]
    fn storable(k: u32) -> u32 {
        k
    }

    #[inline(always)]
    fn code(k: u32) -> u8 {
        k as u8 + 1
    }

    #[inline(always)]
    fn low_bits_of(code: u8) -> Option<Option<u32>> {
        match code {
            0 => Some(None),
            1..=8 => Some(Some(u32::from(code) - 1)),
            _ => None,
        }
    }

    #[inline(always)]
    fn cut(block: &[u8; BLOCK], k: u32) -> ([u8; BLOCK], [u8; BLOCK]) {
        (*block, block.map(|v| v >> k))
    }

    #[inline(always)]
    fn low_bytes(block: &[u8; BLOCK]) -> [u8; BLOCK] {
        *block
    }

    #[inline(always)]
    fn uncut(low: &[u8; BLOCK], quotients: &[u8; BLOCK], _: &[u8; BLOCK], k: u32, block: &mut [u8; BLOCK]) {
        for ((v, low), quotient) in block.iter_mut().zip(low).zip(quotients) {
            *v = low | quotient << k;
        }
    }
});

sample!(u16, i16, u32 {
    #[inline(always)]
    fn load<'a>(bytes: &'a [u8], room: &'a mut [u16]) -> &'a [u16] {
        for (sample, two) in room.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *sample = u16::from_le_bytes(*two);
        }
        room
    }

    #[inline(always)]
    fn place<'a>(_: &'a mut [u8], room: &'a mut [u16]) -> &'a mut [u16] {
        room
    }

    #[inline(always)]
    fn store(bytes: &mut [u8], room: &[u16]) {
        for (sample, two) in room.iter().zip(bytes.as_chunks_mut::<2>().0) {
            *two = sample.to_le_bytes();
        }
    }

    #[inline(always)]
    fn measure<K: Kernel>(block: &[u16; BLOCK]) -> (u32, u16) {
        let any = block.iter().fold(0, |any, v| any | v);
        (block.iter().fold(0, |sum, &v| sum + u32::from(v)), any)
    }

    #[inline(always)]
    fn storable(k: u32) -> u32 {
        if k == 14 { 15 } else { k }
    }

    #[inline(always)]
    fn code(k: u32) -> u8 {
        if k == 15 { 15 } else { k as u8 + 1 }
    }

    #[inline(always)]
    fn low_bits_of(code: u8) -> Option<Option<u32>> {
        match code {
            0 => Some(None),
            1..=14 => Some(Some(u32::from(code) - 1)),
            15 => Some(Some(15)),
            _ => None,
        }
    }

    #[inline(always)]
    fn cut(block: &[u16; BLOCK], k: u32) -> ([u8; BLOCK], [u8; BLOCK]) {
        let quotients = block.map(|v| (v >> k) as u8);
        (if k < 8 { block.map(|v| v as u8) } else { block.map(|v| (v >> 8) as u8) }, quotients)
    }

    #[inline(always)]
    fn low_bytes(block: &[u16; BLOCK]) -> [u8; BLOCK] {
        block.map(|v| v as u8)
    }

    #[inline(always)]
    fn uncut(low: &[u8; BLOCK], quotients: &[u8; BLOCK], low_bytes: &[u8; BLOCK], k: u32, block: &mut [u16; BLOCK]) {
        if k < 8 {
            for ((v, low), quotient) in block.iter_mut().zip(low).zip(quotients) {
                *v = u16::from(*low) | u16::from(*quotient) << k;
            }
        } else {
            for (((v, low), quotient), low_byte) in block.iter_mut().zip(low).zip(quotients).zip(low_bytes) {
                *v = u16::from(*low_byte) | u16::from(*low) << 8 | u16::from(*quotient) << k;
            }
        }
    }
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residual_is_restored() {
        for x in 0..=255u8 {
            for p in 0..=255 {
                assert_eq!(x.residual(p).restore(p), x);
            }
        }
        for x in (0..=65535u16).step_by(257) {
            for p in (0..=65535).step_by(251) {
                assert_eq!(x.residual(p).restore(p), x);
            }
        }
    }

    #[test]
    fn small_differences_are_small() {
        assert_eq!([0, 255, 1, 254, 2].map(|d: u8| d.residual(0)), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn slope_stays_in_range() {
        for (a, g, m) in [(250u8, 20, 3), (3, 20, 250), (100, 7, 9)] {
            let expected = (i32::from(a) + i32::from(g) - i32::from(m)).clamp(0, 255);
            assert_eq!(i32::from(a.slope(g, m)), expected);
        }
    }
}
