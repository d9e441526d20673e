//! Pixels, for the elements whose device is the CPU: patterns, files, pictures for people.
//!
//! Everything here is plain scalar code over small scratch rows. It draws backgrounds once, samples rows for a terminal
//! and reads and writes PNG; what converts every pixel of every frame is the `convert` element, with SIMD.
//!
//! | module | story |
//! | --- | --- |
//! | [`shape`] | how each format packs its samples |
//! | [`color`] | RGB ↔ YUV for single pixels |
//! | [`encode`] | rows of RGB into a buffer of any format |
//! | [`decode`] | rows of a buffer of any format into RGB |
//! | [`bayer`] | mosaics |
//! | [`font`] | digits |
//! | [`png_file`] | PNG |

pub(crate) mod bayer;
pub(crate) mod color;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod font;
pub(crate) mod png_file;
pub(crate) mod shape;

pub(crate) use png_file::write_png;
