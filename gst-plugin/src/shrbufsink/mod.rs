//! `shrbufsink`: frames for other processes.
//!
//! ```text
//! gst-launch-1.0 videotestsrc num-buffers=100 ! shrbufsink path=/tmp/picture wait-for=1 policy=block
//! ```
//!
//! Serves a socket for any number of consumers (`shrbufsrc`, `ipc-src` of a shrbuf pipeline, a program). Upstream is
//! offered a pool of shared memory and writes its frames straight into what consumers read: no byte is copied. Nor is
//! one where upstream passes dma-bufs or sealed memfds of its own (`v4l2src io-mode=dmabuf`): consumers are told of
//! those as soon as all of them have come by, and the frames until then go to nobody (`unseen` in `stats`). That takes a
//! pool whose buffers come by in turn, as cameras' and GStreamer's do. What it has later, because it grows or is
//! another one, they are told of as it comes, once (`late`); of more than 64 in turn, each time. A frame in other memory is
//! refused with an error that names the element it came from, or copied and counted, as `copies` says; so is memory of
//! a `shrbufsrc` or `shrbuftmem` of the same process, whose buffers go back elsewhere.
//!
//! With GStreamer 1.24 and later (cargo feature `v1_24`) DMA_DRM caps are taken as well, with any modifier.
//!
//! A frame goes out as it comes; `sync=true` sends it at its time. A buffer is upstream's again when the last consumer
//! has given it back, however that one ended.
//!
//! # State
//! With caps come the buffers to offer (`pool`), with the first frame in them, or with upstream's own (`shrbuf-gst-memory`), the
//! run (`run`) and the producer that announces them (`serve`), and others as they come. Other caps make other buffers and another run; the
//! producer and its socket stay until the element stops, and consumers are sent on once that run has begun. A thread deals
//! with the consumers; the streaming thread sends. They share the producer behind a lock that neither holds while it waits.

mod imp;
mod pool;
mod run;
mod serve;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// The element.
    pub struct ShrbufSink(ObjectSubclass<imp::ShrbufSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object;
}

/// What happens to a frame for a consumer that holds as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstShrbufSinkPolicy")]
#[repr(i32)]
pub enum Policy {
    /// It waits, and upstream with it once the pool is dry.
    #[enum_value(name = "Frames wait, and so does upstream", nick = "block")]
    Block,
    /// The oldest goes.
    #[enum_value(name = "The oldest of those that wait is dropped", nick = "drop-oldest")]
    DropOldest,
    /// Only the newest stays.
    #[default]
    #[enum_value(name = "Only the newest frame counts", nick = "latest")]
    Latest,
}

/// What happens to a frame that is not in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstShrbufCopies")]
#[repr(i32)]
pub enum Copies {
    /// An error.
    #[default]
    #[enum_value(name = "Refused, with an error that names its element", nick = "deny")]
    Deny,
    /// A copy, and a warning the first time.
    #[enum_value(name = "Copied and counted, with a warning", nick = "warn")]
    Warn,
    /// A copy.
    #[enum_value(name = "Copied and counted", nick = "allow")]
    Allow,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "shrbufsink", gst::Rank::NONE, ShrbufSink::static_type())
}
