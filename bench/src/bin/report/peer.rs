//! The peer: GStreamer, by the program that its users start pipelines with.

use std::process::{Command, Stdio};

/// A pipeline in GStreamer's own words. Without `--no-fault`, one that crashes waits for a debugger.
pub fn gst(pipeline: &str) -> Command {
    let mut command = Command::new("gst-launch-1.0");
    command.args(["-q", "--no-fault"]).args(pipeline.split_whitespace()).env("LC_ALL", "C");
    command
}

/// Whether it is there.
pub fn installed() -> bool {
    let asked = Command::new("gst-launch-1.0").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|s| s.success())
}
