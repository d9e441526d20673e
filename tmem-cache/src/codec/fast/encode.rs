//! One stripe to bytes.
//!
//! A chunk is worked on in three passes, each of them short enough that a processor has several blocks in work: samples to
//! residuals, residuals to fields and quotients, quotients to bits.

use super::super::bits::{BitWriter, MOST};
use super::kernel::{BYTES, Kernel, Quotients};
use super::predict::{above, part, sort};
use super::{BLOCK, CHUNK, Geometry, MARGIN, Mode, SIZES, Task, blocks, codes, low_bits};

/// Of so many units one is looked at to choose a mode.
const EVERY: usize = 8;

/// Room for one stripe in work.
#[derive(Debug, Default)]
pub(crate) struct Room {
    modes: Vec<u8>,
    codes: Vec<u8>,
    fields: Vec<u8>,
    masks: Vec<u8>,
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
    let source = Source::<'_, K, N, WIDE> {
        kernel,
        geometry: Geometry::of(task.plane),
        samples,
        reference: task.reference,
    };
    let unit = N * BYTES;
    let count = blocks(samples.len(), N, WIDE);
    let Room { modes, codes, fields, masks } = room;
    modes.clear();
    codes.clear();
    codes.resize(count, 0);
    // As much as blocks ever have, and what a store beyond the last one writes.
    let most = samples.len().next_multiple_of(unit) + BYTES;
    grow(fields, most);
    grow(masks, most);

    let mut residuals = [[0; BYTES]; CHUNK / BYTES];
    let mut quotients = [Quotients::default(); CHUNK / BLOCK];
    let mut fields_len = 0;
    let mut bits = BitWriter::default();
    let mut codes_left = codes.as_mut_slice();
    for start in (0..samples.len()).step_by(CHUNK) {
        let end = samples.len().min(start + CHUNK);
        let mode = source.best_mode(start);
        modes.push(mode as u8);

        let codes_here;
        (codes_here, codes_left) =
            std::mem::take(&mut codes_left).split_at_mut(blocks(end - start, N, WIDE));
        let mut left = residuals.iter_mut();
        let mut next_code = codes_here.iter_mut();
        for at in (start..end).step_by(unit) {
            let unit = source.residuals(mode, at);
            for v in unit {
                if let Some(room) = left.next() {
                    kernel.store(v, room);
                }
            }
            if WIDE {
                if let Some(code) = next_code.next() {
                    *code = code_of::<WIDE>(kernel.most_words(unit[0], unit[1]));
                }
            } else {
                for (v, code) in unit.into_iter().zip(&mut next_code) {
                    *code = code_of::<WIDE>(kernel.most(v));
                }
            }
        }

        let mut block = 0;
        while block < codes_here.len() {
            let code = codes_here[block];
            if code == 0 {
                quotients[block] = Quotients::default();
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
            if !last && !fits(&q) {
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
            quotients[block] = if last { Quotients::default() } else { q };
            block += 1;
        }

        for q in &quotients[..codes_here.len()] {
            let [a, b] = q.more;
            let (second, third, fourth) = (a | b, b, a & b);
            bits.put(masks, kernel.extract(second, q.first), q.first.count_ones());
            let (n, more) = (second.count_ones(), third.count_ones());
            let word = kernel.extract(third, second) | kernel.extract(fourth, third) << n;
            bits.put(masks, word, n + more);
        }
    }

    let modes_end = out.len() + modes.len();
    out.extend_from_slice(modes);
    out.extend_from_slice(&[0; SIZES]);
    codes::put(codes, out);
    let codes_len = out.len() - modes_end - SIZES;
    out[modes_end..modes_end + 2].copy_from_slice(&(codes_len as u16).to_le_bytes());
    out[modes_end + 2..modes_end + SIZES].copy_from_slice(&(bits.len() as u32).to_le_bytes());
    out.extend_from_slice(&masks[..bits.len()]);
    out.extend_from_slice(&fields[..fields_len]);
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

/// Whether the masks of a block are short enough.
#[inline(always)]
fn fits(q: &Quotients) -> bool {
    let [a, b] = q.more;
    q.first.count_ones().max((a | b).count_ones() + b.count_ones()) <= MOST
}

/// The samples of a stripe, and what they are predicted from.
struct Source<'a, K, const N: usize, const WIDE: bool> {
    kernel: K,
    geometry: Geometry,
    samples: &'a [u8],
    reference: Option<&'a [u8]>,
}

impl<K: Kernel, const N: usize, const WIDE: bool> Source<'_, K, N, WIDE> {
    /// The residuals of the unit that starts there. Beyond the stripe's end they are small.
    #[inline(always)]
    fn residuals(&self, mode: Mode, at: usize) -> [K::Vector; N] {
        let unit = N * BYTES;
        if at + unit <= self.samples.len() {
            let reference = self.reference.map_or(self.samples, |r| &r[at..]);
            self.of(mode, at, &self.samples[at..at + unit], reference)
        } else {
            self.last(mode, at)
        }
    }

    /// The last unit, which is not whole.
    #[inline(never)]
    fn last(&self, mode: Mode, at: usize) -> [K::Vector; N] {
        let unit = N * BYTES;
        let (mut now, mut reference) = ([0; 4 * BYTES], [0; 4 * BYTES]);
        let rest = &self.samples[at..];
        now[..rest.len()].copy_from_slice(rest);
        if let Some(r) = self.reference {
            reference[..rest.len()].copy_from_slice(&r[at..]);
        }
        let Geometry { back, period, .. } = self.geometry;
        for i in rest.len()..unit {
            now[i] = if at >= self.geometry.head(unit) {
                self.samples[at + i - back]
            } else {
                i.checked_sub(period).map_or(0, |before| now[before])
            };
        }
        self.of(mode, at, &now[..unit], &reference)
    }

    #[inline(always)]
    fn of(&self, mode: Mode, at: usize, now: &[u8], reference: &[u8]) -> [K::Vector; N] {
        let kernel = self.kernel;
        let mut v = [kernel.zero(); N];
        if at < self.geometry.head(N * BYTES) && !mode.needs_reference() {
            let mut room = [0; MARGIN + 4 * BYTES];
            let before = at.min(MARGIN);
            room[MARGIN - before..MARGIN].copy_from_slice(&self.samples[at - before..at]);
            room[MARGIN..MARGIN + N * BYTES].copy_from_slice(now);
            for (j, v) in v.iter_mut().enumerate() {
                let at = MARGIN + j * BYTES;
                let before = kernel.load(part(&room, at - self.geometry.period.min(MARGIN)));
                *v = kernel.sub::<WIDE>(kernel.load(part(&room, at)), before);
            }
        } else {
            let mode = if at < self.geometry.head(N * BYTES) { Mode::Reference } else { mode };
            for (j, v) in v.iter_mut().enumerate() {
                let (at, offset) = (at + j * BYTES, j * BYTES);
                let reference = part(reference, offset);
                let likely = above::<K, N, WIDE>(kernel, &self.geometry, mode, self.samples, at, reference);
                *v = kernel.sub::<WIDE>(kernel.load(part(now, offset)), likely);
            }
        }
        sort::<K, N, WIDE>(kernel, v)
    }

    /// The mode of a chunk: that which would have suited the one before it. Its samples are at hand, those of this one
    /// still on their way from memory.
    #[inline(always)]
    fn best_mode(&self, start: usize) -> Mode {
        let (unit, head) = (N * BYTES, self.geometry.head(N * BYTES));
        let from = if start > head { start - CHUNK } else { start }.max(head);
        let end = self.samples.len().min(from + CHUNK);
        let mut best = (u32::MAX, if self.reference.is_some() { Mode::Both } else { Mode::Smooth });
        for mode in Mode::ALL.into_iter().filter(|m| !m.needs_reference() || self.reference.is_some()) {
            let mut cost = 0;
            let mut at = from;
            while at + unit <= end {
                let reference = self.reference.map_or(self.samples, |r| &r[at..]);
                for v in self.of(mode, at, &self.samples[at..at + unit], reference) {
                    cost += self.cost(v);
                }
                at += EVERY * unit;
            }
            if from + unit <= end && cost < best.0 {
                best = (cost, mode);
            }
        }
        best.1
    }

    /// About how many bits residuals take.
    #[inline(always)]
    fn cost(&self, v: K::Vector) -> u32 {
        let sum = self.kernel.sum::<WIDE>(v);
        let k = (sum / BLOCK as u32 | 1).ilog2();
        if sum == 0 { 0 } else { BLOCK as u32 * (k + 1) + (sum >> k) }
    }
}
