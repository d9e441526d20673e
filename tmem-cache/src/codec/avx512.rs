//! Blocks by AVX-512: a block is one register, a mask one mask register.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::block::{BLOCK, FIXED, Kernel};

/// Processors with AVX-512 F, BW, DQ and VL, and what [`Avx2`] needs.
pub(crate) struct Avx512;

impl Kernel for Avx512 {
    #[inline(always)]
    unsafe fn pack(low: &[u8; BLOCK], k: u32, out: &mut [u8; FIXED]) {
        // SAFETY: the caller's promise; all addresses lie in the arrays: the last store ends at 32 + 16 + 8.
        unsafe {
            let v = _mm512_loadu_si512(low.as_ptr().cast());
            let to = out.as_mut_ptr();
            let nibbles = _mm512_and_si512(v, _mm512_set1_epi8(15));
            let high = _mm256_slli_epi16::<4>(_mm512_extracti64x4_epi64::<1>(nibbles));
            _mm256_storeu_si256(to.cast(), _mm256_or_si256(_mm512_castsi512_si256(nibbles), high));

            let u = _mm512_and_si512(_mm512_srl_epi16(v, _mm_cvtsi32_si128((k & 4) as i32)), _mm512_set1_epi8(3));
            let apart = _mm512_sllv_epi64(u, _mm512_setr_epi64(0, 0, 2, 2, 4, 4, 6, 6));
            let two = _mm256_or_si256(_mm512_castsi512_si256(apart), _mm512_extracti64x4_epi64::<1>(apart));
            let one = _mm_or_si128(_mm256_castsi256_si128(two), _mm256_extracti128_si256::<1>(two));
            let at = to.add(8 * (k & 4) as usize);
            _mm_storeu_si128(at.cast(), one);

            let bits = _mm512_test_epi8_mask(v, _mm512_set1_epi8(1 << (k & 6)));
            at.add(8 * (k & 2) as usize).cast::<u64>().write_unaligned(bits.to_le());
        }
    }

    #[inline(always)]
    unsafe fn unpack(bytes: &[u8; FIXED], k: u32) -> [u8; BLOCK] {
        // SAFETY: as above.
        unsafe {
            let from = bytes.as_ptr();
            let has = |bit: u32| 0u64.wrapping_sub(u64::from((k / bit) & 1));
            let n = _mm256_loadu_si256(from.cast());
            let n = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(n), _mm256_srli_epi16::<4>(n));
            let n = _mm512_maskz_mov_epi8(has(4), _mm512_and_si512(n, _mm512_set1_epi8(15)));

            let from = from.add(8 * (k & 4) as usize);
            let x = _mm512_broadcast_i32x4(_mm_loadu_si128(from.cast()));
            let u =
                _mm512_and_si512(_mm512_srlv_epi64(x, _mm512_setr_epi64(0, 0, 2, 2, 4, 4, 6, 6)), _mm512_set1_epi8(3));
            let u = _mm512_maskz_mov_epi8(has(2), _mm512_sll_epi16(u, _mm_cvtsi32_si128((k & 4) as i32)));

            let bits = u64::from_le(from.add(8 * (k & 2) as usize).cast::<u64>().read_unaligned());
            let b = _mm512_maskz_mov_epi8(bits & has(1), _mm512_set1_epi8(1 << (k & 6)));
            store(_mm512_or_si512(_mm512_or_si512(n, u), b))
        }
    }

    #[inline(always)]
    unsafe fn measure(block: &[u8; BLOCK]) -> (u32, u8) {
        // SAFETY: the caller's promise.
        unsafe { Avx2::measure(block) }
    }

    #[inline(always)]
    unsafe fn planes(quotients: &[u8; BLOCK]) -> [u64; 3] {
        // SAFETY: the caller's promise; 64 bytes are one vector.
        unsafe {
            let v = _mm512_loadu_si512(quotients.as_ptr().cast());
            [1, 2, 4].map(|bit| _mm512_test_epi8_mask(v, _mm512_set1_epi8(bit)))
        }
    }

    #[inline(always)]
    unsafe fn bytes(planes: [u64; 3]) -> [u8; BLOCK] {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c] = planes;
            let a = _mm512_maskz_mov_epi8(a, _mm512_set1_epi8(1));
            let b = _mm512_maskz_mov_epi8(b, _mm512_set1_epi8(2));
            let c = _mm512_maskz_mov_epi8(c, _mm512_set1_epi8(4));
            store(_mm512_or_si512(_mm512_or_si512(a, b), c))
        }
    }

    #[inline(always)]
    unsafe fn extract(value: u64, mask: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { Avx2::extract(value, mask) }
    }

    #[inline(always)]
    unsafe fn deposit(value: u64, mask: u64) -> u64 {
        // SAFETY: the caller's promise.
        unsafe { Avx2::deposit(value, mask) }
    }
}

/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn store(v: __m512i) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    // SAFETY: 64 bytes are one vector.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), v) };
    bytes
}
