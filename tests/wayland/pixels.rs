//! Every pixel of the screen is that of one of our frames, whole.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shrbuf::{Format, Ledger, Reason, Shrbuf};
use shrbuf_elements::Memory;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_elements::wayland::WaylandSink;
use shrbuf_pipeline::supervise::{Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Element, Rate, Size};
use shrbuf_tests::{Footprint, counts, on_test_drivers, run_frames};

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

/// A pixel as it should be on screen, blue, green, red; `None` where the compositor's filter decides.
type Expected = Option<[u8; 3]>;

/// A screen, and what should be on it of a frame.
struct Screen {
    size: Size,
    of: fn(&Shrbuf) -> Vec<Expected>,
    /// How far off a value may be: 0, or 1 where there is something to round.
    tolerance: u8,
}

/// As they are.
const EXACT: Screen = Screen { size: SIZE, of: |buffer| pixels(buffer).into_iter().map(Some).collect(), tolerance: 0 };

/// Runs until some screenshots have been compared with the frames that went by; says how many pictures were among them.
fn every_pixel(source: Box<dyn Element>, size: Size) -> Option<(Report, usize)> {
    on_screen(source, WaylandSink::default(), &Screen { size, ..EXACT })
}

fn on_screen(source: Box<dyn Element>, sink: WaylandSink, screen: &Screen) -> Option<(Report, usize)> {
    let weston = Weston::start(screen.size)?;
    let recent: Arc<Mutex<VecDeque<Vec<Expected>>>> = Arc::default();
    let (frames, expected) = (Arc::clone(&recent), screen.of);
    let WaylandSink { display, stall, .. } = window(&weston);
    let graph = graph(source, WaylandSink { display, stall, ..sink }, move |frame| {
        let mut frames = frames.lock().unwrap();
        frames.push_back(expected(&frame.buffer));
        if frames.len() > KEPT {
            frames.pop_front();
        }
    });
    let mut shown: Vec<Vec<[u8; 3]>> = Vec::new();
    let off = |(expected, shown): (&Expected, &[u8; 3])| {
        expected.is_some_and(|e| e.iter().zip(shown).any(|(a, b)| a.abs_diff(*b) > screen.tolerance))
    };

    let report = run(graph, &RunOptions::default(), |progress| {
        let Progress::Running(graph, _) = progress else { return Verdict::Continue };
        if shown.len() == SCREENSHOTS {
            return Verdict::End;
        }
        // Not before the first is on screen.
        if counts(graph, "window").latency.is_none() {
            return Verdict::Continue;
        }
        let seen: Vec<[u8; 3]> = weston.screen().chunks_exact(4).map(|p| [p[2], p[1], p[0]]).collect();
        let frames = recent.lock().unwrap();
        let differs = |f: &Vec<Expected>| f.iter().zip(&seen).filter(|&pair| off(pair)).count();
        let nearest = frames.iter().min_by_key(|f| differs(f)).unwrap();
        // A picture that says nothing of most pixels would prove nothing.
        assert_eq!(nearest.len(), seen.len());
        assert!(nearest.iter().flatten().count() * 10 > seen.len() * 7, "{}", nearest.iter().flatten().count());
        let wrong = nearest.iter().zip(&seen).enumerate().find(|&(_, pair)| off(pair));
        let of = (differs(nearest), frames.len());
        assert_eq!(wrong, None, "at pixel; {} pixels differ from the most similar of the last {} frames", of.0, of.1);
        shown.push(seen);
        Verdict::Continue
    });

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    shown.sort();
    shown.dedup();
    Some((report, shown.len()))
}

/// A buffer's planes without padding, each with the bytes of its rows.
fn planes(buffer: &Shrbuf) -> Vec<(Vec<u8>, usize)> {
    let account = Ledger::default().account("test", Reason::Inspect);
    let layout = buffer.layout();
    let guard = buffer.read().unwrap();
    let plane = |p| {
        let mut row = vec![0; layout.row_bytes(p) as usize];
        let mut bytes = Vec::new();
        for y in 0..layout.rows(p) as usize {
            guard.plane(p).read(y, 0, &mut row, &account);
            bytes.extend_from_slice(&row);
        }
        (bytes, row.len())
    };
    (0..layout.planes().len()).map(plane).collect()
}

/// BT.601 of limited range as blue, green, red.
fn bt601(y: u8, [u, v]: [u8; 2]) -> [u8; 3] {
    let y = (f64::from(y) - 16.0) * 255.0 / 219.0;
    let [u, v] = [u, v].map(|c| (f64::from(c) - 128.0) * 255.0 / 224.0);
    [y + 1.772 * u, y - 0.344_136 * u - 0.714_136 * v, y + 1.402 * v].map(|c| c.round().clamp(0.0, 255.0) as u8)
}

/// What a picture is in RGB, wherever the chroma around a pixel is all the same: how it is filtered is the compositor's.
fn from_yuv(
    size: Size,
    (hsub, vsub): (u32, u32),
    luma: impl Fn(u32, u32) -> u8,
    chroma: impl Fn(u32, u32) -> [u8; 2],
) -> Vec<Expected> {
    let last = (size.width / hsub - 1, size.height / vsub - 1);
    let pixel = |x: u32, y: u32| {
        let (cx, cy) = (x / hsub, y / vsub);
        let across = cx.saturating_sub(1)..=(cx + 1).min(last.0);
        let own = chroma(cx, cy);
        let same = across.flat_map(|x| (cy.saturating_sub(1)..=(cy + 1).min(last.1)).map(move |y| (x, y)));
        let same = same.into_iter().all(|(x, y)| chroma(x, y) == own);
        same.then(|| bt601(luma(x, y), own))
    };
    (0..size.height).flat_map(|y| (0..size.width).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect()
}

fn yuyv(buffer: &Shrbuf) -> Vec<Expected> {
    let (bytes, row) = planes(buffer).remove(0);
    let at = |x: u32, y: u32| y as usize * row + x as usize;
    let chroma = |x: u32, y: u32| [bytes[at(4 * x + 1, y)], bytes[at(4 * x + 3, y)]];
    from_yuv(SIZE, (2, 1), |x, y| bytes[at(2 * x, y)], chroma)
}

fn nv12(buffer: &Shrbuf) -> Vec<Expected> {
    let [(luma, row), (pairs, pair_row)] = &planes(buffer)[..] else { panic!("NV12 has two planes") };
    let at = |x: u32, y: u32| y as usize * pair_row + 2 * x as usize;
    let chroma = |x: u32, y: u32| [pairs[at(x, y)], pairs[at(x, y) + 1]];
    from_yuv(SIZE, (2, 2), |x, y| luma[y as usize * row + x as usize], chroma)
}

/// Colours of a stated matrix and range, which are those that a compositor takes for granted at this size.
fn yuv_pictures(format: Format, memory: Memory, of: fn(&Shrbuf) -> Vec<Expected>) {
    let source = TestSrc { memory, format: Some(format), ..pictures() };
    let screen = Screen { size: SIZE, of, tolerance: 1 };
    let Some((report, different)) = on_screen(source.build().unwrap(), WaylandSink::default(), &screen) else { return };

    assert_eq!(different, SCREENSHOTS, "each screenshot shows another frame");
    assert_eq!(report.plan.links[1].stream.format, format);
    assert_eq!((report.graph.ledger().copied(), own(&report, "miscolored")), (0, 0));
}

#[test]
fn yuyv_in_a_memfd_has_its_colours_on_screen() {
    let _alone = alone();
    yuv_pictures(Format::Yuyv, Memory::Memfd, yuyv);
}

#[test]
fn yuyv_in_a_dma_buf_has_its_colours_on_screen() {
    let _alone = alone();
    if on_test_drivers() {
        yuv_pictures(Format::Yuyv, Memory::Udmabuf, yuyv);
    }
}

#[test]
fn nv12_in_a_dma_buf_has_its_colours_on_screen() {
    let _alone = alone();
    if on_test_drivers() {
        yuv_pictures(Format::Nv12, Memory::Udmabuf, nv12);
    }
}

/// On a screen twice as wide and high: as in the picture, wherever all around a pixel is the same.
fn doubled(buffer: &Shrbuf) -> Vec<Expected> {
    let picture = pixels(buffer);
    let at = |x: u32, y: u32| picture[(y * SIZE.width + x) as usize];
    let pixel = |x: u32, y: u32| {
        let (x, y) = (x / 2, y / 2);
        let (right, below) = ((x + 1).min(SIZE.width - 1), (y + 1).min(SIZE.height - 1));
        let around = [x.saturating_sub(1), x, right].map(|x| [y.saturating_sub(1), y, below].map(|y| at(x, y)));
        around.iter().flatten().all(|p| *p == at(x, y)).then(|| at(x, y))
    };
    (0..2 * SIZE.height).flat_map(|y| (0..2 * SIZE.width).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect()
}

#[test]
fn a_full_screen_window_fills_a_screen_twice_as_large() {
    let _alone = alone();
    let source = TestSrc { memory: Memory::Memfd, format: Some(Format::Xr24), ..pictures() };
    let screen = Screen { size: Size::new(2 * SIZE.width, 2 * SIZE.height), of: doubled, tolerance: 1 };
    let sink = WaylandSink { fullscreen: true, ..WaylandSink::default() };

    let Some((report, different)) = on_screen(source.build().unwrap(), sink, &screen) else { return };

    assert_eq!(different, SCREENSHOTS, "each screenshot shows another frame");
    assert_eq!(report.plan.links[1].stream.size, SIZE);
}

fn test_pictures(memory: Memory) {
    let before = Footprint::now();
    let source = TestSrc { memory, format: Some(Format::Xr24), ..pictures() };

    let Some((report, different)) = every_pixel(source.build().unwrap(), SIZE) else { return };

    assert_eq!(different, SCREENSHOTS, "each screenshot shows another frame");
    let zero_copy = report.plan.links.iter().all(|l| l.zero_copy && !l.reason.contains("copied by the compositor"));
    assert_eq!(zero_copy, memory != Memory::Memfd, "{:?}", report.plan);
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
fn the_camera_to_window_example_shows_the_camera() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let weston = Weston::start(SIZE).unwrap();
    let here = format!("type = \"wayland-sink\"\nstall = \"60s\"\ndisplay = \"{}\"", weston.socket());
    let example = include_str!("../../examples/camera-to-window.toml");
    assert!(example.contains("type = \"wayland-sink\""));
    let example = example.replace("type = \"wayland-sink\"", &here);
    let graph = shrbuf_pipeline::file::load("camera-to-window", &example, &shrbuf_elements::types(), &[]).unwrap();

    let report = run_frames(graph, 30);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!((report.restarts, counts(&report.graph, "camera").frames), (0, 30));
    // Live: what comes while a frame is on its way to the screen is not waited for.
    let window = counts(&report.graph, "window");
    assert_eq!(window.dropped + own(&report, "commits"), 30, "{window}");
    assert!(own(&report, "presented") > 0);
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    drop(report);
    drop(weston);
    assert_eq!(Footprint::now(), before);
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
