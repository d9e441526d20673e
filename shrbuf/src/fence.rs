//! dma-fences as sync_file descriptors: the completion of work on a device.
//!
//! Explicit fences travel with a frame (KMS `IN_FENCE_FD`, EGL native fences). Implicit ones sit in a dma-buf;
//! [`Shrbuf::export_fence`](crate::Shrbuf::export_fence) and [`import_fence`](crate::Shrbuf::import_fence) move them
//! between the two (Linux 6.0, `Documentation/driver-api/dma-buf.rst`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::poll;
use crate::sys::sync_file;

/// Who is to wait, or whose work a fence stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Readers wait for writers.
    Read,
    /// Writers wait for everybody.
    Write,
}

/// What a fence says of the work behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceStatus {
    /// Not done.
    Pending,
    /// Done.
    Signalled,
    /// Done with this errno.
    Failed(i32),
}

/// A sync_file. Readable for poll(2) once signalled; closed on drop, which cancels nothing.
#[derive(Debug)]
pub struct Fence(OwnedFd);

impl Fence {
    /// Takes a sync_file descriptor.
    ///
    /// # Errors
    /// The kernel's where it is no sync_file.
    pub fn new(fd: OwnedFd) -> io::Result<Fence> {
        sync_file::status(fd.as_fd())?;
        Ok(Fence(fd))
    }

    /// As [`Fence::new`], for those who only wait for what is not done yet: `None` where it is, well or not.
    ///
    /// # Errors
    /// As there.
    pub fn pending(fd: OwnedFd) -> io::Result<Option<Fence>> {
        Ok((sync_file::status(fd.as_fd())? == 0).then_some(Fence(fd)))
    }

    /// Asks; does not block.
    ///
    /// # Errors
    /// The kernel's.
    pub fn status(&self) -> io::Result<FenceStatus> {
        Ok(match sync_file::status(self.0.as_fd())? {
            0 => FenceStatus::Pending,
            n if n > 0 => FenceStatus::Signalled,
            n => FenceStatus::Failed(-n),
        })
    }

    /// Blocks until signalled or `timeout` is over; false where it was not signalled.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        poll::readable(self.0.as_fd(), Some(timeout))
    }

    /// One fence that signals when both have.
    ///
    /// # Errors
    /// The kernel's.
    pub fn merge(&self, other: &Fence) -> io::Result<Fence> {
        sync_file::merge(self.0.as_fd(), other.0.as_fd()).map(Fence)
    }

    pub(crate) fn from_kernel(fd: OwnedFd) -> Fence {
        Fence(fd)
    }
}

impl AsFd for Fence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Fence> for OwnedFd {
    fn from(fence: Fence) -> OwnedFd {
        fence.0
    }
}
