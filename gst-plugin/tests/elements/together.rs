//! docs/gstreamer.md: every producer of it with every consumer, run as they stand but for their paths.

use std::sync::{Arc, Mutex};

use shrbuf_elements::ipc::IpcSrc;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::test_src::Marker;
use shrbuf_pipeline::file::load;
use shrbuf_pipeline::supervise::{self, RunOptions, Verdict};
use shrbuf_pipeline::{Build, Graph, Size};
use shrbuf_tests::Watch;

use crate::launch::{Launch, PAGE, Temporary, until_listening};

/// The block of code of that kind under a heading.
fn block(heading: &str, kind: &str) -> &'static str {
    let section = PAGE.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let code = section.split(&format!("```{kind}\n")).nth(1).unwrap();
    code.split("```").next().unwrap()
}

/// With paths of this test.
struct Paths {
    socket: Temporary,
    file: Temporary,
}

impl Paths {
    fn new() -> Paths {
        Paths { socket: Temporary::new("page"), file: Temporary::new("page.raw") }
    }

    fn put(&self, code: &str) -> String {
        assert!(code.contains("/tmp/picture"), "{code}");
        code.replace("/tmp/picture", self.socket.as_str()).replace("/tmp/frames.raw", self.file.as_str())
    }

    fn launch(&self, heading: &str) -> Launch {
        let line = self.put(block(heading, "sh"));
        Launch::new(line.strip_prefix("gst-launch-1.0 ").unwrap())
    }

    fn run(&self, heading: &str, frames: Option<u64>) {
        run(&self.put(block(heading, "toml")), frames);
    }
}

/// As `shrbuf run --frames` would.
fn run(toml: &str, frames: Option<u64>) {
    let graph = load("gstreamer.md", toml, &shrbuf_elements::types(), &[]).unwrap();
    let report = supervise::run(graph, &RunOptions { frames, ..RunOptions::default() }, |_| Verdict::Continue);
    assert!(report.error.is_none(), "{:?}", report.error);
    assert_eq!(report.graph.ledger().copied(), 0);
}

const OUT: &str = "Pictures for another process";
const IN: &str = "Frames of another process, into a file";
const BYTES: usize = 60 * 640 * 360 * 3 / 2;

#[test]
fn gstreamer_to_gstreamer_and_to_a_pipeline_of_ours_is_the_same() {
    let (theirs, ours) = (Paths::new(), Paths::new());
    let out = theirs.launch(OUT);
    until_listening(&theirs.socket);
    theirs.launch(IN).end_well();
    out.end_well();

    let out = ours.launch(OUT);
    until_listening(&ours.socket);
    ours.run(IN, None);
    out.end_well();

    let (theirs, ours) = (std::fs::read(&theirs.file.0).unwrap(), std::fs::read(&ours.file.0).unwrap());
    assert!(theirs == ours && ours.len() == BYTES, "{} and {} bytes", theirs.len(), ours.len());
}

#[test]
fn a_pipeline_of_ours_follows_gstreamer_to_other_frames() {
    let socket = Temporary::new("follows");
    let part = |format: &str, width: u32, frames: u32| {
        format!("videotestsrc num-buffers={frames} ! video/x-raw,format={format},width={width},height=48 ! all.")
    };
    let parts = [part("NV12", 64, 20), part("GRAY8", 128, 30), part("NV12", 64, 10)].join(" ");
    let sink = format!("shrbufsink path={} policy=block wait-for=1 copies=allow", socket.as_str());
    let out = Launch::new(&format!("concat name=all ! {sink} {parts}"));
    until_listening(&socket);
    let (frames, mut graph) = (Arc::new(Mutex::new(Vec::new())), Graph::new("in"));
    let source = graph.add("in", IpcSrc { path: socket.0.clone(), ..IpcSrc::default() }.build().unwrap()).unwrap();
    let counted = Arc::clone(&frames);
    let watch = Watch::new(move |frame| {
        let (mut all, width) = (counted.lock().unwrap(), frame.buffer.layout().width);
        match all.last_mut() {
            Some((last, count)) if *last == width => *count += 1,
            _ => all.push((width, 1)),
        }
    });
    let watch = graph.add("watch", watch).unwrap();
    let sink = graph.add("sink", NullSink::default().build().unwrap()).unwrap();
    graph.link(source, watch).unwrap();
    graph.link(watch, sink).unwrap();
    let report = supervise::run(graph, &RunOptions::default(), |_| Verdict::Continue);
    assert!(report.error.is_none(), "{:?}", report.error);
    assert_eq!(*frames.lock().unwrap(), [(64, 20), (128, 30), (64, 10)]);
    out.end_well();
}

#[test]
fn a_pipeline_of_ours_to_gstreamer_arrives_whole() {
    let paths = Paths::new();
    let consumer = std::thread::scope(|s| {
        s.spawn(|| paths.run(OUT, Some(60)));
        until_listening(&paths.socket);
        paths.launch(IN).end_well()
    });
    let got = std::fs::read(&paths.file.0).unwrap();
    // Each picture has its number in it, with a checksum.
    let (width, size) = (640, Size::new(640, 360));
    let number = |frame: &[u8]| Marker::decode(size, |x, y| frame[y * width + x]).unwrap().frame;
    let numbers: Vec<u32> = got.chunks(BYTES / 60).map(number).collect();
    assert_eq!(got.len(), BYTES, "{consumer}");
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}
