//! Models of the index, under every interleaving of two or three threads. They run the store's own code: [`Index::reclaim`] and [`Index::exchange`] are what eviction and
//! every move call.

use loom::thread::{self, JoinHandle};

use super::*;

type Chunk = Arc<Resident<u32>>;

fn key() -> Key {
    Key { pool: 0, handle: Handle::new(1, 1) }
}

fn other() -> Key {
    Key { pool: 0, handle: Handle::new(1, 2) }
}

fn put_at(index: &Index<u32>, key: Key, value: u32) -> Chunk {
    loop {
        let chunk = Resident::new(value, vec![key.handle]);
        if index.publish(key, &chunk, Stamp::default(), None, || true).is_ok() {
            return chunk;
        }
    }
}

fn put(index: &Index<u32>, value: u32) -> Chunk {
    put_at(index, key(), value)
}

fn value_at(index: &Index<u32>, key: Key) -> Option<u32> {
    match index.find(key) {
        Found::Chunk(chunk, ..) => Some(chunk.value),
        _ => None,
    }
}

fn value(index: &Index<u32>) -> Option<u32> {
    value_at(index, key())
}

fn reclaimer(index: &Arc<Index<u32>>, chunk: &Chunk) -> JoinHandle<bool> {
    let (index, chunk) = (index.clone(), chunk.clone());
    thread::spawn(move || index.reclaim(0, &chunk, |_| {}))
}

/// Moves a chunk to one of value `now`, so that the models can tell the two apart.
fn mover(index: &Arc<Index<u32>>, chunk: &Chunk, now: u32) -> JoinHandle<Chunk> {
    let (index, chunk) = (index.clone(), chunk.clone());
    thread::spawn(move || {
        let now = Resident::new(now, Vec::new());
        index.exchange(0, &chunk, &now);
        now
    })
}

/// Every interleaving.
fn all(model: impl Fn(&Arc<Index<u32>>) + Send + Sync + 'static) {
    loom::model(move || model(&Arc::new(Index::new())));
}

#[test]
fn loom_reclaim_of_the_old_never_takes_the_new() {
    all(|index| {
        let old = put(index, 1);
        let reclaimer = reclaimer(index, &old);
        put(index, 2);
        assert_eq!(value(index), Some(2));
        reclaimer.join().unwrap();
        assert_eq!(value(index), Some(2));
    });
}

#[test]
fn loom_move_of_the_old_never_hides_the_new() {
    all(|index| {
        let old = put(index, 1);
        let mover = mover(index, &old, 10);
        put(index, 2);
        assert_eq!(value(index), Some(2));
        mover.join().unwrap();
        assert_eq!(value(index), Some(2));
    });
}

#[test]
fn loom_chunk_that_moves_is_there_at_every_moment() {
    all(|index| {
        let chunk = put(index, 1);
        let mover = mover(index, &chunk, 10);
        assert!(matches!(value(index), Some(1 | 10)));
        let now = mover.join().unwrap();
        assert_eq!((value(index), now.is_dead()), (Some(10), false));
    });
}

#[test]
fn loom_absence_once_seen_stays_seen() {
    all(|index| {
        let chunk = put(index, 1);
        let (reclaimer, mover) = (reclaimer(index, &chunk), mover(index, &chunk, 10));
        let seen = [value(index), value(index), value(index)];
        assert!(seen.windows(2).all(|w| w[0].is_some() || w[1].is_none()), "{seen:?}");
        (reclaimer.join().unwrap(), mover.join().unwrap());
    });
}

#[test]
fn loom_dead_chunk_is_never_left_in_an_entry() {
    all(|index| {
        let shared = Resident::new(1, Vec::new());
        let reclaimer = reclaimer(index, &shared);
        let joined = shared.join(key().handle, 0);
        let published = joined && index.publish(key(), &shared, Stamp::default(), None, || true).is_ok();
        reclaimer.join().unwrap();
        // Published and still there only if it is alive, so that the next reclaim finds it.
        assert!(value(index).is_none() || (published && !shared.is_dead()));
    });
}

#[test]
fn loom_owner_that_joins_during_a_move_has_one_of_the_two_or_is_told() {
    all(|index| {
        let chunk = put(index, 1);
        let mover = mover(index, &chunk, 10);
        let joined = chunk.join(other().handle, 0);
        let published = joined && index.publish(other(), &chunk, Stamp::default(), None, || true).is_ok();
        let now = mover.join().unwrap();
        assert_eq!(value_at(index, other()).is_some(), published);
        // The next reclaim of what was moved finds both.
        index.reclaim(0, &now, |_| {});
        assert_eq!((value(index), value_at(index, other())), (None, None));
    });
}

#[test]
fn loom_lease_dropped_during_reclaim_leaves_the_chunk_whole_or_gone() {
    all(|index| {
        let chunk = put(index, 1);
        let Found::Chunk(_, _, version) = index.lease(key()) else { panic!("just put") };
        let reclaimer = reclaimer(index, &chunk);
        index.unlease(key(), version);
        reclaimer.join().unwrap();
        match value(index) {
            Some(1) => assert!(!chunk.is_dead(), "in the index, but no reclaim would find it"),
            other => assert_eq!(other, None),
        }
    });
}

#[test]
fn loom_leased_chunk_is_never_reclaimed() {
    all(|index| {
        let chunk = put(index, 1);
        let reclaimer = reclaimer(index, &chunk);
        if let Found::Chunk(_, _, version) = index.lease(key()) {
            reclaimer.join().unwrap();
            assert!(index.take(key(), version).is_some());
        } else {
            reclaimer.join().unwrap();
        }
        assert_eq!(value(index), None);
    });
}

#[test]
fn loom_adopt_fails_after_a_put_over_the_lease() {
    all(|index| {
        put(index, 1);
        let Found::Chunk(_, _, version) = index.lease(key()) else { panic!("just put") };
        let putter = {
            let index = index.clone();
            thread::spawn(move || drop(put(&index, 2)))
        };
        let adopted = index.take(key(), version).map(|e| e.chunk.value);
        putter.join().unwrap();
        assert!(adopted.is_none_or(|value| value == 1));
        assert_eq!(value(index), Some(2));
        assert!(index.take(key(), version).is_none());
    });
}

#[test]
fn loom_move_keeps_lease_and_version() {
    all(|index| {
        let chunk = put(index, 1);
        let mover = mover(index, &chunk, 10);
        let Found::Chunk(_, _, version) = index.lease(key()) else { panic!("just put") };
        assert!(index.take(key(), version).is_some());
        mover.join().unwrap();
        assert_eq!(value(index), None);
    });
}

#[test]
fn loom_one_lease_at_a_time() {
    all(|index| {
        put(index, 1);
        let taker = {
            let index = index.clone();
            thread::spawn(move || match index.lease(key()) {
                Found::Chunk(_, _, version) => index.take(key(), version).is_some(),
                _ => false,
            })
        };
        let here = match index.lease(key()) {
            Found::Chunk(_, _, version) => index.take(key(), version).is_some(),
            _ => false,
        };
        let there = taker.join().unwrap();
        assert!(here ^ there, "a destructive get brings a chunk once");
    });
}

#[test]
fn loom_put_into_a_pool_that_is_destroyed_leaves_nothing() {
    use loom::sync::atomic::{AtomicBool, Ordering};
    all(|index| {
        let gone = Arc::new(AtomicBool::new(false));
        let putter = {
            let (index, gone) = (index.clone(), gone.clone());
            thread::spawn(move || {
                let chunk = Resident::new(1, vec![key().handle]);
                drop(index.publish(key(), &chunk, Stamp::default(), None, || !gone.load(Ordering::Relaxed)));
            })
        };
        gone.store(true, Ordering::Relaxed);
        drop(index.remove_pool(0));
        putter.join().unwrap();
        assert_eq!(value(index), None);
    });
}
