//! What the GStreamer plugin and the element `gst` both do with memory, and nothing else: a part of theirs, not a
//! library for others.
//!
//! # How am I supposed to use this?
//! ```
//! use shrbuf::exporter::Memfd;
//! use shrbuf::ipc::FrameInfo;
//! use shrbuf::{Format, Layout};
//! use shrbuf_gst_memory::{Lender, Planes, video};
//!
//! gst::init()?;
//! let layout = Layout::linear(Format::Grey, 64, 48, 1)?;
//! let buffers = [Memfd::new("example").allocate(&layout)?];
//! let info = gst_video::VideoInfo::builder(video::theirs(Format::Grey).unwrap(), 64, 48).build()?;
//! let lender = Lender::new(&buffers, Planes::of(&buffers, info)?)?;
//! let frame = lender.lend(&buffers[0], &FrameInfo::default())?.unwrap();
//! assert_eq!((frame.size(), lender.lent()), (64 * 48, 1));
//! drop(frame);
//! assert_eq!(lender.lent(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What lives where
//! | module | story |
//! | --- | --- |
//! | [`video`] | what a picture is called on both sides, and where its planes lie |
//! | [`dma_buf`] | frames in dma-bufs, as caps say it to elements that insist on being told |
//! | `lend` | our buffers as GStreamer's memories, for reading |
//! | `home` | frames of GStreamer's that are out in buffers of ours |
//! | `place`, `gather`, `theirs` | GStreamer's own dma-bufs and sealed memfds as our buffers |
//! | `copy` | a frame of GStreamer's copied into a buffer of ours |
//! | `sys` | the few calls for which the bindings have no safe one |
//!
//! The pools that lend our buffers for writing are not here. GObject's names of types are the process's: the plugin and
//! a program with the element, loaded together, must not both register the same one.

mod copy;
pub mod dma_buf;
mod gather;
mod home;
mod lend;
mod place;
mod sys;
mod theirs;
pub mod video;

pub use copy::{CopyError, copy};
pub use gather::{Gathering, Seen};
pub use home::Home;
pub use lend::{Lender, WrapError};
pub use place::Place;
pub use sys::{FdMemories, tie, tied};
pub use theirs::{Theirs, TheirsError};
pub use video::{Planes, PlanesError};
