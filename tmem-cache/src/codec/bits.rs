//! Bits one after the other, the lowest of a byte first.

/// Most bits that are put at a time: so many come from one unaligned load.
pub(crate) const MOST: u32 = 56;

/// Writes up to [`MOST`] bits at a time.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    /// Bytes written; bits not yet counted here are in `pending`.
    bytes: usize,
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// Appends the lowest `count` bits of `value`, whose others are 0. `to` has 8 bytes beyond what is written.
    #[inline(always)]
    pub fn put(&mut self, to: &mut [u8], value: u64, count: u32) {
        debug_assert!(count <= MOST);
        let word = self.pending | value << self.count;
        to[self.bytes..self.bytes + 8].copy_from_slice(&word.to_le_bytes());
        let total = self.count + count;
        let whole = total / 8;
        self.bytes += whole as usize;
        self.pending = word >> (8 * whole);
        self.count = total % 8;
    }

    /// Bytes that hold all bits put.
    pub fn len(&self) -> usize {
        self.bytes + usize::from(self.count > 0)
    }
}

/// Reads them back. Beyond the end there are zeros.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    from: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub fn new(from: &'a [u8]) -> BitReader<'a> {
        BitReader { from, at: 0 }
    }

    /// The next 57 bits or more.
    #[inline(always)]
    pub fn peek(&self) -> u64 {
        let byte = self.at / 8;
        let word = match self.from.get(byte..byte + 8) {
            Some(eight) => u64::from_le_bytes(std::array::from_fn(|i| eight[i])),
            None => last(self.from, byte),
        };
        word >> (self.at % 8)
    }

    /// Goes on by `count` bits.
    #[inline(always)]
    pub fn skip(&mut self, count: u32) {
        self.at += count as usize;
    }

    /// Bytes there are.
    pub fn len(&self) -> usize {
        self.from.len()
    }

    /// Bytes of which at least one bit was passed.
    pub fn bytes(&self) -> usize {
        self.at.div_ceil(8)
    }
}

/// Not a method: the reader of one stays in registers, as nobody else has its address.
#[cold]
fn last(from: &[u8], byte: usize) -> u64 {
    let rest = from.get(byte..).unwrap_or_default();
    rest.iter().take(8).rev().fold(0, |word, &b| word << 8 | u64::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_come_back_in_order() {
        let values: Vec<(u64, u32)> =
            (0..500u64).map(|i| ((i * 0x9e37_79b9) & ((1 << (i % 57)) - 1), (i % 57) as u32)).collect();
        let mut bytes = vec![0; 8 * values.len()];
        let mut writer = BitWriter::default();
        values.iter().for_each(|&(value, count)| writer.put(&mut bytes, value, count));
        let bytes = &bytes[..writer.len()];
        let mut reader = BitReader::new(bytes);
        for (value, count) in values {
            assert_eq!(reader.peek() & ((1 << count) - 1), value);
            reader.skip(count);
        }
        assert_eq!(reader.bytes(), bytes.len());
        reader.skip(10_000);
        assert_eq!(reader.peek(), 0);
    }
}
