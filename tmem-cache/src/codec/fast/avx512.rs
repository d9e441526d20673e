//! AVX-512 with VBMI: a vector is one register, and any order of bytes one instruction.
//!
//! As in [`super::avx2`], closures are left out on purpose. Nearly all processors with VBMI have GFNI, too, whose
//! GF2P8AFFINEQB is a whole zigzag of bytes; but the emulator that proves this file, Bochs 2.7, makes 255 of 0 by it.

use std::arch::x86_64::*;

use super::super::bits::BitReader;
use super::bmi2::{Bmi2, Quotients};
use super::kernel::{BYTES, EIGHTS, Kernel, Masks};

/// A processor with AVX-512 F, BW, VL and VBMI, BMI1, BMI2, LZCNT and POPCNT: Ice Lake, Zen 4 and later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(Bmi2);

impl Avx512 {
    /// # Safety
    /// The processor has what [`Avx512`] says, and the caller runs code compiled for it.
    #[inline(always)]
    pub unsafe fn new() -> Avx512 {
        // SAFETY: the caller's promise.
        Avx512(unsafe { Bmi2::new() })
    }
}

/// Which bytes go where, none across two lines of the processor's cache.
#[repr(C, align(64))]
struct Tables {
    /// Of two vectors those at even and at odd places, and the reverse.
    split: [[u8; BYTES]; 2],
    join: [[u8; BYTES]; 2],
    /// As `split`, where the quarters of the vectors are already in its order.
    sorted: [[u8; BYTES]; 2],
    /// Eights, of which the lowest `width` bytes are used, to where they are stored, and back.
    compact: [[u8; BYTES]; 9],
    place: [[u8; BYTES]; 9],
    /// Each byte's own.
    places: [u8; BYTES],
    /// Multipliers that bring two fields together, and two pairs of them.
    pairs: [u16; 9],
    fours: [u32; 9],
    /// Where the lower four fields go, so that the upper four follow them.
    lower: [u64; 9],
    /// The bit that each of eight fields starts at.
    starts: [[u8; 8]; 9],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut t = Tables {
        split: [[0; BYTES]; 2],
        join: [[0; BYTES]; 2],
        sorted: [[0; BYTES]; 2],
        compact: [[0; BYTES]; 9],
        place: [[0; BYTES]; 9],
        places: [0; BYTES],
        pairs: [0; 9],
        fours: [0; 9],
        lower: [0; 9],
        starts: [[0; 8]; 9],
    };
    let mut i = 0;
    while i < BYTES {
        // Byte i of those at even places, and where it comes from: bit 6 of a place chooses the second vector.
        let from = 16 * EIGHTS[i / 8] + i % 8 * 2;
        let mut odd = 0;
        while odd < 2 {
            t.split[odd][i] = (from + odd) as u8;
            t.sorted[odd][i] = (2 * i + odd) as u8;
            t.join[from / BYTES][from % BYTES + odd] = (odd * BYTES + i) as u8;
            odd += 1;
        }
        t.places[i] = i as u8;
        i += 1;
    }
    let mut width = 1;
    while width <= 8 {
        i = 0;
        while i < 8 * width {
            let (group, byte) = (i / width, i % width);
            t.compact[width][i] = (8 * EIGHTS[group] + byte) as u8;
            t.place[width][8 * EIGHTS[group] + byte] = i as u8;
            i += 1;
        }
        i = 0;
        while i < 8 {
            t.starts[width][i] = (i * width) as u8;
            i += 1;
        }
        if width < 8 {
            t.pairs[width] = 1 | 1 << (8 + width);
            t.fours[width] = 1 | 1 << (16 + 2 * width);
            t.lower[width] = 32 - 4 * width as u64;
        }
        width += 1;
    }
    t
}

impl Avx512 {
    /// Bytes of which `planes` are two adjacent bits, the lower one of which has the value `one`.
    #[inline(always)]
    fn spread(self, planes: [u64; 2], one: u8) -> __m512i {
        // SAFETY: as above.
        unsafe {
            let one = _mm512_set1_epi8(one as i8);
            let low = _mm512_maskz_mov_epi8(planes[0], one);
            _mm512_mask_add_epi8(low, planes[1], low, _mm512_add_epi8(one, one))
        }
    }
}

impl Kernel for Avx512 {
    type Vector = __m512i;
    type Quotients = Quotients;

    #[inline(always)]
    fn fetch(self, bytes: &[u8], at: usize) {
        // SAFETY: nothing is read, wherever that is.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(at).cast()) }
    }

    #[inline(always)]
    fn load(self, bytes: &[u8; BYTES]) -> __m512i {
        // SAFETY: `self` says that the processor has what is used here and below; 64 bytes are one vector.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, v: __m512i, bytes: &mut [u8; BYTES]) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn zero(self) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn only_if(self, condition: bool, v: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_maskz_mov_epi64(0u8.wrapping_sub(condition.into()), v) }
    }

    #[inline(always)]
    fn avg<const WIDE: bool>(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { if WIDE { _mm512_avg_epu16(a, b) } else { _mm512_avg_epu8(a, b) } }
    }

    #[inline(always)]
    fn add<const WIDE: bool>(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { if WIDE { _mm512_add_epi16(a, b) } else { _mm512_add_epi8(a, b) } }
    }

    #[inline(always)]
    fn sub<const WIDE: bool>(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { if WIDE { _mm512_sub_epi16(a, b) } else { _mm512_sub_epi8(a, b) } }
    }

    #[inline(always)]
    fn zigzag<const WIDE: bool>(self, v: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe {
            if WIDE {
                _mm512_xor_si512(_mm512_add_epi16(v, v), _mm512_srai_epi16::<15>(v))
            } else {
                let twice = _mm512_add_epi8(v, v);
                // -1 - x has all bits of x flipped.
                _mm512_mask_sub_epi8(twice, _mm512_movepi8_mask(v), _mm512_set1_epi8(-1), twice)
            }
        }
    }

    #[inline(always)]
    fn unzigzag<const WIDE: bool>(self, v: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe {
            if WIDE {
                let half = _mm512_srli_epi16::<1>(v);
                let odd = _mm512_test_epi16_mask(v, _mm512_set1_epi16(1));
                _mm512_mask_sub_epi16(half, odd, _mm512_set1_epi16(-1), half)
            } else {
                let half = _mm512_and_si512(_mm512_srli_epi16::<1>(v), _mm512_set1_epi8(0x7f));
                let odd = _mm512_test_epi8_mask(v, _mm512_set1_epi8(1));
                _mm512_mask_sub_epi8(half, odd, _mm512_set1_epi8(-1), half)
            }
        }
    }

    #[inline(always)]
    fn along<const WIDE: bool>(self, v: __m512i, period: usize, before: &[u8; 16]) -> __m512i {
        // SAFETY: as above; 16 bytes are one vector of 128 bits.
        unsafe {
            let (places, period) = (self.load(&TABLES.places), period.clamp(1, 4));
            // Bytes moved up by `by`, with zeros below.
            macro_rules! moved {
                ($x:expr, $by:expr) => {{
                    let from = _mm512_sub_epi8(places, _mm512_set1_epi8($by as i8));
                    _mm512_maskz_permutexvar_epi8(u64::MAX << $by, from, $x)
                }};
            }
            // What comes before counts once at the start, and goes along with the sums.
            let before = _mm512_zextsi128_si512(_mm_loadu_si128(before.as_ptr().cast()));
            let last = _mm512_add_epi8(places, _mm512_set1_epi8(16 - period as i8));
            let last = _mm512_maskz_permutexvar_epi8((1 << period) - 1, last, before);
            let mut sums = self.add::<WIDE>(v, last);
            let mut by = period;
            while by < BYTES {
                sums = self.add::<WIDE>(sums, moved!(sums, by));
                by *= 2;
            }
            sums
        }
    }

    #[inline(always)]
    fn shift_words(self, v: __m512i, k: u32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_sll_epi16(v, _mm_cvtsi32_si128(k as i32)) }
    }

    #[inline(always)]
    fn split(self, a: __m512i, b: __m512i) -> (__m512i, __m512i) {
        // SAFETY: as above.
        unsafe {
            (
                _mm512_permutex2var_epi8(a, self.load(&TABLES.split[0]), b),
                _mm512_permutex2var_epi8(a, self.load(&TABLES.split[1]), b),
            )
        }
    }

    #[inline(always)]
    fn join(self, even: __m512i, odd: __m512i) -> (__m512i, __m512i) {
        // SAFETY: as above.
        unsafe {
            (
                _mm512_permutex2var_epi8(even, self.load(&TABLES.join[0]), odd),
                _mm512_permutex2var_epi8(even, self.load(&TABLES.join[1]), odd),
            )
        }
    }

    #[inline(always)]
    fn sum<const WIDE: bool>(self, v: __m512i) -> u32 {
        // SAFETY: as above.
        unsafe {
            let numbers = if WIDE {
                _mm512_add_epi32(_mm512_and_si512(v, _mm512_set1_epi32(65535)), _mm512_srli_epi32::<16>(v))
            } else {
                _mm512_sad_epu8(v, _mm512_setzero_si512())
            };
            _mm512_reduce_add_epi32(numbers) as u32
        }
    }

    #[inline(always)]
    fn most(self, v: __m512i) -> u32 {
        // SAFETY: as above.
        unsafe {
            let most = _mm256_max_epu8(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v));
            let most = _mm_max_epu8(_mm256_castsi256_si128(most), _mm256_extracti128_si256::<1>(most));
            // There is an instruction for the least word: of complements, and of the lesser byte of each word.
            let least = _mm_xor_si128(most, _mm_set1_epi8(-1));
            let least = _mm_minpos_epu16(_mm_min_epu8(least, _mm_srli_epi16::<8>(least)));
            (!_mm_cvtsi128_si32(least) & 255) as u32
        }
    }

    #[inline(always)]
    fn most_words(self, a: __m512i, b: __m512i) -> u32 {
        // SAFETY: as above.
        unsafe {
            let most = _mm512_max_epu16(a, b);
            let most = _mm256_max_epu16(_mm512_castsi512_si256(most), _mm512_extracti64x4_epi64::<1>(most));
            let most = _mm_max_epu16(_mm256_castsi256_si128(most), _mm256_extracti128_si256::<1>(most));
            let least = _mm_minpos_epu16(_mm_xor_si128(most, _mm_set1_epi8(-1)));
            (!_mm_cvtsi128_si32(least) & 65535) as u32
        }
    }

    #[inline(always)]
    fn reach(self, v: __m512i, least: u8) -> u64 {
        // SAFETY: as above.
        unsafe { _mm512_cmpge_epu8_mask(v, _mm512_set1_epi8(least as i8)) }
    }

    #[inline(always)]
    fn below(self, v: __m512i, least: u8) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_maskz_mov_epi8(_mm512_cmplt_epu8_mask(v, _mm512_set1_epi8(least as i8)), v) }
    }

    #[inline(always)]
    fn cut(self, v: __m512i, k: u32) -> (__m512i, Quotients) {
        // SAFETY: as above.
        unsafe {
            let one = _mm512_set1_epi8((1u32 << k) as i8);
            let two = _mm512_add_epi8(one, one);
            let first = _mm512_cmpge_epu8_mask(v, one);
            let low = _mm512_and_si512(v, _mm512_sub_epi8(one, _mm512_set1_epi8(1)));
            let beyond = _mm512_subs_epu8(v, one);
            let more = [_mm512_test_epi8_mask(beyond, one), _mm512_test_epi8_mask(beyond, two)];
            (_mm512_mask_add_epi8(low, first, low, one), Quotients { first, more })
        }
    }

    #[inline(always)]
    fn cut_words(self, a: __m512i, b: __m512i, k: u32) -> (__m512i, __m512i, Quotients) {
        // SAFETY: as above.
        unsafe {
            let one = _mm512_set1_epi16((1u32 << k) as i16);
            let two = _mm512_add_epi16(one, one);
            let below = _mm512_sub_epi16(one, _mm512_set1_epi16(1));
            // Eight words, which make a byte of a mask, are a quarter: these are put in the order of `split` first.
            let a = _mm512_shuffle_i64x2::<0b11_01_10_00>(a, a);
            let b = _mm512_shuffle_i64x2::<0b11_01_10_00>(b, b);
            macro_rules! both {
                (|$x:ident| $mask:expr) => {{
                    let $x = a;
                    let low = $mask;
                    let $x = b;
                    u64::from(low) | u64::from($mask) << 32
                }};
            }
            macro_rules! fields {
                ($x:expr) => {{
                    let low = _mm512_and_si512($x, below);
                    _mm512_mask_add_epi16(low, _mm512_cmpge_epu16_mask($x, one), low, one)
                }};
            }
            let (x, y) = (fields!(a), fields!(b));
            let even = _mm512_permutex2var_epi8(x, self.load(&TABLES.sorted[0]), y);
            let odd = _mm512_permutex2var_epi8(x, self.load(&TABLES.sorted[1]), y);
            let first = both!(|x| _mm512_cmpge_epu16_mask(x, one));
            let more = [
                both!(|x| _mm512_test_epi16_mask(_mm512_subs_epu16(x, one), one)),
                both!(|x| _mm512_test_epi16_mask(_mm512_subs_epu16(x, one), two)),
            ];
            (even, odd, Quotients { first, more })
        }
    }

    #[inline(always)]
    fn pack(self, fields: __m512i, width: u32, to: &mut [u8; BYTES]) {
        let n = width.min(8) as usize;
        // SAFETY: as above.
        unsafe {
            let mut eights = fields;
            // Fields of whole bytes lie next to each other.
            if n < 8 {
                let pairs = _mm512_set1_epi16(TABLES.pairs[n] as i16);
                let fours = _mm512_set1_epi32(TABLES.fours[n] as i32);
                let lower = _mm512_set1_epi64(TABLES.lower[n] as i64);
                let fours = _mm512_madd_epi16(_mm512_maddubs_epi16(pairs, fields), fours);
                let down = _mm_cvtsi64_si128(32 - 4 * n as i64);
                eights = _mm512_srl_epi64(_mm512_sllv_epi32(fours, lower), down);
            }
            self.store(_mm512_permutexvar_epi8(self.load(&TABLES.compact[n]), eights), to);
        }
    }

    #[inline(always)]
    fn unpack(self, from: &[u8; BYTES], width: u32) -> (__m512i, u64) {
        let n = width.min(8) as usize;
        // SAFETY: as above.
        unsafe {
            let eights = _mm512_permutexvar_epi8(self.load(&TABLES.place[n]), self.load(from));
            let starts = _mm512_set1_epi64(i64::from_le_bytes(TABLES.starts[n]));
            let below = _mm512_set1_epi8(((1u32 << n) - 1) as i8);
            let fields = _mm512_and_si512(_mm512_multishift_epi64_epi8(starts, eights), below);
            let top = _mm512_set1_epi8((1u32 << n >> 1) as i8);
            (fields, _mm512_test_epi8_mask(fields, top))
        }
    }

    #[inline(always)]
    fn masks(self, quotients: &Quotients) -> Masks {
        quotients.masks(self.0)
    }

    #[inline(always)]
    fn raise(self, fields: __m512i, first: u64, masks: &mut BitReader<'_>, one: u8) -> __m512i {
        self.add::<false>(fields, self.spread(self.0.more(first, masks), one))
    }
}
