//! Several cameras on planes of one display, one on two displays, and what is read back of them. Needs vkms with overlay
//! planes, and for some two of its cards and four cameras; `scripts/test-guest planes` has them.

mod displays;
mod wall;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shrbuf::{Format, Ledger, Reason};
use shrbuf_elements::kms::{Card, KmsCapture, KmsSink, Planes, Rect, Spot};
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::test_src::{TestSrc, read_marker};
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_pipeline::solve::{NegotiateOptions, negotiate};
use shrbuf_pipeline::supervise::{Error, Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Element, FailureKind, Frame, Graph, Rate, Size};
use shrbuf_tests::{Footprint, Growth, Watch, counts, growth, on_test_drivers, press, run_frames};

use crate::gpu::{Pixels, rows};

const CAMERA: Size = Size::new(320, 180);
const MODE: Size = Size::new(640, 480);

fn spot(name: &str, x: i32, y: i32) -> Spot {
    Spot::new(name, Rect { x, y, width: CAMERA.width, height: CAMERA.height })
}

fn display(spots: &[Spot]) -> KmsSink {
    KmsSink { mode: Some(MODE), planes: Planes::new(spots.to_vec()), ..KmsSink::default() }
}

fn camera(number: usize, rate: u32) -> V4l2Src {
    V4l2Src {
        device: Some(format!("/dev/video{number}")),
        format: Some(Format::Xr24),
        size: Some(CAMERA),
        rate: Some(Rate::new(rate, 1)),
        ..V4l2Src::default()
    }
}

/// Each source at the input of its name.
fn graph(sources: Vec<(&str, Box<dyn Element>)>, display: Box<dyn Element>) -> Graph {
    let mut graph = Graph::new("planes");
    graph.add("display", display).unwrap();
    for (name, source) in sources {
        graph.add(name, source).unwrap();
        let (from, to) = (graph.output(name).unwrap(), graph.input(&format!("display.{name}")).unwrap());
        graph.link_ports(from, to, None).unwrap();
    }
    graph
}

fn two_cameras(rate: u32, display: Box<dyn Element>) -> Graph {
    let cameras = ["first", "second"].into_iter().enumerate();
    graph(cameras.map(|(i, name)| (name, camera(i, rate).build().unwrap() as Box<dyn Element>)).collect(), display)
}

/// Rows of pixels.
/// What the screen has to look like: each frame at its place, over those before it, over black.
fn composed(spots: &[Spot], frames: &[&Frame]) -> Pixels<u8> {
    let mut screen = vec![vec![[0; 3]; MODE.width as usize]; MODE.height as usize];
    for (Spot { at, .. }, frame) in spots.iter().zip(frames) {
        for (y, row) in (at.y..).zip(rows(&frame.buffer)) {
            let Some(to) = usize::try_from(y).ok().and_then(|y| screen.get_mut(y)) else { continue };
            for (x, pixel) in (at.x..).zip(row) {
                if let Some(to) = usize::try_from(x).ok().and_then(|x| to.get_mut(x)) {
                    *to = pixel;
                }
            }
        }
    }
    screen
}

/// Two cameras at `spots`, given from the back to the front, every pixel of the screen compared for some refreshes.
fn every_pixel(spots: [Spot; 2]) {
    if !on_test_drivers() {
        return;
    }
    const FRAMES: u64 = 30;
    let before = Footprint::now();
    let wrong: Arc<Mutex<(u64, u64)>> = Arc::default();
    let noted = Arc::clone(&wrong);
    let shown = spots.to_vec();
    let display = display(&spots).build_capturing(Box::new(move |frames, screen| {
        let mut noted = noted.lock().unwrap();
        noted.0 += u64::from(frames.len() != 2 || rows(screen) != composed(&shown, frames));
        noted.1 += 1;
    }));

    let report = run_frames(two_cameras(10, display), FRAMES);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let (wrong, compared) = *wrong.lock().unwrap();
    assert_eq!(wrong, 0, "of {compared} pictures");
    assert!((FRAMES / 2..=2 * FRAMES).contains(&compared), "{compared} pictures");
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn side_by_side() {
    every_pixel([spot("first", 0, 0), spot("second", 320, 200)]);
}

#[test]
fn the_later_name_is_in_front() {
    every_pixel([spot("first", 100, 100), spot("second", 150, 150)]);
}

#[test]
fn a_higher_z_is_in_front() {
    every_pixel([spot("second", 150, 150), Spot { z: 1, ..spot("first", 100, 100) }]);
}

#[test]
fn partly_off_screen() {
    every_pixel([spot("first", -100, -50), spot("second", 500, 400)]);
}

fn failure(report: &Report) -> (FailureKind, &str) {
    match &report.error {
        Some(Error::Element(failure)) => (failure.kind(), failure.element().unwrap_or_default()),
        other => panic!("{other:?}"),
    }
}

/// Two cameras, of which the first is unplugged at its thirtieth frame.
fn unplugging(placeholder: Option<TestSrc>) -> (Report, Duration) {
    let (sender, unplugged) = std::sync::mpsc::channel();
    let mut graph = Graph::new("planes");
    let display = display(&[spot("first", 0, 0), spot("second", 320, 0)]).build().unwrap();
    let mut seen = 0;
    let watch = Watch::new(move |_| {
        seen += 1;
        if seen == 30 {
            press("disconnect");
            sender.send(Instant::now()).unwrap();
        }
    });
    let display = graph.add("display", display).unwrap();
    let first = graph.add("first", camera(0, 30).build().unwrap()).unwrap();
    let second = graph.add("second", camera(1, 30).build().unwrap()).unwrap();
    let watch = graph.add("watch", watch).unwrap();
    graph.link(first, watch).unwrap();
    graph.link(watch, display).unwrap();
    graph.link(second, display).unwrap();
    if let Some(placeholder) = placeholder {
        graph.set_placeholder(first, placeholder.build().unwrap()).unwrap();
    }
    let report = run_frames(graph, 90);
    let after = unplugged.try_recv().unwrap().elapsed();
    (report, after)
}

#[test]
fn a_camera_unplugged_in_mid_stream_is_named() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, after) = unplugging(None);

    assert_eq!(failure(&report), (FailureKind::Unplugged, "first"));
    assert!(after < Duration::from_secs(2), "{after:?}");
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn the_other_camera_goes_on_beside_a_placeholder() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, _) = unplugging(Some(TestSrc { size: CAMERA, ..TestSrc::default() }));

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(counts(&report.graph, "second").frames, 90);
    assert_eq!(counts(&report.graph, "first").frames, 90);
    assert!(report.restarts >= 1);
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

/// What negotiation says of test pictures at `spots`.
fn refusal(spots: &[Spot]) -> String {
    let before = Footprint::now();
    let source = || TestSrc { size: CAMERA, format: Some(Format::Xr24), ..TestSrc::default() }.build().unwrap();
    let sources = spots.iter().map(|spot| (spot.name.as_str(), source() as Box<dyn Element>)).collect();
    let mut graph = graph(sources, display(spots).build().unwrap());
    let text = negotiate(&mut graph, &NegotiateOptions::default()).unwrap_err().to_string();
    drop(graph);
    assert_eq!(Footprint::settled(&before), before);
    println!("{text}");
    text
}

#[test]
fn more_inputs_than_planes_says_how_many_there_are() {
    if !on_test_drivers() {
        return;
    }
    let card = Card::find().into_iter().flatten().find(|c| c.driver == "vkms").unwrap();
    let planes = card.planes.iter().filter(|p| format!("{:?}", p.kind) != "Cursor").count();
    let names: Vec<String> = (0..=planes).map(|i| format!("in{i:02}")).collect();
    let text = refusal(&names.iter().map(|name| spot(name, 0, 0)).collect::<Vec<_>>());
    assert!(text.contains(&format!("`{}` finds none left", names[planes])), "{text}");
    assert!(text.contains(&format!("to be shown; at most {planes} inputs")), "{text}");
    // Whether there is a GPU is for negotiation to say, not for the display.
    assert!(!text.contains("gpu"), "{text}");
}

#[test]
fn a_plane_that_would_have_to_scale_says_so() {
    if !on_test_drivers() {
        return;
    }
    let small = Spot::new("small", Rect { x: 320, y: 0, width: 160, height: 90 });
    let text = refusal(&[spot("first", 0, 0), small]);
    assert!(text.contains("`small`, 320x180 scaled to 160x90: "), "{text}");
    assert!(text.contains("it does not scale that way"), "{text}");
    assert!(text.contains("a rectangle of the frames' own size, 320x180, so that nothing is scaled"), "{text}");
}

#[test]
fn a_plane_that_cannot_be_seen_through_says_so() {
    if !on_test_drivers() {
        return;
    }
    let text = refusal(&[spot("first", 0, 0), Spot { opacity: 0.5, ..spot("glass", 0, 0) }]);
    assert!(text.contains("none can be seen through, as `glass` is to be; `opacity` left out"), "{text}");
}

#[test]
fn a_mode_that_the_display_has_not_names_those_it_has() {
    if !on_test_drivers() {
        return;
    }
    let source = TestSrc { size: CAMERA, format: Some(Format::Xr24), ..TestSrc::default() };
    let display = KmsSink { mode: Some(Size::new(123, 45)), ..display(&[spot("first", 0, 0)]) };
    let mut graph = graph(vec![("first", source.build().unwrap())], display.build().unwrap());
    let text = negotiate(&mut graph, &NegotiateOptions::default()).unwrap_err().to_string();
    assert!(text.contains("has no mode of 123x45") && text.contains("640x480"), "{text}");
}

/// A mode that scripts/test-guest has vkms offer: soon composed, also where that is emulated, and soon shown.
const QUICK: Size = Size::new(128, 96);

#[test]
fn ten_thousand_frames_of_each_and_pictures_of_them_leave_nothing() {
    if !on_test_drivers() {
        return;
    }
    let frames = growth::frames(10_000);
    let before = Footprint::now();
    let growth = Growth::over(frames);
    let planes = Planes::new([spot("first", 0, 0), spot("second", 64, 48)]);
    let screen = KmsCapture { mode: Some(QUICK), planes, ..KmsCapture::default() };
    let mut graph = graph(vec![("second", camera(1, 120).build().unwrap())], screen.build().unwrap());
    let display = graph.node("display").unwrap();
    let first = graph.add("first", camera(0, 120).build().unwrap()).unwrap();
    let watch = graph.add("watch", growth.watch()).unwrap();
    let sink = graph.add("sink", NullSink {}.build().unwrap()).unwrap();
    [(first, watch), (watch, display), (display, sink)].into_iter().for_each(|(f, t)| graph.link(f, t).unwrap());
    let names = ["first", "second", "sink"];
    let enough = |graph: &Graph| names.iter().all(|name| counts(graph, name).frames >= frames);

    let report = run(graph, &RunOptions::default(), |progress| match progress {
        Progress::Running(graph, _) if enough(graph) => Verdict::End,
        _ => Verdict::Continue,
    });

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    let of = |name| report.graph.counts().into_iter().find(|c| c.name == name).unwrap();
    let own = |name| of("display").own.iter().find(|(n, _)| *n == name).unwrap().1;
    let sent = of("first").counts.frames + of("second").counts.frames;
    let (shown, pictures) = (sent - of("display").counts.dropped, of("sink").counts.frames);
    // Before the first commit an input keeps but its newest frame; and each commit has a frame of one input or of both.
    assert!((shown / 2..=shown).contains(&own("flips")), "{} flips of {shown} frames", own("flips"));
    // All changes but the first, which set the mode.
    assert_eq!(pictures + own("not-captured") + 1, own("flips"));
    println!("{:.1?}: {} flips of {shown} frames, {pictures} pictures", report.duration, own("flips"));
    // Each buffer of a camera was imported once.
    let cameras = report.plan.budgets.iter().filter(|b| b.producer != "display");
    assert_eq!(own("imports"), cameras.map(|b| u64::from(b.granted)).sum::<u64>());
    drop(report);
    // A picture's fence.
    growth.assert_none(1);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn what_is_on_the_screen_comes_out_of_kms_capture() {
    if !on_test_drivers() {
        return;
    }
    const FRAMES: u64 = 30;
    let before = Footprint::now();
    let drawn: Arc<Mutex<BTreeMap<u32, Pixels<u8>>>> = Arc::default();
    let captured: Arc<Mutex<Vec<(u64, u32, bool)>>> = Arc::default();
    let account = Ledger::default().account("test", Reason::Inspect);
    let watched = {
        let (drawn, account) = (Arc::clone(&drawn), account.clone());
        Watch::new(move |frame| {
            let marker = read_marker(&frame.buffer, &account).unwrap();
            drawn.lock().unwrap().insert(marker.frame, rows(&frame.buffer));
        })
    };
    let looked_at = {
        let (drawn, captured) = (Arc::clone(&drawn), Arc::clone(&captured));
        Watch::new(move |picture| {
            // The test picture is in the corner, so that its marker is the screen's too.
            let marker = read_marker(&picture.buffer, &account).unwrap();
            let drawn = drawn.lock().unwrap();
            let frame = &drawn[&marker.frame];
            let screen = rows(&picture.buffer);
            let part = |y: usize| frame.get(y).map_or(&[][..], Vec::as_slice);
            let right = screen.iter().enumerate().all(|(y, row)| {
                let (inside, outside) = row.split_at(part(y).len());
                inside == part(y) && outside.iter().all(|pixel| *pixel == [0; 3])
            });
            let on_time = picture.timestamp >= marker.timestamp;
            captured.lock().unwrap().push((picture.sequence, marker.frame, right && on_time));
        })
    };
    let source = TestSrc { size: CAMERA, format: Some(Format::Xr24), rate: Rate::new(5, 1), ..TestSrc::default() };
    let screen = KmsCapture { mode: Some(MODE), planes: Planes::new([spot("first", 0, 0)]), ..KmsCapture::default() };
    let mut graph = Graph::new("capture");
    let elements: [(&str, Box<dyn Element>); 5] = [
        ("source", source.build().unwrap()),
        ("watched", watched),
        ("screen", screen.build().unwrap()),
        ("looked-at", looked_at),
        ("sink", NullSink {}.build().unwrap()),
    ];
    let nodes = elements.map(|(name, element)| graph.add(name, element).unwrap());
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());

    let report = run_frames(graph, FRAMES);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.is_zero_copy());
    let captured = std::mem::take(&mut *captured.lock().unwrap());
    let wrong: Vec<_> = captured.iter().filter(|(_, _, right)| !right).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // Sequence and frame go up: no picture of a change comes twice, or after a later one.
    assert!(captured.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1), "{captured:?}");
    let of = |name: &str| report.graph.counts().into_iter().find(|c| c.name == name).unwrap();
    let own = |name: &str| of("screen").own.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!(of("sink").counts.frames, captured.len() as u64);
    // All changes but the first, which set the mode.
    assert_eq!(captured.len() as u64 + own("not-captured") + 1, own("flips"));
    assert!(captured.len() as u64 >= FRAMES / 3, "{} pictures", captured.len());
    println!("{} pictures of {} changes", captured.len(), own("flips"));
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_display_that_another_element_drives_is_in_use() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let card = Card::find().into_iter().flatten().find(|c| c.driver == "vkms").unwrap().path;
    let mut graph = Graph::new("two displays");
    for (source, sink) in [("one", "here"), ("two", "there")] {
        let source = graph.add(source, TestSrc { size: CAMERA, ..TestSrc::default() }.build().unwrap()).unwrap();
        let display = KmsSink { card: Some(card.clone()), ..KmsSink::default() };
        let sink = graph.add(sink, display.build().unwrap()).unwrap();
        graph.link(source, sink).unwrap();
    }

    let report = run_frames(graph, 10);

    let error = report.error.as_ref().unwrap();
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::InUse), Some("there")));
    assert!(error.to_string().contains("Virtual-1 is driven by another element of this process"), "{error}");
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}
