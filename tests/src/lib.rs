//! What tests of several crates share: where they run, what must be as before when they are done, and ([`native`]) elements
//! set up one at a time.

use std::fs;

use shrbuf_elements::kms::{Card, KmsSink};
use shrbuf_elements::v4l2::{Device, V4l2Src};
use shrbuf_pipeline::stats::NodeCounts;
use shrbuf_pipeline::supervise::{Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Frame, Graph, Rate, Size};

mod aligned;
mod footprint;
mod gem;
pub mod growth;
mod heap;
mod late;
pub mod native;
mod old_kernel;
mod polling;
mod recolor;
mod watch;

pub use aligned::Aligned;
pub use footprint::Footprint;
pub use growth::Growth;
pub use heap::allocations;
pub use late::Late;
pub use old_kernel::without_sync_files;
pub use polling::once_polling;
pub use recolor::Recolor;
pub use watch::Watch;

/// True in the virtual machine, where vivid and vkms are. Elsewhere a driver test has nothing to test and says so.
pub fn on_test_drivers() -> bool {
    let names = fs::read_dir("/sys/class/video4linux").into_iter().flatten().flatten();
    let vivid = names.filter_map(|n| fs::read_to_string(n.path().join("name")).ok()).any(|n| n.starts_with("vivid"));
    let vkms = Card::find().into_iter().flatten().any(|c| c.driver == "vkms");
    if !(vivid && vkms) {
        assert!(std::env::var_os("SHRBUF_REQUIRE_DRIVERS").is_none(), "vivid and vkms are required and missing");
        println!("needs vivid and vkms: scripts/test-guest runs this in the virtual machine");
    }
    vivid && vkms
}

/// False where the kernel has no udmabuf, which is said.
pub fn has_udmabuf() -> bool {
    let has = std::path::Path::new("/dev/udmabuf").exists();
    assert!(has || std::env::var_os("SHRBUF_REQUIRE_DRIVERS").is_none(), "udmabuf is required and missing");
    if !has {
        println!("no udmabuf here");
    }
    has
}

/// A small, quick camera.
pub fn small_camera() -> V4l2Src {
    V4l2Src { size: Some(Size::new(640, 360)), rate: Some(Rate::new(60, 1)), ..V4l2Src::default() }
}

/// `camera → watch → display`, with copies denied.
pub fn camera_to_display(camera: V4l2Src, display: KmsSink, on_frame: impl FnMut(&Frame) + Send + 'static) -> Graph {
    let mut graph = Graph::new("test");
    let camera = graph.add("camera", camera.build().expect("the camera's properties")).expect("a name");
    let watch = graph.add("watch", Watch::new(on_frame)).expect("a name");
    let display = graph.add("display", display.build().expect("the display's properties")).expect("a name");
    graph.link(camera, watch).expect("free ports");
    graph.link(watch, display).expect("free ports");
    graph
}

/// Runs for so many frames from each source.
pub fn run_frames(graph: Graph, frames: u64) -> Report {
    run(graph, &RunOptions { frames: Some(frames), ..RunOptions::default() }, |_| Verdict::Continue)
}

/// What an element has counted.
pub fn counts(graph: &Graph, name: &str) -> NodeCounts {
    graph.counts().into_iter().find(|c| c.name == name).map(|c| c.counts).unwrap_or_default()
}

/// What an element has counted under a name of its own.
pub fn own(graph: &Graph, element: &str, name: &str) -> u64 {
    let own = graph.counts().into_iter().find(|c| c.name == element).map(|c| c.own).unwrap_or_default();
    own.iter().find(|(n, _)| *n == name).map_or(0, |(_, count)| *count)
}

/// Sets a control of the first camera through a descriptor of its own, as another program would.
pub fn set_control(name: &str, value: &str) {
    let device = Device::first().expect("a camera");
    let control = device.control(name).expect("the control");
    let value = control.parse(value).expect("a value of the control");
    device.set_control(&control, &value).expect("the control takes the value");
}

/// Presses a button of the first camera: vivid's way to inject a fault.
pub fn press(name: &str) {
    set_control(name, "1");
}
