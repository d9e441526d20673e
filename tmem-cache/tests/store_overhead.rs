//! What the store takes beyond the sum of compressed sizes, everything on the heap included.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{MIB, Random};
use tmem_cache::store::{Handle, PoolOptions, Sharing, Stamp, Store, StoreOptions};

struct Counting;
static HEAP: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HEAP.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HEAP.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The heap is counted for the whole process, so one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of a pool of chunks of `len` bytes, or two thirds to four thirds of that where they `vary`, that goes on being put to: what it takes beyond them, and bytes that compaction moved
/// for each byte put over another.
fn overhead(options: PoolOptions, len: usize, vary: bool) -> (f64, f64) {
    let before = HEAP.load(Ordering::Relaxed);
    let store = Store::new(&StoreOptions::new(512 * MIB)).unwrap();
    let ephemeral = options == PoolOptions::ephemeral(Sharing::Private);
    let pool = store.pool(options).unwrap();
    let mut random = Random(1);
    // Noise is stored as it is; one other word makes it another chunk.
    let longest = if vary { len / 3 * 4 } else { len };
    let mut noise: Vec<u8> = (0..longest.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    let count = 480 * MIB / len;
    let over = |over: &mut dyn FnMut(f64, f64)| {
        let stored = store.stats().pools.bytes_compressed as f64;
        over(store.stats().bytes_memory as f64 / stored - 1.0, (HEAP.load(Ordering::Relaxed) - before) as f64 / stored);
    };
    let mut worst = 0f64;
    for i in 0..count + count / 2 {
        noise[..8].copy_from_slice(&random.next().to_le_bytes());
        // An ephemeral pool goes on for ever, a persistent one replaces what it has in no order.
        let index = if ephemeral || i < count { i } else { random.below(count as u64) as usize };
        let bytes = if vary { &noise[..longest / 2 + random.below(longest as u64 / 2) as usize] } else { &noise[..] };
        pool.put(Handle::new(1, index as u32), bytes, Stamp::default()).unwrap();
        if i * len % MIB < len && !ephemeral {
            store.maintain(std::time::Duration::ZERO);
        }
        if i >= count {
            over(&mut |segments, heap| worst = worst.max(segments + heap));
        }
    }
    while store.maintain(std::time::Duration::ZERO) > 0 {}
    let name = if ephemeral { "ephemeral" } else { "persistent" };
    let vary = if vary { "about " } else { "" };
    let moved = pool.stats().compacted as f64 / (count / 2) as f64;
    let mut all = 0.0;
    over(&mut |segments, heap| {
        all = segments + heap;
        let percent = [segments, heap, all, worst].map(|x| x * 100.0);
        println!(
            "{name}, {vary}{len} bytes: segments {:.2} %, heap {:.2} %, together {:.2}, at worst before {:.2} %; {moved:.1} bytes moved for each put",
            percent[0], percent[1], percent[2], percent[3]
        );
    });
    (all, moved)
}

#[test]
fn overhead_at_steady_state_is_at_most_three_percent() {
    let _alone = alone();
    for len in [16 << 10, 64 << 10, 1 << 20] {
        let [ephemeral, persistent] =
            [PoolOptions::ephemeral(Sharing::Private), PoolOptions::persistent(Sharing::Shared)];
        for (options, vary) in [(ephemeral, false), (persistent.clone(), false), (persistent, true)] {
            let (over, moved) = overhead(options, len, vary);
            assert!(over <= 0.03, "{over}");
            // Chunks of one size fill each other's holes, unless they lie in two segments.
            assert!(moved <= if vary { 15.0 } else { 1.0 }, "{moved}");
        }
    }
}

#[test]
fn same_chunk_under_ever_new_handles_takes_no_more_memory() {
    let _alone = alone();
    let store = Store::new(&StoreOptions::new(16 * MIB)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let still = [7; 500];
    let ring = |from: u32, to: u32| {
        for i in from..to {
            pool.put(Handle::new(1, i), &still, Stamp::default()).unwrap();
            pool.flush(Handle::new(1, i.wrapping_sub(30)));
            pool.put(Handle::new(2, 0), &still, Stamp::default()).unwrap();
        }
        HEAP.load(Ordering::Relaxed)
    };
    let settled = ring(0, 1000);
    let after = ring(1000, 50_000);
    assert!(after <= settled + 16_384, "{settled} bytes of heap, later {after}");
    assert_eq!((pool.stats().chunks, pool.stats().puts_same), (31, 99_999));
}
