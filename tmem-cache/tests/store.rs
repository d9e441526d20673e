//! One conformance suite over all kinds of stores and pools, and what only some of them do.

mod common;

use std::collections::HashMap;

use common::{Camera, MIB, Random, pools, stores};
use shrbuf::exporter::Memfd;
use shrbuf::{Format, Layout, Ledger, Reason, Shrbuf};
use tmem_cache::codec::{Picture, Region};
use tmem_cache::store::{
    Admission, GetError, Handle, LeaseLost, Life, Pool, PoolOptions, Poor, PutError, Sharing, Stamp, Store,
    StoreOptions,
};

fn each_pool(f: impl Fn(&str, &Store, &Pool)) {
    for (name, store, _dir) in stores() {
        for options in pools(store.sync().is_ok() && _dir.is_some()) {
            let said = format!("{name}, {options:?}");
            f(&said, &store, &store.pool(options).unwrap());
        }
    }
}

fn put(pool: &Pool, handle: Handle, bytes: &[u8]) -> bool {
    pool.put(handle, bytes, Stamp::default()).is_ok()
}

fn get(pool: &Pool, handle: Handle) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    pool.get_vec(handle, &mut bytes).unwrap().map(|_| bytes)
}

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

/// Bytes of any length.
struct Any;

impl Chunks for Any {
    fn make(&mut self, random: &mut Random) -> Vec<u8> {
        let most = 1 << random.below(18);
        let len = 1 + random.below(most) as usize;
        random.bytes(len)
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
    each_pool(|name, store, pool| agrees_with_a_model(name, store, pool, &mut Any));
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

fn frame(layout: &Layout, seed: u64) -> Shrbuf {
    let mut frame = Memfd::new("frame").allocate(layout).unwrap();
    let account = Ledger::default().account("test", Reason::Generate);
    let mut random = Random(seed);
    let mut guard = frame.write().unwrap();
    for p in 0..layout.planes().len() {
        for y in 0..layout.rows(p) as usize {
            let row: Vec<u8> =
                (0..layout.row_bytes(p)).map(|x| (x as u8).wrapping_add(random.below(8) as u8)).collect();
            guard.plane(p).write(y, 0, &row, &account);
        }
    }
    drop(guard);
    frame
}

fn packed(frame: &Shrbuf) -> Vec<u8> {
    let account = Ledger::default().account("test", Reason::Inspect);
    let guard = frame.read().unwrap();
    let mut all = Vec::new();
    for p in 0..frame.layout().planes().len() {
        for y in 0..frame.layout().rows(p) as usize {
            let mut row = vec![0; frame.layout().row_bytes(p) as usize];
            guard.plane(p).read(y, 0, &mut row, &account);
            all.extend(row);
        }
    }
    all
}

#[test]
fn frame_comes_back_as_buffer_bytes_and_region_with_its_stamp() {
    let store = Store::new(&StoreOptions::new(32 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let stamp = Stamp { at_ns: 12, duration_ns: 33_000_000 };
    for (i, format) in [Format::Nv12, Format::Yuyv, Format::Xr24].into_iter().enumerate() {
        let handle = Handle::new(1, i as u32);
        let layout = Layout::linear(format, 161, 121, 64).unwrap();
        let original = frame(&layout, 5);
        pool.put_frame(handle, &original, stamp).unwrap();
        store.maintain(std::time::Duration::from_secs(1));

        let buffers = shrbuf::Pool::new(
            vec![Memfd::new("b").allocate(&Layout::linear(format, 161, 121, 1).unwrap()).unwrap()],
            |_| {},
        );
        let (back, got) = pool.get_from(handle, &buffers.unwrap()).unwrap().unwrap();
        assert_eq!(got.stamp, stamp);
        assert!(packed(&back) == packed(&original), "{format}");
        assert!(get(&pool, handle).unwrap() == packed(&original), "{format}");

        let region = Region { x: 0, y: 0, width: 161, height: 121 };
        let mut all = vec![0; Picture::of(&layout).unwrap().region_bytes(region)];
        pool.get_region(handle, region, &mut all).unwrap().unwrap();
        assert!(all == packed(&original), "{format}");
    }
    assert!((pool.stats().seconds_held() - 0.099).abs() < 1e-9);
    assert!(store.seconds_predicted(&pool) > 0.099);
}

#[test]
fn same_chunk_is_stored_once() {
    let store = Store::new(&StoreOptions::new(64 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let bytes: Vec<u8> = (0..MIB).map(|i| ((i * i) >> 7) as u8).collect();
    for i in 0..40 {
        assert!(put(&pool, Handle::new(1, i), &bytes));
    }
    let stats = pool.stats();
    assert_eq!((stats.chunks, stats.puts_same, stats.bytes_original), (40, 39, 40 * MIB as u64));
    assert!(stats.bytes_compressed <= MIB as u64);
    (0..39).for_each(|i| assert!(pool.flush(Handle::new(1, i))));
    assert!(get(&pool, Handle::new(1, 39)).unwrap() == bytes);
}

#[test]
fn poor_chunk_is_stored_raw_or_refused() {
    let store = Store::new(&StoreOptions::new(16 * MIB)).unwrap();
    let noise: Vec<u8> = {
        let mut r = Random(9);
        (0..10_000).map(|_| r.next() as u8).collect()
    };
    let raw = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    assert!(put(&raw, Handle::new(1, 1), &noise));
    assert_eq!((raw.stats().puts_raw, raw.stats().bytes_compressed), (1, 10_000));
    let picky = Admission { poor: Poor::Refuse, ..Admission::default() };
    let picky = store.pool(PoolOptions::persistent(Sharing::Shared).admission(picky)).unwrap();
    assert!(matches!(picky.put(Handle::new(1, 1), &noise, Stamp::default()), Err(PutError::Poor { .. })));
    assert_eq!(picky.stats().refused_poor, 1);
}

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

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len / 8).flat_map(|_| random.next().to_le_bytes()).collect()
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

#[test]
fn same_chunk_is_stored_once_after_it_has_become_denser_or_gone_to_a_file() {
    let long = std::time::Duration::from_secs(5);
    let dir = common::Dir::new();
    let options = StoreOptions { file: Some(common::file(&dir)), ..StoreOptions::new(64 * MIB) };
    let store = Store::new(&options).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let frame = frame(&Layout::linear(Format::Yuyv, 320, 240, 1).unwrap(), 5);
    // What lz4 leaves as it is.
    let bytes: Vec<u8> = noise(3, 100_000).iter().map(|b| b & 15).collect();
    for round in 0..4u32 {
        pool.put_frame(Handle::new(1, round), &frame, Stamp::default()).unwrap();
        assert!(put(&pool, Handle::new(2, round), &bytes));
        match round {
            0 => drop(store.maintain(long)),
            1 => drop(store.push_out(usize::MAX)),
            _ => drop(store.bring_back(usize::MAX)),
        }
    }
    let stats = pool.stats();
    assert_eq!((stats.recompressed, stats.puts, stats.puts_same, stats.pushed_out), (2, 8, 6, 2), "{stats:?}");
    for round in 0..4 {
        assert!(get(&pool, Handle::new(1, round)).unwrap() == packed(&frame));
        assert!(get(&pool, Handle::new(2, round)).unwrap() == bytes);
    }
}

#[test]
fn poor_frame_is_stored_as_it_is_or_refused() {
    let store = Store::new(&StoreOptions::new(32 * MIB)).unwrap();
    let layout = Layout::linear(Format::Grey, 256, 128, 1).unwrap();
    let camera = Camera::new(Format::Grey, (256, 128), 1);
    let poor = camera.buffer(&noise(7, 256 * 128));
    let well = frame(&layout, 1);

    let raw = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    raw.put_frame(Handle::new(1, 1), &poor, Stamp::default()).unwrap();
    raw.put_frame(Handle::new(1, 2), &well, Stamp::default()).unwrap();
    assert_eq!(raw.stats().puts_raw, 1);
    for (index, frame) in [(1, &poor), (2, &well)] {
        assert!(get(&raw, Handle::new(1, index)).unwrap() == packed(frame));
    }

    // By a threshold that half of its stripes would keep: none of them is coded.
    let strict = Admission { chunk: 0.3, ..Admission::default() };
    let all_raw = store.pool(PoolOptions::persistent(Sharing::Shared).admission(strict)).unwrap();
    all_raw.put_frame(Handle::new(1, 1), &well, Stamp::default()).unwrap();
    let stats = all_raw.stats();
    assert!(stats.puts_raw == 1 && stats.bytes_compressed >= 256 * 128, "{stats:?}");
    assert!(get(&all_raw, Handle::new(1, 1)).unwrap() == packed(&well));

    let picky = Admission { poor: Poor::Refuse, ..Admission::default() };
    let picky = store.pool(PoolOptions::persistent(Sharing::Shared).admission(picky)).unwrap();
    assert!(matches!(picky.put_frame(Handle::new(1, 1), &poor, Stamp::default()), Err(PutError::Poor { .. })));
}

#[test]
fn mean_of_what_is_held_wherever_it_lies_decides_on_the_next_chunk() {
    let dir = common::Dir::new();
    let options = StoreOptions { file: Some(common::file(&dir)), ..StoreOptions::new(16 * MIB) };
    let store = Store::new(&options).unwrap();
    let strict = Admission { chunk: 1.0, mean: 0.5, poor: Poor::Refuse };
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared).admission(strict)).unwrap();
    // Six tenths noise.
    let medium = |seed: u64| [noise(seed, 60_000), vec![0; 40_000]].concat();
    let refused =
        |seed: u64| matches!(pool.put(Handle::new(9, 9), &medium(seed), Stamp::default()), Err(PutError::Poor { .. }));

    assert!(put(&pool, Handle::new(1, 0), &medium(1)), "nothing is held yet");
    assert!(refused(2), "all that is held is above the mean");
    // The same again takes nothing, and counts for nothing.
    assert!(pool.stats().chunks == 1 && refused(3));
    store.push_out(usize::MAX);
    assert_eq!(pool.stats().bytes_compressed, 0);
    assert!(refused(4), "what lies in a file counts as what lies in memory");
    assert!(put(&pool, Handle::new(1, 1), &vec![0; 1_000_000]));
    assert!(!refused(5), "together they are below it");
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
