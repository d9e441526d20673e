//! Bytes to one stripe.

use std::collections::TryReserveError;

use super::super::bits::BitReader;
use super::exceptions::{self, Exceptions};
use super::kernel::{BYTES, Kernel};
use super::predict::{Aligned, Predictor};
use super::sort::unsort;
use super::{BLOCK, CHUNK, Geometry, Mode, SIZES, Task, blocks, codes, most_codes, reserve};

/// Room for one stripe in work.
#[derive(Debug, Default)]
pub(crate) struct Room {
    codes: Vec<u8>,
}

impl Room {
    /// Room for a stripe of so many bytes.
    pub(crate) fn reserve(&mut self, stripe: usize) -> Result<(), TryReserveError> {
        reserve(&mut self.codes, most_codes(stripe))
    }
}

/// Decodes a stripe into the packed rows `samples`.
///
/// # Errors
/// What is wrong with it. `samples` then holds anything.
#[inline(always)]
pub(crate) fn decode<K: Kernel, const N: usize, const WIDE: bool>(
    kernel: K,
    task: &Task<'_>,
    coded: &[u8],
    room: &mut Room,
    samples: &mut [u8],
) -> Result<(), &'static str> {
    const SHORT: &str = "it is shorter than its parts";
    let (modes, coded) = coded.split_at_checked(samples.len().div_ceil(CHUNK)).ok_or(SHORT)?;
    let (sizes, coded) = coded.split_first_chunk::<SIZES>().ok_or(SHORT)?;
    let [c0, c1, m0, m1, m2, m3] = *sizes;
    let (codes, coded) = coded.split_at_checked(u16::from_le_bytes([c0, c1]).into()).ok_or(SHORT)?;
    let (masks, fields) = coded.split_at_checked(u32::from_le_bytes([m0, m1, m2, m3]) as usize).ok_or(SHORT)?;
    let codes = codes::get(codes, blocks(samples.len(), N, WIDE), &mut room.codes)?;
    // A loop, as closures would not have the instructions that this function has.
    let (mut unknown, mut needed) = (false, 0);
    for &pair in codes {
        unknown |= !known::<WIDE>(pair & 15) | !known::<WIDE>(pair >> 4);
        needed += 8 * usize::from(width::<WIDE>(pair & 15) + width::<WIDE>(pair >> 4));
    }
    if unknown {
        return Err("it has a code of no meaning");
    }
    let (fields, exceptions) = fields.split_at_checked(needed).ok_or("its fields are not as many as its codes say")?;

    let predictor = Predictor::<'_, K, WIDE> { kernel, geometry: Geometry::of(task.plane), reference: task.reference };
    let mut from = Coded { kernel, fields, at: 0, masks: BitReader::new(masks), last: [0; BYTES] };
    let mut exceptions = Exceptions(exceptions);
    // Codes, then widths.
    let mut widths = [0; CHUNK / BLOCK];
    // Residuals, then differences.
    let Aligned(differences) = &mut Aligned([[0; BYTES]; CHUNK / BYTES]);
    let chunks = codes.chunks(blocks(CHUNK, N, WIDE) / 2).zip(modes);
    for (start, (codes, &mode)) in (0..samples.len()).step_by(CHUNK).zip(chunks) {
        let mode = Mode::of(mode).ok_or("it has a mode of no meaning")?;
        if mode.needs_reference() && task.reference.is_none() {
            return Err("it needs a reference that its frame does not name");
        }
        let count = blocks(CHUNK.min(samples.len() - start), N, WIDE);
        for (widths, &pair) in widths.as_chunks_mut().0.iter_mut().zip(codes) {
            *widths = [pair & 15, pair >> 4];
        }
        let mut excepting = 0;
        if !WIDE {
            excepting = kernel.reach(kernel.load(&widths), exceptions::LISTED) & u64::MAX >> (CHUNK / BLOCK - count);
        }
        if WIDE || excepting > 0 {
            widths.iter_mut().for_each(|code| *code = width::<WIDE>(*code));
        }
        let widths = &widths[..count];
        let (units, _) = differences.as_chunks_mut::<N>();
        let ahead = (start + CHUNK..start + 2 * CHUNK).step_by(N * BYTES);
        for ((unit, widths), ahead) in units.iter_mut().zip(widths.chunks_exact(if WIDE { 1 } else { N })).zip(ahead) {
            for i in 0..N {
                // Where the next chunk goes, and what it is made of.
                kernel.fetch(samples, ahead + i * BYTES);
                if let Some(reference) = task.reference {
                    kernel.fetch(reference, ahead + i * BYTES);
                }
            }
            kernel.fetch(fields, from.at + CHUNK);
            let mut v = [kernel.zero(); N];
            if WIDE {
                let (a, b) = from.words(widths[0]);
                (v[0], v[1]) = (kernel.unzigzag::<true>(a), kernel.unzigzag::<true>(b));
            } else {
                // One after the other in the code, too: a loop would keep them in memory.
                v[0] = from.bytes(widths[0]);
                if N > 1 {
                    v[1] = from.bytes(widths[1]);
                }
                if N > 2 {
                    v[2] = from.bytes(widths[2]);
                    v[3] = from.bytes(widths[3]);
                }
                v = unsort::<K, N>(kernel, v);
            }
            for i in 0..N {
                kernel.store(v[i], &mut unit[i]);
            }
        }
        // After all blocks, which would have to wait for them.
        while excepting > 0 {
            let block = excepting.trailing_zeros() as usize;
            excepting &= excepting - 1;
            let code = codes[block / 2] >> (4 * (block % 2)) & 15;
            exceptions.take(code, &mut units[block / N], block % N)?;
        }
        predictor.samples(mode, differences, samples, start);
    }
    if !exceptions.0.is_empty() {
        return Err("it has more exceptions than its codes say, or is longer than its parts");
    }
    if from.masks.bytes() != masks.len() {
        return Err("its masks are not as long as it says");
    }
    Ok(())
}

fn known<const WIDE: bool>(code: u8) -> bool {
    WIDE || code < 15
}

/// Bits of a residual that its block stores as they are, the one about its quotient among them.
#[inline(always)]
fn width<const WIDE: bool>(code: u8) -> u8 {
    if !WIDE && exceptions::has(code) { exceptions::width(code) } else { code + u8::from(WIDE && code == 15) }
}

/// What blocks are decoded from.
struct Coded<'a, K> {
    kernel: K,
    fields: &'a [u8],
    at: usize,
    masks: BitReader<'a>,
    /// The last fields, with zeros after them.
    last: [u8; BYTES],
}

impl<K: Kernel> Coded<'_, K> {
    /// The next 64 residuals that are bytes.
    #[inline(always)]
    fn bytes(&mut self, width: u8) -> K::Vector {
        let kernel = self.kernel;
        let (fields, reach) = kernel.unpack(self.window(), width.into());
        self.at += 8 * usize::from(width);
        let first = if width == 8 { 0 } else { reach };
        kernel.raise(fields, first, &mut self.masks, (1u32 << width >> 1) as u8)
    }

    /// The next 64 that are words.
    #[inline(always)]
    fn words(&mut self, width: u8) -> (K::Vector, K::Vector) {
        let kernel = self.kernel;
        let (high, packed) = (width > 8, if width > 8 { width - 8 } else { width });
        let low_bytes = kernel.only_if(high, kernel.load(self.window()));
        self.at += if high { BYTES } else { 0 };
        let (fields, reach) = kernel.unpack(self.window(), packed.into());
        self.at += 8 * usize::from(packed);
        let q = kernel.raise(kernel.zero(), if width == 16 { 0 } else { reach }, &mut self.masks, 1);
        let low = kernel.add::<false>(low_bytes, kernel.only_if(!high, fields));
        let (a, b) = kernel.join(low, kernel.only_if(high, fields));
        let (qa, qb) = kernel.join(q, kernel.zero());
        let k = u32::from(width).saturating_sub(1);
        (kernel.add::<true>(a, kernel.shift_words(qa, k)), kernel.add::<true>(b, kernel.shift_words(qb, k)))
    }

    /// 64 bytes of fields.
    #[inline(always)]
    fn window(&mut self) -> &[u8; BYTES] {
        let rest = &self.fields[self.at..];
        if rest.len() < BYTES {
            self.last[..rest.len()].copy_from_slice(rest);
            self.last[rest.len()..].fill(0);
        }
        rest.first_chunk().unwrap_or(&self.last)
    }
}
