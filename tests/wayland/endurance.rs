//! Thousands of frames in a window, and nothing grows.

use std::sync::{Arc, Mutex};

use shrbuf_elements::Memory;
use shrbuf_elements::test_src::{Pattern, TestSrc};
use shrbuf_pipeline::{Build, Size};
use shrbuf_tests::{Footprint, counts, on_test_drivers, run_frames};

use crate::weston::Weston;
use crate::{alone, graph, own, window};

/// With memfds, here.
const FRAMES: u64 = 10_000;
/// With dma-bufs, in the virtual machine: 10,000 take five minutes there.
const DMA_BUF_FRAMES: u64 = 3000;
/// So small that it is the protocol that is tested, and not how fast software composes.
const SMALL: Size = Size::new(64, 36);

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Descriptors of this process, and KiB.
fn now() -> (usize, u64) {
    (std::fs::read_dir("/proc/self/fd").unwrap().count(), resident())
}

#[derive(Debug, Default)]
struct Seen {
    frames: u64,
    /// Early and late: descriptors, KiB.
    noted: Vec<(usize, u64)>,
}

fn thousands(memory: Memory, frames: u64) {
    let before = Footprint::now();
    let Some(weston) = Weston::start_at(SMALL, 1000) else { return };
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let noted = Arc::clone(&seen);
    let source = TestSrc { memory, size: SMALL, free_run: true, pattern: Pattern::Bars, ..TestSrc::default() };
    let graph = graph(source.build().unwrap(), window(&weston), move |_| {
        let mut seen = noted.lock().unwrap();
        seen.frames += 1;
        if seen.frames == 1000 || seen.frames == frames {
            seen.noted.push(now());
        }
    });

    let report = run_frames(graph, frames);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let counted = counts(&report.graph, "window");
    assert_eq!((counted.frames, counted.dropped, own(&report, "commits")), (frames, 0, frames));
    // A window that is covered for a moment is not shown each time; a headless screen covers nothing.
    assert_eq!((own(&report, "presented"), own(&report, "discarded")), (frames, 0));
    // Each buffer was made known once, before the first frame.
    assert_eq!(own(&report, "imports"), u64::from(report.plan.links[0].stream.buffers));
    assert_eq!(report.graph.ledger().copied(), 0);
    let seen = seen.lock().unwrap();
    let [(early_fds, early), (late_fds, late)] = seen.noted[..] else { panic!("{seen:?}") };
    // One more or less: that of a fence on its way.
    assert!(late_fds <= early_fds + 1, "{early_fds} descriptors, then {late_fds}");
    assert!(late <= early + 512, "{early} KiB, then {late} KiB");
    println!("{:?}, {:?}, {early} KiB, then {late} KiB", report.duration, counted.latency);
    drop(seen);
    drop(report);
    drop(weston);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn thousands_of_memfd_frames_leave_nothing() {
    let _alone = alone();
    thousands(Memory::Memfd, FRAMES);
}

#[test]
fn thousands_of_dma_buf_frames_leave_nothing() {
    let _alone = alone();
    if on_test_drivers() {
        thousands(Memory::Udmabuf, DMA_BUF_FRAMES);
    }
}
