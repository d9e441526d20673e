//! What GStreamer's bindings have no safe call for, beside what `shrbuf-gst-memory` has: a sink that waits for something
//! other than the clock.

use gst::glib;
use gst::glib::ffi::{GFALSE, GTRUE};
use gst_base::ffi as base_ffi;
use gst_base::prelude::*;

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
