//! Upkeep within its share of a core, and the control loop from readings of pressure to bytes in memory.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{Dir, MIB, Random, file};
use nix::time::{ClockId, clock_gettime};
use tmem_cache::pressure::{Law, Reading, steer};
use tmem_cache::store::{Handle, Pool, PoolOptions, Sharing, Stamp, Store, StoreOptions};

/// They measure the process, so one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that lz4 leaves as they are and zstd makes smaller.
fn chunk(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len / 8).flat_map(|_| (random.next() & 0x0f0f_0f0f_0f0f_0f0f).to_le_bytes()).collect()
}

fn fill(pool: &Pool, count: u32, len: usize) {
    for i in 0..count {
        pool.put(Handle::new(1, i), &chunk(i.into(), len), Stamp::default()).unwrap();
    }
}

fn upkeep_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "tmem-upkeep").count()
}

#[test]
fn upkeep_keeps_to_its_share_of_a_core() {
    let _alone = alone();
    let store = Store::new(&StoreOptions::new(256 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    fill(&pool, 3000, 64 << 10);
    let cpu = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
    let share = 0.1;
    let (before, started) = (cpu(), Instant::now());
    let upkeep = store.upkeep(share).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let (used, passed, stats) = (cpu() - before, started.elapsed(), upkeep.stats());
    println!("{used:?} of {passed:?}, {stats:?}");
    // The whole process, by the kernel's count; a round may be under way.
    assert!(used < passed.mul_f64(share) + Duration::from_millis(60), "{used:?} of {passed:?}");
    assert!(stats.cpu <= used && stats.rounds > 3, "{stats:?}");
    let made_denser = pool.stats().recompressed;
    assert!((1..3000).contains(&made_denser), "{made_denser}: it had nothing to do in the end");
}

#[test]
fn upkeep_ends_with_its_handle() {
    let _alone = alone();
    let store = Store::new(&StoreOptions::new(16 * MIB)).unwrap();
    let upkeep = store.upkeep(1.0).unwrap();
    while upkeep.stats().rounds == 0 {
        std::thread::yield_now();
    }
    assert_eq!(upkeep_threads(), 1);
    drop(upkeep);
    assert_eq!(upkeep_threads(), 0);
}

#[test]
fn upkeep_leaves_nothing_to_do_and_every_chunk() {
    let _alone = alone();
    let store = Store::new(&StoreOptions::new(64 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    fill(&pool, 400, 64 << 10);
    (0..400).filter(|i| i % 3 != 0).for_each(|i| assert!(pool.flush(Handle::new(1, i))));
    // All that is allowed: a hundredth in holes, and segments that are not full: two of the pool, and what two rounds left.
    let most = || store.stats().pools.bytes_compressed / 100 * 101 + 12 * MIB as u64;
    assert!(store.stats().bytes_memory > most(), "nothing to do");
    let upkeep = store.upkeep(1.0).unwrap();
    let mut last = upkeep.stats();
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let now = upkeep.stats();
        if now.bytes != last.bytes {
            last = now;
        } else if now.bytes > 0 && now.rounds > last.rounds + 2 {
            break;
        }
    }
    drop(upkeep);
    assert!(store.stats().bytes_memory <= most(), "{:?}", store.stats());
    assert!(pool.stats().compacted > 0 && pool.stats().recompressed > 0, "{:?}", pool.stats());
    let mut bytes = Vec::new();
    for i in (0..400).step_by(3) {
        assert!(pool.get_vec(Handle::new(1, i), &mut bytes).unwrap().is_some() && bytes == chunk(i.into(), 64 << 10));
    }
}

#[test]
fn simulated_pressure_shrinks_the_store_and_calm_brings_all_back() {
    let _alone = alone();
    let dir = Dir::new();
    let limit = 128 * MIB;
    let store = Store::new(&StoreOptions { file: Some(file(&dir)), ..StoreOptions::new(limit) }).unwrap();
    let kept = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let dropped = store.pool(PoolOptions::ephemeral(Sharing::Shared)).unwrap();
    // 48 MiB each.
    [&kept, &dropped].into_iter().for_each(|pool| fill(pool, 768, 64 << 10));
    let mut law = Law::new(16 << 20, limit as u64, 64 << 20);
    let memory = || store.stats().bytes_memory;

    let heavy = Reading { some: 0.5, free: 1 << 30 };
    let budgets: Vec<u64> = (0..3).map(|_| steer(&store, &mut law, heavy)).collect();
    assert_eq!(budgets, [64, 32, 16].map(|m| m << 20));
    assert!(memory() <= 16 << 20, "{}", memory());
    assert!(dropped.stats().evicted_pressure > 0 && kept.stats().pushed_out > 0);
    // What may be dropped goes before what costs a write.
    assert_eq!(dropped.stats().bytes_held, 0);

    let calm = Reading { some: 0.0, free: 1 << 30 };
    let grown = (0..40).map(|_| steer(&store, &mut law, calm)).collect::<Vec<_>>();
    assert_eq!((grown[4], grown.last()), (16 << 20, Some(&(limit as u64))));
    assert_eq!((kept.stats().bytes_file, kept.stats().chunks), (0, 768), "all of it is in memory again");

    // The reserve: what is missing comes at once.
    steer(&store, &mut law, Reading { some: 0.0, free: 0 });
    assert!(memory() <= limit as u64 - (64 << 20), "{}", memory());
    let mut bytes = Vec::new();
    for i in 0..768 {
        assert!(kept.get_vec(Handle::new(1, i), &mut bytes).unwrap().is_some() && bytes == chunk(i.into(), 64 << 10));
    }
}
