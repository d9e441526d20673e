//! Frames that are others from some moment on: out of `shrbufsink`, into `shrbufsrc`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use gst::prelude::*;

use crate::late::{ALL, Memory, Upstream, WIDTH, memories};
use crate::launch::{LONG, Temporary, until, until_listening};
use crate::roles::{changer, follower, load_plugin};

#[test]
fn consumers_follow_upstreams_own_memory_to_other_caps_and_back() {
    let mut upstream = Upstream::start(ALL);
    let mut pool = memories(3);
    let other = follower(upstream.socket.as_str(), "64:30,128:30,64:30");
    for (times, width) in [WIDTH, 2 * WIDTH, WIDTH].into_iter().enumerate() {
        if times > 0 {
            upstream.change(width);
        }
        // It is known to be all there is when the first comes again; the frames before that are nobody's.
        pool.iter_mut().for_each(|memory| upstream.push(memory));
        (0..10).for_each(|_| pool.iter_mut().for_each(|memory| upstream.push(memory)));
        until("its frames", || upstream.stat("frames") == 30 * (times as u64 + 1));
        assert_eq!((upstream.stat("unseen"), upstream.stat("late")), (3 * (times as u64 + 1), 0));
    }
    assert_eq!((upstream.stat("sent"), upstream.stat("lagged"), upstream.stat("refused")), (90, 0, 0));
    upstream.end();
    other.end_well();
}

#[test]
fn consumers_hear_of_an_end_before_it_is_known_where_the_other_frames_are() {
    let mut upstream = Upstream::start(ALL);
    let mut pool = memories(3);
    let other = follower(upstream.socket.as_str(), "64:30");
    (0..11).for_each(|_| pool.iter_mut().for_each(|memory| upstream.push(memory)));
    upstream.change(2 * WIDTH);
    upstream.push(&mut pool[0]);
    until("its frame, which is nobody's", || upstream.stat("unseen") == 3 + 1);
    upstream.end();
    other.end_well();
}

/// A picture in memory that nobody has.
fn push_free(upstream: &mut Upstream, pool: &mut [Memory]) {
    let mut free = None;
    until("memory that nobody has", || {
        free = pool.iter_mut().position(Memory::is_free);
        free.is_some()
    });
    upstream.push(&mut pool[free.unwrap()]);
}

#[test]
fn consumer_that_is_stopped_as_caps_change_holds_nobody_up_and_follows_when_it_goes_on() {
    let mut upstream = Upstream::start("policy=latest wait-for=2 consumers=2 window=2");
    let mut pool = memories(8);
    let others = [(); 2].map(|()| follower(upstream.socket.as_str(), "64,128"));
    pool.iter_mut().for_each(|memory| upstream.push(memory));
    until("frames for both", || {
        push_free(&mut upstream, &mut pool);
        upstream.stat("sent") > 20
    });
    others[1].stop();
    // Its window, and one that waits.
    let out = |pool: &mut [Memory]| pool.iter_mut().filter_map(|memory| (!memory.is_free()).then_some(())).count();
    (0..8).for_each(|_| push_free(&mut upstream, &mut pool));
    until("all that it may hold", || out(&mut pool) == 3);
    let (sent, unseen, late) = (upstream.stat("sent"), upstream.stat("unseen"), upstream.stat("late"));
    upstream.change(2 * WIDTH);
    // As videorate would.
    let held = pool.iter_mut().position(|memory| !memory.is_free()).unwrap();
    upstream.push_again(&pool[held]);
    until("its frame, which is nobody's", || upstream.stat("unseen") == unseen + 1);
    assert_eq!(upstream.stat("late"), late);
    let more = |upstream: &mut Upstream, pool: &mut [Memory], sent| {
        until("frames of the other kind", || {
            push_free(upstream, pool);
            upstream.stat("sent") > sent + 20
        });
    };
    more(&mut upstream, &mut pool, sent);
    assert_eq!(upstream.stat("consumers"), 1);
    others[1].go_on();
    until("the other", || upstream.stat("consumers") == 2);
    let sent = upstream.stat("sent");
    more(&mut upstream, &mut pool, sent);
    assert_eq!((upstream.stat("copied-frames"), upstream.stat("refused")), (0, 0));
    upstream.end();
    others.into_iter().for_each(|other| other.end_well());
}

/// `shrbufsrc`, which connects again to a producer that does not answer, and would for an hour; how many frames have come.
fn connects_again(socket: &Temporary, waits: &Temporary) -> (gst::Pipeline, Arc<AtomicU32>) {
    load_plugin();
    until_listening(socket);
    let line = format!("shrbufsrc name=src path={} timeout=3600000000000 ! fakesink", socket.as_str());
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let frames = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&frames);
    let pad = pipeline.by_name("src").unwrap().static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    until("its second connection", || waits.0.exists());
    (pipeline, frames)
}

#[test]
fn source_that_connects_again_can_be_stopped() {
    let (socket, waits) = (Temporary::new("again"), Temporary::new("waits"));
    let _other = changer(socket.as_str(), waits.as_str());
    let (pipeline, _) = connects_again(&socket, &waits);
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(pipeline.set_state(gst::State::Null)));
    assert!(matches!(wait.recv_timeout(LONG), Ok(Ok(_))), "a change of state hangs");
}

#[test]
fn source_that_connects_again_goes_on_with_that_after_a_flush() {
    let (socket, waits) = (Temporary::new("again-flush"), Temporary::new("waits"));
    let _other = changer(socket.as_str(), waits.as_str());
    let (pipeline, frames) = connects_again(&socket, &waits);
    let source = pipeline.by_name("src").unwrap();
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        done.send(
            source.send_event(gst::event::FlushStart::new()) && source.send_event(gst::event::FlushStop::new(true)),
        )
    });
    assert_eq!(wait.recv_timeout(LONG), Ok(true), "a flush hangs");
    std::fs::remove_file(&waits.0).unwrap();
    until("frames of the second connection", || frames.load(Ordering::Relaxed) > 2);
    pipeline.set_state(gst::State::Null).unwrap();
}
