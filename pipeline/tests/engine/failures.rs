//! Whatever fails, the run ends, says why, and stops every element once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use shrbuf_pipeline::run::{Running, start};
use shrbuf_pipeline::supervise::{Progress, RunOptions, Verdict, run};
use shrbuf_pipeline::{Failure, FailureKind, Full, Graph};

use crate::elements::{Broken, Sink, Source, chain, queued, spec};

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_failing_sink_ends_the_run_and_is_named() {
    let source = Source::new(2);
    let stops = Arc::clone(&source.stops);
    let sink = Sink::with(|n| if n < 5 { Ok(()) } else { Err(Failure::new(FailureKind::Device, "smoke")) });

    let mut running = start(chain(source, 2, sink), None).ok().unwrap();

    assert!(running.wait(LONG));
    let failure = running.join().failure.unwrap();
    assert_eq!(failure.to_string(), "`sink`: device error: smoke");
    assert_eq!(failure.element(), Some("sink"));
    assert_eq!(failure.kind(), FailureKind::Device);
    assert_eq!(stops.load(Ordering::Relaxed), 1);
}

#[test]
fn a_failure_behind_a_full_queue_wakes_the_blocked_writer() {
    let source = Source::new(8);
    let stops = Arc::clone(&source.stops);
    let sink = Sink::with(|_| Err(Failure::new(FailureKind::Stalled, "no clock")));

    let mut running = start(queued(source, spec(1, Full::Block), sink), None).ok().unwrap();

    assert!(running.wait(LONG));
    assert_eq!(running.join().failure.unwrap().to_string(), "`sink`: stalled: no clock");
    assert_eq!(stops.load(Ordering::Relaxed), 1);
}

#[test]
fn a_panic_behind_a_full_queue_ends_the_run_as_a_failure() {
    let sink = Sink::with(|_| panic!("a bug in an element"));

    let mut running = start(queued(Source::new(8), spec(1, Full::Block), sink), None).ok().unwrap();

    assert!(running.wait(LONG));
    let failure = running.join().failure.unwrap();
    assert_eq!((failure.kind(), failure.element()), (FailureKind::Panic, Some("sink")));
    assert!(failure.to_string().starts_with("`sink`: panic: a bug in an element\n"), "{failure}");
}

#[test]
fn a_panic_stops_the_other_elements_of_its_thread() {
    let source = Source::new(2);
    let stops = Arc::clone(&source.stops);
    let sink = Sink::with(|_| panic!("number {}", 5));
    let seen = Arc::clone(&sink.seen);

    let ended = start(chain(source, 1, sink), None).ok().unwrap().join();

    assert_eq!(ended.failure.unwrap().element(), Some("sink"));
    assert_eq!((stops.load(Ordering::Relaxed), seen.lock().unwrap_or_else(|e| e.into_inner()).stops), (1, 1));
}

#[test]
fn an_element_that_does_not_start_stops_those_that_did() {
    let source = Source::new(2);
    let stops = Arc::clone(&source.stops);
    let mut graph = Graph::new("test");
    let a = graph.add("a", Box::new(source)).unwrap();
    let b = graph.add("b", Box::new(Broken)).unwrap();
    graph.link_queued(a, b, spec(1, Full::Block)).unwrap();

    let ended = start(graph, None).err().unwrap();

    assert_eq!(ended.failure.unwrap().to_string(), "`b`: device in use: somebody else has it");
    assert_eq!(stops.load(Ordering::Relaxed), 0, "the source is started last");
}

/// A source in front of a full queue, whose sink hangs until the sender is dropped; how often the source was stopped.
fn hanging() -> (Running, Sender<()>, Arc<AtomicU64>) {
    let (release, gate) = channel();
    let sink = Sink::with(move |_| {
        let _ = gate.recv_timeout(LONG);
        Ok(())
    });
    let source = Source::new(8);
    let stops = Arc::clone(&source.stops);
    let running = start(queued(source, spec(1, Full::Block), sink), None).ok().unwrap();
    // One is in the sink, one in the queue, and one waits for room.
    while running.graph().counts().iter().any(|c| c.name == "source" && c.counts.frames < 3) {
        std::thread::yield_now();
    }
    (running, release, stops)
}

#[test]
fn stop_wakes_who_waits_for_room_though_the_reader_hangs() {
    let (running, release, stops) = hanging();

    running.stop();

    let begin = Instant::now();
    while stops.load(Ordering::Relaxed) == 0 {
        assert!(begin.elapsed() < LONG, "the source waits still");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(release);
    assert!(running.join().failure.is_none());
}

#[test]
fn an_element_that_hangs_is_named_and_left_behind() {
    let (running, release, stops) = hanging();

    running.stop();
    let ended = running.join();

    let failure = ended.failure.unwrap();
    assert_eq!((failure.kind(), failure.element()), (FailureKind::Stalled, Some("sink")));
    assert!(failure.to_string().starts_with("`sink`: stalled: did not stop within 3 s"), "{failure}");
    assert!(!failure.to_string().contains("queue"), "a queue is in no thread: {failure}");
    assert_eq!(stops.load(Ordering::Relaxed), 1);
    let again = start(ended.graph, None).err().unwrap().failure.unwrap();
    assert!(
        again.to_string().contains("did not stop when the graph last ran, and have `queue`, `sink` still"),
        "{again}"
    );
    drop(release);
}

#[test]
fn an_element_that_hangs_is_told_of_whatever_its_queue_does_meanwhile() {
    for full in [Full::Block, Full::DropOldest] {
        let (release, gate) = channel::<()>();
        let mut release = Some(release);
        let sink = Sink::with(move |_| {
            let _ = gate.recv_timeout(LONG);
            Ok(())
        });
        let (mut told, begin) = (Vec::new(), Instant::now());

        let report = run(queued(Source::new(8), spec(1, full), sink), &RunOptions::default(), |progress| {
            if let Progress::Hanging(element) = progress {
                told.push((element.to_owned(), begin.elapsed()));
                release = None;
            }
            if release.is_some() { Verdict::Continue } else { Verdict::Stop }
        });

        assert!(report.error.is_none(), "{:?}", report.error);
        assert!(matches!(&told[..], [(name, _)] if name == "sink"), "{full:?}: {told:?}");
        assert!(told[0].1 < Duration::from_secs(10), "{told:?}");
    }
}

#[test]
fn a_failure_is_told_though_another_element_hangs() {
    let (release, gate) = channel::<()>();
    let mut graph = Graph::new("test");
    let fails = Sink::with(|n| if n < 5 { Ok(()) } else { Err(Failure::new(FailureKind::Device, "smoke")) });
    let hangs = Sink::with(move |_| {
        let _ = gate.recv_timeout(LONG);
        Ok(())
    });
    for (name, sink) in [("fails", fails), ("hangs", hangs)] {
        let source = graph.add(&format!("source-{name}"), Box::new(Source::new(2))).unwrap();
        let sink = graph.add(name, Box::new(sink)).unwrap();
        graph.link(source, sink).unwrap();
    }

    let failure = start(graph, None).ok().unwrap().join().failure.unwrap();

    assert_eq!(failure.to_string(), "`fails`: device error: smoke");
    drop(release);
}

#[test]
fn dropping_a_run_stops_it() {
    let source = Source::new(2);
    let stops = Arc::clone(&source.stops);

    drop(start(chain(source, 1, Sink::new()), None).ok().unwrap());

    assert_eq!(stops.load(Ordering::Relaxed), 1);
}
