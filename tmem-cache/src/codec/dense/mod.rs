//! The dense kind of stripe: better predictions, and symbols by their probabilities.
//!
//! Each stripe brings weights that its samples are predicted with ([`fit`], [`linear`]). What is left is coded by
//! [`rans`], each symbol by one of the distributions of [`model`], which the stripe has chosen for each of the contexts
//! of [`context`]. Both neighbours of most symbols are known before them, as those of samples are, so that predictions
//! and contexts are taken by whole lanes, and symbols by 32 of a lane, one of each state.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod bucket;
mod context;
pub(crate) mod decode;
pub(crate) mod encode;
mod fit;
pub(crate) mod lanes;
mod linear;
mod model;
mod predict;
pub(crate) mod rans;
mod rows;
pub(crate) mod sample;

pub(crate) use bucket::Bucket;
pub(crate) use rows::{Apart, RowScratch, Task};

/// The mode of rows that are predicted by weights; others are those of [`predict::Mode`].
const LINEAR: u8 = 4;

/// Modes, that one among them.
const MODES: u8 = LINEAR + 1;

/// Room for one stripe in work.
#[derive(Debug, Default)]
pub(crate) struct Room {
    pub encode: encode::Shared,
    pub bytes: encode::Rows<u8>,
    pub words: encode::Rows<u16>,
    pub decode: decode::Room,
    pub byte_reference: Apart<u8>,
    pub word_reference: Apart<u16>,
}
