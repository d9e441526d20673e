//! Other programs, signals, and the system's limits.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use shrbuf::Shrbuf;
use shrbuf_elements::kms::{Card, KmsSink, Order};
use shrbuf_pipeline::supervise::Error;
use shrbuf_pipeline::{Failure, FailureKind};
use shrbuf_tests::{Footprint, camera_to_display, counts, on_test_drivers, run_frames, small_camera};

fn failure(error: &Option<Error>) -> &Failure {
    match error {
        Some(Error::Element(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_display_that_another_master_has_is_in_use() {
    if !on_test_drivers() {
        return;
    }
    let cards = Card::find().into_iter().flatten();
    let path = cards.into_iter().find(|c| c.driver == "vkms").unwrap().path;
    let other = Card::open(&path).unwrap();
    other.become_master().unwrap();
    let before = Footprint::now();

    let display = KmsSink { card: Some(path), ..KmsSink::default() };
    let report = run_frames(camera_to_display(small_camera(), display, |_| {}), 30);

    assert_eq!(report.error.as_ref().unwrap().kind(), Some(FailureKind::InUse), "{}", report.error.unwrap());
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_consumer_that_never_releases_stalls_the_camera_and_is_blamed() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let held: Arc<Mutex<Vec<Shrbuf>>> = Arc::default();
    let keep = Arc::clone(&held);
    let graph = camera_to_display(small_camera(), KmsSink::default(), move |frame| {
        keep.lock().unwrap().push(frame.buffer.clone());
    });
    let begin = Instant::now();

    let report = run_frames(graph, 300);

    assert_eq!(failure(&report.error).kind(), FailureKind::Stalled);
    let text = report.error.as_ref().unwrap().to_string();
    assert!(text.contains("buffers are held downstream"), "{text}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    // What is held stays valid after the camera is closed, and is freed with the last reference.
    let held = std::mem::take(&mut *held.lock().unwrap());
    assert!(held.iter().all(|b| b.read().is_ok()));
    drop((report, held));
    assert_eq!(Footprint::now(), before);
}

#[test]
fn one_late_frame_does_not_make_all_that_follow_wait_for_a_flip() {
    if !on_test_drivers() {
        return;
    }
    let display = KmsSink { order: Order::Latest, ..KmsSink::default() };
    let mut frames = 0;
    let graph = camera_to_display(small_camera(), display, move |_| {
        frames += 1;
        // The frame after this one comes at once, within the same refresh.
        if frames == 30 {
            std::thread::sleep(Duration::from_millis(25));
        }
    });

    let report = run_frames(graph, 240);

    assert!(report.error.is_none(), "{:?}", report.error);
    let own = report.graph.counts().into_iter().find(|c| c.name == "display").unwrap().own;
    let waited = own.iter().find(|(name, _)| *name == "waited").unwrap().1;
    assert!((1..80).contains(&waited), "{waited} of 240 frames waited for the flip before");
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
        while blows.load(std::sync::atomic::Ordering::Relaxed) {
            kill(nix::unistd::Pid::this(), Signal::SIGUSR1).unwrap();
            std::thread::yield_now();
        }
    });

    let report = run_frames(camera_to_display(small_camera(), KmsSink::default(), |_| {}), 120);
    storm.store(false, std::sync::atomic::Ordering::Relaxed);
    thread.join().unwrap();

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(counts(&report.graph, "display").frames, 120);
    drop(report);
    assert_eq!(Footprint::now(), before);
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
        assert_eq!(Footprint::now(), before, "with {spare} descriptors to spare");
    }

    assert!(refused > 5, "only {refused} of 24 runs were refused");
}
