//! One stripe to bytes and back.
//!
//! Rows are predicted ([`super::predict`]), and the residuals of the whole stripe, row after row and lane after lane,
//! are cut into blocks of 64 ([`super::block`]).

use super::bits::{BitReader, BitWriter};
use super::block::{BLOCK, DENSEST, FIXED, Kernel};
use super::lanes::{Lanes, PAD};
use super::picture::Plane;
use super::predict::{self, Back, Forward, Mode};
use super::sample::Sample;

/// Rows that share a mode.
const GROUP: usize = 8;

/// Bytes before the codes: their number, and that of the unary masks of even and of odd blocks. (Where the masks of a
/// block end is known only when they are decoded; two runs of them keep a processor busy meanwhile.)
const SIZES: usize = 2 + 4 + 4;

/// What a stripe is, apart from its samples.
#[derive(Debug)]
pub(crate) struct Task<'a, S> {
    pub plane: &'a Plane,
    pub lanes: &'a Lanes,
    /// Rows of the stripe.
    pub rows: usize,
    /// The reference's rows of the same stripe, taken apart.
    pub reference: Option<&'a [S]>,
}

impl<S> Task<'_, S> {
    pub(super) fn reference(&self, row: usize) -> Option<&[S]> {
        self.reference.map(|all| self.part(all, row))
    }

    /// A row of `rows`, which has all of the stripe's, taken apart.
    pub(super) fn part<'r>(&self, rows: &'r [S], row: usize) -> &'r [S] {
        &rows[row * self.lanes.size()..][..self.lanes.size()]
    }

    /// The group of a row. The first rows, which have nothing above them, are one by themselves.
    pub(super) fn group(&self, row: usize) -> usize {
        (row + GROUP - self.plane.up) / GROUP
    }

    pub(super) fn groups(&self) -> usize {
        self.group(self.rows - 1) + 1
    }

    fn blocks(&self) -> usize {
        (self.rows * self.lanes.samples()).div_ceil(BLOCK)
    }
}

/// Room for the rows of a stripe in work.
#[derive(Debug, Default)]
pub(crate) struct RowScratch<S> {
    /// The row in work and the two above, taken apart.
    ring: [Vec<S>; 3],
    row: Vec<S>,
    spare: Vec<S>,
    residuals: Vec<S>,
    trial: Vec<S>,
}

/// The room for one row.
pub(super) struct Turn<'a, S> {
    /// The row to work on, and the one above of the same colours, both taken apart.
    pub now: &'a mut [S],
    pub above: Option<&'a [S]>,
    pub row: &'a mut [S],
    pub spare: &'a mut [S],
    pub residuals: &'a mut [S],
    trial: &'a mut [S],
}

impl<S: Sample> RowScratch<S> {
    pub(super) fn fit(&mut self, lanes: &Lanes) {
        let grow = |v: &mut Vec<S>, len| {
            if v.len() < len {
                v.resize(len, S::default());
            }
        };
        self.ring.iter_mut().for_each(|r| grow(r, lanes.size()));
        grow(&mut self.row, lanes.samples());
        grow(&mut self.spare, 2 * lanes.samples());
        grow(&mut self.residuals, lanes.samples() + 2 * BLOCK + PAD);
        grow(&mut self.trial, lanes.samples() + BLOCK + PAD);
    }

    #[inline(always)]
    pub(super) fn turn(&mut self, row: usize, up: usize) -> Turn<'_, S> {
        let [a, b, c] = &mut self.ring;
        let (now, one, two) = match row % 3 {
            0 => (a, c, b),
            1 => (b, a, c),
            _ => (c, b, a),
        };
        let above = if up == 1 { one } else { two };
        let above = (row >= up).then_some(above.as_slice());
        let Self { row, spare, residuals, trial, .. } = self;
        Turn { now, above, row, spare, residuals, trial }
    }
}

/// Room for the parts of a coded stripe.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    modes: Vec<u8>,
    codes: Vec<u8>,
    fixed: Vec<u8>,
    masks: [Vec<u8>; 2],
    fixed_len: usize,
    bits: [BitWriter; 2],
}

/// Appends the coded stripe to `out`.
#[inline(always)]
pub(crate) fn encode<K: Kernel, S: Sample>(
    task: &Task<'_, S>,
    samples: &[u8],
    scratch: &mut RowScratch<S>,
    parts: &mut Parts,
    out: &mut Vec<u8>,
) {
    let blocks = task.blocks();
    let most = blocks * (BLOCK * 2) + FIXED + 8;
    if parts.fixed.len() < most {
        parts.fixed.resize(most, 0);
        parts.masks.iter_mut().for_each(|m| m.resize(most, 0));
    }
    parts.modes.clear();
    parts.codes.clear();
    parts.fixed_len = 0;
    parts.bits = Default::default();
    scratch.fit(task.lanes);

    let (lanes, n) = (task.lanes, task.lanes.samples());
    let mut filled = 0;
    for (y, bytes) in samples.chunks_exact(task.plane.row_bytes).enumerate() {
        let Turn { now, above, row, spare, residuals, trial } = scratch.turn(y, task.plane.up);
        lanes.split(S::load(bytes, row), now, spare);
        let reference = task.reference(y);
        let group = task.group(y);
        if group == parts.modes.len() {
            parts.modes.push(best_mode(lanes, now, above, reference, trial) as u8);
        }
        let mode = Mode::of(parts.modes[group]).unwrap_or(Mode::Above);
        predict::row::<Forward, S>(lanes, mode, now, above, reference, &mut residuals[filled..]);
        filled += n;
        let (whole, rest) = residuals[..filled].as_chunks::<BLOCK>();
        for block in whole {
            encode_block::<K, S>(block, parts);
        }
        let (done, rest) = (filled - rest.len(), rest.len());
        residuals.copy_within(done..filled, 0);
        filled = rest;
    }
    if filled > 0 {
        let mut last = [S::default(); BLOCK];
        last[..filled].copy_from_slice(&scratch.residuals[..filled]);
        encode_block::<K, S>(&last, parts);
    }

    let start = out.len();
    out.extend_from_slice(&parts.modes);
    let sizes = out.len();
    out.extend_from_slice(&[0; SIZES]);
    put_codes(&parts.codes, out);
    let codes = out.len() - sizes - SIZES;
    let [even, odd] = [parts.bits[0].len(), parts.bits[1].len()];
    out[sizes..sizes + 2].copy_from_slice(&(codes as u16).to_le_bytes());
    out[sizes + 2..sizes + 6].copy_from_slice(&(even as u32).to_le_bytes());
    out[sizes + 6..sizes + SIZES].copy_from_slice(&(odd as u32).to_le_bytes());
    out.extend_from_slice(&parts.masks[0][..even]);
    out.extend_from_slice(&parts.masks[1][..odd]);
    out.extend_from_slice(&parts.fixed[..parts.fixed_len]);
    debug_assert!(out.len() > start);
}

/// The mode that codes a row in the fewest bits, by estimate.
#[inline(always)]
pub(super) fn best_mode<S: Sample>(
    lanes: &Lanes,
    row: &mut [S],
    above: Option<&[S]>,
    reference: Option<&[S]>,
    trial: &mut [S],
) -> Mode {
    let mut best = (usize::MAX, Mode::Between);
    for mode in Mode::ALL {
        let possible = match mode {
            Mode::Above => above.is_some(),
            Mode::Between => true,
            Mode::Reference | Mode::Both => reference.is_some(),
        };
        if possible {
            predict::row::<Forward, S>(lanes, mode, row, above, reference, trial);
            let bits = trial[..lanes.samples()].chunks(BLOCK).map(estimate).sum();
            if bits < best.0 {
                best = (bits, mode);
            }
        }
    }
    best.1
}

/// About how many bits a block takes.
#[inline(always)]
pub(super) fn estimate<S: Sample>(block: &[S]) -> usize {
    let sum = block.iter().fold(0u32, |sum, &v| sum + u32::from(v.to_u16()));
    if sum == 0 {
        return 0;
    }
    let k = low_bits(sum);
    (BLOCK * (k as usize + 1)) + (sum >> k) as usize
}

/// Low bits to store as they are, from the sum of a block: Rice's rule, tuned on residuals of noisy photographs.
#[inline(always)]
fn low_bits(sum: u32) -> u32 {
    (((sum | 1) * 9 / 8 / BLOCK as u32) | 1).ilog2()
}

#[inline(always)]
fn encode_block<K: Kernel, S: Sample>(block: &[S; BLOCK], parts: &mut Parts) {
    let (sum, any) = S::measure::<K>(block);
    if any == 0 {
        parts.codes.push(0);
        return;
    }
    let width = u16::BITS - any.leading_zeros();
    let mut k = S::storable(low_bits(sum).max(width.saturating_sub(3)).min(S::BITS - 1));
    loop {
        let raw = k == S::BITS - 1;
        let (low, quotients) = S::cut(block, k);
        // SAFETY: whoever chose `K` has asked the processor.
        let [a, b, c] = unsafe { K::planes(&quotients) };
        let first = a | b | c;
        if !raw && first.count_ones() > DENSEST {
            k = S::storable(k + 1);
            continue;
        }
        parts.codes.push(S::code(k));
        let mut at = parts.fixed_len;
        if k >= 8 {
            parts.fixed[at..at + BLOCK].copy_from_slice(&S::low_bytes(block));
            at += BLOCK;
        }
        let room = &mut parts.fixed[at..at + FIXED + 8];
        let (fixed, _) = room.split_first_chunk_mut::<FIXED>().unwrap_or_else(|| unreachable!("room is longer"));
        // SAFETY: as above.
        unsafe { K::pack(&low, k % 8, fixed) };
        at += 8 * (k % 8) as usize;
        parts.fixed[at..at + 8].copy_from_slice(&first.to_le_bytes());
        parts.fixed_len = at + 8;
        if !raw {
            let run = (parts.codes.len() - 1) % 2;
            let (writer, room) = (&mut parts.bits[run], &mut parts.masks[run]);
            let (second, third, fifth, sixth) = (b | c, c | (a & b), c & (a | b), c & b);
            // SAFETY: as above.
            writer.put(room, unsafe { K::extract(second, first) }, first.count_ones());
            let later = [(third, second), (c, third), (fifth, c), (sixth, fifth), (sixth & a, sixth)];
            let (mut word, mut count) = (0, 0);
            for (mask, under) in later {
                // SAFETY: as above.
                let bits = unsafe { K::extract(mask, under) };
                let more = under.count_ones();
                if count + more > DENSEST {
                    writer.put(room, word, count);
                    (word, count) = (0, 0);
                }
                word |= bits << count;
                count += more;
            }
            writer.put(room, word, count);
        }
        return;
    }
}

/// Codes two to a byte, the first in the lower half; a byte of 0 is followed by the number of further bytes of 0.
fn put_codes(codes: &[u8], out: &mut Vec<u8>) {
    let mut zeros = None;
    for pair in codes.chunks(2) {
        let byte = pair[0] | pair.get(1).unwrap_or(&0) << 4;
        match zeros {
            Some(at) if byte == 0 && out[at] < 255 => out[at] += 1,
            _ if byte == 0 => {
                out.extend_from_slice(&[0, 0]);
                zeros = Some(out.len() - 1);
            }
            _ => {
                out.push(byte);
                zeros = None;
            }
        }
    }
}

/// The codes of `blocks` blocks.
fn get_codes(mut bytes: &[u8], blocks: usize, codes: &mut Vec<u8>) -> Result<(), &'static str> {
    codes.clear();
    while let [byte, rest @ ..] = bytes {
        bytes = rest;
        codes.extend_from_slice(&[byte & 15, byte >> 4]);
        if *byte == 0 {
            let [more, rest @ ..] = bytes else { return Err("its codes end in a run") };
            bytes = rest;
            codes.resize(codes.len() + 2 * usize::from(*more), 0);
        }
        if codes.len() > blocks + 1 {
            return Err("it has more codes than blocks");
        }
    }
    if codes.len() != blocks.next_multiple_of(2) {
        return Err("it has fewer codes than blocks");
    }
    if codes[blocks..].iter().any(|&c| c != 0) {
        return Err("it has a code for no block");
    }
    codes.truncate(blocks);
    Ok(())
}

/// Decodes a stripe into the packed rows `samples`.
///
/// # Errors
/// What is wrong with it. `samples` then holds anything.
#[inline(always)]
pub(crate) fn decode<K: Kernel, S: Sample>(
    task: &Task<'_, S>,
    coded: &[u8],
    scratch: &mut RowScratch<S>,
    parts: &mut Parts,
    samples: &mut [u8],
) -> Result<(), &'static str> {
    const SHORT: &str = "it is shorter than its parts";
    let (modes, coded) = coded.split_at_checked(task.groups()).ok_or(SHORT)?;
    let (sizes, coded) = coded.split_first_chunk::<SIZES>().ok_or(SHORT)?;
    let [c0, c1, e0, e1, e2, e3, o0, o1, o2, o3] = *sizes;
    let (codes, coded) = coded.split_at_checked(u16::from_le_bytes([c0, c1]).into()).ok_or(SHORT)?;
    let (even, coded) = coded.split_at_checked(u32::from_le_bytes([e0, e1, e2, e3]) as usize).ok_or(SHORT)?;
    let (odd, fixed) = coded.split_at_checked(u32::from_le_bytes([o0, o1, o2, o3]) as usize).ok_or(SHORT)?;
    get_codes(codes, task.blocks(), &mut parts.codes)?;
    let mut needed = 0;
    for &code in &parts.codes {
        needed += S::low_bits_of(code).ok_or("it has a code of no meaning")?.map_or(0, |k| 8 * (k as usize + 1));
    }
    if needed != fixed.len() {
        return Err("its low bits are not as many as its codes say");
    }

    scratch.fit(task.lanes);
    let (lanes, n) = (task.lanes, task.lanes.samples());
    let mut masks = [BitReader::new(even), BitReader::new(odd)];
    let (mut next, mut at, mut filled) = (0, 0, 0);
    let mut bad = false;
    for (y, bytes) in samples.chunks_exact_mut(task.plane.row_bytes).enumerate() {
        let Turn { now, above, row, spare, residuals, .. } = scratch.turn(y, task.plane.up);
        let reference = task.reference(y);
        let mode = Mode::of(modes[task.group(y)]).ok_or("it has a mode of no meaning")?;
        if mode.needs_reference() && reference.is_none() {
            return Err("it needs a reference that its frame does not name");
        }
        while filled < n {
            let block = &mut residuals[filled..filled + BLOCK];
            let block: &mut [S; BLOCK] = block.try_into().unwrap_or_else(|_| unreachable!("a slice of that length"));
            match S::low_bits_of(parts.codes[next]).flatten() {
                Some(k) => at = decode_block::<K, S>(fixed, at, k, &mut masks[next % 2], block, &mut bad),
                None => *block = [S::default(); BLOCK],
            }
            next += 1;
            filled += BLOCK;
        }
        predict::row::<Back, S>(lanes, mode, now, above, reference, residuals);
        residuals.copy_within(n..filled, 0);
        filled -= n;
        lanes.join(now, S::place(bytes, row), spare);
        S::store(bytes, row);
    }
    if bad {
        return Err("it has a mask of too many ones");
    }
    if masks.iter().any(|m| m.bytes() != m.len()) {
        return Err("its masks are not as long as it says");
    }
    Ok(())
}

/// Decodes the block whose fixed part is at `at`; returns where the next one is. All of it lies in `fixed`.
#[inline(always)]
fn decode_block<K: Kernel, S: Sample>(
    fixed: &[u8],
    mut at: usize,
    k: u32,
    masks: &mut BitReader<'_>,
    block: &mut [S; BLOCK],
    bad: &mut bool,
) -> usize {
    let mut raw_low = &[0; BLOCK];
    if k >= 8 {
        if let Some(low) = fixed[at..].first_chunk() {
            raw_low = low;
        }
        at += BLOCK;
    }
    let mut copy = [0; FIXED];
    let low = match fixed[at..].first_chunk::<FIXED>() {
        Some(low) => low,
        None => {
            copy[..fixed.len() - at].copy_from_slice(&fixed[at..]);
            &copy
        }
    };
    at += 8 * (k % 8) as usize;
    let first = u64::from_le_bytes(std::array::from_fn(|i| fixed[at..at + 8][i]));
    at += 8;
    // SAFETY: whoever chose `K` has asked the processor.
    let low = unsafe { K::unpack(low, k % 8) };
    let mut planes = [first, 0, 0];
    if k != S::BITS - 1 {
        *bad |= first.count_ones() > DENSEST;
        planes = quotients::<K>(first, masks);
    }
    // SAFETY: as above.
    let quotients = unsafe { K::bytes(planes) };
    S::uncut(&low, &quotients, raw_low, k, block);
    at
}

/// The quotients' bits, from the mask of those that are not 0 and the masks that follow it.
#[inline(always)]
fn quotients<K: Kernel>(first: u64, masks: &mut BitReader<'_>) -> [u64; 3] {
    // SAFETY: whoever chose `K` has asked the processor.
    let deposit = |bits, under| unsafe { K::deposit(bits, under) };
    // The second mask from one load, all later ones from another, whose place is known before the second is.
    let second = deposit(masks.peek(), first);
    masks.skip(first.count_ones());
    let mut word = masks.peek();
    let mut count = second.count_ones();
    let third = deposit(word, second);
    let mut next = |under: u64, before: u64| {
        word = word.checked_shr(before.count_ones()).unwrap_or(0);
        count += under.count_ones();
        deposit(word, under)
    };
    let fourth = next(third, second);
    let fifth = next(fourth, third);
    let sixth = next(fifth, fourth);
    let seventh = next(sixth, fifth);
    if count > DENSEST {
        return quotients_one_by_one::<K>(first, second, masks);
    }
    masks.skip(count);
    [first ^ second ^ third ^ fourth ^ fifth ^ sixth ^ seventh, second & !fourth | sixth, fourth]
}

/// The same where the later masks together are too long for one load.
#[cold]
fn quotients_one_by_one<K: Kernel>(first: u64, second: u64, masks: &mut BitReader<'_>) -> [u64; 3] {
    let mut next = |under: u64| {
        // SAFETY: as above.
        let mask = unsafe { K::deposit(masks.peek(), under) };
        masks.skip(under.count_ones());
        mask
    };
    let third = next(second);
    let fourth = next(third);
    let fifth = next(fourth);
    let sixth = next(fifth);
    let seventh = next(sixth);
    [first ^ second ^ third ^ fourth ^ fifth ^ sixth ^ seventh, second & !fourth | sixth, fourth]
}
