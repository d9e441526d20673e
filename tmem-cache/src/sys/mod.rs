//! The calls that need `unsafe`: one region of memory cut into segments.

mod region;
pub(crate) mod segment;
