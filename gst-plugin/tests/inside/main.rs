//! The plugin's elements inside pipelines of ours: `gst` with `shrbufsrc` and `shrbufsink`, of the plugin as built, between
//! this process and others.
//!
//! A test binary of its own: one that has the elements linked in cannot load the plugin too.

#[path = "../elements/launch.rs"]
#[allow(dead_code, reason = "the other tests use all of it")]
mod launch;
mod roles;
mod sink;
mod source;
