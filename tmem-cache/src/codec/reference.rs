//! The shared picture that the frames of one object are predicted from.

use super::{EncodeError, Picture, Rows};

/// A picture that frames are predicted from: a star, not a chain, so that every frame is decoded with it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {}

impl Reference {
    /// A reference of these samples.
    ///
    /// # Errors
    /// [`EncodeError::Size`] where packed rows are not as many as the picture's.
    pub fn new(picture: &Picture, rows: Rows<'_>) -> Result<Reference, EncodeError> {
        let _ = (picture, rows);
        todo!()
    }

    /// What streams call it by: a checksum of its samples.
    pub fn id(&self) -> u32 {
        todo!()
    }

    /// Its samples, packed as [`Rows::Packed`] wants them: what to store so that streams can be decoded later.
    pub fn packed(&self) -> Vec<u8> {
        todo!()
    }
}

/// Averages frames into a [`Reference`], which has less noise than any of them.
#[derive(Debug, Clone)]
pub struct ReferenceBuilder {}

impl ReferenceBuilder {
    /// An average of nothing yet.
    pub fn new(picture: &Picture) -> ReferenceBuilder {
        let _ = picture;
        todo!()
    }

    /// Adds a frame; at most 65535 of them count.
    ///
    /// # Errors
    /// As [`Reference::new`].
    pub fn add(&mut self, rows: Rows<'_>) -> Result<(), EncodeError> {
        let _ = rows;
        todo!()
    }

    /// The average, rounded; `None` where nothing was added.
    pub fn build(&self) -> Option<Reference> {
        todo!()
    }
}
