//! The lossless frame codec.
