//! Blocks of 64 residuals to bits and back: Rice codes, column by column.
//!
//! A residual is cut into its low `k` bits, stored as they are, and a quotient of at most 7, stored in unary: one mask
//! says which of the 64 quotients are at least 1, the next which *of those* are at least 2, and so on. All 64 are coded
//! by a few word operations, without a branch for any of them.

/// Residuals of a block.
pub(crate) const BLOCK: usize = 64;

/// Most bytes that the fixed part of a block's low bits and first mask has: 7 bits and a mask.
pub(crate) const FIXED: usize = 64;

/// Most ones of a mask that another one follows: so many bits come from one unaligned load.
pub(crate) const DENSEST: u32 = 56;

/// What a processor does in its own way. All of them do the same.
///
/// # Safety
/// The methods may be called only where the processor has what the type stands for.
pub(crate) trait Kernel {
    /// Stores the low `k` (0 to 7) bits of each byte: where `k` has 4, a nibble each, sample `i` with `i + 32`; then,
    /// where `k` has 2, two bits each, `i` with `i + 16`, `i + 32` and `i + 48`; then, where `k` has 1, a bit each. Writes
    /// beyond these `8 * k` bytes what it likes.
    unsafe fn pack(low: &[u8; BLOCK], k: u32, out: &mut [u8; FIXED]);

    /// The low bits stored by [`Kernel::pack`]; higher ones are 0.
    unsafe fn unpack(bytes: &[u8; FIXED], k: u32) -> [u8; BLOCK];

    /// The sum of the bytes, and a byte with the bits that any of them has.
    unsafe fn measure(block: &[u8; BLOCK]) -> (u32, u8);

    /// Bits 0, 1 and 2 of each byte, as one word each.
    unsafe fn planes(quotients: &[u8; BLOCK]) -> [u64; 3];

    /// The bytes of which these are bits 0, 1 and 2.
    unsafe fn bytes(planes: [u64; 3]) -> [u8; BLOCK];

    /// The bits of `value` where `mask` has ones, moved together.
    unsafe fn extract(value: u64, mask: u64) -> u64;

    /// The lowest bits of `value`, moved to where `mask` has ones.
    unsafe fn deposit(value: u64, mask: u64) -> u64;
}

/// Code that runs anywhere.
pub(crate) struct Portable;

const ONES: u64 = 0x0101_0101_0101_0101;

impl Kernel for Portable {
    #[inline(always)]
    unsafe fn pack(low: &[u8; BLOCK], k: u32, out: &mut [u8; FIXED]) {
        let mut at = 0;
        if k & 4 != 0 {
            for i in 0..32 {
                out[i] = low[i] & 15 | low[i + 32] << 4;
            }
            at = 32;
        }
        if k & 2 != 0 {
            let shift = k & 4;
            let two = |x: u8| x >> shift & 3;
            for i in 0..16 {
                out[at + i] = two(low[i]) | two(low[i + 16]) << 2 | two(low[i + 32]) << 4 | two(low[i + 48]) << 6;
            }
            at += 16;
        }
        if k & 1 != 0 {
            out[at..at + 8].copy_from_slice(&plane(low, k & 6).to_le_bytes());
        }
    }

    #[inline(always)]
    unsafe fn unpack(bytes: &[u8; FIXED], k: u32) -> [u8; BLOCK] {
        let mut low = [0; BLOCK];
        let mut at = 0;
        if k & 4 != 0 {
            for i in 0..32 {
                low[i] = bytes[i] & 15;
                low[i + 32] = bytes[i] >> 4;
            }
            at = 32;
        }
        if k & 2 != 0 {
            let shift = k & 4;
            for i in 0..16 {
                let four = bytes[at + i];
                low[i] |= (four & 3) << shift;
                low[i + 16] |= (four >> 2 & 3) << shift;
                low[i + 32] |= (four >> 4 & 3) << shift;
                low[i + 48] |= (four >> 6) << shift;
            }
            at += 16;
        }
        if k & 1 != 0 {
            let word = u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
            for (i, eight) in low.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let bits = spread(word >> (8 * i)) << (k & 6);
                *eight = (u64::from_le_bytes(*eight) | bits).to_le_bytes();
            }
        }
        low
    }

    #[inline(always)]
    unsafe fn measure(block: &[u8; BLOCK]) -> (u32, u8) {
        (block.iter().fold(0, |sum, &v| sum + u32::from(v)), block.iter().fold(0, |any, v| any | v))
    }

    #[inline(always)]
    unsafe fn planes(quotients: &[u8; BLOCK]) -> [u64; 3] {
        [plane(quotients, 0), plane(quotients, 1), plane(quotients, 2)]
    }

    #[inline(always)]
    unsafe fn bytes(planes: [u64; 3]) -> [u8; BLOCK] {
        let mut out = [0; BLOCK];
        for (i, eight) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let [a, b, c] = planes.map(|p| spread(p >> (8 * i)));
            *eight = (a | b << 1 | c << 2).to_le_bytes();
        }
        out
    }

    #[inline(always)]
    unsafe fn extract(value: u64, mask: u64) -> u64 {
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
    unsafe fn deposit(mut value: u64, mask: u64) -> u64 {
        let mut out = 0;
        for i in (0..64).step_by(4) {
            let nibble = mask >> i & 15;
            out |= u64::from(DEPOSIT[(nibble << 4 | value & 15) as usize]) << i;
            value >>= nibble.count_ones();
        }
        out
    }
}

/// Bit `bit` of each byte.
#[inline(always)]
fn plane(bytes: &[u8; BLOCK], bit: u32) -> u64 {
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
fn spread(bits: u64) -> u64 {
    let copies = (bits & 255).wrapping_mul(ONES) & 0x8040_2010_0804_0201;
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
