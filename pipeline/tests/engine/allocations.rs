//! The steady path allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shrbuf_pipeline::Full;
use shrbuf_pipeline::run::start;

use crate::elements::{Sink, Source, chain, queued, spec};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system allocator; counting touches a thread-local without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|c| c.set(c.get() + 1));
        // SAFETY: the caller's promises are `System`'s conditions.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A sink that notes its thread's allocations between frames 1000 and 9000.
fn watching() -> (Sink, Arc<AtomicU64>) {
    let counted = Arc::new(AtomicU64::new(u64::MAX));
    let result = Arc::clone(&counted);
    let mut before = 0;
    let sink = Sink::with(move |n| {
        let now = COUNT.with(Cell::get);
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
