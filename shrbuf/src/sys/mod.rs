//! Every `unsafe` of the crate: mappings, raw copies, descriptors over sockets, and the ioctls of dma-buf, sync_file and
//! udmabuf.
//!
//! The rules: a mapping's pointer never leaves this module except inside [`mapping::Mapping`], whose copies check
//! their bounds and never make a `&[u8]` of memory that a device or another process may be writing, and
//! [`page::Page`], which gives atomics only.

pub(crate) mod dma_buf;
pub(crate) mod mapping;
pub(crate) mod page;
pub mod rights;
pub(crate) mod seqpacket;
pub(crate) mod sync_file;
pub(crate) mod udmabuf;
