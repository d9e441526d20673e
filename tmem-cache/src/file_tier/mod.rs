//! Where chunks of persistent pools go that memory does not take.
//!
//! A directory of log files of some 64 MiB, each written from start to end and removed whole when nothing in it is live:
//! the same shape as the segments in memory. A record is a header and the stored bytes, each with a checksum. A flush
//! marks the record's header in place, which needs no space and cannot tear. Nothing else is ever written twice.
//!
//! Durable records have files of their own, so that a durable put waits for no drain's write. The others do not outlive
//! the store.
//!
//! A durable put of what a chunk of its pool has already is a *repeat*: a record of 110 bytes that names the one with the
//! bytes. These stay for as long as any chunk has them, whether or not the one they were written for has been flushed.
//!
//! # Space
//! What is dead in a file that something else keeps is punched out of it (`FALLOC_FL_PUNCH_HOLE`), by
//! [`Store::maintain`](crate::store::Store::maintain) and before a record is refused for the limit. It writes none of the
//! day's bytes. Of a durable record the header stays, which says where the next one is, and what shares a block with it,
//! so up to 8 KiB each where blocks have 4 KiB; chunks smaller than that give nothing back until their file goes. Where
//! the file system knows no holes (`EOPNOTSUPP`), space comes back a file at a time.
//!
//! # Crashes
//! What is there after one: of each file the records up to the first that is not whole. Of two records of one handle
//! the later counts: a put over another leaves the older one unmarked until the newer one is on the device, so that a
//! power failure brings one of the two. A repeat counts only where the bytes it names are there and are what it says. A hole is made only of what has been
//! marked; should a power failure undo the mark and not the hole, the checksum of the bytes says that they are gone.

mod budget;
mod file;
mod log;
mod record;
mod scan;

pub(crate) use file::Record;
pub use log::FileError;
pub(crate) use log::FileTier;
pub(crate) use record::Label;
pub(crate) use scan::Found;
