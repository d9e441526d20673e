//! What happens on a camera's inputs: signals that change, go and come, and numbers and time stamps that wrap; and what
//! is shown meanwhile.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use shrbuf::{BufferId, Format, Ledger, Reason};
use shrbuf_elements::ipc::{IpcSink, IpcSrc};
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::queue::Queue;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::v4l2::{Device, Memory, V4l2Src};
use shrbuf_pipeline::supervise::{Error, Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{
    Build, Context, Element, Events, Failure, FailureKind, Frame, Graph, Matrix, Ports, Rate, Role, Size, Start,
    Timestamp,
};
use shrbuf_tests::{
    Footprint, Watch, camera_to_display, counts, on_test_drivers, press, run_frames, set_control, small_camera,
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

    /// As [`Hdmi::select`], with a signal of these timings.
    fn with(timings: &str) -> Hdmi {
        let hdmi = Hdmi::select();
        set_control("dv_timings_signal_mode", "Selected DV Timings");
        set_control("dv_timings", timings);
        hdmi
    }

    fn camera() -> V4l2Src {
        V4l2Src { input: Some("HDMI 000-0".into()), ..V4l2Src::default() }
    }
}

fn comes_back() {
    set_control("dv_timings_signal_mode", "Selected DV Timings");
}

/// Calls a function with each frame that goes by, and while there is none, each 50 ms with how often that was so since the
/// last: the second time all that the camera had told before has been dealt with, as this is its thread.
struct Lull<F> {
    on: F,
    times: u32,
}

enum Comes<'a> {
    Frame(&'a Frame),
    Nothing(u32),
}

impl<F: FnMut(Comes<'_>) + Send + 'static> Lull<F> {
    fn watch(on: F) -> Box<dyn Element> {
        Box::new(Lull { on, times: 0 })
    }
}

impl<F: FnMut(Comes<'_>) + Send> Element for Lull<F> {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        start.every(Duration::from_millis(50), 0)
    }

    fn ready(&mut self, _token: u32, _events: Events, _context: &mut Context<'_>) -> Result<(), Failure> {
        self.times += 1;
        (self.on)(Comes::Nothing(self.times));
        Ok(())
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.times = 0;
        (self.on)(Comes::Frame(&frame));
        context.push(0, frame)
    }
}

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

fn in_a_row<const N: usize>(elements: [(&str, Box<dyn Element>); N]) -> Graph {
    let mut graph = Graph::new("test");
    let nodes = elements.map(|(name, element)| graph.add(name, element).unwrap());
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());
    graph
}

/// What the camera itself has counted.
fn own(report: &Report, name: &str) -> u64 {
    let counts = report.graph.counts();
    let camera = counts.iter().find(|c| c.name == "camera").unwrap();
    camera.own.iter().find(|(own, _)| *own == name).unwrap().1
}

impl Drop for Hdmi {
    fn drop(&mut self) {
        set_control("dv_timings_signal_mode", "Current DV Timings");
        Hdmi::SCALING.iter().for_each(|name| set_control(name, "true"));
        Device::first().unwrap().select_input(&self.0.to_string()).unwrap();
    }
}

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

const SOCKET: &str = "SHRBUF_DRIVERS_HDMI";

/// Not a test: the process of a camera that passes on what it captures, until it is killed.
#[test]
fn passed_on() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let out = IpcSink { path: socket.into(), ..IpcSink::default() };
    let graph = in_a_row([("camera", Hdmi::camera().build().unwrap()), ("out", out.build().unwrap())]);
    let report = run(graph, &RunOptions::default(), |_| Verdict::Continue);
    panic!("the camera has ended: {:?}", report.error);
}

#[test]
fn consumers_in_other_processes_go_on_with_another_signal() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::with("640x480p59");
    let socket = std::env::temp_dir().join("shrbuf-drivers-hdmi");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "signals::passed_on", "--nocapture"]).env(SOCKET, &socket).stdout(Stdio::null());
    let mut camera = command.spawn().unwrap();
    let begin = Instant::now();
    while !socket.exists() {
        assert!(begin.elapsed() < Duration::from_secs(30) && camera.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
    let (widths, held) = (Arc::clone(&seen), Held::default());
    let holds = held.clone();
    let watch = Lull::watch(move |comes| {
        let mut widths = widths.lock().unwrap();
        let Comes::Frame(frame) = comes else { return };
        widths.push(frame.buffer.layout().width);
        if widths.len() == 20 {
            holds.hold(frame);
            set_control("dv_timings", "720x480p59");
        }
    });
    let source = IpcSrc { path: socket.clone(), ..IpcSrc::default() };
    let drop_all = NullSink {}.build().unwrap();

    let report = run_frames(in_a_row([("in", source.build().unwrap()), ("watch", watch), ("drop", drop_all)]), 60);

    camera.kill().unwrap();
    camera.wait().unwrap();
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let widths = seen.lock().unwrap().clone();
    assert_eq!((report.restarts, widths.len(), widths[19], widths[59]), (1, 60, 640, 720));
    assert!(widths.is_sorted(), "{widths:?}");
    held.assert_untouched();
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
    for ending in ["", ".lock"] {
        std::fs::remove_file(format!("{}{ending}", socket.display())).unwrap();
    }
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

/// A frame, and what was drawn on it.
struct Drawn(Frame, Vec<u8>);

/// A frame that somebody holds.
#[derive(Clone, Default)]
struct Held(Arc<Mutex<Option<Drawn>>>);

impl Held {
    fn hold(&self, frame: &Frame) {
        *self.0.lock().unwrap() = Some(Drawn(frame.clone(), Held::pixels(frame)));
    }

    /// And lets go of it.
    fn assert_untouched(&self) {
        let Drawn(frame, drawn) = self.0.lock().unwrap().take().unwrap();
        assert!(Held::pixels(&frame) == drawn, "a frame that is held was written to");
    }

    fn pixels(frame: &Frame) -> Vec<u8> {
        let account = Ledger::default().account("test", Reason::Inspect);
        let layout = frame.buffer.layout();
        let (guard, row) = (frame.buffer.read().unwrap(), layout.row_bytes(0) as usize);
        let mut all = vec![0; row * layout.height as usize];
        all.chunks_exact_mut(row).enumerate().for_each(|(y, row)| guard.plane(0).read(y, 0, row, &account));
        all
    }
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
        if matches!(progress, Progress::Retrying(_)) {
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
