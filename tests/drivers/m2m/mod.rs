//! `v4l2-m2m` on vim2m (a converter and scaler) and vicodec (a stateful encoder and decoder).

mod blocks;
mod change;
mod choice;
mod codec;
mod convert;
mod rows;
mod screen;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use shrbuf::{Format, Ledger, Reason, Shrbuf};
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::v4l2::{Device, V4l2M2m, ioctl};
use shrbuf_pipeline::supervise::Error;
use shrbuf_pipeline::{Build, Element, FailureKind, Frame, Graph, Rate, Size};
use shrbuf_tests::{Footprint, Growth, Watch, counts, run_frames};

/// A memory-to-memory node of `driver` whose sides are compressed or not as said; `None` where there is none.
fn node(driver: &str, takes: bool, gives: bool) -> Option<String> {
    let compressed = |d: &Device| ioctl::enum_fmt(d, d.buf_type()).unwrap().iter().all(|f| f.compressed);
    // A stateless codec has the flags too, and formats that nobody here knows.
    let known = |d: &Device| {
        let formats = ioctl::enum_fmt(d, d.buf_type()).unwrap();
        formats.iter().any(|f| Format::from_v4l2(f.pixelformat.0).is_some())
    };
    let found = (0..16).map(|n| format!("/dev/video{n}")).find(|path| {
        let Ok((t, g)) = Device::open_m2m(path) else { return false };
        t.capability().driver == driver && (compressed(&t), compressed(&g)) == (takes, gives) && known(&t) && known(&g)
    });
    if found.is_none() {
        let required = std::env::var("SHRBUF_REQUIRE_M2M").is_ok_and(|names| names.contains(driver));
        assert!(!required, "{driver} is required and missing");
        println!("needs {driver}: scripts/test-guest runs this in the virtual machine");
    }
    found
}

fn m2m(device: &str, format: Option<Format>) -> V4l2M2m {
    V4l2M2m { device: Some(device.to_owned()), format, ..V4l2M2m::default() }
}

fn source(format: Format, width: u32, height: u32) -> TestSrc {
    TestSrc {
        format: Some(format),
        size: Size::new(width, height),
        rate: Rate::new(30, 1),
        free_run: true,
        ..TestSrc::default()
    }
}

/// Elements in a row, each called by its place, and what goes into the second and the last shown by sequence.
fn row(elements: Vec<Box<dyn Element>>) -> (Graph, Shown, Shown) {
    let (before, after) = (Shown::default(), Shown::default());
    let mut graph = Graph::new("m2m");
    let last = elements.len();
    let mut previous = None;
    let watch = |shown: &Shown| {
        let shown = shown.clone();
        Watch::new(move |frame: &Frame| shown.show(frame)) as Box<dyn Element>
    };
    let mut all: Vec<(String, Box<dyn Element>)> = Vec::new();
    for (place, element) in elements.into_iter().enumerate() {
        all.push((format!("e{place}"), element));
        if place == 0 {
            all.push(("before".into(), watch(&before)));
        }
        if place + 1 == last {
            all.push(("after".into(), watch(&after)));
            all.push(("drop".into(), NullSink {}.build().unwrap()));
        }
    }
    for (name, element) in all {
        let node = graph.add(&name, element).unwrap();
        if let Some(previous) = previous.replace(node) {
            graph.link(previous, node).unwrap();
        }
    }
    (graph, before, after)
}

/// Runs the elements, and nothing that remembers, for so many frames: none is lost, and nothing grows.
fn endures(elements: Vec<Box<dyn Element>>, frames: u64) {
    let before = Footprint::now();
    let growth = Growth::over(frames);
    let mut graph = Graph::new("m2m");
    let mut nodes = Vec::new();
    for (n, element) in elements.into_iter().chain([growth.watch() as Box<dyn Element>]).enumerate() {
        nodes.push(graph.add(&format!("e{n}"), element).unwrap());
    }
    nodes.push(graph.add("drop", NullSink {}.build().unwrap()).unwrap());
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());

    let report = run_frames(graph, frames);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let made = counts(&report.graph, "drop");
    assert_eq!((made.frames, made.dropped), (frames, 0));
    assert_eq!(report.graph.ledger().copied(), 0);
    println!("{:.1?}", report.duration);
    drop(report);
    growth.assert_none(0);
    assert_eq!(Footprint::now(), before);
}

/// A picture's planes, without padding.
type Planes = Vec<Vec<u8>>;

/// What of every frame that went by.
#[derive(Default)]
struct Seen {
    /// The first, by sequence.
    copies: HashMap<u64, Planes>,
    sequences: Vec<u64>,
    sizes: Vec<Size>,
}

/// Shared with the element that watches.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Seen>>);

impl Shown {
    const COPIES: usize = 8;

    fn show(&self, frame: &Frame) {
        let layout = frame.buffer.layout();
        let mut seen = self.0.lock().unwrap();
        seen.sequences.push(frame.sequence);
        seen.sizes.push(Size::new(layout.width, layout.height));
        if seen.copies.len() < Shown::COPIES {
            seen.copies.insert(frame.sequence, planes(&frame.buffer));
        }
    }

    fn copies(&self) -> HashMap<u64, Planes> {
        self.0.lock().unwrap().copies.clone()
    }

    fn sequences(&self) -> Vec<u64> {
        self.0.lock().unwrap().sequences.clone()
    }

    fn sizes(&self) -> Vec<Size> {
        let mut sizes = self.0.lock().unwrap().sizes.clone();
        sizes.dedup();
        sizes
    }
}

fn planes(buffer: &Shrbuf) -> Planes {
    let account = Ledger::default().account("test", Reason::Inspect);
    let layout = buffer.layout();
    let guard = buffer.read().unwrap();
    (0..layout.planes().len())
        .map(|p| {
            let mut bytes = Vec::new();
            let mut row = vec![0; layout.row_bytes(p) as usize];
            for y in 0..layout.rows(p) as usize {
                guard.plane(p).read(y, 0, &mut row, &account);
                bytes.extend_from_slice(&row);
            }
            bytes
        })
        .collect()
}

/// Unbinds the driver as pulling the device out would, and binds it again.
fn unplugged_at(driver: &'static str, frames: u64, mut elements: Vec<Box<dyn Element>>, element: &str) {
    let device = format!("{driver}.0");
    let mut seen = 0;
    elements.push(Watch::new(move |_| {
        seen += 1;
        if seen == frames {
            std::fs::write(format!("/sys/bus/platform/drivers/{driver}/unbind"), &device).unwrap();
        }
    }));
    let (graph, ..) = row(elements);

    let report = run_frames(graph, 1000);

    std::fs::write(format!("/sys/bus/platform/drivers/{driver}/bind"), format!("{driver}.0")).unwrap();
    let Some(Error::Element(failure)) = &report.error else { panic!("{:?}", report.error) };
    assert_eq!((failure.kind(), failure.element()), (FailureKind::Unplugged, Some(element)), "{failure}");
}
