//! Sealed memfds.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

use super::{ExportError, allocate_error, page_aligned};
use crate::buffer::Shrbuf;
use crate::layout::Layout;
use crate::segment::Segment;

/// Memory for CPUs of any process, on any Linux.
#[derive(Debug, Clone)]
pub struct Memfd {
    name: CString,
}

impl Memfd {
    /// An exporter whose memfds show as `name` in `/proc/*/maps`.
    pub fn new(name: &str) -> Memfd {
        let bytes: Vec<u8> = name.bytes().filter(|&b| b != 0).take(200).collect();
        Memfd { name: CString::new(bytes).unwrap_or_default() }
    }

    /// A new, zeroed buffer.
    ///
    /// # Errors
    /// [`ExportError::Allocate`]: descriptor or memory limits.
    pub fn allocate(&self, layout: &Layout) -> Result<Shrbuf, ExportError> {
        let segments = (0..layout.segments())
            .map(|s| Ok(Segment::import(self.create(layout.segment_size(s))?)?))
            .collect::<Result<_, ExportError>>()?;
        Ok(Shrbuf::new(segments, *layout)?)
    }

    /// A memfd of `size` bytes rounded up to pages, sealed so that no peer can raise SIGBUS in us.
    pub(crate) fn create(&self, size: u64) -> Result<OwnedFd, ExportError> {
        let size = page_aligned(size);
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = memfd_create(self.name.as_c_str(), flags).map_err(allocate_error("memfd_create", size))?;
        ftruncate(&fd, size as i64).map_err(allocate_error("ftruncate", size))?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(allocate_error("F_ADD_SEALS", size))?;
        Ok(fd)
    }
}
