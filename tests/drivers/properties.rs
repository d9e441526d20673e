//! What a pipeline asks of a camera by its properties, and where a test picture's memory comes from.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shrbuf::{Format, Ledger, Reason};
use shrbuf_elements::Memory;
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::test_src::{TestSrc, read_marker};
use shrbuf_elements::v4l2::ioctl::ControlValue;
use shrbuf_elements::v4l2::{Device, V4l2Src};
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::{Build, FailureKind, Graph, Origin, Size};
use shrbuf_tests::{
    Footprint, Watch, camera_to_display, counts, on_test_drivers, run_frames, set_control, small_camera,
};

use crate::failure;

fn with_control(name: &str, value: i64) -> V4l2Src {
    let controls = BTreeMap::from([(name.to_owned(), Value::Integer(value))]);
    V4l2Src { controls, ..small_camera() }
}

#[test]
fn a_control_by_name_is_set_before_the_first_frame() {
    if !on_test_drivers() {
        return;
    }
    let now = || {
        let device = Device::first().unwrap();
        device.control_value(&device.control("brightness").unwrap()).unwrap()
    };
    let before = now();
    for value in [17, 201] {
        let report = run_frames(camera_to_display(with_control("brightness", value), KmsSink::default(), |_| {}), 3);
        assert!(report.error.is_none(), "{}", report.error.unwrap());
        assert_eq!(now(), ControlValue::Integer(value));
    }
    let ControlValue::Integer(before) = before else { panic!("{before:?}") };
    set_control("brightness", &before.to_string());
}

#[test]
fn an_unknown_control_is_named_with_the_nearest() {
    if !on_test_drivers() {
        return;
    }
    let report = run_frames(camera_to_display(with_control("brigthness", 17), KmsSink::default(), |_| {}), 3);
    let error = report.error.unwrap();
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Config), Some("camera")));
    assert!(error.to_string().contains("`brigthness` (did you mean `brightness`?)"), "{error}");
}

#[test]
fn a_value_beyond_a_control_says_what_it_takes() {
    if !on_test_drivers() {
        return;
    }
    let report = run_frames(camera_to_display(with_control("brightness", 256), KmsSink::default(), |_| {}), 3);
    let error = report.error.unwrap();
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Config), Some("camera")));
    assert!(error.to_string().contains("from 0 to 255"), "{error}");
}

#[test]
fn a_stall_is_as_long_as_the_property_says() {
    if !on_test_drivers() {
        return;
    }
    for (stall, says) in [(400, "400.0ms"), (1000, "1.0s")] {
        let stall = Duration::from_millis(stall);
        let (sender, last) = std::sync::mpsc::channel();
        let mut frames = 0;
        let camera = V4l2Src { stall: Some(stall), ..small_camera() };
        let graph = camera_to_display(camera, KmsSink::default(), move |_| {
            frames += 1;
            if frames == 10 {
                set_control("percentage_of_dropped_buffers", "100");
            }
            sender.send(Instant::now()).unwrap();
        });
        let report = run_frames(graph, 300);
        set_control("percentage_of_dropped_buffers", "0");
        let after = last.try_iter().last().unwrap().elapsed();
        let failed = failure(&report);
        assert_eq!(failed.kind(), FailureKind::Stalled);
        assert!(failed.to_string().contains(says), "{failed}");
        assert!((stall..stall * 5 / 4 + Duration::from_millis(500)).contains(&after), "{after:?} for {stall:?}");
    }
}

#[test]
fn a_test_picture_in_memory_of_either_kind_is_shown() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    for (memory, origin) in [(Memory::DmaHeap, Origin::DmaHeap), (Memory::Udmabuf, Origin::Udmabuf)] {
        let source = TestSrc { memory, format: Some(Format::Xr24), size: Size::new(640, 480), ..TestSrc::default() };
        let mut graph = Graph::new("test");
        let (sender, pictures) = std::sync::mpsc::channel();
        let account = Ledger::default().account("test", Reason::Inspect);
        let watch = Watch::new(move |frame| {
            let marker = read_marker(&frame.buffer, &account).unwrap();
            sender.send(u64::from(marker.frame) == frame.sequence).unwrap();
        });
        let source = graph.add("source", source.build().unwrap()).unwrap();
        let watch = graph.add("watch", watch).unwrap();
        let display = graph.add("display", KmsSink::default().build().unwrap()).unwrap();
        graph.link(source, watch).unwrap();
        graph.link(watch, display).unwrap();

        let report = run_frames(graph, 30);

        assert!(report.error.is_none(), "{memory:?}: {}", report.error.unwrap());
        assert_eq!(report.plan.links[0].stream.origin, origin);
        assert!(report.plan.is_zero_copy());
        assert_eq!(counts(&report.graph, "display").frames, 30);
        assert_eq!(pictures.try_iter().filter(|right| *right).count(), 30);
        drop(report);
    }
    assert_eq!(Footprint::settled(&before), before);
}
