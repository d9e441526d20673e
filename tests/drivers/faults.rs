//! Every fault that vivid can inject, before the first frame and in mid-stream, ends within two seconds in the declared
//! recovery or in a typed error.
//!
//! What happens to the signal on an input is in `signals`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::v4l2::{Device, V4l2Src};
use shrbuf_pipeline::FailureKind;
use shrbuf_pipeline::supervise::{Progress, Report, RunOptions, Verdict, run};
use shrbuf_tests::{Footprint, camera_to_display, counts, on_test_drivers, press, set_control, small_camera};

use crate::streams_again;

/// From the fault, or from the last frame that came after it, to the next frame or the end of the run.
const SOON: Duration = Duration::from_secs(2);

const FRAMES: u64 = 90;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before anything is asked of the camera.
    Start,
    /// With the thirtieth frame.
    MidStream,
}
use Moment::{MidStream, Start};

enum Expect {
    /// An error of the camera, of this kind, with this in its text; and it streams again.
    Fails(FailureKind, &'static str),
    /// All frames are shown, after so many restarts.
    GoesOn { restarts: std::ops::RangeInclusive<u32>, and: fn(&Report) },
}
use Expect::{Fails, GoesOn};

struct Case {
    moment: Moment,
    /// What does it; and what keeps it from being over, if anything.
    fault: fn() -> Option<Device>,
    /// The recovery that is declared.
    retry: Option<Duration>,
    expect: Expect,
}

#[derive(Default)]
struct Seen {
    frames: u64,
    /// Of the fault, or of the last thing that went as it should after it.
    since: Option<Instant>,
    longest: Duration,
    kept: Option<Device>,
    /// Upon which it was started again.
    errors: Vec<String>,
}

impl Seen {
    fn went_on(&mut self) {
        let now = Instant::now();
        if let Some(since) = self.since.replace(now) {
            self.longest = self.longest.max(now - since);
        }
    }
}

impl Case {
    fn run(self) {
        if !on_test_drivers() {
            return;
        }
        let before = Footprint::now();
        let device = Device::first().unwrap().path().display().to_string();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let noted = Arc::clone(&seen);
        // Once, also where the same elements run again.
        let mut in_mid_stream = Some(self.fault).filter(|_| self.moment == MidStream);
        // By its name: the first that is there would be another one while it is unplugged.
        let camera = V4l2Src { device: Some(device), ..small_camera() };
        let mut graph = camera_to_display(camera, KmsSink::default(), move |_| {
            let mut seen = noted.lock().unwrap();
            seen.frames += 1;
            if seen.since.is_some() {
                seen.went_on();
            } else if let Some(fault) = in_mid_stream.take_if(|_| seen.frames == 30) {
                seen.kept = fault();
                seen.since = Some(Instant::now());
            }
        });
        graph.set_retry(self.retry);
        if self.moment == Start {
            let mut seen = seen.lock().unwrap();
            seen.kept = (self.fault)();
            seen.since = Some(Instant::now());
        }

        let options = RunOptions { frames: Some(FRAMES), ..RunOptions::default() };
        let report = run(graph, &options, |progress| {
            let mut seen = seen.lock().unwrap();
            // The camera begins only now.
            if matches!(progress, Progress::Negotiated(..)) && seen.frames == 0 && seen.since.is_some() {
                seen.went_on();
            }
            if let Progress::Retrying(error, _) = progress {
                seen.errors.push(error.to_string());
            }
            Verdict::Continue
        });

        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        if report.error.is_some() {
            seen.went_on();
        }
        drop(seen.kept.take());
        set_control("percentage_of_dropped_buffers", "0");
        match self.expect {
            Fails(kind, says) => {
                let error = report.error.as_ref().unwrap();
                assert_eq!((error.kind(), error.element()), (Some(kind), Some("camera")), "{error}");
                assert!(error.to_string().contains(says), "{error}");
                streams_again(report.graph, &before);
            }
            GoesOn { restarts, and } => {
                assert!(report.error.is_none(), "{}", report.error.unwrap());
                assert!(restarts.contains(&report.restarts), "{} restarts: {:?}", report.restarts, seen.errors);
                assert_eq!(counts(&report.graph, "display").frames, FRAMES);
                and(&report);
                drop(report);
                assert_eq!(Footprint::settled(&before), before);
            }
        }
        assert!(seen.longest < SOON, "{:?}", seen.longest);
    }
}

fn pressed(buttons: &[&str]) -> Option<Device> {
    buttons.iter().for_each(|button| press(button));
    None
}

fn dropping(percent: &str) -> Option<Device> {
    set_control("percentage_of_dropped_buffers", percent);
    None
}

/// Unplugged for as long as somebody has it open: vivid is back when the last has closed it.
fn unplugged() -> Option<Device> {
    let open = Device::first().unwrap();
    press("disconnect");
    Some(open)
}

/// The same for a moment.
fn unplugged_for_a_moment() -> Option<Device> {
    let open = unplugged();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(open);
    });
    None
}

fn nothing_more(_: &Report) {}

fn one_was_damaged(report: &Report) {
    assert_eq!(counts(&report.graph, "camera").corrupt, 1);
}

/// Half of those around the last 60 frames, and what the machine was too slow for.
fn drops_were_counted(report: &Report) {
    let dropped = counts(&report.graph, "camera").dropped;
    assert!(dropped >= 20, "only {dropped}");
}

/// Another candidate is tried and works: the fault is gone with the first attempt, and noted.
fn reqbufs_was_refused_once(report: &Report) {
    assert!(report.plan.rejected.iter().any(|r| r.contains("VIDIOC_REQBUFS")), "{:?}", report.plan.rejected);
}

const GOES_ON: Expect = GoesOn { restarts: 0..=0, and: nothing_more };
const ONCE_MORE: Expect = GoesOn { restarts: 1..=1, and: nothing_more };
const TWICE_MORE: Expect = GoesOn { restarts: 2..=2, and: nothing_more };
const DAMAGED: Expect = GoesOn { restarts: 0..=0, and: one_was_damaged };
const DROPPED: Expect = GoesOn { restarts: 0..=0, and: drops_were_counted };
/// It is asked for some times before it is there again.
const BACK_AGAIN: Expect = GoesOn { restarts: 1..=9, and: nothing_more };

const NO: Option<Duration> = None;
const RETRY: Option<Duration> = Some(Duration::from_secs(5));

macro_rules! faults {
    ($($name:ident: $moment:ident $fault:expr, retry $retry:ident => $expect:expr;)+) => {
        $(#[test]
        fn $name() {
            Case { moment: $moment, fault: $fault, retry: $retry, expect: $expect }.run();
        })+
    };
}

faults! {
    reqbufs_at_start: Start || pressed(&["inject_vidioc_reqbufs_error"]), retry NO
        => GoesOn { restarts: 0..=0, and: reqbufs_was_refused_once };
    qbuf_at_start: Start || pressed(&["inject_vidioc_qbuf_error"]), retry NO
        => Fails(FailureKind::Device, "VIDIOC_QBUF");
    qbuf_at_start_with_retry: Start || pressed(&["inject_vidioc_qbuf_error"]), retry RETRY => ONCE_MORE;
    streamon_at_start: Start || pressed(&["inject_vidioc_streamon_error"]), retry NO
        => Fails(FailureKind::Device, "VIDIOC_STREAMON");
    streamon_at_start_with_retry: Start || pressed(&["inject_vidioc_streamon_error"]), retry RETRY => ONCE_MORE;
    damaged_frame_at_start: Start || pressed(&["inject_v4l2_buf_flag_error"]), retry NO => DAMAGED;
    half_dropped_at_start: Start || dropping("50"), retry NO => DROPPED;
    all_dropped_at_start: Start || dropping("100"), retry NO => Fails(FailureKind::Stalled, "no frame for");
    // vivid fails a queue that streams, and there is none yet.
    fatal_error_at_start: Start || pressed(&["inject_fatal_streaming_error"]), retry NO => GOES_ON;
    unplugged_at_start: Start unplugged, retry NO => Fails(FailureKind::Unplugged, "/dev/video");
    unplugged_at_start_with_retry: Start unplugged_for_a_moment, retry RETRY => BACK_AGAIN;

    qbuf_in_mid_stream: MidStream || pressed(&["inject_vidioc_qbuf_error"]), retry NO => GOES_ON;
    damaged_frame_in_mid_stream: MidStream || pressed(&["inject_v4l2_buf_flag_error"]), retry NO => DAMAGED;
    half_dropped_in_mid_stream: MidStream || dropping("50"), retry NO => DROPPED;
    all_dropped_in_mid_stream: MidStream || dropping("100"), retry NO => Fails(FailureKind::Stalled, "no frame for");
    fatal_error_in_mid_stream: MidStream || pressed(&["inject_fatal_streaming_error"]), retry NO
        => Fails(FailureKind::Device, "stopped the queue after a fatal error");
    fatal_error_in_mid_stream_with_retry: MidStream || pressed(&["inject_fatal_streaming_error"]), retry RETRY
        => ONCE_MORE;
    unplugged_in_mid_stream: MidStream unplugged, retry NO => Fails(FailureKind::Unplugged, "");
    unplugged_in_mid_stream_with_retry: MidStream unplugged_for_a_moment, retry RETRY => BACK_AGAIN;

    reqbufs_while_restarting:
        MidStream || pressed(&["inject_vidioc_reqbufs_error", "inject_fatal_streaming_error"]), retry RETRY
        => GoesOn { restarts: 1..=1, and: reqbufs_was_refused_once };
    qbuf_while_restarting: MidStream || pressed(&["inject_fatal_streaming_error", "inject_vidioc_qbuf_error"]),
        retry RETRY => GoesOn { restarts: 1..=2, and: nothing_more };
    streamon_while_restarting:
        MidStream || pressed(&["inject_vidioc_streamon_error", "inject_fatal_streaming_error"]), retry RETRY
        => TWICE_MORE;
}
