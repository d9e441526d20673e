//! Still scenes: frames that share a reference, and the reference's life.

mod common;

use std::time::Duration;

use common::{Camera, Dir, MIB, Random, file};
use shrbuf::{Format, Layout};
use tmem_cache::codec::{Picture, Region};
use tmem_cache::store::{Handle, Pool, PoolOptions, PoolStats, Sharing, Stamp, Store, StoreOptions};

const SIZE: (u32, u32) = (640, 360);
const FRAME: u64 = 640 * 360 * 2;

fn store(limit: usize) -> Store {
    Store::new(&StoreOptions::new(limit)).unwrap()
}

fn ephemeral(store: &Store) -> Pool {
    store.pool(PoolOptions::ephemeral(Sharing::Shared)).unwrap()
}

fn camera(scene: u64) -> Camera {
    Camera::new(Format::Yuyv, SIZE, scene)
}

/// Puts shots under the indices from `first` on; what they are.
fn film(pool: &Pool, camera: &mut Camera, first: u32, count: u32) -> Vec<Vec<u8>> {
    let put = |index: u32| {
        let shot = camera.shot();
        pool.put_frame(Handle::new(1, index), &camera.buffer(&shot), Stamp::default()).unwrap();
        shot
    };
    (first..first + count).map(put).collect()
}

fn get(pool: &Pool, index: u32) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    pool.get_vec(Handle::new(1, index), &mut bytes).unwrap().map(|_| bytes)
}

/// Each of these frames is there and is what it was.
fn are_whole(pool: &Pool, first: u32, shots: &[Vec<u8>]) {
    for (index, shot) in (first..).zip(shots) {
        assert!(get(pool, index).as_ref() == Some(shot), "{index}");
    }
}

fn ratio(stats: PoolStats) -> f64 {
    stats.bytes_original as f64 / (stats.bytes_compressed + stats.bytes_references) as f64
}

#[test]
fn frames_of_a_still_scene_are_smaller_with_a_reference() {
    let ratios = [true, false].map(|references| {
        let store = store(256 * MIB);
        let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared).references(references)).unwrap();
        let shots = film(&pool, &mut camera(1), 0, 200);
        are_whole(&pool, 0, &shots);
        let stats = pool.stats();
        assert_eq!((stats.references, stats.puts_reference > 150), (references.into(), references), "{stats:?}");
        assert_eq!(stats.bytes_references, FRAME * u64::from(references));
        ratio(stats)
    });
    println!("{ratios:?}");
    assert!(ratios[0] > 1.3 * ratios[1], "{ratios:?}");
}

#[test]
fn moving_scene_gets_no_reference_and_is_stored_as_without() {
    let stored = [true, false].map(|references| {
        let store = store(256 * MIB);
        let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared).references(references)).unwrap();
        let mut camera = camera(1);
        for index in 0..150 {
            camera.turn(index.into());
            film(&pool, &mut camera, index, 1);
        }
        assert_eq!((pool.stats().references, pool.stats().bytes_references), (0, 0));
        pool.stats().bytes_compressed
    });
    assert_eq!(stored[0], stored[1]);
}

#[test]
fn another_scene_gets_another_reference_and_frames_of_the_first_keep_theirs() {
    let store = store(512 * MIB);
    let pool = ephemeral(&store);
    let mut camera = camera(1);
    let bytes = |first: u32, camera: &mut Camera| {
        let before = pool.stats().bytes_compressed;
        let shots = film(&pool, camera, first, 20);
        ((pool.stats().bytes_compressed - before) as f64, shots)
    };
    let mut shots = film(&pool, &mut camera, 0, 100);
    let (first, more) = bytes(100, &mut camera);
    shots.extend(more);
    camera.turn(2);
    shots.extend(film(&pool, &mut camera, 120, 150));
    let (second, more) = bytes(270, &mut camera);
    shots.extend(more);

    assert!((0.95..1.05).contains(&(second / first)), "{first} {second}");
    assert_eq!((pool.stats().references, pool.stats().bytes_references), (2, 2 * FRAME));
    are_whole(&pool, 0, &shots);

    // The first goes with the frames of its scene.
    (0..270).for_each(|index| assert!(pool.flush(Handle::new(1, index))));
    assert_eq!(pool.stats().bytes_references, FRAME);
    are_whole(&pool, 270, &shots[270..]);
}

#[test]
fn reference_goes_with_its_last_chunk() {
    let store = store(64 * MIB);
    let pool = ephemeral(&store);
    let shots = film(&pool, &mut camera(1), 0, 60);
    let of_reference = |stats: PoolStats| (stats.bytes_references, stats.puts_reference);
    assert_eq!(of_reference(pool.stats()), (FRAME, 60 - 17));

    let last = 40;
    let others = (0..60).filter(|index| *index != last);
    others.for_each(|index| assert!(pool.flush(Handle::new(1, index))));
    assert_eq!(pool.stats().bytes_references, FRAME);
    are_whole(&pool, last, &shots[last as usize..][..1]);
    pool.flush(Handle::new(1, last));

    let stats = pool.stats();
    assert_eq!((stats.bytes_references, stats.chunks, stats.bytes_compressed), (0, 0, 0));
    drop(pool);
    store.give_back(usize::MAX);
    assert_eq!(store.stats().bytes_memory, 0);
}

#[test]
fn shrink_takes_the_reference_with_the_chunks_and_a_lease_keeps_both() {
    let store = store(64 * MIB);
    let pool = ephemeral(&store);
    let shots = film(&pool, &mut camera(1), 0, 60);
    let lease = pool.lease(Handle::new(1, 50)).unwrap().unwrap();
    store.give_back(usize::MAX);
    assert_eq!((pool.stats().chunks, pool.stats().bytes_references), (1, FRAME));
    let mut bytes = vec![0; lease.bytes()];
    lease.read(&mut bytes).unwrap();
    assert!(bytes == shots[50]);
    lease.adopt().unwrap();
    store.give_back(usize::MAX);
    assert_eq!((store.stats().bytes_memory, pool.stats().bytes_references), (0, 0));
    // The scene stands still as before.
    film(&pool, &mut camera(1), 100, 100);
    assert_eq!((pool.stats().references, pool.stats().bytes_references), (2, FRAME));
}

#[test]
fn reference_in_the_making_goes_where_memory_is_asked_back_and_with_the_last_chunk() {
    for shrinks in [true, false] {
        let store = store(64 * MIB);
        let pool = ephemeral(&store);
        film(&pool, &mut camera(1), 0, 12);
        assert_eq!((pool.stats().references, pool.stats().bytes_references), (0, FRAME));
        if shrinks {
            store.give_back(usize::MAX);
        } else {
            (0..12).for_each(|index| assert!(pool.flush(Handle::new(1, index))));
        }
        assert_eq!(pool.stats().bytes_references, 0);
        film(&pool, &mut camera(1), 20, 100);
        assert_eq!(pool.stats().references, 1);
    }
}

#[test]
fn full_store_keeps_to_its_budget_with_references_too() {
    let limit = 64 * MIB;
    let store = store(limit);
    let [one, other] =
        [1, 3].map(|weight| store.pool(PoolOptions::ephemeral(Sharing::Shared).weight(weight).thinning(2)).unwrap());
    let (mut cameras, mut latest) = ([camera(1), camera(2)], Vec::new());
    for index in 0..500 {
        if index % 200 == 199 {
            cameras[0].turn(index.into());
        }
        latest = [&one, &other].into_iter().zip(&mut cameras).map(|(pool, c)| film(pool, c, index, 1)).collect();
        assert!(store.stats().bytes_memory <= limit as u64, "{:?}", store.stats());
    }
    for (pool, shots) in [&one, &other].into_iter().zip(&latest) {
        are_whole(pool, 499, shots);
        assert!(pool.stats().references > 0 && pool.stats().evicted_limit > 0, "{:?}", pool.stats());
    }
    store.set_budget(16 * MIB);
    assert!(store.stats().bytes_memory <= 16 * MIB as u64);
}

#[test]
fn quota_holds_with_references_and_a_small_one_allows_none() {
    for (quota, references) in [(60 * MIB, 0), (64 * MIB, 1)] {
        let store = store(256 * MIB);
        let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared).quota(quota)).unwrap();
        let mut camera = camera(1);
        for index in 0..300 {
            film(&pool, &mut camera, index, 1);
            assert!(pool.stats().bytes_held <= quota as u64, "{:?}", pool.stats());
        }
        let stats = pool.stats();
        assert_eq!((stats.references, stats.puts_reference > 200), (references, references > 0), "{stats:?}");
        assert!(stats.evicted_limit > 0 || references > 0, "{stats:?}");
    }
}

#[test]
fn same_frame_is_stored_once_whether_or_not_it_has_a_reference() {
    let store = store(64 * MIB);
    let pool = ephemeral(&store);
    let mut camera = camera(1);
    film(&pool, &mut camera, 0, 40);
    let shot = camera.shot();
    let frame = camera.buffer(&shot);
    let before = pool.stats();
    (100..140).for_each(|i| pool.put_frame(Handle::new(1, i), &frame, Stamp::default()).unwrap());
    let now = pool.stats();
    assert_eq!((now.puts_same - before.puts_same, now.references), (39, 1));

    // A screen that stands still is one chunk, and nothing is made of it.
    let screen = ephemeral(&store);
    (0..200).for_each(|i| screen.put_frame(Handle::new(1, i), &frame, Stamp::default()).unwrap());
    assert_eq!((screen.stats().puts_same, screen.stats().references), (199, 0));
}

#[test]
fn idle_frames_get_denser_from_the_same_reference() {
    let store = store(64 * MIB);
    let pool = ephemeral(&store);
    let shots = film(&pool, &mut camera(1), 0, 40);
    let before = pool.stats().bytes_compressed;
    store.maintain(Duration::from_secs(60));
    let stats = pool.stats();
    assert!(stats.recompressed > 30 && stats.bytes_compressed < before, "{stats:?}");
    assert_eq!(stats.bytes_references, FRAME);
    are_whole(&pool, 0, &shots);

    let region = Region { x: 30, y: 100, width: 64, height: 20 };
    let layout = Layout::linear(Format::Yuyv, SIZE.0, SIZE.1, 1).unwrap();
    let mut part = vec![0; Picture::of(&layout).unwrap().region_bytes(region)];
    pool.get_region(Handle::new(1, 39), region, &mut part).unwrap().unwrap();
    let row = |y: usize| &shots[39][y * 1280 + 60..][..128];
    assert!(part.chunks_exact(128).zip(100..).all(|(part, y)| part == row(y)));
}

#[test]
fn frames_that_are_pushed_out_need_no_reference_any_more() {
    let dir = Dir::new();
    let store = Store::new(&StoreOptions { file: Some(file(&dir)), ..StoreOptions::new(64 * MIB) }).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let shots = film(&pool, &mut camera(1), 0, 40);
    // Some of them dense, all of them from the reference.
    store.maintain(Duration::from_millis(20));
    assert_eq!((pool.stats().bytes_references, pool.stats().references), (FRAME, 1));

    store.push_out(usize::MAX);

    let stats = pool.stats();
    assert_eq!((stats.bytes_references, stats.bytes_compressed, stats.pushed_out), (0, 0, 40), "{stats:?}");
    are_whole(&pool, 0, &shots);
    store.bring_back(usize::MAX);
    assert_eq!((pool.stats().brought_back, pool.stats().bytes_references), (40, 0));
    are_whole(&pool, 0, &shots);
}

#[test]
fn frames_that_memory_does_not_take_go_to_the_file_without_a_reference() {
    let dir = Dir::new();
    let store = Store::new(&StoreOptions { file: Some(file(&dir)), ..StoreOptions::new(64 * MIB) }).unwrap();
    let other = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let mut random = Random(1);
    let noise: Vec<u8> = (0..6 * MIB).flat_map(|_| random.next().to_le_bytes()).collect();
    other.put(Handle::new(1, 0), &noise, Stamp::default()).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let shots = film(&pool, &mut camera(1), 0, 100);
    let stats = pool.stats();
    assert!(stats.puts_file > 20 && stats.puts_reference > 5, "{stats:?}");
    store.push_out(usize::MAX);
    assert_eq!(pool.stats().bytes_references, 0);
    are_whole(&pool, 0, &shots);
}

#[test]
fn every_kind_of_picture_has_references() {
    let mut denser = 0;
    for format in [Format::Nv12, Format::Xr24, Format::Grey, Format::Srggb12] {
        let store = store(256 * MIB);
        let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
        let mut camera = Camera::new(format, (322, 182), 5);
        let shots = film(&pool, &mut camera, 0, 40);
        assert!(pool.stats().references == 1 && pool.stats().puts_reference >= 40 - 17, "{format}: {:?}", pool.stats());
        are_whole(&pool, 0, &shots);
        store.maintain(Duration::from_secs(60));
        denser += u32::from(pool.stats().recompressed > 0);
        are_whole(&pool, 0, &shots);
    }
    // Of noise of 16 bits it makes nothing.
    assert!(denser >= 3, "{denser}");
}

#[test]
fn pool_of_several_layouts_follows_the_one_that_stays() {
    let store = store(256 * MIB);
    let pool = ephemeral(&store);
    let (mut large, mut small) = (camera(1), Camera::new(Format::Nv12, (160, 90), 2));
    for i in 0..60 {
        film(&pool, &mut large, 2 * i, 1);
        film(&pool, &mut small, 2 * i + 1, 1);
    }
    assert_eq!((pool.stats().references, pool.stats().bytes_references), (1, FRAME));
    let shots = film(&pool, &mut small, 1000, 100);
    assert_eq!((pool.stats().references, pool.stats().bytes_references), (2, FRAME + 160 * 90 * 3 / 2));
    are_whole(&pool, 1000, &shots);
}
