//! What `v4l2-sink` puts out is what vivid's input, connected to its output, captures: pixel for pixel.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shrbuf::{Format, Ledger, Reason};
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::tee::Tee;
use shrbuf_elements::test_src::{Pattern, TestSrc};
use shrbuf_elements::v4l2::{Device, V4l2Sink, V4l2Src, ioctl};
use shrbuf_pipeline::supervise::{Error, Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Colorimetry, Element, FailureKind, Frame, Graph, Matrix, Range, Rate, Size};
use shrbuf_tests::{Aligned, Footprint, Growth, Late, Recolor, Watch, counts, growth, own, run_frames, set_control};

/// The first device that puts video out; `None` where vivid has none.
fn output() -> Option<String> {
    let found = Device::first_output().ok().filter(|d| d.capability().driver == "vivid");
    if found.is_none() {
        assert!(std::env::var_os("SHRBUF_OUTPUT").is_none(), "a vivid with an output is required and missing");
        println!("needs a vivid with an output: scripts/test-guest runs this in the virtual machine");
    }
    found.map(|d| d.path().display().to_string())
}

fn picture(frame: &Frame) -> u64 {
    let account = Ledger::default().account("test", Reason::Inspect);
    let layout = frame.buffer.layout();
    let mut row = vec![0; layout.row_bytes(0) as usize];
    let guard = frame.buffer.read().unwrap();
    let mut hasher = DefaultHasher::new();
    for y in 0..layout.height as usize {
        guard.plane(0).read(y, 0, &mut row, &account);
        row.hash(&mut hasher);
    }
    hasher.finish()
}

/// `source → watch → out`, copies denied.
fn to_output(source: TestSrc, sink: V4l2Sink, on_frame: impl FnMut(&Frame) + Send + 'static) -> Graph {
    to_output_beside(source, sink, None, None, on_frame)
}

/// The same, with a sink beside `out` that may want longer rows, or in memory that nobody knew of before it comes.
fn to_output_beside(
    source: TestSrc,
    sink: V4l2Sink,
    beside: Option<Aligned>,
    late: Option<Box<Late>>,
    on_frame: impl FnMut(&Frame) + Send + 'static,
) -> Graph {
    let mut graph = Graph::new("output");
    let mut source = graph.add("source", source.build().unwrap()).unwrap();
    if let Some(late) = late {
        let late = graph.add("late", late).unwrap();
        graph.link(source, late).unwrap();
        source = late;
    }
    let watch = graph.add("watch", Watch::new(on_frame)).unwrap();
    let sink = graph.add("out", sink.build().unwrap()).unwrap();
    graph.link(source, watch).unwrap();
    let Some(beside) = beside else {
        graph.link(watch, sink).unwrap();
        return graph;
    };
    let tee = graph.add("tee", Tee {}.build().unwrap()).unwrap();
    let beside = graph.add("beside", Box::new(beside)).unwrap();
    graph.link(watch, tee).unwrap();
    graph.link(tee, sink).unwrap();
    graph.link(tee, beside).unwrap();
    graph
}

fn hdmi(device: &str) -> V4l2Sink {
    V4l2Sink { device: Some(device.to_owned()), output: Some("HDMI 000-0".into()), ..V4l2Sink::default() }
}

fn pattern() -> TestSrc {
    TestSrc { format: Some(Format::Xr24), size: Size::new(1280, 720), rate: Rate::new(30, 1), ..TestSrc::default() }
}

fn kind(report: &Report) -> Option<FailureKind> {
    report.error.as_ref().and_then(Error::kind)
}

#[test]
fn output_comes_back_pixel_for_pixel() {
    comes_back(None, None);
}

#[test]
fn output_in_rows_longer_than_the_picture_comes_back_pixel_for_pixel() {
    comes_back(Some(4096), None);
}

#[test]
fn output_in_memory_that_nobody_knew_of_comes_back_pixel_for_pixel_and_is_imported_once() {
    comes_back(None, Some(12));
}

#[test]
fn output_in_memory_that_lies_otherwise_is_an_error_that_says_so() {
    let Some(device) = output() else { return };
    let before = Footprint::now();
    let graph = to_output_beside(pattern(), hdmi(&device), None, Some(Late::new(4, 4096)), |_| {});
    let report = run_frames(graph, 10);
    assert_eq!(kind(&report), Some(FailureKind::Data));
    let said = report.error.as_ref().unwrap().to_string();
    assert!(said.contains("a buffer that negotiation did not know, and buffer 0: plane 0"), "{said}");
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

/// Puts out 1280x720, whose rows are 5120 bytes, or a multiple of `rows`; in so many buffers that came `late`.
fn comes_back(rows: Option<u32>, late: Option<usize>) {
    let Some(device) = output() else { return };
    let before = Footprint::now();
    Device::first().unwrap().select_input("HDMI 000-0").unwrap();
    set_control("hdmi_000_0_is_connected_to", "2");
    set_control("osd_text_mode", "None");
    let sent: Arc<Mutex<HashSet<u64>>> = Arc::default();
    let ours = Arc::clone(&sent);
    let beside = rows.map(|rows| Aligned { rows });
    let graph = to_output_beside(pattern(), hdmi(&device), beside, late.map(|n| Late::new(n, 0)), move |frame| {
        assert_eq!(frame.buffer.layout().planes()[0].stride, rows.map_or(5120, |_| 8192));
        ours.lock().unwrap().insert(picture(frame));
    });
    let putting_out = std::thread::spawn(move || {
        run(graph, &RunOptions { duration: Some(Duration::from_secs(20)), ..RunOptions::default() }, |_| {
            Verdict::Continue
        })
    });
    while sent.lock().unwrap().len() < 3 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let captured: Arc<Mutex<Vec<u64>>> = Arc::default();
    let seen = Arc::clone(&captured);
    let camera = V4l2Src { format: Some(Format::Xr24), size: Some(Size::new(1280, 720)), ..V4l2Src::default() };
    let mut graph = Graph::new("input");
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let watch = graph.add("watch", Watch::new(move |f| seen.lock().unwrap().push(picture(f)))).unwrap();
    let drop_all = graph.add("drop", NullSink {}.build().unwrap()).unwrap();
    graph.link(camera, watch).unwrap();
    graph.link(watch, drop_all).unwrap();

    let input = run_frames(graph, 40);
    let output = putting_out.join().unwrap();

    assert!(input.error.is_none(), "{}", input.error.unwrap());
    assert!(output.error.is_none(), "{}", output.error.unwrap());
    let (sent, captured) = (sent.lock().unwrap(), captured.lock().unwrap());
    let same = captured.iter().filter(|p| sent.contains(p)).count();
    let different: HashSet<&u64> = captured.iter().collect();
    assert_eq!(same, 40, "of 40 captured frames, {} sent", sent.len());
    assert!(different.len() >= 10, "only {} pictures of 40 differ", different.len());
    assert_eq!(output.graph.ledger().copied(), 0);
    assert_eq!(own(&output.graph, "out", "late"), late.unwrap_or(0) as u64);
    println!("{} frames out, {} pictures captured", counts(&output.graph, "out").frames, different.len());
    drop((input, output));
    set_control("hdmi_000_0_is_connected_to", "0");
    Device::first().unwrap().select_input("0").unwrap();
    assert_eq!(Footprint::now(), before);
}

/// A line of such elements, until it is told to stop.
fn line(elements: Vec<(&str, Box<dyn Element>)>, stop: &Arc<AtomicBool>) -> JoinHandle<Report> {
    let mut graph = Graph::new("line");
    let nodes: Vec<_> = elements.into_iter().map(|(name, element)| graph.add(name, element).unwrap()).collect();
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());
    let (stop, options) = (Arc::clone(stop), RunOptions { tick: Duration::from_millis(50), ..RunOptions::default() });
    let verdict = move |_: Progress<'_>| if stop.load(Ordering::Relaxed) { Verdict::Stop } else { Verdict::Continue };
    std::thread::spawn(move || run(graph, &options, verdict))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn yuv_of_the_output_comes_back_in_the_colours_that_it_was_sent_in() {
    let Some(device) = output() else { return };
    let before = Footprint::now();
    Device::first().unwrap().select_input("HDMI 000-0").unwrap();
    set_control("hdmi_000_0_is_connected_to", "2");
    set_control("osd_text_mode", "None");
    let [bt601, bt709, bt2020] =
        [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020].map(|matrix| Colorimetry { matrix, range: Range::Limited });
    let (sends, full) = (Arc::new(Mutex::new(bt601)), Arc::new(AtomicU64::new(0)));
    let (says, count) = (Arc::clone(&sends), Arc::clone(&full));
    let recolor = Recolor::new(move |_| {
        let color = *says.lock().unwrap();
        count.fetch_add((color.range == Range::Full).into(), Ordering::Relaxed);
        color
    });
    let sent: Arc<Mutex<HashSet<u64>>> = Arc::default();
    let ours = Arc::clone(&sent);
    let source = TestSrc { format: Some(Format::Yuyv), pattern: Pattern::Bars, ..pattern() };
    let (end_of_input, end_of_output) = Default::default();
    let putting_out = vec![
        ("source", source.build().unwrap()),
        ("colors", recolor as Box<dyn Element>),
        ("watch", Watch::new(move |frame| _ = ours.lock().unwrap().insert(picture(frame)))),
        ("out", hdmi(&device).build().unwrap()),
    ];
    let putting_out = line(putting_out, &end_of_output);
    until("nothing is put out", || sent.lock().unwrap().len() >= 3);
    let captured: Arc<Mutex<Vec<(bool, Colorimetry)>>> = Arc::default();
    let (seen, known) = (Arc::clone(&captured), Arc::clone(&sent));
    let camera = V4l2Src { format: Some(Format::Yuyv), size: Some(Size::new(1280, 720)), ..V4l2Src::default() };
    let capturing = vec![
        ("camera", camera.build().unwrap()),
        (
            "watch",
            Watch::new(move |frame| {
                seen.lock().unwrap().push((known.lock().unwrap().contains(&picture(frame)), frame.color));
            }) as Box<dyn Element>,
        ),
        ("drop", NullSink {}.build().unwrap()),
    ];
    let capturing = line(capturing, &end_of_input);

    for color in [bt601, bt709, bt2020] {
        *sends.lock().unwrap() = color;
        until(&format!("{color:?} is not captured"), || captured.lock().unwrap().last().is_some_and(|c| c.1 == color));
    }
    // vivid's transmitter has no other range.
    sends.lock().unwrap().range = Range::Full;
    until("nothing more is put out", || full.load(Ordering::Relaxed) >= 10);
    // vivid draws pictures of its own where nothing is put out.
    end_of_input.store(true, Ordering::Relaxed);
    let input = capturing.join().unwrap();
    end_of_output.store(true, Ordering::Relaxed);
    let output = putting_out.join().unwrap();

    assert!(input.error.is_none(), "{}", input.error.unwrap());
    assert!(output.error.is_none(), "{}", output.error.unwrap());
    let captured = std::mem::take(&mut *captured.lock().unwrap());
    let others = captured.iter().filter(|(same, _)| !same).count();
    assert_eq!(others, 0, "pictures of {} that were not put out", captured.len());
    let miscolored = own(&output.graph, "out", "miscolored");
    assert!((5..=full.load(Ordering::Relaxed)).contains(&miscolored), "{miscolored} of {full:?}");
    assert_eq!(output.graph.ledger().copied(), 0);
    println!("{} pictures captured", captured.len());
    drop((input, output));
    set_control("hdmi_000_0_is_connected_to", "0");
    Device::first().unwrap().select_input("0").unwrap();
    assert_eq!(Footprint::now(), before);
}

/// Has the output send a signal that the input knows by name.
fn send(device: &str, signal: &str) {
    let input = Device::first().unwrap();
    input.select_input("HDMI 000-0").unwrap();
    set_control("dv_timings_signal_mode", "Selected DV Timings");
    set_control("dv_timings", signal);
    let timings = ioctl::query_dv_timings(&input).unwrap().unwrap();
    set_control("dv_timings_signal_mode", "Current DV Timings");
    input.select_input("0").unwrap();
    let output = Device::open_output(device).unwrap();
    output.select_output("HDMI 000-0").unwrap();
    ioctl::s_dv_timings(&output, &timings).unwrap();
}

#[test]
fn ten_thousand_frames_leave_nothing_behind() {
    let Some(device) = output() else { return };
    let frames = growth::frames(10_000);
    // The device sets the pace: the quickest signal that it has.
    send(&device, "800x600p119");
    let before = Footprint::now();
    let growth = Growth::over(frames);
    let watch = growth.clone();
    let size = Size::new(800, 600);
    let source = TestSrc { size, rate: Rate::new(120, 1), free_run: true, pattern: Pattern::Bars, ..pattern() };
    let graph = to_output(source, hdmi(&device), move |_| watch.frame());

    let report = run_frames(graph, frames);

    send(&device, "1280x720p60");
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(counts(&report.graph, "out").frames, frames);
    assert_eq!(report.graph.ledger().copied(), 0);
    println!("{:.1?}", report.duration);
    drop(report);
    growth.assert_none(0);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn an_output_unplugged_in_mid_stream_is_a_typed_error() {
    let Some(device) = output() else { return };
    let before = Footprint::now();
    let mut frames = 0;
    let (sender, gone) = std::sync::mpsc::channel();
    let out = device.clone();
    let graph = to_output(pattern(), hdmi(&device), move |_| {
        frames += 1;
        if frames == 20 {
            let device = Device::open_output(&out).unwrap();
            let button = device.control("disconnect").unwrap();
            device.set_control(&button, &button.parse("1").unwrap()).unwrap();
            sender.send(Instant::now()).unwrap();
        }
    });

    let report = run_frames(graph, 1000);

    let after = gone.try_recv().unwrap().elapsed();
    assert_eq!(kind(&report), Some(FailureKind::Unplugged), "{:?}", report.error);
    assert_eq!(report.error.as_ref().unwrap().element(), Some("out"));
    assert!(after < Duration::from_secs(2), "{after:?}");
    drop(report);
    // It is back by itself.
    let again = run_frames(to_output(pattern(), hdmi(&device), |_| {}), 10);
    assert!(again.error.is_none(), "{}", again.error.unwrap());
    drop(again);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn what_the_output_does_not_take_is_said_before_anything_streams() {
    let Some(device) = output() else { return };
    let refused = |source: TestSrc, sink: V4l2Sink| {
        let report = run_frames(to_output(source, sink, |_| {}), 1);
        report.error.unwrap().to_string()
    };

    let size = refused(TestSrc { size: Size::new(64, 64), ..pattern() }, hdmi(&device));
    assert!(size.contains("64x64") && size.contains("1280x720"), "{size}");

    let socket = refused(pattern(), V4l2Sink { output: Some("HDMI 9".into()), ..hdmi(&device) });
    assert!(socket.contains("there is no output `HDMI 9`") && socket.contains("HDMI 000-0"), "{socket}");

    let camera = Device::first().unwrap().path().display().to_string();
    let node = refused(pattern(), V4l2Sink { output: None, ..hdmi(&camera) });
    assert!(node.contains("puts no video out"), "{node}");
}

#[test]
fn a_node_that_captures_is_refused_with_the_one_that_puts_out() {
    let Some(out) = output() else { return };
    let camera = Device::first().unwrap().path().display().to_string();
    let sink = V4l2Sink { device: Some(camera.clone()), ..V4l2Sink::default() };
    let refused = sink.build().unwrap().input_offer(0).unwrap_err();
    assert_eq!(refused.kind(), FailureKind::Config);
    let said = refused.to_string();
    let told = format!("{camera}: vivid puts no video out here; devices that put video out: {out} (vivid)");
    assert!(said.ends_with(&told), "{said}");
    let found: Vec<_> = Device::find_outputs().into_iter().map(Result::unwrap).collect();
    let [output] = &found[..] else { panic!("{found:?}") };
    assert_eq!(output.path.display().to_string(), out);
    assert!(output.outputs.iter().any(|o| o.name.starts_with("HDMI")) && !output.formats.is_empty(), "{output:?}");
}
