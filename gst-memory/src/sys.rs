//! What GStreamer's bindings have no safe call for: memory from a descriptor and its descriptor, something tied to a
//! memory's life or made of it once, and a memory that comes back instead of being freed.

use std::any::Any;
use std::cell::Cell;
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gst::glib::ffi::{GFALSE, GQuark, GTRUE, gboolean, gpointer};
use gst::glib::translate::{IntoGlib, from_glib_none};
use gst::{ffi, glib};
use gst_allocators::prelude::*;
use gst_allocators::{DmaBufAllocator, FdAllocator, FdMemoryFlags};
use shrbuf::MemoryKind;

/// Makes memories of descriptors.
#[derive(Debug)]
pub struct FdMemories {
    memfd: FdAllocator,
    dma_buf: DmaBufAllocator,
}

impl FdMemories {
    /// GStreamer has to be initialised.
    #[expect(clippy::new_without_default, reason = "it needs GStreamer")]
    pub fn new() -> FdMemories {
        FdMemories { memfd: FdAllocator::new(), dma_buf: DmaBufAllocator::new() }
    }

    /// A memory of the first `size` bytes behind `fd`, which it closes. A memfd is mapped at the first use and stays
    /// so.
    ///
    /// # Errors
    /// GStreamer does not take the descriptor.
    pub fn wrap(&self, kind: MemoryKind, fd: OwnedFd, size: usize) -> Result<gst::Memory, glib::BoolError> {
        let fd = fd.into_raw_fd();
        // SAFETY: the descriptor is open and nobody else's from here on.
        unsafe {
            match kind {
                MemoryKind::Memfd => self.memfd.alloc_fd(fd, size, FdMemoryFlags::KEEP_MAPPED),
                MemoryKind::DmaBuf => self.dma_buf.alloc_dmabuf(fd, size),
            }
        }
    }
}

type Tied = Box<dyn Any + Send + Sync>;

/// A name for what this copy of the library ties: there may be another in the process, built otherwise.
fn quark() -> GQuark {
    static QUARK: OnceLock<glib::Quark> = OnceLock::new();
    QUARK.get_or_init(|| glib::Quark::from_str(format!("shrbuf-tied-{:p}", &raw const QUARK))).into_glib()
}

/// Keeps `value` until `memory` is freed, or until something else is tied to it.
pub fn tie(memory: &mut gst::MemoryRef, value: impl Any + Send + Sync) {
    let data: Box<Tied> = Box::new(Box::new(value));
    // SAFETY: the memory is borrowed mutably; the data is freed by `untie` and by nobody else.
    unsafe {
        let object = memory.as_mut_ptr().cast::<ffi::GstMiniObject>();
        ffi::gst_mini_object_set_qdata(object, quark(), Box::into_raw(data).cast(), Some(untie));
    }
}

/// What was tied to `memory`, if it was a `T`.
pub fn tied<T: Any>(memory: &gst::MemoryRef) -> Option<&T> {
    // SAFETY: under this quark there are only boxes made by `tie`, which live until the memory is freed, or until
    // something else is tied to it, for which it would have to be borrowed mutably.
    let tied = unsafe {
        let object = memory.as_ptr().cast_mut().cast::<ffi::GstMiniObject>();
        ffi::gst_mini_object_get_qdata(object, quark()).cast::<Tied>().as_ref()
    };
    tied.and_then(|tied| tied.downcast_ref())
}

unsafe extern "C" fn untie(data: gpointer) {
    // SAFETY: `data` is the box that was tied; GStreamer calls this once.
    drop(unsafe { Box::from_raw(data.cast::<Tied>()) });
}

/// What was made of `memory` by an earlier call, or is by `make` now; kept until `memory` is freed. Of one type, and
/// for one use: whoever comes later finds what the first one made.
pub(crate) fn made_once<T: Any + Send + Sync>(memory: &gst::MemoryRef, make: impl FnOnce() -> Option<T>) -> Option<&T> {
    static QUARK: OnceLock<glib::Quark> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let quark =
        || QUARK.get_or_init(|| glib::Quark::from_str(format!("shrbuf-made-{:p}", &raw const QUARK))).into_glib();
    // SAFETY: under this quark there are only boxes made below, each set once and freed with the memory.
    let made = || unsafe {
        let object = memory.as_ptr().cast_mut().cast::<ffi::GstMiniObject>();
        ffi::gst_mini_object_get_qdata(object, quark()).cast::<Tied>().as_ref()
    };
    if made().is_none() {
        let _one_at_a_time = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if made().is_none() {
            let data: Box<Tied> = Box::new(Box::new(make()?));
            // SAFETY: GStreamer guards what is tied to an object by a lock of its own; nobody else sets this.
            unsafe {
                let object = memory.as_ptr().cast_mut().cast::<ffi::GstMiniObject>();
                ffi::gst_mini_object_set_qdata(object, quark(), Box::into_raw(data).cast(), Some(untie));
            }
        }
    }
    made().and_then(|made| made.downcast_ref())
}

/// Another descriptor of the memory's dma-buf or file; `None` for memory that has none.
pub(crate) fn descriptor(memory: &gst::MemoryRef) -> Option<std::io::Result<OwnedFd>> {
    let fd = memory.downcast_memory_ref::<gst_allocators::FdMemory>()?.fd();
    // SAFETY: the memory has it open for as long as it is borrowed.
    Some(unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned())
}

/// A memory whose last reference has been dropped.
pub(crate) struct Spent<'a> {
    memory: *mut ffi::GstMemory,
    revived: &'a Cell<bool>,
}

impl Spent<'_> {
    /// A first reference again. Without it the memory is freed.
    pub(crate) fn revive(self) -> gst::Memory {
        self.revived.set(true);
        // SAFETY: the memory is whole until `dispose` returns, and stays so because that says that it was revived.
        unsafe { from_glib_none(self.memory) }
    }
}

/// What happens at the end of a memory's last reference.
pub(crate) type WayBack = Arc<dyn Fn(Spent<'_>) + Send + Sync>;

/// Has `way_back` decide, each time that the last reference to `memory` is dropped. A memory made of a part of it holds
/// a reference, so that is when nobody at all has its bytes any more.
pub(crate) fn lend(memory: &mut gst::MemoryRef, way_back: WayBack) {
    unsafe extern "C" fn dispose(object: *mut ffi::GstMiniObject) -> gboolean {
        let memory = object.cast::<ffi::GstMemory>();
        let revived = Cell::new(false);
        // SAFETY: GStreamer calls this with a whole memory, of which nobody else has a reference.
        let memory_ref = unsafe { gst::MemoryRef::from_ptr(memory) };
        // A handle of its own: as soon as the memory is revived, another thread may use and free it.
        if let Some(way_back) = tied::<WayBack>(memory_ref).cloned() {
            way_back(Spent { memory, revived: &revived });
        }
        // Revived, it may be in use elsewhere already: it is not touched any more.
        if revived.get() { GFALSE } else { GTRUE }
    }
    tie(memory, way_back);
    // SAFETY: the memory is borrowed mutably; the field is for exactly this.
    unsafe { (*memory.as_mut_ptr()).mini_object.dispose = Some(dispose) };
}

/// Says that `memory` is not to be written.
pub(crate) fn forbid_writing(memory: &mut gst::MemoryRef) {
    // SAFETY: the memory is borrowed mutably; flags are plain bits.
    unsafe { (*memory.as_mut_ptr()).mini_object.flags |= ffi::GST_MEMORY_FLAG_READONLY };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn what_is_tied_is_found_and_ends_with_the_memory() {
        gst::init().unwrap();
        let counter = Arc::new(AtomicU32::new(0));
        let mut memory = gst::Memory::with_size(16);
        assert!(tied::<Arc<AtomicU32>>(&memory).is_none());
        tie(memory.make_mut(), Arc::clone(&counter));
        assert!(tied::<String>(&memory).is_none());
        tied::<Arc<AtomicU32>>(&memory).unwrap().fetch_add(1, Ordering::Relaxed);
        assert_eq!((counter.load(Ordering::Relaxed), Arc::strong_count(&counter)), (1, 2));
        drop(memory);
        assert_eq!(Arc::strong_count(&counter), 1);
    }

    #[test]
    fn lent_memory_that_is_not_revived_is_freed() {
        gst::init().unwrap();
        let ends = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&ends);
        let mut memory = gst::Memory::with_size(16);
        lend(
            memory.make_mut(),
            Arc::new(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
            }),
        );
        drop(memory.clone());
        assert_eq!(ends.load(Ordering::Relaxed), 0);
        drop(memory);
        assert_eq!((ends.load(Ordering::Relaxed), Arc::strong_count(&ends)), (1, 1));
    }
}
