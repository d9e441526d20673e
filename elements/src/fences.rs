//! Fences on their way from one device to the next.

use std::io;

use nix::errno::Errno;
use shrbuf::{Access, Fence, MemoryKind, Shrbuf};

/// Has everybody wait for `fence` who does to `buffer` what `access` is in the way of. False before Linux 6.0, where
/// nobody can be told: whoever calls this has to wait then.
///
/// # Errors
/// The kernel's.
pub(crate) fn attach(buffer: &Shrbuf, access: Access, fence: &Fence) -> io::Result<bool> {
    if buffer.kind() == MemoryKind::Memfd {
        return Ok(true);
    }
    let mut segments = 0..buffer.segments().len();
    match segments.try_for_each(|segment| buffer.import_fence(segment, access, fence)) {
        Err(error) if error.raw_os_error() == Some(Errno::ENOTTY as i32) => Ok(false),
        done => done.map(|()| true),
    }
}
