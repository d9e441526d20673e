//! Frames that are others from some moment on, out of `shrbufsink`.

use crate::late::{ALL, Memory, Upstream, WIDTH, memories};
use crate::launch::until;
use crate::roles::follower;

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
