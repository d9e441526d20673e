//! The store in a pipeline: what is kept comes back as it was, when it is asked for.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use shrbuf::{Ledger, Reason};
use shrbuf_elements::Memory;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::test_src::{Pattern, TestSrc, read_marker};
use shrbuf_elements::tmem::{Command, Remote, Tmem};
use shrbuf_pipeline::property::Bytes;
use shrbuf_pipeline::stats::NodeCounts;
use shrbuf_pipeline::supervise::{Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Frame, Graph, Rate, Size};
use shrbuf_tests::native::Probe;

const RATE: u32 = 100;

/// A frame that was replayed: its number and time stamp, and those that are drawn in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    sequence: u64,
    timestamp: u64,
    drawn: (u64, u64),
}

fn camera() -> TestSrc {
    TestSrc {
        size: Size::new(320, 180),
        rate: Rate::new(RATE, 1),
        memory: Memory::Memfd,
        pattern: Pattern::Noise,
        ..TestSrc::default()
    }
}

fn tmem() -> Tmem {
    Tmem { keep: Duration::from_millis(500), max: Some(Bytes(64 << 20)), memory: Memory::Memfd, ..Tmem::default() }
}

/// Taken for writing by those that keep a core busy, for reading by those whose frames have to be in time.
static CORES: RwLock<()> = RwLock::new(());

fn in_time() -> RwLockReadGuard<'static, ()> {
    CORES.read().unwrap_or_else(PoisonError::into_inner)
}

fn busy() -> RwLockWriteGuard<'static, ()> {
    CORES.write().unwrap_or_else(PoisonError::into_inner)
}

/// `camera → tmem`, whose replay is looked at.
fn replayed(camera: TestSrc, tmem: Tmem) -> (Graph, Remote, Receiver<Seen>) {
    let mut graph = Graph::new("test");
    let (element, remote) = tmem.build_with_remote().unwrap();
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let store = graph.add("store", element).unwrap();
    let account = Ledger::default().account("test", Reason::Inspect);
    let (sender, seen) = channel();
    let look = move |frame: Frame| {
        let marker = read_marker(&frame.buffer, &account).unwrap();
        let drawn = (u64::from(marker.frame), marker.timestamp.0);
        sender.send(Seen { sequence: frame.sequence, timestamp: frame.timestamp.0, drawn }).unwrap();
    };
    graph.add("sink", Box::new(Probe(look))).unwrap();
    graph.link(camera, store).unwrap();
    let (from, to) = (graph.output("store.replay").unwrap(), graph.input("sink").unwrap());
    graph.link_ports(from, to, None).unwrap();
    (graph, remote, seen)
}

fn counts(graph: &Graph, name: &str) -> NodeCounts {
    graph.counts().into_iter().find(|c| c.name == name).unwrap().counts
}

/// Runs; `at` is asked at each tick, with how many frames the camera has sent.
fn run_while(graph: Graph, mut at: impl FnMut(u64) -> Verdict) -> Report {
    run_looking(graph, |graph| at(counts(graph, "camera").frames))
}

fn run_looking(graph: Graph, mut at: impl FnMut(&Graph) -> Verdict) -> Report {
    let options = RunOptions { tick: Duration::from_millis(5), ..RunOptions::default() };
    let report = run(graph, &options, |progress| match progress {
        Progress::Running(graph, since) => {
            assert!(since < Duration::from_secs(60), "it does not end");
            at(graph)
        }
        _ => Verdict::Continue,
    });
    assert!(report.error.is_none(), "{:?}", report.error);
    report
}

/// Each frame is what it was when it was captured, and none is missing between.
fn are_whole(seen: &[Seen]) {
    for s in seen {
        assert_eq!(s.drawn, (s.sequence, s.timestamp));
    }
    for pair in seen.windows(2) {
        assert!(pair[1].timestamp > pair[0].timestamp, "{pair:?}");
    }
}

#[test]
fn a_trigger_replays_what_is_kept_and_what_comes_after_it() {
    let _turn = in_time();
    // It counts frames by when they were put, so they may be late, but none may be dropped.
    let (graph, remote, seen) = replayed(camera(), Tmem { after: Duration::from_millis(300), waiting: 16, ..tmem() });
    let mut triggered = None;

    let report = run_while(graph, |frames| {
        if triggered.is_none() && frames >= 100 {
            triggered = Some(frames);
            assert!(remote.send(Command::Trigger(None)));
        }
        if frames >= 200 { Verdict::End } else { Verdict::Continue }
    });

    let seen: Vec<Seen> = seen.try_iter().collect();
    are_whole(&seen);
    let span = Duration::from_nanos(seen.last().unwrap().timestamp - seen[0].timestamp);
    // 500 ms before the frame that was the newest then, and 300 ms after it.
    assert!((Duration::from_millis(700)..=Duration::from_millis(801)).contains(&span), "{span:?}");
    assert!(seen[0].sequence < triggered.unwrap() && seen.last().unwrap().sequence >= triggered.unwrap());
    let held = counts(&report.graph, "store").held.unwrap();
    assert!(held.time > Duration::from_millis(300) && held.time < Duration::from_millis(700), "{held:?}");
    assert!(!remote.send(Command::Trigger(None)), "it does not run any more");
}

#[test]
fn triggers_that_overlap_are_one_replay() {
    let _turn = in_time();
    let (graph, remote, seen) = replayed(camera(), Tmem { after: Duration::from_millis(300), ..tmem() });
    let mut sent: Vec<u64> = Vec::new();

    run_while(graph, |frames| {
        if sent.len() < 3 && frames >= 80 + 15 * sent.len() as u64 {
            sent.push(frames);
            remote.send(Command::Trigger(None));
        }
        if frames >= 220 { Verdict::End } else { Verdict::Continue }
    });

    let seen: Vec<Seen> = seen.try_iter().collect();
    are_whole(&seen);
    // From 500 ms before the first to 300 ms after the last.
    let numbers = seen.last().unwrap().sequence - seen[0].sequence;
    let expected = 50 + (sent[2] - sent[0]) + 30;
    assert!(numbers.abs_diff(expected) <= 10, "{numbers} of {expected}, triggered at {sent:?}");
}

#[test]
fn the_past_is_played_forwards_backwards_and_frame_by_frame() {
    let _turn = in_time();
    // It compares what two replays have, whatever a loaded machine is late with.
    let (graph, remote, seen) = replayed(camera(), Tmem { waiting: 16, ..tmem() });
    let s = Duration::from_secs_f64;
    let mut sent = false;

    run_while(graph, |frames| {
        if !sent && frames >= 80 {
            sent = true;
            remote.send(Command::Play { from: s(0.3), to: s(0.1) });
            remote.send(Command::Play { from: s(0.1), to: s(0.3) });
            remote.send(Command::Play { from: s(0.2), to: s(0.2) });
        }
        if frames >= 120 { Verdict::End } else { Verdict::Continue }
    });

    let mut seen: Vec<Seen> = seen.try_iter().collect();
    let one = seen.pop().unwrap();
    let turn = seen.windows(2).position(|pair| pair[1].timestamp <= pair[0].timestamp).unwrap() + 1;
    let (forwards, backwards) = seen.split_at(turn);
    are_whole(forwards);
    let mut turned = backwards.to_vec();
    turned.reverse();
    are_whole(&turned);
    // A frame may have come from one command to the next.
    let both = forwards.iter().filter(|frame| turned.contains(frame)).count();
    assert!(both >= 15 && forwards.len() <= both + 2 && turned.len() <= both + 2, "{forwards:?} {turned:?}");
    assert!(forwards.contains(&one) || turned.contains(&one), "{one:?}");
}

#[test]
fn what_cannot_be_kept_in_time_is_dropped_and_does_not_hold_up_the_source() {
    let _turn = busy();
    let mut graph = Graph::new("test");
    let source = TestSrc { free_run: true, size: Size::new(1280, 720), memory: Memory::Memfd, ..TestSrc::default() };
    let source = graph.add("camera", source.build().unwrap()).unwrap();
    let store = graph.add("store", Tmem { waiting: 1, ..tmem() }.build().unwrap()).unwrap();
    let sink = graph.add("sink", NullSink {}.build().unwrap()).unwrap();
    let replay = graph.add("replay", NullSink {}.build().unwrap()).unwrap();
    graph.link(source, store).unwrap();
    graph.link(store, sink).unwrap();
    graph.link(store, replay).unwrap();

    let report = run(graph, &RunOptions { frames: Some(300), ..RunOptions::default() }, |_| Verdict::Continue);

    assert!(report.error.is_none(), "{:?}", report.error);
    assert_eq!(counts(&report.graph, "sink").frames, 300);
    let store = report.graph.counts().into_iter().find(|c| c.name == "store").unwrap();
    let own = |name: &str| store.own.iter().find(|(n, _)| *n == name).unwrap().1;
    assert_eq!(own("kept") + own("refused") + store.counts.dropped, 300);
    assert!(own("kept") > 0);
    let ledger = report.graph.ledger();
    let stored: u64 = ledger.entries().iter().filter(|e| e.reason == Reason::Store).map(|e| e.bytes).sum();
    assert_eq!((stored, ledger.copied()), (own("kept") * 1280 * 720 * 4, 0));
}

/// Keeps noise, which does not compress, so that 100 frames of 320x180 take 22 MiB of 16, and triggers after 150.
fn too_much(tmem: Tmem) -> (Report, Vec<Seen>) {
    let tmem = Tmem { keep: Duration::from_secs(10), max: Some(Bytes(16 << 20)), ..tmem };
    let (graph, remote, seen) = replayed(camera(), tmem);
    let mut sent = false;
    let report = run_while(graph, |frames| {
        if !sent && frames >= 150 {
            sent = true;
            remote.send(Command::Trigger(None));
        }
        if frames >= 200 { Verdict::End } else { Verdict::Continue }
    });
    let seen: Vec<Seen> = seen.try_iter().collect();
    are_whole(&seen);
    (report, seen)
}

#[test]
fn memory_that_does_not_suffice_drops_the_oldest() {
    let (_, seen) = too_much(tmem());

    assert!((20..100).contains(&seen.len()), "{}", seen.len());
}

#[test]
fn old_frames_thin_out_down_to_the_least_rate() {
    let _turn = busy();
    // 436 frames fit, in 24 segments, of which six may be halved twice.
    let tmem = Tmem {
        keep: Duration::from_secs(60),
        max: Some(Bytes(96 << 20)),
        min_rate: Some(Rate::new(RATE, 2)),
        waiting: 16,
        ..tmem()
    };
    let (graph, remote, seen) = replayed(TestSrc { rate: Rate::new(2 * RATE, 1), ..camera() }, tmem);

    let report = run_looking(graph, |graph| {
        // However many a loaded machine drops.
        if counts(graph, "camera").frames < 1000 + counts(graph, "store").dropped {
            return Verdict::Continue;
        }
        remote.send(Command::Trigger(None));
        Verdict::End
    });

    let seen: Vec<Seen> = seen.try_iter().collect();
    are_whole(&seen);
    // By the store, or by the camera, whose every buffer may be in use on a loaded machine.
    let dropped = counts(&report.graph, "store").dropped + counts(&report.graph, "camera").dropped;
    let mut apart: Vec<u64> = seen.windows(2).map(|pair| pair[1].sequence - pair[0].sequence).collect();
    let reach = seen.last().unwrap().sequence - seen[0].sequence;
    println!("{} frames reach back {reach}, {dropped} were dropped before", seen.len());
    assert!(reach > 436 * 4 / 3, "{} frames reach back {reach}", seen.len());
    apart.sort_unstable();
    // A segment may have gone as the replay passed.
    assert!(apart[apart.len() - 2] <= 4 + dropped, "{apart:?}");
    let [once, twice] = [2, 4].map(|n| apart.iter().filter(|apart| **apart >= n).count());
    assert!(apart[20] == 1 && once >= 40 && twice >= 20, "{apart:?}");
}

#[test]
fn pinned_frames_stay_until_they_are_sent() {
    let (report, seen) = too_much(Tmem { pin: true, ..tmem() });

    assert!(seen.len() >= 20, "{}", seen.len());
    let store = report.graph.counts().into_iter().find(|c| c.name == "store").unwrap();
    assert_eq!(store.own.iter().find(|(n, _)| *n == "missed").unwrap().1, 0);
}

/// Keeps more than fits, in a store that both share; what each holds in the end.
fn sharing(light: Tmem, heavy: Tmem, store: &str) -> [u64; 2] {
    let mut graph = Graph::new("test");
    for (name, tmem) in [("light", light), ("heavy", heavy)] {
        let tmem = Tmem { store: Some(store.into()), keep: Duration::from_secs(60), waiting: 16, ..tmem };
        let camera = graph.add(&format!("{name}-camera"), camera().build().unwrap()).unwrap();
        let store = graph.add(name, tmem.build().unwrap()).unwrap();
        graph.link(camera, store).unwrap();
        for output in ["out", "replay"] {
            let sink = graph.add(&format!("{name}-{output}"), NullSink {}.build().unwrap()).unwrap();
            graph.link(store, sink).unwrap();
        }
    }
    // 23 MB of noise a second each, where none is dropped.
    let kept = |graph: &Graph, name: &str| counts(graph, name).frames - counts(graph, name).dropped;
    let report = run_looking(graph, |graph| {
        let enough = ["light", "heavy"].iter().all(|name| kept(graph, name) > 500);
        if enough { Verdict::End } else { Verdict::Continue }
    });
    ["light", "heavy"].map(|name| counts(&report.graph, name).held.unwrap().stored)
}

#[test]
fn elements_that_share_a_store_share_its_limit_by_weight() {
    let _turn = busy();
    let light = Tmem { max: Some(Bytes(64 << 20)), ..tmem() };
    let heavy = Tmem { max: Some(Bytes(64 << 20)), weight: 3, ..tmem() };

    let [light, heavy] = sharing(light, heavy, "by weight");

    assert!(light + heavy > 48 << 20, "{light} and {heavy} of {}", 64 << 20);
    assert!(heavy > 2 * light, "{light} {heavy}");
}

#[test]
fn elements_with_different_limits_for_one_store_do_not_start_and_are_both_named() {
    let mut graph = Graph::new("test");
    for (name, max) in [("one", 64), ("other", 8)] {
        let tmem = Tmem { store: Some("two limits".into()), max: Some(Bytes(max << 20)), ..tmem() };
        let camera = graph.add(&format!("{name}-camera"), camera().build().unwrap()).unwrap();
        let store = graph.add(name, tmem.build().unwrap()).unwrap();
        graph.link(camera, store).unwrap();
        for output in ["out", "replay"] {
            let sink = graph.add(&format!("{name}-{output}"), NullSink {}.build().unwrap()).unwrap();
            graph.link(store, sink).unwrap();
        }
    }

    let report = run(graph, &RunOptions::default(), |_| Verdict::End);

    let error = report.error.expect("it started").to_string();
    for part in ["`two limits`", "`one`", "`other`", "64MiB", "8MiB"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(counts(&report.graph, "one-camera").frames, 0);
}

#[test]
fn an_element_keeps_to_its_quota_of_a_shared_store() {
    let _turn = busy();
    let light = Tmem { max: Some(Bytes(64 << 20)), quota: Some(Bytes(16 << 20)), ..tmem() };

    let [light, heavy] = sharing(light, Tmem { max: Some(Bytes(64 << 20)), ..tmem() }, "by quota");

    assert!(light <= 16 << 20 && heavy > 32 << 20, "{light} {heavy}");
}
