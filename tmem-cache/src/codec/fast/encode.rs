//! One stripe to bytes.

use std::collections::TryReserveError;

use super::super::bits::{BitWriter, MOST};
use super::kernel::{BYTES, Kernel, Masks};
use super::predict::{Aligned, Differences, Predictor};
use super::sort::sort;
use super::{
    BLOCK, CHUNK, Geometry, Mode, SIZES, Task, blocks, codes, exceptions, low_bits, most_codes, most_room, reserve,
};

/// Of so many vectors one is looked at to choose a mode.
const EVERY: usize = 16;

/// A block of which no more quotients than these are not 0 may be smaller with exceptions.
const FEW: u32 = 5;

/// So many of such blocks in a chunk, two for each that is, make it worth looking.
const WORTH: usize = 8;

/// After so many blocks of a chunk that would not, one after the other, the rest of it is left alone.
const PATIENCE: u32 = 16;

/// Room for one stripe in work.
#[derive(Debug, Default)]
pub(crate) struct Room {
    modes: Vec<u8>,
    codes: Vec<u8>,
    pairs: Vec<u8>,
    fields: Vec<u8>,
    masks: Vec<u8>,
    exceptions: Vec<u8>,
}

impl Room {
    /// Room for a stripe of so many bytes.
    pub(crate) fn reserve(&mut self, stripe: usize) -> Result<(), TryReserveError> {
        let Room { modes, codes, pairs, fields, masks, exceptions } = self;
        reserve(modes, stripe / CHUNK + 1)?;
        [codes, pairs].into_iter().try_for_each(|room| reserve(room, most_codes(stripe)))?;
        // Exceptions are taken only where they are fewer bytes than the fields they stand for.
        [fields, masks, exceptions].into_iter().try_for_each(|room| reserve(room, most_room(stripe)))
    }
}

/// Appends the coded stripe to `out`.
#[inline(always)]
pub(crate) fn encode<K: Kernel, const N: usize, const WIDE: bool>(
    kernel: K,
    task: &Task<'_>,
    samples: &[u8],
    room: &mut Room,
    out: &mut Vec<u8>,
) {
    let count = blocks(samples.len(), N, WIDE);
    let Room { modes, codes, pairs, fields, masks, exceptions } = room;
    modes.clear();
    exceptions.clear();
    codes.clear();
    codes.resize(count, 0);
    // As much as blocks ever have, and what a store beyond the last one writes.
    let most = samples.len().next_multiple_of(N * BYTES) + BYTES;
    grow(fields, most);
    grow(masks, most);
    // Where they are does not change from here on.
    let (fields, masks) = (fields.as_mut_slice(), masks.as_mut_slice());

    let predictor = Predictor::<'_, K, WIDE> { kernel, geometry: Geometry::of(task.plane), reference: task.reference };
    // Differences, then residuals.
    let Aligned(residuals) = &mut Aligned([[0; BYTES]; CHUNK / BYTES]);
    let mut masks_here = [Masks::default(); CHUNK / BLOCK];
    // Where exceptions were worth their while in the chunk before, they are looked for; and in the first one.
    let mut codes_excepted = [(0, 0); CHUNK / BLOCK];
    let mut worth = WORTH;
    let mut fields_len = 0;
    let mut bits = BitWriter::default();
    let mut codes_left = codes.as_mut_slice();
    for start in (0..samples.len()).step_by(CHUNK) {
        let mode = predict(&predictor, samples, start, residuals);
        modes.push(mode as u8);

        let bytes = CHUNK.min(samples.len() - start);
        let codes_here;
        (codes_here, codes_left) = std::mem::take(&mut codes_left).split_at_mut(blocks(bytes, N, WIDE));
        let (units, _) = residuals.as_chunks_mut::<N>();
        // The next chunk comes while this one is coded.
        let ahead = start + CHUNK..start + 2 * CHUNK;
        if WIDE {
            for ((unit, code), at) in units.iter_mut().zip(&mut *codes_here).zip(ahead.step_by(N * BYTES)) {
                fetch::<_, N>(kernel, task, samples, at);
                let (a, b) = (kernel.load(&unit[0]), kernel.load(&unit[1]));
                let (a, b) = (kernel.zigzag::<true>(a), kernel.zigzag::<true>(b));
                kernel.store(a, &mut unit[0]);
                kernel.store(b, &mut unit[1]);
                *code = code_of::<WIDE>(kernel.most_words(a, b));
            }
        } else {
            for ((unit, codes), at) in
                units.iter_mut().zip(codes_here.chunks_exact_mut(N)).zip(ahead.step_by(N * BYTES))
            {
                fetch::<_, N>(kernel, task, samples, at);
                let mut v = [kernel.zero(); N];
                for i in 0..N {
                    v[i] = kernel.load(&unit[i]);
                }
                let v = sort::<K, N>(kernel, v);
                for i in 0..N {
                    kernel.store(v[i], &mut unit[i]);
                    codes[i] = code_of::<WIDE>(kernel.most(v[i]));
                }
            }
        }

        let (mut excepted, mut missed) = (0, 0);
        if !WIDE && worth >= WORTH {
            for block in 0..codes_here.len() {
                let code = codes_here[block];
                if code == 0 {
                    continue;
                }
                let v = kernel.load(&residuals[block]);
                let Some(choice) = exceptions::choose(kernel, v, k_of::<WIDE>(code)) else {
                    missed += 1;
                    if missed == PATIENCE {
                        break;
                    }
                    continue;
                };
                choice.put(&residuals[block], exceptions);
                kernel.store(kernel.below(v, choice.least), &mut residuals[block]);
                // What is left is a block like any other, until it is written.
                codes_here[block] = exceptions::width(choice.code);
                codes_excepted[excepted] = (block, choice.code);
                (excepted, missed) = (excepted + 1, 0);
            }
        }

        let mut block = 0;
        while block < codes_here.len() {
            let code = codes_here[block];
            if code == 0 {
                masks_here[block] = Masks::default();
                block += 1;
                continue;
            }
            let k = k_of::<WIDE>(code);
            let (low, high, q);
            if WIDE {
                let (a, b) = (kernel.load(&residuals[2 * block]), kernel.load(&residuals[2 * block + 1]));
                (low, high, q) = kernel.cut_words(a, b, k);
            } else {
                (low, q) = kernel.cut(kernel.load(&residuals[block]), k);
                high = low;
            }
            let last = k + 1 == bits_of::<WIDE>();
            let of_block = if last { Masks::default() } else { kernel.masks(&q) };
            masks_here[block] = of_block;
            if of_block.counts[0].max(of_block.counts[1]) > MOST {
                codes_here[block] = code_of_k::<WIDE>(k + 1);
                continue;
            }
            let to = &mut fields[fields_len..];
            if WIDE && k >= 8 {
                kernel.store(low, first(to));
                kernel.pack(high, k - 7, first(&mut to[BYTES..]));
            } else {
                kernel.pack(low, k + 1, first(to));
            }
            fields_len += 8 * (k as usize + 1);
            block += 1;
        }

        worth = 2 * excepted;
        for &(block, code) in &codes_excepted[..excepted] {
            codes_here[block] = code;
        }
        for of_block in &masks_here[..codes_here.len()] {
            worth += usize::from((1..=FEW).contains(&of_block.counts[0]));
            bits.put(masks, of_block.words[0], of_block.counts[0]);
            bits.put(masks, of_block.words[1], of_block.counts[1]);
        }
    }

    let modes_end = out.len() + modes.len();
    out.extend_from_slice(modes);
    out.extend_from_slice(&[0; SIZES]);
    codes::put(codes, pairs, out);
    let codes_len = out.len() - modes_end - SIZES;
    out[modes_end..modes_end + 2].copy_from_slice(&(codes_len as u16).to_le_bytes());
    out[modes_end + 2..modes_end + SIZES].copy_from_slice(&(bits.len() as u32).to_le_bytes());
    out.extend_from_slice(&masks[..bits.len()]);
    out.extend_from_slice(&fields[..fields_len]);
    out.extend_from_slice(exceptions);
}

/// Asks for what a unit is made of.
#[inline(always)]
fn fetch<K: Kernel, const N: usize>(kernel: K, task: &Task<'_>, samples: &[u8], at: usize) {
    for i in 0..N {
        kernel.fetch(samples, at + i * BYTES);
        if let Some(reference) = task.reference {
            kernel.fetch(reference, at + i * BYTES);
        }
    }
}

fn grow(room: &mut Vec<u8>, len: usize) {
    if room.len() < len {
        room.resize(len, 0);
    }
}

#[inline(always)]
fn first(bytes: &mut [u8]) -> &mut [u8; BYTES] {
    bytes.first_chunk_mut().unwrap_or_else(|| unreachable!("there is room beyond the last block"))
}

const fn bits_of<const WIDE: bool>() -> u32 {
    if WIDE { 16 } else { 8 }
}

/// The code of a block by its largest residual.
#[inline(always)]
fn code_of<const WIDE: bool>(most: u32) -> u8 {
    if most == 0 { 0 } else { code_of_k::<WIDE>(low_bits(most)) }
}

/// Sixteen widths and 0 do not go into 4 bits: there is no 15.
#[inline(always)]
fn code_of_k<const WIDE: bool>(k: u32) -> u8 {
    if WIDE { (k + 1).min(15) as u8 } else { (k + 1) as u8 }
}

#[inline(always)]
fn k_of<const WIDE: bool>(code: u8) -> u32 {
    if WIDE && code == 15 { 15 } else { u32::from(code) - 1 }
}

/// The differences of a chunk by the mode that would have suited the one before it: the samples of that are at hand,
/// those of this one still on their way from memory.
#[inline(always)]
fn predict<K: Kernel, const WIDE: bool>(
    predictor: &Predictor<'_, K, WIDE>,
    samples: &[u8],
    start: usize,
    out: &mut Differences,
) -> Mode {
    let head = predictor.geometry.head();
    let from = if start > head { start - CHUNK } else { start }.max(head);
    let end = samples.len().min(from + CHUNK);
    let referring = predictor.reference.is_some();
    let mut best = (u32::MAX, if referring { Mode::Both } else { Mode::Smooth });
    for mode in Mode::ALL.into_iter().filter(|m| referring || !m.needs_reference()) {
        let mut size = 0;
        let mut at = from;
        while at + BYTES <= end {
            size += cost(predictor.size(mode, samples, at));
            at += EVERY * BYTES;
        }
        if from + BYTES <= end && size < best.0 {
            best = (size, mode);
        }
    }
    predictor.differences(best.1, samples, start, out);
    best.1
}

/// About how many bits residuals of this sum take.
#[inline(always)]
fn cost(sum: u32) -> u32 {
    let k = (sum / BLOCK as u32).max(1).ilog2();
    if sum == 0 { 0 } else { BLOCK as u32 * (k + 1) + (sum >> k) }
}
