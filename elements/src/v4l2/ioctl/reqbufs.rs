//! `VIDIOC_REQBUFS`: allocates a queue's buffers, or frees them.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{BufType, Failure, Memory, Zeroed, sys, uninterrupted};

mod raw {
    use v4l::{v4l_sys::v4l2_requestbuffers, v4l2::vidioc::VIDIOC_REQBUFS};
    nix::ioctl_readwrite_bad!(vidioc_reqbufs, VIDIOC_REQBUFS, v4l2_requestbuffers);
}

/// What the driver gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// Buffers; may be more than asked for (what the driver needs to run) or fewer (what memory allows).
    pub count: u32,
    /// What else the queue can do.
    pub capabilities: BufferCapabilities,
}

/// What a queue can do (`V4L2_BUF_CAP_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BufferCapabilities {
    bits: u32,
}

impl BufferCapabilities {
    /// Whether buffers of this memory can be requested; `None` on kernels before 4.20, which do not tell.
    pub fn supports(self, memory: Memory) -> Option<bool> {
        let bit = match memory {
            Memory::Mmap => sys::V4L2_BUF_CAP_SUPPORTS_MMAP,
            Memory::Dmabuf => sys::V4L2_BUF_CAP_SUPPORTS_DMABUF,
        };
        (self.bits != 0).then_some(self.bits & bit != 0)
    }

    /// Whether `REQBUFS(0)` succeeds while buffers are still mapped or exported.
    pub fn supports_orphaned_bufs(self) -> bool {
        self.bits & sys::V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS != 0
    }
}

/// Why there are no buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReqbufsError {
    /// EINVAL: the queue does not do this memory, or has no size yet.
    #[error("VIDIOC_REQBUFS: this device cannot use {memory} memory (EINVAL); use the other of MMAP and DMABUF")]
    UnsupportedMemory {
        /// What was asked for.
        memory: Memory,
    },
    /// EBUSY: another file handle owns the queue, or it is streaming.
    #[error(
        "VIDIOC_REQBUFS: the queue belongs to another program or is streaming (EBUSY); stop it first (`fuser -v \
         /dev/video*` names it)"
    )]
    Busy,
    /// As for every ioctl.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Allocates `count` buffers for the format that is set, after freeing the queue's present ones; 0 only frees.
/// Exported dma-bufs live on.
///
/// # Errors
/// See [`ReqbufsError`].
pub fn reqbufs(fd: impl AsFd, buf_type: BufType, memory: Memory, count: u32) -> Result<Granted, ReqbufsError> {
    let fd = fd.as_fd();
    let mut request = sys::v4l2_requestbuffers::zeroed();
    request.count = count;
    request.type_ = buf_type as u32;
    request.memory = memory as u32;
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_requestbuffers, which `request` is.
    uninterrupted(|| unsafe { raw::vidioc_reqbufs(fd.as_raw_fd(), &mut request) }).map_err(|errno| match errno {
        Errno::EINVAL => ReqbufsError::UnsupportedMemory { memory },
        Errno::EBUSY => ReqbufsError::Busy,
        errno => Failure::new("VIDIOC_REQBUFS", errno).into(),
    })?;
    Ok(Granted { count: request.count, capabilities: BufferCapabilities { bits: request.capabilities } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_do_not_tell_what_memory_they_support() {
        assert_eq!(BufferCapabilities { bits: 0 }.supports(Memory::Mmap), None);
    }

    #[test]
    fn capabilities_tell_the_memories_apart() {
        let caps = BufferCapabilities { bits: sys::V4L2_BUF_CAP_SUPPORTS_MMAP };
        assert_eq!((caps.supports(Memory::Mmap), caps.supports(Memory::Dmabuf)), (Some(true), Some(false)));
    }
}
