//! Symbols to words and back: an asymmetric numeral system (Duda 2014) of 32 states that take turns.
//!
//! A state is 31 bits; what it has above that goes into one run of 16-bit words, which all states share. The decoder does
//! symbol after symbol; the encoder goes backwards, so that the words come out in the order in which they are needed.

use super::context::{CONTEXTS, OF};
use super::model::{BITS, ESCAPE, MODELS, TOTAL, frequencies};

/// States.
pub(crate) const STATES: usize = 32;

/// The least value of a state, which all have before the first symbol is encoded and after the last is decoded.
pub(crate) const LEAST: u32 = 1 << 15;

/// Symbol in bits 0–7, its place in the slot's share in 8–18, the share's size in 19–29.
pub(crate) type Slots = [u32; TOTAL];

/// The decoder's tables of the models met so far, one after the other.
#[derive(Debug, Default)]
pub(crate) struct DecodeTables {
    pub tables: Vec<Slots>,
    /// One more than the table's number; 0 where there is none yet.
    numbers: Vec<u16>,
}

impl DecodeTables {
    /// The number of a model's table.
    pub fn number(&mut self, model: u8) -> u8 {
        self.numbers.resize(MODELS, 0);
        let number = &mut self.numbers[usize::from(model)];
        if *number == 0 {
            let mut table = [0; TOTAL];
            let mut slots = table.iter_mut();
            for (symbol, share) in frequencies(model).into_iter().enumerate() {
                for (place, slot) in slots.by_ref().take(share.into()).enumerate() {
                    *slot = symbol as u32 | (place as u32) << 8 | u32::from(share) << 19;
                }
            }
            self.tables.push(table);
            *number = self.tables.len() as u16;
        }
        // There are no more tables than models.
        (*number - 1) as u8
    }
}

/// The tables of a set of contexts, by their numbers.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub by_context: [u8; CONTEXTS],
    pub by_metric: [u32; 256],
}

impl Numbers {
    pub fn of(by_context: [u8; CONTEXTS]) -> Numbers {
        Numbers { by_context, by_metric: OF.map(|context| by_context[usize::from(context)].into()) }
    }
}

/// A way to code symbols. All make the same words, and give the same symbols.
pub(crate) trait Symbols: Copy {
    /// The next symbols, of which the metrics say which of the tables they are of.
    ///
    /// Beyond the last word anything is read; [`Reader::ended`] then says so.
    fn symbols(self, reader: &mut Reader<'_>, tables: &[Slots], numbers: &Numbers, metrics: &[u8], out: &mut [u8]);

    /// The cell of each symbol: in its upper byte the context of the metric, in its lower one the symbol.
    fn cells(self, metrics: &[u8], symbols: &[u8], out: &mut [u16]);

    /// The cells of contexts to those of the models that these have. The first has number `first` in the stripe.
    fn choose(self, chosen: &Chosen, cells: &mut [u16], first: usize, escaped: &mut Vec<u32>);

    /// The model that codes symbols that are so often of each bin, of two at a time, in the fewest bits.
    fn best(self, bits: &Bits, counts: &[[i16; 2]]) -> u8;

    /// Puts symbols before those put so far, each by the model that its cell says.
    fn put(self, writer: &mut Writer, shares: &Shares, cells: &[u16]);
}

/// The models of a set of contexts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Chosen {
    pub models: [u8; CONTEXTS],
    /// The first symbol of each that is escaped.
    pub limits: [u8; CONTEXTS],
}

/// One after the other, on any processor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

impl Symbols for Portable {
    #[inline(always)]
    fn symbols(self, reader: &mut Reader<'_>, tables: &[Slots], numbers: &Numbers, metrics: &[u8], out: &mut [u8]) {
        for (metrics, out) in metrics.chunks(STATES).zip(out.chunks_mut(STATES)) {
            let Some(words) = reader.window() else { return };
            let mut read = 0;
            for ((state, metric), out) in reader.states.iter_mut().zip(metrics).zip(out) {
                let slot = tables[numbers.by_metric[usize::from(*metric)] as usize][*state as usize % TOTAL];
                *out = slot as u8;
                let next = (slot >> 19) * (*state >> BITS) + (slot >> 8 & (TOTAL as u32 - 1));
                let word = u32::from(words[read % STATES]);
                // By arithmetic: a branch would be mispredicted every few symbols.
                let low = u32::from(next < LEAST);
                *state = next << (16 * low) | word & 0u32.wrapping_sub(low);
                read += low as usize;
            }
            reader.at += read;
        }
    }

    #[inline(always)]
    fn cells(self, metrics: &[u8], symbols: &[u8], out: &mut [u16]) {
        for ((metric, symbol), out) in metrics.iter().zip(symbols).zip(out) {
            *out = u16::from(OF[usize::from(*metric)]) << 8 | u16::from(*symbol);
        }
    }

    #[inline(always)]
    fn choose(self, chosen: &Chosen, cells: &mut [u16], first: usize, escaped: &mut Vec<u32>) {
        for (i, cell) in cells.iter_mut().enumerate() {
            let context = usize::from(*cell >> 8) % CONTEXTS;
            if *cell as u8 >= chosen.limits[context] {
                escaped.push((first + i) as u32);
            }
            *cell = u16::from(chosen.models[context]) << 8 | *cell & 255;
        }
    }

    #[inline(always)]
    fn best(self, bits: &Bits, counts: &[[i16; 2]]) -> u8 {
        let mut sums = [0i32; MODELS];
        for (bits, &[a, b]) in bits.0.iter().zip(counts) {
            for (sum, &[of_a, of_b]) in sums.iter_mut().zip(bits) {
                *sum += i32::from(a) * i32::from(of_a) + i32::from(b) * i32::from(of_b);
            }
        }
        let mut best = 0;
        for (model, &sum) in sums.iter().enumerate() {
            best = if sum < sums[best] { model } else { best };
        }
        best as u8
    }

    #[inline(always)]
    fn put(self, writer: &mut Writer, shares: &Shares, cells: &[u16]) {
        let Writer { states, words, at } = writer;
        for (i, &cell) in cells.iter().enumerate().rev() {
            let share = shares[usize::from(cell)];
            let (reciprocal, parts) = (share as u32, (share >> 32) as u32);
            let (mut x, size) = (states[i % STATES], parts & SIZE);
            words[*at - 2..*at].copy_from_slice(&(x as u16).to_le_bytes());
            let high = u32::from(x >= size << GIVES);
            *at -= 2 * high as usize;
            x >>= 16 * high;
            let quotient = ((u64::from(x) * u64::from(reciprocal)) >> 32) as u32 >> (parts >> SHIFT);
            states[i % STATES] = x + (parts >> START & MOST_START) + quotient * (TOTAL as u32 - size);
        }
    }
}

/// The decoder's states and words.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    pub states: [u32; STATES],
    /// [`STATES`] more than there are.
    pub words: &'a [u16],
    pub at: usize,
}

impl<'a> Reader<'a> {
    /// `None` where a state cannot be.
    pub fn new(states: [u32; STATES], words: &'a [u16]) -> Option<Reader<'a>> {
        let valid = states.iter().all(|x| (LEAST..LEAST << 16).contains(x));
        valid.then_some(Reader { states, words, at: 0 })
    }

    /// As many words as there are states.
    #[inline(always)]
    pub fn window(&mut self) -> Option<&'a [u16; STATES]> {
        self.at = self.at.min(self.words.len() - STATES);
        self.words[self.at..].first_chunk()
    }

    /// True where all words were read, and every state is what it began with.
    pub fn ended(&self) -> bool {
        self.at == self.words.len() - STATES && self.states == [LEAST; STATES]
    }
}

/// How a symbol of a model is encoded: in the lower half the reciprocal of its share's size, in the upper one these parts.
/// One that the model does not have is encoded as its escape.
///
/// A state x becomes x + start + (x / size) * (TOTAL - size), after it has given a word away if it is size << GIVES or more.
pub(crate) type Share = u64;

/// The parts: the share's size from bit 0 on, then what is added to the state, and the shift after the multiplication by
/// the reciprocal.
pub(super) const SIZE: u32 = TOTAL as u32 - 1;
pub(super) const START: u32 = BITS;
pub(super) const MOST_START: u32 = 2 * TOTAL as u32 - 1;
pub(super) const SHIFT: u32 = START + BITS + 1;

/// A state that is a share's size shifted by so much or more gives a word away first.
pub(super) const GIVES: u32 = 31 - BITS;

/// The shares of all models, one model's after the other's.
pub(crate) type Shares = [Share; MODELS << 8];

fn shares(all: &[u16; 256], out: &mut [Share]) {
    let mut start = 0;
    for (out, size) in out.iter_mut().zip(all.map(u32::from)) {
        if size > 0 {
            // Division by a constant after Alverson (1991): exact for 31 bits. One by 1 is of x - 1, to be made up for.
            let (reciprocal, shift, more) = match size {
                1 => (u32::MAX, 0, TOTAL as u32 - 1),
                _ => {
                    let shift = (size - 1).ilog2();
                    ((1u64 << (shift + 32)).div_ceil(size.into()) as u32, shift, 0)
                }
            };
            let parts = size | (start + more) << START | shift << SHIFT;
            *out = u64::from(parts) << 32 | u64::from(reciprocal);
        }
        start += size;
    }
    let escape = out[usize::from(ESCAPE)];
    for (out, _) in out.iter_mut().zip(all).filter(|(_, size)| **size == 0) {
        *out = escape;
    }
}

/// Symbols that are counted together when models are compared: those of one size, and of the larger ones those of several,
/// which all models code in nearly as many bits.
const BINS: usize = 29;

/// The first bin of eight symbols or a multiple of that; those before it have two, the first one one.
const FIRST_OF_EIGHTS: usize = 16;

/// Two bins at a time, which vectors multiply together.
const PAIRS: usize = BINS.div_ceil(2);

/// The first symbol of each, and what comes after the last.
const BIN: [usize; BINS + 1] = {
    let mut first = [0; BINS + 1];
    // The escape is the last one, by itself.
    (first[BINS - 1], first[BINS]) = (ESCAPE as usize, 256);
    let mut bin = 1;
    while bin < BINS - 1 {
        // Sizes from 16 on by four of each power of two.
        let size = if bin < 16 { bin } else { (4 + bin % 4) << (bin / 4 - 2) };
        first[bin] = 2 * size - 1;
        bin += 1;
    }
    first
};

/// Bits of a symbol of each bin by each model, in 256ths.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Bits(pub(super) [[[i16; 2]; MODELS]; PAIRS]);

/// `escaped` bits follow an escape.
fn bits(escaped: i32) -> Box<Bits> {
    let mut out = Box::new(Bits([[[0; 2]; MODELS]; PAIRS]));
    let by_share: Vec<i32> = (0..TOTAL as u32).map(|share| cost(share.max(1)).into()).collect();
    for model in 0..MODELS {
        let all = frequencies(model as u8);
        let bits = |symbol: usize| match all[symbol] {
            share if share == 0 || symbol == usize::from(ESCAPE) => {
                by_share[usize::from(all[usize::from(ESCAPE)])] + (escaped << 8)
            }
            share => by_share[usize::from(share)],
        };
        for bin in 0..BINS {
            let sum: i32 = (BIN[bin]..BIN[bin + 1]).map(bits).sum();
            out.0[bin / 2][model][bin % 2] = (sum / (BIN[bin + 1] - BIN[bin]) as i32) as i16;
        }
    }
    out
}

/// Bits of a symbol that occurs `size` times of [`TOTAL`], in 256ths: the logarithm, bit by bit.
fn cost(size: u32) -> i16 {
    let whole = size.ilog2();
    let mut x = u64::from(size) << (31 - whole);
    let mut log = whole;
    for _ in 0..8 {
        x = (x * x) >> 31;
        let more = (x >> 32) as u32;
        log = log << 1 | more;
        x >>= more;
    }
    (BITS * 256 - log) as i16
}

/// The encoder's tables, made as they are needed.
#[derive(Debug)]
pub(crate) struct Models {
    shares: Box<Shares>,
    /// The first symbol of each model that is escaped; 0 where its shares are not made yet.
    limits: [u8; MODELS],
    /// For escapes of one byte, and of two.
    bits: [Option<Box<Bits>>; 2],
}

impl Default for Models {
    fn default() -> Models {
        let Ok(shares) = vec![0; MODELS << 8].into_boxed_slice().try_into() else { unreachable!("it has that length") };
        Models { shares, limits: [0; MODELS], bits: [None, None] }
    }
}

impl Models {
    /// The first symbol of a model that is escaped. Makes its shares, where they are not there yet.
    pub fn limit(&mut self, model: u8) -> u8 {
        let limit = &mut self.limits[usize::from(model)];
        if *limit == 0 {
            let frequencies = frequencies(model);
            shares(&frequencies, &mut self.shares[usize::from(model) << 8..][..256]);
            // They fall off, so that all from there on have none.
            *limit = frequencies.iter().position(|&share| share == 0).map_or(ESCAPE, |symbol| symbol as u8);
        }
        *limit
    }

    /// Those of the models of which [`Models::limit`] was asked for.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// The model that codes symbols that occur so often in the fewest bits, or nearly, where an escape is followed by so many
    /// bytes; `None` where there are none.
    #[inline(always)]
    pub fn best<W: Symbols>(&mut self, way: W, counts: &[u32; 256], escape_bytes: usize) -> Option<u8> {
        let mut bins = [0u32; BINS];
        bins[0] = counts[0];
        for (bin, counts) in bins[1..FIRST_OF_EIGHTS].iter_mut().zip(counts[1..].as_chunks::<2>().0) {
            *bin = counts[0] + counts[1];
        }
        // Vectors add up eight by eight.
        let mut eights = [0u32; (ESCAPE as usize - BIN[FIRST_OF_EIGHTS]) / 8];
        for (eight, counts) in eights.iter_mut().zip(counts[BIN[FIRST_OF_EIGHTS]..].as_chunks::<8>().0) {
            for count in counts {
                *eight += count;
            }
        }
        let mut rest = eights.as_slice();
        for bin in FIRST_OF_EIGHTS..BINS - 1 {
            let here;
            (here, rest) = rest.split_at((BIN[bin + 1] - BIN[bin]) / 8);
            for eight in here {
                bins[bin] += eight;
            }
        }
        bins[BINS - 1] = counts[usize::from(ESCAPE)];
        let mut number = 0;
        for count in bins {
            number += count;
        }
        // Numbers of 15 bits.
        let down = number.checked_ilog2()?.saturating_sub(14);
        let mut small = [[0; 2]; PAIRS];
        let mut most = 0;
        for (bin, &count) in bins.iter().enumerate() {
            small[bin / 2][bin % 2] = ((count + (1 << down >> 1)) >> down).min(i16::MAX as u32) as i16;
            most = if count > 0 { bin / 2 } else { most };
        }
        let bits = self.bits[escape_bytes - 1].get_or_insert_with(|| bits(8 * escape_bytes as i32));
        Some(way.best(bits, &small[..=most]))
    }
}

/// The encoder's states, and the words: from the last one to the first.
#[derive(Debug)]
pub(crate) struct Writer {
    pub states: [u32; STATES],
    /// Words are put before what is there, from `at` on.
    words: Vec<u8>,
    at: usize,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer { states: [LEAST; STATES], words: Vec::new(), at: 0 }
    }
}

impl Writer {
    /// Begins a run of so many symbols, the last one first.
    pub fn begin(&mut self, symbols: usize) {
        self.states = [LEAST; STATES];
        // A word for each, and room before them for what vectors write.
        let room = 2 * symbols + ROOM;
        if self.words.len() < room {
            self.words.resize(room, 0);
        }
        self.at = self.words.len();
    }

    /// The words in the order in which the decoder needs them.
    pub fn words(&self) -> &[u8] {
        &self.words[self.at..]
    }

    /// All words, of which those from the byte that comes with them on are put; at least [`ROOM`] before them and a word
    /// for each of so many symbols is free.
    pub(super) fn room(&mut self, symbols: usize) -> (&mut [u8], &mut usize) {
        assert!((ROOM + 2 * symbols..=self.words.len()).contains(&self.at), "there is a word for each symbol");
        (&mut self.words, &mut self.at)
    }
}

/// Bytes that vectors write before the words that they put.
const ROOM: usize = 2 * STATES;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn costs_are_logarithms() {
        for size in 1..TOTAL as u32 {
            let exact = 256.0 * (f64::from(BITS) - f64::from(size).log2());
            assert!((f64::from(cost(size)) - exact).abs() < 2.0, "{size}");
        }
    }

    #[test]
    fn bins_have_all_symbols() {
        assert_eq!((BIN[0], BIN[BINS]), (0, 256));
        assert!(BIN.is_sorted_by(|a, b| a < b));
    }

    /// As often as a model expects them, symbols take at most a hundredth more bits by the model found than by any, and the
    /// 256th of a bit that is the tables' precision.
    #[test]
    fn the_model_found_is_nearly_the_best() {
        let mut models = Models::default();
        let all: Vec<[u16; 256]> = (0..=255).map(frequencies).collect();
        let bits = |model: &[u16; 256], counts: &[u32; 256], escape_bytes: usize| -> f64 {
            let escape = f64::from(model[usize::from(ESCAPE)]).log2() - 8.0 * escape_bytes as f64;
            let of = |(symbol, &share): (usize, &u16)| match share {
                share if share > 0 && symbol != usize::from(ESCAPE) => f64::from(share).log2(),
                _ => escape,
            };
            model.iter().enumerate().zip(counts).map(|(share, &count)| f64::from(count) * (11.0 - of(share))).sum()
        };
        for escape_bytes in [1, 2] {
            for expected in &all {
                let counts = expected.map(u32::from);
                let found = models.best(Portable, &counts, escape_bytes).unwrap();
                let least = all.iter().map(|model| bits(model, &counts, escape_bytes)).fold(f64::MAX, f64::min);
                let taken = bits(&all[usize::from(found)], &counts, escape_bytes);
                let precision = TOTAL as f64 / 256.0;
                assert!(taken <= least * 1.01 + precision, "{found}: {taken} bits, and {least} are possible");
            }
        }
        assert_eq!(models.best(Portable, &[0; 256], 1), None);
    }

    /// Any numbers of symbols are of the same model in each way.
    pub(crate) fn finds_the_same_models(way: impl Symbols) {
        let mut models = Models::default();
        let mut state = 1u32;
        for round in 0..2000 {
            let mut counts = [0; 256];
            for count in &mut counts[..1 + round % 256] {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *count = state >> (16 + (state >> 8) % 16);
            }
            let escape_bytes = 1 + round % 2;
            let expected = models.best(Portable, &counts, escape_bytes);
            assert_eq!(models.best(way, &counts, escape_bytes), expected, "{counts:?}");
        }
    }

    #[test]
    fn symbols_come_back_for_every_model() {
        let (mut tables, mut models, mut writer) = (DecodeTables::default(), Models::default(), Writer::default());
        let mut state = 1u32;
        for model in 0..=255 {
            let shares = frequencies(model);
            let known: Vec<u8> = (0..255).filter(|&s| shares[usize::from(s)] > 0).collect();
            let symbols: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                known[(state >> 8) as usize % known.len()]
            })
            .take(1000)
            .collect();
            let (metric, mut cells) = (vec![0; symbols.len()], vec![0; symbols.len()]);
            Portable.cells(&metric, &symbols, &mut cells);
            let limit = models.limit(model);
            let chosen = Chosen { models: [model; CONTEXTS], limits: [limit; CONTEXTS] };
            writer.begin(symbols.len());
            let mut escaped = Vec::new();
            Portable.choose(&chosen, &mut cells, 0, &mut escaped);
            Portable.put(&mut writer, models.shares(), &cells);
            assert_eq!(escaped, []);
            let pairs = writer.words().as_chunks().0.iter();
            let words: Vec<u16> = pairs.map(|&two| u16::from_le_bytes(two)).chain([0; STATES]).collect();
            let mut reader = Reader::new(writer.states, &words).unwrap();
            let mut back = vec![0; symbols.len()];
            let numbers = Numbers::of([tables.number(model); CONTEXTS]);
            Portable.symbols(&mut reader, &tables.tables, &numbers, &metric, &mut back);
            assert_eq!(back, symbols, "{model}");
            assert!(reader.ended());
        }
    }
}
