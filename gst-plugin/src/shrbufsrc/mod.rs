//! `shrbufsrc`: frames of another process.
//!
//! ```text
//! gst-launch-1.0 shrbufsrc path=/tmp/picture ! filesink location=frames.raw
//! ```
//!
//! Connects to a producer (`shrbufsink`, `ipc-sink` of a shrbuf pipeline, a program) as the element goes to PAUSED, and
//! takes frames while it plays. The frames are the producer's memory: a memfd as `GstFdMemory`, a dma-buf as
//! `GstDmaBufMemory`, neither to be written, with `GstVideoMeta`. The producer has a buffer back when GStreamer has let
//! go of the last memory made of it. A producer that has other frames from some moment on (its camera has another signal, a
//! placeholder stands in for it, its caps change) is connected to again, and downstream gets caps for those. With GStreamer 1.24 and later (cargo feature `v1_24`) dma-bufs have DMA_DRM caps
//! too, and only those where they are tiled. Stamps are the producer's, in the pipeline's running time.
//!
//! # State
//! Between start and stop there is a connection; from the first `create` on it is a consumer, owned by the streaming
//! thread. Other frames are another connection. `unlock` writes an eventfd that the streaming thread polls beside what frames come by,
//! and beside what a producer answers by as it is connected to again.

mod imp;
mod unfit;

use gst::glib;
use gst::prelude::*;

glib::wrapper! {
    /// The element.
    pub struct ShrbufSrc(ObjectSubclass<imp::ShrbufSrc>)
        @extends gst_base::PushSrc, gst_base::BaseSrc, gst::Element, gst::Object;
}

/// What happens to frames for which there is no room here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstShrbufSrcPolicy")]
#[repr(i32)]
pub enum Policy {
    /// What the producer has set.
    #[default]
    #[enum_value(name = "What the producer has set", nick = "producer")]
    Producer,
    /// They wait, where the producer allows it.
    #[enum_value(name = "Frames wait, where the producer allows it", nick = "block")]
    Block,
    /// The oldest goes.
    #[enum_value(name = "The oldest of those that wait is dropped", nick = "drop-oldest")]
    DropOldest,
    /// Only the newest stays.
    #[enum_value(name = "Only the newest frame counts", nick = "latest")]
    Latest,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "shrbufsrc", gst::Rank::NONE, ShrbufSrc::static_type())
}
