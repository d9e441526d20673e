//! Bytes to one stripe.

use super::super::bits::BitReader;
use super::kernel::{BYTES, Kernel};
use super::predict::{above, part, part_mut, unsort};
use super::{CHUNK, Geometry, Mode, SIZES, Task, blocks, codes};

/// Room for one stripe in work.
#[derive(Debug, Default)]
pub(crate) struct Room {
    codes: Vec<u8>,
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
    if codes.iter().any(|&pair| !known::<WIDE>(pair & 15) || !known::<WIDE>(pair >> 4)) {
        return Err("it has a code of no meaning");
    }
    let needed: usize = codes.iter().map(|&pair| 8 * (width::<WIDE>(pair & 15) + width::<WIDE>(pair >> 4)) as usize).sum();
    if needed != fields.len() {
        return Err("its fields are not as many as its codes say");
    }

    let unit = N * BYTES;
    let geometry = Geometry::of(task.plane);
    let head = geometry.head(unit);
    let mut from = Coded::<'_, K, WIDE> { kernel, codes, block: 0, fields, at: 0, masks: BitReader::new(masks) };
    let mut edge = Edge { now: [0; 4 * BYTES], reference: [0; 4 * BYTES] };
    for (start, &mode) in (0..samples.len()).step_by(CHUNK).zip(modes) {
        let mode = Mode::of(mode).ok_or("it has a mode of no meaning")?;
        if mode.needs_reference() && task.reference.is_none() {
            return Err("it needs a reference that its frame does not name");
        }
        for at in (start..samples.len().min(start + CHUNK)).step_by(unit) {
            let mut v = [kernel.zero(); N];
            if WIDE {
                (v[0], v[1]) = from.words();
            } else {
                for v in &mut v {
                    *v = from.bytes();
                }
            }
            let mut v = unsort::<K, N, WIDE>(kernel, v);
            let whole = at + unit <= samples.len();
            let reference = match task.reference {
                Some(r) if whole => &r[at..],
                Some(r) => edge.pad(&r[at..]),
                None => &edge.reference,
            };
            if at >= head || mode.needs_reference() {
                let mode = if at < head { Mode::Reference } else { mode };
                for (j, v) in v.iter_mut().enumerate() {
                    let reference = part(reference, j * BYTES);
                    let likely = above::<K, N, WIDE>(kernel, &geometry, mode, samples, at + j * BYTES, reference);
                    *v = kernel.add::<WIDE>(*v, likely);
                }
            } else {
                let mut before = [0; 16];
                if let Some(sixteen) = at.checked_sub(16).and_then(|start| samples[start..].first_chunk()) {
                    before = *sixteen;
                }
                for v in &mut v {
                    *v = kernel.along::<WIDE>(*v, geometry.period, &before);
                    let mut sums = [0; BYTES];
                    kernel.store(*v, &mut sums);
                    before = *sums.last_chunk().unwrap_or(&before);
                }
            }
            if whole {
                for (j, &v) in v.iter().enumerate() {
                    kernel.store(v, part_mut(samples, at + j * BYTES));
                }
            } else {
                for (j, &v) in v.iter().enumerate() {
                    kernel.store(v, part_mut(&mut edge.now, j * BYTES));
                }
                let rest = &mut samples[at..];
                rest.copy_from_slice(&edge.now[..rest.len()]);
            }
        }
    }
    if from.masks.bytes() != masks.len() {
        return Err("its masks are not as long as it says");
    }
    Ok(())
}

/// Room for a unit at the stripe's end.
struct Edge {
    now: [u8; 4 * BYTES],
    reference: [u8; 4 * BYTES],
}

impl Edge {
    fn pad(&mut self, reference: &[u8]) -> &[u8] {
        let n = reference.len().min(self.reference.len());
        self.reference[..n].copy_from_slice(&reference[..n]);
        &self.reference
    }
}

fn known<const WIDE: bool>(code: u8) -> bool {
    WIDE || code <= 8
}

/// Bits of a residual that its block stores as they are, the one about its quotient among them.
#[inline(always)]
fn width<const WIDE: bool>(code: u8) -> u32 {
    u32::from(code) + u32::from(WIDE && code == 15)
}

/// The parts of a stripe.
struct Coded<'a, K, const WIDE: bool> {
    kernel: K,
    codes: &'a [u8],
    block: usize,
    fields: &'a [u8],
    at: usize,
    masks: BitReader<'a>,
}

impl<K: Kernel, const WIDE: bool> Coded<'_, K, WIDE> {
    /// The width of the next block. There are codes for all of them.
    #[inline(always)]
    fn width(&mut self) -> u32 {
        let code = self.codes[self.block / 2] >> (self.block % 2 * 4) & 15;
        self.block += 1;
        width::<WIDE>(code)
    }

    /// The next 64 residuals that are bytes.
    #[inline(always)]
    fn bytes(&mut self) -> K::Vector {
        let (kernel, width) = (self.kernel, self.width());
        let mut copy = [0; BYTES];
        let top = if width == 8 { 8 } else { width.wrapping_sub(1) };
        let (fields, first) = kernel.unpack(window(self.fields, self.at, &mut copy), width, top);
        self.at += 8 * width as usize;
        let one = (1 << width >> 1) as u8;
        let more = self.more(first);
        kernel.add::<false>(fields, kernel.spread(more, one))
    }

    /// The next 64 that are words.
    #[inline(always)]
    fn words(&mut self) -> (K::Vector, K::Vector) {
        let (kernel, width) = (self.kernel, self.width());
        let (mut copy, mut other) = ([0; BYTES], [0; BYTES]);
        let high = width > 8;
        let low_bytes = kernel.only_if(high, kernel.load(window(self.fields, self.at, &mut other)));
        self.at += if high { BYTES } else { 0 };
        let packed = if high { width - 8 } else { width };
        let top = if width == 16 { 8 } else { packed.wrapping_sub(1) };
        let (fields, first) = kernel.unpack(window(self.fields, self.at, &mut copy), packed, top);
        self.at += 8 * packed as usize;
        let more = self.more(first);
        let low = kernel.add::<false>(low_bytes, kernel.only_if(!high, fields));
        let (a, b) = kernel.join(low, kernel.only_if(high, fields));
        let (qa, qb) = kernel.join(kernel.spread(more, 1), kernel.zero());
        let k = width.saturating_sub(1);
        (kernel.add::<true>(a, kernel.shift_words(qa, k)), kernel.add::<true>(b, kernel.shift_words(qb, k)))
    }

    /// The two bits of q - 1, by the mask of those quotients that are not 0.
    #[inline(always)]
    fn more(&mut self, first: u64) -> [u64; 2] {
        let second = self.kernel.deposit(self.masks.peek(), first);
        self.masks.skip(first.count_ones());
        let word = self.masks.peek();
        let n = second.count_ones();
        let third = self.kernel.deposit(word, second);
        // With 64 ones below it there is nothing above what was read.
        let fourth = self.kernel.deposit(word.checked_shr(n).unwrap_or(0), third);
        self.masks.skip(n + third.count_ones());
        [second ^ third ^ fourth, third]
    }
}

/// 64 bytes from there; zeros beyond the end.
#[inline(always)]
fn window<'a>(bytes: &'a [u8], at: usize, copy: &'a mut [u8; BYTES]) -> &'a [u8; BYTES] {
    match bytes[at..].first_chunk() {
        Some(window) => window,
        None => {
            let rest = &bytes[at..];
            copy[..rest.len()].copy_from_slice(rest);
            copy
        }
    }
}
