//! The elements of shrbuf: cameras, displays, files, tests.
//!
//! # How am I supposed to use this?
//! Fill in an element's properties and build it, or take it by name from [`types`], as TOML does; then put it into a
//! [`Graph`](shrbuf_pipeline::Graph).
//!
//! ```
//! use shrbuf_elements::{null_sink::NullSink, test_src::TestSrc};
//! use shrbuf_pipeline::{Build, Graph};
//! let mut graph = Graph::new("example");
//! let source = graph.add("source", TestSrc { free_run: true, ..TestSrc::default() }.build()?)?;
//! let sink = graph.add("sink", NullSink {}.build()?)?;
//! graph.link(source, sink)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A new element is a file or folder here and a line in [`types`]; elements that need a device's crates are cargo
//! features.

mod clock;
mod container;
pub mod convert;
#[cfg(any(feature = "gpu", feature = "wayland"))]
mod fences;
pub mod file_sink;
pub mod file_src;
#[cfg(feature = "gpu")]
pub mod gpu;
#[cfg(feature = "gstreamer")]
pub mod gst;
mod image;
pub mod ipc;
#[cfg(feature = "kms")]
pub mod kms;
mod memory;
mod new_file;
pub mod null_sink;
pub mod queue;
pub mod screen_sink;
mod supply;
pub mod tee;
pub mod test_src;
pub mod tmem;
#[cfg(feature = "v4l2")]
pub mod v4l2;
#[cfg(feature = "wayland")]
pub mod wayland;

pub use memory::Memory;
use shrbuf_pipeline::ElementType;
use shrbuf_pipeline::solve::Converter;

/// Every type of element in this build, sources first.
pub fn types() -> Vec<ElementType> {
    vec![
        #[cfg(feature = "v4l2")]
        ElementType::of::<v4l2::V4l2Src>(),
        ElementType::of::<test_src::TestSrc>(),
        ElementType::of::<file_src::FileSrc>(),
        ElementType::of::<ipc::IpcSrc>(),
        #[cfg(feature = "v4l2")]
        ElementType::of::<v4l2::V4l2Sink>(),
        #[cfg(feature = "kms")]
        ElementType::of::<kms::KmsSink>(),
        #[cfg(feature = "kms")]
        ElementType::of::<kms::KmsCapture>(),
        #[cfg(feature = "wayland")]
        ElementType::of::<wayland::WaylandSink>(),
        ElementType::of::<screen_sink::ScreenSink>(),
        ElementType::of::<file_sink::FileSink>(),
        ElementType::of::<ipc::IpcSink>(),
        ElementType::of::<null_sink::NullSink>(),
        ElementType::of::<convert::Convert>(),
        #[cfg(feature = "v4l2")]
        ElementType::of::<v4l2::V4l2M2m>(),
        ElementType::of::<tee::Tee>(),
        ElementType::of::<queue::Queue>(),
        ElementType::of::<tmem::Tmem>(),
        #[cfg(feature = "gpu")]
        ElementType::of::<gpu::Gpu>(),
        #[cfg(feature = "gstreamer")]
        ElementType::of::<gst::Gst>(),
    ]
}

/// Types of elements that this build is without, and the cargo feature that each would need.
pub fn left_out() -> impl Iterator<Item = (&'static str, &'static str)> {
    let with = [
        ("v4l2-src", "v4l2"),
        ("v4l2-sink", "v4l2"),
        ("v4l2-m2m", "v4l2"),
        ("kms-sink", "kms"),
        ("kms-capture", "kms"),
        ("wayland-sink", "wayland"),
        ("gpu", "gpu"),
        ("gst", "gstreamer"),
    ];
    let types = types();
    with.into_iter().filter(move |(name, _)| types.iter().all(|t| t.name != *name))
}

/// What negotiation may put into a link that cannot do without, in order of preference.
pub const CONVERTERS: &[Converter] = &[
    #[cfg(feature = "gpu")]
    gpu::CONVERTER,
    convert::CONVERTER,
];
