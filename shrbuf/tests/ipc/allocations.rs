//! The steady path allocates nothing, on either side.

#[path = "../common/counting.rs"]
mod counting;

use std::path::Path;

use shrbuf::ipc::{Next, Policy, Wishes};

use crate::child::{connect, say, spawn};
use crate::common::Descriptors;
use crate::source::{PATIENCE, Source, options, socket};

const WARM: u64 = 100;
const FRAMES: u64 = 2000;

/// A consumer that says what it allocated for its later frames.
pub fn consume(socket: &Path) {
    let mut consumer = connect(socket, &Wishes::default());
    let mut before = 0;
    while let Next::Frame(frame) = consumer.wait(PATIENCE).unwrap() {
        drop(frame);
        if consumer.received() == WARM {
            before = counting::allocations();
        }
        if consumer.received() == FRAMES {
            say(format_args!("{}", counting::allocations() - before));
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
    let before = counting::allocations();
    // Several that waited may go at once.
    source.send_until(|s| s.producer.counts().sent >= FRAMES);
    let allocated = counting::allocations() - before;
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
