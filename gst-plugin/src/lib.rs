//! GStreamer elements for shrbuf: frames from other processes and to them, without a copy.
//!
//! # How am I supposed to use this?
//! `make install-gst` puts the plugin where GStreamer looks for it. Then
//! ```text
//! gst-launch-1.0 videotestsrc is-live=true ! shrbufsink path=/tmp/picture
//! gst-launch-1.0 shrbufsrc path=/tmp/picture ! videoconvert ! autovideosink
//! ```
//! in two terminals; either end may as well be a shrbuf pipeline (`ipc-src`, `ipc-sink`) or a program of
//! `shrbuf::ipc`. `docs/gstreamer.md` has more.
//!
//! # What lives where
//! | module | story |
//! | --- | --- |
//! | [`shrbufsrc`] | frames of another process; their memory given back when GStreamer lets go of it |
//! | [`shrbufsink`] | frames for other processes, in memory that upstream is given to write to |
//! | [`shrbuftmem`] | the last seconds in compressed memory, sent when they are asked for |
//! | `video` | what a picture is called on both sides |
//! | `clock` | stamps of CLOCK_MONOTONIC and running time |
//! | `sys` | the few calls for which the bindings have no safe one |
//!
//! Our buffers as GStreamer's memories, and its memories as our buffers, are in `shrbuf-gst-memory`, which the element `gst` has too.

#![allow(
    missing_docs,
    reason = "the bindings' macros make items that cannot be documented; properties have their blurb"
)]

mod clock;
pub mod shrbufsink;
pub mod shrbufsrc;
pub mod shrbuftmem;
mod sys;
mod video;

use std::sync::{Mutex, MutexGuard, PoisonError};

use gst::glib;

/// What a lock guards is whole at every step, so that a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    shrbufsrc::register(plugin)?;
    shrbufsink::register(plugin)?;
    shrbuftmem::register(plugin)
}

gst::plugin_define!(
    shrbuf,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    env!("CARGO_PKG_VERSION"),
    "MIT/X11",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    "shrbuf"
);
