//! Frames of another process come in by `shrbufsrc` and out of `gst` in that process's memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use shrbuf::{Format, Ledger, MemoryKind, Reason};
use shrbuf_elements::Memory;
use shrbuf_elements::file_sink::FileSink;
use shrbuf_elements::gst::Gst;
use shrbuf_elements::ipc::{IpcSink, Lag};
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::test_src::{Marker, TestSrc, read_marker};
use shrbuf_pipeline::supervise::{Error, Report};
use shrbuf_pipeline::{
    Build, Consumes, Context, Element, Failure, FailureKind, Frame, Graph, InputOffer, Origin, Ports, Size, Video,
    Wanted,
};
use shrbuf_tests::{Watch, on_test_drivers};

use crate::launch::{Launch, Temporary, until_listening};
use crate::roles::{self, SIZE, Stamps, default_producer, load_plugin, producer, reader, well};

/// `shrbufsrc ! watch ! sink`.
fn graph(socket: &Temporary, watch: impl FnMut(&Frame) + Send + 'static, sink: Box<dyn Element>) -> Graph {
    load_plugin();
    let mut graph = Graph::new("in");
    let launch = format!("shrbufsrc path={}", socket.as_str());
    let part = graph.add("part", Gst { launch, holds: Some(2), ..Gst::default() }.build().unwrap()).unwrap();
    let watch = graph.add("watch", Watch::new(watch)).unwrap();
    let sink = graph.add("sink", sink).unwrap();
    graph.link(part, watch).unwrap();
    graph.link(watch, sink).unwrap();
    graph
}

fn null() -> Box<dyn Element> {
    NullSink::default().build().unwrap()
}

type Seen = Arc<Mutex<Vec<u32>>>;

/// Reads the marker of every frame, which says its stamp too.
fn reading(seen: &Seen) -> impl FnMut(&Frame) + Send + 'static {
    reading_from(seen, Stamps::own())
}

/// The same, but frames that have not their own stamp are not noted.
fn reading_from(seen: &Seen, mut stamps: Stamps) -> impl FnMut(&Frame) + Send + 'static {
    let (seen, account) = (Arc::clone(seen), Ledger::default().account("test", Reason::Inspect));
    move |frame| {
        let marker = read_marker(&frame.buffer, &account).unwrap();
        if stamps.is_own(frame.timestamp, &marker) {
            seen.lock().unwrap().push(marker.frame);
        }
    }
}

/// Frames from some one on, in order. Its camera drops those for which it has no buffer on a busy machine.
fn assert_all(seen: &Seen, frames: usize) {
    let seen = seen.lock().unwrap();
    assert!(seen.windows(2).all(|pair| pair[1] > pair[0]) && seen.len() >= frames, "{seen:?}");
}

fn own(report: &Report, name: &str) -> u64 {
    shrbuf_tests::own(&report.graph, "part", name)
}

#[test]
fn memfds_of_another_process_come_out_as_they_are_and_go_back() {
    let socket = Temporary::new("memfds");
    let other = producer(socket.as_str(), "memfd", 300);
    until_listening(&socket);
    let seen = Seen::default();
    let report = roles::run(graph(&socket, reading(&seen), null()), None);
    well(&report);
    // The producer drops nothing: it had each buffer back many times.
    assert_all(&seen, 200);
    let link = &report.plan.links[0];
    assert_eq!((link.stream.origin, link.memory, own(&report, "copied-frames")), (Origin::Memfd, MemoryKind::Memfd, 0));
    other.end_well();
}

/// In dma-bufs, which GStreamer has as `GstDmaBufMemory`, on a display.
#[test]
fn dma_bufs_of_another_process_are_on_a_display_as_they_are() {
    if !on_test_drivers() {
        return;
    }
    load_plugin();
    let socket = Temporary::new("dma-bufs");
    let other = producer(socket.as_str(), "udmabuf", 0);
    until_listening(&socket);
    let seen = Seen::default();
    let report = roles::run(graph(&socket, reading(&seen), KmsSink::default().build().unwrap()), Some(120));
    well(&report);
    assert_eq!(shrbuf_tests::counts(&report.graph, "sink").frames, 120);
    let link = &report.plan.links[0];
    assert_eq!((link.stream.origin, link.memory), (Origin::Gstreamer, MemoryKind::DmaBuf));
    assert_eq!(own(&report, "copied-frames"), 0);
    assert!(own(&report, "imports") >= shrbuf_tests::own(&report.graph, "sink", "imports"));
    drop((report, other));
}

/// Holds as many frames as `kms-sink`: one is on screen, one comes next, and one has just come.
struct Display(VecDeque<Frame>);

impl Element for Display {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        let memory = Consumes { holds: 3, ..Consumes::cpu() };
        Ok(InputOffer { video: vec![Video::linear(Format::Xr24)], memory, wanted: Wanted::default(), natural: None })
    }

    fn process(&mut self, _input: usize, frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        self.0.push_back(frame);
        if self.0.len() > 2 {
            self.0.pop_front();
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.0.clear();
    }
}

/// As a newcomer has it: each end as it is by default.
#[test]
fn frames_of_a_producer_that_lets_out_as_few_as_it_does_by_default_need_no_settings() {
    load_plugin();
    let pictures = format!("video/x-raw,format=BGRx,width={},height={},framerate=100/1", SIZE.0, SIZE.1);
    let (theirs, ours) = (Temporary::new("shrbufsink"), Temporary::new("ipc-sink"));
    let _theirs = Launch::new(&format!("videotestsrc is-live=true ! {pictures} ! shrbufsink path={}", theirs.as_str()));
    let _ours = default_producer(ours.as_str());
    for socket in [theirs, ours] {
        until_listening(&socket);
        for launch in ["", " ! queue ! video/x-raw,format=BGRx"] {
            let mut graph = Graph::new("in");
            let launch = format!("shrbufsrc path={}{launch}", socket.as_str());
            let part = graph.add("part", Gst { launch, ..Gst::default() }.build().unwrap()).unwrap();
            // That of a display, which is all that there are.
            let sink = graph.add("sink", Box::new(Display(VecDeque::new()))).unwrap();
            graph.link(part, sink).unwrap();
            let report = roles::run(graph, Some(60));
            well(&report);
            assert_eq!(shrbuf_tests::counts(&report.graph, "sink").frames, 60);
        }
    }
}

#[test]
fn frames_of_another_process_are_written_to_a_file() {
    let (socket, file) = (Temporary::new("filed"), Temporary::new("frames.raw"));
    let other = producer(socket.as_str(), "memfd", 200);
    until_listening(&socket);
    let sink = FileSink { path: file.0.clone(), ..FileSink::default() };
    well(&roles::run(graph(&socket, |_| {}, sink.build().unwrap()), Some(60)));
    let (bytes, width) = (std::fs::read(&file.0).unwrap(), SIZE.0 as usize);
    let luma = |frame: &[u8], x, y| frame[(y * width + x) * 4 + 1];
    let frames = bytes.chunks(width * SIZE.1 as usize * 4);
    let numbers: Vec<u32> =
        frames.map(|f| Marker::decode(Size::new(SIZE.0, SIZE.1), |x, y| luma(f, x, y)).unwrap().frame).collect();
    assert_all(&Arc::new(Mutex::new(numbers)), 60);
    // It has them back, and ends when another has had the rest.
    reader(socket.as_str(), false).end_well();
    other.end_well();
}

#[test]
fn frames_of_another_process_go_on_to_a_third_in_the_memory_of_the_first() {
    let (first, second) = (Temporary::new("first"), Temporary::new("second"));
    let other = producer(first.as_str(), "memfd", 300);
    until_listening(&first);
    let seen = Seen::default();
    let out = IpcSink { path: second.0.clone(), consumers: 1, window: 2, wait_for: 1, ..IpcSink::default() };
    let out = IpcSink { lag: Lag::Block, ..out }.build().unwrap();
    let third = reader(second.as_str(), false);
    let report = roles::run(graph(&first, reading(&seen), out), None);
    well(&report);
    assert_all(&seen, 200);
    third.end_well();
    other.end_well();
}

/// What negotiation knows of are buffers of ours, which GStreamer has no use for.
#[test]
fn frames_in_memory_that_nobody_knew_of_before_they_came_go_on_to_a_third() {
    load_plugin();
    let (first, second) = (Temporary::new("first"), Temporary::new("second"));
    let other = producer(first.as_str(), "memfd", 0);
    until_listening(&first);
    let mut graph = Graph::new("late");
    let size = Size::new(SIZE.0, SIZE.1);
    let feed = TestSrc { format: Some(Format::Xr24), size, memory: Memory::Memfd, ..TestSrc::default() };
    let feed = graph.add("feed", feed.build().unwrap()).unwrap();
    let launch = format!(
        "fakesink name=in shrbufsrc path={} ! capsfilter name=out \
         caps=\"video/x-raw,format=BGRx,width={},height={},framerate=100/1\"",
        first.as_str(),
        SIZE.0,
        SIZE.1
    );
    let part = graph.add("part", Gst { launch, holds: Some(2), ..Gst::default() }.build().unwrap()).unwrap();
    let seen = Seen::default();
    // Those that are older than the first frame that went in are of running time 0.
    let watch = graph.add("watch", Watch::new(reading_from(&seen, Stamps::from_the_first()))).unwrap();
    let out = IpcSink { path: second.0.clone(), consumers: 1, window: 2, wait_for: 1, ..IpcSink::default() };
    let out = graph.add("out", IpcSink { lag: Lag::Block, ..out }.build().unwrap()).unwrap();
    graph.link(feed, part).unwrap();
    graph.link(part, watch).unwrap();
    graph.link(watch, out).unwrap();
    let third = reader(second.as_str(), true);
    let many = Arc::clone(&seen);
    let report = roles::run_until(graph, None, move || many.lock().unwrap().len() >= 200);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_all(&seen, 200);
    assert_eq!((report.graph.ledger().copied(), own(&report, "copied-frames")), (0, 0));
    let late = shrbuf_tests::own(&report.graph, "out", "late");
    assert!((1..=16).contains(&late) && late == own(&report, "imports"), "{late}");
    third.end_well();
    drop(other);
}

#[test]
fn a_producer_that_is_killed_is_an_error_that_says_so_and_one_that_ends_an_end() {
    let socket = Temporary::new("killed");
    let other = Mutex::new(Some(producer(socket.as_str(), "memfd", 0)));
    until_listening(&socket);
    let seen = Seen::default();
    let mut read = reading(&seen);
    let many = Arc::clone(&seen);
    let graph = graph(
        &socket,
        move |frame| {
            read(frame);
            if many.lock().unwrap().len() == 50
                && let Some(mut other) = other.lock().unwrap().take()
            {
                other.kill();
            }
        },
        null(),
    );
    let report = roles::run(graph, None);
    let Some(Error::Element(failure)) = &report.error else { panic!("{:?}", report.error) };
    assert_eq!((failure.kind(), failure.element()), (FailureKind::Device, Some("part")));
    let said = failure.to_string();
    assert!(said.contains("(shrbufsrc): Could not read from resource (the producer has gone; frames"), "{said}");
    assert_all(&seen, 50);
}

#[test]
fn a_producer_that_is_not_there_or_lets_out_too_few_frames_is_named() {
    let socket = Temporary::new("nobody");
    let said = roles::run(graph(&socket, |_| {}, null()), None).error.unwrap().to_string();
    assert!(said.contains("(shrbufsrc): Resource not found (no producer listens at"), "{said}");
    let other = producer(socket.as_str(), "memfd", 0);
    until_listening(&socket);
    let launch = format!("shrbufsrc path={}", socket.as_str());
    let mut graph = Graph::new("in");
    let part = Gst { launch, holds: Some(8), ..Gst::default() };
    let part = graph.add("part", part.build().unwrap()).unwrap();
    let sink = graph.add("sink", null()).unwrap();
    graph.link(part, sink).unwrap();
    let said = roles::run(graph, None).error.unwrap().to_string();
    let few = "part keeps 8, sink holds 1 = 9";
    assert!(said.contains(few), "{said}");
    drop(other);
}
