//! A record's header, to the byte. All numbers are little-endian.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..8 | `TMEMREC3`; `TMEMREC2` is read too, which had no repeats |
//! | 8 | 0, or 1 once the chunk has been flushed; not in the checksum |
//! | 9 | coding: 0 raw, 1 lz4, 2 zstd, 3 frame, 4 dense frame; 128 more where the record is a repeat |
//! | 10..14 | low half of the xxh3 of the name of a frame's format |
//! | 14..18 | width and height of a frame |
//! | 18..26 | low half of the 128-bit xxh3 of the pool's name; 0 where the chunk is not durable |
//! | 26..54 | object id, index |
//! | 54..70 | stamp: nanoseconds at, nanoseconds long |
//! | 70..78 | sequence: of two records of one handle the higher counts |
//! | 78..82, 82..86 | bytes of the chunk; bytes that follow the header |
//! | 86..94 | low half of the 128-bit xxh3 of the stored bytes |
//! | 94..102 | xxh3 of bytes 0..94, where byte 8 is 0 |
//!
//! What follows are the stored bytes; of a repeat 8 bytes, the sequence of the record that has them. Both are of one pool
//! and agree in coding, size and checksum, else the repeat is void. The other record may be flushed, and lie in another
//! file.

use shrbuf::Format;

use crate::store::chunk::Coding;
use crate::store::{Handle, ObjectId, Stamp};

/// Bytes of a header.
pub(super) const HEADER: usize = 102;

/// Where the mark of a flushed record is.
pub(super) const MARK: u64 = 8;

const MAGIC: &[u8; 8] = b"TMEMREC3";
const WITHOUT_REPEATS: &[u8; 8] = b"TMEMREC2";

/// What the coding of a repeat has more.
const REPEAT: u8 = 128;

/// What a record says of its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label {
    pub handle: Handle,
    pub stamp: Stamp,
    pub coding: Coding,
    pub original: u32,
    pub hash: u64,
}

/// All of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub label: Label,
    pub pool: u64,
    pub sequence: u64,
    /// Bytes that follow.
    pub follow: u32,
    /// They name the record that has the stored bytes.
    pub repeats: bool,
    pub flushed: bool,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        let l = &self.label;
        let (coding, format, size) = match l.coding {
            Coding::Raw => (0, [0; 4], [0, 0]),
            Coding::Lz4 => (1, [0; 4], [0, 0]),
            Coding::Zstd => (2, [0; 4], [0, 0]),
            Coding::Frame { format, width, height, dense } => {
                (3 + u8::from(dense), number(format).to_le_bytes(), [width as u16, height as u16])
            }
        };
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0, coding | if self.repeats { REPEAT } else { 0 }]);
        out.extend_from_slice(&format);
        size.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        out.extend_from_slice(&self.pool.to_le_bytes());
        l.handle.object.0.iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        out.extend_from_slice(&l.handle.index.to_le_bytes());
        [l.stamp.at_ns, l.stamp.duration_ns, self.sequence]
            .iter()
            .for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        [l.original, self.follow].iter().for_each(|n| out.extend_from_slice(&n.to_le_bytes()));
        out.extend_from_slice(&l.hash.to_le_bytes());
        let sum = xxhash_rust::xxh3::xxh3_64(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        let mut header = [0; HEADER];
        header.copy_from_slice(&out);
        header[MARK as usize] = u8::from(self.flushed);
        header
    }

    /// `None` where these bytes are no whole header.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Option<Header> {
        let mut plain = *bytes;
        let flushed = std::mem::take(&mut plain[MARK as usize]) != 0;
        let u16_at = |at: usize| u32::from(u16::from_le_bytes([plain[at], plain[at + 1]]));
        let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if ![MAGIC, WITHOUT_REPEATS].contains(&plain.first_chunk()?)
            || u64_at(94) != xxhash_rust::xxh3::xxh3_64(&plain[..94])
        {
            return None;
        }
        let frame = |dense| {
            let format = Format::all().find(|f| number(*f) == u32_at(10))?;
            Some(Coding::Frame { format, width: u16_at(14), height: u16_at(16), dense })
        };
        let coding = match plain[9] & !REPEAT {
            0 => Coding::Raw,
            1 => Coding::Lz4,
            2 => Coding::Zstd,
            3 => frame(false)?,
            4 => frame(true)?,
            _ => return None,
        };
        let label = Label {
            handle: Handle { object: ObjectId([u64_at(26), u64_at(34), u64_at(42)]), index: u32_at(50) },
            stamp: Stamp { at_ns: u64_at(54), duration_ns: u64_at(62) },
            coding,
            original: u32_at(78),
            hash: u64_at(86),
        };
        let repeats = plain[9] & REPEAT != 0;
        Some(Header { label, pool: u64_at(18), sequence: u64_at(70), follow: u32_at(82), repeats, flushed })
    }
}

/// What a format is called in a header: the fourcc does not tell byte orders of Bayer formats apart, the name does.
fn number(format: Format) -> u32 {
    xxhash_rust::xxh3::xxh3_64(format.name().as_bytes()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let coding = Coding::Frame { format: Format::Nv12, width: 1920, height: 1080, dense: true };
        let label = Label {
            handle: Handle { object: ObjectId([1, 2, 3]), index: 4 },
            stamp: Stamp { at_ns: 5, duration_ns: 6 },
            coding,
            original: 7,
            hash: 8,
        };
        Header { label, pool: 9, sequence: 10, follow: 11, repeats: false, flushed: false }
    }

    #[test]
    fn header_comes_back_flushed_or_not_repeat_or_not() {
        for (flushed, repeats) in [(false, false), (false, true), (true, false), (true, true)] {
            let header = Header { flushed, repeats, ..header() };
            assert_eq!(Header::decode(&header.encode()), Some(header));
        }
    }

    #[test]
    fn header_of_the_version_before_is_read() {
        let mut before = header().encode();
        before[7] = b'2';
        let sum = xxhash_rust::xxh3::xxh3_64(&before[..94]);
        before[94..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Header::decode(&before), Some(header()));
    }

    #[test]
    fn header_with_any_bit_changed_is_none() {
        let whole = header().encode();
        for at in (0..HEADER).filter(|at| *at != MARK as usize) {
            let mut torn = whole;
            torn[at] ^= 1;
            assert_eq!(Header::decode(&torn), None, "byte {at}");
        }
    }
}
