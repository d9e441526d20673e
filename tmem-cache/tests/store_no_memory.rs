//! Failed allocations: a put is refused, a get says so, and nobody gets anything wrong.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use common::{Camera, MIB, Random};
use shrbuf::{Format, Ledger, Reason};
use tmem_cache::store::{GetError, Handle, OpenError, PoolOptions, PutError, Sharing, Stamp, Store, StoreOptions};

thread_local! {
    /// Allocations of so many bytes and more fail.
    static FAILS: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct Failing;

// SAFETY: the system's allocator does the work; null is how an allocator says no.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= FAILS.get() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

fn without_memory<T>(f: impl FnOnce() -> T) -> T {
    FAILS.set(64 << 10);
    let t = f();
    FAILS.set(usize::MAX);
    t
}

#[test]
fn put_without_scratch_is_refused_and_flushes_what_was_there() {
    let store = Store::new(&StoreOptions::new(16 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let bytes = Random(1).bytes(200_000);
    pool.put(Handle::new(1, 1), &bytes[..1000], Stamp::default()).unwrap();
    let refused = without_memory(|| pool.put(Handle::new(1, 1), &bytes, Stamp::default()));
    assert!(matches!(refused, Err(PutError::NoMemory { .. })), "{refused:?}");
    assert!(pool.get_vec(Handle::new(1, 1), &mut Vec::new()).unwrap().is_none());
    assert_eq!(pool.stats().refused_memory, 1);
    pool.put(Handle::new(1, 1), &bytes, Stamp::default()).unwrap();
}

#[test]
fn frames_of_a_still_scene_are_put_without_room_for_another_one() {
    let store = Store::new(&StoreOptions::new(64 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared)).unwrap();
    let mut camera = Camera::new(Format::Grey, (1024, 512), 1);
    let shots: Vec<_> = (0..20).map(|_| camera.shot()).collect();
    let mut frames: Vec<_> = shots.iter().map(|shot| camera.buffer(shot)).collect();
    let account = Ledger::default().account("test", Reason::Generate);
    let mut put = |i: u32| {
        let frame = &mut frames[i as usize % 20];
        // Or it would be stored once.
        frame.write().unwrap().plane(0).write(0, 0, &i.to_le_bytes(), &account);
        pool.put_frame(Handle::new(1, i), frame, Stamp::default()).unwrap();
    };
    (0..600).for_each(&mut put);
    let before = pool.stats();
    // Trials among them.
    without_memory(|| (600..900).for_each(&mut put));
    let stats = pool.stats();
    assert_eq!((stats.puts_reference - before.puts_reference, stats.references), (300, before.references), "{stats:?}");
}

#[test]
fn get_without_memory_says_so_and_the_chunk_stays() {
    let store = Store::new(&StoreOptions::new(16 * MIB)).unwrap();
    for options in [PoolOptions::persistent(Sharing::Shared), PoolOptions::ephemeral(Sharing::Private)] {
        let pool = store.pool(options).unwrap();
        let (handle, bytes) = (Handle::new(1, 1), Random(1).bytes(200_000));
        pool.put(handle, &bytes, Stamp::default()).unwrap();
        let mut into = Vec::new();
        let failed = without_memory(|| pool.get_vec(handle, &mut into));
        assert!(matches!(failed, Err(GetError::NoMemory { bytes: 200_000 })), "{failed:?}");
        assert!(pool.get_vec(handle, &mut into).unwrap().is_some() && into == bytes);
    }
}

#[test]
fn store_larger_than_the_address_space_is_an_error() {
    let store = Store::new(&StoreOptions::new(usize::MAX / 4));
    assert!(matches!(store, Err(OpenError::Memory { .. })), "{store:?}");
}

#[test]
fn frame_without_scratch_is_refused_and_upkeep_waits_for_better_times() {
    // Of the small one all but the tables of the dense tier is there.
    for (format, size) in [Format::Yuyv, Format::Nv12].into_iter().flat_map(|f| [(f, (640, 480)), (f, (160, 120))]) {
        let store = Store::new(&StoreOptions::new(64 * MIB)).unwrap();
        let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
        let mut camera = Camera::new(format, size, 1);
        let shot = camera.shot();
        let frame = camera.buffer(&shot);
        let put = || pool.put_frame(Handle::new(1, 1), &frame, Stamp::default());
        let refused = without_memory(put);
        assert!(matches!(refused, Err(PutError::NoMemory { .. })), "{refused:?}");
        put().unwrap();

        without_memory(|| store.maintain(Duration::from_secs(1)));
        assert_eq!(pool.stats().recompressed, 0);

        store.maintain(Duration::from_secs(5));
        assert_eq!(pool.stats().recompressed, 1, "{format} {size:?}");
        let mut bytes = Vec::new();
        assert!(pool.get_vec(Handle::new(1, 1), &mut bytes).unwrap().is_some() && bytes == shot);
    }
}

#[test]
fn bytes_are_made_denser_once_there_is_memory_for_it() {
    let store = Store::new(&StoreOptions::new(64 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let mut random = Random(5);
    // What lz4 leaves as it is and zstd makes smaller.
    let nibbles: Vec<u8> = (0..100_000).map(|_| random.next() as u8 & 15).collect();
    pool.put(Handle::new(1, 1), &nibbles, Stamp::default()).unwrap();
    without_memory(|| store.maintain(Duration::from_secs(1)));
    assert_eq!(pool.stats().recompressed, 0);
    store.maintain(Duration::from_secs(1));
    assert_eq!(pool.stats().recompressed, 1);
}

#[test]
fn frame_that_cannot_be_decoded_for_want_of_scratch_stays() {
    let mut camera = Camera::new(Format::Yuyv, (512, 384), 1);
    let shot = camera.shot();
    let (frame, mut into) = (camera.buffer(&shot), camera.buffer(&shot));
    let store = Store::new(&StoreOptions::new(64 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    pool.put_frame(Handle::new(1, 1), &frame, Stamp::default()).unwrap();
    let failed = without_memory(|| pool.get_frame(Handle::new(1, 1), &mut into));
    assert!(matches!(failed, Err(GetError::NoMemory { .. })), "{failed:?}");
    assert!(pool.get_frame(Handle::new(1, 1), &mut into).unwrap().is_some());
}

#[test]
fn chunk_in_two_segments_that_cannot_be_gathered_stays() {
    let store = Store::new(&StoreOptions::new(64 * MIB)).unwrap();
    let pools = [(); 2].map(|()| store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap());
    let mut random = Random(2);
    let noise: Vec<u8> = (0..700_000).map(|_| random.next() as u8).collect();
    // By turns, so that the next segment of a pool does not follow the last in memory.
    for i in 0..24u32 {
        for pool in &pools {
            let mut noise = noise.clone();
            noise[..4].copy_from_slice(&i.to_le_bytes());
            pool.put(Handle::new(1, i), &noise, Stamp::default()).unwrap();
        }
    }
    let mut into = vec![0; 700_000];
    let mut get = |i| pools[0].get(Handle::new(1, i), &mut into);
    let results: Vec<_> = (0..24).map(|i| without_memory(|| get(i))).collect();
    let failed = results.iter().filter(|r| matches!(r, Err(GetError::NoMemory { .. }))).count();
    let brought = results.iter().filter(|r| matches!(r, Ok(Some(_)))).count();
    assert!(failed >= 2 && failed + brought == 24, "{failed} {brought}");
    assert!((0..24).all(|i| matches!(get(i), Ok(Some(_)))));
}
