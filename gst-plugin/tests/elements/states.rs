//! Stops, pauses and flushes while an element waits. The pipeline under test is in this process, its peer is not.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Once, mpsc};
use std::time::Duration;

use gst::prelude::*;
use gst_check::Harness;

use crate::launch::{LONG, Launch, Temporary, bytes_of, register, until, until_listening};

fn pipeline(description: &str) -> gst::Pipeline {
    register();
    gst::parse::launch(description).unwrap().downcast().unwrap()
}

/// Whatever waits, the state is there soon.
fn set(pipeline: &gst::Pipeline, state: gst::State) {
    let (done, wait) = mpsc::channel();
    let pipeline = pipeline.clone();
    std::thread::spawn(move || {
        pipeline.set_state(state).unwrap();
        let reached = pipeline.state(gst::ClockTime::from_seconds(LONG.as_secs()));
        done.send(reached.1)
    });
    assert_eq!(wait.recv_timeout(LONG * 2), Ok(state), "a change of state hangs");
}

/// Frames that have passed the element's pad.
fn count(pipeline: &gst::Pipeline, element: &str, pad: &str) -> Arc<AtomicU32> {
    let passed = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&passed);
    let pad = pipeline.by_name(element).unwrap().static_pad(pad).unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    passed
}

#[test]
fn source_that_waits_for_a_frame_can_be_stopped_and_started_again() {
    let socket = Temporary::new("silent");
    // Waits for another consumer, and sends nothing until then.
    let sink = format!("videotestsrc ! shrbufsink path={} wait-for=2", socket.as_str());
    let _producer = Launch::new(&sink);
    until_listening(&socket);
    let pipeline = pipeline(&format!("shrbufsrc path={} ! fakesink", socket.as_str()));
    for _ in 0..3 {
        set(&pipeline, gst::State::Null);
        pipeline.set_state(gst::State::Playing).unwrap();
        until("a connection", || pipeline.current_state() != gst::State::Null);
    }
    set(&pipeline, gst::State::Null);
}

#[test]
fn source_goes_on_after_a_flush_and_after_a_pause() {
    let socket = Temporary::new("flush");
    let _producer = Launch::new(&format!("videotestsrc is-live=true ! shrbufsink path={}", socket.as_str()));
    until_listening(&socket);
    let pipeline = pipeline(&format!("shrbufsrc name=src path={} ! fakesink sync=false", socket.as_str()));
    let passed = count(&pipeline, "src", "src");
    let more = || {
        let before = passed.load(Ordering::Relaxed);
        until("frames", || passed.load(Ordering::Relaxed) > before + 2);
    };
    pipeline.set_state(gst::State::Playing).unwrap();
    more();
    let source = pipeline.by_name("src").unwrap();
    assert!(source.send_event(gst::event::FlushStart::new()));
    assert!(source.send_event(gst::event::FlushStop::new(true)));
    more();
    pipeline.set_state(gst::State::Paused).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    more();
    set(&pipeline, gst::State::Null);
}

#[test]
fn sink_that_waits_for_consumers_can_be_stopped() {
    let socket = Temporary::new("stop");
    let pipeline = pipeline(&format!("videotestsrc name=src ! shrbufsink path={} wait-for=1", socket.as_str()));
    let passed = count(&pipeline, "src", "src");
    pipeline.set_state(gst::State::Playing).unwrap();
    until("the first frame", || passed.load(Ordering::Relaxed) > 0);
    set(&pipeline, gst::State::Null);
    assert!(!socket.0.exists(), "the socket is left behind");
}

#[test]
fn sink_that_waits_for_consumers_lets_go_of_the_frame_for_a_flush_and_goes_on_after_it() {
    let socket = Temporary::new("flushed");
    register();
    let sink = gst::parse::launch(&format!("shrbufsink path={} wait-for=1 copies=allow", socket.as_str())).unwrap();
    let mut harness = Harness::with_element(&sink, Some("sink"), None);
    harness.set_src_caps_str("video/x-raw,format=GRAY8,width=64,height=48,framerate=25/1");
    harness.play();
    let frame = || gst::Buffer::from_slice([7; 64 * 48]);
    let (pushed, wait) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let flow = harness.push(frame());
        pushed.send(flow).unwrap();
        harness
    });
    until_listening(&socket);
    assert_eq!(wait.try_recv(), Err(mpsc::TryRecvError::Empty));

    let pad = sink.static_pad("sink").unwrap();
    assert!(pad.send_event(gst::event::FlushStart::new()));
    assert_eq!(wait.recv_timeout(LONG), Ok(Err(gst::FlowError::Flushing)));
    let mut harness = waiting.join().unwrap();
    assert!(harness.push_event(gst::event::FlushStop::new(true)));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    assert!(harness.push_event(gst::event::Segment::new(&segment)));
    let _consumer = Launch::new(&format!("shrbufsrc path={} ! fakesink", socket.as_str()));
    assert_eq!(harness.push(frame()), Ok(gst::FlowSuccess::Ok));
    until("a consumer that has it", || sink.property::<gst::Structure>("stats").get("sent") == Ok(1u64));
}

#[test]
fn latency_of_a_source_is_one_frame_to_as_many_as_it_may_hold() {
    let socket = Temporary::new("latency");
    let pictures = "videotestsrc is-live=true ! video/x-raw,framerate=50/1";
    let _producer = Launch::new(&format!("{pictures} ! shrbufsink path={} window=3", socket.as_str()));
    until_listening(&socket);
    let pipeline = pipeline(&format!("shrbufsrc name=src path={} ! fakesink", socket.as_str()));
    let passed = count(&pipeline, "src", "src");
    pipeline.set_state(gst::State::Playing).unwrap();
    until("a frame", || passed.load(Ordering::Relaxed) > 0);
    let mut latency = gst::query::Latency::new();
    assert!(pipeline.by_name("src").unwrap().query(&mut latency));
    let ms = gst::ClockTime::from_mseconds;
    assert_eq!(latency.result(), (true, ms(20), Some(ms(60))));
    set(&pipeline, gst::State::Null);
}

#[test]
fn sink_that_waits_for_consumers_can_be_paused_and_loses_nothing() {
    let socket = Temporary::new("pause");
    let pictures = "videotestsrc num-buffers=30 ! video/x-raw,format=NV12,width=320,height=240";
    let sink = format!("{pictures} ! shrbufsink name=sink path={} wait-for=1 policy=block", socket.as_str());
    let pipeline = pipeline(&sink);
    // Each is reached before the next is asked for: GStreamer itself may stay in PAUSED otherwise.
    for state in [gst::State::Playing, gst::State::Paused, gst::State::Playing] {
        set(&pipeline, state);
    }
    until_listening(&socket);
    assert_eq!(bytes_of(&format!("shrbufsrc path={}", socket.as_str())), bytes_of(pictures));
    let stats = pipeline.by_name("sink").unwrap().property::<gst::Structure>("stats");
    let number = |name: &str| stats.get::<u64>(name).unwrap();
    assert_eq!((number("sent"), number("lagged"), number("copied-bytes")), (30, 0, 0), "{stats}");
    set(&pipeline, gst::State::Null);
}

/// Has the thread that calls run only when no other thread wants to.
fn run_last() {
    let thread = nix::unistd::gettid().to_string();
    let chrt = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status().unwrap();
    assert!(chrt.success());
}

/// A pause that comes before the thread that the last change to PLAYING woke has run, so that GStreamer takes it for
/// one that still waits, and lets it render while the pipeline is paused.
#[test]
fn sink_that_waits_for_consumers_can_be_paused_before_its_thread_has_run() {
    let socket = Temporary::new("early");
    let pipeline = pipeline(&format!("videotestsrc name=src ! shrbufsink path={} wait-for=1", socket.as_str()));
    let once = Once::new();
    let pad = pipeline.by_name("src").unwrap().static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        once.call_once(run_last);
        gst::PadProbeReturn::Ok
    });
    set(&pipeline, gst::State::Paused);
    let busy = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if busy.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    } else {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        let changes = std::panic::catch_unwind(|| {
            for _ in 0..10 {
                busy.store(true, Ordering::Relaxed);
                set(&pipeline, gst::State::Playing);
                set(&pipeline, gst::State::Paused);
                busy.store(false, Ordering::Relaxed);
                // For its thread to run.
                std::thread::sleep(Duration::from_millis(20));
            }
            set(&pipeline, gst::State::Null);
        });
        done.store(true, Ordering::Relaxed);
        changes.unwrap();
    });
}

#[test]
fn copies_are_counted() {
    let socket = Temporary::new("copies");
    let pictures = "videotestsrc num-buffers=30 ! video/x-raw,format=NV12,width=320,height=240";
    let sink = format!("{pictures} ! tee ! shrbufsink name=sink path={} copies=allow", socket.as_str());
    let pipeline = pipeline(&sink);
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = pipeline.bus().unwrap().timed_pop_filtered(
        gst::ClockTime::from_seconds(LONG.as_secs()),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    assert_eq!(end.map(|message| message.type_()), Some(gst::MessageType::Eos));
    let stats = pipeline.by_name("sink").unwrap().property::<gst::Structure>("stats");
    let number = |name: &str| stats.get::<u64>(name).unwrap();
    let bytes = 30 * 320 * 240 * 3 / 2;
    assert_eq!((number("copied-frames"), number("copied-bytes"), number("unseen")), (30, bytes, 30), "{stats}");
    set(&pipeline, gst::State::Null);
}
