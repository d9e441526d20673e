//! The elements in real pipelines: gst-launch-1.0 with the plugin as built, against this process, and among themselves.
//!
//! A process cannot consume its own buffers, so one end of each test is another process.

mod documentation;
mod drivers;
mod launch;
mod preroll;
mod sink;
mod source;
mod states;
mod together;
#[path = "../../../shrbuf/tests/common/vgem.rs"]
mod vgem;
