//! AVX2 and BMI2.
//!
//! Closures are left out on purpose: one that is not inlined would not have the instructions that its function has.

use std::arch::x86_64::*;

use super::super::bits::BitReader;
use super::bmi2::{Bmi2, Quotients};
use super::kernel::{BYTES, Kernel, Masks};

/// A processor with AVX2, BMI1, BMI2, LZCNT and POPCNT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(Bmi2);

impl Avx2 {
    /// # Safety
    /// The processor has what [`Avx2`] says, and the caller runs code compiled for it.
    #[inline(always)]
    pub unsafe fn new() -> Avx2 {
        // SAFETY: the caller's promise.
        Avx2(unsafe { Bmi2::new() })
    }
}

/// Bytes 0–31 and 32–63.
#[derive(Clone, Copy)]
pub(crate) struct Two(__m256i, __m256i);

macro_rules! each {
    ($v:expr, |$x:ident| $do:expr) => {{
        let Two(low, high) = $v;
        let $x = low;
        let low = $do;
        let $x = high;
        Two(low, $do)
    }};
    ($a:expr, $b:expr, |$x:ident, $y:ident| $do:expr) => {{
        let (Two(a, c), Two(b, d)) = ($a, $b);
        let ($x, $y) = (a, b);
        let low = $do;
        let ($x, $y) = (c, d);
        Two(low, $do)
    }};
}

/// Bit 7 of each byte.
macro_rules! mask {
    ($v:expr) => {{
        let Two(low, high) = $v;
        u64::from(_mm256_movemask_epi8(low) as u32) | u64::from(_mm256_movemask_epi8(high) as u32) << 32
    }};
}

/// How fields of each width are packed and found again.
#[repr(C, align(32))]
struct Tables {
    /// Multipliers that bring two bytes together, and two pairs of them.
    pairs: [[u8; 32]; 9],
    fours: [[u16; 16]; 9],
    /// Where the lower four fields go, so that the upper four follow them.
    lower: [[u32; 8]; 9],
    /// Two groups of `width` bytes next to each other.
    compact: [[u8; 32]; 9],
    /// The two bytes that each of 16 fields lies in, and the multiplier that brings it to the top of them.
    place: [[u8; 32]; 9],
    up: [[u16; 16]; 9],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut t = Tables {
        pairs: [[0; 32]; 9],
        fours: [[0; 16]; 9],
        lower: [[0; 8]; 9],
        compact: [[0x80; 32]; 9],
        place: [[0; 32]; 9],
        up: [[0; 16]; 9],
    };
    let mut width = 1;
    while width <= 8 {
        let mut i = 0;
        while i < 16 {
            let (bit, group) = (i % 8 * width, i / 8 * width);
            t.place[width][2 * i] = (group + bit / 8) as u8;
            t.place[width][2 * i + 1] = (group + bit / 8 + 1) as u8;
            t.up[width][i] = 1 << (16 - width - bit % 8);
            if width < 8 {
                t.pairs[width][2 * i] = 1;
                t.pairs[width][2 * i + 1] = 1 << width;
                t.fours[width][i] = if i % 2 == 0 { 1 } else { 1 << (2 * width) };
                t.lower[width][i / 2] = if i / 2 % 2 == 0 { 32 - 4 * width as u32 } else { 0 };
            }
            i += 1;
        }
        i = 0;
        while i < width {
            let at = [i, width + i, 16 + i, 16 + width + i];
            t.compact[width][at[0]] = i as u8;
            t.compact[width][at[1]] = 8 + i as u8;
            t.compact[width][at[2]] = i as u8;
            t.compact[width][at[3]] = 8 + i as u8;
            i += 1;
        }
        width += 1;
    }
    t
}

impl Avx2 {
    /// Bytes of which `planes` are two adjacent bits, the lower one of which has the value `one`.
    #[inline(always)]
    fn spread(self, planes: [u64; 2], one: u8) -> Two {
        // SAFETY: as above.
        unsafe {
            let select = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let eights = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
            let pick = Two(eights, _mm256_add_epi8(eights, _mm256_set1_epi8(4)));
            macro_rules! plane {
                ($bits:expr, $one:expr) => {{
                    let bits = _mm256_set1_epi64x($bits as i64);
                    each!(pick, |eights| {
                        let bit = _mm256_and_si256(_mm256_shuffle_epi8(bits, eights), select);
                        _mm256_and_si256(_mm256_cmpeq_epi8(bit, select), $one)
                    })
                }};
            }
            let one = _mm256_set1_epi8(one as i8);
            let (a, b) = (plane!(planes[0], one), plane!(planes[1], _mm256_add_epi8(one, one)));
            each!(a, b, |x, y| _mm256_or_si256(x, y))
        }
    }
}

impl Kernel for Avx2 {
    type Vector = Two;
    type Quotients = Quotients;

    #[inline(always)]
    fn fetch(self, bytes: &[u8], at: usize) {
        // SAFETY: nothing is read, wherever that is.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(at).cast()) }
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; BYTES]) -> Two {
        let from = bytes.as_ptr().cast::<__m256i>();
        // SAFETY: `self` says that the processor has AVX2; 64 bytes are two vectors.
        unsafe { Two(_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))) }
    }

    #[inline(always)]
    fn store(self, v: Two, bytes: &mut [u8; BYTES]) {
        let to = bytes.as_mut_ptr().cast::<__m256i>();
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_si256(to, v.0);
            _mm256_storeu_si256(to.add(1), v.1);
        }
    }

    #[inline(always)]
    fn zero(self) -> Two {
        // SAFETY: `self` says that the processor has AVX2.
        unsafe { Two(_mm256_setzero_si256(), _mm256_setzero_si256()) }
    }

    #[inline(always)]
    fn only_if(self, condition: bool, v: Two) -> Two {
        // SAFETY: as above.
        unsafe { each!(v, |x| _mm256_and_si256(x, _mm256_set1_epi8(-i8::from(condition)))) }
    }

    #[inline(always)]
    fn avg<const WIDE: bool>(self, a: Two, b: Two) -> Two {
        // SAFETY: as above.
        unsafe { each!(a, b, |x, y| if WIDE { _mm256_avg_epu16(x, y) } else { _mm256_avg_epu8(x, y) }) }
    }

    #[inline(always)]
    fn add<const WIDE: bool>(self, a: Two, b: Two) -> Two {
        // SAFETY: as above.
        unsafe { each!(a, b, |x, y| if WIDE { _mm256_add_epi16(x, y) } else { _mm256_add_epi8(x, y) }) }
    }

    #[inline(always)]
    fn sub<const WIDE: bool>(self, a: Two, b: Two) -> Two {
        // SAFETY: as above.
        unsafe { each!(a, b, |x, y| if WIDE { _mm256_sub_epi16(x, y) } else { _mm256_sub_epi8(x, y) }) }
    }

    #[inline(always)]
    fn zigzag<const WIDE: bool>(self, v: Two) -> Two {
        // SAFETY: as above.
        unsafe {
            if WIDE {
                each!(v, |x| _mm256_xor_si256(_mm256_add_epi16(x, x), _mm256_srai_epi16::<15>(x)))
            } else {
                each!(v, |x| _mm256_xor_si256(_mm256_add_epi8(x, x), _mm256_cmpgt_epi8(_mm256_setzero_si256(), x)))
            }
        }
    }

    #[inline(always)]
    fn unzigzag<const WIDE: bool>(self, v: Two) -> Two {
        // SAFETY: as above.
        unsafe {
            let zero = _mm256_setzero_si256();
            if WIDE {
                let one = _mm256_set1_epi16(1);
                each!(v, |x| {
                    let sign = _mm256_sub_epi16(zero, _mm256_and_si256(x, one));
                    _mm256_xor_si256(_mm256_srli_epi16::<1>(x), sign)
                })
            } else {
                let (one, most) = (_mm256_set1_epi8(1), _mm256_set1_epi8(0x7f));
                each!(v, |x| {
                    let sign = _mm256_sub_epi8(zero, _mm256_and_si256(x, one));
                    _mm256_xor_si256(_mm256_and_si256(_mm256_srli_epi16::<1>(x), most), sign)
                })
            }
        }
    }

    #[inline(always)]
    fn along<const WIDE: bool>(self, v: Two, period: usize, before: &[u8; 16]) -> Two {
        // SAFETY: as above; 16 bytes are one vector.
        unsafe {
            let mut last = _mm_loadu_si128(before.as_ptr().cast());
            macro_rules! sums {
                ($x:expr, [$($step:literal),+], $repeat:expr) => {{
                    let mut x = $x;
                    $(x = if WIDE {
                        _mm_add_epi16(x, _mm_slli_si128::<$step>(x))
                    } else {
                        _mm_add_epi8(x, _mm_slli_si128::<$step>(x))
                    };)+
                    let carry = _mm_shuffle_epi8(last, $repeat);
                    if WIDE { _mm_add_epi16(x, carry) } else { _mm_add_epi8(x, carry) }
                }};
            }
            macro_rules! quarter {
                ($x:expr) => {{
                    last = match period {
                        1 => sums!($x, [1, 2, 4, 8], _mm_set1_epi8(15)),
                        2 => sums!($x, [2, 4, 8], _mm_set1_epi16(0x0f0e)),
                        3 => {
                            let thirds = _mm_setr_epi8(13, 14, 15, 13, 14, 15, 13, 14, 15, 13, 14, 15, 13, 14, 15, 13);
                            sums!($x, [3, 6, 12], thirds)
                        }
                        _ => sums!($x, [4, 8], _mm_set1_epi32(0x0f0e_0d0c)),
                    };
                    last
                }};
            }
            each!(v, |x| {
                let low = quarter!(_mm256_castsi256_si128(x));
                let high = quarter!(_mm256_extracti128_si256::<1>(x));
                _mm256_set_m128i(high, low)
            })
        }
    }

    #[inline(always)]
    fn shift_words(self, v: Two, k: u32) -> Two {
        // SAFETY: as above.
        unsafe { each!(v, |x| _mm256_sll_epi16(x, _mm_cvtsi32_si128(k as i32))) }
    }

    #[inline(always)]
    fn split(self, a: Two, b: Two) -> (Two, Two) {
        // SAFETY: as above.
        unsafe {
            let low = _mm256_set1_epi16(255);
            macro_rules! even {
                ($v:expr) => {
                    _mm256_packus_epi16(_mm256_and_si256($v.0, low), _mm256_and_si256($v.1, low))
                };
            }
            macro_rules! odd {
                ($v:expr) => {
                    _mm256_packus_epi16(_mm256_srli_epi16::<8>($v.0), _mm256_srli_epi16::<8>($v.1))
                };
            }
            (Two(even!(a), even!(b)), Two(odd!(a), odd!(b)))
        }
    }

    #[inline(always)]
    fn join(self, even: Two, odd: Two) -> (Two, Two) {
        // SAFETY: as above.
        unsafe {
            (
                Two(_mm256_unpacklo_epi8(even.0, odd.0), _mm256_unpackhi_epi8(even.0, odd.0)),
                Two(_mm256_unpacklo_epi8(even.1, odd.1), _mm256_unpackhi_epi8(even.1, odd.1)),
            )
        }
    }

    #[inline(always)]
    fn sum<const WIDE: bool>(self, v: Two) -> u32 {
        // SAFETY: as above.
        unsafe {
            let zero = _mm256_setzero_si256();
            macro_rules! sum {
                ($v:expr) => {{
                    let sums = _mm256_add_epi64(_mm256_sad_epu8($v.0, zero), _mm256_sad_epu8($v.1, zero));
                    let sums = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
                    (_mm_cvtsi128_si64(sums) + _mm_extract_epi64::<1>(sums)) as u32
                }};
            }
            if WIDE {
                let high = sum!(each!(v, |x| _mm256_srli_epi16::<8>(x)));
                sum!(v) + 255 * high
            } else {
                sum!(v)
            }
        }
    }

    #[inline(always)]
    fn most(self, v: Two) -> u32 {
        // SAFETY: as above.
        unsafe {
            let most = _mm256_max_epu8(v.0, v.1);
            let most = _mm_max_epu8(_mm256_castsi256_si128(most), _mm256_extracti128_si256::<1>(most));
            // There is an instruction for the least word: of complements, and of the lesser byte of each word.
            let least = _mm_xor_si128(most, _mm_set1_epi8(-1));
            let least = _mm_minpos_epu16(_mm_min_epu8(least, _mm_srli_epi16::<8>(least)));
            (!_mm_cvtsi128_si32(least) & 255) as u32
        }
    }

    #[inline(always)]
    fn most_words(self, a: Two, b: Two) -> u32 {
        // SAFETY: as above.
        unsafe {
            let most = _mm256_max_epu16(_mm256_max_epu16(a.0, a.1), _mm256_max_epu16(b.0, b.1));
            let most = _mm_max_epu16(_mm256_castsi256_si128(most), _mm256_extracti128_si256::<1>(most));
            let least = _mm_minpos_epu16(_mm_xor_si128(most, _mm_set1_epi8(-1)));
            (!_mm_cvtsi128_si32(least) & 65535) as u32
        }
    }

    #[inline(always)]
    fn reach(self, v: Two, least: u8) -> u64 {
        // SAFETY: as above.
        unsafe {
            let least = _mm256_set1_epi8(least as i8);
            mask!(each!(v, |x| _mm256_cmpeq_epi8(_mm256_max_epu8(x, least), x)))
        }
    }

    #[inline(always)]
    fn below(self, v: Two, least: u8) -> Two {
        // SAFETY: as above.
        unsafe {
            let least = _mm256_set1_epi8(least as i8);
            each!(v, |x| _mm256_andnot_si256(_mm256_cmpeq_epi8(_mm256_max_epu8(x, least), x), x))
        }
    }

    #[inline(always)]
    fn cut(self, v: Two, k: u32) -> (Two, Quotients) {
        // SAFETY: as above.
        unsafe {
            let one = _mm256_set1_epi8((1u32 << k) as i8);
            let low = _mm256_sub_epi8(one, _mm256_set1_epi8(1));
            let reach = each!(v, |x| _mm256_cmpeq_epi8(_mm256_max_epu8(x, one), x));
            let fields = each!(v, reach, |x, r| _mm256_or_si256(_mm256_and_si256(x, low), _mm256_and_si256(r, one)));
            let beyond = each!(v, |x| _mm256_subs_epu8(x, one));
            // Bit k, and k + 1 where there is one, to bit 7.
            let (a, b) = (_mm_cvtsi64_si128(7 - i64::from(k)), _mm_cvtsi64_si128(6 - i64::from(k)));
            let more =
                [mask!(each!(beyond, |x| _mm256_sll_epi16(x, a))), mask!(each!(beyond, |x| _mm256_sll_epi16(x, b)))];
            (fields, Quotients { first: mask!(reach), more })
        }
    }

    #[inline(always)]
    fn cut_words(self, a: Two, b: Two, k: u32) -> (Two, Two, Quotients) {
        // SAFETY: as above.
        unsafe {
            let one = _mm256_set1_epi16((1u32 << k) as i16);
            let low = _mm256_sub_epi16(one, _mm256_set1_epi16(1));
            macro_rules! reach {
                ($v:expr) => {
                    each!($v, |x| _mm256_cmpeq_epi16(_mm256_max_epu16(x, one), x))
                };
            }
            macro_rules! fields {
                ($v:expr, $reach:expr) => {
                    each!($v, $reach, |x, r| _mm256_or_si256(_mm256_and_si256(x, low), _mm256_and_si256(r, one)))
                };
            }
            macro_rules! beyond {
                ($v:expr) => {
                    each!($v, |x| _mm256_subs_epu16(x, one))
                };
            }
            // Bit 15 of each word, in the order that `split` makes; saturation keeps the sign.
            macro_rules! plane {
                ($a:expr, $b:expr, $up:expr) => {{
                    let (a, b) = (each!($a, |x| _mm256_sll_epi16(x, $up)), each!($b, |x| _mm256_sll_epi16(x, $up)));
                    mask!(Two(_mm256_packs_epi16(a.0, a.1), _mm256_packs_epi16(b.0, b.1)))
                }};
            }
            let (ra, rb) = (reach!(a), reach!(b));
            let (sa, sb) = (beyond!(a), beyond!(b));
            let (first, second) = (_mm_cvtsi64_si128(15 - i64::from(k)), _mm_cvtsi64_si128(14 - i64::from(k)));
            let more = [plane!(sa, sb, first), plane!(sa, sb, second)];
            let (even, odd) = self.split(fields!(a, ra), fields!(b, rb));
            (even, odd, Quotients { first: plane!(ra, rb, _mm_setzero_si128()), more })
        }
    }

    #[inline(always)]
    fn pack(self, fields: Two, width: u32, to: &mut [u8; BYTES]) {
        // SAFETY: as above; the last of the four stores of 16 bytes is at 6 * 7 at most, and in the tables `width` is
        // 8 at most.
        unsafe {
            if width >= 8 {
                return self.store(each!(fields, |x| _mm256_permute4x64_epi64::<0b11_01_10_00>(x)), to);
            }
            let n = width as usize;
            let pairs = _mm256_load_si256(TABLES.pairs[n].as_ptr().cast());
            let fours = _mm256_load_si256(TABLES.fours[n].as_ptr().cast());
            let lower = _mm256_load_si256(TABLES.lower[n].as_ptr().cast());
            let compact = _mm256_load_si256(TABLES.compact[n].as_ptr().cast());
            let down = _mm_cvtsi32_si128(32 - 4 * width as i32);
            let eights = each!(fields, |x| {
                let fours = _mm256_madd_epi16(_mm256_maddubs_epi16(pairs, x), fours);
                let eights = _mm256_srl_epi64(_mm256_sllv_epi32(fours, lower), down);
                _mm256_shuffle_epi8(_mm256_permute4x64_epi64::<0b11_01_10_00>(eights), compact)
            });
            let to = to.as_mut_ptr();
            _mm_storeu_si128(to.cast(), _mm256_castsi256_si128(eights.0));
            _mm_storeu_si128(to.add(2 * n).cast(), _mm256_extracti128_si256::<1>(eights.0));
            _mm_storeu_si128(to.add(4 * n).cast(), _mm256_castsi256_si128(eights.1));
            _mm_storeu_si128(to.add(6 * n).cast(), _mm256_extracti128_si256::<1>(eights.1));
        }
    }

    #[inline(always)]
    fn unpack(self, from: &[u8; BYTES], width: u32) -> (Two, u64) {
        let n = width.min(8) as usize;
        let from = from.as_ptr();
        // SAFETY: as above; the last of the four loads of 16 bytes is at 6 * 8 at most.
        unsafe {
            let place = _mm256_load_si256(TABLES.place[n].as_ptr().cast());
            let up = _mm256_load_si256(TABLES.up[n].as_ptr().cast());
            let down = _mm_cvtsi32_si128(16 - n as i32);
            macro_rules! words {
                ($at:expr) => {{
                    let two = _mm256_broadcastsi128_si256(_mm_loadu_si128(from.add($at).cast()));
                    _mm256_srl_epi16(_mm256_mullo_epi16(_mm256_shuffle_epi8(two, place), up), down)
                }};
            }
            let fields =
                Two(_mm256_packus_epi16(words!(0), words!(2 * n)), _mm256_packus_epi16(words!(4 * n), words!(6 * n)));
            let top = _mm_cvtsi32_si128(8 - n as i32);
            (fields, mask!(each!(fields, |x| _mm256_sll_epi16(x, top))))
        }
    }

    #[inline(always)]
    fn masks(self, quotients: &Quotients) -> Masks {
        quotients.masks(self.0)
    }

    #[inline(always)]
    fn raise(self, fields: Two, first: u64, masks: &mut BitReader<'_>, one: u8) -> Two {
        self.add::<false>(fields, self.spread(self.0.more(first, masks), one))
    }
}
