//! What the store takes beyond the sum of compressed sizes, everything on the heap included.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// Overhead of a full pool of chunks of `len` bytes after it has been filled twice over.
fn overhead(options: PoolOptions, len: usize) -> f64 {
    let before = HEAP.load(Ordering::Relaxed);
    let store = Store::new(&StoreOptions::new(512 * MIB)).unwrap();
    let ephemeral = options == PoolOptions::ephemeral(Sharing::Private);
    let pool = store.pool(options).unwrap();
    let mut random = Random(1);
    let mut noise = vec![0; len];
    let count = 480 * MIB / len;
    for i in 0..2 * count {
        noise.chunks_mut(8).for_each(|c| c.copy_from_slice(&random.next().to_le_bytes()[..c.len()]));
        // An ephemeral pool goes on for ever, a persistent one replaces what it has in no order.
        let index = if ephemeral || i < count { i } else { random.below(count as u64) as usize };
        let _ = pool.put(Handle::new(1, index as u32), &noise, Stamp::default());
        if i * len % MIB < len && !ephemeral {
            store.maintain(std::time::Duration::ZERO);
        }
    }
    for _ in 0..1000 {
        if store.maintain(std::time::Duration::ZERO) == 0 {
            break;
        }
    }
    let stored = store.stats().pools.bytes_compressed as f64;
    let heap = HEAP.load(Ordering::Relaxed) - before;
    let over = (store.stats().bytes_memory as f64 + heap as f64) / stored - 1.0;
    println!(
        "{len} bytes, ephemeral {ephemeral}: {:.2} % over {:.0} MiB, heap {} KiB",
        over * 100.0,
        stored / MIB as f64,
        heap / 1024
    );
    over
}

#[test]
fn overhead_at_steady_state_is_at_most_three_percent() {
    // About 300 bytes of heap a chunk, which frames do not notice and chunks of 16 KiB do.
    for (len, ephemeral, persistent) in [(16 << 10, 0.03, 0.05), (1 << 20, 0.03, 0.03)] {
        let over = overhead(PoolOptions::ephemeral(Sharing::Private), len);
        assert!(over <= ephemeral, "{over}");
        let over = overhead(PoolOptions::persistent(Sharing::Shared), len);
        assert!(over <= persistent, "{over}");
    }
}
