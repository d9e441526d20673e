//! `gst`: our frames into GStreamer and its frames out, in real pipelines.
#![cfg(feature = "gstreamer")]

mod insistent;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shrbuf::{Format, Ledger, Reason};
use shrbuf_elements::Memory;
use shrbuf_elements::gst::Gst;
use shrbuf_elements::test_src::{TestSrc, read_marker};
use shrbuf_pipeline::file::{self, FileError};
use shrbuf_pipeline::solve::{NegotiateOptions, negotiate};
use shrbuf_pipeline::supervise::{self, Report, RunOptions, Verdict};
use shrbuf_pipeline::{Build, Element, ElementType, Frame, Graph, Origin, Rate, Size, Stream, Timestamp};
use shrbuf_tests::{has_udmabuf, native};

/// Longer than anything takes on a busy machine: what takes longer hangs.
const LONG: Duration = Duration::from_secs(20);

/// A path that is used by nobody else, and removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Temporary {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Temporary(std::env::temp_dir().join(format!("shrbuf-element-{pid}-{n}-{name}")))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const NV12: usize = 64 * 48 * 3 / 2;
const CAPS: &str = "video/x-raw,format=NV12,width=64,height=48,framerate=30/1";

/// It keeps small frames otherwise, until they are 64 KiB.
const UNBUFFERED: &str = "filesink buffer-mode=unbuffered";

/// `camera` and `part`, linked as `path` says, with what else there is.
fn toml(launch: &str, rest: &str, path: &str) -> String {
    let camera = if path.contains("camera") {
        "[element.camera]\ntype = \"test-src\"\nformat = \"NV12\"\nsize = [64, 48]\nfree-run = true\n\
         memory = \"memfd\"\n"
    } else {
        ""
    };
    let launch = launch.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{rest}\n{camera}\n[element.part]\ntype = \"gst\"\nlaunch = \"{launch}\"\n[[link]]\npath = [{path}]\n")
}

const FILE: &str = "[element.file]\ntype = \"file-sink\"\ncontainer = \"raw\"\npath = \"FILE\"\n";
const IN: &str = "\"camera\", \"part\"";
const OUT: &str = "\"part\", \"file\"";
const THROUGH: &str = "\"camera\", \"part\", \"file\"";

fn load(toml: &str) -> Graph {
    try_load(toml).unwrap_or_else(|e| panic!("{e}: {toml}"))
}

fn try_load(toml: &str) -> Result<Graph, FileError> {
    file::load("test.toml", toml, &shrbuf_elements::types(), &[])
}

fn run(toml: &str, frames: Option<u64>) -> Report {
    let begin = Instant::now();
    let options = RunOptions {
        frames,
        tick: Duration::from_millis(50),
        negotiate: NegotiateOptions { converters: shrbuf_elements::CONVERTERS },
        ..RunOptions::default()
    };
    let verdict = |_: supervise::Progress<'_>| if begin.elapsed() < LONG { Verdict::Continue } else { Verdict::Stop };
    let report = supervise::run(load(toml), &options, verdict);
    assert!(begin.elapsed() < LONG, "it hangs:\n{toml}");
    report
}

fn run_well(toml: &str, frames: Option<u64>) -> Report {
    let report = run(toml, frames);
    assert!(report.error.is_none(), "{}\n{toml}", report.error.unwrap());
    report
}

fn fails(toml: &str, frames: Option<u64>) -> String {
    run(toml, frames).error.expect("it does not fail").to_string()
}

fn frames(report: &Report, element: &str) -> u64 {
    report.graph.counts().iter().find(|e| e.name == element).unwrap().counts.frames
}

/// What gst-launch-1.0 itself writes to a file with such a line.
fn theirs(line: &str) -> Vec<u8> {
    let file = Temporary::new("theirs.raw");
    let line = format!("-q {line} ! filesink location={}", file.path());
    let status = Command::new("gst-launch-1.0").args(line.split_whitespace()).status().unwrap();
    assert!(status.success(), "{line}");
    file.bytes()
}

#[test]
fn frames_go_in_without_a_copy() {
    let (there, here) = (Temporary::new("there.raw"), Temporary::new("here.raw"));
    let launch = format!("{UNBUFFERED} location={}", there.path());
    let report = run_well(&toml(&launch, &split(&here), SPLIT), Some(30));
    assert_eq!((frames(&report, "part"), report.graph.ledger().copied()), (30, 0));
    assert!(there.bytes() == here.bytes() && there.bytes().len() == 30 * NV12, "{}", there.bytes().len());
}

#[test]
fn frames_come_out_without_a_copy() {
    let file = Temporary::new("out.raw");
    let line = format!("videotestsrc num-buffers=30 pattern=ball ! {CAPS}");
    let report =
        run_well(&toml(&line, &FILE.replace("FILE", file.path()), OUT).replace("[[link", "sync = false\n[[link"), None);
    assert_eq!((report.graph.ledger().copied(), report.plan.is_zero_copy()), (0, true));
    assert!(file.bytes() == theirs(&line), "{} bytes", file.bytes().len());
}

/// A tee before `part`, whose other way is `here`.
const SPLIT: &str = "\"camera\", \"split\", \"here\"]\n[[link]]\npath = [\"split\", \"part\"";

fn split(here: &Temporary) -> String {
    format!("{}\n[element.split]\ntype = \"tee\"\n", FILE.replace("FILE", here.path()).replace(".file", ".here"))
}

/// In dma-bufs, where the kernel makes them: as `GstDmaBufMemory`.
#[test]
fn dma_bufs_go_in_and_come_out_without_a_copy() {
    if !has_udmabuf() {
        return;
    }
    let (there, here, out) = (Temporary::new("there.raw"), Temporary::new("here.raw"), Temporary::new("out.raw"));
    // Such as insist on the feature are told, and others are not.
    for first in ["", "video/x-raw(memory:DMABuf) ! "] {
        let launch = format!("{first}{UNBUFFERED} location={}", there.path());
        let camera = toml(&launch, &split(&here), SPLIT).replace("\"memfd\"", "\"udmabuf\"");
        let report = run_well(&camera, Some(30));
        assert_eq!((frames(&report, "part"), report.graph.ledger().copied()), (30, 0));
        assert!(report.plan.links.iter().all(|link| link.stream.origin == Origin::Udmabuf), "{:?}", report.plan.links);
        assert!(there.bytes() == here.bytes() && there.bytes().len() == 30 * NV12, "{}", there.bytes().len());
    }

    let line = format!("videotestsrc num-buffers=30 pattern=ball ! {CAPS}");
    let rest = FILE.replace("FILE", out.path());
    let source = toml(&line, &rest, OUT).replace("[[link", "sync = false\nmemory = \"udmabuf\"\n[[link");
    let report = run_well(&source, None);
    assert_eq!((report.graph.ledger().copied(), report.plan.links[0].stream.origin), (0, Origin::Udmabuf));
    assert!(out.bytes() == theirs(&line), "{} bytes", out.bytes().len());
}

#[test]
fn dma_bufs_go_through_elements_that_insist_on_them() {
    if !has_udmabuf() {
        return;
    }
    insistent::register();
    let (here, out) = (Temporary::new("here.raw"), Temporary::new("out.raw"));
    let rest = split(&here) + &FILE.replace("FILE", out.path());
    for (launch, inverts) in [
        ("insistent", true),
        ("insistent ! queue ! identity", true),
        ("video/x-raw(memory:DMABuf) ! identity ! queue", false),
    ] {
        let line = toml(launch, &rest, &format!("{SPLIT}, \"file\""));
        let line = line.replace("\"memfd\"", "\"udmabuf\"").replace("\"gst\"", "\"gst\"\nmemory = \"udmabuf\"");
        let report = run_well(&line, Some(30));
        assert_eq!((frames(&report, "file"), report.graph.ledger().copied()), (30, 0), "{launch}");
        let links = &report.plan.links;
        assert!(links.iter().all(|link| link.zero_copy && link.stream.origin == Origin::Udmabuf), "{links:?}");
        let mut expected = here.bytes();
        expected.iter_mut().filter(|_| inverts).for_each(|byte| *byte = !*byte);
        assert!(out.bytes() == expected && expected.len() == 30 * NV12, "{launch}: {}", out.bytes().len());
    }
}

/// The converter of a driver (vim2m), whose element of GStreamer's has it import our dma-bufs at both ends.
#[test]
fn dma_bufs_go_through_a_converter_of_v4l2() {
    gst::init().unwrap();
    if gst::ElementFactory::find("v4l2convert").is_none() {
        assert!(std::env::var_os("SHRBUF_REQUIRE_M2M").is_none(), "vim2m is required and missing");
        println!("no converter here");
        return;
    }
    let (here, out) = (Temporary::new("here.raw"), Temporary::new("out.raw"));
    let rest = split(&here) + &FILE.replace("FILE", out.path());
    // From 1.24 on they can be told to insist.
    let (before, behind) = if cfg!(feature = "gstreamer-v1_24") {
        ("video/x-raw(memory:DMABuf) ! ", "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=RG24")
    } else {
        ("", "video/x-raw,format=BGR")
    };
    let modes = "output-io-mode=dmabuf-import capture-io-mode=dmabuf-import";
    let launch = &format!("{before}v4l2convert {modes} ! {behind}");
    let line = toml(launch, &rest, &format!("{SPLIT}, \"file\"")).replace("NV12", "BG24");
    let line = line.replace("\"memfd\"", "\"udmabuf\"").replace("\"gst\"", "\"gst\"\nmemory = \"udmabuf\"");
    let report = run_well(&line, Some(10));
    assert_eq!((frames(&report, "file"), report.graph.ledger().copied()), (10, 0));
    let mut expected = here.bytes();
    expected.chunks_exact_mut(3).for_each(<[u8]>::reverse);
    assert!(out.bytes() == expected && expected.len() == 10 * 64 * 48 * 3, "{}", out.bytes().len());
}

#[test]
fn memfds_are_refused_before_anything_streams_where_somebody_insists_on_dma_bufs() {
    insistent::register();
    let file = Temporary::new("never.raw");
    let rest = FILE.replace("FILE", file.path());
    for (launch, rest, path, who) in [
        ("queue ! video/x-raw(memory:DMABuf) ! fakesink", "", IN, "capsfilter"),
        ("video/x-raw(memory:DMABuf) ! identity", rest.as_str(), THROUGH, "capsfilter"),
        ("queue ! insistent", rest.as_str(), THROUGH, "insistent"),
    ] {
        let denied = fails(&toml(launch, rest, path), Some(5));
        // GStreamer numbers its elements.
        let (allocates, insists) = (
            format!("no memory in common: camera allocates from memfd; part imports dma-buf, on which {who}"),
            format!(
                " ({who}) insists\nTo make it zero-copy: have camera allocate dma-buf memory; /dev/udmabuf and \
                 /dev/dma_heap make dma-bufs"
            ),
        );
        assert!(denied.contains(&allocates) && denied.contains(&insists), "{launch}: {denied}");
    }
    // What comes out, too, of an element that gives frames of any caps.
    let line = format!("fakesrc num-buffers=5 ! {}", CAPS.replace("x-raw", "x-raw(memory:DMABuf)"));
    let denied = fails(&toml(&line, &rest, OUT).replace("[[link", "memory = \"memfd\"\n[[link"), None);
    assert!(denied.contains("(capsfilter) insists on dma-bufs for NV12 (memory:DMABuf)"), "{denied}");
    assert!(denied.contains("memory = \"udmabuf\" or \"dma-heap\"") && !file.0.exists(), "{denied}");
}

#[test]
fn frames_that_are_only_passed_on_are_those_that_came_in() {
    let (here, out) = (Temporary::new("here.raw"), Temporary::new("out.raw"));
    let rest = split(&here) + &FILE.replace("FILE", out.path());
    for launch in ["identity", "video/x-raw,format=NV12 ! queue", "tee name=out ! queue ! fakesink"] {
        let report = run_well(&toml(launch, &rest, &format!("{SPLIT}, \"file\"")), Some(40));
        assert_eq!((frames(&report, "file"), report.graph.ledger().copied()), (40, 0), "{launch}");
        assert!(out.bytes() == here.bytes() && out.bytes().len() == 40 * NV12, "{launch}: {}", out.bytes().len());
        let links = &report.plan.links;
        assert!(links.iter().all(|link| link.zero_copy && link.stream.origin == Origin::Memfd), "{links:?}");
        // One stream, whose buffers are the camera's.
        assert_eq!(report.plan.budgets.len(), 1, "{:?}", report.plan.budgets);
    }
}

#[test]
fn frames_go_through_without_a_copy_and_keep_their_stamps() {
    let file = Temporary::new("through.raw");
    let rest = FILE.replace("FILE", file.path());
    let report = run_well(&toml("videoconvert ! video/x-raw,format=BGRx", &rest, THROUGH), Some(20));
    assert_eq!((frames(&report, "file"), report.graph.ledger().copied()), (20, 0));
    assert_eq!(file.bytes().len(), 20 * 64 * 48 * 4);
}

#[test]
fn stamps_and_numbers_are_the_same_behind_gstreamer() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let account = Ledger::default().account("probe", Reason::Inspect);
    let probe = native::Probe(move |frame: Frame| {
        let marker = read_marker(&frame.buffer, &account).unwrap();
        noted.lock().unwrap().push((frame.sequence, frame.timestamp, marker.frame, marker.timestamp));
    });
    let mut graph = Graph::new("stamps");
    let camera =
        TestSrc { format: Some(Format::Nv12), rate: Rate::new(100, 1), memory: Memory::Memfd, ..TestSrc::default() };
    let launch = "videoconvert ! video/x-raw,format=BGRx".to_owned();
    let part = Gst { launch, ..Gst::default() };
    let nodes = [camera.build().unwrap(), part.build().unwrap(), Box::new(probe) as Box<dyn Element>];
    let nodes: Vec<_> =
        ["camera", "part", "probe"].into_iter().zip(nodes).map(|(n, e)| graph.add(n, e).unwrap()).collect();
    graph.link(nodes[0], nodes[1]).unwrap();
    graph.link(nodes[1], nodes[2]).unwrap();
    let options = RunOptions { frames: Some(20), ..RunOptions::default() };
    let report = supervise::run(graph, &options, |_| Verdict::Continue);
    assert!(report.error.is_none(), "{:?}", report.error);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 20);
    for (number, (sequence, stamp, marked, marked_stamp)) in seen.iter().enumerate() {
        assert_eq!((number as u64, *stamp), (*sequence, *marked_stamp));
        assert!(*marked as usize >= number);
    }
}

#[test]
fn copy_that_is_needed_is_refused_before_anything_streams_and_counted_where_allowed() {
    let file = Temporary::new("copied.raw");
    // fakesrc makes frames in memory of its own, whatever it is offered.
    let line = format!("fakesrc num-buffers=5 sizetype=fixed sizemax={NV12} filltype=pattern ! {CAPS}");
    let rest = FILE.replace("FILE", file.path());
    let denied = fails(&toml(&line, &rest, OUT), None);
    assert!(
        denied.contains("every candidate was refused") && denied.contains("(fakesrc) makes frames in memory"),
        "{denied}"
    );
    assert!(denied.contains("copies = \"allow\"") && !file.0.exists(), "{denied}");
    let allowed = format!("[pipeline]\ncopies = \"allow\"\n{}", toml(&line, &rest, OUT));
    let report = run_well(&allowed, None);
    assert_eq!(report.graph.ledger().copied() as usize, 5 * NV12);
    let link = &report.plan.links[0];
    assert!(!link.zero_copy && link.reason.contains("(fakesrc) makes frames in memory"), "{link:?}");
    assert_eq!(file.bytes().len(), 5 * NV12);
}

#[test]
fn copy_that_shows_only_as_frames_come_ends_the_run() {
    // What a videoconvert has nothing to do with lies in the camera's memory, not in that of the next link.
    let same = "videoconvert ! video/x-raw,format=NV12";
    let file = Temporary::new("untouched.raw");
    let rest = FILE.replace("FILE", file.path());
    let denied = fails(&toml(same, &rest, THROUGH), Some(5));
    assert!(denied.contains("`part`: configuration") && denied.contains("copies = \"allow\""), "{denied}");
    let allowed = format!("[pipeline]\ncopies = \"allow\"\n{}", toml(same, &rest, THROUGH));
    let report = run_well(&allowed, Some(5));
    assert_eq!((report.graph.ledger().copied() as usize, file.bytes().len()), (5 * NV12, 5 * NV12));
}

#[test]
fn file_is_whole_and_its_pictures_come_back_in_number_and_time() {
    let (film, raw) = (Temporary::new("film.webm"), Temporary::new("film.raw"));
    let record = format!("vp8enc deadline=1 cpu-used=8 ! webmmux ! filesink location={}", film.path());
    run_well(&toml(&record, "", IN).replace("\"NV12\"", "\"YU12\"").replace("free-run = true", "rate = 60"), Some(20));
    let play = format!("filesrc location={} ! matroskademux ! vp8dec", film.path());
    let rest = FILE.replace("FILE", raw.path());
    let report = run_well(&toml(&play, &rest, OUT).replace("[[link", "sync = false\n[[link"), None);
    // A camera without a free buffer drops.
    let recorded = frames(&report, "part");
    assert!((10..=20).contains(&recorded), "{recorded}");
    assert_eq!((report.graph.ledger().copied(), raw.bytes().len() as u64), (0, recorded * NV12 as u64));
}

#[test]
fn camera_is_recorded_in_h264() {
    let film = Temporary::new("film.mkv");
    let record = format!("x264enc tune=zerolatency ! matroskamux ! filesink location={}", film.path());
    let report = run_well(&toml(&record, "", IN).replace("free-run = true", "rate = 60"), Some(20));
    assert_eq!(report.graph.ledger().copied(), 0);
    let recorded = frames(&report, "part");
    assert!((10..=20).contains(&recorded), "{recorded}");
    let line = format!("-v filesrc location={} ! matroskademux ! fakesink silent=false", film.path());
    let seen = Command::new("gst-launch-1.0").args(line.split(' ')).output().unwrap();
    let seen = String::from_utf8_lossy(&seen.stdout);
    assert!(seen.contains("video/x-h264"), "{seen}");
    assert_eq!(seen.matches("chain").count() as u64, recorded, "{seen}");
}

#[test]
fn slow_sink_holds_the_source_and_nothing_is_lost() {
    let file = Temporary::new("slow.raw");
    let slow = format!("identity sleep-time=3000 ! {UNBUFFERED} location={}", file.path());
    let report = run_well(&toml(&slow, "", IN), Some(100));
    let camera = report.graph.counts().into_iter().find(|e| e.name == "camera").unwrap();
    assert_eq!((camera.counts.frames, camera.counts.dropped, frames(&report, "part")), (100, 0, 100));
    assert_eq!(file.bytes().len(), 100 * NV12);
    assert!(report.duration > Duration::from_millis(250), "{:?}", report.duration);
    let granted = u64::from(report.plan.budgets[0].granted);
    assert!(granted < 20, "it was not held: there are {granted} buffers");
}

#[test]
fn slow_consumer_holds_gstreamer_and_nothing_is_lost() {
    let file = Temporary::new("held.raw");
    let line = format!("videotestsrc num-buffers=200 pattern=snow ! {CAPS}");
    let queued = toml(&line, &FILE.replace("FILE", file.path()), OUT)
        .replace("[[link]]", "sync = false\nholds = 2\n[[link]]\nqueue = { depth = 2 }");
    let report = run_well(&queued, None);
    assert_eq!((frames(&report, "file"), file.bytes().len()), (200, 200 * NV12));
}

#[test]
fn named_elements_are_the_ends_and_both_sinks_have_every_frame() {
    let (tap, file) = (Temporary::new("tap.raw"), Temporary::new("file.raw"));
    let line =
        format!("videoconvert ! video/x-raw,format=I420 ! tee name=out ! queue ! filesink location={}", tap.path());
    // A GStreamer tee passes no pool on.
    let allowed = toml(&line, &FILE.replace("FILE", file.path()), THROUGH).replace("NV12", "XR24");
    let report = run_well(&format!("[pipeline]\ncopies = \"allow\"\n{allowed}"), Some(15));
    assert_eq!(report.graph.ledger().copied() as usize, 15 * NV12);
    assert!(tap.bytes() == file.bytes() && tap.bytes().len() == 15 * NV12, "{}", tap.bytes().len());
}

#[test]
fn errors_come_in_gstreamers_words() {
    for (line, frames, said) in [
        ("filesink location=/nowhere/at/all", Some(3), "Could not open file \"/nowhere/at/all\" for writing"),
        ("identity error-after=3 ! fakesink", Some(9), "(identity): "),
    ] {
        let error = fails(&toml(line, "", IN), frames);
        assert!(error.contains(said) && error.contains("`part`"), "{line}: {error}");
    }
    let file = Temporary::new("never.raw");
    let rest = FILE.replace("FILE", file.path());
    for (line, said) in [
        ("filesrc location=/nowhere/at/all ! decodebin", "Resource not found"),
        ("filesrc location=/proc/self/cmdline ! decodebin", "GStreamer's "),
        (
            "udpsrc port=0 ! application/x-rtp,media=video,encoding-name=VP8 ! rtpvp8depay ! vp8dec",
            "does not say how large its pictures are",
        ),
    ] {
        let error = fails(&toml(line, &rest, OUT), None);
        assert!(error.contains(said), "{line}: {error}");
    }
}

#[test]
fn bad_fragments_are_errors_of_the_file_that_point_at_them() {
    for (launch, said) in [
        (
            "vp8encc ! fakesink",
            "names `vp8encc`, which is no GStreamer element of this machine (did you mean `vp8enc`?)",
        ),
        ("videoconvert ! vp8dec ! fakesink", "could not link videoconvert"),
        ("videoconvert ! ! fakesink", "syntax error"),
        ("videotestsrc ! fakesink", "neither go in nor come out"),
    ] {
        let error = try_load(&toml(launch, "", IN)).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        let text = toml(launch, "", IN);
        let line = text.lines().position(|l| l.starts_with("launch")).unwrap() + 1;
        assert_eq!(error.line(), line, "{error}");
    }
}

#[test]
fn what_a_fragment_takes_is_asked_of_gstreamer() {
    // vp8enc takes I420 only.
    let denied = fails(&toml("vp8enc ! fakesink", "", IN), Some(1));
    assert!(denied.contains("camera → part: no format in common") && denied.contains("part takes YU12"), "{denied}");
    let mut graph = load(&toml("vp8enc ! fakesink", "", IN).replace("format = \"NV12\"\n", ""));
    let plan = negotiate(&mut graph, &NegotiateOptions::default()).unwrap();
    assert_eq!(plan.links[0].stream.format, shrbuf::Format::Yu12);
}

#[test]
fn encoder_that_looks_further_ahead_than_it_may_is_an_error_and_no_hang() {
    let line = "vp8enc deadline=1 lag-in-frames=16 ! fakesink";
    let toml = toml(line, "", IN).replace("NV12", "YU12").replace("free-run = true", "rate = 100");
    let error = fails(&toml, Some(40));
    assert!(
        error.contains("(vp8enc) keeps 16 frames before it gives one, and may hold 8; set `holds` to 18"),
        "{error}"
    );
    let report = run_well(&toml.replace("[[link", "holds = 18\n[[link"), Some(40));
    assert_eq!(frames(&report, "part"), 40);
}

#[test]
fn part_that_keeps_all_it_gets_is_an_error_and_no_hang() {
    let file = Temporary::new("kept.raw");
    let toml = toml(&format!("filesink location={}", file.path()), "", IN);
    let error = fails(&toml.replace("[[link", "timeout = \"400ms\"\n[[link"), Some(100));
    assert!(error.contains("for 400.0ms and gives none back") && error.contains("set `holds`, now 8"), "{error}");
}

#[test]
fn rows_that_gstreamer_does_not_expect_go_to_elements_that_look() {
    let size = Size::new(66, 48);
    let padded = Stream { stride_align: 64, ..native::stream(Format::Nv12, size) };
    let run = |launch: &str| {
        let frames = vec![Frame::new(native::picture_of(&padded, |_, y, x| (x + y) as u8), Timestamp(1), 0)];
        let gst = Gst { launch: launch.to_owned(), ..Gst::default() };
        native::run(native::line(vec![Box::new(native::Feed(frames)), gst.build().unwrap()], &[padded]), None).failure
    };
    let failure = run("filesink location=/dev/null").unwrap().to_string();
    assert!(failure.contains("(filesink) does not look at where planes lie"), "{failure}");
    let file = Temporary::new("padded.raw");
    let looks = format!("videoconvert ! video/x-raw,format=GRAY8 ! {UNBUFFERED} location={}", file.path());
    assert_eq!(run(&looks).map(|failure| failure.to_string()), None);
    // Luma of limited range becomes grey of full range; what was made of padding would be 0 all over.
    assert_eq!(file.bytes().len(), 68 * 48);
}

#[test]
fn nothing_is_left_behind() {
    // In a process of its own, which GStreamer's leaks tracer watches.
    if std::env::var_os("GST_TRACERS").is_none() {
        let exe = std::env::current_exe().unwrap();
        let child = Command::new(exe)
            .args(["--exact", "nothing_is_left_behind"])
            .envs([("GST_TRACERS", "leaks"), ("GST_DEBUG", "GST_TRACER:7"), ("GST_DEBUG_NO_COLOR", "1")])
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success(), "{log}");
        // The tracer announces the form of its lines first.
        let alive: Vec<&str> = log.lines().filter(|l| l.contains("object-alive, ") && !l.contains("%s")).collect();
        assert!(log.contains("object-alive.class") && alive.is_empty(), "{}", alive.join("\n"));
        return;
    }
    let file = Temporary::new("traced.raw");
    let rest = FILE.replace("FILE", file.path());
    run_well(&toml("videoconvert ! video/x-raw,format=BGRx", &rest, THROUGH), Some(10));
    run_well(&toml("identity", &rest, THROUGH), Some(10));
    run_well(&toml("vp8enc deadline=1 ! fakesink", "", IN).replace("NV12", "YU12"), Some(10));
    let source = toml(&format!("videotestsrc num-buffers=10 ! {CAPS}"), &rest, OUT);
    run_well(&source.replace("[[link", "sync = false\n[[link"), None);
    run(&source, Some(3));
    fails(&toml("identity error-after=3 ! fakesink", "", IN), Some(9));
    // The tracer looks as GStreamer ends, which every test before it has left alone.
    // SAFETY: this process runs this one test, and nothing of GStreamer's is used after it.
    unsafe { gst::deinit() };
}

#[test]
fn the_page_of_elements_says_what_the_element_does() {
    let page = include_str!("../../docs/elements.md").split("\n## `gst`\n").nth(1).expect("run `make docs`");
    let of = ElementType::of::<Gst>();
    for property in of.properties() {
        let doc = property.doc.lines().next().unwrap_or_default().trim();
        assert!(
            page.contains(&format!("`{}`", property.name)) && page.contains(doc),
            "{}: run `make docs`",
            property.name
        );
    }
    assert!(page.starts_with(&format!("\n{}", of.doc.trim().lines().next().unwrap())), "run `make docs`: {page}");
}

#[test]
fn graph_runs_again_and_again() {
    let mut graph = load(&toml("videoconvert ! video/x-raw,format=I420 ! fakesink", "", IN));
    for _ in 0..3 {
        negotiate(&mut graph, &NegotiateOptions::default()).unwrap();
        let mut running = shrbuf_pipeline::run::start(graph, None).unwrap_or_else(|e| panic!("{:?}", e.failure));
        let begin = std::time::Instant::now();
        while running.graph().counts()[1].counts.frames < 3 {
            assert!(begin.elapsed() < LONG, "nothing comes");
            std::thread::yield_now();
        }
        running.end();
        assert!(running.wait(LONG));
        let ended = running.join();
        assert!(ended.failure.is_none(), "{:?}", ended.failure);
        graph = ended.graph;
    }
    assert_eq!(graph.ledger().copied(), 0);
}
