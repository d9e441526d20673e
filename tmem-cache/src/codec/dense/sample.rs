//! Arithmetic on samples, the same for bytes and 16-bit words. Loops over these become vector code.

use std::fmt::Debug;

/// A sample: a byte or a 16-bit word.
pub(crate) trait Sample: Copy + Default + PartialEq + Debug + Send + Sync + 'static {
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
}

macro_rules! sample {
    ($type:ident, $signed:ident, $wide:ident { $($rows:item)* }) => {
        impl Sample for $type {
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

            $($rows)*
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
