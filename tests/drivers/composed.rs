//! Inputs of `kms-sink` that the display controller does not show on planes of their own, composed by `gpu`; and what is
//! read back of the screen. Needs vkms with overlay planes, and Mesa's renderer for the CPU in place of a GPU.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use shrbuf::Format;
use shrbuf_elements::kms::{KmsSink, Planes, Rect, Spot};
use shrbuf_elements::test_src::TestSrc;
use shrbuf_pipeline::solve::NegotiateOptions;
use shrbuf_pipeline::supervise::{Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Graph, Rate, Size};
use shrbuf_tests::{Footprint, Watch, on_test_drivers};

use crate::gpu::{Pixels, rows, warm_up};

const FRAME: Size = Size::new(320, 180);
const MODE: Size = Size::new(640, 480);

/// Pictures by their numbers.
type Drawn = Arc<Mutex<BTreeMap<u64, Pixels<u8>>>>;

fn spot(name: &str, [x, y]: [i32; 2], [width, height]: [u32; 2]) -> Spot {
    Spot::new(name, Rect { x, y, width, height })
}

/// Puts a picture, whole or of half its size, where `spot` says.
fn put(screen: &mut Pixels<f64>, spot: &Spot, picture: &Pixels<u8>) {
    let step = (FRAME.width / spot.at.width) as usize;
    for (y, row) in (spot.at.y..).zip(picture.chunks_exact(step)) {
        for (x, left) in (spot.at.x..).zip((0..row[0].len()).step_by(step)) {
            let Some(row_on) = usize::try_from(y).ok().and_then(|y| screen.get_mut(y)) else { continue };
            let Some(pixel) = usize::try_from(x).ok().and_then(|x| row_on.get_mut(x)) else { continue };
            let block = row.iter().flat_map(|r| &r[left..left + step]);
            let mut mean = [0.0; 3];
            block.for_each(|p| (0..3).for_each(|c| mean[c] += f64::from(p[c]) / (step * step) as f64));
            (0..3).for_each(|c| pixel[c] = mean[c] * spot.opacity + pixel[c] * (1.0 - spot.opacity));
        }
    }
}

fn difference(screen: &Pixels<u8>, expected: &Pixels<f64>) -> f64 {
    let pixels = screen.iter().flatten().flatten().zip(expected.iter().flatten().flatten());
    pixels.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
}

/// Test pictures at `spots`, of which every pixel of the screen is compared with what was drawn.
fn every_pixel(spots: [Spot; 2]) -> Option<Report> {
    if !on_test_drivers() {
        return None;
    }
    const FRAMES: u64 = 20;
    warm_up();
    let before = Footprint::now();
    let drawn: [Drawn; 2] = Default::default();
    let compared: Arc<Mutex<(f64, u64)>> = Arc::default();
    let (known, noted, shown) = (drawn.clone(), Arc::clone(&compared), spots.clone());
    let display = KmsSink { mode: Some(MODE), planes: Planes::new(spots.to_vec()), ..KmsSink::default() };
    let display = display.build_capturing(Box::new(move |frames, screen| {
        assert_eq!(frames.len(), 1);
        let screen = rows(screen);
        let [first, second] = [0, 1].map(|i| known[i].lock().unwrap());
        let mut below = vec![vec![[0.0; 3]; MODE.width as usize]; MODE.height as usize];
        put(&mut below, &shown[0], &first[&frames[0].sequence]);
        // Of the second input it is the newest there was.
        let newest = second.range(..=frames[0].sequence + 1).rev().take(3).map(|(_, picture)| {
            let mut expected = below.clone();
            put(&mut expected, &shown[1], picture);
            difference(&screen, &expected)
        });
        let least = newest.fold(f64::MAX, f64::min);
        let mut noted = noted.lock().unwrap();
        *noted = (noted.0.max(least), noted.1 + 1);
    }));
    let mut graph = Graph::new("composed");
    graph.add("display", display).unwrap();
    for (spot, keep) in spots.iter().zip(drawn) {
        let source = TestSrc { size: FRAME, format: Some(Format::Xr24), rate: Rate::new(5, 1), ..TestSrc::default() };
        let source = graph.add(&spot.name, source.build().unwrap()).unwrap();
        let watch = Watch::new(move |f| drop(keep.lock().unwrap().insert(f.sequence, rows(&f.buffer))));
        let watch = graph.add(&format!("watch-{}", spot.name), watch).unwrap();
        graph.link(source, watch).unwrap();
        let output = graph.output(&format!("watch-{}", spot.name)).unwrap();
        let input = graph.input(&format!("display.{}", spot.name)).unwrap();
        graph.link_ports(output, input, None).unwrap();
    }
    let negotiate = NegotiateOptions { converters: shrbuf_elements::CONVERTERS };
    let options = RunOptions { frames: Some(FRAMES), negotiate, ..RunOptions::default() };

    let mut report = run(graph, &options, |_| Verdict::Continue);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    let (most, compared) = *compared.lock().unwrap();
    assert!(most <= 1.0, "{most}, of {compared} pictures");
    assert!(compared >= FRAMES / 3, "{compared} pictures");
    report.graph = Graph::new("");
    assert_eq!(Footprint::now(), before);
    Some(report)
}

fn reason(report: &Report) -> &str {
    let composed = report.plan.links.iter().find(|l| l.to == "display").unwrap();
    assert_eq!(composed.from, "inputs→display gpu");
    &composed.reason
}

#[test]
fn what_would_have_to_be_scaled() {
    let Some(report) = every_pixel([spot("first", [0, 0], [320, 180]), spot("small", [330, 20], [160, 90])]) else {
        return;
    };
    let reason = reason(&report);
    assert!(reason.starts_with("2 inputs in one of XR24 640x480 writes 1.2 MB per frame; by `gpu`, "), "{reason}");
    assert!(reason.contains("`small`, 320x180 scaled to 160x90: "), "{reason}");
}

#[test]
fn what_is_to_be_seen_through_and_lies_partly_outside() {
    let glass = Spot { opacity: 0.5, ..spot("glass", [-30, 100], [320, 180]) };
    let Some(report) = every_pixel([spot("first", [400, 350], [320, 180]), Spot { z: 1, ..glass }]) else { return };
    let reason = reason(&report);
    assert!(reason.contains("none can be seen through, as `glass` is to be"), "{reason}");
}
