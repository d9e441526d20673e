//! Ten thousand frames, every one accounted for, and nothing left behind.

use std::sync::{Arc, Mutex};

use shrbuf_elements::kms::KmsSink;
use shrbuf_pipeline::Timestamp;
use shrbuf_tests::{Footprint, Growth, camera_to_display, counts, on_test_drivers, run_frames, small_camera};

#[derive(Debug, Default)]
struct Seen {
    frames: u64,
    first: Option<u64>,
    last: u64,
    out_of_order: u64,
    /// The first and the last time stamp.
    captured: (Timestamp, Timestamp),
}

#[test]
fn ten_thousand_frames_are_accounted_for_and_leave_nothing() {
    if !on_test_drivers() {
        return;
    }
    const FRAMES: u64 = 10_000;
    let before = Footprint::now();
    let seen = Arc::new(Mutex::new(Seen::default()));
    let noted = Arc::clone(&seen);
    let growth = Growth::over(FRAMES);
    let watch = growth.clone();
    let graph = camera_to_display(small_camera(), KmsSink::default(), move |frame| {
        let mut seen = noted.lock().unwrap();
        seen.frames += 1;
        seen.out_of_order += u64::from(seen.first.is_some() && frame.sequence <= seen.last);
        if seen.first.is_none() {
            seen.captured.0 = frame.timestamp;
        }
        seen.captured.1 = frame.timestamp;
        seen.first.get_or_insert(frame.sequence);
        seen.last = frame.sequence;
        watch.frame();
    });

    let report = run_frames(graph, FRAMES);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let seen = seen.lock().unwrap();
    let (camera, display) = (counts(&report.graph, "camera"), counts(&report.graph, "display"));
    assert_eq!((camera.frames, display.frames, seen.frames), (FRAMES, FRAMES, FRAMES));
    assert_eq!(seen.out_of_order, 0);
    // What the driver dropped shows as gaps in its own numbers, and nowhere else is anything dropped.
    let own = |element| report.graph.counts().into_iter().find(|c| c.name == element).unwrap().own;
    let (told, shown) = (own("camera"), own("display"));
    let driver = |name| told.iter().find(|(n, _)| *n == name).unwrap().1;
    let numbers = driver("last_sequence") - driver("first_sequence") + 1;
    assert_eq!(driver("restarted_sequences"), 0);
    assert_eq!(numbers + driver("repeated_sequences"), FRAMES + camera.dropped);
    assert_eq!(display.dropped, 0);
    // By the driver's clock as many frame periods passed as it says: it hides no drops of its own. It takes a time stamp
    // when it draws, which is late by some periods where the machine is slow.
    let periods = seen.captured.1.since(seen.captured.0) * 60 / 1_000_000_000 + 1;
    assert!(numbers.abs_diff(periods) <= 6, "{numbers} by number, {periods} by time");
    let of = |name| shown.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!(of("flips"), FRAMES);
    // Each buffer was imported once, before the first frame.
    assert_eq!(of("imports"), u64::from(report.plan.budgets[0].granted));
    assert_eq!(report.graph.ledger().copied(), 0);
    drop(report);
    growth.assert_none(0);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn what_a_display_imports_is_counted() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let during: Arc<Mutex<Option<Footprint>>> = Arc::default();
    let noted = Arc::clone(&during);
    let mut seen = 0;
    let graph = camera_to_display(small_camera(), KmsSink::default(), move |_| {
        seen += 1;
        if seen == 10 {
            *noted.lock().unwrap() = Some(Footprint::now());
        }
    });

    let report = run_frames(graph, 20);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let buffers = report.plan.budgets[0].granted as usize;
    let during = during.lock().unwrap().take().unwrap();
    assert_eq!(during.attached.values().sum::<usize>(), buffers, "{during:?}");
    assert_eq!(during.gem_handles.values().sum::<usize>(), buffers, "{during:?}");
    assert_eq!(during.frame_buffers, before.frame_buffers + buffers, "{during:?}");
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}
