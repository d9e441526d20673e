//! Every fault that vivid can inject ends in the declared recovery, or in a typed error within two seconds.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::v4l2::{Device, V4l2Src};
use shrbuf_pipeline::supervise::{Error, Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Failure, FailureKind, Graph, Size};
use shrbuf_tests::{
    Footprint, camera_to_display, counts, on_test_drivers, press, run_frames, set_control, small_camera,
};

/// From the fault to the error. The issue with emulation is the emulation: what is measured is wall time.
const SOON: Duration = Duration::from_secs(2);

fn quiet() -> Graph {
    camera_to_display(small_camera(), KmsSink::default(), |_| {})
}

/// A run that calls `fault` at its thirtieth frame, and how long it went on after that.
fn with_fault(fault: fn(), retry: Option<Duration>, frames: u64) -> (Report, Duration) {
    let (sender, faulted) = std::sync::mpsc::channel();
    let mut seen = 0;
    let mut graph = camera_to_display(small_camera(), KmsSink::default(), move |_| {
        seen += 1;
        if seen == 30 {
            fault();
            sender.send(Instant::now()).unwrap();
        }
    });
    graph.set_retry(retry);
    let report = run_frames(graph, frames);
    let after = faulted.try_recv().unwrap().elapsed();
    (report, after)
}

fn failure(report: &Report) -> &Failure {
    match &report.error {
        Some(Error::Element(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

/// Streams again, and leaves as much behind as before.
fn streams_again(graph: Graph, before: &Footprint) {
    let frames = counts(&graph, "display").frames;
    let report = run_frames(graph, frames + 30);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    drop(report);
    assert_eq!(&Footprint::now(), before);
}

#[test]
fn reqbufs_fails_at_the_start() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    press("inject_vidioc_reqbufs_error");
    let mut graph = quiet();
    graph.set_retry(None);

    let report = run_frames(graph, 30);

    // Another candidate is tried and works: the fault is gone with the first attempt, and noted.
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.rejected.iter().any(|r| r.contains("VIDIOC_REQBUFS")), "{:?}", report.plan.rejected);
    streams_again(report.graph, &before);
}

#[test]
fn qbuf_fails_at_the_start() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    press("inject_vidioc_qbuf_error");

    let report = run_frames(quiet(), 30);

    assert_eq!((failure(&report).kind(), failure(&report).element()), (FailureKind::Device, Some("camera")));
    assert!(report.error.as_ref().unwrap().to_string().contains("VIDIOC_QBUF"), "{}", report.error.unwrap());
    streams_again(report.graph, &before);
}

#[test]
fn streamon_fails_at_the_start() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    press("inject_vidioc_streamon_error");

    let report = run_frames(quiet(), 30);

    assert_eq!((failure(&report).kind(), failure(&report).element()), (FailureKind::Device, Some("camera")));
    assert!(report.error.as_ref().unwrap().to_string().contains("VIDIOC_STREAMON"), "{}", report.error.unwrap());
    streams_again(report.graph, &before);
}

#[test]
fn qbuf_that_fails_in_mid_stream_is_tried_again() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, _) = with_fault(|| press("inject_vidioc_qbuf_error"), None, 90);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(counts(&report.graph, "display").frames, 90);
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_damaged_frame_is_counted_and_shown() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, _) = with_fault(|| press("inject_v4l2_buf_flag_error"), None, 90);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(counts(&report.graph, "camera").corrupt, 1);
    assert_eq!(counts(&report.graph, "display").frames, 90);
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn frames_that_the_driver_drops_are_counted() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, _) = with_fault(|| set_control("percentage_of_dropped_buffers", "50"), None, 90);
    set_control("percentage_of_dropped_buffers", "0");

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    // Half of those around the last 60 frames, and what the machine was too slow for.
    let dropped = counts(&report.graph, "camera").dropped;
    assert!(dropped >= 20, "only {dropped}");
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_fatal_error_is_a_device_error() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, after) = with_fault(|| press("inject_fatal_streaming_error"), None, 300);

    assert_eq!((failure(&report).kind(), failure(&report).element()), (FailureKind::Device, Some("camera")));
    assert!(after < SOON, "{after:?}");
    streams_again(report.graph, &before);
}

#[test]
fn a_fatal_error_is_recovered_from_where_that_is_declared() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, _) = with_fault(|| press("inject_fatal_streaming_error"), Some(Duration::from_secs(5)), 90);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(report.restarts, 1);
    assert_eq!(counts(&report.graph, "camera").frames, 90);
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn an_unplugged_camera_is_a_typed_error() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, after) = with_fault(|| press("disconnect"), None, 300);

    assert_eq!((failure(&report).kind(), failure(&report).element()), (FailureKind::Unplugged, Some("camera")));
    assert!(after < SOON, "{after:?}");
    streams_again(report.graph, &before);
}

#[test]
fn an_unplugged_camera_that_comes_back_streams_on() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, _) = with_fault(|| press("disconnect"), Some(Duration::from_secs(10)), 90);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.restarts >= 1);
    assert_eq!(counts(&report.graph, "camera").frames, 90);
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_placeholder_is_on_the_display_while_the_camera_is_unplugged() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let card = Size::new(320, 180);
    let shown: Arc<Mutex<Vec<u32>>> = Arc::default();
    let widths = Arc::clone(&shown);
    let mut graph = camera_to_display(small_camera(), KmsSink::default(), move |frame| {
        let mut widths = widths.lock().unwrap();
        widths.push(frame.buffer.layout().width);
        if widths.len() == 30 {
            press("disconnect");
        }
    });
    let placeholder = TestSrc { size: card, ..TestSrc::default() };
    let camera = graph.node("camera").unwrap();
    graph.set_placeholder(camera, placeholder.build().unwrap()).unwrap();

    let report = run_frames(graph, 90);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let mut widths = std::mem::take(&mut *shown.lock().unwrap());
    assert_eq!(widths.len(), 90);
    widths.dedup();
    assert_eq!(widths, [640, card.width, 640]);
    assert_eq!(report.restarts, 2);
    drop(report);
    assert_eq!(Footprint::now(), before);
}

/// The HDMI input of the first camera, without the scaler that would make one size of every signal; and what was
/// selected before.
struct Hdmi(u32);

impl Hdmi {
    const SCALING: [&str; 3] = ["enable_capture_cropping", "enable_capture_composing", "enable_capture_scaler"];

    fn select() -> Hdmi {
        let device = Device::first().unwrap();
        let before = device.input().unwrap().unwrap();
        device.select_input("HDMI 000-0").unwrap();
        Hdmi::SCALING.iter().for_each(|name| set_control(name, "false"));
        Hdmi(before)
    }

    fn camera() -> V4l2Src {
        V4l2Src { input: Some("HDMI 000-0".into()), ..V4l2Src::default() }
    }
}

impl Drop for Hdmi {
    fn drop(&mut self) {
        set_control("dv_timings_signal_mode", "Current DV Timings");
        Hdmi::SCALING.iter().for_each(|name| set_control(name, "true"));
        Device::first().unwrap().select_input(&self.0.to_string()).unwrap();
    }
}

#[test]
fn another_signal_on_the_input_is_followed() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::select();
    set_control("dv_timings_signal_mode", "Selected DV Timings");
    set_control("dv_timings", "640x480p59");
    let shown: Arc<Mutex<Vec<u32>>> = Arc::default();
    let widths = Arc::clone(&shown);
    let graph = camera_to_display(Hdmi::camera(), KmsSink::default(), move |frame| {
        let mut widths = widths.lock().unwrap();
        widths.push(frame.buffer.layout().width);
        if widths.len() == 20 {
            set_control("dv_timings", "720x480p59");
        }
    });

    let report = run_frames(graph, 60);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let mut widths = std::mem::take(&mut *shown.lock().unwrap());
    widths.dedup();
    assert_eq!(widths, [640, 720]);
    assert_eq!((report.restarts, counts(&report.graph, "display").frames), (1, 60));
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn an_input_without_a_signal_says_so_before_anything_starts() {
    if !on_test_drivers() {
        return;
    }
    let _hdmi = Hdmi::select();
    for (mode, said) in [("No Signal", "no signal"), ("No Lock", "cannot lock"), ("Out of Range", "beyond what")] {
        set_control("dv_timings_signal_mode", mode);

        let report = run_frames(camera_to_display(Hdmi::camera(), KmsSink::default(), |_| {}), 30);

        let error = report.error.unwrap();
        assert_eq!((error.kind(), error.element()), (Some(FailureKind::Stalled), Some("camera")));
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn a_signal_that_is_lost_in_mid_stream_is_a_typed_error() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::select();
    let (sender, lost) = std::sync::mpsc::channel();
    let mut frames = 0;
    let graph = camera_to_display(Hdmi::camera(), KmsSink::default(), move |_| {
        frames += 1;
        if frames == 20 {
            set_control("dv_timings_signal_mode", "No Signal");
            sender.send(Instant::now()).unwrap();
        }
    });

    let report = run_frames(graph, 300);

    let after = lost.try_recv().unwrap().elapsed();
    let error = report.error.as_ref().unwrap();
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Stalled), Some("camera")), "{error}");
    assert!(after < SOON, "{after:?}");
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_sequence_that_wraps_around_is_no_drop() {
    if !on_test_drivers() {
        return;
    }
    // It begins 128 before the wrap.
    set_control("wrap_sequence_number", "true");
    let report = run_frames(quiet(), 200);
    set_control("wrap_sequence_number", "false");

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(counts(&report.graph, "display").frames, 200);
    // What the machine was too slow for, and no four thousand million.
    assert!(counts(&report.graph, "camera").dropped < 100, "{:?}", counts(&report.graph, "camera"));
}

#[test]
fn time_stamps_that_wrap_around_are_shown_too() {
    if !on_test_drivers() {
        return;
    }
    for bits in ["64 Bit", "32 Bit"] {
        set_control("wrap_timestamp", bits);
        let report = run_frames(quiet(), 60);
        set_control("wrap_timestamp", "None");

        assert!(report.error.is_none(), "{}", report.error.unwrap());
        assert_eq!(counts(&report.graph, "display").frames, 60);
    }
}

#[test]
fn a_camera_without_a_signal_is_stalled() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, after) = with_fault(|| set_control("percentage_of_dropped_buffers", "100"), None, 300);
    set_control("percentage_of_dropped_buffers", "0");

    assert_eq!((failure(&report).kind(), failure(&report).element()), (FailureKind::Stalled, Some("camera")));
    // A quarter of the limit may pass before it is looked at.
    assert!(after < Duration::from_millis(2500), "{after:?}");
    streams_again(report.graph, &before);
}

#[test]
fn a_run_that_is_told_to_stop_gives_everything_back() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let report = run(quiet(), &RunOptions::default(), |progress| match progress {
        Progress::Running(graph, _) if counts(graph, "display").frames >= 30 => Verdict::Stop,
        _ => Verdict::Continue,
    });

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    streams_again(report.graph, &before);
}
