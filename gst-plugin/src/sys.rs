//! What GStreamer's bindings have no safe call for, beside what `shrbuf-gst-memory` has: what is made of a memory once,
//! a memory's descriptor, and a sink that waits for something other than the clock.

use std::any::Any;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock};

use gst::glib::ffi::{GFALSE, GTRUE, gpointer};
use gst::glib::translate::IntoGlib;
use gst::{ffi, glib};
use gst_base::ffi as base_ffi;
use gst_base::prelude::*;

type Tied = Box<dyn Any + Send + Sync>;

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
        let _one_at_a_time = crate::lock(&MAKING);
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

unsafe extern "C" fn untie(data: gpointer) {
    // SAFETY: `data` is the box that was tied; GStreamer calls this once.
    drop(unsafe { Box::from_raw(data.cast::<Tied>()) });
}

/// Has the streaming thread of `sink` wait for something, as GStreamer has it wait for the clock: without the lock
/// under which frames are rendered, so that the state can change meanwhile, and prerolled, so that a change does not
/// wait for the next frame. To be called in `render` and `event` of a sink, which GStreamer calls with that lock held.
///
/// # Errors
/// `Flushing` where the sink is by then.
pub(crate) fn wait_prerolled<T>(
    sink: &impl IsA<gst_base::BaseSink>,
    wait: impl FnOnce() -> T,
) -> Result<T, gst::FlowError> {
    /// Locked again however `wait` ends.
    struct Away(*mut base_ffi::GstBaseSink);

    impl Drop for Away {
        fn drop(&mut self) {
            // SAFETY: the sink outlives this; the lock was let go of by this thread, and guards the field.
            unsafe {
                glib::ffi::g_mutex_lock(&raw mut (*self.0).preroll_lock);
                (*self.0).have_preroll = GFALSE;
            }
        }
    }

    let sink: *mut base_ffi::GstBaseSink = sink.upcast_ref::<gst_base::BaseSink>().as_ptr();
    // SAFETY: the sink is whole, and this thread holds the lock, which guards the field.
    unsafe {
        (*sink).have_preroll = GTRUE;
        glib::ffi::g_mutex_unlock(&raw mut (*sink).preroll_lock);
    }
    let away = Away(sink);
    let waited = wait();
    drop(away);
    // SAFETY: as above; the lock is held again.
    let flushing = unsafe { (*sink).flushing != GFALSE };
    if flushing { Err(gst::FlowError::Flushing) } else { Ok(waited) }
}
