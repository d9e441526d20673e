//! Symbols by AVX-512: sixteen states a vector. On the way out tables are gathered; on the way in, where they have 64 bits for
//! a symbol, they are looked up one by one.
//!
//! As in the fast tier's kernels, closures are left out on purpose.

use std::arch::x86_64::*;

use super::context::OF;
use super::model::{BITS, MODELS, TOTAL};
use super::rans::{
    Bits, Chosen, GIVES, LEAST, MOST_START, Numbers, Portable, Reader, SHIFT, SIZE, START, STATES, Shares, Slots,
    Symbols, Writer,
};

/// A processor with AVX-512 F, BW, VL and VBMI, and POPCNT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The processor has what [`Avx512`] says, and the caller runs code compiled for it.
    #[inline(always)]
    pub unsafe fn new() -> Avx512 {
        Avx512(())
    }
}

/// States of a vector.
const SIXTEEN: usize = 16;

#[repr(C, align(64))]
struct Tables {
    /// The context of each metric.
    of: [u8; 256],
    /// The lower and the upper halves of the 64-bit numbers in two vectors.
    halves: [[u32; SIXTEEN]; 2],
    /// The even words of a vector; others do not matter.
    even: [u16; 2 * SIXTEEN],
    numbers: [u32; SIXTEEN],
}

static TABLES: Tables = {
    let mut t = Tables { of: OF, halves: [[0; SIXTEEN]; 2], even: [0; 2 * SIXTEEN], numbers: [0; SIXTEEN] };
    let mut i = 0;
    while i < SIXTEEN {
        t.halves[0][i] = 2 * i as u32;
        t.halves[1][i] = 2 * i as u32 + 1;
        t.even[i] = 2 * i as u16;
        t.numbers[i] = i as u32;
        i += 1;
    }
    t
};

impl Symbols for Avx512 {
    #[inline(always)]
    fn symbols(self, reader: &mut Reader<'_>, tables: &[Slots], numbers: &Numbers, metrics: &[u8], out: &mut [u8]) {
        let (metrics, metrics_left) = metrics.as_chunks::<STATES>();
        let (outs, outs_left) = out.as_chunks_mut::<STATES>();
        // All tables that there are numbers of.
        let most = numbers.by_context.iter().fold(0, |most, &number| most.max(number));
        let slots = tables[..=usize::from(most)].as_flattened();
        // SAFETY: `self` says that the processor has what is used; sixteen words are loaded of at least as many.
        unsafe {
            let from = reader.states.as_mut_ptr().cast::<__m512i>();
            let mut states = [_mm512_loadu_si512(from), _mm512_loadu_si512(from.add(1))];
            let of_context = _mm512_broadcast_i32x4(_mm_loadu_si128(numbers.by_context.as_ptr().cast()));
            let of = (&raw const TABLES.of).cast::<__m512i>();
            let a = _mm512_shuffle_epi8(of_context, _mm512_load_si512(of));
            let b = _mm512_shuffle_epi8(of_context, _mm512_load_si512(of.add(1)));
            let c = _mm512_shuffle_epi8(of_context, _mm512_load_si512(of.add(2)));
            let d = _mm512_shuffle_epi8(of_context, _mm512_load_si512(of.add(3)));
            for (metrics, out) in metrics.iter().zip(outs) {
                let Some(words) = reader.window() else { return };
                let metrics = _mm512_castsi256_si512(_mm256_loadu_si256(metrics.as_ptr().cast()));
                let low = _mm512_permutex2var_epi8(a, metrics, b);
                let high = _mm512_movepi8_mask(metrics);
                let numbers = _mm512_mask_mov_epi8(low, high, _mm512_permutex2var_epi8(c, metrics, d));
                let numbers = _mm512_castsi512_si256(numbers);
                let mut read = 0;
                macro_rules! sixteen {
                    ($group:literal) => {{
                        let table = _mm512_cvtepu8_epi32(_mm256_extracti128_si256::<$group>(numbers));
                        let slot = _mm512_and_si512(states[$group], _mm512_set1_epi32(TOTAL as i32 - 1));
                        let place = _mm512_or_si512(_mm512_slli_epi32::<{ BITS }>(table), slot);
                        // SAFETY: a place is of a table that `slots` has, as all contexts' are, and a slot of it.
                        let slots = _mm512_i32gather_epi32::<4>(place, slots.as_ptr().cast());
                        let share = _mm512_srli_epi32::<19>(slots);
                        let place =
                            _mm512_and_si512(_mm512_srli_epi32::<8>(slots), _mm512_set1_epi32(TOTAL as i32 - 1));
                        let above = _mm512_srli_epi32::<{ BITS }>(states[$group]);
                        let next = _mm512_add_epi32(_mm512_mullo_epi32(share, above), place);
                        let short = _mm512_cmplt_epi32_mask(next, _mm512_set1_epi32(LEAST as i32));
                        let sixteen = _mm512_cvtepu16_epi32(_mm256_loadu_si256(words.as_ptr().add(read).cast()));
                        let word = _mm512_maskz_expand_epi32(short, sixteen);
                        states[$group] = _mm512_mask_or_epi32(next, short, _mm512_slli_epi32::<16>(next), word);
                        read += short.count_ones() as usize;
                        _mm512_cvtepi32_epi8(slots)
                    }};
                }
                let (first, second) = (sixteen!(0), sixteen!(1));
                _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_set_m128i(second, first));
                reader.at += read;
            }
            _mm512_storeu_si512(from, states[0]);
            _mm512_storeu_si512(from.add(1), states[1]);
        }
        Portable.symbols(reader, tables, numbers, metrics_left, outs_left);
    }

    #[inline(always)]
    fn cells(self, metrics: &[u8], symbols: &[u8], out: &mut [u16]) {
        let (metrics, metrics_left) = metrics.as_chunks::<STATES>();
        let (symbols, symbols_left) = symbols.as_chunks::<STATES>();
        let (out, out_left) = out.as_chunks_mut::<STATES>();
        // SAFETY: `self` says that the processor has what is used; 32 bytes are half a vector, and as many words a whole one.
        unsafe {
            let of = (&raw const TABLES.of).cast::<__m512i>();
            let [a, b, c, d] = [
                _mm512_load_si512(of),
                _mm512_load_si512(of.add(1)),
                _mm512_load_si512(of.add(2)),
                _mm512_load_si512(of.add(3)),
            ];
            for ((metrics, symbols), out) in metrics.iter().zip(symbols).zip(out) {
                let metrics = _mm512_cvtepu8_epi16(_mm256_loadu_si256(metrics.as_ptr().cast()));
                let symbols = _mm512_cvtepu8_epi16(_mm256_loadu_si256(symbols.as_ptr().cast()));
                // Bytes between those of metrics are of metric 0, whose context is 0.
                let low = _mm512_permutex2var_epi8(a, metrics, b);
                let high = _mm512_movepi8_mask(metrics);
                let contexts = _mm512_mask_mov_epi8(low, high, _mm512_permutex2var_epi8(c, metrics, d));
                let cells = _mm512_or_si512(_mm512_slli_epi16::<8>(contexts), symbols);
                _mm512_storeu_si512(out.as_mut_ptr().cast(), cells);
            }
        }
        Portable.cells(metrics_left, symbols_left, out_left);
    }

    #[inline(always)]
    fn choose(self, chosen: &Chosen, cells: &mut [u16], first: usize, escaped: &mut Vec<u32>) {
        let (cells, left) = cells.as_chunks_mut::<STATES>();
        let whole = cells.len();
        escaped.reserve((whole + 1) * STATES);
        // SAFETY: `self` says that the processor has what is used; 32 words are a vector. No more than as many are stored
        // after those that are there, for all of which and a vector more there is room.
        unsafe {
            let models = _mm512_broadcast_i32x4(_mm_loadu_si128(chosen.models.as_ptr().cast()));
            let limits = _mm512_broadcast_i32x4(_mm_loadu_si128(chosen.limits.as_ptr().cast()));
            let below = _mm512_set1_epi16(255);
            let numbers = (&raw const TABLES.numbers).cast::<__m512i>();
            let mut numbers = _mm512_add_epi32(_mm512_load_si512(numbers), _mm512_set1_epi32(first as i32));
            let mut len = escaped.len();
            for cells in cells {
                let at = cells.as_mut_ptr().cast::<__m512i>();
                let cells = _mm512_loadu_si512(at);
                let (contexts, symbols) = (_mm512_srli_epi16::<8>(cells), _mm512_and_si512(cells, below));
                let models = _mm512_slli_epi16::<8>(_mm512_shuffle_epi8(models, contexts));
                _mm512_storeu_si512(at, _mm512_or_si512(models, symbols));
                // Upper bytes are of context 0, and not looked at.
                let limits = _mm512_and_si512(_mm512_shuffle_epi8(limits, contexts), below);
                let set = _mm512_cmpge_epu16_mask(symbols, limits);
                // A branch would be mispredicted every few vectors.
                for set in [set as u16, (set >> SIXTEEN) as u16] {
                    let places = _mm512_maskz_compress_epi32(set, numbers);
                    _mm512_storeu_si512(escaped.as_mut_ptr().add(len).cast(), places);
                    len += set.count_ones() as usize;
                    numbers = _mm512_add_epi32(numbers, _mm512_set1_epi32(SIXTEEN as i32));
                }
            }
            escaped.set_len(len);
        }
        Portable.choose(chosen, left, first + whole * STATES, escaped);
    }

    #[inline(always)]
    fn best(self, bits: &Bits, counts: &[[i16; 2]]) -> u8 {
        // SAFETY: `self` says that the processor has what is used; sixteen pairs are a vector, of which a row has whole
        // fours.
        unsafe {
            let numbers = _mm512_load_si512((&raw const TABLES.numbers).cast());
            let (mut least, mut best) = (_mm512_set1_epi32(i32::MAX), _mm512_setzero_si512());
            for first in (0..MODELS).step_by(4 * SIXTEEN) {
                let mut sums = [_mm512_setzero_si512(); 4];
                for (bits, &[a, b]) in bits.0.iter().zip(counts) {
                    let pair = _mm512_set1_epi32(i32::from(a) & 0xffff | i32::from(b) << 16);
                    let from = bits[first..first + 4 * SIXTEEN].as_ptr().cast::<__m512i>();
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(_mm512_load_si512(from.add(i)), pair));
                    }
                }
                for (i, sum) in sums.into_iter().enumerate() {
                    let less = _mm512_cmplt_epi32_mask(sum, least);
                    let models = _mm512_add_epi32(numbers, _mm512_set1_epi32((first + i * SIXTEEN) as i32));
                    least = _mm512_mask_mov_epi32(least, less, sum);
                    best = _mm512_mask_mov_epi32(best, less, models);
                }
            }
            let same = _mm512_cmpeq_epi32_mask(least, _mm512_set1_epi32(_mm512_reduce_min_epi32(least)));
            _mm512_mask_reduce_min_epi32(same, best) as u8
        }
    }

    #[inline(always)]
    fn put(self, writer: &mut Writer, shares: &Shares, cells: &[u16]) {
        let (cells, left) = cells.as_chunks::<STATES>();
        Portable.put(writer, shares, left);
        let mut all = writer.states;
        let (words, words_at) = writer.room(cells.len() * STATES);
        let mut at = *words_at;
        // SAFETY: `self` says that the processor has what is used. No sixteen states give more than the sixteen words that
        // are stored before those put so far, for all of which there is room.
        unsafe {
            let to = words.as_mut_ptr();
            let from = all.as_mut_ptr().cast::<__m512i>();
            let halves = (&raw const TABLES.halves).cast::<__m512i>();
            let (lower, upper) = (_mm512_load_si512(halves), _mm512_load_si512(halves.add(1)));
            let even = _mm512_load_si512((&raw const TABLES.even).cast());
            let mut states = [_mm512_loadu_si512(from), _mm512_loadu_si512(from.add(1))];
            for cells in cells.iter().rev() {
                macro_rules! sixteen {
                    ($group:literal) => {{
                        const AT: usize = $group * SIXTEEN;
                        macro_rules! shares {
                            ($at:expr, $i0:expr, $i1:expr, $i2:expr, $i3:expr, $i4:expr, $i5:expr, $i6:expr, $i7:expr) => {
                                _mm512_setr_epi64(
                                    shares[usize::from(cells[$at + $i0])] as i64,
                                    shares[usize::from(cells[$at + $i1])] as i64,
                                    shares[usize::from(cells[$at + $i2])] as i64,
                                    shares[usize::from(cells[$at + $i3])] as i64,
                                    shares[usize::from(cells[$at + $i4])] as i64,
                                    shares[usize::from(cells[$at + $i5])] as i64,
                                    shares[usize::from(cells[$at + $i6])] as i64,
                                    shares[usize::from(cells[$at + $i7])] as i64,
                                )
                            };
                        }
                        let a = shares!(AT, 0, 1, 2, 3, 4, 5, 6, 7);
                        let b = shares!(AT + 8, 0, 1, 2, 3, 4, 5, 6, 7);
                        let reciprocal = _mm512_permutex2var_epi32(a, lower, b);
                        let parts = _mm512_permutex2var_epi32(a, upper, b);

                        let x = states[$group];
                        let size = _mm512_and_si512(parts, _mm512_set1_epi32(SIZE as i32));
                        let give = _mm512_cmpge_epi32_mask(x, _mm512_slli_epi32::<{ GIVES }>(size));
                        let given = give.count_ones();
                        // Those that are given, moved together; the lower halves of these to the end.
                        let low = _mm512_maskz_compress_epi32(give, x);
                        let last = _mm512_add_epi16(even, _mm512_set1_epi16(2 * given as i16));
                        let low = _mm512_castsi512_si256(_mm512_permutexvar_epi16(last, low));
                        _mm256_storeu_si256(to.add(at - 2 * SIXTEEN).cast(), low);
                        at -= 2 * given as usize;
                        let x = _mm512_mask_srli_epi32::<16>(x, give, x);
                        let odd = _mm512_mul_epu32(_mm512_srli_epi64::<32>(x), _mm512_srli_epi64::<32>(reciprocal));
                        let even = _mm512_srli_epi64::<32>(_mm512_mul_epu32(x, reciprocal));
                        let quotient = _mm512_mask_mov_epi32(even, 0xaaaa, odd);
                        let quotient = _mm512_srlv_epi32(quotient, _mm512_srli_epi32::<SHIFT>(parts));
                        let start = _mm512_and_si512(
                            _mm512_srli_epi32::<START>(parts),
                            _mm512_set1_epi32(MOST_START as i32),
                        );
                        let rest = _mm512_sub_epi32(_mm512_set1_epi32(TOTAL as i32), size);
                        states[$group] =
                            _mm512_add_epi32(_mm512_add_epi32(x, start), _mm512_mullo_epi32(quotient, rest));
                    }};
                }
                sixteen!(1);
                sixteen!(0);
            }
            _mm512_storeu_si512(from, states[0]);
            _mm512_storeu_si512(from.add(1), states[1]);
        }
        *words_at = at;
        writer.states = all;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::path::Path;

    #[test]
    fn models_are_those_that_portable_code_finds() {
        if Path::available().any(|path| path == Path::Avx512) {
            // SAFETY: the processor has what is needed.
            super::super::rans::tests::finds_the_same_models(unsafe { Avx512::new() });
        }
    }
}
