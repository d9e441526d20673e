//! Windows on a real compositor: Weston without a display, drawing with software GL. Here with memfds; in the virtual
//! machine with the dma-bufs of vivid and udmabuf too. What Weston never does, a compositor of our own does.

mod behaviour;
mod endurance;
mod explicit;
mod fake;
mod faults;
mod formats;
mod pixels;
mod points;
mod synchronized;
#[path = "../../shrbuf/tests/common/vgem.rs"]
mod vgem;
mod weston;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::wayland::WaylandSink;
use shrbuf_pipeline::supervise::Report;
use shrbuf_pipeline::{Build, Element, Frame, Graph, Rate, Size};
use shrbuf_tests::Watch;

use weston::Weston;

/// A quarter of what a desktop has, so that software composes it in time where it is emulated.
const SIZE: Size = Size::new(320, 180);

/// One test at a time: they look at the descriptors of the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // One that failed has left nothing in it.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Test pictures that fill the screen.
fn pictures() -> TestSrc {
    TestSrc { size: SIZE, rate: Rate::new(15, 1), ..TestSrc::default() }
}

/// A window of that compositor.
fn window(weston: &Weston) -> WaylandSink {
    window_at(weston.socket())
}

/// A window of the compositor at that socket. Emulated, Weston compiles the shaders for its first frame for seconds.
fn window_at(socket: String) -> WaylandSink {
    WaylandSink { display: Some(socket), stall: Some(Duration::from_secs(60)), ..WaylandSink::default() }
}

/// `source → watch → window`, with copies denied.
fn graph(source: Box<dyn Element>, window: WaylandSink, on_frame: impl FnMut(&Frame) + Send + 'static) -> Graph {
    let mut graph = Graph::new("test");
    let source = graph.add("source", source).unwrap();
    let watch = graph.add("watch", Watch::new(on_frame)).unwrap();
    let window = graph.add("window", window.build().unwrap()).unwrap();
    graph.link(source, watch).unwrap();
    graph.link(watch, window).unwrap();
    graph
}

/// What the window itself has counted.
fn own(report: &Report, name: &str) -> u64 {
    let counts = report.graph.counts().into_iter().find(|c| c.name == "window").unwrap().own;
    counts.into_iter().find(|(n, _)| *n == name).unwrap().1
}
