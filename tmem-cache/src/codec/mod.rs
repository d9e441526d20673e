//! The lossless frame codec.
//!
//! # How am I supposed to use this?
//! Say what the picture is ([`Picture::of`] a layout), and keep an [`Encoder`] and a [`Decoder`]: they own their
//! scratch, so that nothing is allocated per frame at steady state.
//!
//! ```
//! use shrbuf::{Format, Layout};
//! use tmem_cache::codec::{Decoder, Encoder, Picture, Rows, RowsMut, Tier};
//!
//! let layout = Layout::linear(Format::Yuyv, 66, 33, 1)?;
//! let picture = Picture::of(&layout)?;
//! let frame = vec![7; picture.bytes()];
//!
//! let mut stream = Vec::new();
//! let summary = Encoder::new(1).encode(&picture, Rows::Packed(&frame), None, Tier::Fast, &mut stream)?;
//! assert_eq!(summary.bytes_out, stream.len());
//!
//! let mut back = vec![0; picture.bytes()];
//! Decoder::new(1).decode(&picture, &stream, None, RowsMut::Packed(&mut back))?;
//! assert_eq!(back, frame);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A frame that lies in a [`shrbuf::Shrbuf`] comes as [`Rows::Guard`] and goes as [`RowsMut::Guard`]; its padding is
//! neither read nor written. Frames of one object may share a [`Reference`]: one picture from which each of them is
//! predicted, so that any of them is decoded, evicted or sent alone. [`Decoder::decode_region`] decodes only the stripes
//! that a region touches.
//!
//! The stream is laid down in `FORMAT.md`, to the bit.
//!
//! # What lives where
//! | module | story |
//! | --- | --- |
//! | [`picture`] | what the codec knows of a layout; how it is cut into stripes |
//! | [`rows`] | where samples come from and go to |
//! | [`mod@reference`] | the shared picture that frames are predicted from |
//! | [`encoder`], [`decoder`] | frames to streams and back |

mod bits;
pub mod decoder;
mod dense;
pub mod encoder;
mod fast;
#[doc(hidden)]
pub mod fuzzing;
mod path;
pub mod picture;
pub mod reference;
pub mod rows;
mod stream;
mod workers;

pub use decoder::{DecodeError, Decoder};
pub use encoder::{EncodeError, Encoder, Summary};
pub use picture::{Picture, PictureError, Region};
pub use reference::{Reference, ReferenceBuilder};
pub use rows::{Rows, RowsMut, WrongRows};

/// How hard the encoder works. The decoder takes either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Not coded: each stripe as it is, so that decoding is a copy.
    Raw,
    /// On the way in: several GB/s a core.
    Fast,
    /// For idle chunks, in the background: predictions fitted to each stripe and an entropy coder with contexts. Where the
    /// fast tier may do better, which small stripes, flat ones and drawn pictures may be, a stripe is the smaller one of both
    /// tiers'.
    Dense,
}
