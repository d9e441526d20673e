//! The screen into an encoder that reads whole blocks, of modes that are none: lines are missing, or columns.

use std::sync::{Arc, Mutex};

use shrbuf::Format;
use shrbuf_elements::kms::{Card, KmsCapture};
use shrbuf_elements::test_src::TestSrc;
use shrbuf_pipeline::{Build, Element, Frame, Origin, Rate, Size};
use shrbuf_tests::{Footprint, Watch, run_frames};

use super::codec::{codec, psnr};
use super::{Planes, Shown, m2m, row};

/// Whether the screen can be read back here: scripts/test-guest has a machine for that, with a mode of 648x362.
fn readable() -> bool {
    let vkms = Card::find().into_iter().flatten().any(|card| card.driver == "vkms");
    assert!(vkms || std::env::var_os("SHRBUF_SCREEN").is_none(), "vkms is required and missing");
    vkms && std::env::var_os("SHRBUF_SCREEN").is_some()
}

/// Without the byte of each pixel that is no colour.
fn colours(planes: &Planes) -> Planes {
    planes.iter().map(|p| p.chunks_exact(4).flat_map(|pixel| pixel[..3].to_vec()).collect()).collect()
}

/// `source → screen → encoder → decoder`: what is on the screen comes out of the decoder, but for the loss.
fn encoded(mode: Size, row_bytes: u32, room: u64) {
    const FRAMES: u64 = 12;
    let Some((encoder, decoder)) = codec().filter(|_| readable()) else { return };
    let before = Footprint::now();
    let size = Size::new(640, 360);
    let source = TestSrc { size, format: Some(Format::Xr24), rate: Rate::new(4, 1), ..TestSrc::default() };
    let screen = KmsCapture { mode: Some(mode), ..KmsCapture::default() };
    let (read, lies) = (Shown::default(), Arc::new(Mutex::new(Vec::new())));
    let (show, note) = (read.clone(), Arc::clone(&lies));
    let watch = Watch::new(move |frame: &Frame| {
        note.lock().unwrap().push((frame.buffer.layout().planes()[0].stride, frame.buffer.segments()[0].size()));
        show.show(frame);
    });
    let elements: Vec<Box<dyn Element>> = vec![
        source.build().unwrap(),
        screen.build().unwrap(),
        watch,
        m2m(&encoder, None).build().unwrap(),
        m2m(&decoder, Some(Format::Xr24)).build().unwrap(),
    ];
    let (graph, _, got) = row(elements);

    let report = run_frames(graph, FRAMES);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    assert!(report.plan.links.iter().any(|l| l.from == "e1" && l.stream.origin == Origin::Dumb));
    assert_eq!(got.sizes(), [mode]);
    assert_eq!(got.sequences(), read.sequences());
    assert!(!got.sequences().is_empty());
    for (stride, bytes) in lies.lock().unwrap().iter() {
        assert_eq!(*stride, row_bytes);
        assert!(*bytes >= room, "{bytes} bytes");
    }
    let (read, got) = (read.copies(), got.copies());
    let worst = got.iter().map(|(n, planes)| psnr(&colours(planes), &colours(&read[n]))).fold(f64::INFINITY, f64::min);
    println!("{mode}: worst of {} pictures {worst:.1} dB", got.len());
    assert!(worst > 30.0, "{mode}: {worst:.1} dB");
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_screen_whose_lines_are_no_whole_blocks_is_encoded() {
    encoded(Size::new(648, 362), 648 * 4, 648 * 4 * 368);
}

#[test]
fn a_screen_whose_columns_are_no_whole_blocks_is_encoded() {
    encoded(Size::new(1366, 768), 1368 * 4, 1368 * 4 * 768);
}
