//! `shrbuftmem` in a harness: this process pushes frames, triggers, and pulls.

use std::process::Command;

use gst::prelude::*;
use gst_check::Harness;

use crate::launch::{Launch, Temporary, register, until, until_listening};

const PERIOD: u64 = 40_000_000;
const SIZE: usize = 64 * 48;

fn harness(properties: &str) -> Harness {
    register();
    let element = gst::parse::launch(&format!("shrbuftmem waiting=16 {properties}")).unwrap();
    let mut harness = Harness::with_element(&element, Some("sink"), Some("src"));
    harness.set_src_caps(caps("GRAY8"));
    harness.play();
    harness
}

fn caps(format: &str) -> gst::Caps {
    let caps = gst::Caps::builder("video/x-raw").field("format", format).field("width", 64).field("height", 48);
    caps.field("framerate", gst::Fraction::new(25, 1)).build()
}

fn tmem(harness: &Harness) -> gst::Element {
    harness.element().unwrap()
}

fn stat(harness: &Harness, name: &str) -> u64 {
    tmem(harness).property::<gst::Structure>("stats").get(name).unwrap()
}

/// Frame `n`: a picture and a time stamp of its own.
fn frame(n: u64, size: usize) -> gst::Buffer {
    let mut frame = gst::Buffer::from_mut_slice((0..size).map(|i| (i as u64 * (n + 3) / 7) as u8).collect::<Vec<u8>>());
    let writable = frame.make_mut();
    writable.set_pts(gst::ClockTime::from_nseconds(n * PERIOD));
    writable.set_duration(gst::ClockTime::from_nseconds(PERIOD));
    writable.set_offset(n);
    frame
}

/// One after the other, each once the one before is kept.
fn push(harness: &mut Harness, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        let before = stat(harness, "kept");
        harness.push(frame(n, SIZE)).unwrap();
        until("a frame that is kept", || stat(harness, "kept") > before);
    }
}

fn trigger(harness: &Harness) {
    assert!(tmem(harness).emit_by_name::<bool>("trigger", &[]));
}

/// Numbers of the frames that came out, which are as they went in.
fn pull(harness: &mut Harness, frames: usize) -> Vec<u64> {
    let numbers = std::iter::repeat_with(|| {
        let got = harness.pull().unwrap();
        let n = got.pts().unwrap().nseconds() / PERIOD;
        let sent = frame(n, got.size());
        assert!(got.map_readable().unwrap()[..] == sent.map_readable().unwrap()[..], "frame {n} is another");
        assert_eq!((got.pts(), got.duration(), got.offset()), (sent.pts(), sent.duration(), n));
        n
    });
    numbers.take(frames).collect()
}

/// Where the leaks tracer is active: nothing of GStreamer's is alive any more.
fn nothing_is_left(harness: Harness) {
    drop(harness);
    for tracer in gst::active_tracers().iter().filter(|tracer| tracer.type_().name() == "GstLeaksTracer") {
        let alive = tracer.emit_by_name::<gst::Structure>("get-live-objects", &[]);
        let alive = alive.get::<gst::List>("live-objects-list").unwrap();
        let alive = alive.iter().map(|object| format!("{object:?}"));
        // What the registry has of a plugin that is part of the program.
        let of_registry = |object: &String| object.contains("(GstPlugin)") || object.contains("(GstElementFactory)");
        let alive: Vec<String> = alive.filter(|object| !of_registry(object)).collect();
        assert!(alive.is_empty(), "{alive:?}");
        println!("the tracer is silent");
    }
}

#[test]
fn a_trigger_sends_what_is_kept_and_what_follows() {
    let mut harness = harness("after=80000000");
    push(&mut harness, 0..10);
    assert_eq!(harness.buffers_in_queue(), 0);
    trigger(&harness);
    assert_eq!(pull(&mut harness, 10), Vec::from_iter(0..10));
    push(&mut harness, 10..15);
    assert_eq!(pull(&mut harness, 2), [10, 11]);
    until("the end", || stat(&harness, "emitted") == 12);
    assert_eq!(harness.buffers_in_queue(), 0);
    trigger(&harness);
    assert_eq!(pull(&mut harness, 15), Vec::from_iter(0..15));
    assert_eq!((stat(&harness, "triggers"), stat(&harness, "missed")), (2, 0));
    assert_eq!(stat(&harness, "copied-bytes"), 15 * SIZE as u64);
    nothing_is_left(harness);
}

#[test]
fn nothing_of_gstreamers_is_left_after_an_emission() {
    let test = "preroll::a_trigger_sends_what_is_kept_and_what_follows";
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env("GST_TRACERS", "leaks").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("the tracer is silent"), "{text}");
}

#[test]
fn what_is_older_than_keep_is_gone() {
    let mut harness = harness("keep=200000000");
    push(&mut harness, 0..20);
    trigger(&harness);
    assert_eq!(pull(&mut harness, 6), Vec::from_iter(14..20));
}

#[test]
fn both_ends_of_an_emission_are_told() {
    let mut harness = harness("");
    let bus = gst::Bus::new();
    tmem(&harness).set_bus(Some(&bus));
    push(&mut harness, 3..6);
    trigger(&harness);
    pull(&mut harness, 3);
    let told = |name: &str| {
        let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &[gst::MessageType::Element]).unwrap();
        let told = message.structure().unwrap().to_owned();
        assert_eq!(told.name(), name);
        told
    };
    let time = |n: u64| Some(gst::ClockTime::from_nseconds(n * PERIOD));
    assert_eq!(told("shrbuftmem-begin").get("first"), Ok(time(3)));
    let end = told("shrbuftmem-end");
    assert_eq!((end.get("first"), end.get("last")), (Ok(time(3)), Ok(time(5))));
    assert_eq!((end.get("frames"), end.get("missed")), (Ok(3u64), Ok(0u64)));
    tmem(&harness).set_bus(None::<&gst::Bus>);
}

#[test]
fn other_caps_empty_what_is_kept() {
    let mut harness = harness("");
    push(&mut harness, 0..5);
    harness.push_event(gst::event::Caps::new(&caps("NV12")));
    for n in 5..8 {
        harness.push(frame(n, SIZE * 3 / 2)).unwrap();
    }
    until("three more", || stat(&harness, "kept") == 8);
    trigger(&harness);
    assert_eq!(pull(&mut harness, 3), [5, 6, 7]);
    assert_eq!(harness.sinkpad().unwrap().current_caps(), Some(caps("NV12")));
}

#[test]
fn a_flush_empties_what_is_kept_and_it_goes_on() {
    let mut harness = harness("");
    push(&mut harness, 5..9);
    assert!(harness.push_event(gst::event::FlushStart::new()));
    assert!(harness.push_event(gst::event::FlushStop::new(true)));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    harness.push_event(gst::event::Segment::new(&segment));
    push(&mut harness, 0..3);
    trigger(&harness);
    assert_eq!(pull(&mut harness, 3), [0, 1, 2]);
}

#[test]
fn what_was_asked_for_goes_out_before_the_end() {
    let mut harness = harness("after=10000000000");
    push(&mut harness, 0..4);
    harness.push_event(gst::event::Gap::builder(gst::ClockTime::from_nseconds(4 * PERIOD)).build());
    trigger(&harness);
    harness.push(frame(6, SIZE)).unwrap();
    harness.push_event(gst::event::Eos::new());
    assert_eq!(pull(&mut harness, 5), [0, 1, 2, 3, 6]);
    until("the end", || {
        let events = std::iter::from_fn(|| harness.try_pull_event());
        events.into_iter().any(|event| event.type_() == gst::EventType::Eos)
    });
    assert_eq!(harness.push(frame(7, SIZE)), Err(gst::FlowError::Eos));
}

#[test]
fn events_come_in_order_and_sinks_preroll() {
    let mut harness = harness("");
    push(&mut harness, 7..8);
    let types: Vec<gst::EventType> =
        std::iter::from_fn(|| harness.pull_event().ok().map(|e| e.type_())).take(4).collect();
    use gst::EventType as E;
    assert_eq!(types, [E::StreamStart, E::Caps, E::Segment, E::Gap]);
}

#[test]
fn the_source_never_waits() {
    let mut harness = harness("waiting=1");
    let mut pushed = 0;
    // Were it to wait for each frame to be kept, none would ever be dropped.
    until("a frame that nobody had time for", || {
        harness.push(frame(pushed, SIZE)).unwrap();
        pushed += 1;
        stat(&harness, "dropped") > 0
    });
    until("all to be kept or dropped", || stat(&harness, "kept") + stat(&harness, "dropped") == pushed);
}

#[test]
fn latency_is_that_of_upstream_and_no_more_than_can_be() {
    let mut harness = harness("");
    harness.set_upstream_latency(gst::ClockTime::from_mseconds(20));
    assert_eq!(harness.query_latency(), Some(gst::ClockTime::from_mseconds(20)));
}

#[test]
fn allocation_takes_video_meta_and_enough_buffers() {
    let harness = harness("waiting=5");
    let mut query = gst::query::Allocation::new(Some(&caps("GRAY8")), true);
    assert!(harness.srcpad().unwrap().peer_query(&mut query));
    assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
    let pools: Vec<_> = query.allocation_pools().map(|(_, size, least, _)| (size as usize, least)).collect();
    assert_eq!(pools, [(SIZE, 6)]);
}

#[test]
fn padded_rows_come_back() {
    let mut harness = harness("");
    let mut padded = frame(2, 80 * 48);
    let flags = gst_video::VideoFrameFlags::empty();
    let format = gst_video::VideoFormat::Gray8;
    gst_video::VideoMeta::add_full(padded.make_mut(), flags, format, 64, 48, &[0], &[80]).unwrap();
    let rows = padded.map_readable().unwrap().chunks(80).flat_map(|row| row[..64].to_vec()).collect::<Vec<u8>>();
    harness.push(padded).unwrap();
    trigger(&harness);
    assert!(harness.pull().unwrap().map_readable().unwrap()[..] == rows[..]);
}

#[test]
fn frames_of_another_process_are_kept_without_a_copy() {
    let socket = Temporary::new("keep");
    let pictures = "videotestsrc num-buffers=20 ! video/x-raw,format=NV12,width=320,height=240";
    let sink = format!("{pictures} ! shrbufsink path={} wait-for=1 policy=block", socket.as_str());
    let producer = Launch::new(&sink);
    until_listening(&socket);
    register();
    let line = format!("shrbufsrc path={} ! shrbuftmem name=tmem waiting=16 ! appsink sync=false", socket.as_str());
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let tmem = pipeline.by_name("tmem").unwrap();
    let stat = |name: &str| tmem.property::<gst::Structure>("stats").get::<u64>(name).unwrap();
    until("all frames", || stat("kept") == 20);
    assert_eq!((stat("copied-bytes"), stat("dropped"), stat("refused")), (0, 0, 0));
    pipeline.set_state(gst::State::Null).unwrap();
    producer.end_well();
}
