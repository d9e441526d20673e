//! Streams to frames.

use super::{Picture, Reference, Region, RowsMut};

/// Why a stream does not decode. The destination may then hold anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No stream of this codec, or of a version that this decoder does not know.
    #[error("not a frame stream of version {known}: it begins with {start:02x?}")]
    Header {
        /// The version known.
        known: u8,
        /// How it begins.
        start: [u8; 4],
    },
    /// The stream is shorter than it says.
    #[error("the stream has {given} bytes and needs {needed}; it was cut off")]
    Truncated {
        /// Bytes given.
        given: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// The stream is of another picture.
    #[error("the stream is of another picture than the one asked for; decode it as the picture it was encoded as")]
    Picture,
    /// The stream needs a reference that was not given, or another one.
    #[error("the stream is predicted from reference {needed:08x}, given was {given:08x?}")]
    Reference {
        /// Identity of the reference it was encoded with.
        needed: u32,
        /// Identity of the one given.
        given: Option<u32>,
    },
    /// A stripe is damaged.
    #[error("stripe {stripe} is damaged: {what}; drop the frame, or fetch it again")]
    Stripe {
        /// Which, counted from 0.
        stripe: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The destination is not of the picture's size.
    #[error("the destination takes {expected} bytes without padding, {given} given")]
    Size {
        /// Bytes of the picture or region.
        expected: usize,
        /// Bytes given.
        given: usize,
    },
    /// The region leaves the picture.
    #[error("region {region:?} leaves a picture of {width}x{height} or is empty")]
    Region {
        /// The region.
        region: Region,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
}

/// Streams to frames; owns its scratch and its worker threads.
#[derive(Debug)]
pub struct Decoder {}

impl Decoder {
    /// A decoder that spreads a frame's stripes over `threads` threads, the caller's among them; 0 means 1.
    pub fn new(threads: usize) -> Decoder {
        let _ = threads;
        Decoder {}
    }

    /// Decodes a whole frame.
    ///
    /// # Errors
    /// [`DecodeError`]; the destination may then hold anything.
    pub fn decode(
        &mut self,
        picture: &Picture,
        stream: &[u8],
        reference: Option<&Reference>,
        into: RowsMut<'_>,
    ) -> Result<(), DecodeError> {
        let _ = (picture, stream, reference, into);
        todo!()
    }

    /// Decodes a region of a frame into packed rows, as [`Picture::region_bytes`] counts them. Only the stripes it
    /// touches are read and checked.
    ///
    /// # Errors
    /// As [`Decoder::decode`], and a region that leaves the picture.
    pub fn decode_region(
        &mut self,
        picture: &Picture,
        stream: &[u8],
        reference: Option<&Reference>,
        region: Region,
        into: &mut [u8],
    ) -> Result<(), DecodeError> {
        let _ = (picture, stream, reference, region, into);
        todo!()
    }
}
