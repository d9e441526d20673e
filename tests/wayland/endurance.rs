//! Ten thousand frames in a window, and nothing grows.

use shrbuf_elements::Memory;
use shrbuf_elements::test_src::{Pattern, TestSrc};
use shrbuf_pipeline::{Build, Size};
use shrbuf_tests::{Footprint, Growth, counts, growth, on_test_drivers, run_frames};

use crate::weston::Weston;
use crate::{alone, graph, own, window};

const FRAMES: u64 = 10_000;
/// So small that it is the protocol that is tested, and not how fast software composes.
const SMALL: Size = Size::new(64, 36);

fn ten_thousand(memory: Memory, frames: u64) {
    let before = Footprint::now();
    let Some(weston) = Weston::start_at(SMALL, 1000) else { return };
    let growth = Growth::over(frames);
    let watch = growth.clone();
    let source = TestSrc { memory, size: SMALL, free_run: true, pattern: Pattern::Bars, ..TestSrc::default() };
    let graph = graph(source.build().unwrap(), window(&weston), move |_| watch.frame());

    let report = run_frames(graph, frames);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let counted = counts(&report.graph, "window");
    assert_eq!((counted.frames, counted.dropped, own(&report, "commits")), (frames, 0, frames));
    // A window that is covered for a moment is not shown each time; a headless screen covers nothing.
    assert_eq!((own(&report, "presented"), own(&report, "discarded")), (frames, 0));
    // Each buffer was made known once, before the first frame.
    assert_eq!(own(&report, "imports"), u64::from(report.plan.links[0].stream.buffers));
    assert_eq!(report.graph.ledger().copied(), 0);
    // That of a fence.
    growth.assert_none(1);
    println!("{:?}, {:?}", report.duration, counted.latency);
    drop(report);
    drop(weston);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn ten_thousand_memfd_frames_leave_nothing() {
    let _alone = alone();
    ten_thousand(Memory::Memfd, FRAMES);
}

#[test]
fn ten_thousand_dma_buf_frames_leave_nothing() {
    let _alone = alone();
    if on_test_drivers() {
        ten_thousand(Memory::Udmabuf, growth::frames(FRAMES));
    }
}
