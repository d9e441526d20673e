//! Every pixel of the screen is that of one of our frames, whole.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shrbuf::{Format, Ledger, Reason, Shrbuf};
use shrbuf_elements::Memory;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_pipeline::supervise::{Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Element, Rate, Size};
use shrbuf_tests::{Footprint, counts, on_test_drivers};

use crate::weston::Weston;
use crate::{SIZE, alone, graph, own, pictures, window};

/// More than go by while a screenshot is taken, which is seconds where that is emulated.
const KEPT: usize = 200;
const SCREENSHOTS: usize = 4;

/// The visible bytes of a picture of 4 bytes a pixel: blue, green, red.
fn pixels(buffer: &Shrbuf) -> Vec<[u8; 3]> {
    let account = Ledger::default().account("test", Reason::Inspect);
    let layout = buffer.layout();
    let mut row = vec![0; layout.row_bytes(0) as usize];
    let guard = buffer.read().unwrap();
    let mut all = Vec::with_capacity((layout.width * layout.height) as usize);
    for y in 0..layout.height as usize {
        guard.plane(0).read(y, 0, &mut row, &account);
        all.extend(row.chunks_exact(4).map(|p| [p[0], p[1], p[2]]));
    }
    all
}

/// Runs until some screenshots have been compared with the frames that went by; says how many pictures were among them.
fn every_pixel(source: Box<dyn Element>, size: Size) -> Option<(Report, usize)> {
    let weston = Weston::start(size)?;
    let recent: Arc<Mutex<VecDeque<Vec<[u8; 3]>>>> = Arc::default();
    let frames = Arc::clone(&recent);
    let graph = graph(source, window(&weston), move |frame| {
        let mut frames = frames.lock().unwrap();
        frames.push_back(pixels(&frame.buffer));
        if frames.len() > KEPT {
            frames.pop_front();
        }
    });
    let mut shown: Vec<Vec<[u8; 3]>> = Vec::new();

    let report = run(graph, &RunOptions::default(), |progress| {
        let Progress::Running(graph, _) = progress else { return Verdict::Continue };
        if shown.len() == SCREENSHOTS {
            return Verdict::End;
        }
        // Not before the first is on screen.
        if counts(graph, "window").latency.is_none() {
            return Verdict::Continue;
        }
        let screen: Vec<[u8; 3]> = weston.screen().chunks_exact(4).map(|p| [p[2], p[1], p[0]]).collect();
        let frames = recent.lock().unwrap();
        let differs = |f: &Vec<[u8; 3]>| f.iter().zip(&screen).filter(|(a, b)| a != b).count();
        let nearest = frames.iter().min_by_key(|f| differs(f)).unwrap();
        let wrong = nearest.iter().zip(&screen).enumerate().find(|(_, (drawn, shown))| drawn != shown);
        let of = (differs(nearest), frames.len());
        assert_eq!(wrong, None, "at pixel; {} pixels differ from the most similar of the last {} frames", of.0, of.1);
        shown.push(screen);
        Verdict::Continue
    });

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    shown.sort();
    shown.dedup();
    Some((report, shown.len()))
}

fn test_pictures(memory: Memory) {
    let before = Footprint::now();
    let source = TestSrc { memory, format: Some(Format::Xr24), ..pictures() };

    let Some((report, different)) = every_pixel(source.build().unwrap(), SIZE) else { return };

    assert_eq!(different, SCREENSHOTS, "each screenshot shows another frame");
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    assert!(own(&report, "presented") > 0);
    let latency = counts(&report.graph, "window").latency;
    assert!(latency.is_some(), "the compositor said when frames were shown");
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn memfds_are_on_screen() {
    let _alone = alone();
    test_pictures(Memory::Memfd);
}

#[test]
fn dma_bufs_of_ordinary_pages_are_on_screen() {
    let _alone = alone();
    if on_test_drivers() {
        test_pictures(Memory::Udmabuf);
    }
}

#[test]
fn a_cameras_dma_bufs_are_on_screen() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let camera = V4l2Src {
        format: Some(Format::Xr24),
        size: Some(SIZE),
        rate: Some(Rate::new(15, 1)),
        stall: Some(Duration::from_secs(60)),
        ..V4l2Src::default()
    };

    let (report, different) = every_pixel(camera.build().unwrap(), SIZE).unwrap();

    assert_eq!(different, SCREENSHOTS, "each screenshot shows another frame");
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    drop(report);
    assert_eq!(Footprint::now(), before);
}
