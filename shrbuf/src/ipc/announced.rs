//! What consumers are told of a buffer: its layout, and descriptors of its memory.

use std::os::fd::OwnedFd;

use crate::buffer::{BufferId, Shrbuf, WeakShrbuf};
use crate::layout::Layout;
use crate::segment::MemoryKind;

use super::IpcError;

/// A buffer that frames will come in. Holds descriptors of its memory and no reference, so that the buffer can be given
/// to a [`Pool`](crate::Pool) afterwards.
///
/// A memfd is opened anew for reading only, and its file's permissions are taken back to that, so that no process of
/// another user can open it for writing either. How a dma-buf may be accessed was settled when it was exported; it is
/// passed as it is.
#[derive(Debug)]
pub struct Announced {
    pub(super) id: BufferId,
    pub(super) buffer: WeakShrbuf,
    pub(super) kind: MemoryKind,
    pub(super) layout: Layout,
    pub(super) fds: Vec<OwnedFd>,
}

impl Announced {
    /// Opens the descriptors to pass.
    ///
    /// # Errors
    /// [`IpcError::Os`]: the descriptor limit, or no /proc.
    pub fn of(buffer: &Shrbuf) -> Result<Announced, IpcError> {
        let fds = (0..buffer.segments().len()).map(|segment| buffer.export_read_only(segment));
        let fds = fds.collect::<Result<_, _>>().map_err(IpcError::os("opening a buffer to pass on"))?;
        let (id, kind, layout) = (buffer.id(), buffer.kind(), *buffer.layout());
        Ok(Announced { id, buffer: buffer.downgrade(), kind, layout, fds })
    }
}
