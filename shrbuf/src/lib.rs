//! Shared buffers for Linux: a frame is written once, and display, GPU, encoder, other processes and a cache all hold
//! references to that same memory.
//!
//! # How am I supposed to use this?
//! Get a [`Shrbuf`]: from an [`exporter`], from a device that exports its own, or from descriptors that somebody passed
//! ([`Shrbuf::import`]). Clone it for each holder, drop it when done. To use buffers again and again, give them to a
//! [`Pool`]. To look at pixels, open a guard ([`Shrbuf::read`], [`Shrbuf::write`]). A device that needs its own handle
//! for the memory keeps it in an [`ImportCache`].
//!
//! ```
//! use shrbuf::{exporter::Memfd, Format, Layout, Ledger, Reason};
//!
//! let layout = Layout::linear(Format::Grey, 4, 2, 1)?;
//! let mut buffer = Memfd::new("example").allocate(&layout)?;
//! let account = Ledger::default().account("example", Reason::Generate);
//! buffer.write()?.plane(0).write(1, 0, &[1, 2, 3, 4], &account);
//!
//! let reference = buffer.clone();
//! let mut row = [0; 4];
//! reference.read()?.plane(0).read(1, 0, &mut row, &account);
//! assert_eq!(row, [1, 2, 3, 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What lives where
//! | module | story |
//! | --- | --- |
//! | [`mod@format`], [`layout`] | what a picture is and where its planes lie |
//! | [`segment`] | one kernel object, its identity and mapping |
//! | [`buffer`] | the reference-counted handle, import, export, state, fences |
//! | [`pool`] | reuse, and the way back of the last reference |
//! | [`access`], [`ledger`] | CPU access, every byte counted |
//! | [`fence`] | sync_file |
//! | [`attach`] | import once |
//! | [`exporter`] | memfd, udmabuf, dma-heap |
//! | [`ipc`] | frames for other processes, and from them |
//! | [`rights`] | descriptors over Unix sockets |

pub mod access;
pub mod attach;
pub mod buffer;
pub mod exporter;
pub mod fence;
pub mod format;
mod idle;
pub mod ipc;
pub mod layout;
pub mod ledger;
mod poll;
pub mod pool;
mod refs;
pub mod segment;
pub mod state;
mod sync;
mod sys;

pub use access::AccessError;
pub use attach::ImportCache;
pub use buffer::{BufferId, Shrbuf, WeakShrbuf};
pub use fence::{Access, Fence, FenceStatus};
pub use format::{Family, Format, Modifier};
pub use layout::{Layout, LayoutError, Plane};
pub use ledger::{Account, Ledger, Reason};
pub use pool::{Pool, PoolError};
pub use segment::{ImportError, MemoryKind, Segment};
pub use state::State;
pub use sys::rights;
