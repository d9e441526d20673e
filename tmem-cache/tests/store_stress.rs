//! Operations over eight threads, with reclaim, compaction, recompression and drain running, watched by
//! monitors for get-get and put-put-get.
//!
//! Each handle has a writer, who numbers its puts; a chunk says its handle and its number. Before a put begins and after
//! it has returned the writer notes the number, so that a reader knows the least number that a get which begins now may
//! bring. A get that missed, with nothing put since, notes that: a later hit of the same number is an error.
//!
//! 10 million operations, which take 24 s of processor time as tests are compiled; `TMEM_STRESS_OPERATIONS` makes it others.

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Camera, Dir, MIB, Random, file};
use shrbuf::Format;
use tmem_cache::store::{Handle, PoolOptions, Sharing, Stamp, Store, StoreOptions};

const THREADS: u64 = 8;
const HANDLES: u64 = 4096;

#[derive(Default)]
struct Monitor {
    /// Number of the last put that began, and of the last one that returned.
    begun: AtomicU64,
    done: AtomicU64,
    /// The highest number whose absence a get has seen.
    missed: AtomicU64,
}

fn operations() -> u64 {
    std::env::var("TMEM_STRESS_OPERATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000_000)
}

fn chunk(handle: u64, number: u64, into: &mut Vec<u8>) {
    into.clear();
    let len = 24 + (number.wrapping_mul(0x9e37_79b9) >> 7) % 2000;
    into.extend_from_slice(&handle.to_le_bytes());
    into.extend_from_slice(&number.to_le_bytes());
    // What lz4 does not make smaller and zstd does: 16 symbols in no order.
    let mut random = Random(handle ^ number << 32);
    while into.len() < len as usize {
        into.extend_from_slice(&(random.next() & 0x0f0f_0f0f_0f0f_0f0f).to_le_bytes());
    }
}

fn number(handle: u64, bytes: &[u8]) -> u64 {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(word(0), handle, "a chunk of another handle");
    let n = word(8);
    let mut expected = Vec::new();
    chunk(handle, n, &mut expected);
    assert!(bytes == expected, "chunk {handle} number {n} is damaged");
    n
}

#[test]
fn no_get_brings_what_is_stale_or_was_gone() {
    let dir = Dir::new();
    let store = Store::new(&StoreOptions { file: Some(file(&dir)), ..StoreOptions::new(24 * MIB) }).unwrap();
    let kinds = [
        PoolOptions::ephemeral(Sharing::Private),
        PoolOptions::ephemeral(Sharing::Shared),
        PoolOptions::persistent(Sharing::Private),
        PoolOptions::persistent(Sharing::Shared),
    ];
    let pools: Vec<_> = kinds.iter().map(|o| store.pool(o.clone()).unwrap()).collect();
    let monitors: Vec<Monitor> = (0..HANDLES).map(|_| Monitor::default()).collect();
    let stop = AtomicBool::new(false);
    let (each, started) = (operations() / THREADS, Instant::now());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|me| {
                let (pools, monitors) = (&pools, &monitors);
                scope.spawn(move || {
                    let mut random = Random(me);
                    let mut bytes = Vec::new();
                    for _ in 0..each {
                        let own = random.below(2) == 0;
                        let any = random.below(HANDLES);
                        let n = if own { any / 32 * 32 + me * 4 + any % 4 } else { any };
                        let (monitor, pool) = (&monitors[n as usize], &pools[n as usize % pools.len()]);
                        let handle = Handle::new(n / 64, n as u32);
                        let writer = n / 4 % THREADS == me;
                        match random.below(8) {
                            0..4 if writer => {
                                let number = monitor.begun.load(Ordering::SeqCst) + 1;
                                monitor.begun.store(number, Ordering::SeqCst);
                                chunk(n, number, &mut bytes);
                                let _ = pool.put(handle, &bytes, Stamp::default());
                                monitor.done.store(number, Ordering::SeqCst);
                            }
                            0 if random.below(8) == 0 => drop(pool.flush(handle)),
                            _ => {
                                let least = monitor.done.load(Ordering::SeqCst);
                                let missed = monitor.missed.load(Ordering::SeqCst);
                                match pool.get_vec(handle, &mut bytes) {
                                    Ok(Some(_)) => {
                                        let got = number(n, &bytes);
                                        assert!(got >= least, "put-put-get: {handle} {got} after {least}");
                                        assert!(got > missed, "get-get: {handle} {got} was gone");
                                    }
                                    Ok(None) if monitor.begun.load(Ordering::SeqCst) == least => {
                                        monitor.missed.fetch_max(least, Ordering::SeqCst);
                                    }
                                    Ok(None) | Err(tmem_cache::store::GetError::Leased) => {}
                                    Err(e) => panic!("{handle}: {e}"),
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut round = 0;
            while !stop.load(Ordering::Relaxed) {
                store.maintain(Duration::from_millis(2));
                store.push_out(64 << 10);
                store.bring_back(32 << 10);
                round += 1;
                if round % 16 == 0 {
                    // More than what is spare, so that chunks have to go.
                    store.give_back(12 * MIB);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let results: Vec<_> = workers.into_iter().map(|w| w.join()).collect();
        stop.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|r| r.unwrap());
    });
    let rate = (each * THREADS) as f64 / started.elapsed().as_secs_f64();
    let stats = store.stats().pools;
    println!("{rate:.0} operations/s; {stats:?}");
    assert_eq!(stats.damaged, 0);
    // The background did take part.
    assert!(stats.pushed_out.min(stats.brought_back).min(stats.compacted).min(stats.recompressed) > 0, "{stats:?}");
    assert!(stats.evicted_limit.min(stats.evicted_pressure) > 0, "{stats:?}");
}

/// Few different chunks under many handles of a durable pool, so that the same ones are put, flushed and moved at once.
#[test]
fn repeats_of_durable_chunks_come_back_whole_from_many_threads_and_after_a_restart() {
    let dir = Dir::new();
    let open = || {
        let store = Store::new(&StoreOptions { file: Some(file(&dir)), ..StoreOptions::new(16 * MIB) }).unwrap();
        let pool = store.pool(PoolOptions::persistent(Sharing::Shared).durable("repeats")).unwrap();
        (store, pool)
    };
    let (store, pool) = open();
    let chunks: Vec<Vec<u8>> = (0..12).map(|n| Random(n).bytes(3000 << (n % 6))).collect();
    let stop = AtomicBool::new(false);
    let work = |me: u64| {
        let (mut random, mut kept, mut bytes) = (Random(me), HashMap::new(), Vec::new());
        for _ in 0..20_000 {
            let handle = Handle::new(me, random.below(40) as u32);
            let n = random.below(12) as usize;
            match random.below(8) {
                0..4 => {
                    pool.put(handle, &chunks[n], Stamp::default()).unwrap();
                    kept.insert(handle, n);
                }
                4..6 => assert_eq!(pool.flush(handle), kept.remove(&handle).is_some()),
                _ => {
                    let there = pool.get_vec(handle, &mut bytes).unwrap().map(|_| &bytes);
                    assert!(there == kept.get(&handle).map(|n| &chunks[*n]), "{handle}");
                }
            }
        }
        kept
    };
    let mut kept = HashMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|me| {
                let work = &work;
                scope.spawn(move || work(me))
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                store.maintain(Duration::from_millis(1));
                store.push_out(64 << 10);
                store.bring_back(32 << 10);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        stop.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|r| kept.extend(r.unwrap()));
    });
    let stats = pool.stats();
    assert_eq!((stats.damaged, stats.chunks), (0, kept.len() as u64));
    assert!(stats.puts_same > stats.puts / 2 && stats.pushed_out.min(stats.brought_back) > 0, "{stats:?}");
    drop((store, pool));
    let (_store, pool) = open();
    for (handle, n) in &kept {
        let mut bytes = Vec::new();
        assert!(pool.get_vec(*handle, &mut bytes).unwrap().is_some() && bytes == chunks[*n], "{handle}");
    }
    assert_eq!(pool.stats().chunks, kept.len() as u64);
}

/// Frames of a scene that changes now and then, so that references come and go under the threads.
#[test]
fn frames_of_still_scenes_come_back_whole_from_many_threads() {
    let dir = Dir::new();
    let store = Store::new(&StoreOptions { file: Some(file(&dir)), ..StoreOptions::new(64 * MIB) }).unwrap();
    let kinds = [PoolOptions::ephemeral, PoolOptions::persistent];
    let pools: Vec<_> = kinds.iter().map(|kind| store.pool(kind(Sharing::Shared)).unwrap()).collect();
    let stop = AtomicBool::new(false);
    const PUTS: u32 = 6000;
    let film = |me: u64| {
        let mut camera = Camera::new(Format::Grey, (256, 64), 1);
        let mut buffer = camera.buffer(&[0; 256 * 64]);
        let (mut random, mut kept, mut bytes) = (Random(me), HashMap::new(), Vec::new());
        for n in 0..PUTS {
            if n % 800 == 799 {
                camera.turn(n.into());
            }
            let (at, handle) = (random.below(2) as usize, Handle::new(me, random.below(64) as u32));
            let shot = camera.shot();
            camera.fill(&mut buffer, &shot);
            match pools[at].put_frame(handle, &buffer, Stamp::default()) {
                Ok(()) => drop(kept.insert((at, handle), shot)),
                Err(_) => drop(kept.remove(&(at, handle))),
            }
            let (at, handle) = (random.below(2) as usize, Handle::new(me, random.below(64) as u32));
            let there = pools[at].get_vec(handle, &mut bytes).unwrap().is_some();
            assert!(!there || kept.get(&(at, handle)) == Some(&bytes), "{handle} of {at} is another's");
            assert!(there || at == 0 || !kept.contains_key(&(at, handle)), "{handle} has gone");
            if random.below(16) == 0 {
                pools[at].flush(handle);
                kept.remove(&(at, handle));
            }
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|me| {
                let film = &film;
                scope.spawn(move || film(me))
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                store.maintain(Duration::from_millis(2));
                store.push_out(64 << 10);
                store.bring_back(32 << 10);
                store.give_back(4 * MIB);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        stop.store(true, Ordering::Relaxed);
        results.into_iter().for_each(|r| r.unwrap());
    });
    let stats = store.stats().pools;
    assert_eq!(stats.damaged, 0);
    assert!(stats.references > 4 && stats.puts_reference > u64::from(PUTS), "{stats:?}");
    assert!(stats.pushed_out.min(stats.recompressed).min(stats.evicted_pressure) > 0, "{stats:?}");
    pools.iter().for_each(|pool| pool.destroy());
    assert_eq!(store.stats().pools.bytes_references, 0);
}
