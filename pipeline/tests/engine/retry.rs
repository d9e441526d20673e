//! What is tried again, how often, and what is not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shrbuf_pipeline::supervise::{Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Failure, FailureKind, Graph};

use crate::elements::{Sink, Source, chain};

/// Runs `graph`, and says how long each pause between two starts was.
fn retried(mut graph: Graph, retry: Duration) -> (Report, Vec<Duration>) {
    graph.set_retry(Some(retry));
    let (mut pauses, mut failed) = (Vec::new(), None);
    let options = RunOptions { tick: Duration::from_millis(20), ..RunOptions::default() };
    let report = run(graph, &options, |progress| {
        match progress {
            Progress::Retrying(..) => failed = failed.or_else(|| Some(Instant::now())),
            Progress::Negotiated(..) => pauses.extend(failed.take().map(|since| since.elapsed())),
            _ => {}
        }
        // One that is never given up would go on for ever.
        if pauses.len() < 20 { Verdict::Continue } else { Verdict::Stop }
    });
    (report, pauses)
}

fn fails_at(frame: u64, kind: FailureKind) -> Sink {
    let mut came = 0;
    Sink::with(move |_| {
        came += 1;
        if came % frame == 0 { Err(Failure::new(kind, "smoke")) } else { Ok(()) }
    })
}

#[test]
fn one_that_starts_and_fails_each_time_is_given_up_after_growing_pauses() {
    let graph = chain(Source::new(2), 0, fails_at(3, FailureKind::Limit));

    let (report, pauses) = retried(graph, Duration::from_secs(2));

    assert_eq!(report.error.unwrap().to_string(), "`sink`: system limit: smoke");
    // 0.1 s, 0.2, 0.4 and 0.8 go into 2 s, and no more; a slow machine does fewer.
    assert!((2..=4).contains(&report.restarts), "{}", report.restarts);
    assert_eq!(pauses.len(), report.restarts as usize);
    for (n, pause) in pauses.iter().enumerate() {
        assert!(*pause >= Duration::from_millis(100 << n), "{pauses:?}");
    }
}

#[test]
fn an_element_is_told_once_that_nothing_is_started_again_and_whether_that_is_a_failure() {
    for (retry, times, failed) in [(60_000, 2, false), (150, 9, true)] {
        let mut failures = 0;
        let sink = Sink::with(move |_| {
            failures += 1;
            if failures <= times { Err(Failure::new(FailureKind::Device, "smoke")) } else { Ok(()) }
        });
        let seen = Arc::clone(&sink.seen);
        let mut graph = chain(Source::new(2), 0, sink);
        graph.set_retry(Some(Duration::from_millis(retry)));

        let report = run(graph, &RunOptions { frames: Some(20), ..RunOptions::default() }, |_| Verdict::Continue);

        assert_eq!((report.error.is_some(), report.restarts > 0), (failed, true), "{:?}", report.error);
        assert_eq!(seen.lock().unwrap().over, [(u64::from(report.restarts) + 1, failed)]);
    }
}

#[test]
fn after_frames_for_longer_than_any_pause_a_failure_is_a_new_trouble() {
    let begin = Instant::now();
    let mut failures = 0;
    let sink = Sink::with(move |_| {
        let due = [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(3)];
        match due.get(failures) {
            Some(due) if begin.elapsed() >= *due => {
                failures += 1;
                Err(Failure::new(FailureKind::Device, "smoke"))
            }
            _ => Ok(()),
        }
    });
    let mut graph = chain(Source::new(2), 0, sink);
    graph.set_retry(Some(Duration::from_millis(500)));
    let options =
        RunOptions { duration: Some(Duration::from_millis(3500)), tick: Duration::MAX, ..RunOptions::default() };

    let report = run(graph, &options, |_| Verdict::Continue);

    assert!(report.error.is_none(), "{:?}", report.error);
    assert_eq!(report.restarts, 3);
}

#[test]
fn a_panic_is_not_tried_again() {
    let source = Source::new(2);
    let stops = Arc::clone(&source.stops);
    let sink = Sink::with(|_| panic!("a bug in an element"));

    let (report, pauses) = retried(chain(source, 0, sink), Duration::from_secs(60));

    assert_eq!(report.error.unwrap().kind(), Some(FailureKind::Panic));
    assert_eq!((report.restarts, pauses.len(), stops.load(Ordering::Relaxed)), (0, 0, 1));
}

#[test]
fn a_graph_whose_thread_hangs_is_not_tried_again() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let sink = Sink::with(move |_| {
        let _ = gate.recv_timeout(Duration::from_secs(20));
        Ok(())
    });
    let mut graph = chain(Source::new(2), 0, sink);
    graph.set_retry(Some(Duration::from_secs(60)));

    let report = run(graph, &RunOptions::default(), |progress| match progress {
        Progress::Running(..) => Verdict::Stop,
        _ => Verdict::Continue,
    });

    assert_eq!(report.error.unwrap().kind(), Some(FailureKind::Stalled));
    assert_eq!(report.restarts, 0);
    drop(release);
}
