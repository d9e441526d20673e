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

    /// Puts symbols before those put so far. The first has number `first` in the stripe.
    fn put(self, writer: &mut Writer, chosen: &Chosen<'_>, metrics: &[u8], symbols: &[u8], first: usize);
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
    fn put(self, writer: &mut Writer, chosen: &Chosen<'_>, metrics: &[u8], symbols: &[u8], first: usize) {
        let Writer { states, words, escaped } = writer;
        // Room for a word of each, of which those written stay.
        let mut at = words.len();
        words.resize(at + metrics.len(), 0);
        for (i, (metric, symbol)) in metrics.iter().zip(symbols).enumerate().rev() {
            let share = &chosen[usize::from(*metric)].shares[usize::from(*symbol)];
            if share.rest & ESCAPED != 0 {
                escaped.push((first + i) as u32);
            }
            let mut x = states[i % STATES];
            words[at] = x as u16;
            let high = u32::from(x >= share.most);
            at += high as usize;
            x >>= 16 * high;
            let quotient = ((u64::from(x) * u64::from(share.reciprocal)) >> 32) as u32 >> (share.rest >> SHIFT & 31);
            states[i % STATES] = x + share.start + quotient * (share.rest & REST);
        }
        words.truncate(at);
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

/// How a symbol of a model is encoded; one that the model does not have is, as its escape.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(16))]
pub(super) struct Share {
    /// States from here on give a word away first.
    most: u32,
    /// The reciprocal of the share's size.
    reciprocal: u32,
    /// What is added to the state.
    start: u32,
    /// What is added for each time the share's size goes into it, the reciprocal's shift, and whether it is an escape.
    rest: u32,
}

/// The parts of [`Share::rest`]. The escape is its sign.
pub(super) const REST: u32 = TOTAL as u32 - 1;
pub(super) const SHIFT: u32 = 16;
const ESCAPED: u32 = 1 << 31;

/// The encoder's table of a model.
#[derive(Debug)]
pub(crate) struct Model {
    pub(super) shares: [Share; 256],
    /// Bits of a symbol, in 256ths, where an escape is followed by 8 bits, and by 16.
    pub costs: [[u32; 256]; 2],
}

impl Model {
    fn of(model: u8) -> Model {
        let (mut shares, mut costs) = ([Share::default(); 256], [[0; 256]; 2]);
        let all = frequencies(model);
        let mut start = 0;
        for (symbol, size) in all.into_iter().map(u32::from).enumerate() {
            let escaped = size == 0 || symbol == usize::from(ESCAPE);
            let code = cost(if escaped { all[usize::from(ESCAPE)].into() } else { size });
            costs[0][symbol] = code + if escaped { 8 << 8 } else { 0 };
            costs[1][symbol] = code + if escaped { 16 << 8 } else { 0 };
            if size > 0 {
                // Division by a constant after Alverson (1991): exact for 31 bits.
                let shift = (size - 1).checked_ilog2().map_or(0, |bit| bit + 1);
                shares[symbol] = if size == 1 {
                    let (reciprocal, rest) = (u32::MAX, TOTAL as u32 - 1);
                    Share { most: 1 << (31 - BITS), reciprocal, start: start + TOTAL as u32 - 1, rest }
                } else {
                    let reciprocal = ((1u64 << (shift + 31)).div_ceil(u64::from(size))) as u32;
                    let rest = (TOTAL as u32 - size) | (shift - 1) << SHIFT;
                    Share { most: size << (31 - BITS), reciprocal, start, rest }
                };
            }
            start += size;
        }
        shares[usize::from(ESCAPE)].rest |= ESCAPED;
        for (symbol, _) in all.iter().enumerate().filter(|(_, size)| **size == 0) {
            shares[symbol] = shares[usize::from(ESCAPE)];
        }
        Model { shares, costs }
    }
}

/// Bits of a symbol that occurs `size` times of [`TOTAL`], in 256ths: the logarithm, bit by bit.
fn cost(size: u32) -> u32 {
    let whole = size.ilog2();
    let mut x = u64::from(size) << (31 - whole);
    let mut log = whole;
    for _ in 0..8 {
        x = (x * x) >> 31;
        let more = (x >> 32) as u32;
        log = log << 1 | more;
        x >>= more;
    }
    BITS * 256 - log
}

/// The encoder's tables, made as they are needed.
#[derive(Debug)]
pub(crate) struct Models(Vec<Option<Box<Model>>>);

impl Default for Models {
    fn default() -> Models {
        Models(std::iter::repeat_with(|| None).take(MODELS).collect())
    }
}

impl Models {
    pub fn get(&mut self, model: u8) -> &Model {
        self.0[usize::from(model)].get_or_insert_with(|| Box::new(Model::of(model)))
    }

    /// Those that [`Models::get`] has made before, by metric.
    pub fn chosen(&self, names: &[u8; 256]) -> Chosen<'_> {
        let made = |name: u8| self.0[usize::from(name)].as_deref();
        names.map(|name| made(name).unwrap_or_else(|| unreachable!("all that have names were made")))
    }
}

/// The model of each metric.
pub(crate) type Chosen<'a> = [&'a Model; 256];

/// The encoder's states, and the words in reverse.
#[derive(Debug)]
pub(crate) struct Writer {
    pub states: [u32; STATES],
    pub words: Vec<u16>,
    /// Which symbols were escaped, the last first.
    pub escaped: Vec<u32>,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer { states: [LEAST; STATES], words: Vec::new(), escaped: Vec::new() }
    }
}

impl Writer {
    pub fn clear(&mut self) {
        self.states = [LEAST; STATES];
        self.words.clear();
        self.escaped.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_logarithms() {
        for size in 1..TOTAL as u32 {
            let exact = 256.0 * (f64::from(BITS) - f64::from(size).log2());
            assert!((f64::from(cost(size)) - exact).abs() < 2.0, "{size}");
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
            let metric = vec![0; symbols.len()];
            models.get(model);
            writer.clear();
            Portable.put(&mut writer, &models.chosen(&[model; 256]), &metric, &symbols, 0);
            assert_eq!(writer.escaped, []);
            let words: Vec<u16> = writer.words.iter().rev().copied().chain([0; STATES]).collect();
            let mut reader = Reader::new(writer.states, &words).unwrap();
            let mut back = vec![0; symbols.len()];
            let numbers = Numbers::of([tables.number(model); CONTEXTS]);
            Portable.symbols(&mut reader, &tables.tables, &numbers, &metric, &mut back);
            assert_eq!(back, symbols, "{model}");
            assert!(reader.ended());
        }
    }
}
