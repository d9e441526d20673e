//! Frames to streams.

use super::{Picture, Reference, Rows, Tier};

/// What an encoding came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Bytes of the picture without padding.
    pub bytes_in: usize,
    /// Bytes of the stream.
    pub bytes_out: usize,
    /// Stripes of the picture.
    pub stripes: usize,
    /// Stripes stored raw, because coding would not have made them smaller.
    pub raw_stripes: usize,
}

/// Why a frame is not encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The samples given are not as many as the picture has.
    #[error("the picture has {expected} bytes without padding, {given} given")]
    Size {
        /// Bytes of the picture.
        expected: usize,
        /// Bytes given.
        given: usize,
    },
    /// The reference is of another picture.
    #[error("the reference is of a picture of another shape; make one for this picture")]
    Reference,
}

/// Frames to streams; owns its scratch and its worker threads.
#[derive(Debug)]
pub struct Encoder {}

impl Encoder {
    /// An encoder that spreads a frame's stripes over `threads` threads, the caller's among them; 0 means 1. The others
    /// are started here and sleep between frames.
    pub fn new(threads: usize) -> Encoder {
        let _ = threads;
        Encoder {}
    }

    /// Appends the stream of a frame to `out`.
    ///
    /// # Errors
    /// [`EncodeError`]; `out` is then as it was.
    pub fn encode(
        &mut self,
        picture: &Picture,
        rows: Rows<'_>,
        reference: Option<&Reference>,
        tier: Tier,
        out: &mut Vec<u8>,
    ) -> Result<Summary, EncodeError> {
        let _ = (picture, rows, reference, tier, out);
        todo!()
    }
}
