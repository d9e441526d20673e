//! What a store says of itself.

mod common;

use common::{MIB, get, noise, put};
use tmem_cache::store::{GetError, Handle, Pool, PoolOptions, Sharing, Stamp, Store, StoreOptions};

#[test]
fn every_counter_counts_what_it_says() {
    let second = Stamp { at_ns: 0, duration_ns: 1_000_000_000 };
    let dir = common::Dir::new();
    let options = StoreOptions { file: Some(common::file(&dir)), ..StoreOptions::new(32 * MIB) };
    let (filed, plain) = (Store::new(&options).unwrap(), Store::new(&StoreOptions::new(32 * MIB)).unwrap());
    let pool = |store: &Store, options| store.pool(options).unwrap();
    let fill =
        |pool: &Pool, n: u32| (0..n).filter(|i| put(pool, Handle::new(1, *i), &noise((*i).into(), 128 << 10))).count();

    // What somebody gets stays.
    let shared = pool(&plain, PoolOptions::ephemeral(Sharing::Shared));
    for i in 0..600 {
        assert!(put(&shared, Handle::new(1, i), &noise(i.into(), 128 << 10)));
        assert!(get(&shared, Handle::new(1, 0)).is_some(), "{i}");
    }
    assert!(shared.stats().reinserted > 0 && shared.stats().hits == 600);
    drop(shared);

    let thinning = pool(&plain, PoolOptions::ephemeral(Sharing::Shared).thinning(2));
    fill(&thinning, 600);
    assert!(thinning.stats().evicted_thinned > 20, "{:?}", thinning.stats());
    assert_eq!(thinning.stats().reinserted, 0);
    drop(thinning);

    let full = pool(&plain, PoolOptions::persistent(Sharing::Shared));
    let accepted = fill(&full, 300);
    assert_eq!((accepted, full.stats().refused_full), (256, 44));
    drop(full);

    let private = pool(&plain, PoolOptions::ephemeral(Sharing::Private));
    assert!(put(&private, Handle::new(1, 1), b"a"));
    let lease = private.lease(Handle::new(1, 1)).unwrap();
    assert!(matches!(private.get(Handle::new(1, 1), &mut [0]), Err(GetError::Leased)));
    drop(lease);
    private.destroy();
    assert!(!put(&private, Handle::new(1, 1), b"a"));
    assert_eq!((private.stats().busy, private.stats().refused_input, private.stats().hits), (1, 1, 0));

    let kept = pool(&filed, PoolOptions::persistent(Sharing::Shared));
    assert!(put(&kept, Handle::new(1, 1), &noise(1, 1000)));
    filed.push_out(usize::MAX);
    let small = kept.get(Handle::new(1, 1), &mut [0]);
    assert!(matches!(small, Err(GetError::TooSmall { .. })));
    assert!(get(&kept, Handle::new(1, 1)).is_some());
    assert_eq!((kept.stats().hits, kept.stats().hits_file), (1, 1));
    // A hit is counted when the chunk has been brought.
    let lease = kept.lease(Handle::new(1, 1)).unwrap().unwrap();
    lease.read(&mut [0; 1000]).unwrap();
    drop(lease);
    assert_eq!((kept.stats().hits, kept.stats().hits_file), (1, 1));

    // 1 MiB a second; of 32 MiB a pool with a quarter of the weight has 8.
    let light = pool(&plain, PoolOptions::ephemeral(Sharing::Shared));
    let _heavy = pool(&plain, PoolOptions::ephemeral(Sharing::Shared).weight(2));
    for i in 0..4 {
        light.put(Handle::new(1, i), &noise(i.into(), MIB), second).unwrap();
    }
    assert_eq!(light.stats().seconds_held(), 4.0);
    let predicted = plain.seconds_predicted(&light);
    // `private` still is a pool.
    assert!((predicted - 8.0).abs() < 1e-9, "{predicted}");
}

#[test]
fn what_happened_in_a_pool_is_told_after_it_is_gone() {
    let store = Store::new(&StoreOptions::new(32 * MIB)).unwrap();
    for _ in 0..2 {
        let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared)).unwrap();
        assert!(put(&pool, Handle::new(1, 1), &noise(1, 1000)) && get(&pool, Handle::new(1, 2)).is_none());
    }
    let all = store.stats().pools;
    assert_eq!((all.puts, all.misses), (2, 2));
    assert_eq!((all.chunks, all.bytes_compressed, all.bytes_held), (0, 0, 0), "nothing is held any more");
}
