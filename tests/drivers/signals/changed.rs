//! Another signal than the one before.

use std::sync::{Arc, Mutex};

use shrbuf::Format;
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::queue::Queue;
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_pipeline::supervise::{Error, Progress, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Element, FailureKind, Frame, Graph, Matrix, Size};
use shrbuf_tests::{Footprint, Watch, camera_to_display, counts, on_test_drivers, run_frames, set_control};

use super::{Hdmi, Held, comes_back, in_a_row, own};

#[test]
fn another_signal_on_the_input_is_followed_and_what_was_captured_before_arrives() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::with("640x480p59");
    let [sent, shown] = <[Arc<Mutex<Vec<_>>>; 2]>::default();
    let (leaving, arriving) = (Arc::clone(&sent), Arc::clone(&shown));
    let held = Held::default();
    let holds = held.clone();
    let width = |frame: &Frame| (frame.sequence, frame.buffer.layout().width);
    let elements: [(&str, Box<dyn Element>); 5] = [
        ("camera", Hdmi::camera().build().unwrap()),
        (
            "leaving",
            Watch::new(move |frame| {
                let mut sent = leaving.lock().unwrap();
                sent.push(width(frame));
                if sent.len() == 20 {
                    holds.hold(frame);
                    set_control("dv_timings", "720x480p59");
                }
            }),
        ),
        ("queue", Queue { depth: 4, ..Queue::default() }.build().unwrap()),
        ("arriving", Watch::new(move |frame| arriving.lock().unwrap().push(width(frame)))),
        ("display", KmsSink::default().build().unwrap()),
    ];
    let report = run_frames(in_a_row(elements), 60);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let mut widths: Vec<u32> = sent.lock().unwrap().iter().map(|(_, width)| *width).collect();
    widths.dedup();
    assert_eq!(widths, [640, 720]);
    assert_eq!((report.restarts, counts(&report.graph, "display").frames), (1, 60));
    assert_eq!(*sent.lock().unwrap(), *shown.lock().unwrap());
    held.assert_untouched();
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn another_signal_that_does_not_fit_is_said_with_both() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::with("640x480p59");
    let mut frames = 0;
    let camera = V4l2Src { size: Some(Size::new(640, 480)), ..Hdmi::camera() };
    let graph = camera_to_display(camera, KmsSink::default(), move |_| {
        frames += 1;
        if frames == 20 {
            set_control("dv_timings", "720x480p59");
        }
    });

    let report = run_frames(graph, 60);

    let error = report.error.as_ref().unwrap();
    println!("{error}");
    assert!(matches!(error, Error::Unfit { .. }), "{error}");
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Changed), Some("camera")));
    let text = error.to_string();
    assert!(text.contains("the signal is 720x480p at 59.94 Hz from here on, agreed was XR24 640x480"), "{text}");
    assert_eq!(counts(&report.graph, "display").frames, counts(&report.graph, "camera").frames);
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

/// The signal goes, and is back a second after that was seen: no other element notices, and nothing of what a receiver
/// makes of no signal is sent.
#[test]
fn a_signal_that_was_disturbed_goes_on_with_the_colours_that_it_has_now() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::with("640x480p59");
    set_control("colorspace", "SMPTE 170M");
    let seen: Arc<Mutex<Vec<Matrix>>> = Arc::default();
    let frames = Arc::clone(&seen);
    let mut graph = Graph::new("test");
    let camera = V4l2Src { format: Some(Format::Yuyv), ..Hdmi::camera() };
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let watch = Watch::new(move |frame| {
        let mut frames = frames.lock().unwrap();
        frames.push(frame.color.matrix);
        if frames.len() == 20 {
            set_control("colorspace", "Rec. 709");
        }
    });
    let watch = graph.add("watch", watch).unwrap();
    let sink = graph.add("drop", NullSink {}.build().unwrap()).unwrap();
    graph.link(camera, watch).unwrap();
    graph.link(watch, sink).unwrap();

    let report = run_frames(graph, 60);

    set_control("colorspace", "sRGB");
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let mut matrices = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!((report.restarts, matrices.len()), (0, 60));
    assert_eq!(["signal_losses", "signal_returns"].map(|name| own(&report, name)), [0, 1]);
    matrices.dedup();
    assert_eq!(matrices, [Matrix::Bt601, Matrix::Bt709]);
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_signal_that_is_away_while_it_changes_is_waited_for() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::with("640x480p59");
    let shown: Arc<Mutex<Vec<u32>>> = Arc::default();
    let widths = Arc::clone(&shown);
    let graph = camera_to_display(Hdmi::camera(), KmsSink::default(), move |frame| {
        let mut widths = widths.lock().unwrap();
        widths.push(frame.buffer.layout().width);
        if widths.len() == 20 {
            set_control("dv_timings", "720x480p59");
        }
    });
    let mut retries = 0;

    let report = run(graph, &RunOptions { frames: Some(60), ..RunOptions::default() }, |progress| {
        if matches!(progress, Progress::Retrying(..)) {
            retries += 1;
            match retries {
                1 => set_control("dv_timings_signal_mode", "No Signal"),
                2 => comes_back(),
                _ => {}
            }
        }
        Verdict::Continue
    });

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let mut widths = std::mem::take(&mut *shown.lock().unwrap());
    assert_eq!(widths.len(), 60);
    widths.dedup();
    assert_eq!(widths, [640, 720]);
    assert_eq!(report.restarts, 2);
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}
