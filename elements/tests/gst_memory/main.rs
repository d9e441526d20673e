//! `gst`: frames in memory of GStreamer's own come out as they are, in real pipelines.
#![cfg(feature = "gstreamer")]

mod bringing;
mod camera;

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bringing::{SIZE, byte, memories, noted, register, starts, sum};
use shrbuf::{Format, MemoryKind};
use shrbuf_elements::Memory;
use shrbuf_elements::gst::Gst;
use shrbuf_elements::ipc::IpcSink;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::tee::Tee;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_pipeline::supervise::{self, Progress, Report, RunOptions, Verdict};
use shrbuf_pipeline::{
    Build, Consumes, Context, Element, Failure, Frame, Graph, InputOffer, Origin, Ports, Video, Wanted,
};
use shrbuf_tests::{has_udmabuf, native};

/// Longer than any frame takes on a busy machine: where none comes for longer, it hangs.
const LONG: Duration = Duration::from_secs(20);
const CAPS: &str = "video/x-raw,format=NV12,width=64,height=48,framerate=200/1";

/// The counts of memories are the process's.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    register();
    let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    noted();
    alone
}

/// A sink of some kinds of memory that calls a function with each frame.
struct Probe<F>(Vec<MemoryKind>, F);

impl<F: FnMut(Frame) + Send> Element for Probe<F> {
    fn ports(&self) -> Ports {
        Ports::sink()
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        let video = [Format::Nv12, Format::Xr24].map(Video::linear).to_vec();
        let memory = Consumes { kinds: self.0.clone(), ..Consumes::cpu() };
        Ok(InputOffer { video, memory, wanted: Wanted::default(), natural: None })
    }

    fn process(&mut self, _input: usize, frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        (self.1)(frame);
        Ok(())
    }
}

fn any() -> Vec<MemoryKind> {
    Consumes::cpu().kinds
}

fn part(launch: &str) -> Gst {
    Gst { launch: launch.to_owned(), sync: false, ..Gst::default() }
}

/// `part → sink`, run until it ends.
fn run(part: Gst, sink: impl Element + 'static, frames: Option<u64>) -> Report {
    let mut graph = Graph::new("test");
    let part = graph.add("part", part.build().unwrap()).unwrap();
    let sink = graph.add("sink", Box::new(sink)).unwrap();
    graph.link(part, sink).unwrap();
    finish(graph, frames)
}

fn finish(graph: Graph, frames: Option<u64>) -> Report {
    let (mut last, mut frames_then, mut hangs) = (Instant::now(), 0, false);
    let options = RunOptions { frames, tick: Duration::from_millis(20), ..RunOptions::default() };
    let report = supervise::run(graph, &options, |progress| {
        if let Progress::Running(graph, _) = progress {
            let frames_now = graph.counts().iter().map(|e| e.counts.frames).sum::<u64>();
            if frames_now != frames_then {
                (last, frames_then) = (Instant::now(), frames_now);
            }
        }
        hangs = last.elapsed() > LONG;
        if hangs { Verdict::Stop } else { Verdict::Continue }
    });
    assert!(!hangs, "it hangs after {frames_then} frames: {:?}", report.error);
    report
}

fn well(report: &Report) {
    assert!(report.error.is_none(), "{}", report.error.as_ref().unwrap());
    assert_eq!((report.graph.ledger().copied(), report.plan.is_zero_copy()), (0, true));
}

fn own(report: &Report, name: &str) -> u64 {
    let counts = report.graph.counts().into_iter().find(|e| e.name == "part").unwrap();
    counts.own.iter().find(|(own, _)| *own == name).unwrap().1
}

/// All bytes of the picture, rows one behind the other.
fn pixels(frame: &Frame) -> Vec<u8> {
    (0..frame.buffer.layout().planes().len()).flat_map(|p| native::plane(&frame.buffer, p).0).collect()
}

fn expected(n: u64) -> Vec<u8> {
    (0..(SIZE.0 * SIZE.1 * 3 / 2) as usize).map(|at| byte(n, at)).collect()
}

/// Looks at every frame, from the first on; returns what the run was.
fn every_pixel(part: Gst, kinds: Vec<MemoryKind>, frames: u64) -> Report {
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    let probe = Probe(kinds, move |frame: Frame| {
        let mut seen = count.lock().unwrap();
        assert!(pixels(&frame) == expected(*seen), "frame {seen}");
        *seen += 1;
    });
    let report = run(part, probe, None);
    well(&report);
    assert_eq!(*seen.lock().unwrap(), frames);
    report
}

#[test]
fn memfds_of_a_sources_own_come_out_without_a_copy_and_go_back() {
    let _alone = alone();
    let report = every_pixel(part(&format!("bringing buffers=12 num-buffers=400 ! {CAPS}")), any(), 400);
    assert_eq!((own(&report, "imports"), own(&report, "copied-frames")), (12, 0));
    assert_eq!(report.plan.links[0].stream.origin, Origin::Memfd);
    assert_eq!(report.plan.links[0].memory, MemoryKind::Memfd);
    drop(report);
    assert_eq!(memories(), 0);
}

#[test]
fn rows_are_where_gst_video_meta_says_and_a_file_known_by_whatever_memory_it_comes_in() {
    let _alone = alone();
    let report = every_pixel(part(&format!("bringing padding=32 rewraps=true num-buffers=300 ! {CAPS}")), any(), 300);
    assert_eq!(report.plan.links[0].stride, SIZE.0 + 32);
    // As many as negotiation asked for, and those that wait to come out: two, and one on its way.
    let (imports, granted) = (own(&report, "imports"), u64::from(report.plan.budgets[0].granted));
    assert!((granted..=granted + 3).contains(&imports), "{imports} for {granted}");
    drop(report);
    assert_eq!(memories(), 0);
}

#[test]
fn a_pool_that_has_just_as_many_as_are_needed_does() {
    let _alone = alone();
    let launch = format!("bringing buffers=2 fixed=true num-buffers=300 ! {CAPS}");
    let report = every_pixel(Gst { holds: Some(1), ..part(&launch) }, any(), 300);
    assert_eq!(own(&report, "imports"), 2);
}

#[test]
fn a_pool_that_has_too_few_is_refused_with_the_number_and_no_hang() {
    let _alone = alone();
    let launch = format!("bringing buffers=3 fixed=true ! {CAPS}");
    let part = Gst { timeout: Duration::from_millis(300), ..part(&launch) };
    let error = run(part, Probe(any(), drop), None).error.unwrap().to_string();
    assert!(error.contains("(bringing) gives no further picture while 3 are held, and 9 are needed"), "{error}");
    assert_eq!(memories(), 0);
}

#[test]
fn a_source_that_ends_before_its_buffers_are_known_says_what_helps() {
    let _alone = alone();
    let launch = format!("bringing num-buffers=4 ! {CAPS}");
    let error = run(part(&launch), Probe(any(), drop), None).error.unwrap().to_string();
    assert!(error.contains("(bringing) ends before its 9 buffers have been seen; set `holds` lower"), "{error}");
    every_pixel(Gst { holds: Some(3), ..part(&launch) }, any(), 4);
}

#[test]
fn frames_stay_whole_after_the_end_and_their_memory_goes_with_the_last_of_them() {
    let _alone = alone();
    for frames in [Some(30), None] {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let keeps = Arc::clone(&kept);
        let probe = Probe(any(), move |frame: Frame| {
            let mut kept = keeps.lock().unwrap();
            kept.push(frame);
            if kept.len() > 1 {
                kept.remove(0);
            }
        });
        // The source waits for a buffer as the run ends: it is stopped all the same.
        let launch = format!("bringing num-buffers=60 ! {CAPS}");
        let report = run(Gst { holds: Some(2), ..part(&launch) }, probe, frames);
        well(&report);
        drop(report);
        let last = frames.unwrap_or(60);
        let mut kept = kept.lock().unwrap();
        // GStreamer frees a pool as a whole.
        assert!(memories() >= 1 && kept.len() == 1);
        for (frame, n) in kept.iter().zip(last - 1..) {
            assert!(pixels(frame) == expected(n), "frame {n}");
        }
        kept.clear();
        assert_eq!(memories(), 0);
    }
}

#[test]
fn live_sources_are_known_in_full_before_anything_streams_so_that_other_processes_are_told() {
    let _alone = alone();
    let socket = std::env::temp_dir().join(format!("shrbuf-gst-memory-{}", std::process::id()));
    let mut graph = Graph::new("out");
    let launch = format!("bringing live=true buffers=40 ! {CAPS} ! noting");
    let source = graph.add("part", Gst { sync: true, ..part(&launch) }.build().unwrap()).unwrap();
    let split = graph.add("split", Tee::default().build().unwrap()).unwrap();
    // What it was not told of it would not send.
    let out = IpcSink { path: socket, ..IpcSink::default() };
    let out = graph.add("out", out.build().unwrap()).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sums = Arc::clone(&seen);
    let probe = Probe(any(), move |frame: Frame| sums.lock().unwrap().push((frame.timestamp.0, sum(&pixels(&frame)))));
    let sink = graph.add("sink", Box::new(probe)).unwrap();
    graph.link(source, split).unwrap();
    graph.link(split, out).unwrap();
    graph.link(split, sink).unwrap();
    let report = finish(graph, Some(300));
    well(&report);
    assert_eq!(own(&report, "imports"), 40);
    // Stamps and pixels are those that GStreamer saw.
    let (seen, noted) = (seen.lock().unwrap(), noted());
    assert!(seen.len() == 300 && seen.iter().all(|frame| noted.contains(frame)), "{} frames", seen.len());
    drop(report);
    assert_eq!(memories(), 0);
}

#[test]
fn a_camera_is_started_once_for_a_run() {
    let _alone = alone();
    let dma_bufs = if has_udmabuf() { &["", "dma-bufs=true"][..] } else { &[""] };
    for set in dma_bufs {
        starts();
        let launch = format!("bringing live=true {set} ! {CAPS} ! queue");
        let mut graph = Graph::new("once");
        let source = graph.add("part", part(&launch).build().unwrap()).unwrap();
        let sink = graph.add("sink", NullSink::default().build().unwrap()).unwrap();
        graph.link(source, sink).unwrap();
        for _ in 0..2 {
            let report = finish(graph, Some(50));
            well(&report);
            // It had as many as are needed all the same.
            assert!(own(&report, "imports") >= u64::from(report.plan.budgets[0].granted));
            assert_eq!(starts(), 1, "{launch}");
            graph = report.graph;
        }
        drop(graph);
        assert_eq!(memories(), 0);
    }
}

#[test]
fn a_camera_that_was_looked_at_for_somebody_who_cannot_have_its_frames_is_let_go_of() {
    let _alone = alone();
    starts();
    let launch = format!("bringing live=true ! {CAPS}");
    let mut graph = Graph::new("refused");
    let source = graph.add("part", part(&launch).build().unwrap()).unwrap();
    let sink = graph.add("sink", Box::new(Probe(vec![MemoryKind::DmaBuf], drop))).unwrap();
    graph.link(source, sink).unwrap();
    for _ in 0..2 {
        let report = finish(graph, None);
        assert!(report.error.is_some());
        graph = report.graph;
    }
    drop(graph);
    assert_eq!(memories(), 0);
}

#[test]
fn memory_that_nobody_knew_of_before_it_came_is_imported_as_it_comes() {
    let _alone = alone();
    // What comes out is not made of what goes in, which negotiation cannot know.
    let launch = format!("fakesink name=in bringing buffers=5 padding=16 ! {CAPS} ! noting name=out");
    let mut graph = Graph::new("late");
    let feed = shrbuf_elements::test_src::TestSrc { memory: Memory::Memfd, free_run: true, ..Default::default() };
    let feed = graph.add("feed", feed.build().unwrap()).unwrap();
    let part = graph.add("part", part(&launch).build().unwrap()).unwrap();
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    let probe = Probe(vec![MemoryKind::Memfd], move |frame: Frame| {
        let mut seen = count.lock().unwrap();
        assert!(pixels(&frame) == expected(*seen), "frame {seen}");
        *seen += 1;
    });
    let sink = graph.add("sink", Box::new(probe)).unwrap();
    graph.link(feed, part).unwrap();
    graph.link(part, sink).unwrap();
    let seen_enough = Arc::clone(&seen);
    let begin = Instant::now();
    let report = supervise::run(graph, &RunOptions { tick: Duration::from_millis(5), ..RunOptions::default() }, |_| {
        let over = *seen_enough.lock().unwrap() >= 300 || begin.elapsed() > LONG;
        if over { Verdict::Stop } else { Verdict::Continue }
    });
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(*seen.lock().unwrap() >= 300);
    assert_eq!((report.graph.ledger().copied(), own(&report, "imports")), (0, 5));
    drop(report);
    assert_eq!(memories(), 0);
}

#[test]
fn a_source_that_fails_gets_its_memory_back() {
    let _alone = alone();
    let launch = format!("bringing ! {CAPS} ! identity error-after=50");
    let error = run(part(&launch), Probe(any(), drop), None).error.unwrap().to_string();
    assert!(error.contains("(identity)"), "{error}");
    assert_eq!(memories(), 0);
}

#[test]
fn system_memory_is_refused_with_what_helps_whatever_it_is_next_to() {
    let _alone = alone();
    let launch = format!("bringing told=true num-buffers=20 ! {CAPS}");
    let error = run(part(&launch), Probe(any(), drop), None).error.unwrap().to_string();
    assert!(error.contains("(bringing) makes frames in memory of its own; have it make dma-bufs"), "{error}");
    assert!(error.contains("copies = \"allow\""), "{error}");
    // Memfds are of no use to somebody who takes dma-bufs.
    let launch = format!("bringing num-buffers=20 ! {CAPS}");
    let error = run(part(&launch), Probe(vec![MemoryKind::DmaBuf], drop), None).error.unwrap().to_string();
    assert!(error.contains("(bringing) makes frames in memfds of its own"), "{error}");
    assert_eq!(memories(), 0);
}

#[test]
fn a_graph_runs_again_and_again() {
    let _alone = alone();
    let mut graph = Graph::new("again");
    let launch = format!("bringing live=true ! {CAPS}");
    let source = graph.add("part", part(&launch).build().unwrap()).unwrap();
    let sink = graph.add("sink", NullSink::default().build().unwrap()).unwrap();
    graph.link(source, sink).unwrap();
    for round in 1..=3 {
        let report = finish(graph, Some(50 * round));
        well(&report);
        graph = report.graph;
    }
    drop(graph);
    assert_eq!(memories(), 0);
}

#[test]
fn dma_bufs_of_a_sources_own_come_out_without_a_copy_however_caps_call_them() {
    let _alone = alone();
    if !has_udmabuf() {
        return;
    }
    let drm = "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=NV12,width=64,height=48,framerate=200/1";
    let said = CAPS.replace("x-raw", "x-raw(memory:DMABuf)");
    let mut all = vec![("", CAPS), ("", &said), ("told=true", "identity"), ("live=true", CAPS)];
    if cfg!(feature = "gstreamer-v1_24") {
        all.push(("", drm));
    }
    let before = shrbuf_tests::Footprint::now();
    for (set, caps) in all {
        let launch = format!("bringing dma-bufs=true buffers=12 num-buffers=300 {set} ! {caps} ! noting");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sums = Arc::clone(&seen);
        let probe = Probe(vec![MemoryKind::DmaBuf], move |frame: Frame| {
            sums.lock().unwrap().push(sum(&pixels(&frame)));
        });
        let report = run(part(&launch), probe, None);
        well(&report);
        // One after the other as GStreamer saw them; of a live source, from somewhere on.
        let seen = seen.lock().unwrap();
        let noted: Vec<u64> = noted().into_iter().map(|(_, sum)| sum).collect();
        assert!(noted.ends_with(&seen), "{launch}: {} of {}", seen.len(), noted.len());
        assert!(seen.len() == 300 || (set.contains("live") && seen.len() > 200), "{launch}: {}", seen.len());
        assert_eq!((own(&report, "imports"), report.plan.links[0].stream.origin), (12, Origin::Gstreamer), "{launch}");
        drop(report);
        assert_eq!(memories(), 0);
    }
    assert_eq!(shrbuf_tests::Footprint::settled(&before).dma_bufs, before.dma_bufs);
}

#[test]
fn dma_bufs_leave_nothing_of_gstreamers_behind() {
    if !has_udmabuf() {
        return;
    }
    // In a process of its own, which GStreamer's leaks tracer watches.
    if std::env::var_os("GST_TRACERS").is_none() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "dma_bufs_leave_nothing_of_gstreamers_behind"])
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
    let alone = alone();
    for (set, frames) in [("num-buffers=50", None), ("live=true", Some(50))] {
        let launch = format!("bringing dma-bufs=true buffers=12 {set} ! {CAPS}");
        let report = run(part(&launch), Probe(vec![MemoryKind::DmaBuf], drop), frames);
        well(&report);
        assert_eq!(report.plan.links[0].stream.origin, Origin::Gstreamer);
    }
    // And ours, which go in.
    let camera = TestSrc { memory: Memory::Udmabuf, format: Some(Format::Nv12), ..TestSrc::default() };
    let mut graph = Graph::new("in");
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let part = graph.add("part", part("identity ! fakesink").build().unwrap()).unwrap();
    graph.link(camera, part).unwrap();
    well(&finish(graph, Some(20)));
    assert_eq!(memories(), 0);
    drop(alone);
    // SAFETY: this process runs this one test, and nothing of GStreamer's is used after it.
    unsafe { gst::deinit() };
}
