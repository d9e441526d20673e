//! What a compositor can do to us ends in a typed error, or in the declared recovery.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use shrbuf::exporter::Udmabuf;
use shrbuf::{Format, Layout, Modifier, Shrbuf};
use shrbuf_elements::Memory;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_elements::wayland::WaylandSink;
use shrbuf_pipeline::solve::NegotiationError;
use shrbuf_pipeline::supervise::{Error, Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Failure, FailureKind, Graph, Origin, Rate, Stream};
use shrbuf_tests::{Footprint, counts, on_test_drivers, press, run_frames};

use crate::weston::Weston;
use crate::{SIZE, alone, graph, pictures, window};

/// From a dead compositor to the error.
const SOON: Duration = Duration::from_secs(2);
/// Longer than Weston takes for its first frame where it is emulated.
const STALL: Duration = Duration::from_secs(15);
/// From a compositor that hangs to the error: the watchdog's ticks, and those of a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn failure(report: &Report) -> &Failure {
    match &report.error {
        Some(Error::Element(failure)) => failure,
        Some(Error::Negotiation(NegotiationError::Element { failure, .. })) => failure,
        other => panic!("{other:?}"),
    }
}

/// A graph that sends the compositor `signal` at its twentieth frame, and when it did.
fn with_signal(weston: &Weston, signal: Signal) -> (Graph, std::sync::mpsc::Receiver<Instant>) {
    let (sender, sent) = channel();
    let send = weston.signals();
    let mut frames = 0;
    let window = WaylandSink { stall: Some(STALL), ..window(weston) };
    let graph = graph(pictures().build().unwrap(), window, move |_| {
        frames += 1;
        if frames == 20 {
            send(signal);
            sender.send(Instant::now()).unwrap();
        }
    });
    (graph, sent)
}

#[test]
fn a_compositor_that_dies_is_a_typed_error() {
    let _alone = alone();
    let before = Footprint::now();
    let Some(weston) = Weston::start(SIZE) else { return };
    let (mut graph, killed) = with_signal(&weston, Signal::SIGKILL);
    graph.set_retry(None);

    let report = run_frames(graph, 1000);

    assert!(killed.try_recv().unwrap().elapsed() < SOON);
    assert_eq!((failure(&report).kind(), failure(&report).element()), (FailureKind::Unplugged, Some("window")));
    assert!(failure(&report).to_string().contains("the compositor is gone"), "{}", failure(&report));
    drop(report);
    drop(weston);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_compositor_that_is_killed_and_started_again_gets_a_new_window() {
    let _alone = alone();
    let before = Footprint::now();
    let Some(mut weston) = Weston::start(SIZE) else { return };
    let (mut graph, _killed) = with_signal(&weston, Signal::SIGKILL);
    graph.set_retry(Some(Duration::from_secs(60)));
    let mut restarted = false;

    let options = RunOptions { frames: Some(60), ..RunOptions::default() };
    let report = run(graph, &options, |progress| {
        if let (Progress::Retrying(error, _), false) = (progress, restarted) {
            assert_eq!(error.kind(), Some(FailureKind::Unplugged));
            weston.restart();
            restarted = true;
        }
        Verdict::Continue
    });

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(restarted && report.restarts >= 1);
    assert_eq!(counts(&report.graph, "source").frames, 60);
    assert!(counts(&report.graph, "window").frames >= 59, "{}", counts(&report.graph, "window"));
    drop(report);
    drop(weston);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_compositor_that_hangs_is_a_typed_error() {
    let _alone = alone();
    let before = Footprint::now();
    let Some(weston) = Weston::start(SIZE) else { return };
    let (mut graph, stopped) = with_signal(&weston, Signal::SIGSTOP);
    graph.set_retry(None);

    let report = run_frames(graph, 1000);

    assert!(stopped.try_recv().unwrap().elapsed() < PATIENCE);
    assert_eq!((failure(&report).kind(), failure(&report).element()), (FailureKind::Stalled, Some("window")));
    drop(report);
    drop(weston);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_compositor_that_is_not_there_is_a_typed_error() {
    let _alone = alone();
    let nowhere = WaylandSink { display: Some("/nonexistent/wayland-9".into()), ..WaylandSink::default() };
    let mut graph = graph(pictures().build().unwrap(), nowhere, |_| {});
    graph.set_retry(None);

    let report = run_frames(graph, 10);

    assert_eq!((failure(&report).kind(), failure(&report).element()), (FailureKind::Unplugged, Some("window")));
    assert!(failure(&report).to_string().contains("no compositor at /nonexistent/wayland-9"), "{}", failure(&report));
}

#[test]
fn what_is_no_compositor_is_not_tried_again() {
    let _alone = alone();
    let socket = std::env::temp_dir().join(format!("shrbuf-http-{}", std::process::id()));
    let listening = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = listening.accept().unwrap().0;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        stream
    });
    let display = Some(socket.display().to_string());
    let mut graph = graph(pictures().build().unwrap(), WaylandSink { display, ..WaylandSink::default() }, |_| {});
    graph.set_retry(Some(Duration::from_secs(60)));

    let report = run_frames(graph, 10);

    std::fs::remove_file(&socket).unwrap();
    drop(server.join().unwrap());
    assert_eq!((failure(&report).kind(), failure(&report).element()), (FailureKind::Data, Some("window")));
    assert!(failure(&report).to_string().contains("a message that cannot be read"), "{}", failure(&report));
    assert_eq!(report.restarts, 0);
}

#[test]
fn a_camera_unplugged_in_mid_stream_is_a_typed_error_and_comes_back_in_the_same_way() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let mut weston = Weston::start(SIZE).unwrap();
    for (retry, kind) in [(None, Some(FailureKind::Unplugged)), (Some(Duration::from_secs(60)), None)] {
        let camera = V4l2Src {
            format: Some(Format::Xr24),
            size: Some(SIZE),
            rate: Some(Rate::new(15, 1)),
            stall: Some(STALL),
            ..V4l2Src::default()
        };
        let mut frames = 0;
        let mut graph = graph(camera.build().unwrap(), window(&weston), move |_| {
            frames += 1;
            if frames == 20 {
                press("disconnect");
            }
        });
        graph.set_retry(retry);

        let options = RunOptions { frames: Some(40), ..RunOptions::default() };
        let report = run(graph, &options, |progress| {
            if let Progress::Retrying(..) = progress {
                weston.revive();
            }
            Verdict::Continue
        });

        assert_eq!(report.error.as_ref().and_then(Error::kind), kind, "{:?}", report.error);
        if kind.is_some() {
            assert_eq!(failure(&report).element(), Some("source"));
        } else {
            assert!(report.restarts >= 1);
            assert_eq!(counts(&report.graph, "source").frames, 40);
        }
    }
    drop(weston);
    assert_eq!(Footprint::now(), before);
}

/// What the window says to a buffer.
fn refusal(weston: &Weston, buffer: &Shrbuf, origin: Origin) -> String {
    let mut window = window(weston).build().unwrap();
    window.input_offer(0).unwrap();
    let layout = buffer.layout();
    let stream = Stream {
        format: layout.format,
        modifier: layout.modifier,
        size: SIZE,
        rate: None,
        origin,
        stride_align: 1,
        block: None,
        plane_segments: false,
        read_only: false,
        buffers: 1,
    };
    window.import(0, &stream, std::slice::from_ref(buffer)).unwrap_err().to_string()
}

#[test]
fn a_memfd_of_two_planes_is_refused_with_what_would_do() {
    let _alone = alone();
    let Some(weston) = Weston::start(SIZE) else { return };
    let source = TestSrc { memory: Memory::Memfd, format: Some(Format::Nv12), ..pictures() };
    let mut graph = graph(source.build().unwrap(), window(&weston), |_| {});
    graph.set_retry(None);

    let report = run_frames(graph, 10);

    let error = format!("{:?}", report.error.expect("no compositor can be told of it"));
    assert!(error.contains("takes no memfd of NV12"), "{error}");
    assert!(error.contains("a dma-buf, or a format of one plane, would do"), "{error}");
}

#[test]
fn a_modifier_that_is_not_listed_is_refused_with_those_that_are() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let weston = Weston::start(SIZE).unwrap();
    let linear = Layout::linear(Format::Xr24, SIZE.width, SIZE.height, 64).unwrap();
    let segments = Udmabuf::open("test").unwrap().allocate(&linear).unwrap().segments().to_vec();
    // I915_FORMAT_MOD_X_TILED, which no software rasterizer knows.
    let mut tiled = linear;
    tiled.modifier = Some(Modifier(0x0100_0000_0000_0001));
    let buffer = Shrbuf::new(segments, tiled).unwrap();

    let said = refusal(&weston, &buffer, Origin::Udmabuf);

    assert!(said.contains("does not list XR24 with modifier 0x0100000000000001"), "{said}");
    assert!(said.contains("it lists XR24 with LINEAR"), "{said}");
}
