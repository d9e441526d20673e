//! Who has each buffer of a queue, and whether buffers may be queued now.
//!
//! A buffer is the driver's (queued), the caller's (dequeued, with readers somewhere) or free (neither: given back
//! while the queue stood still). Readers give buffers back from any thread, at any time, also while the queue is
//! stopped, started again or freed. Two things must never happen then: a buffer queued twice or lost, and a QBUF that
//! arrives after REQBUFS, when the same index may be another buffer that somebody is reading.
//!
//! So giving back is two steps, caller → free → driver, and the second is taken only inside a gate that stopping
//! closes and then waits to be empty. Whoever finds a free buffer while the gate is open may claim it, once: the
//! reader that gave it back, or the start that just opened the gate. A reader that finds the gate closed leaves the
//! buffer free, and the next start claims it: it marked it free before it looked at the gate, and start opens the gate
//! before it looks for free buffers, so one of the two sees the other (all operations are SeqCst for this).

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const FREE: u8 = 0;
const DRIVER: u8 = 1;
const CALLER: u8 = 2;

const CLOSED: usize = 1 << (usize::BITS - 1);

/// See the module.
#[derive(Debug)]
pub(super) struct Ownership {
    /// [`CLOSED`], and how many threads are inside.
    gate: AtomicUsize,
    owners: Box<[AtomicU8]>,
}

/// Keeps the gate from being found empty.
pub(super) struct Inside<'a> {
    gate: &'a AtomicUsize,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.gate.fetch_sub(1, SeqCst);
    }
}

impl Ownership {
    /// All buffers free, the gate closed.
    pub(super) fn new(count: usize) -> Ownership {
        Ownership { gate: AtomicUsize::new(CLOSED), owners: (0..count).map(|_| AtomicU8::new(FREE)).collect() }
    }

    /// Number of buffers.
    pub(super) fn count(&self) -> u32 {
        self.owners.len() as u32
    }

    /// How many are the caller's.
    pub(super) fn held(&self) -> usize {
        self.owners.iter().filter(|owner| owner.load(SeqCst) == CALLER).count()
    }

    /// Lets threads in.
    pub(super) fn open(&self) {
        self.gate.fetch_and(!CLOSED, SeqCst);
    }

    /// Lets nobody in any more, and waits until those inside have left: the time of the QBUFs in flight.
    pub(super) fn close(&self) {
        self.gate.fetch_or(CLOSED, SeqCst);
        while self.gate.load(SeqCst) != CLOSED {
            // Sleeping, not yielding: a real-time thread that yields never lets one of lower priority out.
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// In, if the gate is open.
    pub(super) fn enter(&self) -> Option<Inside<'_>> {
        let before = self.gate.fetch_add(1, SeqCst);
        let inside = Inside { gate: &self.gate };
        (before & CLOSED == 0).then_some(inside)
    }

    /// Free → driver. False where it was not free, and somebody else has it. Only inside the gate.
    pub(super) fn claim(&self, index: u32) -> bool {
        self.pass(index, FREE, DRIVER)
    }

    /// Driver → free: the QBUF that followed the claim failed.
    pub(super) fn unclaim(&self, index: u32) {
        self.pass(index, DRIVER, FREE);
    }

    /// Driver → caller. False where it was not the driver's.
    pub(super) fn dequeued(&self, index: u32) -> bool {
        self.pass(index, DRIVER, CALLER)
    }

    /// Caller → free. False where it was not the caller's.
    pub(super) fn give_back(&self, index: u32) -> bool {
        self.pass(index, CALLER, FREE)
    }

    /// Driver → free, for all: STREAMOFF has taken everything from the driver. The gate must be closed.
    pub(super) fn take_all_from_driver(&self) {
        for index in 0..self.count() {
            self.unclaim(index);
        }
    }

    fn pass(&self, index: u32, from: u8, to: u8) -> bool {
        let owner = self.owners.get(index as usize);
        owner.is_some_and(|owner| owner.compare_exchange(from, to, SeqCst, SeqCst).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    use super::*;

    #[test]
    fn closed_gate_lets_nobody_in() {
        assert!(Ownership::new(1).enter().is_none());
    }

    #[test]
    fn closing_waits_for_those_inside() {
        let o = Ownership::new(1);
        o.open();
        let left = AtomicBool::new(false);
        let inside = o.enter().unwrap();
        std::thread::scope(|s| {
            s.spawn(|| {
                o.close();
                assert!(left.load(SeqCst));
            });
            std::thread::sleep(Duration::from_millis(20));
            left.store(true, SeqCst);
            drop(inside);
        });
    }

    #[test]
    fn giving_back_twice_is_noticed() {
        let o = Ownership::new(1);
        assert!(o.claim(0) && o.dequeued(0));
        assert!(o.give_back(0) && !o.give_back(0));
    }

    #[test]
    fn index_out_of_range_is_nobodys() {
        let o = Ownership::new(1);
        assert!(!o.claim(1) && !o.dequeued(1) && !o.give_back(1));
    }

    /// A reader gives a buffer back in three steps while the owner starts the queue in two: in whatever order they fall,
    /// exactly one of them queues it. (Each step is one atomic operation, so these orders are all there are.)
    #[test]
    fn reader_and_start_queue_a_buffer_once_in_every_order() {
        for order in 0u32..1 << 5 {
            if order.count_ones() != 3 {
                continue;
            }
            let o = Ownership::new(1);
            assert!(o.claim(0) && o.dequeued(0));
            let mut inside = None;
            let mut queued = 0;
            let (mut reader, mut start) = (0, 0);
            for step in 0..5 {
                if order & 1 << step != 0 {
                    match reader {
                        0 => assert!(o.give_back(0)),
                        1 => inside = o.enter(),
                        _ => queued += u32::from(inside.is_some() && o.claim(0)),
                    }
                    reader += 1;
                } else {
                    match start {
                        0 => o.open(),
                        _ => queued += u32::from(o.claim(0)),
                    }
                    start += 1;
                }
            }
            assert_eq!(queued, 1, "order {order:05b}");
        }
    }

    /// The driver of this test: QBUF into a set, which must not hold the buffer yet, and only while allowed.
    struct Driver {
        queued: [AtomicBool; 4],
        allowed: AtomicBool,
    }

    impl Driver {
        fn qbuf(&self, index: u32) {
            assert!(self.allowed.load(SeqCst), "QBUF after the gate was closed");
            assert!(!self.queued[index as usize].swap(true, SeqCst), "buffer {index} queued twice");
        }
    }

    fn give_back(o: &Ownership, driver: &Driver, index: u32) {
        assert!(o.give_back(index), "buffer {index} was not held");
        if let Some(_inside) = o.enter()
            && o.claim(index)
        {
            driver.qbuf(index);
        }
    }

    /// Readers on four threads give back what a capture thread dequeues, while it stops and starts all the time.
    #[test]
    fn no_buffer_is_lost_or_queued_twice_while_stopping_and_starting() {
        let o = Ownership::new(4);
        let driver = Driver { queued: Default::default(), allowed: AtomicBool::new(false) };
        let held: [AtomicBool; 4] = Default::default();
        let done = AtomicBool::new(false);
        std::thread::scope(|s| {
            for (index, held) in held.iter().enumerate() {
                let (o, driver, done) = (&o, &driver, &done);
                s.spawn(move || {
                    while !done.load(SeqCst) {
                        if held.swap(false, SeqCst) {
                            give_back(o, driver, index as u32);
                        }
                        std::hint::spin_loop();
                    }
                });
            }
            let until = Instant::now() + Duration::from_millis(500);
            while Instant::now() < until {
                driver.allowed.store(true, SeqCst);
                o.open();
                for index in (0..4).filter(|&index| o.claim(index)) {
                    driver.qbuf(index);
                }
                for (index, held) in (0..4).zip(&held).cycle().take(40) {
                    if driver.queued[index as usize].swap(false, SeqCst) {
                        assert!(o.dequeued(index));
                        held.store(true, SeqCst);
                    }
                }
                o.close();
                driver.allowed.store(false, SeqCst);
                o.take_all_from_driver();
                driver.queued.iter().for_each(|queued| queued.store(false, SeqCst));
            }
            done.store(true, SeqCst);
        });
        for (index, held) in (0..4).zip(&held) {
            if held.load(SeqCst) {
                give_back(&o, &driver, index);
            }
        }
        assert_eq!(o.held(), 0);
        o.open();
        assert!((0..4).all(|index| o.claim(index)), "a buffer was lost");
    }
}
