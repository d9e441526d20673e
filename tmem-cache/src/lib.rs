//! Transcendent memory for frames: a store that takes chunks, keeps them losslessly compressed, and gives its memory
//! back when the system needs it.
//!
//! | module | story |
//! | --- | --- |
//! | [`codec`] | one frame to a stream of bytes and back, bit for bit |
//! | [`store`] | pools, handles, put, get, flush |

pub mod codec;
pub mod store;
