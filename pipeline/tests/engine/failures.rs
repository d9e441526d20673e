//! Whatever fails, the run ends, says why, and stops every element once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shrbuf_pipeline::run::start;
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
    assert_eq!(failure.to_string(), "device error: an element panicked: a bug in an element");
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

#[test]
fn stop_ends_a_run_that_is_blocked_on_a_full_queue() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let sink = Sink::with(move |_| {
        let _ = gate.recv_timeout(LONG);
        Ok(())
    });
    let mut running = start(queued(Source::new(8), spec(1, Full::Block), sink), None).ok().unwrap();
    while running.graph().counts().iter().any(|c| c.name == "source" && c.counts.frames < 3) {
        std::thread::yield_now();
    }

    running.stop();
    drop(release);

    assert!(running.wait(LONG));
    assert!(running.join().failure.is_none());
}

#[test]
fn dropping_a_run_stops_it() {
    let source = Source::new(2);
    let stops = Arc::clone(&source.stops);

    drop(start(chain(source, 1, Sink::new()), None).ok().unwrap());

    assert_eq!(stops.load(Ordering::Relaxed), 1);
}
