//! `shrbuftmem`: the last seconds of raw video in compressed memory, sent when they are asked for.
//!
//! ```text
//! gst-launch-1.0 videotestsrc is-live=true num-buffers=60 ! shrbuftmem keep=10000000000 ! fakesink sync=false
//! ```
//!
//! Takes frames for as long as they come, and sends none until the action signal `trigger`: then all that is kept, and
//! what comes for `after` from then on, with the time stamps and segments that they came with, while the taking goes
//! on. Triggers that overlap become one emission, in which no frame comes twice. A message of the element,
//! `shrbuftmem-begin` and `shrbuftmem-end`, tells the application of both ends of one. What
//! comes out is old: sinks that show it need `sync=false`. A GAP event has sinks preroll before that.
//!
//! The taking never waits: a frame for which there is no room is dropped, and counted in `stats`. Frames in dma-bufs
//! and sealed memfds are compressed where they lie, others are copied once before that.
//!
//! - Other caps, and a flush, empty what is kept, and end an emission.
//! - At EOS what was asked for still goes out, and then EOS.
//! - GAP events that come are holes in what is kept. Tags and seeks are not passed.
//!
//! # State
//! Streaming thread of the sink pad → `waiting` frames → keeper (a thread, which compresses) → store → player (the task
//! of the source pad, which decodes and pushes). What they share lies behind one lock, which none of them holds while
//! it works.

mod imp;
mod keeper;
mod player;
mod run;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// The element.
    pub struct ShrbufTmem(ObjectSubclass<imp::ShrbufTmem>) @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "shrbuftmem", gst::Rank::NONE, ShrbufTmem::static_type())
}
