//! Memory that really goes back to the kernel, and how fast: the goal is 256 MiB within 10 ms.

mod common;

use std::time::{Duration, Instant};

use common::{MIB, Random};
use tmem_cache::store::{Backing, Handle, PoolOptions, Sharing, Stamp, Store, StoreOptions};

/// Bytes of this process that are in memory, by the kernel's count, which it keeps a little behind for each core.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = |name| -> usize {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (kib("RssAnon:") + kib("RssShmem:")) << 10
}

#[test]
fn memory_goes_back_to_the_kernel_at_once() {
    // Ten to twenty times what is measured on an idle machine, for the loaded ones that tests run on.
    for (backing, most) in [(Backing::Anonymous, Duration::from_millis(100)), (Backing::Memfd, Duration::from_secs(2))]
    {
        let store = Store::new(&StoreOptions { backing, ..StoreOptions::new(320 * MIB) }).unwrap();
        let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared)).unwrap();
        let mut random = Random(1);
        let mut noise: Vec<u8> = (0..MIB / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        for i in 0..300u32 {
            noise[..4].copy_from_slice(&i.to_le_bytes());
            pool.put(Handle::new(1, i), &noise, Stamp::default()).unwrap();
        }
        let before = resident();
        let started = Instant::now();
        let given = store.give_back(256 * MIB);
        let took = started.elapsed();
        let gone = before.saturating_sub(resident());
        println!("{backing:?}: {} MiB given back in {took:?}; the kernel counts {} MiB", given / MIB, gone / MIB);
        assert!(given >= 256 * MIB && gone >= 250 * MIB, "{given} given, {gone} gone");
        assert!(took < most, "{took:?}");
    }
}
