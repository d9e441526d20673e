//! What happens on a camera's inputs: signals that change, go and come, and numbers and time stamps that wrap; and what
//! is shown meanwhile.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::v4l2::{Device, V4l2Src};
use shrbuf_pipeline::supervise::{Progress, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, FailureKind, Graph, Size};
use shrbuf_tests::{
    Footprint, camera_to_display, counts, on_test_drivers, press, run_frames, set_control, small_camera,
};

use crate::{failure, streams_again};

/// From what happens to the error.
const SOON: Duration = Duration::from_secs(2);

fn quiet() -> Graph {
    camera_to_display(small_camera(), KmsSink::default(), |_| {})
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
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn an_input_without_a_signal_says_so_before_anything_starts() {
    if !on_test_drivers() {
        return;
    }
    let _hdmi = Hdmi::select();
    for (mode, said) in [("No Signal", "no signal"), ("No Lock", "cannot lock"), ("Out of Range", "beyond what")] {
        set_control("dv_timings_signal_mode", mode);

        let begin = Instant::now();
        let report = run_frames(camera_to_display(Hdmi::camera(), KmsSink::default(), |_| {}), 30);

        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
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
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_changed_signal_that_the_driver_then_refuses_to_stream_is_a_typed_error() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::select();
    set_control("dv_timings_signal_mode", "Selected DV Timings");
    set_control("dv_timings", "640x480p59");
    let (sender, changed) = std::sync::mpsc::channel();
    let mut frames = 0;
    let graph = camera_to_display(Hdmi::camera(), KmsSink::default(), move |_| {
        frames += 1;
        if frames == 20 {
            press("inject_vidioc_streamon_error");
            set_control("dv_timings", "720x480p59");
            sender.send(Instant::now()).unwrap();
        }
    });

    let report = run_frames(graph, 300);

    let after = changed.try_recv().unwrap().elapsed();
    assert_eq!((failure(&report).kind(), report.restarts), (FailureKind::Device, 1), "{:?}", report.error);
    assert!(failure(&report).to_string().contains("VIDIOC_STREAMON"), "{:?}", report.error);
    assert!(after < SOON, "{after:?}");
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
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

/// vivid's, unless it is told otherwise, are those of the end of a frame that it hands out as it begins.
#[test]
fn a_time_stamp_of_the_future_is_replaced_so_that_latencies_are_real() {
    if !on_test_drivers() {
        return;
    }
    let report = run_frames(quiet(), 60);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let camera = report.graph.counts().into_iter().find(|c| c.name == "camera").unwrap();
    let (_, replaced) = camera.own.iter().find(|(name, _)| *name == "future_stamps").unwrap();
    assert!(*replaced > 0, "{camera:?}");
    let display = counts(&report.graph, "display");
    assert_eq!(display.misdated, 0, "{display:?}");
    assert!(display.latency.unwrap().p50 > 0, "{display:?}");
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
    assert_eq!(Footprint::settled(&before), before);
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
