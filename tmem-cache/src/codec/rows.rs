//! Where samples come from and go to.

use shrbuf::access::{ReadGuard, WriteGuard};
use shrbuf::{Account, Layout};

use super::picture::{Picture, Stripe};

/// The samples of a frame, to be read.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// All rows of all planes one after the other, without padding: [`Picture::bytes`] of them.
    Packed(&'a [u8]),
    /// The memory of a buffer, which must have the picture's format and size. Rows are copied through the guard into a
    /// scratch that stays in the processor's cache, and are counted against the account.
    Guard(&'a ReadGuard<'a>, &'a Account),
}

/// The samples of a frame, to be written.
#[derive(Debug)]
pub enum RowsMut<'a, 'guard> {
    /// As [`Rows::Packed`].
    Packed(&'a mut [u8]),
    /// As [`Rows::Guard`].
    Guard(&'a mut WriteGuard<'guard>, &'a Account),
}

impl Rows<'_> {
    /// # Errors
    /// Where these are not the picture's samples.
    pub(crate) fn check(&self, picture: &Picture) -> Result<(), WrongRows> {
        match self {
            Rows::Packed(bytes) => packed(picture, bytes),
            Rows::Guard(guard, _) => buffer(picture, guard.layout()),
        }
    }

    /// The samples of a stripe, in `room` where they must be moved first.
    pub(crate) fn stripe<'r>(&'r self, picture: &Picture, stripe: &Stripe, room: &'r mut Vec<u8>) -> &'r [u8] {
        match self {
            Rows::Packed(bytes) => &bytes[stripe.bytes.clone()],
            Rows::Guard(guard, account) => {
                room.resize(stripe.bytes.len(), 0);
                let plane = guard.plane(stripe.plane);
                let row_bytes = picture.planes()[stripe.plane].row_bytes;
                for (y, row) in stripe.rows.clone().zip(room.chunks_exact_mut(row_bytes)) {
                    plane.read(y, 0, row, account);
                }
                room
            }
        }
    }
}

impl RowsMut<'_, '_> {
    /// # Errors
    /// Where the picture's samples do not belong there.
    pub(crate) fn check(&self, picture: &Picture) -> Result<(), WrongRows> {
        match self {
            RowsMut::Packed(bytes) => packed(picture, bytes),
            RowsMut::Guard(guard, _) => buffer(picture, guard.layout()),
        }
    }
}

/// Samples or room for them that are not the picture's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongRows {
    /// The bytes given are not as many as the picture has.
    #[error("the picture has {expected} bytes without padding, {given} given")]
    Size {
        /// Bytes of the picture.
        expected: usize,
        /// Bytes given.
        given: usize,
    },
    /// The buffer holds another picture.
    #[error("the picture is {expected}, the buffer is for {given}")]
    Buffer {
        /// Format and size of the picture.
        expected: String,
        /// Format and size of the buffer.
        given: String,
    },
}

fn packed(picture: &Picture, bytes: &[u8]) -> Result<(), WrongRows> {
    let (expected, given) = (picture.bytes(), bytes.len());
    if expected == given { Ok(()) } else { Err(WrongRows::Size { expected, given }) }
}

fn buffer(picture: &Picture, layout: &Layout) -> Result<(), WrongRows> {
    if Picture::of(layout).as_ref() == Ok(picture) {
        return Ok(());
    }
    let given = format!("{} {}x{}", layout.format, layout.width, layout.height);
    Err(WrongRows::Buffer { expected: picture.to_string(), given })
}
