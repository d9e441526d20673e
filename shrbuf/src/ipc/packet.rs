//! The bytes of a message: written field by field into room that is kept, and read the same way once its length is right.

use crate::layout::LayoutError;

/// No message is longer.
pub const MAX_MESSAGE: usize = 640;

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Too few for a type, or of a length that is not the type's.
    #[error("a message of type {kind:#x} with {len} bytes, which has {expected}")]
    Length {
        /// Type; 0 where there were no four bytes.
        kind: u32,
        /// Bytes that came.
        len: usize,
        /// Bytes that it should have.
        expected: usize,
    },
    /// Nothing that this version knows in this direction.
    #[error("a message of unknown type {kind:#x}")]
    Kind {
        /// Type.
        kind: u32,
    },
    /// A field has a value that it cannot have.
    #[error("field `{field}` of a message of type {kind:#x} is {value:#x}")]
    Field {
        /// Type.
        kind: u32,
        /// Field.
        field: &'static str,
        /// Value.
        value: u64,
    },
    /// The planes of a buffer cannot be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// Room for any message; kept, so that none is made for each.
pub(super) struct Packet {
    bytes: [u8; MAX_MESSAGE],
    len: usize,
}

impl Default for Packet {
    fn default() -> Packet {
        Packet { bytes: [0; MAX_MESSAGE], len: 0 }
    }
}

impl Packet {
    pub(super) fn begin(&mut self, kind: u32) -> &mut Packet {
        self.len = 0;
        self.u32(kind)
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Packet {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    pub(super) fn u32(&mut self, n: u32) -> &mut Packet {
        self.raw(&n.to_ne_bytes())
    }

    pub(super) fn u64(&mut self, n: u64) -> &mut Packet {
        self.raw(&n.to_ne_bytes())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The fields of a message whose length has been checked.
pub(super) struct Reader<'a> {
    pub(super) kind: u32,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], length: impl Fn(u32) -> Option<usize>) -> Result<Reader<'a>, WireError> {
        let wrong = |kind, expected| WireError::Length { kind, len: bytes.len(), expected };
        let (head, rest) = bytes.split_first_chunk().ok_or_else(|| wrong(0, 4))?;
        let kind = u32::from_ne_bytes(*head);
        let expected = length(kind).ok_or(WireError::Kind { kind })?;
        if bytes.len() == expected { Ok(Reader { kind, rest }) } else { Err(wrong(kind, expected)) }
    }

    /// Zeros beyond the end, which the check of the length rules out.
    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk() {
            Some((array, rest)) => {
                self.rest = rest;
                *array
            }
            None => [0; N],
        }
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.array())
    }

    pub(super) fn wrong(&self, field: &'static str, value: u64) -> WireError {
        WireError::Field { kind: self.kind, field, value }
    }

    pub(super) fn check(&self, field: &'static str, value: u32, right: bool) -> Result<(), WireError> {
        if right { Ok(()) } else { Err(self.wrong(field, u64::from(value))) }
    }
}
