//! `gpu` between real drivers, with Mesa's renderer for the CPU in place of a GPU.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use shrbuf::{Format, Ledger, Reason, Shrbuf};
use shrbuf_elements::gpu::{Gpu, Memory, Rotate};
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::tee::Tee;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::solve::NegotiateOptions;
use shrbuf_pipeline::supervise::{Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Element, FailureKind, Frame, Graph, Origin, Rate, Size};
use shrbuf_tests::native::reference::{planes, sample, to_rgb};
use shrbuf_tests::{Footprint, Growth, Watch, counts, growth, on_test_drivers, press, run_frames};

fn gpu() -> Gpu {
    Gpu { device: Some("software".into()), ..Gpu::default() }
}

/// These in a line, with copies denied.
fn line(elements: Vec<(&str, Box<dyn Element>)>) -> Graph {
    let mut graph = Graph::new("test");
    let nodes: Vec<_> = elements.into_iter().map(|(name, e)| graph.add(name, e).unwrap()).collect();
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());
    graph
}

fn own(report: &Report, counter: &str) -> u64 {
    let gpu = report.graph.counts().into_iter().find(|c| c.name == "gpu").unwrap();
    gpu.own.into_iter().find(|(name, _)| *name == counter).unwrap().1
}

/// Loads the libraries, which stay, and with them what they keep for good.
pub fn warm_up() {
    let source = TestSrc { size: Size::new(64, 36), free_run: true, ..TestSrc::default() };
    let graph = line(vec![
        ("source", source.build().unwrap()),
        ("gpu", gpu().build().unwrap()),
        ("sink", NullSink {}.build().unwrap()),
    ]);
    let report = run_frames(graph, 3);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
}

#[test]
fn yuyv_of_a_camera_is_turned_and_shown_on_an_rgb_display_without_a_copy() {
    if !on_test_drivers() {
        return;
    }
    warm_up();
    let before = Footprint::now();
    let camera = V4l2Src { format: Some(Format::Yuyv), size: Some(Size::new(320, 180)), ..V4l2Src::default() };
    let half = Gpu { rotate: Rotate::Half, ..gpu() };
    let graph = line(vec![
        ("camera", camera.build().unwrap()),
        ("gpu", half.build().unwrap()),
        ("display", KmsSink::default().build().unwrap()),
    ]);

    let report = run_frames(graph, 30);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    let granted: u32 = report.plan.budgets.iter().map(|b| b.granted).sum();
    assert_eq!(own(&report, "imports"), u64::from(granted), "each buffer is imported once");
    assert_eq!(counts(&report.graph, "gpu").frames, 30);
    drop(report);
    assert_eq!(Footprint::now(), before);
}

/// Rows of blue, green, red.
pub type Pixels<T> = Vec<Vec<[T; 3]>>;

/// The conversion in floating point, of a camera's picture and upside down.
fn turned_and_converted(frame: &Frame) -> Pixels<f64> {
    let (layout, planes) = (frame.buffer.layout(), planes(&frame.buffer));
    let pixel = |x, y| to_rgb(sample(layout.format, &planes, x, y), frame.color);
    let row = |y| (0..layout.width as usize).rev().map(|x| pixel(x, y)).map(|[r, g, b]| [b, g, r]).collect();
    (0..layout.height as usize).rev().map(row).collect()
}

#[test]
fn every_pixel_of_a_yuyv_camera_is_right_on_the_rgb_display() {
    if !on_test_drivers() {
        return;
    }
    const FRAMES: u64 = 20;
    const MODE: Size = Size::new(640, 480);
    const AT: (usize, usize) = (160, 150);
    let seen: Arc<Mutex<BTreeMap<u64, Pixels<f64>>>> = Arc::default();
    let compared: Arc<Mutex<(f64, u64)>> = Arc::default();
    let (keep, known, noted) = (Arc::clone(&seen), Arc::clone(&seen), Arc::clone(&compared));
    let watch = Watch::new(move |f| drop(keep.lock().unwrap().insert(f.sequence, turned_and_converted(f))));
    let rate = Some(Rate::new(10, 1));
    let camera = V4l2Src { format: Some(Format::Yuyv), size: Some(Size::new(320, 180)), rate, ..V4l2Src::default() };
    let half = Gpu { rotate: Rotate::Half, ..gpu() };
    let display = KmsSink { mode: Some(MODE), ..KmsSink::default() };
    let display = display.build_capturing(Box::new(move |frames, screen| {
        let known = known.lock().unwrap();
        let camera = &known[&frames[0].sequence];
        let screen = rows(screen);
        let part = screen[AT.1..].iter().zip(camera).flat_map(|(row, camera)| row[AT.0..].iter().zip(camera));
        let values = part.flat_map(|(pixel, camera)| pixel.iter().zip(camera));
        let most = values.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        let mut noted = noted.lock().unwrap();
        *noted = (noted.0.max(most), noted.1 + 1);
    }));
    let graph = line(vec![
        ("camera", camera.build().unwrap()),
        ("watch", watch),
        ("gpu", half.build().unwrap()),
        ("display", display),
    ]);

    let report = run_frames(graph, FRAMES);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let (most, compared) = *compared.lock().unwrap();
    assert!(most <= 1.0, "{most}, of {compared} pictures");
    assert!(compared >= FRAMES / 3, "{compared} pictures");
}

#[test]
fn a_camera_unplugged_in_mid_stream_is_named() {
    if !on_test_drivers() {
        return;
    }
    warm_up();
    let before = Footprint::now();
    let mut seen = 0;
    let watch = Watch::new(move |_| {
        seen += 1;
        if seen == 30 {
            press("disconnect");
        }
    });
    let camera = V4l2Src { format: Some(Format::Yuyv), size: Some(Size::new(320, 180)), ..V4l2Src::default() };
    let graph = line(vec![
        ("camera", camera.build().unwrap()),
        ("watch", watch),
        ("gpu", gpu().build().unwrap()),
        ("display", KmsSink::default().build().unwrap()),
    ]);

    let report = run_frames(graph, 1000);

    let error = report.error.as_ref().unwrap();
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Unplugged), Some("camera")));
    assert!(counts(&report.graph, "gpu").frames >= 30);
    drop(report);
    assert_eq!(Footprint::now(), before);
}

/// The renderer for the CPU is taken for a GPU where LIBGL_ALWAYS_SOFTWARE asks for it.
#[test]
fn negotiation_puts_it_between_a_yuyv_camera_and_an_rgb_display() {
    if !on_test_drivers() {
        return;
    }
    assert!(std::env::var_os("LIBGL_ALWAYS_SOFTWARE").is_some(), "scripts/test-guest sets LIBGL_ALWAYS_SOFTWARE");
    let camera = V4l2Src { format: Some(Format::Yuyv), size: Some(Size::new(320, 180)), ..V4l2Src::default() };
    let graph = line(vec![("camera", camera.build().unwrap()), ("display", KmsSink::default().build().unwrap())]);
    let negotiate = NegotiateOptions { converters: shrbuf_elements::CONVERTERS };
    let options = RunOptions { frames: Some(30), negotiate, ..RunOptions::default() };

    let report = run(graph, &options, |_| Verdict::Continue);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let [to, from] = report.plan.links.as_slice() else { panic!("{:?}", report.plan.links) };
    assert_eq!((to.to.as_str(), from.to.as_str()), ("camera→display gpu", "display"));
    assert!(to.zero_copy && from.zero_copy);
    assert!(from.reason.contains("by `gpu`, which is needed: no format in common"), "{}", from.reason);
    assert_eq!(report.graph.ledger().copied(), 0);
    // All but those that found every buffer in use: the first picture takes long where shaders are compiled for it.
    let [made, display] = ["camera→display gpu", "display"].map(|name| counts(&report.graph, name));
    assert_eq!(display.frames + made.dropped, 30, "{made:?} {display:?}");
    assert!(display.frames > 1, "{display:?}");
}

/// What `shrbuf explain` says where a GPU is looked for in vain: vkms and vgem are none.
fn said_without_a_gpu(log_level: Option<&str>) -> String {
    let place = std::env::temp_dir().join(format!("gpu-{}", std::process::id()));
    let line = "[element.a]\ntype = \"test-src\"\nformat = \"GREY\"\n\
                [element.b]\ntype = \"kms-sink\"\n[[link]]\npath = [\"a\", \"b\"]\n";
    std::fs::write(&place, line).unwrap();
    let tests = std::env::current_exe().unwrap();
    let mut command = Command::new(tests.parent().unwrap().with_file_name("shrbuf"));
    command.arg("explain").arg(&place).env_remove("LIBGL_ALWAYS_SOFTWARE");
    if let Some(level) = log_level {
        command.env("EGL_LOG_LEVEL", level);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no format in common"), "{said}");
    said
}

#[test]
fn mesa_says_nothing_of_gpus_that_are_none_unless_it_is_asked_to() {
    if !on_test_drivers() {
        return;
    }
    let asked = said_without_a_gpu(Some("warning"));
    assert!(asked.contains("libEGL warning"), "{asked}");
    let said = said_without_a_gpu(None);
    assert!(!said.contains("libEGL"), "{said}");
}

#[test]
fn two_cameras_are_composed_on_one_display_without_a_copy() {
    if !on_test_drivers() {
        return;
    }
    warm_up();
    let before = Footprint::now();
    let place = [200, 100, 100, 60].into_iter().map(Value::Integer).collect();
    let in1 = Value::Table([("place".to_owned(), Value::Array(place))].into_iter().collect());
    let layout = BTreeMap::from([("in1".to_owned(), in1)]);
    let mix = Gpu { inputs: 2, size: Some(Size::new(320, 180)), layout, ..gpu() };
    let mut graph = Graph::new("test");
    let mix = graph.add("gpu", mix.build().unwrap()).unwrap();
    for (name, device, format) in [("one", "/dev/video0", Format::Yuyv), ("two", "/dev/video1", Format::Nv12)] {
        let size = Some(Size::new(320, 180));
        let camera = V4l2Src { device: Some(device.into()), format: Some(format), size, ..V4l2Src::default() };
        let camera = graph.add(name, camera.build().unwrap()).unwrap();
        graph.link(camera, mix).unwrap();
    }
    let display = graph.add("display", KmsSink::default().build().unwrap()).unwrap();
    graph.link(mix, display).unwrap();

    let report = run_frames(graph, 30);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    // A picture for each frame of the first camera, but for those that found every buffer in use.
    let (made, display) = (counts(&report.graph, "gpu"), counts(&report.graph, "display"));
    assert_eq!((made.frames, display.frames + made.dropped), (60, 30));
    drop(report);
    assert_eq!(Footprint::now(), before);
}

/// Rows of a linear picture of four bytes a pixel, without the unused one.
pub fn rows(buffer: &Shrbuf) -> Pixels<u8> {
    let account = Ledger::default().account("test", Reason::Inspect);
    let guard = buffer.read().unwrap();
    let plane = guard.plane(0);
    let mut row = vec![0; plane.row_bytes()];
    let read = |y| {
        plane.read(y, 0, &mut row, &account);
        row.chunks_exact(4).map(|p| [p[0], p[1], p[2]]).collect()
    };
    (0..plane.rows()).map(read).collect()
}

/// All planes, row by row.
fn bytes(buffer: &Shrbuf) -> Vec<u8> {
    let account = Ledger::default().account("test", Reason::Inspect);
    let guard = buffer.read().unwrap();
    let mut all = Vec::new();
    for plane in (0..buffer.layout().planes().len()).map(|p| guard.plane(p)) {
        let mut row = vec![0; plane.row_bytes()];
        for y in 0..plane.rows() {
            plane.read(y, 0, &mut row, &account);
            all.extend(&row);
        }
    }
    all
}

/// What is rendered into memory of the display's own driver, as a user has it who may open no other allocator.
#[test]
fn pictures_made_in_gbm_memory_are_on_the_screen_pixel_for_pixel() {
    if !on_test_drivers() {
        return;
    }
    const FRAMES: u64 = 20;
    const MODE: Size = Size::new(640, 480);
    warm_up();
    let before = Footprint::now();
    let drawn: Arc<Mutex<BTreeMap<u64, Pixels<u8>>>> = Arc::default();
    let compared: Arc<Mutex<(u64, u64)>> = Arc::default();
    let (keep, known, noted) = (Arc::clone(&drawn), Arc::clone(&drawn), Arc::clone(&compared));
    let watch = Watch::new(move |frame| drop(keep.lock().unwrap().insert(frame.sequence, rows(&frame.buffer))));
    let source = TestSrc { size: MODE, format: Some(Format::Xr24), rate: Rate::new(10, 1), ..TestSrc::default() };
    let half = Gpu { rotate: Rotate::Half, memory: Memory::Gbm, format: Some(Format::Xr24), ..gpu() };
    let display = KmsSink { mode: Some(MODE), ..KmsSink::default() };
    let display = display.build_capturing(Box::new(move |frames, screen| {
        let known = known.lock().unwrap();
        let mut turned = known[&frames[0].sequence].clone();
        turned.reverse();
        turned.iter_mut().for_each(|row| row.reverse());
        let mut noted = noted.lock().unwrap();
        noted.0 += u64::from(rows(screen) != turned);
        noted.1 += 1;
    }));
    let graph = line(vec![
        ("source", source.build().unwrap()),
        ("watch", watch),
        ("gpu", half.build().unwrap()),
        ("display", display),
    ]);

    let report = run_frames(graph, FRAMES);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(report.plan.links.last().unwrap().stream.origin, Origin::Gbm);
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    let (wrong, compared) = *compared.lock().unwrap();
    assert_eq!(wrong, 0, "of {compared} pictures");
    assert!(compared >= FRAMES / 2, "{compared} pictures");
    drop(report);
    assert_eq!(Footprint::now(), before);
}

/// Every format lies in GBM's memory as it does in any: planes one after another.
#[test]
fn formats_of_several_planes_are_made_in_gbm_memory_too() {
    if !on_test_drivers() {
        return;
    }
    for format in [Format::Nv12, Format::Yu12, Format::Rg24, Format::Yuyv] {
        let size = Size::new(130, 70);
        let source = TestSrc { size, format: Some(Format::Xr24), free_run: true, ..TestSrc::default() };
        let mut graph = Graph::new("test");
        let source = graph.add("source", source.build().unwrap()).unwrap();
        let tee = graph.add("tee", Tee {}.build().unwrap()).unwrap();
        graph.link(source, tee).unwrap();
        let pictures: [Arc<Mutex<Vec<u8>>>; 2] = Default::default();
        for (name, memory, keep) in [("gbm", Memory::Gbm, &pictures[0]), ("udmabuf", Memory::Udmabuf, &pictures[1])] {
            let keep = Arc::clone(keep);
            let watch = Watch::new(move |frame| keep.lock().unwrap().extend(bytes(&frame.buffer)));
            let gpu = Gpu { format: Some(format), memory, ..gpu() };
            let gpu = graph.add(name, gpu.build().unwrap()).unwrap();
            let watch = graph.add(&format!("watch-{name}"), watch).unwrap();
            let sink = graph.add(&format!("sink-{name}"), NullSink {}.build().unwrap()).unwrap();
            [(tee, gpu), (gpu, watch), (watch, sink)].into_iter().for_each(|(from, to)| graph.link(from, to).unwrap());
        }

        let report = run_frames(graph, 1);

        assert!(report.error.is_none(), "{format}: {}", report.error.unwrap());
        let [gbm, udmabuf] = pictures.map(|p| std::mem::take(&mut *p.lock().unwrap()));
        assert_eq!(gbm.len() as u64, format.frame_bytes(size.width, size.height));
        assert!(gbm == udmabuf, "{format}");
    }
}

#[test]
fn ten_thousand_frames_leave_nothing_and_grow_nothing() {
    if !on_test_drivers() {
        return;
    }
    let frames = growth::frames(10_000);
    warm_up();
    let before = Footprint::now();
    let growth = Growth::over(frames);
    let source = TestSrc { format: Some(Format::Yuyv), size: Size::new(64, 36), free_run: true, ..TestSrc::default() };
    let graph = line(vec![
        ("source", source.build().unwrap()),
        ("gpu", Gpu { format: Some(Format::Xr24), ..gpu() }.build().unwrap()),
        ("watch", growth.watch()),
        ("sink", NullSink {}.build().unwrap()),
    ]);

    let report = run_frames(graph, frames);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(counts(&report.graph, "sink").frames, frames);
    assert_eq!(report.graph.ledger().copied(), 0);
    let granted: u32 = report.plan.budgets.iter().map(|b| b.granted).sum();
    assert_eq!(own(&report, "imports"), u64::from(granted), "each buffer is imported once");
    // The renderer has native fences: nobody waited for it here.
    assert_eq!(own(&report, "waits"), 0);
    drop(report);
    // Mesa's caches are full at half of them.
    growth.assert_none_but_caches(0);
    assert_eq!(Footprint::now(), before);
}
