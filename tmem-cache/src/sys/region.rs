//! Address space for all segments, as one mapping, whose pages come when they are written and go when asked.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::store::options::Backing;

/// Bytes that the region's start is a multiple of: a huge page on x86-64 and on Arm with 4 KiB pages.
const HUGE: usize = 2 << 20;

/// A private mapping: nobody else has the memfd, which is neither passed on nor opened by name, so only this process
/// writes the memory and it cannot shrink under us.
#[derive(Debug)]
pub(super) struct Region {
    map: NonNull<c_void>,
    map_len: NonZeroUsize,
    start: NonNull<u8>,
    /// Of a memfd; anonymous memory has none.
    fd: Option<OwnedFd>,
}

// SAFETY: plain memory without thread affinity; who may touch which bytes is `segment`'s affair.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    pub(super) fn new(len: usize, backing: Backing) -> io::Result<Region> {
        let map_len = len.checked_add(HUGE).and_then(NonZeroUsize::new).ok_or(io::ErrorKind::InvalidInput)?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let (map, fd) = match backing {
            Backing::Anonymous => {
                let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
                // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object.
                (unsafe { mmap_anonymous(None, map_len, prot, flags)? }, None)
            }
            Backing::Memfd => {
                let fd = memfd_create(c"tmem", MFdFlags::MFD_CLOEXEC)?;
                nix::unistd::ftruncate(&fd, map_len.get() as i64)?;
                let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
                // SAFETY: as above; the file is as long as the mapping and stays so.
                (unsafe { mmap(None, map_len, prot, flags, &fd, 0)? }, Some(fd))
            }
        };
        let skip = map.as_ptr().cast::<u8>().align_offset(HUGE);
        // SAFETY: `skip` is less than HUGE, by which the mapping is longer than `len`.
        let start = unsafe { map.cast::<u8>().add(skip) };
        // SAFETY: the range is this mapping's. Where huge pages are off, small ones serve, so the answer does not matter.
        let _ = unsafe { madvise(start.cast(), len, MmapAdvise::MADV_HUGEPAGE) };
        Ok(Region { map, map_len, start, fd })
    }

    /// Byte `at` of the region.
    pub(super) fn at(&self, at: usize) -> NonNull<u8> {
        debug_assert!(at < self.map_len.get() - HUGE);
        // SAFETY: callers stay below the `len` given to `new`.
        unsafe { self.start.add(at) }
    }

    /// Pages for a range, now, so that a full tmpfs or memory cgroup is an error here rather than a signal later.
    /// Anonymous memory gets its pages as it is written.
    pub(super) fn provide(&self, at: usize, len: usize) -> io::Result<()> {
        let Some(fd) = &self.fd else { return Ok(()) };
        Ok(fallocate(fd, FallocateFlags::FALLOC_FL_KEEP_SIZE, self.offset(at), len as i64)?)
    }

    /// Gives a range's pages back to the kernel; its bytes are lost.
    ///
    /// # Safety
    /// No reference to a byte of the range exists.
    pub(super) unsafe fn give_back(&self, at: usize, len: usize) -> io::Result<()> {
        match &self.fd {
            // SAFETY: the range lies in the mapping, and the caller has it to himself.
            None => unsafe { madvise(self.at(at).cast(), len, MmapAdvise::MADV_DONTNEED) }.map_err(io::Error::from),
            Some(fd) => {
                let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                Ok(fallocate(fd, flags, self.offset(at), len as i64)?)
            }
        }
    }

    fn offset(&self, at: usize) -> i64 {
        let skipped = self.start.as_ptr().addr() - self.map.as_ptr().addr();
        (skipped + at) as i64
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, unmapped once, after the last segment (each holds the region).
        let _ = unsafe { munmap(self.map, self.map_len.get()) };
    }
}
