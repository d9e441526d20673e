//! The file tier's space: what is dead in its files goes back to the file system, and what is alive stays.

mod common;

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use common::{Dir, MIB, Random, file};
use tmem_cache::store::{FileOptions, Handle, Pool, PoolOptions, Sharing, Stamp, Store, StoreOptions};

fn open(options: FileOptions) -> (Store, Pool) {
    let store = Store::new(&StoreOptions { file: Some(options), ..StoreOptions::new(8 * MIB) }).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Private).durable("files")).unwrap();
    (store, pool)
}

/// Bytes that nothing makes smaller.
fn chunk(index: u32, len: usize) -> Vec<u8> {
    let mut random = Random(index.into());
    (0..len / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}

fn put(pool: &Pool, index: u32) {
    pool.put(Handle::new(1, index), &chunk(index, 100_000), Stamp::default()).unwrap();
}

fn is_there(pool: &Pool, index: u32) -> bool {
    let mut bytes = Vec::new();
    let got = pool.get_vec(Handle::new(1, index), &mut bytes).unwrap();
    assert!(got.is_none() || bytes == chunk(index, 100_000), "{index} is another's");
    got.is_some()
}

/// Bytes of blocks that the directory's files have, by the kernel's count.
fn blocks(dir: &Dir) -> u64 {
    let files = std::fs::read_dir(&dir.0).unwrap();
    files.map(|f| f.unwrap().metadata().unwrap().blocks() * 512).sum()
}

#[test]
fn space_of_flushed_chunks_goes_back_and_the_others_are_there_after_a_restart() {
    let dir = Dir::new();
    let (store, pool) = open(file(&dir));
    (0..300).for_each(|i| put(&pool, i));
    (0..300).filter(|i| i % 10 != 0).for_each(|i| assert!(pool.flush(Handle::new(1, i))));
    assert!(store.stats().bytes_files > 30_000_000);

    store.maintain(Duration::ZERO);

    // 30 chunks of 100 kB, and at most two blocks of each of the others.
    let most = 3_000_000 + 300 * 8192;
    assert!(
        store.stats().bytes_files <= most && blocks(&dir) <= most,
        "{} {}",
        store.stats().bytes_files,
        blocks(&dir)
    );
    drop((store, pool));
    let (store, pool) = open(file(&dir));
    (0..300).for_each(|i| assert_eq!(is_there(&pool, i), i % 10 == 0, "{i}"));
    assert!(store.stats().bytes_files <= most);
    pool.destroy();
    drop((store, pool));
    assert!(blocks(&dir) < 100_000, "the last file is gone with the last chunk");
}

#[test]
fn limit_counts_what_is_alive() {
    let dir = Dir::new();
    let (store, pool) = open(FileOptions { limit: 8 << 20, ..file(&dir) });
    // 100 MB through 8 MiB, of which 20 chunks and every hundredth live.
    for i in 0..1000 {
        put(&pool, i);
        if i >= 20 && (i - 20) % 100 != 0 {
            assert!(pool.flush(Handle::new(1, i - 20)));
        }
    }

    assert!(store.stats().bytes_files <= 8 << 20 && blocks(&dir) <= 9 << 20, "{:?} {}", store.stats(), blocks(&dir));
    drop((store, pool));
    let (_store, pool) = open(file(&dir));
    (0..1000).for_each(|i| assert_eq!(is_there(&pool, i), i >= 980 || i % 100 == 0, "{i}"));
}

#[test]
fn spilled_chunks_leave_no_space_behind_where_they_were_side_by_side() {
    let dir = Dir::new();
    let (store, _) = open(file(&dir));
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let small = |i: u32| chunk(i, 1000);
    (0..4000).for_each(|i| pool.put(Handle::new(1, i), &small(i), Stamp::default()).unwrap());
    store.push_out(usize::MAX);
    // All but one go, each smaller than a block.
    (0..4000).filter(|i| *i != 2000).for_each(|i| assert!(pool.flush(Handle::new(1, i))));

    store.maintain(Duration::ZERO);

    assert!(store.stats().bytes_files <= 3 * 4096 && blocks(&dir) <= 4 * 4096, "{:?} {}", store.stats(), blocks(&dir));
    let mut bytes = Vec::new();
    assert!(pool.get_vec(Handle::new(1, 2000), &mut bytes).unwrap().is_some() && bytes == small(2000));
}

#[test]
fn reader_of_a_chunk_that_is_flushed_meanwhile_gets_it_whole_or_not_at_all() {
    let dir = Dir::new();
    let (store, pool) = open(file(&dir));
    let handle = Handle::new(1, 1);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut bytes = Vec::new();
            let mut hits = 0;
            while hits < 200 {
                if pool.get_vec(handle, &mut bytes).unwrap().is_some() {
                    assert!(bytes == chunk(1, 100_000));
                    hits += 1;
                }
            }
        });
        while !reader.is_finished() {
            put(&pool, 1);
            store.push_out(usize::MAX);
            pool.flush(handle);
            store.maintain(Duration::ZERO);
        }
    });
    assert_eq!(pool.stats().damaged, 0);
}
