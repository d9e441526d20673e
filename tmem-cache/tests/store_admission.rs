//! Frames as what they are, and chunks that compress poorly: stored as they are, or refused.

mod common;

use common::{Camera, MIB, Random, frame, get, noise, packed, put};
use shrbuf::exporter::Memfd;
use shrbuf::{Format, Layout};
use tmem_cache::codec::{Picture, Region};
use tmem_cache::store::{Admission, Handle, PoolOptions, Poor, PutError, Sharing, Stamp, Store, StoreOptions};

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
