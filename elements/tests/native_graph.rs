//! Whole graphs of the elements that need no device, negotiated and run as a user's are.

use std::path::PathBuf;

use shrbuf::{Format, Ledger, MemoryKind, Reason};
use shrbuf_elements::convert::Convert;
use shrbuf_elements::file_sink::FileSink;
use shrbuf_elements::file_src::FileSrc;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::screen_sink::{ScreenSink, TerminalUse};
use shrbuf_elements::tee::Tee;
use shrbuf_elements::test_src::{TestSrc, read_marker};
use shrbuf_elements::{CONVERTERS, Memory, types};
use shrbuf_pipeline::plan::Plan;
use shrbuf_pipeline::solve::{NegotiateOptions, negotiate};
use shrbuf_pipeline::{Build, Copies, Element, Frame, Graph, QueueSpec, Size};
use shrbuf_tests::native::{self, run_well};

const OPTIONS: NegotiateOptions = NegotiateOptions { converters: CONVERTERS };

fn source() -> TestSrc {
    TestSrc { free_run: true, memory: Memory::Memfd, ..TestSrc::default() }
}

fn screen() -> ScreenSink {
    ScreenSink { terminal: TerminalUse::Never, ..ScreenSink::default() }
}

fn graph(elements: Vec<(&str, Box<dyn Element>)>) -> Graph {
    let mut graph = Graph::new("test");
    let nodes: Vec<_> = elements.into_iter().map(|(name, e)| graph.add(name, e).unwrap()).collect();
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());
    graph
}

fn plan(graph: &mut Graph) -> Plan {
    negotiate(graph, &OPTIONS).unwrap_or_else(|e| panic!("{e}"))
}

fn copied(graph: &Graph) -> u64 {
    graph.ledger().copied()
}

#[test]
fn defaults_give_bars_of_640x360_on_a_screen_without_a_copy() {
    let source = TestSrc { memory: Memory::Memfd, ..TestSrc::default() };
    let mut graph = graph(vec![("camera", source.build().unwrap()), ("display", screen().build().unwrap())]);
    let plan = plan(&mut graph);
    let stream = plan.links[0].stream;
    assert_eq!((stream.format, stream.size, stream.rate.unwrap().hz()), (Format::Xr24, Size::new(640, 360), 30.0));
    assert!(plan.is_zero_copy());
    let graph = run_well(graph, Some(5));
    assert_eq!(graph.counts()[1].counts.frames, 5);
    assert_eq!(copied(&graph), 0);
}

#[test]
fn what_needs_a_conversion_is_refused_unless_copies_are_allowed() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("native_graph.raw");
    let make = || {
        let source = TestSrc { format: Some(Format::Yuyv), ..source() };
        let sink = FileSink { path: path.clone(), format: Some(Format::Xr24), ..FileSink::default() };
        graph(vec![("camera", source.build().unwrap()), ("file", sink.build().unwrap())])
    };
    let refused = negotiate(&mut make(), &OPTIONS).unwrap_err().to_string();
    assert!(refused.contains("YUYV") && refused.contains("XR24"), "{refused}");

    let mut allowed = make();
    allowed.set_copies(Copies::Allow);
    let plan = plan(&mut allowed);
    assert_eq!(plan.links.iter().map(|l| l.stream.format).collect::<Vec<_>>(), [Format::Yuyv, Format::Xr24]);
    assert!(!plan.is_zero_copy());
    let graph = run_well(allowed, Some(4));
    assert_eq!(copied(&graph), 4 * 640 * 360 * 4);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 4 * 640 * 360 * 4);
}

#[test]
fn a_camera_of_any_format_can_be_recorded_as_y4m_where_copies_are_allowed() {
    for format in [Format::Yuyv, Format::Nv12, Format::Xr24, Format::Srggb10] {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("native_graph-{format}.y4m"));
        let source = TestSrc { format: Some(format), ..source() };
        let sink = FileSink { path: path.clone(), ..FileSink::default() };
        let mut recording = graph(vec![("camera", source.build().unwrap()), ("file", sink.build().unwrap())]);
        recording.set_copies(Copies::Allow);
        plan(&mut recording);
        run_well(recording, Some(3));

        let film = FileSrc { path, free_run: true, memory: Memory::Memfd, ..FileSrc::default() };
        let account = Ledger::default().account("test", Reason::Inspect);
        let mut expected = 0;
        let probe = native::Probe(move |f: Frame| {
            assert_eq!(read_marker(&f.buffer, &account).unwrap().frame, expected, "{format}");
            expected += 1;
        });
        let stream = native::stream(Format::Yu12, Size::new(640, 360));
        let graph = run_well(native::line(vec![film.build().unwrap(), Box::new(probe)], &[stream]), None);
        assert_eq!(graph.counts()[1].counts.frames, 3);
    }
}

#[test]
fn every_target_of_the_converter_can_be_asked_for() {
    for to in [Format::Xr24, Format::Ar24, Format::Rg24, Format::Rg16, Format::Nv12, Format::Yu12] {
        let source = TestSrc { format: Some(Format::Uyvy), ..source() };
        let convert = Convert { format: Some(to), memory: Memory::Memfd };
        let elements: Vec<(&str, Box<dyn Element>)> = vec![
            ("camera", source.build().unwrap()),
            ("convert", convert.build().unwrap()),
            ("drop", NullSink {}.build().unwrap()),
        ];
        let mut graph = graph(elements);
        let plan = plan(&mut graph);
        assert_eq!(plan.links[1].stream.format, to);
        assert_eq!(run_well(graph, Some(3)).counts()[2].counts.frames, 3);
    }
}

#[test]
fn a_tee_feeds_a_screen_and_a_file_from_the_same_memory() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("native_graph-%d.png");
    let mut graph = Graph::new("tee");
    let camera = graph.add("camera", TestSrc { memory: Memory::Memfd, ..TestSrc::default() }.build().unwrap()).unwrap();
    let split = graph.add("split", Tee {}.build().unwrap()).unwrap();
    let display = graph.add("display", screen().build().unwrap()).unwrap();
    let sink = FileSink { path, every: 2, ..FileSink::default() };
    let file = graph.add("file", sink.build().unwrap()).unwrap();
    graph.link(camera, split).unwrap();
    graph.link(split, display).unwrap();
    graph.link_queued(split, file, QueueSpec::default()).unwrap();
    let plan = plan(&mut graph);
    assert!(plan.is_zero_copy() && plan.links.iter().all(|l| l.memory == MemoryKind::Memfd));
    let graph = run_well(graph, Some(4));
    assert_eq!(copied(&graph), 0);
    let file = graph.counts().into_iter().find(|c| c.name == "file").unwrap();
    assert_eq!(file.own, [("written", 2)]);
}

#[test]
fn every_type_says_what_it_is_and_shows_how_to_write_it() {
    for t in types() {
        assert!(t.doc.contains("```toml"), "{}: {}", t.name, t.doc);
        assert!(t.doc.contains(&format!("type = \"{}\"", t.name)), "{}", t.name);
        assert!(t.properties().iter().all(|p| !p.doc.is_empty()), "{}", t.name);
    }
}
