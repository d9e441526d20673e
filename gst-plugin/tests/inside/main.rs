//! The plugin's elements, of the plugin as built, inside pipelines of ours (`gst` with `shrbufsrc` and `shrbufsink`) and with an
//! upstream of the test's own; between this process and others.
//!
//! A test binary of its own: one that has the elements linked in cannot load the plugin too.

mod change;
mod late;
#[path = "../elements/launch.rs"]
#[allow(dead_code, reason = "the other tests use all of it")]
mod launch;
mod roles;
mod sink;
mod source;
