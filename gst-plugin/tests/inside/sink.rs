//! Our frames go out of `gst` by `shrbufsink`, in our memory.

use shrbuf::Format;
use shrbuf_elements::Memory;
use shrbuf_elements::gst::Gst;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_pipeline::supervise::Report;
use shrbuf_pipeline::{Build, Graph, Rate, Size};

use crate::launch::Temporary;
use crate::roles::{self, SIZE, load_plugin, reader, well};

/// `test-src ! LAUNCH ! shrbufsink`, with a consumer in another process.
fn send(before: &str, memory: Memory, frames: u64) -> Report {
    load_plugin();
    let socket = Temporary::new("out");
    let mut graph = Graph::new("out");
    let camera = TestSrc { size: Size::new(SIZE.0, SIZE.1), rate: Rate::new(100, 1), memory, ..TestSrc::default() };
    let camera = TestSrc { format: Some(Format::Xr24), ..camera };
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let launch = format!("{before}shrbufsink path={} policy=block wait-for=1 consumers=1 window=2", socket.as_str());
    let part = graph.add("part", Gst { launch, ..Gst::default() }.build().unwrap()).unwrap();
    graph.link(camera, part).unwrap();
    let other = reader(socket.as_str(), false);
    let report = roles::run(graph, Some(frames));
    well(&report);
    other.end_well();
    report
}

fn frames(report: &Report, element: &str) -> u64 {
    report.graph.counts().iter().find(|e| e.name == element).unwrap().counts.frames
}

#[test]
fn memfds_of_ours_are_another_processs_without_a_copy() {
    let report = send("", Memory::Memfd, 200);
    assert!(frames(&report, "part") > 150);
}

#[test]
fn what_gstreamer_makes_of_our_frames_is_another_processs_too() {
    let report = send("videoconvert ! video/x-raw,format=RGBx ! ", Memory::Memfd, 200);
    assert!(frames(&report, "part") > 150);
}
