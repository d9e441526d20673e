//! The steady path allocates nothing.

#[path = "../../../shrbuf/tests/common/counting.rs"]
mod counting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shrbuf_pipeline::Full;
use shrbuf_pipeline::run::start;

use crate::elements::{Sink, Source, chain, queued, spec};

/// A sink that notes its thread's allocations between frames 1000 and 9000.
fn watching() -> (Sink, Arc<AtomicU64>) {
    let counted = Arc::new(AtomicU64::new(u64::MAX));
    let result = Arc::clone(&counted);
    let mut before = 0;
    let sink = Sink::with(move |n| {
        let now = counting::allocations();
        match n {
            1000 => before = now,
            9000 => result.store(now - before, Ordering::Relaxed),
            _ => {}
        }
        Ok(())
    });
    (sink, counted)
}

#[test]
fn a_frame_through_ten_elements_allocates_nothing() {
    let (sink, counted) = watching();

    let ended = start(chain(Source::new(2), 10, sink), Some(10_000)).ok().unwrap().join();

    assert!(ended.failure.is_none());
    assert_eq!(counted.load(Ordering::Relaxed), 0);
}

#[test]
fn a_frame_through_a_queue_allocates_nothing_on_the_reader() {
    let (sink, counted) = watching();

    let ended = start(queued(Source::new(4), spec(2, Full::Block), sink), Some(10_000)).ok().unwrap().join();

    assert!(ended.failure.is_none());
    assert_eq!(counted.load(Ordering::Relaxed), 0);
}
