//! Other programs, signals, and the system's limits.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use shrbuf::Shrbuf;
use shrbuf_elements::kms::{Card, KmsSink, Order};
use shrbuf_elements::test_src::TestSrc;
use shrbuf_pipeline::supervise::{Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, FailureKind, Full, Graph, QueueSpec};
use shrbuf_tests::{Footprint, Watch, camera_to_display, counts, on_test_drivers, run_frames, small_camera};

use crate::{failure, streams_again};

/// Takes the display away from this process, as a session's manager does when it hands it to another program.
struct Taken {
    _master: Card,
}

impl Taken {
    fn now(path: &Path) -> Taken {
        nix::ioctl_none!(drop_master, b'd', 0x1f);
        let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let ours = fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|of| of == path));
        for fd in ours.map(|fd| fd.file_name().to_str().unwrap().parse().unwrap()) {
            // SAFETY: DRM_IOCTL_DROP_MASTER takes no argument; of files that are not the master it is refused.
            let _ = unsafe { drop_master(fd) };
        }
        let other = Card::open(path).unwrap();
        other.become_master().unwrap();
        Taken { _master: other }
    }
}

fn vkms() -> PathBuf {
    Card::find().into_iter().flatten().find(|c| c.driver == "vkms").unwrap().path
}

/// A run whose display is taken with the thirtieth frame, for so long or to the end; and how long it went on after that.
fn with_display_taken(time: Option<Duration>, retry: Option<Duration>) -> (Report, Duration) {
    let path = vkms();
    let taken: Arc<Mutex<Option<Taken>>> = Arc::default();
    let keep = Arc::clone(&taken);
    let (sender, begin) = std::sync::mpsc::channel();
    let mut frames = 0;
    let display = KmsSink { card: Some(path.clone()), ..KmsSink::default() };
    let mut graph = camera_to_display(small_camera(), display, move |_| {
        frames += 1;
        if frames == 30 {
            *keep.lock().unwrap() = Some(Taken::now(&path));
            sender.send(Instant::now()).unwrap();
            let keep = Arc::clone(&keep);
            time.map(|time| {
                std::thread::spawn(move || {
                    std::thread::sleep(time);
                    drop(keep.lock().unwrap().take());
                })
            });
        }
    });
    graph.set_retry(retry);
    let report = run_frames(graph, 90);
    let after = begin.try_recv().unwrap().elapsed();
    drop(taken.lock().unwrap().take());
    (report, after)
}

#[test]
fn a_display_that_another_master_takes_in_mid_stream_is_in_use() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, after) = with_display_taken(None, None);

    let failed = failure(&report);
    assert_eq!((failed.kind(), failed.element()), (FailureKind::InUse, Some("display")), "{failed}");
    assert!(failed.to_string().contains("master"), "{failed}");
    assert!(after < Duration::from_secs(2), "{after:?}");
    streams_again(report.graph, &before);
}

#[test]
fn a_display_that_another_master_took_comes_back_where_that_is_declared() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();

    let (report, _) = with_display_taken(Some(Duration::from_millis(700)), Some(Duration::from_secs(5)));

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.restarts >= 1);
    assert_eq!(counts(&report.graph, "camera").frames, 90);
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_display_that_another_master_has_is_in_use() {
    if !on_test_drivers() {
        return;
    }
    let path = vkms();
    let other = Card::open(&path).unwrap();
    other.become_master().unwrap();
    let before = Footprint::now();

    let display = KmsSink { card: Some(path), ..KmsSink::default() };
    let report = run_frames(camera_to_display(small_camera(), display, |_| {}), 30);

    assert_eq!(report.error.as_ref().unwrap().kind(), Some(FailureKind::InUse), "{}", report.error.unwrap());
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_consumer_that_never_releases_stalls_the_camera_and_is_blamed() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let held: Arc<Mutex<Vec<(Shrbuf, Instant)>>> = Arc::default();
    let keep = Arc::clone(&held);
    let graph = camera_to_display(small_camera(), KmsSink::default(), move |frame| {
        keep.lock().unwrap().push((frame.buffer.clone(), Instant::now()));
    });

    let report = run_frames(graph, 300);

    let held = std::mem::take(&mut *held.lock().unwrap());
    let after = held.last().unwrap().1.elapsed();
    assert!(after < Duration::from_secs(2), "{after:?} since the last frame");
    assert_eq!(failure(&report).kind(), FailureKind::Stalled);
    let text = report.error.as_ref().unwrap().to_string();
    assert!(text.contains("buffers are held downstream"), "{text}");
    // What is held stays valid after the camera is closed, and is freed with the last reference.
    assert!(held.iter().all(|(buffer, _)| buffer.read().is_ok()));
    drop((report, held));
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_frame_that_comes_too_early_gives_way_to_the_next() {
    if !on_test_drivers() {
        return;
    }
    const BURSTS: u64 = 40;
    let mut graph = Graph::new("test");
    let source = TestSrc { free_run: true, ..TestSrc::default() };
    let source = graph.add("source", source.build().unwrap()).unwrap();
    // Of three frames the second comes right behind the first, and the third a refresh after it: shown in order, it would
    // wait for the second's flip, and so would all that came after it at that rate. Bursts begin anywhere in a refresh.
    let mut frames = 0;
    let pace = Watch::new(move |_| {
        let before = [70_000, 1_000, 15_667][frames % 3];
        frames += 1;
        std::thread::sleep(Duration::from_micros(before));
    });
    let pace = graph.add("pace", pace).unwrap();
    let display = KmsSink { order: Order::Latest, ..KmsSink::default() };
    let display = graph.add("display", display.build().unwrap()).unwrap();
    graph.link(source, pace).unwrap();
    graph.link_queued(pace, display, QueueSpec { depth: 1, full: Full::Block }).unwrap();

    let report = run_frames(graph, 3 * BURSTS);

    assert!(report.error.is_none(), "{:?}", report.error);
    let counts = counts(&report.graph, "display");
    assert_eq!(counts.frames, 3 * BURSTS);
    // But where the first two came so late in a refresh that the third would also be too late for the next.
    assert!((BURSTS / 4..=BURSTS).contains(&counts.dropped), "{} of {BURSTS} gave way", counts.dropped);
}

extern "C" fn ignore(_signal: std::ffi::c_int) {}

#[test]
fn a_storm_of_signals_disturbs_nothing() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    // Without SA_RESTART every blocking call is interrupted.
    let action = SigAction::new(SigHandler::Handler(ignore), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it is async-signal-safe.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let storm = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let blows = Arc::clone(&storm);
    let thread = std::thread::spawn(move || {
        let mut count = 0;
        while blows.load(std::sync::atomic::Ordering::Relaxed) {
            kill(nix::unistd::Pid::this(), Signal::SIGUSR1).unwrap();
            count += 1;
            // Some in each call that waits, yet the driver's own thread keeps a processor on a slow machine.
            std::thread::sleep(Duration::from_micros(100));
        }
        count
    });

    let report = run_frames(camera_to_display(small_camera(), KmsSink::default(), |_| {}), 120);
    storm.store(false, std::sync::atomic::Ordering::Relaxed);
    let signals: u32 = thread.join().unwrap();

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(counts(&report.graph, "display").frames, 120);
    assert!(signals > 5 * 120, "only {signals} signals");
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn without_descriptors_a_run_fails_and_leaves_nothing() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let open: usize = before.descriptors.values().sum();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let mut refused = 0;

    // From "not even the camera" to "everything but the last few".
    for spare in 0..24 {
        setrlimit(Resource::RLIMIT_NOFILE, (open + spare) as u64, hard).unwrap();
        let report = run_frames(camera_to_display(small_camera(), KmsSink::default(), |_| {}), 5);
        refused += u64::from(report.error.is_some());
        drop(report);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert_eq!(Footprint::settled(&before), before, "with {spare} descriptors to spare");
    }

    assert!(refused > 5, "only {refused} of 24 runs were refused");
}

#[test]
fn a_run_that_is_told_to_stop_gives_everything_back() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let graph = camera_to_display(small_camera(), KmsSink::default(), |_| {});

    let report = run(graph, &RunOptions::default(), |progress| match progress {
        Progress::Running(graph, _) if counts(graph, "display").frames >= 30 => Verdict::Stop,
        _ => Verdict::Continue,
    });

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    streams_again(report.graph, &before);
}
