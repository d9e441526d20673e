//! Bytes to one stripe.

use super::super::bits::BitReader;
use super::context::{self, CONTEXTS, Ring, SETS};
use super::lanes::{ORDER, PAD};
use super::linear;
use super::model::ESCAPE;
use super::predict::{self, Back, Mode};
use super::rans::{DecodeTables, Numbers, Reader, STATES, Symbols};
use super::rows::{RowScratch, Task, Turn};
use super::{Bucket, LINEAR, bucket};

/// Room for one stripe in work.
#[derive(Debug, Default)]
pub(crate) struct Room {
    tables: DecodeTables,
    ring: Ring,
    metrics: Vec<u8>,
    weights: Vec<i8>,
    numbers: Vec<Numbers>,
    words: Vec<u16>,
}

const SHORT: &str = "it is shorter than its parts";

/// Cuts parts off a stripe's front.
struct Front<'a>(&'a [u8]);

impl<'a> Front<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], &'static str> {
        let (part, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (part, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*part)
    }
}

/// Decodes a stripe into the packed rows `samples`.
///
/// # Errors
/// What is wrong with it. `samples` then holds anything.
#[inline(always)]
pub(crate) fn decode<S: Bucket, W: Symbols>(
    way: W,
    task: &Task<'_, S>,
    coded: &[u8],
    scratch: &mut RowScratch<S>,
    room: &mut Room,
    samples: &mut [u8],
) -> Result<(), &'static str> {
    let lanes = task.lanes;
    let components = lanes.components().len();
    let Room { tables, ring, metrics, weights, numbers, words } = room;
    let mut front = Front(coded);
    let modes = front.take(task.groups())?;
    for &mode in modes {
        let known = Mode::of(mode).map(Mode::needs_reference);
        let needs = known.or((mode == LINEAR).then_some(false)).ok_or("it has a mode of no meaning")?;
        if needs && task.reference.is_none() {
            return Err("it needs a reference that its frame does not name");
        }
    }
    weights.clear();
    if modes.contains(&LINEAR) {
        let bytes = front.take(components * 4 * linear::weights(task.reference.is_some()))?;
        weights.extend(bytes.iter().map(|&b| b as i8));
    }
    let low_bits = front.take(components)?;
    if low_bits.iter().any(|&low| u32::from(low) > S::MOST_LOW) {
        return Err("it has more low bits than its samples can");
    }
    numbers.clear();
    for _ in 0..components * SETS {
        let used = u16::from_le_bytes(front.array()?);
        let mut models = front.take(used.count_ones() as usize)?.iter();
        let mut of = [0; CONTEXTS];
        for (context, number) in of.iter_mut().enumerate() {
            let model = if used >> context & 1 == 1 { models.next().copied().unwrap_or(0) } else { 0 };
            *number = tables.number(model);
        }
        numbers.push(Numbers::of(of));
    }
    let escapes = u32::from_le_bytes(front.array()?) as usize;
    let low = u32::from_le_bytes(front.array()?) as usize;
    let mut escapes = front.take(escapes)?;
    let mut low = BitReader::new(front.take(low)?);
    let mut states = [0; STATES];
    for state in &mut states {
        *state = u32::from_le_bytes(front.array()?);
    }
    let (pairs, []) = front.0.as_chunks() else { return Err("its words are not whole") };
    words.clear();
    words.extend(pairs.iter().map(|&pair| u16::from_le_bytes(pair)));
    words.resize(pairs.len() + STATES, 0);
    let mut reader = Reader::new(states, words).ok_or("it has a state that cannot be")?;

    scratch.fit(lanes);
    ring.clear(lanes.size());
    metrics.resize(lanes.samples() + PAD, 0);
    for (y, bytes) in samples.chunks_exact_mut(task.plane.row_bytes).enumerate() {
        let Turn { now, above, row, spare, residuals, .. } = scratch.turn(y, task.plane.up);
        let (symbols, symbols_above) = ring.turn(y, task.plane.up);
        let mut at = 0;
        for ((component, numbers), &low_bits) in lanes.components().iter().zip(numbers.chunks(SETS)).zip(low_bits) {
            for phase in ORDER {
                let lane = component[phase];
                context::metrics(component, phase, symbols, symbols_above, metrics);
                let metrics = &metrics[..lane.len];
                let symbols = &mut symbols[lane.start..lane.start + lane.len];
                way.symbols(&mut reader, &tables.tables, &numbers[usize::from(phase > 0)], metrics, symbols);
                let residuals = &mut residuals[at..at + lane.len];
                residuals.iter_mut().zip(&*symbols).for_each(|(v, &symbol)| *v = S::from_symbol(symbol));
                if symbols.iter().fold(false, |any, &symbol| any | (symbol == ESCAPE)) {
                    for (symbol, v) in symbols.iter_mut().zip(&mut *residuals).filter(|(s, _)| **s == ESCAPE) {
                        *v = S::get(&mut escapes).ok_or("it has fewer escapes than it says")?;
                        *symbol = v.symbol();
                    }
                }
                if low_bits > 0 {
                    bucket::join(residuals, low_bits.into(), &mut low);
                }
                at += lane.len;
            }
        }
        let reference = task.reference(y);
        let both = reference.zip(y.checked_sub(task.plane.up).and_then(|y| task.reference(y)));
        match (Mode::of(modes[task.group(y)]), &above) {
            (None, Some(above)) => linear::row::<Back, S>(lanes, weights, now, above, both, residuals),
            (mode, _) => {
                let mode = mode.unwrap_or(Mode::Between);
                predict::row::<Back, S>(lanes, mode, now, above, reference, residuals);
            }
        }
        lanes.join(now, S::place(bytes, row), spare);
        S::store(bytes, row);
    }
    if !reader.ended() {
        return Err("its words do not end where its symbols do");
    }
    if !escapes.is_empty() || low.bytes() != low.len() {
        return Err("its escapes or low bits are not as many as it says");
    }
    Ok(())
}
