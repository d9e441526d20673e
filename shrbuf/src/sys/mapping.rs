//! A shared mapping, and bounded copies into and out of it.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A MAP_SHARED mapping of a whole segment; unmapped on drop.
///
/// Others may write the memory at any time, so bytes are only ever copied through raw pointers; what a copy sees of
/// a concurrent write is unspecified but is always some bytes.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: NonZeroUsize,
    writable: bool,
}

// SAFETY: the mapping is plain memory without thread affinity, and no method makes a reference to its bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above; concurrent raw copies are no different from another process writing.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(fd: BorrowedFd<'_>, len: NonZeroUsize, writable: bool) -> io::Result<Mapping> {
        let prot = if writable { ProtFlags::PROT_READ | ProtFlags::PROT_WRITE } else { ProtFlags::PROT_READ };
        // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object. `Segment` has made sure
        // that the file cannot shrink below `len` (dma-bufs never do, memfds are sealed), so access cannot fault.
        let start = unsafe { mmap(None, len, prot, MapFlags::MAP_SHARED, fd, 0)? };
        Ok(Mapping { start: start.cast(), len, writable })
    }

    fn check(&self, offset: usize, len: usize) {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len.get());
        assert!(inside, "copy of {len} bytes at {offset} leaves a mapping of {}", self.len);
    }

    /// Copies `dst.len()` bytes from `offset`. The caller has checked the range; a wrong one is a bug here.
    pub(crate) fn read(&self, offset: usize, dst: &mut [u8]) {
        self.check(offset, dst.len());
        // SAFETY: the source range lies in the mapping, `dst` is a live exclusive slice.
        unsafe { copy(self.start.as_ptr().add(offset), dst.as_mut_ptr(), dst.len()) }
    }

    /// Copies `src` to `offset`.
    pub(crate) fn write(&self, offset: usize, src: &[u8]) {
        self.check(offset, src.len());
        assert!(self.writable, "write into a read-only mapping");
        // SAFETY: as in `read`, the other way; the mapping is PROT_WRITE.
        unsafe { copy(src.as_ptr(), self.start.as_ptr().add(offset), src.len()) }
    }

    /// Copies between mappings without an intermediate buffer; the ranges may overlap.
    pub(crate) fn copy(&self, offset: usize, to: &Mapping, to_offset: usize, len: usize) {
        self.check(offset, len);
        to.check(to_offset, len);
        assert!(to.writable, "write into a read-only mapping");
        // SAFETY: both ranges lie in live mappings, the second PROT_WRITE.
        unsafe { copy(self.start.as_ptr().add(offset), to.start.as_ptr().add(to_offset), len) }
    }

    /// Writes `len` bytes from `offset` to `fd` straight from the mapping: the kernel reads it, no slice is made.
    pub(crate) fn write_to_fd(&self, offset: usize, len: usize, fd: BorrowedFd<'_>) -> io::Result<usize> {
        use std::os::fd::AsRawFd;
        self.check(offset, len);
        // SAFETY: the range lies in the mapping, and write(2) only reads it.
        let n = unsafe { libc::write(fd.as_raw_fd(), self.start.as_ptr().add(offset).cast(), len) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Reads up to `len` bytes from `fd` to `offset`; 0 at the end of the file.
    pub(crate) fn read_from_fd(&self, offset: usize, len: usize, fd: BorrowedFd<'_>) -> io::Result<usize> {
        use std::os::fd::AsRawFd;
        self.check(offset, len);
        assert!(self.writable, "read into a read-only mapping");
        // SAFETY: the range lies in the PROT_WRITE mapping, to which no Rust reference exists.
        let n = unsafe { libc::read(fd.as_raw_fd(), self.start.as_ptr().add(offset).cast(), len) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}

/// memmove(3), called where the compiler cannot see what it calls.
///
/// To Rust, a plain copy of bytes that another thread is writing is undefined, not just a torn picture; and two threads
/// of this process can have one buffer open. What a function outside the language does to memory outside the language
/// is the machine's affair, as it is for read(2) into the same mapping.
///
/// # Safety
/// `len` bytes readable at `from`, and writable at `to`; they may overlap.
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    type Memmove = unsafe extern "C" fn(*mut libc::c_void, *const libc::c_void, usize) -> *mut libc::c_void;
    let memmove: Memmove = std::hint::black_box(libc::memmove);
    // SAFETY: the caller's promise.
    unsafe { memmove(to.cast(), from.cast(), len) };
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are those of the mapping made in `new`, unmapped once, here.
        // An error is impossible for a range that was mapped whole, and could not be acted on.
        let _ = unsafe { munmap(self.start.cast(), self.len.get()) };
    }
}
