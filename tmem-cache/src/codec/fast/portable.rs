//! Code that runs anywhere. Loops over arrays, which compilers turn into what vectors there are.
//!
//! Where they do that only for arrays in memory, loops are functions that are not inlined: amid other code, arrays become so
//! many single numbers. What each became on x86-64 and on 64-bit Arm was read in its assembly.

use super::super::bits::BitReader;
use super::kernel::{BYTES, EIGHTS, Kernel, Masks};
use super::unary::{self, Levels};

/// Needs nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

type Bytes = [u8; BYTES];
type Words = [u16; BYTES / 2];

const ONES: u64 = 0x0101_0101_0101_0101;

/// The bytes at even places of eight, and the words at even places of four.
const EVEN_BYTES: u64 = 0x00ff_00ff_00ff_00ff;
const EVEN_WORDS: u64 = 0x0000_ffff_0000_ffff;

impl Kernel for Portable {
    type Vector = Bytes;
    type Quotients = Levels;

    #[inline(always)]
    fn fetch(self, _: &[u8], _: usize) {}

    #[inline(always)]
    fn load(self, bytes: &Bytes) -> Bytes {
        *bytes
    }

    #[inline(always)]
    fn store(self, v: Bytes, bytes: &mut Bytes) {
        *bytes = v;
    }

    #[inline(always)]
    fn zero(self) -> Bytes {
        [0; BYTES]
    }

    #[inline(always)]
    fn only_if(self, condition: bool, v: Bytes) -> Bytes {
        if condition { v } else { [0; BYTES] }
    }

    #[inline(always)]
    fn avg<const WIDE: bool>(self, a: Bytes, b: Bytes) -> Bytes {
        if WIDE {
            words2(a, b, |a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16)
        } else {
            bytes2(a, b, |a, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8)
        }
    }

    #[inline(always)]
    fn add<const WIDE: bool>(self, a: Bytes, b: Bytes) -> Bytes {
        if WIDE { words2(a, b, u16::wrapping_add) } else { bytes2(a, b, u8::wrapping_add) }
    }

    #[inline(always)]
    fn sub<const WIDE: bool>(self, a: Bytes, b: Bytes) -> Bytes {
        if WIDE { words2(a, b, u16::wrapping_sub) } else { bytes2(a, b, u8::wrapping_sub) }
    }

    #[inline(always)]
    fn zigzag<const WIDE: bool>(self, v: Bytes) -> Bytes {
        if WIDE {
            words2(v, v, |x, _| x << 1 ^ (x as i16 >> 15) as u16)
        } else {
            bytes2(v, v, |x, _| x << 1 ^ (x as i8 >> 7) as u8)
        }
    }

    #[inline(always)]
    fn unzigzag<const WIDE: bool>(self, v: Bytes) -> Bytes {
        if WIDE {
            words2(v, v, |x, _| x >> 1 ^ 0u16.wrapping_sub(x & 1))
        } else {
            bytes2(v, v, |x, _| x >> 1 ^ 0u8.wrapping_sub(x & 1))
        }
    }

    #[inline(always)]
    fn along<const WIDE: bool>(self, v: Bytes, period: usize, before: &[u8; 16]) -> Bytes {
        let mut room = [0; 16 + BYTES];
        room[..16].copy_from_slice(before);
        room[16..].copy_from_slice(&v);
        let period = period.clamp(1, 16);
        if WIDE {
            for i in (16..16 + BYTES).step_by(2) {
                let word = |at| u16::from_le_bytes([room[at], room[at + 1]]);
                let sum = word(i).wrapping_add(word(i - period));
                room[i..i + 2].copy_from_slice(&sum.to_le_bytes());
            }
        } else {
            for i in 16..16 + BYTES {
                room[i] = room[i].wrapping_add(room[i - period]);
            }
        }
        std::array::from_fn(|i| room[16 + i])
    }

    #[inline(always)]
    fn shift_words(self, v: Bytes, k: u32) -> Bytes {
        words2(v, v, |x, _| x << k)
    }

    #[inline(always)]
    fn split(self, a: Bytes, b: Bytes) -> (Bytes, Bytes) {
        let (mut even, mut odd) = ([0; BYTES], [0; BYTES]);
        split(&[a, b], &mut even, &mut odd);
        (even, odd)
    }

    #[inline(always)]
    fn join(self, even: Bytes, odd: Bytes) -> (Bytes, Bytes) {
        let mut out = [[0; BYTES]; 2];
        join(&even, &odd, &mut out);
        let [a, b] = out;
        (a, b)
    }

    #[inline(always)]
    fn sum<const WIDE: bool>(self, v: Bytes) -> u32 {
        if WIDE {
            words(v).iter().fold(0, |sum, &x| sum + u32::from(x))
        } else {
            v.iter().fold(0, |sum, &x| sum + u32::from(x))
        }
    }

    #[inline(always)]
    fn most(self, v: Bytes) -> u32 {
        most(&v)
    }

    #[inline(always)]
    fn most_words(self, a: Bytes, b: Bytes) -> u32 {
        most_words(&[a, b])
    }

    #[inline(always)]
    fn reach(self, v: Bytes, least: u8) -> u64 {
        plane(&bytes2(v, v, |x, _| u8::from(x >= least)), 0)
    }

    #[inline(always)]
    fn below(self, v: Bytes, least: u8) -> Bytes {
        bytes2(v, v, |x, _| if x < least { x } else { 0 })
    }

    #[inline(always)]
    fn cut(self, v: Bytes, k: u32) -> (Bytes, Levels) {
        let one = 1 << k;
        let (mut fields, mut levels) = ([0; BYTES], Levels::default());
        cut(&v, one, &mut fields, &mut levels);
        (fields, levels)
    }

    #[inline(always)]
    fn cut_words(self, a: Bytes, b: Bytes, k: u32) -> (Bytes, Bytes, Levels) {
        let (mut fields, mut quotients) = ([[0; BYTES]; 2], [[0; BYTES]; 2]);
        cut_words(&[a, b], k, &mut fields, &mut quotients);
        let (low, high) = self.split(fields[0], fields[1]);
        // Quotients are small, so that their low bytes are all there is.
        let (quotients, _) = self.split(quotients[0], quotients[1]);
        let (_, levels) = self.cut(quotients, 0);
        (low, high, levels)
    }

    #[inline(always)]
    fn masks(self, levels: &Levels) -> Masks {
        unary::masks(levels)
    }

    #[inline(always)]
    fn pack(self, fields: Bytes, width: u32, to: &mut Bytes) {
        let (n, mut words) = (width.clamp(1, 8) as usize, [0; 8]);
        squeeze(&fields, width, &mut words);
        for (i, from) in EIGHTS.into_iter().enumerate() {
            // What is written beyond its `n` bytes the next one overwrites.
            to[n * i..n * i + 8].copy_from_slice(&words[from].to_le_bytes());
        }
    }

    #[inline(always)]
    fn unpack(self, from: &Bytes, width: u32) -> (Bytes, u64) {
        let (n, mut words, mut fields) = (width.min(8) as usize, [0; 8], [0; BYTES]);
        for (i, to) in EIGHTS.into_iter().enumerate() {
            words[to] = u64::from_le_bytes(std::array::from_fn(|j| from[n * i + j]));
        }
        stretch(&words, width, &mut fields);
        let top = width.saturating_sub(1);
        (fields, plane(&fields, top))
    }

    #[inline(always)]
    fn raise(self, fields: Bytes, first: u64, masks: &mut BitReader<'_>, one: u8) -> Bytes {
        let mut out = fields;
        unary::raise(first, masks, one, &mut out);
        out
    }
}

#[inline(always)]
fn words(v: Bytes) -> Words {
    std::array::from_fn(|i| u16::from_le_bytes([v[2 * i], v[2 * i + 1]]))
}

#[inline(always)]
fn bytes2(a: Bytes, b: Bytes, f: impl Fn(u8, u8) -> u8) -> Bytes {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn words2(a: Bytes, b: Bytes, f: impl Fn(u16, u16) -> u16) -> Bytes {
    let (a, b, mut out) = (words(a), words(b), [0; BYTES]);
    for (i, two) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *two = f(a[i], b[i]).to_le_bytes();
    }
    out
}

/// Bit `bit` of each byte.
#[inline(always)]
fn plane(bytes: &Bytes, bit: u32) -> u64 {
    let mut word = 0;
    for (i, eight) in bytes.as_chunks::<8>().0.iter().enumerate() {
        let bits = u64::from_le_bytes(*eight) >> bit & ONES;
        // Each of the eight bits lands once, in its place, in the top byte; no two terms meet below it.
        word |= (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
    }
    word
}

#[inline(never)]
fn split(both: &[Bytes; 2], even: &mut Bytes, odd: &mut Bytes) {
    let words = both.as_flattened().as_chunks::<2>().0;
    for ((two, even), odd) in words.iter().zip(&mut *even).zip(&mut *odd) {
        let word = u16::from_le_bytes(*two);
        (*even, *odd) = (word as u8, (word >> 8) as u8);
    }
    swap(even);
    swap(odd);
}

#[inline(never)]
fn join(even: &Bytes, odd: &Bytes, out: &mut [Bytes; 2]) {
    let (mut even, mut odd) = (*even, *odd);
    swap(&mut even);
    swap(&mut odd);
    let words = out.as_flattened_mut().as_chunks_mut::<2>().0;
    for ((two, even), odd) in words.iter_mut().zip(even).zip(odd) {
        *two = (u16::from(even) | u16::from(odd) << 8).to_le_bytes();
    }
}

/// Eights into the order of [`EIGHTS`], and back.
#[inline(always)]
fn swap(v: &mut Bytes) {
    let eights = v.as_chunks_mut::<8>().0;
    eights.swap(1, 2);
    eights.swap(5, 6);
}

#[inline(never)]
fn most(v: &Bytes) -> u32 {
    v.iter().fold(0, |most, &x| most.max(x)).into()
}

#[inline(never)]
fn most_words(both: &[Bytes; 2]) -> u32 {
    let words = both.as_flattened().as_chunks::<2>().0;
    words.iter().fold(0, |most, &two| most.max(u16::from_le_bytes(two))).into()
}

/// Bytes to fields and quotients, `one` being what a quotient counts.
#[inline(never)]
fn cut(v: &Bytes, one: u8, fields: &mut Bytes, levels: &mut Levels) {
    let two = one << 1;
    // Of quotients those that are at least 1, and the two bits of q - 1: of each eighth byte one, in the order of their
    // eights.
    let mut bits = [[0; 16]; 3];
    for (i, (sixteen, fields)) in v.as_chunks::<16>().0.iter().zip(fields.as_chunks_mut::<16>().0).enumerate() {
        for j in 0..16 {
            let bit = if j < 8 { 1 } else { 2 } << (2 * i);
            let x = sixteen[j];
            let reach = if x >= one { u8::MAX } else { 0 };
            fields[j] = x & (one - 1) | reach & one;
            let beyond = x.saturating_sub(one);
            bits[0][j] |= reach & bit;
            bits[1][j] |= if beyond & one == 0 { 0 } else { bit };
            bits[2][j] |= if beyond & two == 0 { 0 } else { bit };
        }
    }
    let [first, a, b] = bits.map(|bits| {
        let [a, b] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|i| bits[at + i])));
        transposed(a | b)
    });
    *levels = [first, a | b, b, a & b].map(u64::to_le_bytes);
}

#[inline(never)]
fn cut_words(both: &[Bytes; 2], k: u32, fields: &mut [Bytes; 2], quotients: &mut [Bytes; 2]) {
    let k = k % 16;
    let one = 1 << k;
    let fields = fields.as_flattened_mut().as_chunks_mut::<2>().0;
    let quotients = quotients.as_flattened_mut().as_chunks_mut::<2>().0;
    for ((two, field), quotient) in both.as_flattened().as_chunks::<2>().0.iter().zip(fields).zip(quotients) {
        let x = u16::from_le_bytes(*two);
        *field = (x & (one - 1) | if x >= one { one } else { 0 }).to_le_bytes();
        *quotient = (x >> k).to_le_bytes();
    }
}

/// Bit i of byte j to bit j of byte i.
#[inline(always)]
fn transposed(mut x: u64) -> u64 {
    for (down, mask) in [(7, 0x00aa_00aa_00aa_00aa), (14, 0x0000_cccc_0000_cccc), (28, 0x0000_0000_f0f0_f0f0)] {
        let moved = (x ^ x >> down) & mask;
        x ^= moved ^ moved << down;
    }
    x
}

/// Eight fields each next to each other: to pairs, to fours, to all eight.
#[inline(never)]
fn squeeze(fields: &Bytes, width: u32, words: &mut [u64; 8]) {
    let n = width.clamp(1, 8);
    for (word, eight) in words.iter_mut().zip(fields.as_chunks::<8>().0) {
        let eight = u64::from_le_bytes(*eight);
        let pairs = eight & EVEN_BYTES | (eight >> 8 & EVEN_BYTES) << n;
        let fours = pairs & EVEN_WORDS | (pairs >> 16 & EVEN_WORDS) << (2 * n);
        *word = fours & u64::from(u32::MAX) | fours >> 32 << (4 * n);
    }
}

/// The reverse. What words have above their fields does not matter.
#[inline(never)]
fn stretch(words: &[u64; 8], width: u32, fields: &mut Bytes) {
    let n = width.min(8);
    let below = |bits: u32| (1u64 << bits) - 1;
    let (four, two, one) = (below(4 * n), below(2 * n) * (1 | 1 << 32), below(n) * (EVEN_BYTES / 255));
    for (word, eight) in words.iter().zip(fields.as_chunks_mut::<8>().0) {
        let fours = word & four | (word >> (4 * n) & four) << 32;
        let pairs = fours & two | (fours >> (2 * n) & two) << 16;
        *eight = (pairs & one | (pairs >> n & one) << 8).to_le_bytes();
    }
}
