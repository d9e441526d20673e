//! The steady path allocates nothing, on either side.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use shrbuf::ipc::{Next, Policy, Wishes};

use crate::child::{connect, say, spawn};
use crate::common::Descriptors;
use crate::source::{PATIENCE, Source, options, socket};

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

const WARM: u64 = 100;
const FRAMES: u64 = 2000;

/// A consumer that says what it allocated for its later frames.
pub fn consume(socket: &Path) {
    let mut consumer = connect(socket, &Wishes::default());
    let mut before = 0;
    while let Next::Frame(frame) = consumer.wait(PATIENCE).unwrap() {
        drop(frame);
        if consumer.received() == WARM {
            before = COUNT.get();
        }
        if consumer.received() == FRAMES {
            say(format_args!("{}", COUNT.get() - before));
        }
    }
}

fn allocated_by_both(test: &str, policy: Policy) -> (u64, String) {
    let _alone = Descriptors::count();
    let path = socket(test);
    let mut source = Source::new(&path, options(1, 2, policy), 6);
    let child = spawn("allocations", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == WARM);
    let before = COUNT.get();
    source.send_until(|s| s.producer.counts().sent == FRAMES);
    let allocated = COUNT.get() - before;
    source.until(|s| s.pool.idle() == 6);
    source.producer.end();
    (allocated, source.said(child))
}

#[test]
fn a_frame_there_and_back_allocates_nothing() {
    assert_eq!(allocated_by_both("allocations", Policy::Block), (0, "0".to_owned()));
}

#[test]
fn a_frame_for_a_consumer_that_lags_allocates_nothing() {
    // Some are dropped, as the source does not wait.
    assert_eq!(allocated_by_both("allocations-lag", Policy::DropOldest), (0, "0".to_owned()));
}
