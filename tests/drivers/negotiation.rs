//! Negotiation on real ports: what vivid offers and vkms takes.

use shrbuf::Format;
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::tee::Tee;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_elements::v4l2::{Memory, V4l2Src};
use shrbuf_pipeline::solve::{NegotiateOptions, negotiate};
use shrbuf_pipeline::supervise::{RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Copies, Element, Full, Graph, Origin, QueueSpec, Rate, Size};
use shrbuf_tests::{Footprint, on_test_drivers};

const OPTIONS: NegotiateOptions = NegotiateOptions { converters: shrbuf_elements::CONVERTERS };

fn options() -> RunOptions {
    RunOptions { negotiate: OPTIONS, ..RunOptions::default() }
}

fn link(source: Box<dyn Element>, sink: Box<dyn Element>, copies: Copies) -> Graph {
    let mut graph = Graph::new("test");
    graph.set_copies(copies);
    let a = graph.add("camera", source).unwrap();
    let b = graph.add("display", sink).unwrap();
    graph.link(a, b).unwrap();
    graph
}

fn refusal(camera: V4l2Src) -> String {
    let mut graph = link(camera.build().unwrap(), KmsSink::default().build().unwrap(), Copies::Deny);
    negotiate(&mut graph, &OPTIONS).unwrap_err().to_string()
}

#[test]
fn nothing_asked_for_finds_what_both_can() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let mut graph = link(V4l2Src::default().build().unwrap(), KmsSink::default().build().unwrap(), Copies::Deny);

    let plan = negotiate(&mut graph, &OPTIONS).unwrap();

    let stream = plan.links[0].stream;
    assert!(plan.is_zero_copy());
    assert_eq!(stream.origin, Origin::V4l2);
    assert!(stream.format.family() == shrbuf::Family::Rgb, "{stream}");
    drop(graph);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_frame_smaller_than_every_mode_is_shown_inside_one() {
    if !on_test_drivers() {
        return;
    }
    let camera = V4l2Src { size: Some(Size::new(320, 180)), ..V4l2Src::default() };
    let mut graph = link(camera.build().unwrap(), KmsSink::default().build().unwrap(), Copies::Deny);

    let plan = negotiate(&mut graph, &OPTIONS).unwrap();

    assert_eq!(plan.links[0].stream.size, Size::new(320, 180));
}

#[test]
fn a_size_that_the_camera_has_not_names_those_it_has() {
    if !on_test_drivers() {
        return;
    }
    let text = refusal(V4l2Src { size: Some(Size::new(1000, 700)), ..V4l2Src::default() });
    assert!(text.contains("1000x700") && text.contains("1280x720"), "{text}");
}

#[test]
fn a_rate_that_the_camera_has_not_names_those_it_has() {
    if !on_test_drivers() {
        return;
    }
    let camera = V4l2Src {
        size: Some(Size::new(1280, 720)),
        format: Some(Format::Xr24),
        rate: Some(Rate::new(7, 3)),
        ..V4l2Src::default()
    };
    let text = refusal(camera);
    assert!(text.contains("7/3") && text.contains("15, 25"), "{text}");
}

#[test]
fn yuyv_on_an_rgb_display_is_refused_with_what_would_do() {
    if !on_test_drivers() {
        return;
    }
    let text = refusal(V4l2Src { format: Some(Format::Yuyv), ..V4l2Src::default() });
    assert!(text.contains("YUYV") && text.contains("XR24") && text.contains("copies"), "{text}");
}

#[test]
fn yuyv_on_an_rgb_display_is_converted_where_copies_are_allowed_or_warned_of() {
    if !on_test_drivers() {
        return;
    }
    let graph = |copies| {
        let camera = V4l2Src { format: Some(Format::Yuyv), size: Some(Size::new(640, 480)), ..V4l2Src::default() };
        link(camera.build().unwrap(), KmsSink::default().build().unwrap(), copies)
    };
    negotiate(&mut graph(Copies::Allow), &OPTIONS).unwrap();
    // What converters keep for a whole process is there now.
    let before = Footprint::now();
    for copies in [Copies::Allow, Copies::Warn] {
        let report = run(graph(copies), &RunOptions { frames: Some(30), ..options() }, |_| Verdict::Continue);

        assert!(report.error.is_none(), "{}", report.error.unwrap());
        assert!(!report.plan.is_zero_copy());
        assert!(report.graph.ledger().copied() > 0);
        drop(report);
    }
    assert_eq!(Footprint::settled(&before), before);
}

/// `camera → tee → aside, display`: two consumers, of which the display imports no YUYV.
fn with_a_tee(copies: Copies) -> Graph {
    let camera = V4l2Src { format: Some(Format::Yuyv), size: Some(Size::new(640, 480)), ..V4l2Src::default() };
    let mut graph = Graph::new("test");
    graph.set_copies(copies);
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let tee = graph.add("tee", Tee {}.build().unwrap()).unwrap();
    let aside = graph.add("aside", NullSink {}.build().unwrap()).unwrap();
    let display = graph.add("display", KmsSink::default().build().unwrap()).unwrap();
    graph.link(camera, tee).unwrap();
    graph.link(tee, aside).unwrap();
    graph.link(tee, display).unwrap();
    graph
}

#[test]
fn of_two_consumers_only_the_one_that_cannot_import_gets_a_copy() {
    if !on_test_drivers() {
        return;
    }
    let refused = negotiate(&mut with_a_tee(Copies::Deny), &OPTIONS).unwrap_err().to_string();
    assert!(refused.contains("display") && refused.contains("YUYV") && refused.contains("copies"), "{refused}");

    // What converters keep for a whole process is there now.
    let before = Footprint::now();
    let options = RunOptions { frames: Some(30), ..options() };
    let report = run(with_a_tee(Copies::Allow), &options, |_| Verdict::Continue);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let copied = report.plan.links.iter().filter(|l| !l.zero_copy).map(|l| l.to.as_str());
    assert_eq!(copied.collect::<Vec<_>>(), ["display"], "{:?}", report.plan.links);
    let counted = |name| shrbuf_tests::counts(&report.graph, name).frames;
    // A converter that is slower than the camera drops some.
    let dropped: u64 = report.graph.counts().iter().map(|node| node.counts.dropped).sum();
    let lost = dropped - shrbuf_tests::counts(&report.graph, "camera").dropped;
    assert_eq!((counted("aside"), counted("display") + lost), (30, 30));
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn more_frames_held_at_once_than_a_camera_has_are_refused_with_the_sum() {
    if !on_test_drivers() {
        return;
    }
    let mut graph = Graph::new("test");
    let camera = graph.add("camera", V4l2Src::default().build().unwrap()).unwrap();
    let display = graph.add("display", KmsSink::default().build().unwrap()).unwrap();
    graph.link_queued(camera, display, QueueSpec { depth: 30, full: Full::Block }).unwrap();

    let text = negotiate(&mut graph, &OPTIONS).unwrap_err().to_string();

    let sum = "camera keeps 2, display holds 3, queue camera→display holds 30 = 35; camera gives at most 32";
    assert!(text.contains(sum), "{text}");
}

#[test]
fn memory_that_a_heap_lends_the_camera_is_shown_too() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    for memory in [Memory::DmaHeap, Memory::Udmabuf] {
        let camera = V4l2Src { memory, size: Some(Size::new(640, 480)), ..V4l2Src::default() };
        let graph = link(camera.build().unwrap(), KmsSink::default().build().unwrap(), Copies::Deny);
        let report = shrbuf_tests::run_frames(graph, 30);
        assert!(report.error.is_none(), "{memory:?}: {}", report.error.unwrap());
        assert!(report.plan.is_zero_copy());
        drop(report);
    }
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_test_picture_is_made_in_memory_that_the_display_takes() {
    if !on_test_drivers() {
        return;
    }
    let mut graph = link(TestSrc::default().build().unwrap(), KmsSink::default().build().unwrap(), Copies::Deny);

    let plan = negotiate(&mut graph, &OPTIONS).unwrap();

    assert!(plan.is_zero_copy());
    assert_ne!(plan.links[0].stream.origin, Origin::Memfd);
}

#[test]
fn every_format_that_a_camera_and_we_know_can_be_captured() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let mut camera = V4l2Src { size: Some(Size::new(640, 360)), ..V4l2Src::default() };
    let offered = {
        let mut element = camera.clone().build().unwrap();
        element.output_offer(0, None).unwrap().video
    };
    assert!(offered.len() >= 15, "{}", offered.len());
    for video in offered {
        camera.format = Some(video.format);
        let graph = link(camera.clone().build().unwrap(), NullSink {}.build().unwrap(), Copies::Deny);
        let report = shrbuf_tests::run_frames(graph, 3);
        assert!(report.error.is_none(), "{}: {}", video.format, report.error.unwrap());
        let counts = shrbuf_tests::counts(&report.graph, "camera");
        assert_eq!((counts.frames, counts.corrupt), (3, 0), "{}", video.format);
    }
    assert_eq!(Footprint::settled(&before), before);
}
