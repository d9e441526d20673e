//! Code that runs anywhere. Loops over arrays, which compilers turn into what vectors there are.

use super::kernel::{BYTES, EIGHTS, Kernel, Quotients};

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
        for (to, from) in EIGHTS.into_iter().enumerate() {
            let sixteen = if from < 4 { &a[16 * from..][..16] } else { &b[16 * (from - 4)..][..16] };
            for i in 0..8 {
                (even[8 * to + i], odd[8 * to + i]) = (sixteen[2 * i], sixteen[2 * i + 1]);
            }
        }
        (even, odd)
    }

    #[inline(always)]
    fn join(self, even: Bytes, odd: Bytes) -> (Bytes, Bytes) {
        let (mut a, mut b) = ([0; BYTES], [0; BYTES]);
        for (from, to) in EIGHTS.into_iter().enumerate() {
            let sixteen = if to < 4 { &mut a[16 * to..][..16] } else { &mut b[16 * (to - 4)..][..16] };
            for i in 0..8 {
                (sixteen[2 * i], sixteen[2 * i + 1]) = (even[8 * from + i], odd[8 * from + i]);
            }
        }
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
        v.iter().fold(0, |most, &x| most.max(x)).into()
    }

    #[inline(always)]
    fn most_words(self, a: Bytes, b: Bytes) -> u32 {
        words(a).iter().chain(&words(b)).fold(0, |most, &x| most.max(x)).into()
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
    fn cut(self, v: Bytes, k: u32) -> (Bytes, Quotients) {
        let one = 1 << k;
        let reach = bytes2(v, v, |x, _| u8::from(x >= one));
        let fields = bytes2(v, v, |x, _| x & (one - 1) | if x >= one { one } else { 0 });
        let beyond = bytes2(v, v, |x, _| x.saturating_sub(one) >> k);
        (fields, Quotients { first: plane(&reach, 0), more: [plane(&beyond, 0), plane(&beyond, 1)] })
    }

    #[inline(always)]
    fn cut_words(self, a: Bytes, b: Bytes, k: u32) -> (Bytes, Bytes, Quotients) {
        let one = 1 << k;
        let fields = |v| words2(v, v, |x, _| x & (one - 1) | if x >= one { one } else { 0 });
        // Quotients are small, so that those of the low bytes are all there is.
        let beyond = |v| words2(v, v, |x, _| (x >> k).min(1) | x.saturating_sub(one) >> k << 1);
        let (low, high) = self.split(fields(a), fields(b));
        let (q, _) = self.split(beyond(a), beyond(b));
        (low, high, Quotients { first: plane(&q, 0), more: [plane(&q, 1), plane(&q, 2)] })
    }

    #[inline(always)]
    fn pack(self, fields: Bytes, width: u32, to: &mut Bytes) {
        let n = width.clamp(1, 8);
        for (i, from) in EIGHTS.into_iter().enumerate() {
            let eight = u64::from_le_bytes(std::array::from_fn(|j| fields[8 * from + j]));
            // Fields to pairs, to fours, to all eight next to each other.
            let pairs = eight & EVEN_BYTES | (eight >> 8 & EVEN_BYTES) << n;
            let fours = pairs & EVEN_WORDS | (pairs >> 16 & EVEN_WORDS) << (2 * n);
            let word = fours & u64::from(u32::MAX) | fours >> 32 << (4 * n);
            let n = n as usize;
            to[n * i..n * (i + 1)].copy_from_slice(&word.to_le_bytes()[..n]);
        }
    }

    #[inline(always)]
    fn unpack(self, from: &Bytes, width: u32) -> (Bytes, u64) {
        let (n, mut fields) = (width.min(8), [0; BYTES]);
        let below = |bits: u32| (1u64 << bits) - 1;
        let (four, two, one) = (below(4 * n), below(2 * n) * (1 | 1 << 32), below(n) * (EVEN_BYTES / 255));
        for (i, to) in EIGHTS.into_iter().enumerate() {
            let mut eight = [0; 8];
            let at = n as usize * i;
            eight[..n as usize].copy_from_slice(&from[at..at + n as usize]);
            let word = u64::from_le_bytes(eight);
            let fours = word & four | word >> (4 * n) << 32;
            let pairs = fours & two | (fours >> (2 * n) & two) << 16;
            let eight = pairs & one | (pairs >> n & one) << 8;
            fields[8 * to..][..8].copy_from_slice(&eight.to_le_bytes());
        }
        (fields, plane(&fields, width.saturating_sub(1)))
    }

    #[inline(always)]
    fn spread(self, planes: [u64; 2], one: u8) -> Bytes {
        let mut out = [0; BYTES];
        for (i, eight) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let [a, b] = planes.map(|p| bits(p >> (8 * i)));
            *eight = (a | b << 1).to_le_bytes().map(|x| x.wrapping_mul(one));
        }
        out
    }

    #[inline(always)]
    fn extract(self, value: u64, mask: u64) -> u64 {
        let (mut out, mut at) = (0, 0);
        for i in (0..64).step_by(4) {
            let nibble = mask >> i & 15;
            out |= u64::from(EXTRACT[(nibble << 4 | value >> i & 15) as usize]) << at;
            // 64 only after the last.
            at += nibble.count_ones();
        }
        out
    }

    #[inline(always)]
    fn deposit(self, mut value: u64, mask: u64) -> u64 {
        let mut out = 0;
        for i in (0..64).step_by(4) {
            let nibble = mask >> i & 15;
            out |= u64::from(DEPOSIT[(nibble << 4 | value & 15) as usize]) << i;
            value >>= nibble.count_ones();
        }
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

/// The lowest eight bits, one in each byte.
#[inline(always)]
fn bits(eight: u64) -> u64 {
    let copies = (eight & 255).wrapping_mul(ONES) & 0x8040_2010_0804_0201;
    // A byte that is not 0 carries into its bit 7 when 127 is added; the bits below it are dropped.
    ((copies & 0x7f7f_7f7f_7f7f_7f7f).wrapping_add(0x7f7f_7f7f_7f7f_7f7f) | copies) >> 7 & ONES
}

/// `[mask << 4 | bits]`, for nibbles.
static EXTRACT: [u8; 256] = nibbles(false);
static DEPOSIT: [u8; 256] = nibbles(true);

const fn nibbles(deposit: bool) -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mask, bits) = (i >> 4, i & 15);
        let (mut bit, mut next, mut out) = (0, 0, 0);
        while bit < 4 {
            if mask >> bit & 1 == 1 {
                let (from, to) = if deposit { (next, bit) } else { (bit, next) };
                out |= (bits >> from & 1) << to;
                next += 1;
            }
            bit += 1;
        }
        table[i] = out as u8;
        i += 1;
    }
    table
}
