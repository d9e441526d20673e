//! Frames whose planes are in a buffer each. vivid has them with `multiplanar=2`.

use std::sync::{Arc, Mutex};

use shrbuf::{Format, Ledger, Reason, Shrbuf};
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::v4l2::{Memory, V4l2Src};
use shrbuf_pipeline::solve::{NegotiateOptions, negotiate};
use shrbuf_pipeline::supervise::{RunOptions, Verdict, run};
use shrbuf_pipeline::{
    Build, Context, Copies, Element, Environment, Events, Failure, Frame, Graph, Origin, OutputOffer, Ports, Refusal,
    Size, Start, Stream,
};
use shrbuf_tests::{Footprint, Watch, counts, on_test_drivers, run_frames};

/// vivid's own, for the formats that it has one for (`PLANE0_DATA_OFFSET`).
const DATA_OFFSET: u32 = 128;

/// A camera that offers only formats with planes in a buffer each, or only the others.
struct Arranged {
    camera: Box<dyn Element>,
    apart: bool,
}

impl Arranged {
    fn new(camera: V4l2Src, apart: bool) -> Arranged {
        Arranged { camera: camera.build().unwrap(), apart }
    }

    fn formats(apart: bool) -> Vec<Format> {
        let offer = Arranged::new(V4l2Src::default(), apart).output_offer(0, None).unwrap();
        offer.video.iter().map(|video| video.format).collect()
    }
}

impl Element for Arranged {
    fn ports(&self) -> Ports {
        self.camera.ports()
    }

    fn join(&mut self, environment: &Environment) {
        self.camera.join(environment);
    }

    fn output_offer(&mut self, output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        let mut offer = self.camera.output_offer(output, input)?;
        offer.video.retain(|video| video.plane_segments == self.apart);
        Ok(offer)
    }

    fn allocate(&mut self, output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.camera.allocate(output, stream)
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        self.camera.start(start)
    }

    fn ready(&mut self, token: u32, events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        self.camera.ready(token, events, context)
    }

    fn process(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.camera.process(input, frame, context)
    }

    fn stop(&mut self) {
        self.camera.stop();
    }

    fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
        self.camera.counters(report);
    }
}

/// Whether vivid has such formats. `scripts/test-guest` has a line on which it does.
fn apart() -> bool {
    on_test_drivers() && std::fs::read_to_string("/sys/module/vivid/parameters/multiplanar").unwrap().starts_with('2')
}

fn camera(format: Format, memory: Memory) -> V4l2Src {
    V4l2Src { format: Some(format), size: Some(Size::new(640, 360)), memory, ..V4l2Src::default() }
}

/// What a captured frame was.
#[derive(Debug, Clone)]
struct Captured {
    segments: usize,
    /// Segment and offset of each plane.
    planes: Vec<(u8, u32)>,
    /// The last row of each plane: colour bars, and nothing that moves.
    rows: Vec<Vec<u8>>,
}

fn last_rows(buffer: &Shrbuf) -> Vec<Vec<u8>> {
    let account = Ledger::default().account("test", Reason::Inspect);
    let guard = buffer.read().unwrap();
    let last_row = |plane| {
        let plane = guard.plane(plane);
        let mut row = vec![0; plane.row_bytes()];
        plane.read(plane.rows() - 1, 0, &mut row, &account);
        row
    };
    (0..buffer.layout().planes().len()).map(last_row).collect()
}

fn capture(format: Format, memory: Memory, apart: bool) -> Captured {
    let last: Arc<Mutex<Option<Captured>>> = Arc::default();
    let noted = Arc::clone(&last);
    let watch = Watch::new(move |frame| {
        let layout = frame.buffer.layout();
        *noted.lock().unwrap() = Some(Captured {
            segments: frame.buffer.segments().len(),
            planes: layout.planes().iter().map(|p| (p.segment, p.offset)).collect(),
            rows: last_rows(&frame.buffer),
        });
    });
    let mut graph = Graph::new("test");
    let camera = graph.add("camera", Box::new(Arranged::new(camera(format, memory), apart))).unwrap();
    let watch = graph.add("watch", watch).unwrap();
    let sink = graph.add("sink", NullSink {}.build().unwrap()).unwrap();
    graph.link(camera, watch).unwrap();
    graph.link(watch, sink).unwrap();

    let report = run_frames(graph, 5);

    assert!(report.error.is_none(), "{format} {memory:?}: {}", report.error.unwrap());
    let stream = report.plan.links[0].stream;
    assert_eq!((stream.format, stream.plane_segments), (format, apart));
    assert_eq!(memory == Memory::V4l2, stream.origin == Origin::V4l2);
    let counts = counts(&report.graph, "camera");
    assert_eq!((counts.frames, counts.corrupt), (5, 0), "{format} {memory:?}");
    drop(report);
    let captured = last.lock().unwrap().take();
    captured.unwrap()
}

/// What a frame with planes apart must be, `together` being the same picture in one buffer, where vivid has that too.
fn check(format: Format, captured: &Captured, together: Option<&Captured>) {
    let planes = format.planes().len();
    assert_eq!(captured.segments, planes, "{format}");
    assert!(captured.planes.iter().zip(0..).all(|((segment, _), i)| *segment == i), "{format}: {:?}", captured.planes);
    assert!(captured.planes.iter().all(|(_, offset)| [0, DATA_OFFSET].contains(offset)), "{:?}", captured.planes);
    for (plane, row) in captured.rows.iter().enumerate() {
        assert!(row.iter().any(|b| b != &row[0]), "{format} plane {plane}: a row of one value");
    }
    if let Some(together) = together {
        assert_eq!(together.segments, 1, "{format}");
        assert!(together.rows == captured.rows, "{format}: other pictures apart and together");
    }
}

#[test]
fn every_format_with_planes_apart_comes_whole_and_right() {
    if !apart() {
        return;
    }
    let before = Footprint::now();
    let (formats, in_one) = (Arranged::formats(true), Arranged::formats(false));
    println!("{formats:?}");
    assert!(formats.len() >= 6, "{formats:?}");
    // vivid's contiguous allocator takes only contiguous memory, which these lend none of.
    let contiguous = std::fs::read_to_string("/sys/module/vivid/parameters/allocators").unwrap().starts_with('1');
    let memories = [Memory::V4l2, Memory::DmaHeap, Memory::Udmabuf];
    let (mut compared, mut late) = (0, 0);
    for format in formats {
        let together = in_one.contains(&format).then(|| capture(format, Memory::V4l2, false));
        compared += u32::from(together.is_some());
        for memory in memories.into_iter().filter(|m| !contiguous || *m == Memory::V4l2) {
            let captured = capture(format, memory, true);
            check(format, &captured, together.as_ref());
            late += u32::from(captured.planes.iter().any(|(_, offset)| *offset == DATA_OFFSET));
        }
    }
    assert!(compared >= 3, "{compared} formats were compared");
    assert!(late >= 1, "no plane began behind the start of its memory");
    assert_eq!(Footprint::settled(&before), before);
}

fn link(format: Format, sink: Box<dyn Element>, copies: Copies) -> Graph {
    let mut graph = Graph::new("test");
    graph.set_copies(copies);
    let camera = graph.add("camera", Box::new(Arranged::new(camera(format, Memory::Auto), true))).unwrap();
    let sink = graph.add("display", sink).unwrap();
    graph.link(camera, sink).unwrap();
    graph
}

#[test]
fn planes_apart_on_a_display_of_other_formats_are_refused_or_converted() {
    if !apart() {
        return;
    }
    const OPTIONS: NegotiateOptions = NegotiateOptions { converters: shrbuf_elements::CONVERTERS };
    let display = || KmsSink::default().build().unwrap();

    let refused = negotiate(&mut link(Format::Nv12, display(), Copies::Deny), &OPTIONS).unwrap_err().to_string();
    assert!(refused.contains("NV12") && refused.contains("copies"), "{refused}");

    // What converters keep for a whole process is there now.
    let before = Footprint::now();
    let options = RunOptions { frames: Some(30), negotiate: OPTIONS, ..RunOptions::default() };
    let report = run(link(Format::Nv12, display(), Copies::Allow), &options, |_| Verdict::Continue);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.links[0].stream.plane_segments);
    assert!(!report.plan.is_zero_copy() && report.graph.ledger().copied() > 0);
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}
