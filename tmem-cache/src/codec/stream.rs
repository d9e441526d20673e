//! A frame's stream: a header, a table of stripes, the stripes.

use super::decoder::DecodeError;
use super::picture::Picture;

/// What a stream begins with; the last byte is the version of the format.
pub(crate) const MAGIC: [u8; 4] = *b"TMF\x01";

/// Bytes before the table: magic, picture, reference, checksum of all this and the table.
pub(crate) const HEADER: usize = 16;

/// Bytes of a stripe's entry: size and kind, checksum.
pub(crate) const ENTRY: usize = 8;

/// How a stripe is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Raw = 0,
    Coded = 1,
    Dense = 2,
}

const KINDS: [Kind; 3] = [Kind::Raw, Kind::Coded, Kind::Dense];
const KIND_SHIFT: u32 = 30;

/// Bytes of a stream before its stripes.
pub(crate) fn head_bytes(picture: &Picture) -> usize {
    HEADER + ENTRY * picture.stripes()
}

/// Fills in the entry of a stripe. `head` is all before the stripes.
pub(crate) fn put_entry(head: &mut [u8], stripe: usize, kind: Kind, coded: &[u8]) {
    let entry = &mut head[HEADER + ENTRY * stripe..][..ENTRY];
    let size = coded.len() as u32 | (kind as u32) << KIND_SHIFT;
    entry[..4].copy_from_slice(&size.to_le_bytes());
    entry[4..].copy_from_slice(&crc32fast::hash(coded).to_le_bytes());
}

/// Makes the entry of a stripe fit the bytes `rest`, of which the last stripe takes all; returns how many it has.
pub(crate) fn mend_entry(head: &mut [u8], stripe: usize, rest: &[u8], last: bool) -> usize {
    let entry = word(head, HEADER + ENTRY * stripe);
    let given = (entry & ((1 << KIND_SHIFT) - 1)) as usize;
    let size = if last { rest.len() } else { given.min(rest.len()) };
    let kind = KINDS[(entry >> KIND_SHIFT) as usize % KINDS.len()];
    put_entry(head, stripe, kind, &rest[..size]);
    size
}

/// Fills in the header, once all entries are there.
pub(crate) fn put_header(head: &mut [u8], picture: &Picture, reference: Option<u32>) {
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&picture.identity().to_le_bytes());
    head[8..12].copy_from_slice(&reference.unwrap_or(0).to_le_bytes());
    let sum = head_sum(head);
    head[12..HEADER].copy_from_slice(&sum.to_le_bytes());
}

fn head_sum(head: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&head[..12]);
    hash.update(&head[HEADER..]);
    hash.finalize()
}

/// A stream whose header and table are whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream<'a> {
    table: &'a [u8],
    stripes: &'a [u8],
    reference: bool,
}

impl<'a> Stream<'a> {
    pub fn open(stream: &'a [u8], picture: &Picture, reference: Option<u32>) -> Result<Stream<'a>, DecodeError> {
        let truncated = |needed| DecodeError::Truncated { given: stream.len(), needed };
        let known = MAGIC[3];
        let (start, _) = stream.split_first_chunk::<4>().ok_or(truncated(HEADER))?;
        if *start != MAGIC {
            return Err(DecodeError::Header { known, start: *start });
        }
        let (head, stripes) = stream.split_at_checked(head_bytes(picture)).ok_or(truncated(head_bytes(picture)))?;
        if word(head, 4) != picture.identity() {
            return Err(DecodeError::Picture);
        }
        if word(head, 12) != head_sum(head) {
            return Err(DecodeError::Table);
        }
        let needed = word(head, 8);
        if needed != 0 && reference != Some(needed) {
            return Err(DecodeError::Reference { needed, given: reference });
        }
        let table = &head[HEADER..];
        let sizes = (0..picture.stripes()).map(|i| size(table, i));
        let all = sizes.fold(0usize, |sum, size| sum.saturating_add(size));
        if all > stripes.len() {
            return Err(truncated(head.len().saturating_add(all)));
        }
        if all < stripes.len() {
            return Err(DecodeError::Trailing { given: stream.len(), needed: head.len() + all });
        }
        Ok(Stream { table, stripes, reference: needed != 0 })
    }

    /// Where a stripe starts, counted from the end of the table. The one after it starts where this one ends.
    pub fn start(&self, stripe: usize) -> usize {
        (0..stripe).map(|i| size(self.table, i)).sum()
    }

    /// True where frames are predicted from a reference.
    pub fn has_reference(&self) -> bool {
        self.reference
    }

    /// Bytes of a stripe.
    pub fn size(&self, stripe: usize) -> usize {
        size(self.table, stripe)
    }

    /// The stripe that starts there, checked.
    pub fn stripe(&self, stripe: usize, start: usize) -> Result<(Kind, &'a [u8]), DecodeError> {
        let coded = &self.stripes[start..start + size(self.table, stripe)];
        let number = word(self.table, ENTRY * stripe) >> KIND_SHIFT;
        let damaged = |what| DecodeError::Stripe { stripe, what };
        let kind = KINDS.get(number as usize).ok_or(damaged("it is of no known kind"))?;
        if crc32fast::hash(coded) != word(self.table, ENTRY * stripe + 4) {
            return Err(damaged("its checksum is wrong"));
        }
        Ok((*kind, coded))
    }
}

fn size(table: &[u8], stripe: usize) -> usize {
    (word(table, ENTRY * stripe) & ((1 << KIND_SHIFT) - 1)) as usize
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}
