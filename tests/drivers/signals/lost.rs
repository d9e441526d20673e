//! A signal or a camera that goes, and comes back or does not.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use shrbuf::{BufferId, Format};
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::v4l2::{Memory, V4l2Src};
use shrbuf_pipeline::{Build, FailureKind, Rate, Size, Timestamp};
use shrbuf_tests::{
    Footprint, camera_to_display, counts, on_test_drivers, press, run_frames, set_control, small_camera,
};

use super::{Comes, Hdmi, Held, Lull, comes_back, in_a_row, own};
use crate::failure;

/// From what happens to the error.
const SOON: Duration = Duration::from_secs(2);

/// Of this thread, on a CPU, and how long that took.
struct Spent(Duration, Instant);

impl Spent {
    fn now() -> Spent {
        Spent(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into(), Instant::now())
    }

    /// Most of the time since then it slept.
    fn assert_little(&self) {
        let (now, begin) = (Spent::now(), self);
        let (spent, took) = (now.0 - begin.0, now.1 - begin.1);
        println!("{spent:.1?} of {took:.1?}");
        assert!(spent < took / 2, "{spent:?} of {took:?}");
    }
}

fn lost_and_back(memory: Memory, lose: fn()) {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::with("640x480p59");
    let seen: Arc<Mutex<Vec<(Timestamp, u64, BufferId)>>> = Arc::default();
    let (frames, held) = (Arc::clone(&seen), Held::default());
    // From when to when.
    let away: Arc<Mutex<Vec<Timestamp>>> = Arc::default();
    let (holds, times) = (held.clone(), Arc::clone(&away));
    let watch = Lull::watch(move |comes| {
        let (mut frames, mut away) = (frames.lock().unwrap(), times.lock().unwrap());
        match comes {
            Comes::Frame(frame) => {
                frames.push((frame.timestamp, frame.sequence, frame.buffer.id()));
                if frames.len() == 20 {
                    holds.hold(frame);
                    lose();
                }
            }
            Comes::Nothing(2) if frames.len() >= 20 && away.is_empty() => away.push(Timestamp::now()),
            Comes::Nothing(20) if away.len() == 1 => {
                away.push(Timestamp::now());
                comes_back();
            }
            Comes::Nothing(_) => {}
        }
    });
    let camera = V4l2Src { memory, ..Hdmi::camera() }.build().unwrap();

    let display = KmsSink::default().build().unwrap();
    let report = run_frames(in_a_row([("camera", camera), ("watch", watch), ("display", display)]), 60);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!((report.restarts, counts(&report.graph, "display").frames), (0, 60));
    assert_eq!(["signal_losses", "signal_returns"].map(|name| own(&report, name)), [1, 1]);
    let (seen, away) = (seen.lock().unwrap(), away.lock().unwrap());
    let meanwhile = away[0].0..away[1].0;
    assert!(!seen.iter().any(|(captured, ..)| meanwhile.contains(&captured.0)), "{seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0].1 < pair[1].1), "{seen:?}");
    let buffers = |frames: &[(_, _, BufferId)]| frames.iter().map(|f| f.2).collect::<HashSet<_>>();
    assert!(buffers(&seen[20..]).is_subset(&buffers(&seen[..20])));
    assert!(!buffers(&seen[20..]).contains(&seen[19].2), "a frame that is held was given out again");
    held.assert_untouched();
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_signal_that_is_lost_and_comes_back_goes_on_in_the_same_buffers() {
    lost_and_back(Memory::V4l2, || set_control("dv_timings_signal_mode", "No Signal"));
}

#[test]
fn a_signal_that_is_lost_and_comes_back_goes_on_in_lent_buffers() {
    lost_and_back(Memory::DmaHeap, || set_control("dv_timings_signal_mode", "No Lock"));
}

/// As some do that time out for a frame.
fn lose_and_give_up() {
    set_control("dv_timings_signal_mode", "No Signal");
    press("inject_fatal_streaming_error");
}

#[test]
fn a_signal_over_which_the_driver_has_given_up_its_queue_goes_on_in_the_same_buffers() {
    lost_and_back(Memory::V4l2, lose_and_give_up);
}

#[test]
fn a_queue_that_is_started_again_with_every_buffer_held_is_waited_for_asleep() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::with("640x480p59");
    set_control("colorspace", "SMPTE 170M");
    let waited: Arc<Mutex<Option<Spent>>> = Arc::default();
    let waits = Arc::clone(&waited);
    let (mut buffers, mut frames, mut held) = (HashSet::new(), 0, Vec::new());
    let watch = Lull::watch(move |comes| match comes {
        Comes::Frame(frame) => {
            frames += 1;
            if frames <= 20 {
                buffers.insert(frame.buffer.id());
            } else if waits.lock().unwrap().is_none() {
                held.push(frame.clone());
                if held.len() == buffers.len() {
                    set_control("colorspace", "Rec. 709");
                    *waits.lock().unwrap() = Some(Spent::now());
                }
            } else {
                assert!(held.is_empty(), "a frame came though every buffer is held");
            }
        }
        Comes::Nothing(20) if !held.is_empty() => {
            waits.lock().unwrap().as_ref().unwrap().assert_little();
            held.clear();
        }
        Comes::Nothing(_) => {}
    });
    let camera = V4l2Src { format: Some(Format::Yuyv), stall: Some(Duration::from_secs(20)), ..Hdmi::camera() };
    let (camera, sink) = (camera.build().unwrap(), NullSink {}.build().unwrap());

    let report = run_frames(in_a_row([("camera", camera), ("watch", watch), ("drop", sink)]), 90);

    set_control("colorspace", "sRGB");
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!((report.restarts, counts(&report.graph, "drop").frames), (0, 90));
    assert_eq!(["signal_losses", "signal_returns"].map(|name| own(&report, name)), [0, 1]);
    assert!(waited.lock().unwrap().is_some());
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_placeholder_is_on_the_display_while_the_signal_is_away() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::with("640x480p59");
    let card = Size::new(320, 180);
    let shown: Arc<Mutex<Vec<u32>>> = Arc::default();
    let widths = Arc::clone(&shown);
    let camera = V4l2Src { no_signal: Duration::ZERO, ..Hdmi::camera() };
    let mut graph = camera_to_display(camera, KmsSink::default(), move |frame| {
        let mut widths = widths.lock().unwrap();
        let shown = frame.buffer.layout().width;
        if shown == card.width && !widths.contains(&shown) {
            comes_back();
        }
        widths.push(shown);
        if widths.len() == 20 {
            set_control("dv_timings_signal_mode", "No Signal");
        }
    });
    // Its frames count, too: at this rate the camera is back long before they are all.
    let placeholder = TestSrc { size: card, rate: Rate::new(10, 1), ..TestSrc::default() };
    let camera = graph.node("camera").unwrap();
    graph.set_placeholder(camera, placeholder.build().unwrap()).unwrap();

    let report = run_frames(graph, 120);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let mut widths = std::mem::take(&mut *shown.lock().unwrap());
    widths.dedup();
    assert_eq!((widths, report.restarts), (vec![640, card.width, 640], 2));
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
fn a_signal_that_is_lost_for_too_long_is_a_typed_error() {
    lost_for_too_long(|| set_control("dv_timings_signal_mode", "No Signal"));
}

#[test]
fn a_signal_over_which_the_driver_has_given_up_its_queue_is_waited_for_as_long() {
    lost_for_too_long(lose_and_give_up);
}

#[test]
fn a_camera_that_is_unplugged_while_its_signal_is_lost_is_a_typed_error() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::select();
    let mut frames = 0;
    let watch = Lull::watch(move |comes| match comes {
        Comes::Frame(_) => {
            frames += 1;
            if frames == 20 {
                lose_and_give_up();
            }
        }
        Comes::Nothing(5) if frames >= 20 => press("disconnect"),
        Comes::Nothing(_) => {}
    });
    let camera = V4l2Src { no_signal: Duration::from_secs(60), ..Hdmi::camera() };
    let (camera, sink) = (camera.build().unwrap(), NullSink {}.build().unwrap());

    let report = run_frames(in_a_row([("camera", camera), ("watch", watch), ("drop", sink)]), 300);

    assert_eq!(failure(&report).kind(), FailureKind::Unplugged, "{:?}", report.error);
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

fn lost_for_too_long(lose: fn()) {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::select();
    let lost: Arc<Mutex<Option<Spent>>> = Arc::default();
    let (loses, mut frames) = (Arc::clone(&lost), 0);
    let camera = V4l2Src { no_signal: Duration::from_millis(500), ..Hdmi::camera() };
    let watch = Lull::watch(move |comes| match comes {
        Comes::Frame(_) => {
            frames += 1;
            if frames == 20 {
                lose();
                *loses.lock().unwrap() = Some(Spent::now());
            }
        }
        Comes::Nothing(5) if frames >= 20 => loses.lock().unwrap().as_ref().unwrap().assert_little(),
        Comes::Nothing(_) => {}
    });
    let display = KmsSink::default().build().unwrap();
    let elements = [("camera", camera.build().unwrap()), ("watch", watch), ("display", display)];

    let report = run_frames(in_a_row(elements), 300);

    let after = lost.lock().unwrap().as_ref().unwrap().1.elapsed();
    let error = report.error.as_ref().unwrap();
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Stalled), Some("camera")), "{error}");
    assert!(error.to_string().contains("no signal for 500.0ms (`no-signal`): there is no signal"), "{error}");
    assert!((Duration::from_millis(500)..Duration::from_secs(10)).contains(&after), "{after:?}");
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

/// Of a signal that becomes another one, or comes back as it was, the driver will have nothing.
fn refused(control: &'static str, value: &'static str, restarts: u32) {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::with("640x480p59");
    let (sender, changed) = std::sync::mpsc::channel();
    let mut frames = 0;
    let graph = camera_to_display(Hdmi::camera(), KmsSink::default(), move |_| {
        frames += 1;
        if frames == 20 {
            press("inject_vidioc_streamon_error");
            set_control(control, value);
            sender.send(Instant::now()).unwrap();
        }
    });

    let report = run_frames(graph, 300);

    let after = changed.try_recv().unwrap().elapsed();
    assert_eq!((failure(&report).kind(), report.restarts), (FailureKind::Device, restarts), "{:?}", report.error);
    assert!(failure(&report).to_string().contains("VIDIOC_STREAMON"), "{:?}", report.error);
    assert!(after < SOON, "{after:?}");
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_signal_that_the_driver_then_refuses_to_stream_is_a_typed_error() {
    refused("dv_timings", "720x480p59", 1);
    refused("dv_timings_signal_mode", "Current DV Timings", 0);
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
    let placeholder = TestSrc { size: card, rate: Rate::new(10, 1), ..TestSrc::default() };
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
