//! The page that a producer and one consumer share: four words, changed by atomic operations alone.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::sync::{AtomicU32, AtomicU64};

/// Bytes that are mapped.
pub(crate) const PAGE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// `shrbuf/PROTOCOL.md` says what they mean, [`crate::ipc`] what is done with them.
#[repr(C)]
pub(crate) struct Words {
    pub(crate) released: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) wake: AtomicU32,
    pub(crate) dropped: AtomicU64,
}

/// [`Words`] in a MAP_SHARED mapping; unmapped on drop. The other process may write anything there at any time.
pub(crate) struct Page(NonNull<Words>);

// SAFETY: the mapping has no thread affinity, and is only ever seen as atomics.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    /// Maps the first [`PAGE`] bytes of a memfd that the caller knows to have as many, and to be sealed against shrinking.
    pub(crate) fn map(memfd: BorrowedFd<'_>) -> io::Result<Page> {
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice aliases no Rust object; the file cannot shrink below it.
        let start = unsafe { mmap(None, PAGE, both, MapFlags::MAP_SHARED, memfd, 0)? };
        Ok(Page(start.cast()))
    }
}

impl Deref for Page {
    type Target = Words;

    fn deref(&self) -> &Words {
        // SAFETY: the mapping lives as long as `self`, begins at a page, and is larger than `Words`, of which every bit
        // pattern is a value; whoever else writes there is another process, or uses the same atomics.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, unmapped once, here. It was mapped whole, so that there is no error.
        let _ = unsafe { munmap(self.0.cast(), PAGE.get()) };
    }
}
