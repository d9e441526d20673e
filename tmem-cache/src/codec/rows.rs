//! Where samples come from and go to.

use shrbuf::Account;
use shrbuf::access::{ReadGuard, WriteGuard};

/// The samples of a frame, to be read.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// All rows of all planes one after the other, without padding: [`super::Picture::bytes`] of them.
    Packed(&'a [u8]),
    /// The memory of a buffer, which must have the picture's layout. Rows are copied through the guard into a scratch
    /// that stays in the processor's cache, and are counted against the account.
    Guard(&'a ReadGuard<'a>, &'a Account),
}

/// The samples of a frame, to be written.
#[derive(Debug)]
pub enum RowsMut<'a> {
    /// As [`Rows::Packed`].
    Packed(&'a mut [u8]),
    /// As [`Rows::Guard`].
    Guard(&'a mut WriteGuard<'a>, &'a Account),
}
