//! Symbols by AVX2: eight states a vector.
//!
//! Tables are looked up one by one, which is as fast as gathering; all before and after that is vector work. States that
//! fall short take the next words in their order, which a table knows for each set of them.
//!
//! As in the fast tier's kernels, closures are left out on purpose.

use std::arch::x86_64::*;

use super::context::{CONTEXTS, OF};
use super::model::{BITS, MODELS, TOTAL};
use super::rans::{
    Bits, Chosen, GIVES, LEAST, MOST_START, Numbers, Portable, Reader, SHIFT, SIZE, START, STATES, Shares, Slots,
    Symbols, Writer,
};

/// A processor with AVX2 and POPCNT.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor has what [`Avx2`] says, and the caller runs code compiled for it.
    #[inline(always)]
    pub unsafe fn new() -> Avx2 {
        Avx2(())
    }
}

/// States of a vector.
const EIGHT: usize = 8;

/// Bytes twice, for both halves of a vector.
#[repr(C, align(32))]
struct Twice([[u8; 16]; 2]);

/// The context of each metric below 16; of the others by their upper four bits the least one, and the last of the lower
/// four bits that has it.
static LOW: Twice = Twice([contexts()[0]; 2]);
static HIGH: Twice = Twice([contexts()[1]; 2]);
static LAST: Twice = Twice([contexts()[2]; 2]);

const fn contexts() -> [[u8; 16]; 3] {
    let mut out = [[0; 16], [0; 16], [15; 16]];
    let mut i = 0;
    while i < 16 {
        out[0][i] = OF[i];
        out[1][i] = OF[16 * i];
        let mut low = 15;
        while OF[16 * i + low] > OF[16 * i] {
            low -= 1;
        }
        out[2][i] = low as u8;
        i += 1;
    }
    out
}

/// Of each set of states that take words, how many take one before each.
static BEFORE: [[u8; EIGHT]; 256] = {
    let mut out = [[0; EIGHT]; 256];
    let mut set = 0;
    while set < 256 {
        let mut i = 0;
        while i < EIGHT {
            out[set][i] = (set & ((1 << i) - 1)).count_ones() as u8;
            i += 1;
        }
        set += 1;
    }
    out
};

/// Of each set of states that give words, where the bytes of these are; they come last.
static GIVEN: [[u8; 2 * EIGHT]; 256] = {
    let mut out = [[0; 2 * EIGHT]; 256];
    let mut set = 0usize;
    while set < 256 {
        let (mut i, mut at) = (EIGHT, 2 * EIGHT);
        while i > 0 {
            i -= 1;
            if set >> i & 1 == 1 {
                at -= 2;
                out[set][at] = 2 * i as u8;
                out[set][at + 1] = 2 * i as u8 + 1;
            }
        }
        set += 1;
    }
    out
};

impl Symbols for Avx2 {
    #[inline(always)]
    fn symbols(self, reader: &mut Reader<'_>, tables: &[Slots], numbers: &Numbers, metric: &[u8], out: &mut [u8]) {
        let (metrics, metrics_left) = metric.as_chunks::<STATES>();
        let (outs, outs_left) = out.as_chunks_mut::<STATES>();
        // All tables that there are numbers of.
        let most = numbers.by_context.iter().fold(0, |most, &number| most.max(number));
        let slots = tables[..=usize::from(most)].as_flattened();
        // SAFETY: `self` says that the processor has AVX2.
        unsafe {
            let from = reader.states.as_ptr().cast::<__m256i>();
            let mut states = [
                _mm256_loadu_si256(from),
                _mm256_loadu_si256(from.add(1)),
                _mm256_loadu_si256(from.add(2)),
                _mm256_loadu_si256(from.add(3)),
            ];
            let of_context: &[u8; CONTEXTS] = &numbers.by_context;
            let of_context = _mm256_broadcastsi128_si256(_mm_loadu_si128(of_context.as_ptr().cast()));
            for (metric, out) in metrics.iter().zip(outs) {
                let Some(words) = reader.window() else { return };
                let numbers = _mm256_shuffle_epi8(of_context, contexts_of(_mm256_loadu_si256(metric.as_ptr().cast())));
                let (low, high) = (_mm256_castsi256_si128(numbers), _mm256_extracti128_si256::<1>(numbers));
                let mut places = [0u32; STATES];
                macro_rules! places {
                    ($group:literal, $numbers:expr) => {{
                        let table = _mm256_slli_epi32::<{ BITS as i32 }>(_mm256_cvtepu8_epi32($numbers));
                        let slot = _mm256_and_si256(states[$group], _mm256_set1_epi32(TOTAL as i32 - 1));
                        let to = places.as_mut_ptr().add($group * EIGHT);
                        _mm256_storeu_si256(to.cast(), _mm256_or_si256(table, slot));
                    }};
                }
                places!(0, low);
                places!(1, _mm_srli_si128::<8>(low));
                places!(2, high);
                places!(3, _mm_srli_si128::<8>(high));

                // SAFETY: a place is of a table that `slots` has, as all contexts' are, and a slot of it.
                macro_rules! slot {
                    ($i:expr) => {
                        *slots.get_unchecked(places[$i] as usize) as i32
                    };
                }
                let mut read = 0;
                macro_rules! eight {
                    ($group:literal) => {{
                        const AT: usize = $group * EIGHT;
                        let slots = _mm256_setr_epi32(
                            slot!(AT),
                            slot!(AT + 1),
                            slot!(AT + 2),
                            slot!(AT + 3),
                            slot!(AT + 4),
                            slot!(AT + 5),
                            slot!(AT + 6),
                            slot!(AT + 7),
                        );
                        let share = _mm256_srli_epi32::<19>(slots);
                        let place =
                            _mm256_and_si256(_mm256_srli_epi32::<8>(slots), _mm256_set1_epi32(TOTAL as i32 - 1));
                        let above = _mm256_srli_epi32::<{ BITS as i32 }>(states[$group]);
                        let next = _mm256_add_epi32(_mm256_mullo_epi32(share, above), place);
                        let short = _mm256_cmpgt_epi32(_mm256_set1_epi32(LEAST as i32), next);
                        let set = _mm256_movemask_ps(_mm256_castsi256_ps(short)) as usize & 255;
                        // Of the 32 words no more are passed than three groups before this one have states.
                        let eight = _mm_loadu_si128(words.as_ptr().add(read).cast());
                        let before = _mm256_cvtepu8_epi32(_mm_loadl_epi64(BEFORE[set].as_ptr().cast()));
                        let word = _mm256_permutevar8x32_epi32(_mm256_cvtepu16_epi32(eight), before);
                        let refilled = _mm256_or_si256(_mm256_slli_epi32::<16>(next), word);
                        states[$group] = _mm256_blendv_epi8(next, refilled, short);
                        read += set.count_ones() as usize;
                        _mm256_and_si256(slots, _mm256_set1_epi32(255))
                    }};
                }
                let (a, b, c, d) = (eight!(0), eight!(1), eight!(2), eight!(3));
                let fours = _mm256_packus_epi16(_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
                let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_permutevar8x32_epi32(fours, order));
                reader.at += read;
            }
            let to = reader.states.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(to, states[0]);
            _mm256_storeu_si256(to.add(1), states[1]);
            _mm256_storeu_si256(to.add(2), states[2]);
            _mm256_storeu_si256(to.add(3), states[3]);
        }
        Portable.symbols(reader, tables, numbers, metrics_left, outs_left);
    }

    #[inline(always)]
    fn cells(self, metrics: &[u8], symbols: &[u8], out: &mut [u16]) {
        let (metrics, metrics_left) = metrics.as_chunks::<STATES>();
        let (symbols, symbols_left) = symbols.as_chunks::<STATES>();
        let (out, out_left) = out.as_chunks_mut::<STATES>();
        for ((metrics, symbols), out) in metrics.iter().zip(symbols).zip(out) {
            // SAFETY: `self` says that the processor has AVX2; 32 bytes are one vector, and as many words are two.
            unsafe {
                let contexts = contexts_of(_mm256_loadu_si256(metrics.as_ptr().cast()));
                let symbols = _mm256_loadu_si256(symbols.as_ptr().cast());
                let (a, b) = (_mm256_unpacklo_epi8(symbols, contexts), _mm256_unpackhi_epi8(symbols, contexts));
                let to = out.as_mut_ptr().cast::<__m256i>();
                _mm256_storeu_si256(to, _mm256_permute2x128_si256::<0x20>(a, b));
                _mm256_storeu_si256(to.add(1), _mm256_permute2x128_si256::<0x31>(a, b));
            }
        }
        Portable.cells(metrics_left, symbols_left, out_left);
    }

    #[inline(always)]
    fn choose(self, chosen: &Chosen, cells: &mut [u16], first: usize, escaped: &mut Vec<u32>) {
        const SIXTEEN: usize = STATES / 2;
        let (cells, left) = cells.as_chunks_mut::<SIXTEEN>();
        let whole = cells.len();
        for (number, cells) in cells.iter_mut().enumerate() {
            // SAFETY: `self` says that the processor has AVX2; sixteen words are a vector.
            unsafe {
                let models = _mm256_broadcastsi128_si256(_mm_loadu_si128(chosen.models.as_ptr().cast()));
                let limits = _mm256_broadcastsi128_si256(_mm_loadu_si128(chosen.limits.as_ptr().cast()));
                let below = _mm256_set1_epi16(255);
                let at = cells.as_mut_ptr().cast::<__m256i>();
                let cells = _mm256_loadu_si256(at);
                let (contexts, symbols) = (_mm256_srli_epi16::<8>(cells), _mm256_and_si256(cells, below));
                let models = _mm256_slli_epi16::<8>(_mm256_shuffle_epi8(models, contexts));
                _mm256_storeu_si256(at, _mm256_or_si256(models, symbols));
                // Upper bytes are of context 0, and not looked at.
                let limits = _mm256_and_si256(_mm256_shuffle_epi8(limits, contexts), below);
                let known = _mm256_cmpgt_epi16(limits, symbols);
                let mut set = !_mm256_movemask_epi8(known) as u32 & 0x5555_5555;
                while set != 0 {
                    escaped.push((first + number * SIXTEEN) as u32 + set.trailing_zeros() / 2);
                    set &= set - 1;
                }
            }
        }
        Portable.choose(chosen, left, first + whole * SIXTEEN, escaped);
    }

    #[inline(always)]
    fn best(self, bits: &Bits, counts: &[[i16; 2]]) -> u8 {
        // SAFETY: `self` says that the processor has AVX2; eight pairs are a vector, of which a row has whole fours.
        unsafe {
            let numbers = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let (mut least, mut best) = (_mm256_set1_epi32(i32::MAX), _mm256_setzero_si256());
            for first in (0..MODELS).step_by(4 * EIGHT) {
                let mut sums = [_mm256_setzero_si256(); 4];
                for (bits, &[a, b]) in bits.0.iter().zip(counts) {
                    let pair = _mm256_set1_epi32(i32::from(a) & 0xffff | i32::from(b) << 16);
                    let from = bits[first..first + 4 * EIGHT].as_ptr().cast::<__m256i>();
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_loadu_si256(from.add(i)), pair));
                    }
                }
                for (i, sum) in sums.into_iter().enumerate() {
                    let less = _mm256_cmpgt_epi32(least, sum);
                    let models = _mm256_add_epi32(numbers, _mm256_set1_epi32((first + i * EIGHT) as i32));
                    least = _mm256_blendv_epi8(least, sum, less);
                    best = _mm256_blendv_epi8(best, models, less);
                }
            }
            let (mut sums, mut models) = ([0i32; EIGHT], [0i32; EIGHT]);
            _mm256_storeu_si256(sums.as_mut_ptr().cast(), least);
            _mm256_storeu_si256(models.as_mut_ptr().cast(), best);
            let mut best = (sums[0], models[0]);
            for i in 1..EIGHT {
                best = best.min((sums[i], models[i]));
            }
            best.1 as u8
        }
    }

    #[inline(always)]
    fn put(self, writer: &mut Writer, shares: &Shares, cells: &[u16]) {
        let (cells, left) = cells.as_chunks::<STATES>();
        Portable.put(writer, shares, left);
        let mut all = writer.states;
        let (words, words_at) = writer.room(cells.len() * STATES);
        let mut at = *words_at;
        // SAFETY: `self` says that the processor has AVX2. No eight states give more than the eight words that are stored
        // before those put so far, for all of which there is room.
        unsafe {
            let to = words.as_mut_ptr();
            let from = all.as_mut_ptr().cast::<__m256i>();
            let mut states = [
                _mm256_loadu_si256(from),
                _mm256_loadu_si256(from.add(1)),
                _mm256_loadu_si256(from.add(2)),
                _mm256_loadu_si256(from.add(3)),
            ];
            for cells in cells.iter().rev() {
                macro_rules! eight {
                    ($group:literal) => {{
                        const AT: usize = $group * EIGHT;
                        macro_rules! share {
                            ($i:expr) => {
                                shares[usize::from(cells[AT + $i])] as i64
                            };
                        }
                        // Two halves of the vector each, whose lower and upper halves are then put together.
                        let a = _mm256_setr_epi64x(share!(0), share!(1), share!(4), share!(5));
                        let b = _mm256_setr_epi64x(share!(2), share!(3), share!(6), share!(7));
                        let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
                        let reciprocal = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(a, b));
                        let parts = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(a, b));

                        let x = states[$group];
                        let size = _mm256_and_si256(parts, _mm256_set1_epi32(SIZE as i32));
                        let keep = _mm256_cmpgt_epi32(_mm256_slli_epi32::<{ GIVES as i32 }>(size), x);
                        let set = !_mm256_movemask_ps(_mm256_castsi256_ps(keep)) as usize & 255;
                        let low = _mm256_and_si256(x, _mm256_set1_epi32(0xffff));
                        let low = _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
                        let given = _mm_shuffle_epi8(low, _mm_loadu_si128(GIVEN[set].as_ptr().cast()));
                        _mm_storeu_si128(to.add(at - 2 * EIGHT).cast(), given);
                        at -= 2 * set.count_ones() as usize;
                        let x = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(x), x, keep);
                        let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(x), _mm256_srli_epi64::<32>(reciprocal));
                        let even = _mm256_srli_epi64::<32>(_mm256_mul_epu32(x, reciprocal));
                        let quotient = _mm256_blend_epi32::<0b1010_1010>(even, odd);
                        let quotient = _mm256_srlv_epi32(quotient, _mm256_srli_epi32::<{ SHIFT as i32 }>(parts));
                        let start = _mm256_and_si256(
                            _mm256_srli_epi32::<{ START as i32 }>(parts),
                            _mm256_set1_epi32(MOST_START as i32),
                        );
                        let rest = _mm256_sub_epi32(_mm256_set1_epi32(TOTAL as i32), size);
                        states[$group] =
                            _mm256_add_epi32(_mm256_add_epi32(x, start), _mm256_mullo_epi32(quotient, rest));
                    }};
                }
                eight!(3);
                eight!(2);
                eight!(1);
                eight!(0);
            }
            for (i, states) in states.into_iter().enumerate() {
                _mm256_storeu_si256(from.add(i), states);
            }
        }
        *words_at = at;
        writer.states = all;
    }
}

/// The contexts of 32 metrics.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn contexts_of(metrics: __m256i) -> __m256i {
    // SAFETY: the caller's promise; the tables are vectors.
    unsafe {
        let nibble = _mm256_set1_epi8(15);
        let (low, high) =
            (_mm256_and_si256(metrics, nibble), _mm256_and_si256(_mm256_srli_epi16::<4>(metrics), nibble));
        let of_low = _mm256_shuffle_epi8(_mm256_load_si256((&raw const LOW).cast()), low);
        let of_high = _mm256_shuffle_epi8(_mm256_load_si256((&raw const HIGH).cast()), high);
        let last = _mm256_shuffle_epi8(_mm256_load_si256((&raw const LAST).cast()), high);
        let of_high = _mm256_sub_epi8(of_high, _mm256_cmpgt_epi8(low, last));
        _mm256_blendv_epi8(of_high, of_low, _mm256_cmpeq_epi8(high, _mm256_setzero_si256()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_those_of_the_table() {
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        let all: [u8; 256] = std::array::from_fn(|i| i as u8);
        for (metrics, expected) in all.as_chunks::<32>().0.iter().zip(OF.as_chunks::<32>().0) {
            let mut out = [0; 32];
            // SAFETY: the processor has AVX2.
            unsafe {
                let contexts = contexts_of(_mm256_loadu_si256(metrics.as_ptr().cast()));
                _mm256_storeu_si256(out.as_mut_ptr().cast(), contexts);
            }
            assert_eq!(out, *expected);
        }
    }
    #[test]
    fn models_are_those_that_portable_code_finds() {
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            super::super::rans::tests::finds_the_same_models(unsafe { Avx2::new() });
        }
    }
}
