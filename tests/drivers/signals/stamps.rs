//! Numbers and time stamps that wrap around or lie.

use shrbuf_elements::kms::KmsSink;
use shrbuf_pipeline::Graph;
use shrbuf_tests::{camera_to_display, counts, on_test_drivers, run_frames, set_control, small_camera};

fn quiet() -> Graph {
    camera_to_display(small_camera(), KmsSink::default(), |_| {})
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
    // A vertical blank has the time of the display's grid, which may be before one stamped now, where the kernel is late with it.
    assert!(display.misdated < display.frames / 2, "{display:?}");
    assert!(display.latency.unwrap().p50 > 0, "{display:?}");
}
