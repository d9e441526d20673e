//! Into an encoder that reads whole blocks: from a GPU, which lays its pictures out so; from a camera that writes to a part of
//! its buffers; from one that does not, where room behind the picture does; and where it does not, through a GPU or not
//! at all.

use std::sync::{Arc, Mutex};

use shrbuf::Format;
use shrbuf_elements::gpu::Gpu;
use shrbuf_elements::v4l2::{Device, V4l2Src};
use shrbuf_pipeline::solve::NegotiateOptions;
use shrbuf_pipeline::supervise::{Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Element, Frame, Origin, Size};
use shrbuf_tests::{Footprint, Watch, run_frames, set_control};

use super::codec::{codec, psnr};
use super::{Shown, m2m, row, source};

/// Blocks of 16x16 make 656x368 of it.
const SIZE: Size = Size::new(652, 362);

/// The first camera at its HDMI input, which writes to a part of its buffers or not.
struct Hdmi;

impl Hdmi {
    fn select(composes: bool) -> Option<Hdmi> {
        let device = Device::first().ok().filter(|d| d.capability().driver == "vivid");
        if device.is_none() {
            assert!(std::env::var_os("SHRBUF_REQUIRE_DRIVERS").is_none(), "a vivid is required and missing");
            println!("needs vivid: scripts/test-guest runs this in the virtual machine");
        }
        device?.select_input("HDMI 000-0").unwrap();
        set_control("enable_capture_composing", if composes { "true" } else { "false" });
        Some(Hdmi)
    }

    fn camera(format: Format) -> V4l2Src {
        V4l2Src { format: Some(format), size: Some(SIZE), ..V4l2Src::default() }
    }
}

impl Drop for Hdmi {
    fn drop(&mut self) {
        set_control("enable_capture_composing", "true");
        Device::first().unwrap().select_input("0").unwrap();
    }
}

/// `elements → encoder → decoder`, whose pictures are as they went in but for the loss, and lie alike: returns where the
/// memory that the encoder reads is from, and in which row of it the second plane begins.
fn arrives(elements: Vec<Box<dyn Element>>, format: Format) -> Option<(Origin, u32)> {
    const FRAMES: u64 = 20;
    let (encoder, decoder) = codec()?;
    let before = Footprint::now();
    let sent = Shown::default();
    let (show, at) = (sent.clone(), Arc::new(Mutex::new(0)));
    let second = Arc::clone(&at);
    let watch = Watch::new(move |frame: &Frame| {
        let planes = frame.buffer.layout().planes();
        *second.lock().unwrap() = planes.get(1).map_or(0, |p| p.offset / planes[0].stride);
        show.show(frame);
    });
    let codec: [Box<dyn Element>; 3] =
        [watch, m2m(&encoder, None).build().unwrap(), m2m(&decoder, Some(format)).build().unwrap()];
    let last = elements.len() - 1;
    let (graph, _, got) = row(elements.into_iter().chain(codec).collect());

    let report = run_frames(graph, FRAMES);

    assert!(report.error.is_none(), "{format}: {}", report.error.unwrap());
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    assert_eq!(got.sizes(), [SIZE]);
    assert_eq!(got.sequences(), sent.sequences());
    let (sent, got) = (sent.copies(), got.copies());
    let worst = got.iter().map(|(n, planes)| psnr(planes, &sent[n])).fold(f64::INFINITY, f64::min);
    println!("{format} {SIZE}: worst of {} frames {worst:.1} dB", got.len());
    assert!(worst > 30.0, "{format}: {worst:.1} dB");
    let from = format!("e{last}");
    let origin = report.plan.links.iter().find(|l| l.from == from).map(|l| l.stream.origin).unwrap();
    drop(report);
    assert_eq!(Footprint::now(), before);
    let row = *at.lock().unwrap();
    Some((origin, row))
}

#[test]
fn pictures_of_a_gpu() {
    if codec().is_none() {
        return;
    }
    crate::gpu::warm_up();
    let gpu = |format| Gpu { device: Some("software".into()), format: Some(format), ..Gpu::default() };
    for (format, row) in [(Format::Nv12, 368), (Format::Yu12, 368), (Format::Yuyv, 0)] {
        let elements: Vec<Box<dyn Element>> =
            vec![source(Format::Xr24, SIZE.width, SIZE.height).build().unwrap(), gpu(format).build().unwrap()];
        let Some((_, begins)) = arrives(elements, format) else { return };
        assert_eq!(begins, row, "{format}");
    }
}

#[test]
fn pictures_of_a_camera_that_writes_to_a_part_of_its_buffers() {
    for format in [Format::Nv12, Format::Yu12] {
        let Some(_hdmi) = Hdmi::select(true) else { return };
        let Some(found) = arrives(vec![Hdmi::camera(format).build().unwrap()], format) else { return };
        assert_eq!(found, (Origin::V4l2, 368), "{format}");
    }
}

#[test]
fn packed_pictures_of_any_camera() {
    let Some(_hdmi) = Hdmi::select(false) else { return };
    // The room is behind the picture, in memory that the camera is lent.
    let Some(found) = arrives(vec![Hdmi::camera(Format::Yuyv).build().unwrap()], Format::Yuyv) else { return };
    assert_eq!(found, (Origin::DmaHeap, 0));
}

/// `camera → encoder`, of 4:2:0 that the camera lays out without room.
fn encoded(options: NegotiateOptions) -> Option<Report> {
    let (encoder, _) = codec()?;
    let (graph, ..) = row(vec![Hdmi::camera(Format::Nv12).build().unwrap(), m2m(&encoder, None).build().unwrap()]);
    let options = RunOptions { frames: Some(5), negotiate: options, ..RunOptions::default() };
    Some(run(graph, &options, |_| Verdict::Continue))
}

#[test]
fn what_a_camera_lays_out_without_room_is_refused_with_what_would_do() {
    let Some(_hdmi) = Hdmi::select(false) else { return };
    let Some(report) = encoded(NegotiateOptions::default()) else { return };

    let error = report.error.unwrap().to_string();

    assert!(error.contains("NV12 in whole blocks of 16x16, laid out for 656x368"), "{error}");
    assert!(error.contains("cannot be told to write it to a part of its buffers"), "{error}");
    assert!(error.contains("652x352, a format of one plane, or `gpu`"), "{error}");
}

#[test]
fn negotiation_puts_a_gpu_before_the_encoder_where_the_camera_leaves_no_room() {
    let Some(_hdmi) = Hdmi::select(false) else { return };
    let Some(report) = encoded(NegotiateOptions { converters: shrbuf_elements::CONVERTERS }) else { return };

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.links.iter().any(|l| l.reason.contains("by `gpu`")), "{:?}", report.plan.links);
    assert_eq!(report.graph.ledger().copied(), 0);
}
