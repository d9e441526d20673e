//! Blocks by AVX2 and BMI2.

use std::arch::x86_64::*;

use super::block::{BLOCK, FIXED, Kernel};

/// Processors with AVX2, BMI1, BMI2, LZCNT and POPCNT.
pub(crate) struct Avx2;

impl Kernel for Avx2 {
    #[inline(always)]
    unsafe fn pack(low: &[u8; BLOCK], k: u32, out: &mut [u8; FIXED]) {
        // SAFETY: the caller's promise; all addresses lie in the arrays: the last store ends at 32 + 16 + 8.
        unsafe {
            let (v0, v1) = load(low);
            let to = out.as_mut_ptr();
            let nibble = _mm256_set1_epi8(15);
            let high = _mm256_slli_epi16::<4>(_mm256_and_si256(v1, nibble));
            _mm256_storeu_si256(to.cast(), _mm256_or_si256(_mm256_and_si256(v0, nibble), high));

            let two = _mm256_set1_epi8(3);
            let shift = _mm_cvtsi32_si128((k & 4) as i32);
            let u0 = _mm256_and_si256(_mm256_srl_epi16(v0, shift), two);
            let u1 = _mm256_and_si256(_mm256_srl_epi16(v1, shift), two);
            let x = _mm256_or_si256(u0, _mm256_slli_epi16::<4>(u1));
            let upper = _mm_slli_epi16::<2>(_mm256_extracti128_si256::<1>(x));
            let at = to.add(8 * (k & 4) as usize);
            _mm_storeu_si128(at.cast(), _mm_or_si128(_mm256_castsi256_si128(x), upper));

            let up = _mm_cvtsi32_si128(7 - (k & 6) as i32);
            let bits = word(_mm256_sll_epi16(v0, up), _mm256_sll_epi16(v1, up));
            at.add(8 * (k & 2) as usize).cast::<u64>().write_unaligned(bits.to_le());
        }
    }

    #[inline(always)]
    unsafe fn unpack(bytes: &[u8; FIXED], k: u32) -> [u8; BLOCK] {
        // SAFETY: as above.
        unsafe {
            let from = bytes.as_ptr();
            let has = |bit: u32| _mm256_set1_epi8(-(((k / bit) & 1) as i8));
            let nibble = _mm256_and_si256(has(4), _mm256_set1_epi8(15));
            let n = _mm256_loadu_si256(from.cast());
            let n0 = _mm256_and_si256(n, nibble);
            let n1 = _mm256_and_si256(_mm256_srli_epi16::<4>(n), nibble);

            let from = from.add(8 * (k & 4) as usize);
            let x = _mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast()));
            let shift = _mm_cvtsi32_si128((k & 4) as i32);
            let two = _mm256_and_si256(has(2), _mm256_sll_epi16(_mm256_set1_epi8(3), shift));
            // To bits 0 and 4 of the lower and upper half, then up to where they belong.
            let down = _mm256_srlv_epi64(x, _mm256_setr_epi64x(0, 0, 2, 2));
            let u0 = _mm256_and_si256(_mm256_sll_epi16(down, shift), two);
            let u1 = _mm256_and_si256(_mm256_sll_epi16(_mm256_srli_epi16::<4>(down), shift), two);

            let bits = from.add(8 * (k & 2) as usize).cast::<u64>().read_unaligned();
            let one = _mm256_and_si256(has(1), _mm256_set1_epi8(1 << (k & 6)));
            let (b0, b1) = spread(bits, one);
            store(_mm256_or_si256(_mm256_or_si256(n0, u0), b0), _mm256_or_si256(_mm256_or_si256(n1, u1), b1))
        }
    }

    #[inline(always)]
    unsafe fn measure(block: &[u8; BLOCK]) -> (u32, u8) {
        // SAFETY: the caller's promise.
        unsafe {
            let (v0, v1) = load(block);
            let zero = _mm256_setzero_si256();
            let sums = _mm256_add_epi64(_mm256_sad_epu8(v0, zero), _mm256_sad_epu8(v1, zero));
            let sums = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            let any = _mm256_or_si256(v0, v1);
            let any = _mm_or_si128(_mm256_castsi256_si128(any), _mm256_extracti128_si256::<1>(any));
            let any = (_mm_cvtsi128_si64(any) | _mm_extract_epi64::<1>(any)) as u64;
            let any = any | any >> 32;
            let any = any | any >> 16;
            ((_mm_cvtsi128_si64(sums) + _mm_extract_epi64::<1>(sums)) as u32, (any | any >> 8) as u8)
        }
    }

    #[inline(always)]
    unsafe fn planes(quotients: &[u8; BLOCK]) -> [u64; 3] {
        // SAFETY: the caller's promise.
        unsafe {
            let (v0, v1) = load(quotients);
            [
                word(_mm256_slli_epi16::<7>(v0), _mm256_slli_epi16::<7>(v1)),
                word(_mm256_slli_epi16::<6>(v0), _mm256_slli_epi16::<6>(v1)),
                word(_mm256_slli_epi16::<5>(v0), _mm256_slli_epi16::<5>(v1)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn bytes(planes: [u64; 3]) -> [u8; BLOCK] {
        // SAFETY: the caller's promise.
        unsafe {
            let (a0, a1) = spread(planes[0], _mm256_set1_epi8(1));
            let (b0, b1) = spread(planes[1], _mm256_set1_epi8(2));
            let (c0, c1) = spread(planes[2], _mm256_set1_epi8(4));
            store(_mm256_or_si256(_mm256_or_si256(a0, b0), c0), _mm256_or_si256(_mm256_or_si256(a1, b1), c1))
        }
    }

    #[inline(always)]
    unsafe fn extract(value: u64, mask: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { _pext_u64(value, mask) }
    }

    #[inline(always)]
    unsafe fn deposit(value: u64, mask: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { _pdep_u64(value, mask) }
    }
}

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn load(bytes: &[u8; BLOCK]) -> (__m256i, __m256i) {
    // SAFETY: 64 bytes are two vectors.
    unsafe {
        let from = bytes.as_ptr().cast::<__m256i>();
        (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)))
    }
}

/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn store(a: __m256i, b: __m256i) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    // SAFETY: 64 bytes are two vectors.
    unsafe {
        let to = bytes.as_mut_ptr().cast::<__m256i>();
        _mm256_storeu_si256(to, a);
        _mm256_storeu_si256(to.add(1), b);
    }
    bytes
}

/// Bit 7 of each byte.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn word(a: __m256i, b: __m256i) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { u64::from(_mm256_movemask_epi8(a) as u32) | u64::from(_mm256_movemask_epi8(b) as u32) << 32 }
}

/// `one` in each byte whose bit is set.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn spread(bits: u64, one: __m256i) -> (__m256i, __m256i) {
    // SAFETY: the caller's promise.
    unsafe {
        let all = _mm256_set1_epi64x(bits as i64);
        let select = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        let eights = |first: i64| {
            let pick = |i: i64| (first + i) * 0x0101_0101_0101_0101;
            _mm256_setr_epi64x(pick(0), pick(1), pick(2), pick(3))
        };
        let half = |pick| {
            let bits = _mm256_and_si256(_mm256_shuffle_epi8(all, pick), select);
            _mm256_and_si256(_mm256_cmpeq_epi8(bits, select), one)
        };
        (half(eights(0)), half(eights(4)))
    }
}
