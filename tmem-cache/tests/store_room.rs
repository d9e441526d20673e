//! A store that is full: who goes, who stays, who is refused, and holes.

mod common;

use common::{MIB, Random, get, noise, put};
use tmem_cache::store::{Handle, PoolOptions, Sharing, Store, StoreOptions};

#[test]
fn weights_share_a_full_store() {
    let store = Store::new(&StoreOptions::new(64 * MIB)).unwrap();
    let [light, heavy] = [1, 3].map(|w| store.pool(PoolOptions::ephemeral(Sharing::Private).weight(w)).unwrap());
    let mut random = Random(4);
    for i in 0..4000 {
        let noise: Vec<u8> = (0..4096).flat_map(|_| random.next().to_le_bytes()).collect();
        put(if i % 2 == 0 { &light } else { &heavy }, Handle::new(1, i), &noise);
    }
    let [l, h] = [&light, &heavy].map(|p| p.stats().bytes_held as f64);
    assert!((2.0..4.5).contains(&(h / l)), "{h} / {l}");
    assert!(store.stats().bytes_memory <= 64 * MIB as u64 + 2 * 4 * MIB as u64);
}

/// Puts chunks of 64 KiB, of which `fit` find room at once; the indices that are there then.
fn thinned(options: PoolOptions, count: u32, fit: usize) -> Vec<u32> {
    let store = Store::new(&StoreOptions::new(fit * (64 << 10))).unwrap();
    let pool = store.pool(options).unwrap();
    let mut random = Random(4);
    for i in 0..count {
        let noise: Vec<u8> = (0..8192).flat_map(|_| random.next().to_le_bytes()).collect();
        assert!(put(&pool, Handle::new(1, i), &noise), "{i}");
        // It moves chunks too, and they must not count as thinned then.
        if i % 100 == 0 {
            store.maintain(std::time::Duration::ZERO);
        }
    }
    (0..count).filter(|i| pool.lease(Handle::new(1, *i)).unwrap().is_some()).collect()
}

#[test]
fn thinning_halves_old_chunks_as_often_as_it_may_and_no_more() {
    // 16 segments, and the last step takes two.
    let (count, fit) = (3500, 1024);
    let reach = [0, 1, 2, 3, 9].map(|halvings| {
        let there = thinned(PoolOptions::ephemeral(Sharing::Shared).thinning(halvings), count, fit);
        let apart: Vec<u32> = there.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(apart.iter().max(), Some(&(1 << halvings.min(3))), "{halvings} halvings");
        assert!(apart.is_sorted_by(|older, newer| older >= newer), "older ones are farther apart: {apart:?}");
        assert!(apart[apart.len() - fit / 3..].iter().all(|n| *n == 1), "the newest are all there");
        (count - there[0]) as usize
    });
    println!("{reach:?} of {count} chunks in the room of {fit}");
    // A step brings half of the room, less what lies idle in segments that are not full: one for each step, of 16.
    for (halvings, reach) in reach.windows(2).take(3).enumerate() {
        let more = reach[1] - reach[0];
        assert!((fit / 5..=fit / 2).contains(&more), "halving {halvings} brings {more}");
    }
}

#[test]
fn thinning_of_indices_that_it_cannot_tell_apart_drops_the_oldest() {
    let store = Store::new(&StoreOptions::new(32 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared).thinning(3)).unwrap();
    let mut random = Random(4);
    for i in 0..2000 {
        let noise: Vec<u8> = (0..8192).flat_map(|_| random.next().to_le_bytes()).collect();
        assert!(put(&pool, Handle::new(1, 8 * i), &noise), "{i}");
    }
    let there: Vec<u32> = (0..2000).filter(|i| pool.lease(Handle::new(1, 8 * i)).unwrap().is_some()).collect();
    assert!(there.len() > 400 && there == (2000 - there.len() as u32..2000).collect::<Vec<_>>(), "{there:?}");
}

#[test]
fn full_persistent_pool_refuses_until_there_is_room_again() {
    let store = Store::new(&StoreOptions::new(32 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let mut random = Random(4);
    let noise: Vec<u8> = (0..MIB / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    let chunk = |i: u32| {
        let mut n = noise.clone();
        n[0] = i as u8;
        n
    };
    let accepted = (0..64).filter(|i| put(&pool, Handle::new(1, *i), &chunk(*i))).count();
    assert_eq!(accepted, 32);
    (0..32).for_each(|i| assert!(get(&pool, Handle::new(1, i)).unwrap() == chunk(i)));
    (0..8).for_each(|i| assert!(pool.flush(Handle::new(1, i))));
    assert!(put(&pool, Handle::new(2, 0), &chunk(0)));
}

#[test]
fn full_persistent_pool_does_not_flip_flop() {
    let store = Store::new(&StoreOptions::new(128 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let chunk = noise(4, MIB);
    let put = |object: u64, i: u32| {
        let mut chunk = chunk.clone();
        chunk[..4].copy_from_slice(&(i + 1000 * object as u32).to_le_bytes());
        put(&pool, Handle::new(object, i), &chunk)
    };
    assert_eq!((0..140).filter(|i| put(1, *i)).count(), 128);
    assert!(pool.is_full());
    // A segment of 32 becomes free, then three more.
    (0..4).for_each(|i| assert!(pool.flush(Handle::new(1, i))));
    assert!(pool.is_full() && !put(2, 0));
    (4..16).for_each(|i| assert!(pool.flush(Handle::new(1, i))));
    assert!(!pool.is_full() && (0..16).all(|i| put(3, i)));
}

#[test]
fn compaction_closes_the_holes_of_persistent_chunks() {
    let store = Store::new(&StoreOptions::new(128 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let mut random = Random(4);
    let mut chunk = || (0..2048).flat_map(|_| random.next().to_le_bytes()).collect::<Vec<u8>>();
    let chunks: Vec<_> = (0..6000).map(|_| chunk()).collect();
    chunks.iter().enumerate().for_each(|(i, c)| assert!(put(&pool, Handle::new(1, i as u32), c)));
    (0..6000).filter(|i| i % 3 != 0).for_each(|i| assert!(pool.flush(Handle::new(1, i))));
    while store.maintain(std::time::Duration::ZERO) > 0 {}
    let stats = pool.stats();
    let over = stats.bytes_held as f64 - stats.bytes_compressed as f64;
    assert!(over < 0.02 * stats.bytes_compressed as f64 + 8.0 * MIB as f64, "{stats:?}");
    (0..6000).step_by(3).for_each(|i| assert!(get(&pool, Handle::new(1, i as u32)).unwrap() == chunks[i]));
}

#[test]
fn compaction_comes_to_an_end_whatever_the_size_of_chunks() {
    for len in [5_000, 64 << 10, 700_000, 3 * MIB] {
        let store = Store::new(&StoreOptions::new(96 * MIB)).unwrap();
        let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
        let mut random = Random(4);
        let mut noise: Vec<u8> = (0..len / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        for i in 0..(64 * MIB / len) as u32 {
            noise[..4].copy_from_slice(&i.to_le_bytes());
            assert!(put(&pool, Handle::new(1, i), &noise));
        }
        (0..(64 * MIB / len) as u32).filter(|i| i % 3 != 0).for_each(|i| assert!(pool.flush(Handle::new(1, i))));
        // A round moves 8 MiB or ends, and all there is are 22 MiB.
        let rounds = (0..50).take_while(|_| store.maintain(std::time::Duration::ZERO) > 0).count();
        assert!(rounds < 50, "chunks of {len} bytes are driven round for ever");
        let stats = pool.stats();
        assert!(stats.bytes_held <= stats.bytes_compressed + (12 * MIB + 2 * len) as u64, "{len}: {stats:?}");
    }
}

#[test]
fn chunk_that_is_put_again_and_again_stays_while_others_go() {
    for (options, len) in [
        (PoolOptions::ephemeral(Sharing::Shared), 64 << 10),
        (PoolOptions::ephemeral(Sharing::Shared).quota(16 * MIB), 64 << 10),
        (PoolOptions::ephemeral(Sharing::Shared).thinning(3), 64 << 10),
        // More than half a segment.
        (PoolOptions::ephemeral(Sharing::Private), 3 * MIB),
    ] {
        let store = Store::new(&StoreOptions::new(32 * MIB)).unwrap();
        let pool = store.pool(options).unwrap();
        // A still screen, and what moves now and then.
        let still = noise(1, len);
        let mut last = 0;
        for i in 0..1200 {
            if i % 7 == 0 {
                last = 2 * i + 1;
                assert!(put(&pool, Handle::new(1, last), &still));
            } else {
                assert!(put(&pool, Handle::new(1, 2 * i), &noise(100 + u64::from(i), 128 << 10)));
            }
            assert!(pool.lease(Handle::new(1, last)).unwrap().is_some(), "{i}: {:?}", pool.options());
        }
        assert!(pool.stats().evicted_limit + pool.stats().evicted_thinned > 500, "{:?}", pool.stats());
        // It was stored once, if never for long enough to be evicted.
        assert!(pool.stats().puts_same > 160, "{:?}", pool.stats());
        assert!(get(&pool, Handle::new(1, last)).unwrap() == still);
    }
}

#[test]
fn chunk_that_is_no_longer_put_goes_with_its_time() {
    let store = Store::new(&StoreOptions::new(32 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared)).unwrap();
    let still = noise(1, 64 << 10);
    (0..10).for_each(|i| assert!(put(&pool, Handle::new(1, i), &still)));
    (10..700).for_each(|i| assert!(put(&pool, Handle::new(1, i), &noise(u64::from(i), 128 << 10))));
    assert!((0..10).all(|i| get(&pool, Handle::new(1, i)).is_none()));
}
