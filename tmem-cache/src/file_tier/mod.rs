//! Where chunks of persistent pools go that memory does not take.
//!
//! A directory of log files of some 64 MiB, each written from start to end and removed whole when nothing in it is live:
//! the same shape as the segments in memory. A record is a header and the stored bytes, each with a checksum. A flush
//! marks the record's header in place, which needs no space and cannot tear. Nothing else is ever written twice.
//!
//! What is there after a crash: of each file the records up to the first that is not whole. Of two records of one handle
//! the later counts (a put over another is appended before the older one is marked).

mod budget;
mod file;
mod log;
mod record;

pub(crate) use file::Record;
pub use log::FileError;
pub(crate) use log::FileTier;
pub(crate) use record::Label;
