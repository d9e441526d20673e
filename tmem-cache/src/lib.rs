//! Transcendent memory for frames: a store that takes chunks, keeps them losslessly compressed, and gives its memory
//! back when the system needs it.
//!
//! | module | story |
//! | --- | --- |
//! | [`codec`] | one frame to a stream of bytes and back, bit for bit |
//! | [`store`] | pools, handles, put, get, flush |
//! | [`file_tier`] | where chunks of persistent pools go that memory does not take |
//! | [`pressure`] | how much memory the store may have just now |
//! | [`preroll`] | the last seconds of a stream, and replays of them |

pub mod codec;
pub mod file_tier;
mod frame_cache;
pub mod preroll;
pub mod pressure;
pub mod store;
mod sync;
mod sys;

pub use frame_cache::{FrameCache, FrameCacheStats};
