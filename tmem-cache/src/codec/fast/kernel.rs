//! What a processor does in its own way: vectors of 64 bytes, and bits picked by masks.

use super::super::bits::BitReader;

/// Bytes of a vector.
pub(crate) const BYTES: usize = 64;

/// All kernels do the same. A value of one is the proof that the processor has what the kernel needs.
///
/// Where a method has `WIDE`, a vector is 32 little-endian words of 16 bits, else 64 bytes.
pub(crate) trait Kernel: Copy {
    /// 64 bytes.
    type Vector: Copy;
    /// What 64 residuals have from bit `k` on: numbers q of 4 at most.
    type Quotients: Copy;

    /// Asks for the bytes from there on, or what comes after all of them in memory: they will be needed soon. A processor
    /// foresees that by itself, but not beyond a page.
    fn fetch(self, bytes: &[u8], at: usize);
    fn load(self, bytes: &[u8; BYTES]) -> Self::Vector;
    fn store(self, v: Self::Vector, bytes: &mut [u8; BYTES]);
    fn zero(self) -> Self::Vector;
    /// `v`, or zeros.
    fn only_if(self, condition: bool, v: Self::Vector) -> Self::Vector;

    /// The mean, rounded up.
    fn avg<const WIDE: bool>(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn add<const WIDE: bool>(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub<const WIDE: bool>(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Signed numbers to unsigned ones, small ones staying small: 0, -1, 1, -2, ….
    fn zigzag<const WIDE: bool>(self, v: Self::Vector) -> Self::Vector;
    fn unzigzag<const WIDE: bool>(self, v: Self::Vector) -> Self::Vector;
    /// Each number added to the one `period` (1 to 4) bytes before it, that being added already. `before` is what comes
    /// before.
    fn along<const WIDE: bool>(self, v: Self::Vector, period: usize, before: &[u8; 16]) -> Self::Vector;
    /// Words times 2^k.
    fn shift_words(self, v: Self::Vector, k: u32) -> Self::Vector;

    /// The bytes at even and at odd places of 128, both with bits 3 and 4 of their numbers swapped: what AVX2 does
    /// fastest.
    fn split(self, a: Self::Vector, b: Self::Vector) -> (Self::Vector, Self::Vector);
    /// The reverse.
    fn join(self, even: Self::Vector, odd: Self::Vector) -> (Self::Vector, Self::Vector);

    /// The sum of all numbers.
    fn sum<const WIDE: bool>(self, v: Self::Vector) -> u32;
    /// The largest byte.
    fn most(self, v: Self::Vector) -> u32;
    /// The largest word of both.
    fn most_words(self, a: Self::Vector, b: Self::Vector) -> u32;

    /// Which bytes are `least` or more. It is not 0.
    fn reach(self, v: Self::Vector, least: u8) -> u64;
    /// The bytes that are less than `least`, and 0 for the others.
    fn below(self, v: Self::Vector, least: u8) -> Self::Vector;
    /// Bytes to fields of k + 1 bits and quotients, which are 4 at most. `k` is 7 at most.
    fn cut(self, v: Self::Vector, k: u32) -> (Self::Vector, Self::Quotients);
    /// The same of 64 words, `k` being 15 at most. The low and the high bytes of fields come as from [`Kernel::split`],
    /// and so do the bits of masks.
    fn cut_words(self, a: Self::Vector, b: Self::Vector, k: u32) -> (Self::Vector, Self::Vector, Self::Quotients);
    fn masks(self, quotients: &Self::Quotients) -> Masks;
    /// Stores fields of `width` (1 to 8) bits: eight fields next to each other in `width` bytes, the eights of the
    /// vector in the order 0, 2, 1, 3, 4, 6, 5, 7. Writes beyond these `8 * width` bytes what it likes.
    fn pack(self, fields: Self::Vector, width: u32, to: &mut [u8; BYTES]);
    /// The fields that [`Kernel::pack`] stored, and which of them have their highest bit. With a `width` of 0 they
    /// are 0.
    fn unpack(self, from: &[u8; BYTES], width: u32) -> (Self::Vector, u64);
    /// Adds to fields what the next masks say of their quotients, of which those in `first` are not 0: (q - 1) times `one`,
    /// which is a power of two or 0. Bytes wrap around.
    fn raise(self, fields: Self::Vector, first: u64, masks: &mut BitReader<'_>, one: u8) -> Self::Vector;
}

/// The masks of a block: the first, and the other two one after the other. What they hold is right where neither has
/// more than 64 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Masks {
    pub words: [u64; 2],
    pub counts: [u32; 2],
}

/// The order of eights in a vector that a [`Kernel`] has split or is to pack.
pub(crate) const EIGHTS: [usize; 8] = [0, 2, 1, 3, 4, 6, 5, 7];

#[cfg(test)]
mod tests {
    use super::super::super::path::Path;
    use super::super::portable::Portable;
    use super::*;

    /// Uniform vectors first, each with each, then noise of each number of bits.
    fn pairs() -> impl Iterator<Item = [[u8; BYTES]; 2]> {
        const EDGES: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff];
        let uniform = EDGES.into_iter().flat_map(|a| EDGES.map(|b| [[a; BYTES], [b; BYTES]]));
        let mut state = 1u64;
        let mut byte = move |bits: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8 & (255u16 >> (8 - bits)) as u8
        };
        let noise = (0..64).map(move |i| [i % 9, 8 - i % 9].map(|bits| std::array::from_fn(|_| byte(bits))));
        uniform.chain(noise)
    }

    #[inline(always)]
    fn does_as_the_portable_one<K: Kernel>(kernel: K) {
        let bytes = |v: K::Vector| {
            let mut bytes = [0; BYTES];
            kernel.store(v, &mut bytes);
            bytes
        };
        let two = |(a, b): (K::Vector, K::Vector)| (bytes(a), bytes(b));
        macro_rules! same {
            ($out:ident($($method:tt)+) ($($of:expr),*), ($($plain:expr),*)) => {
                assert_eq!($out(kernel.$($method)+($($of),*)), Portable.$($method)+($($plain),*));
            };
        }
        assert_eq!(bytes(kernel.zero()), Portable.zero());
        for [a, b] in pairs() {
            let (x, y) = (kernel.load(&a), kernel.load(&b));
            same!(bytes(only_if)(true, x), (true, a));
            same!(bytes(only_if)(false, x), (false, a));
            same!(bytes(avg::<false>)(x, y), (a, b));
            same!(bytes(avg::<true>)(x, y), (a, b));
            same!(bytes(add::<false>)(x, y), (a, b));
            same!(bytes(add::<true>)(x, y), (a, b));
            same!(bytes(sub::<false>)(x, y), (a, b));
            same!(bytes(sub::<true>)(x, y), (a, b));
            same!(bytes(zigzag::<false>)(x), (a));
            same!(bytes(zigzag::<true>)(x), (a));
            same!(bytes(unzigzag::<false>)(x), (a));
            same!(bytes(unzigzag::<true>)(x), (a));
            let before = std::array::from_fn(|i| b[i]);
            for period in 1..=4 {
                same!(bytes(along::<false>)(x, period, &before), (a, period, &before));
            }
            for period in [2, 4] {
                same!(bytes(along::<true>)(x, period, &before), (a, period, &before));
            }
            same!(two(split)(x, y), (a, b));
            same!(two(join)(x, y), (a, b));
            let number = |n: u32| n;
            same!(number(sum::<false>)(x), (a));
            same!(number(sum::<true>)(x), (a));
            same!(number(most)(x), (a));
            same!(number(most_words)(x, y), (a, b));
            let word = |w: u64| w;
            for least in [1, 2, 5, 0x7f, 0x80, 0x81, 0xff] {
                same!(word(reach)(x, least), (a, least));
                same!(bytes(below)(x, least), (a, least));
            }

            for k in 0..16 {
                same!(bytes(shift_words)(x, k), (a, k));
                // As large as quotients of 4 allow.
                let few = |v: [u8; BYTES]| -> [u8; BYTES] {
                    let words = v.as_chunks::<2>().0.iter().map(|&two| u16::from_le_bytes(two));
                    let few: Vec<u8> =
                        words.flat_map(|w| (u32::from(w) % (5 << k)).to_le_bytes()[..2].to_vec()).collect();
                    few.try_into().unwrap()
                };
                let (a, b) = (few(a), few(b));
                let (low, high, q) = kernel.cut_words(kernel.load(&a), kernel.load(&b), k);
                let (plain_low, plain_high, plain_q) = Portable.cut_words(a, b, k);
                assert_eq!((bytes(low), bytes(high)), (plain_low, plain_high));
                assert_eq!(kernel.masks(&q), Portable.masks(&plain_q));
            }
            let with = |(v, extra): (K::Vector, u64)| (bytes(v), extra);
            same!(with(unpack)(&a, 0), (&a, 0));
            for width in 1..=8 {
                let few = a.map(|v| (u32::from(v) % (5 << (width - 1))) as u8);
                let (of_kernel, q) = kernel.cut(kernel.load(&few), width - 1);
                let (fields, plain_q) = Portable.cut(few, width - 1);
                assert_eq!(bytes(of_kernel), fields);
                assert_eq!(kernel.masks(&q), Portable.masks(&plain_q));
                same!(with(unpack)(&a, width), (&a, width));
                let (mut packed, mut plain) = ([0; BYTES], [0; BYTES]);
                kernel.pack(kernel.load(&fields), width, &mut packed);
                Portable.pack(fields, width, &mut plain);
                assert_eq!(packed[..8 * width as usize], plain[..8 * width as usize]);
            }
            let first = u64::from_le_bytes(std::array::from_fn(|i| a[5 * i]));
            for one in (0..8).map(|k| 1 << k).chain([0]) {
                let (mut masks, mut plain_masks) = (BitReader::new(&b), BitReader::new(&b));
                let of_kernel = bytes(kernel.raise(x, first, &mut masks, one));
                assert_eq!(of_kernel, Portable.raise(a, first, &mut plain_masks, one));
                assert_eq!(masks.peek(), plain_masks.peek());
            }
        }
    }

    #[test]
    fn kernels_do_the_same() {
        for path in Path::available() {
            println!("kernel: {path:?}");
            match path {
                Path::Portable => {}
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `available` has asked the processor.
                Path::Avx2 => unsafe { x86::avx2() },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Path::Avx512 => unsafe { x86::avx512() },
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    mod x86 {
        use super::super::super::avx2::Avx2;
        use super::super::super::avx512::Avx512;
        use super::does_as_the_portable_one;

        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
        pub fn avx2() {
            // SAFETY: this function has these features.
            does_as_the_portable_one(unsafe { Avx2::new() });
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi,bmi1,bmi2,lzcnt,popcnt")]
        pub fn avx512() {
            // SAFETY: as above.
            does_as_the_portable_one(unsafe { Avx512::new() });
        }
    }
}
