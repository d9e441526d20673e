//! vicodec: what is encoded and decoded again is the picture, as nearly as the codec is lossy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use shrbuf::exporter::{DmaHeap, Exporter};
use shrbuf::{Format, Layout, Plane, Segment, Shrbuf};
use shrbuf_elements::test_src::{Pattern, TestSrc};
use shrbuf_elements::v4l2::Memory;
use shrbuf_elements::v4l2::V4l2M2m;
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::{Build, Context, Element, Failure, FailureKind, Frame, Ports, Role, Size, Timestamp};
use shrbuf_tests::{Footprint, Watch, counts, growth, run_frames};

use super::change::{Replay, record};
use super::{endures, m2m, node, row, source, unplugged_at};

pub(super) fn codec() -> Option<(String, String)> {
    Some((node("vicodec", false, true)?, node("vicodec", true, false)?))
}

/// Of all planes together, in decibels.
pub(super) fn psnr(a: &[Vec<u8>], b: &[Vec<u8>]) -> f64 {
    let (a, b) = (a.concat(), b.concat());
    assert_eq!(a.len(), b.len());
    let squares: u64 = a.iter().zip(&b).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
    10.0 * (255.0 * 255.0 * a.len() as f64 / squares.max(1) as f64).log10()
}

/// Passes frames on with another payload.
struct Truncate(u64, fn(u64, u32) -> u32);

impl Element for Truncate {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn process(&mut self, _input: usize, mut frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.0 += 1;
        frame.payload = self.1(self.0, frame.payload);
        context.push(0, frame)
    }
}

/// Encodes and decodes so many pictures; every one comes back at its size, as it was but for the loss. Returns where the
/// second plane began, in rows of the first, on its way into the encoder and out of the decoder.
fn there_and_back(format: Format, size: Size, frames: usize) -> Option<[u32; 2]> {
    let (encoder, decoder) = codec()?;
    let before = Footprint::now();
    let payloads: Arc<Mutex<Vec<u32>>> = Arc::default();
    let seen = Arc::clone(&payloads);
    let rows: [Arc<Mutex<Option<u32>>>; 2] = Default::default();
    let second = |at: &Arc<Mutex<Option<u32>>>| {
        let at = Arc::clone(at);
        Watch::new(move |frame| {
            let planes = frame.buffer.layout().planes();
            *at.lock().unwrap() = Some(planes.get(1).map_or(0, |p| p.offset / planes[0].stride));
        })
    };
    let (graph, sent, got) = row(vec![
        source(format, size.width, size.height).build().unwrap(),
        second(&rows[0]),
        m2m(&encoder, None).build().unwrap(),
        Watch::new(move |frame| seen.lock().unwrap().push(frame.payload)),
        m2m(&decoder, Some(format)).build().unwrap(),
        second(&rows[1]),
    ]);

    let report = run_frames(graph, frames as u64);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(report.restarts, 0);
    assert_eq!(got.sizes(), [size]);
    // Drained: the last frame that went in has come out.
    assert_eq!(got.sequences(), sent.sequences());
    assert_eq!(got.sequences().len(), frames);
    assert_eq!(report.graph.ledger().copied(), 0);
    let payloads = payloads.lock().unwrap();
    let raw = format.frame_bytes(size.width, size.height) as u32;
    assert!(payloads.iter().all(|&bytes| bytes > 0 && bytes < raw), "{payloads:?}");
    let (sent, got) = (sent.copies(), got.copies());
    let worst = got.iter().map(|(n, planes)| psnr(planes, &sent[n])).fold(f64::INFINITY, f64::min);
    println!("{format} {size}: worst of {} frames {worst:.1} dB, {} of {raw} bytes", got.len(), payloads[0]);
    assert!(worst > 30.0, "{format} {size}: {worst:.1} dB");
    drop(report);
    assert_eq!(Footprint::now(), before);
    Some(rows.map(|row| row.lock().unwrap().unwrap()))
}

#[test]
fn every_frame_comes_back_as_it_was_but_for_the_loss() {
    for format in [Format::Yu12, Format::Nv12] {
        there_and_back(format, Size::new(640, 480), 60);
    }
}

#[test]
fn a_picture_that_is_no_whole_blocks_comes_back_at_its_size() {
    // Of 4:2:0 the driver takes blocks of 16x16; both sides have room for the last of them.
    for (size, room) in [(Size::new(640, 360), 368), (Size::new(652, 362), 368), (Size::new(1920, 1080), 1088)] {
        let frames = if size.width < 1000 { 20 } else { 4 };
        for format in [Format::Yu12, Format::Nv12] {
            let Some(rows) = there_and_back(format, size, frames) else { return };
            assert_eq!(rows, [room, room], "{format} {size}");
        }
    }
}

#[test]
fn a_packed_picture_of_1080_lines_comes_back_at_its_size() {
    there_and_back(Format::Yuyv, Size::new(1920, 1080), 4);
}

#[test]
fn ten_thousand_frames_leave_nothing_behind() {
    let Some((encoder, decoder)) = codec() else { return };
    // It is software, which takes long where it is emulated: hence the smallest that it takes, and no frame that it would
    // compare with the one before.
    let alone = BTreeMap::from([("video_gop_size".to_owned(), Value::Integer(1))]);
    let elements: [Box<dyn Element>; 3] = [
        TestSrc { pattern: Pattern::Bars, ..source(Format::Grey, 640, 360) }.build().unwrap(),
        V4l2M2m { controls: alone, ..m2m(&encoder, None) }.build().unwrap(),
        m2m(&decoder, Some(Format::Grey)).build().unwrap(),
    ];
    endures(elements.into(), growth::frames(10_000));
}

#[test]
fn a_decoder_that_finds_other_samples_is_negotiated_anew() {
    let Some((encoder, decoder)) = codec() else { return };
    // 4:2:2, where the decoder's own first choice is 4:2:0.
    let (graph, _, got) = row(vec![
        source(Format::Yuyv, 640, 480).build().unwrap(),
        m2m(&encoder, None).build().unwrap(),
        m2m(&decoder, None).build().unwrap(),
    ]);

    let report = run_frames(graph, 30);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.restarts <= 1, "{}", report.restarts);
    assert!(!got.sequences().is_empty());
    let made = report.plan.links.iter().map(|l| l.stream.format).next_back();
    assert!(made.is_some_and(|f| f.planes().iter().all(|p| p.vsub == 1)), "{made:?}");
}

#[test]
fn a_damaged_frame_is_dropped_and_counted() {
    let Some((encoder, decoder)) = codec() else { return };
    let before = Footprint::now();
    let (graph, _, got) = row(vec![
        source(Format::Yu12, 640, 480).build().unwrap(),
        m2m(&encoder, None).build().unwrap(),
        // The header says more than there is.
        Box::new(Truncate(0, |n, payload| if n % 10 == 5 { payload / 2 } else { payload })),
        m2m(&decoder, Some(Format::Yu12)).build().unwrap(),
    ]);

    let report = run_frames(graph, 100);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let frames = got.sequences().len();
    println!("{frames} of 100 frames, {:?}", counts(&report.graph, "e3"));
    assert!((40..100).contains(&frames), "{frames} of 100");
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_frame_that_claims_more_than_its_buffer_is_bad_data() {
    let Some((encoder, decoder)) = codec() else { return };
    for claims in [|_, _| 0, |_, _| u32::MAX] {
        let (graph, ..) = row(vec![
            source(Format::Yu12, 640, 480).build().unwrap(),
            m2m(&encoder, None).build().unwrap(),
            Box::new(Truncate(0, claims)),
            m2m(&decoder, Some(Format::Yu12)).build().unwrap(),
        ]);

        let error = run_frames(graph, 30).error.unwrap();

        assert_eq!((error.kind(), error.element()), (Some(FailureKind::Data), Some("e3")), "{error}");
    }
}

#[test]
fn a_codec_unplugged_in_mid_stream_is_a_typed_error() {
    let Some((encoder, _)) = codec() else { return };
    let before = Footprint::now();
    let elements = vec![source(Format::Yu12, 640, 480).build().unwrap(), m2m(&encoder, None).build().unwrap()];

    unplugged_at("vicodec", 20, elements, "e1");

    assert_eq!(Footprint::now(), before);
    let (encoder, decoder) = codec().unwrap();
    let recorded = record(&encoder, (640, 480), 1).frames;
    let elements = vec![Replay::of(recorded) as Box<dyn Element>, m2m(&decoder, None).build().unwrap()];

    unplugged_at("vicodec", 20, elements, "e1");

    assert_eq!(Footprint::now(), before);
    // What was bound again works again.
    let (encoder, decoder) = codec().unwrap();
    let (graph, sent, got) = row(vec![
        source(Format::Yu12, 640, 480).build().unwrap(),
        m2m(&encoder, None).build().unwrap(),
        m2m(&decoder, Some(Format::Yu12)).build().unwrap(),
    ]);
    let report = run_frames(graph, 10);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(got.sequences(), sent.sequences());
}

#[test]
fn memory_that_a_codec_cannot_have_is_said() {
    let Some((encoder, decoder)) = codec() else { return };
    let refused = |element: V4l2M2m| {
        let (graph, ..) = row(vec![source(Format::Yu12, 640, 480).build().unwrap(), element.build().unwrap()]);
        run_frames(graph, 1).error.unwrap().to_string()
    };

    let lent = refused(V4l2M2m { memory: Memory::DmaHeap, ..m2m(&encoder, None) });
    assert!(lent.contains("compressed frame"), "{lent}");

    // A decoder takes no pixels.
    let pixels = refused(m2m(&decoder, None));
    assert!(pixels.contains("YU12") && pixels.contains("FWHT"), "{pixels}");
}

#[test]
fn buffers_that_a_codec_cannot_read_are_said_before_anything_streams() {
    let Some((encoder, decoder)) = codec() else { return };
    let heap = || DmaHeap::open("system", "test").unwrap();
    let segment = |width, height| {
        let grey = Layout::linear(Format::Grey, width, height, 1).unwrap();
        Segment::import(Exporter::DmaHeap(heap()).allocate(&grey).unwrap().export(0).unwrap()).unwrap()
    };
    let refused = |segments, layout, device: &str| {
        let frame = Frame::new(Shrbuf::new(segments, layout).unwrap(), Timestamp(0), 0);
        let (graph, sent, _) = row(vec![Replay::of(vec![frame]), m2m(device, None).build().unwrap()]);
        let error = run_frames(graph, 1).error.unwrap().to_string();
        assert!(sent.sequences().is_empty());
        error
    };

    let compressed = Layout::new(Format::Fwht, None, 640, 480, &[Plane::default()]).unwrap();
    let small = refused(vec![segment(64, 64)], compressed, &decoder);
    assert!(small.contains("has 4096 bytes, but the driver needs"), "{small}");

    let plane = |segment, stride| Plane { segment, offset: 0, stride };
    let split = Layout::new(Format::Nv12, None, 640, 480, &[plane(0, 640), plane(1, 640)]).unwrap();
    let apart = refused(vec![segment(640, 480), segment(640, 240)], split, &encoder);
    assert!(apart.contains("one buffer"), "{apart}");

    let padded = Layout::new(Format::Grey, None, 640, 360, &[plane(0, 1024)]).unwrap();
    let rows = refused(vec![segment(1024, 360)], padded, &encoder);
    assert!(rows.contains("rows of 1024") && rows.contains("rows of 640"), "{rows}");
    assert!(rows.contains("GREY 640x360, with rows of 640 bytes, would do"), "{rows}");

    let tight = Layout::linear(Format::Nv12, 640, 360, 1).unwrap();
    let chroma = refused(vec![segment(640, 540)], tight, &encoder);
    assert!(chroma.contains("NV12 640x360 in memory laid out for 640x368"), "{chroma}");
    assert!(chroma.contains("or a format of one plane"), "{chroma}");
}

#[test]
fn the_transcode_example_writes_every_frame() {
    // By default from among more devices: a camera, a converter.
    if codec().is_none() {
        return;
    }
    let film = std::env::temp_dir().join("shrbuf-transcode.y4m");
    let example = include_str!("../../../examples/transcode.toml").replace("film.y4m", &film.display().to_string());
    let graph = shrbuf_pipeline::file::load("transcode", &example, &shrbuf_elements::types(), &[]).unwrap();

    let report = run_frames(graph, 20);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(report.graph.ledger().copied(), 0);
    let bytes = std::fs::metadata(&film).unwrap().len();
    std::fs::remove_file(&film).unwrap();
    // A header line, and one for each frame.
    let pictures = 20 * Format::Yu12.frame_bytes(640, 480);
    assert!((pictures..pictures + 1024).contains(&bytes), "{bytes} bytes");
}
