//! Rows that are longer than the picture's: a driver that cannot be told of them is given none, and one that can has its
//! picture where it says.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use shrbuf::Format;
use shrbuf_elements::gpu::Gpu;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::tee::Tee;
use shrbuf_elements::v4l2::{Device, Memory, V4l2Src};
use shrbuf_pipeline::supervise::Report;
use shrbuf_pipeline::{Build, Element, Frame, Graph, Size};
use shrbuf_tests::{Aligned, Footprint, Watch, run_frames, set_control};

use super::{Planes, Shown, m2m, node, planes, row, source};

/// 324 pixels of 3 bytes, which is no multiple of 64.
const ODD: Size = Size::new(324, 242);

#[test]
fn pictures_of_a_gpu_come_to_a_converter_in_rows_that_it_can_read() {
    let Some(device) = node("vim2m", false, false) else { return };
    crate::gpu::warm_up();
    let before = Footprint::now();
    let sent: Arc<Mutex<HashMap<u64, (u32, Planes)>>> = Arc::default();
    let seen = Arc::clone(&sent);
    let watch = Watch::new(move |frame: &Frame| {
        let of = (frame.buffer.layout().planes()[0].stride, planes(&frame.buffer));
        seen.lock().unwrap().insert(frame.sequence, of);
    });
    let gpu = Gpu { device: Some("software".into()), format: Some(Format::Bg24), ..Gpu::default() };
    let (graph, _, made) = row(vec![
        source(Format::Xr24, ODD.width, ODD.height).build().unwrap(),
        gpu.build().unwrap(),
        watch,
        m2m(&device, Some(Format::Rg24)).build().unwrap(),
    ]);

    let report = run_frames(graph, 20);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.is_zero_copy());
    let (sent, made) = (sent.lock().unwrap(), made.copies());
    assert!(!made.is_empty());
    for (sequence, picture) in &made {
        let (stride, rgb) = &sent[sequence];
        assert_eq!(*stride, 3 * ODD.width);
        let bgr: Vec<u8> = rgb[0].chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
        let wrong = bgr.iter().zip(&picture[0]).position(|(a, b)| a != b);
        assert_eq!((bgr.len(), wrong), (picture[0].len(), None), "frame {sequence}");
    }
    drop(report);
    assert_eq!(Footprint::now(), before);
}

/// `elements → tee → rest, a sink that takes rows of a multiple of 256 bytes`, and whether anything came to the tee.
fn beside_aligned(first: Box<dyn Element>, rest: Vec<Box<dyn Element>>) -> (Report, bool) {
    let mut graph = Graph::new("rows");
    let came = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&came);
    let first = graph.add("first", first).unwrap();
    let watch = graph.add("watch", Watch::new(move |_| *seen.lock().unwrap() = true)).unwrap();
    let tee = graph.add("tee", Tee {}.build().unwrap()).unwrap();
    let aligned = graph.add("aligned", Box::new(Aligned { rows: 256 })).unwrap();
    graph.link(first, watch).unwrap();
    graph.link(watch, tee).unwrap();
    graph.link(tee, aligned).unwrap();
    let mut last = tee;
    for (n, element) in rest.into_iter().enumerate() {
        let next = graph.add(&format!("e{n}"), element).unwrap();
        graph.link(last, next).unwrap();
        last = next;
    }
    let report = run_frames(graph, 20);
    let came = *came.lock().unwrap();
    (report, came)
}

#[test]
fn rows_that_a_converter_cannot_read_are_said_before_anything_streams() {
    let Some(device) = node("vim2m", false, false) else { return };
    let before = Footprint::now();
    let source = source(Format::Bg24, ODD.width, ODD.height).build().unwrap();
    let rest = vec![m2m(&device, Some(Format::Rg24)).build().unwrap(), NullSink {}.build().unwrap()];

    let (report, came) = beside_aligned(source, rest);

    let error = report.error.as_ref().unwrap().to_string();
    assert!(!came, "{error}");
    assert!(error.contains("rows of 1024, the driver reads it from byte 0 with rows of 972"), "{error}");
    assert!(error.contains("BG24 324x242, with rows of 972 bytes, would do"), "{error}");
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn rows_that_a_converter_cannot_make_are_said_before_anything_streams() {
    let Some(device) = node("vim2m", false, false) else { return };
    let before = Footprint::now();
    let sent = Shown::default();
    let seen = sent.clone();
    let elements: [Box<dyn Element>; 4] = [
        source(Format::Bg24, ODD.width, ODD.height).build().unwrap(),
        Watch::new(move |frame| seen.show(frame)),
        m2m(&device, Some(Format::Rg24)).build().unwrap(),
        Box::new(Aligned { rows: 256 }),
    ];
    let mut graph = Graph::new("rows");
    let add = |(n, element)| graph.add(&format!("e{n}"), element).unwrap();
    let nodes: Vec<_> = elements.into_iter().enumerate().map(add).collect();
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());

    let report = run_frames(graph, 20);

    let error = report.error.as_ref().unwrap().to_string();
    assert!(sent.sequences().is_empty(), "{error}");
    assert!(error.contains("takes strides of a multiple of 256 bytes, this is 972"), "{error}");
    drop(report);
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_camera_that_can_be_told_of_longer_rows_has_the_picture_in_them() {
    if Device::first().is_err() {
        assert!(node("vim2m", false, false).is_none(), "a vivid is required and missing");
        return;
    }
    set_control("osd_text_mode", "None");
    for memory in [Memory::V4l2, Memory::DmaHeap] {
        let before = Footprint::now();
        let size = Some(Size::new(640, 360));
        let camera = V4l2Src { format: Some(Format::Nv12), size, memory, ..V4l2Src::default() };
        let seen: Arc<Mutex<Vec<(u32, Planes)>>> = Arc::default();
        let keep = Arc::clone(&seen);
        let watch = Watch::new(move |frame: &Frame| {
            keep.lock().unwrap().push((frame.buffer.layout().planes()[0].stride, planes(&frame.buffer)));
        });

        let (report, _) = beside_aligned(camera.build().unwrap(), vec![watch, NullSink {}.build().unwrap()]);

        assert!(report.error.is_none(), "{}", report.error.unwrap());
        let seen = seen.lock().unwrap();
        assert!(!seen.is_empty());
        for (stride, picture) in seen.iter() {
            assert_eq!(*stride, 768);
            for plane in picture {
                // Bars from top to bottom: every row is the first.
                let rows: Vec<_> = plane.chunks_exact(640).collect();
                assert!(rows.iter().all(|row| *row == rows[0]), "{memory:?}");
                assert!(rows[0].iter().any(|byte| *byte != rows[0][0]), "{memory:?}: nothing is drawn");
            }
        }
        drop(report);
        assert_eq!(Footprint::now(), before);
    }
    set_control("osd_text_mode", "All");
}
