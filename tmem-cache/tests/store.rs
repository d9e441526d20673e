//! One conformance suite over all kinds of stores and pools: what transcendent memory promises.

mod common;

use std::collections::HashMap;

use common::{Camera, MIB, Random, each_pool, get, noise, put, stores};
use shrbuf::{Format, Shrbuf};
use tmem_cache::store::{
    GetError, Handle, LeaseLost, Life, Pool, PoolOptions, PutError, Sharing, Stamp, Store, StoreOptions,
};

#[test]
fn chunk_comes_back_bit_for_bit() {
    each_pool(|name, _, pool| {
        let mut random = Random(1);
        for (i, len) in [1, 2, 100, 4096, 70_000, 3 * MIB + 1].into_iter().enumerate() {
            let (handle, bytes) = (Handle::new(1, i as u32), random.bytes(len));
            assert!(put(pool, handle, &bytes), "{name}: {len}");
            assert!(get(pool, handle) == Some(bytes), "{name}: {len}");
        }
    });
}

#[test]
fn only_a_private_ephemeral_get_takes_the_chunk() {
    each_pool(|name, _, pool| {
        let handle = Handle::new(1, 1);
        assert!(put(pool, handle, &[5; 1000]));
        assert!(get(pool, handle).is_some(), "{name}");
        assert_eq!(get(pool, handle).is_none(), pool.options().destructive(), "{name}");
    });
}

#[test]
fn flushed_chunk_is_gone_and_its_neighbours_stay() {
    each_pool(|name, _, pool| {
        for (object, index) in [(1, 0), (1, 1), (2, 0)] {
            assert!(put(pool, Handle::new(object, index), &[index as u8; 50]));
        }
        assert!(pool.flush(Handle::new(1, 0)) && !pool.flush(Handle::new(1, 0)), "{name}");
        assert_eq!(get(pool, Handle::new(1, 0)), None, "{name}");
        assert_eq!((pool.flush_object(1), pool.flush_object(1)), (1, 0), "{name}");
        assert!(get(pool, Handle::new(1, 1)).is_none() && get(pool, Handle::new(2, 0)).is_some(), "{name}");
        pool.destroy();
        assert_eq!(get(pool, Handle::new(2, 0)), None, "{name}");
        let refused = pool.put(Handle::new(2, 0), &[1], Stamp::default());
        assert!(matches!(refused, Err(PutError::Destroyed)), "{name}: {refused:?}");
        assert_eq!(pool.stats().bytes_compressed, 0, "{name}");
    });
}

#[test]
fn refused_put_flushes_what_was_there() {
    each_pool(|name, _, pool| {
        let handle = Handle::new(3, 3);
        assert!(put(pool, handle, &[1; 100]));
        assert!(matches!(pool.put(handle, &[], Stamp::default()), Err(PutError::Size { bytes: 0 })));
        assert_eq!(get(pool, handle), None, "{name}");
        assert_eq!((pool.stats().puts, pool.stats().refused()), (1, 1), "{name}");
    });
}

#[test]
fn pools_do_not_see_each_other() {
    for (name, store, _dir) in stores() {
        let [a, b] = [(); 2].map(|()| store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap());
        assert!(put(&a, Handle::new(1, 1), b"a"));
        assert_eq!(get(&b, Handle::new(1, 1)), None, "{name}");
    }
}

/// What random operations put, and how.
trait Chunks {
    fn make(&mut self, random: &mut Random) -> Vec<u8>;
    fn put(&mut self, pool: &Pool, handle: Handle, bytes: &[u8]) -> bool;
}

/// Bytes of any length, a third of them what was put before.
#[derive(Default)]
struct Any(Vec<Vec<u8>>);

impl Chunks for Any {
    fn make(&mut self, random: &mut Random) -> Vec<u8> {
        let n = self.0.len();
        if n > 0 && random.below(3) == 0 {
            return self.0[n.saturating_sub(1 + random.below(20) as usize)].clone();
        }
        let most = 1 << random.below(18);
        let len = 1 + random.below(most) as usize;
        self.0.push(random.bytes(len));
        self.0[n].clone()
    }

    fn put(&mut self, pool: &Pool, handle: Handle, bytes: &[u8]) -> bool {
        put(pool, handle, bytes)
    }
}

/// Frames of a camera that now and then turns, so that they share references.
struct Shots(Camera, Shrbuf);

impl Shots {
    fn new() -> Shots {
        let camera = Camera::new(Format::Grey, (96, 64), 1);
        let buffer = camera.buffer(&[0; 96 * 64]);
        Shots(camera, buffer)
    }
}

impl Chunks for Shots {
    fn make(&mut self, random: &mut Random) -> Vec<u8> {
        if random.below(400) == 0 {
            self.0.turn(random.next());
        }
        self.0.shot()
    }

    fn put(&mut self, pool: &Pool, handle: Handle, bytes: &[u8]) -> bool {
        self.0.fill(&mut self.1, bytes);
        pool.put_frame(handle, &self.1, Stamp::default()).is_ok()
    }
}

fn agrees_with_a_model(name: &str, store: &Store, pool: &Pool, chunks: &mut impl Chunks) {
    let mut random = Random(7);
    let mut model: HashMap<Handle, Vec<u8>> = HashMap::new();
    let persistent = pool.options().life == Life::Persistent;
    for step in 0..3000 {
        let handle = Handle::new(random.below(4), random.below(8) as u32);
        match random.below(12) {
            0..4 => {
                let bytes = chunks.make(&mut random);
                let accepted = chunks.put(pool, handle, &bytes);
                model.remove(&handle);
                if accepted {
                    model.insert(handle, bytes);
                }
            }
            4..8 => {
                let got = get(pool, handle);
                let expected = model.get(&handle);
                let evicted = got.is_none() && !persistent;
                assert!(evicted || got.as_ref() == expected, "{name}: step {step}, {handle}");
                if got.is_none() || pool.options().destructive() {
                    model.remove(&handle);
                }
            }
            8 => drop((pool.flush(handle), model.remove(&handle))),
            9 if random.below(10) == 0 => {
                pool.flush_object(handle.object);
                model.retain(|h, _| h.object != handle.object);
            }
            9 => drop(store.maintain(std::time::Duration::from_millis(1))),
            10 => drop(store.push_out(random.below(MIB as u64) as usize)),
            _ => drop((
                store.bring_back(random.below(MIB as u64) as usize),
                random.below(4) == 0 && store.give_back(4 * MIB) > 0,
            )),
        }
    }
}

#[test]
fn random_operations_agree_with_a_model() {
    each_pool(|name, store, pool| {
        agrees_with_a_model(name, store, pool, &mut Any::default());
        assert!(pool.stats().puts_same > 50, "{name}: {:?}", pool.stats());
    });
}

#[test]
fn random_operations_on_frames_of_still_scenes_agree_with_a_model() {
    each_pool(|name, store, pool| {
        agrees_with_a_model(name, store, pool, &mut Shots::new());
        let stats = pool.stats();
        // Of a private ephemeral pool gets take the frames that an average would be of.
        let options = pool.options();
        let none = options.durable.is_some() || options.quota.is_some() || store.stats().budget < 64 * MIB as u64;
        assert!(stats.puts_reference > 0 || none || options.destructive(), "{name}: {stats:?}");
        assert!(stats.references == 0 || !none, "{name}: {stats:?}");
        assert_eq!(stats.damaged, 0, "{name}");
        pool.destroy();
        assert_eq!(pool.stats().bytes_references, 0, "{name}");
    });
}

#[test]
fn largest_chunk_comes_back_and_a_larger_one_is_refused() {
    let store = Store::new(&StoreOptions::new(272 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared)).unwrap();
    let mut bytes = vec![0; 256 * MIB + 1];
    let mut random = Random(3);
    bytes.chunks_exact_mut(8).for_each(|c| c.copy_from_slice(&random.next().to_le_bytes()));
    assert!(matches!(pool.put(Handle::new(0, 0), &bytes, Stamp::default()), Err(PutError::Size { .. })));
    bytes.pop();
    pool.put(Handle::new(0, 0), &bytes, Stamp::default()).unwrap();
    assert!(get(&pool, Handle::new(0, 0)).unwrap() == bytes);
}

#[test]
fn lease_keeps_others_out_and_the_chunk_in() {
    let store = Store::new(&StoreOptions::new(16 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::ephemeral(Sharing::Private)).unwrap();
    let handle = Handle::new(1, 1);
    pool.put(handle, b"first", Stamp::default()).unwrap();
    let lease = pool.lease(handle).unwrap().unwrap();
    assert!(matches!(pool.get(handle, &mut [0; 5]), Err(GetError::Leased)));
    store.give_back(16 * MIB);
    drop(lease);
    assert_eq!(get(&pool, handle).as_deref(), Some(&b"first"[..]));

    pool.put(handle, b"first", Stamp::default()).unwrap();
    let lease = pool.lease(handle).unwrap().unwrap();
    pool.put(handle, b"other", Stamp::default()).unwrap();
    assert_eq!(lease.adopt(), Err(LeaseLost));
    assert_eq!(get(&pool, handle).as_deref(), Some(&b"other"[..]));
}

#[test]
fn get_into_too_little_memory_leaves_the_chunk() {
    each_pool(|name, _, pool| {
        assert!(put(pool, Handle::new(1, 1), &[1; 100]));
        let got = pool.get(Handle::new(1, 1), &mut [0; 99]);
        assert!(matches!(got, Err(GetError::TooSmall { needed: 100, given: 99 })), "{name}: {got:?}");
        assert!(get(pool, Handle::new(1, 1)).is_some(), "{name}");
    });
}

#[test]
fn put_in_flight_leaves_nothing_in_a_pool_that_is_destroyed() {
    let store = Store::new(&StoreOptions::new(32 * MIB)).unwrap();
    for round in 0..100 {
        let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|t| {
                    let pool = &pool;
                    scope.spawn(move || {
                        (0..100_000).take_while(|i| put(pool, Handle::new(t, *i), &noise(t, 2048))).count()
                    })
                })
                .collect();
            while pool.stats().puts < 3 {
                std::thread::yield_now();
            }
            pool.destroy();
            for thread in threads {
                thread.join().unwrap();
            }
        });
        let stats = pool.stats();
        assert_eq!((stats.chunks, stats.bytes_original, stats.bytes_compressed), (0, 0, 0), "round {round}");
    }
}
