//! Every pixel: what the writeback connector reads off the screen is what vivid drew.

use std::sync::{Arc, Mutex};

use shrbuf::{Format, Ledger, Reason, Shrbuf};
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_pipeline::supervise::{RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Frame, Graph, Rate, Size};
use shrbuf_tests::{Footprint, on_test_drivers};

/// Frames of each size and format: vkms composes every one in software, which takes long where it is emulated.
fn frames() -> u64 {
    std::env::var("SHRBUF_FRAMES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

#[derive(Debug, Default)]
struct Compared {
    frames: u64,
    first_wrong: Option<String>,
}

/// Colours of a pixel as vkms computes them: to 16 bits a channel by rounding, and back to 8.
fn expand(bits: u32, value: u16) -> u8 {
    let max = (1u32 << bits) - 1;
    let wide = (u32::from(value) * 65535 + max / 2) / max;
    ((wide + 128) / 257) as u8
}

fn expected(format: Format, row: &[u8]) -> Vec<[u8; 3]> {
    match format {
        Format::Xr24 => row.chunks_exact(4).map(|p| [p[0], p[1], p[2]]).collect(),
        _ => {
            let words = row.chunks_exact(2).map(|p| u16::from_le_bytes([p[0], p[1]]));
            words.map(|w| [expand(5, w & 31), expand(6, w >> 5 & 63), expand(5, w >> 11)]).collect()
        }
    }
}

fn compare(frame: &Frame, screen: &Shrbuf, compared: &mut Compared) {
    let account = Ledger::default().account("test", Reason::Inspect);
    let (source, shown) = (frame.buffer.layout(), screen.layout());
    // A frame smaller than the mode is in the middle of it.
    let left = (shown.width - source.width) / 2;
    let top = (shown.height - source.height) / 2;
    let mut drawn = vec![0; source.row_bytes(0) as usize];
    let mut read_back = vec![0; source.width as usize * 4];
    let (frame_guard, screen_guard) = (frame.buffer.read().unwrap(), screen.read().unwrap());
    for y in 0..source.height as usize {
        frame_guard.plane(0).read(y, 0, &mut drawn, &account);
        screen_guard.plane(0).read(y + top as usize, left as usize * 4, &mut read_back, &account);
        let want = expected(source.format, &drawn);
        let got = read_back.chunks_exact(4).map(|p| [p[0], p[1], p[2]]);
        if let Some((x, (want, got))) = want.into_iter().zip(got).enumerate().find(|(_, (w, g))| w != g) {
            let text = format!("frame {} at {x},{y}: drawn {want:?}, on screen {got:?}", frame.sequence);
            compared.first_wrong.get_or_insert(text);
            break;
        }
    }
    compared.frames += 1;
}

fn every_pixel(format: Format, width: u32, height: u32) {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let compared = Arc::new(Mutex::new(Compared::default()));
    let result = Arc::clone(&compared);
    let camera = V4l2Src {
        format: Some(format),
        size: Some(Size::new(width, height)),
        rate: Some(Rate::new(30, 1)),
        ..V4l2Src::default()
    };
    let display = KmsSink::default().build_capturing(Box::new(move |frames, screen| {
        compare(frames[0], screen, &mut compared.lock().unwrap());
    }));
    let mut graph = Graph::new("pixels");
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let display = graph.add("display", display).unwrap();
    graph.link(camera, display).unwrap();

    // The flip that sets the mode cannot be captured.
    let options = RunOptions { frames: Some(frames() + 1), ..RunOptions::default() };
    let report = run(graph, &options, |_| Verdict::Continue);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let result = result.lock().unwrap();
    assert_eq!(result.first_wrong, None);
    assert_eq!(result.frames, frames());
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn xr24_smaller_than_any_mode() {
    every_pixel(Format::Xr24, 320, 180);
}

#[test]
fn xr24_of_the_smallest_mode() {
    every_pixel(Format::Xr24, 640, 480);
}

#[test]
fn xr24_640x360() {
    every_pixel(Format::Xr24, 640, 360);
}

#[test]
fn xr24_720p() {
    every_pixel(Format::Xr24, 1280, 720);
}

#[test]
fn rg16_smaller_than_any_mode() {
    every_pixel(Format::Rg16, 320, 180);
}

#[test]
fn rg16_of_the_smallest_mode() {
    every_pixel(Format::Rg16, 640, 480);
}

#[test]
fn rg16_640x360() {
    every_pixel(Format::Rg16, 640, 360);
}

#[test]
fn rg16_720p() {
    every_pixel(Format::Rg16, 1280, 720);
}
