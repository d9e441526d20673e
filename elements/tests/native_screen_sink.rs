//! `screen-sink`, `tee`, `queue` and `null-sink` behind `test-src`.

use std::path::PathBuf;

use shrbuf::{Format, Reason};
use shrbuf_elements::Memory;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::screen_sink::{ScreenMode, ScreenSink, TerminalUse};
use shrbuf_elements::tee::Tee;
use shrbuf_elements::test_src::{Marker, Pattern, TestSrc};
use shrbuf_pipeline::{Build, Element, Graph, QueueSpec, Rate, Size, Stream};
use shrbuf_tests::native::{SIZES, line, run_well, stream};

fn source(pattern: Pattern) -> TestSrc {
    TestSrc { pattern, memory: Memory::Memfd, ..TestSrc::default() }
}

fn screen() -> ScreenSink {
    ScreenSink { terminal: TerminalUse::Never, ..ScreenSink::default() }
}

fn at(rate: u32, stream: Stream) -> Stream {
    Stream { rate: Some(Rate::new(rate, 1)), ..stream }
}

/// A file in this test binary's own folder.
fn scratch(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("native_screen_sink");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

fn read_png(path: &PathBuf) -> (Size, Vec<u8>) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let size = Size::new(reader.info().width, reader.info().height);
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    (size, pixels)
}

#[test]
fn the_last_frame_is_kept_as_a_png_that_shows_its_number() {
    for (pattern, format) in [
        (Pattern::Bars, Format::Xr24),
        (Pattern::Bars, Format::Nv12),
        (Pattern::Ramp, Format::Yuyv),
        (Pattern::Box, Format::Rg16),
        (Pattern::Noise, Format::Grey),
        (Pattern::Bars, Format::Srggb10),
    ] {
        let path = scratch(&format!("{pattern:?}-{format}.png"));
        let sink = ScreenSink { png: Some(path.clone()), rate: Rate::new(200, 1), ..screen() };
        let elements = vec![source(pattern).build().unwrap(), sink.build().unwrap()];
        let graph = run_well(line(elements, &[at(100, stream(format, SIZES[0]))]), Some(7));
        let (size, pixels) = read_png(&path);
        assert_eq!(size, SIZES[0]);
        let marker = Marker::decode(size, |x, y| pixels[(y * size.width as usize + x) * 3 + 1]).unwrap();
        let sent = graph.counts()[0].counts;
        assert_eq!(u64::from(marker.frame), sent.frames + sent.dropped - 1);
    }
}

#[test]
fn frames_faster_than_the_display_are_dropped_and_counted() {
    for mode in [ScreenMode::Latest, ScreenMode::Fifo] {
        let sink = ScreenSink { mode, rate: Rate::new(50, 1), ..screen() };
        let elements = vec![source(Pattern::Bars).build().unwrap(), sink.build().unwrap()];
        let graph = run_well(line(elements, &[at(200, stream(Format::Xr24, SIZES[2]))]), Some(40));
        let counts = &graph.counts()[1];
        assert_eq!(counts.counts.frames, 40);
        assert_eq!(counts.own, [("flips", 40 - counts.counts.dropped)]);
        assert!((8..25).contains(&counts.own[0].1), "{mode:?} {counts:?}");
        let latency = counts.counts.latency.unwrap();
        assert!(latency.p50 > 0 && latency.p50 < 100_000_000, "{latency:?}");
    }
}

#[test]
fn a_slower_source_is_shown_whole_within_a_refresh() {
    let sink = ScreenSink { rate: Rate::new(500, 1), ..screen() };
    let elements = vec![source(Pattern::Bars).build().unwrap(), sink.build().unwrap()];
    let graph = run_well(line(elements, &[at(50, stream(Format::Xr24, SIZES[2]))]), Some(20));
    let counts = &graph.counts()[1];
    assert_eq!((counts.counts.dropped, counts.own[0].1), (0, 20));
    assert!(counts.counts.latency.unwrap().p50 <= 3_000_000, "{counts:?}");
}

#[test]
fn a_png_that_cannot_be_written_is_refused_at_the_start() {
    let sink = ScreenSink { png: Some("/nowhere/last.png".into()), ..screen() };
    let elements = vec![source(Pattern::Bars).build().unwrap(), sink.build().unwrap()];
    let ended = shrbuf_pipeline::run::start(line(elements, &[stream(Format::Xr24, SIZES[2])]), Some(1)).err().unwrap();
    let text = ended.failure.unwrap().to_string();
    assert_eq!(
        text,
        "`e1`: configuration: cannot write `png = \"/nowhere/last.png\"`: No such file or directory (os error 2)"
    );
}

#[test]
fn only_what_is_drawn_is_read() {
    let elements = vec![source(Pattern::Bars).build().unwrap(), screen().build().unwrap()];
    let graph = run_well(line(elements, &[at(100, stream(Format::Xr24, SIZES[0]))]), Some(5));
    let read = graph.ledger().entries().into_iter().find(|e| e.reason == Reason::Inspect).unwrap();
    assert_eq!((read.place.as_str(), read.bytes), ("e1", 0));
}

#[test]
fn a_tee_with_a_queue_gives_both_consumers_every_frame_without_a_copy() {
    let mut source = TestSrc { free_run: true, ..source(Pattern::Bars) }.build().unwrap();
    drop(source.allocate(0, &stream(Format::Nv12, SIZES[0])).unwrap());
    let mut graph = Graph::new("tee");
    let source = graph.add("source", source).unwrap();
    let tee = graph.add("split", Tee {}.build().unwrap()).unwrap();
    let near = graph.add("near", NullSink {}.build().unwrap()).unwrap();
    let far = graph.add("far", NullSink {}.build().unwrap()).unwrap();
    graph.link(source, tee).unwrap();
    graph.link(tee, near).unwrap();
    graph.link_queued(tee, far, QueueSpec::default()).unwrap();
    let graph = run_well(graph, Some(500));
    let frames: Vec<(String, u64)> = graph.counts().into_iter().map(|c| (c.name, c.counts.frames)).collect();
    for name in ["source", "split", "near", "far"] {
        assert!(frames.contains(&(name.to_owned(), 500)), "{frames:?}");
    }
    assert_eq!(graph.ledger().copied(), 0);
}

#[test]
fn a_depth_of_no_frames_is_refused() {
    let queue = shrbuf_elements::queue::Queue { depth: 0, ..Default::default() };
    assert_eq!(queue.build().err().unwrap().to_string(), "`depth` must be 1 or more");
}

#[test]
fn a_tee_has_as_many_outputs_as_links() {
    let mut tee: Box<dyn Element> = Tee {}.build().unwrap();
    assert_eq!(tee.ports().outputs, Vec::<String>::new());
    assert_eq!((tee.request_output(), tee.request_output()), (Some(0), Some(1)));
    assert_eq!(tee.ports().outputs, ["out0", "out1"]);
}
