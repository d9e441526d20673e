//! vim2m: every pixel is what its formula makes of the pixel that went in.

use std::collections::BTreeMap;
use std::time::Duration;

use shrbuf::Format;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::v4l2::{Memory, V4l2M2m};
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::supervise::Error;
use shrbuf_pipeline::{
    Build, Context, Element, Failure, FailureKind, Frame, Origin, Ports, Rate, Role, Size, Timestamp,
};
use shrbuf_tests::{Footprint, Late, counts, growth, own, run_frames};

use super::{endures, m2m, node, row, source, unplugged_at};

const SIZE: (u32, u32) = (320, 240);

/// What vim2m makes of two neighbouring pixels, by its own integer arithmetic.
fn two(format: Format, p: [[u8; 3]; 2]) -> Vec<u8> {
    let [r, g, b] = [0, 1, 2].map(|c| [i32::from(p[0][c]), i32::from(p[1][c])]);
    let y = |i: usize| ((8453 * r[i] + 16594 * g[i] + 3223 * b[i] + 524_288) >> 15) as u8;
    match format {
        Format::Rg24 => p.iter().flat_map(|[r, g, b]| [*b, *g, *r]).collect(),
        // Its loop forgets to go on to the second pixel.
        Format::Rg16 => {
            let [r, g, b] = p[0].map(u16::from);
            (((r << 8) & 0xf800) | ((g << 3) & 0x07e0) | (b >> 3)).to_le_bytes().repeat(2)
        }
        Format::Yuyv => {
            let u = ((-4878 * r[0] - 9578 * g[0] + 14456 * b[0] + 4_210_688) >> 15) as u8;
            let v = ((14456 * r[0] - 12105 * g[0] - 2351 * b[0] + 4_210_688) >> 15) as u8;
            vec![y(0), u, y(1), v]
        }
        _ => p.concat(),
    }
}

fn converts(to: Format, size: (u32, u32)) {
    let Some(device) = node("vim2m", false, false) else { return };
    let element = V4l2M2m { size: Some(Size::new(size.0, size.1)), ..m2m(&device, Some(to)) };
    converts_with(source(Format::Bg24, SIZE.0, SIZE.1), element, None);
}

/// Compares what comes out with what the formula makes of what went in; says where the memory on each side is from.
fn converts_with(source: TestSrc, element: V4l2M2m, late: Option<usize>) -> Vec<Origin> {
    let before = Footprint::now();
    let (from, to) = (source.size, element.format.unwrap());
    let late_ones = late.map(|buffers| Late::new(buffers, 0) as Box<dyn Element>);
    let all = [source.build().unwrap()].into_iter().chain(late_ones).chain([element.build().unwrap()]).collect();
    let (graph, sent, made) = row(all);

    let frames = late.map_or(30, |buffers| 10 * buffers as u64);
    let report = run_frames(graph, frames);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(made.sequences(), sent.sequences());
    let name = if late.is_some() { "e2" } else { "e1" };
    assert_eq!(counts(&report.graph, name).frames, frames);
    match late {
        // Where there are indices for all, each is imported once.
        Some(buffers @ 33..) => assert!(own(&report.graph, name, "late") > buffers as u64),
        late => assert_eq!(own(&report.graph, name, "late"), late.unwrap_or(0) as u64),
    }
    assert_eq!(report.graph.ledger().copied(), 0);
    let made_sizes = made.sizes();
    let (sent, made) = (sent.copies(), made.copies());
    assert!(!made.is_empty());
    let [size] = made_sizes[..] else { panic!("{made_sizes:?}") };
    let (step_x, step_y) = (from.width / size.width, from.height / size.height);
    for (sequence, picture) in &made {
        let rgb = &sent[sequence][0];
        let pixel = |x: u32, y: u32| {
            let at = 3 * (y * step_y * from.width + x * step_x) as usize;
            [rgb[at], rgb[at + 1], rgb[at + 2]]
        };
        let pairs = (0..size.height).flat_map(|y| (0..size.width).step_by(2).map(move |x| (x, y)));
        let expected: Vec<u8> = pairs.flat_map(|(x, y)| two(to, [pixel(x, y), pixel(x + 1, y)])).collect();
        let wrong = expected.iter().zip(&picture[0]).position(|(e, p)| e != p);
        assert_eq!((expected.len(), wrong), (picture[0].len(), None), "{to} frame {sequence}");
    }
    let origins = report.plan.links.iter().map(|l| l.stream.origin).collect();
    drop(report);
    assert_eq!(Footprint::now(), before);
    origins
}

#[test]
fn memory_that_nobody_knew_of_is_imported_as_it_comes_once_where_there_are_indices_for_all() {
    for buffers in [10, 40] {
        let Some(device) = node("vim2m", false, false) else { return };
        // At a rate at which there is always a buffer, though the driver's worker be behind by many frames' time.
        let rate = Rate::new(if buffers == 10 { 30 } else { 100 }, 1);
        let source = TestSrc { free_run: false, rate, ..source(Format::Bg24, SIZE.0, SIZE.1) };
        converts_with(source, m2m(&device, Some(Format::Rg24)), Some(buffers));
    }
}

/// Passes each frame on twice.
struct Twice;

impl Element for Twice {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        let again = Frame { timestamp: Timestamp(frame.timestamp.0 + 1_000_000), ..frame.clone() };
        context.push(0, frame)?;
        context.push(0, again)
    }
}

#[test]
fn a_frame_that_is_repeated_while_the_driver_has_it_is_not_late() {
    let Some(device) = node("vim2m", false, false) else { return };
    let source = TestSrc { free_run: false, ..source(Format::Bg24, SIZE.0, SIZE.1) };
    let element = m2m(&device, Some(Format::Rg24)).build().unwrap();
    let (graph, _, made) = row(vec![source.build().unwrap(), Box::new(Twice), element]);

    let report = run_frames(graph, 30);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!((made.sequences().len(), own(&report.graph, "e2", "late")), (60, 0));
}

#[test]
fn rgb_becomes_bgr() {
    converts(Format::Rg24, SIZE);
}

#[test]
fn rgb_becomes_rgb565() {
    converts(Format::Rg16, SIZE);
}

#[test]
fn rgb_becomes_yuyv() {
    converts(Format::Yuyv, SIZE);
}

#[test]
fn rgb_stays_rgb() {
    converts(Format::Bg24, SIZE);
}

#[test]
fn a_picture_is_scaled_to_half() {
    converts(Format::Bg24, (SIZE.0 / 2, SIZE.1 / 2));
}

#[test]
fn a_picture_of_no_whole_blocks_is_converted_as_it_is() {
    let Some(device) = node("vim2m", false, false) else { return };
    converts_with(source(Format::Bg24, 638, 359), m2m(&device, Some(Format::Yuyv)), None);
}

#[test]
fn both_queues_take_memory_of_a_heap() {
    let Some(device) = node("vim2m", false, false) else { return };
    let source = TestSrc { memory: shrbuf_elements::Memory::DmaHeap, ..source(Format::Bg24, SIZE.0, SIZE.1) };
    let element = V4l2M2m { memory: Memory::DmaHeap, ..m2m(&device, Some(Format::Rg24)) };

    let origins = converts_with(source, element, None);

    assert!(origins.iter().all(|&origin| origin == Origin::DmaHeap), "{origins:?}");
}

#[test]
fn ten_thousand_frames_leave_nothing_behind() {
    let Some(device) = node("vim2m", false, false) else { return };
    let source = source(Format::Rg16, 64, 48).build().unwrap();
    endures(vec![source, m2m(&device, Some(Format::Rg16)).build().unwrap()], growth::frames(10_000));
}

#[test]
fn a_device_that_does_not_go_on_is_stalled() {
    let Some(device) = node("vim2m", false, false) else { return };
    let before = Footprint::now();
    let controls = BTreeMap::from([("transaction_time_msec".to_owned(), Value::Integer(3000))]);
    let slow = V4l2M2m { controls, stall: Duration::from_millis(400), ..m2m(&device, Some(Format::Rg16)) };
    let (graph, ..) = row(vec![source(Format::Rg16, 64, 48).build().unwrap(), slow.build().unwrap()]);

    let error = run_frames(graph, 100).error.unwrap();

    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Stalled), Some("e1")), "{error}");
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_converter_unplugged_in_mid_stream_is_a_typed_error() {
    let Some(device) = node("vim2m", false, false) else { return };
    let before = Footprint::now();
    let element = m2m(&device, Some(Format::Rg16)).build().unwrap();

    unplugged_at("vim2m", 20, vec![source(Format::Rg16, 64, 48).build().unwrap(), element], "e1");

    assert_eq!(Footprint::now(), before);
}

#[test]
fn what_does_not_fit_is_said_before_anything_streams() {
    let Some(device) = node("vim2m", false, false) else { return };
    let refused = |from: Format, width, element: V4l2M2m| {
        let (graph, sent, _) = row(vec![source(from, width, 48).build().unwrap(), element.build().unwrap()]);
        let error = run_frames(graph, 1).error.unwrap();
        assert!(sent.sequences().is_empty());
        error
    };

    let format = refused(Format::Nv12, 64, m2m(&device, None)).to_string();
    assert!(format.contains("NV12") && format.contains("RG16"), "{format}");

    let size = refused(Format::Rg16, 4096, m2m(&device, None)).to_string();
    assert!(size.contains("4096x48") && size.contains("640x480"), "{size}");

    let made = refused(Format::Rg16, 64, m2m(&device, Some(Format::H264))).to_string();
    assert!(made.contains("H264"), "{made}");

    let display = refused(Format::Rg16, 64, m2m("/dev/null", None));
    assert_eq!(display.kind(), Some(FailureKind::Config));
    assert!(matches!(&display, Error::Negotiation(_)) && display.to_string().contains("/dev/null"), "{display}");
}
