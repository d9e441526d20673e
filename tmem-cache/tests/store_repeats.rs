//! Chunks that are put again: stored once, in memory and in the file, for as long as anybody has them.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use common::{Dir, MIB, Random, each_pool, file, frame, get, killed, logs, noise, packed, put};
use shrbuf::{Format, Layout};
use tmem_cache::store::{Handle, Pool, PoolOptions, Sharing, Stamp, Store, StoreOptions};

/// Bytes of a repeat in a file.
const REPEAT: u64 = 110;

fn open(dir: &Dir) -> (Store, Pool) {
    open_with(dir, 8 * MIB)
}

fn open_with(dir: &Dir, limit: usize) -> (Store, Pool) {
    let store = Store::new(&StoreOptions { file: Some(file(dir)), ..StoreOptions::new(limit) }).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Private).durable("repeats")).unwrap();
    (store, pool)
}

fn at(index: u32) -> Handle {
    Handle::new(1, index)
}

#[test]
fn same_chunk_is_stored_once() {
    each_pool(|name, store, pool| {
        let bytes = noise(7, MIB);
        let before = store.stats().bytes_files;
        (0..40).for_each(|i| assert!(put(pool, at(i), &bytes), "{name}"));
        let stats = pool.stats();
        assert_eq!((stats.chunks, stats.puts_same, stats.bytes_original), (40, 39, 40 * MIB as u64), "{name}");
        assert!(stats.bytes_compressed <= MIB as u64 && stats.bytes_file <= MIB as u64, "{name}: {stats:?}");
        let written = store.stats().bytes_files - before;
        assert!(written <= MIB as u64 + 40 * REPEAT, "{name}: {written}");
        (0..39).for_each(|i| assert!(pool.flush(at(i)), "{name}"));
        assert!(get(pool, at(39)).unwrap() == bytes, "{name}");
    });
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
fn repeat_outlives_a_restart_and_the_chunk_that_it_repeats() {
    for pushed in [false, true] {
        let dir = Dir::new();
        let (bytes, other) = (noise(1, 200_000), noise(2, 200_000));
        let (store, pool) = open(&dir);
        assert!(put(&pool, at(0), &bytes) && put(&pool, at(1), &bytes) && put(&pool, at(2), &other));
        assert!(pool.flush(at(0)) && pool.flush(at(2)));
        if pushed {
            store.push_out(usize::MAX);
        }
        // A hole is made of the other one alone.
        store.maintain(Duration::ZERO);
        assert!(store.stats().bytes_files < 210_000);
        for _ in 0..3 {
            drop(open(&killed(&dir)));
        }
        drop((store, pool));

        // What has been found is known: the next is a repeat too, in another file.
        let (store, pool) = open(&dir);
        assert!(put(&pool, at(3), &bytes));
        assert_eq!((pool.stats().puts_same, logs(&dir).len()), (1, 2));
        assert!(pool.flush(at(1)));
        drop((store, pool));

        // The first file has nothing but flushed chunks, and stays for the second's sake.
        let (store, pool) = open(&dir);
        assert_eq!((logs(&dir).len(), pool.stats().chunks), (2, 1));
        assert!(get(&pool, at(1)).is_none() && get(&pool, at(3)).unwrap() == bytes);
        assert!(pool.flush(at(3)));
        drop((store, pool));
        assert_eq!(logs(&dir).len(), 0);
    }
}

#[test]
fn space_of_a_chunk_comes_back_with_its_last_repeat() {
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    let bytes = noise(1, MIB);
    (0..10).for_each(|i| assert!(put(&pool, at(i), &bytes)));
    // So that the file stays.
    assert!(put(&pool, at(10), b"another"));
    for i in 0..9 {
        assert!(pool.flush(at(i)));
        store.maintain(Duration::ZERO);
        assert!(store.stats().bytes_files > MIB as u64);
    }
    assert!(pool.flush(at(9)));
    store.maintain(Duration::ZERO);
    assert!(store.stats().bytes_files < 16_384, "{}", store.stats().bytes_files);
}

/// Two chunks, then two repeats, the second over the first chunk, whose record is not marked as long as nothing is synced.
fn two_and_two(dir: &Dir) -> ([Vec<u8>; 2], Store, Pool) {
    let chunks = [noise(1, 3000), noise(2, 3000)];
    let (store, pool) = open(dir);
    for (index, of) in [(0, 0), (1, 1), (2, 0), (0, 1)] {
        assert!(put(&pool, at(index), &chunks[of]));
    }
    assert_eq!(pool.stats().puts_same, 2);
    (chunks, store, pool)
}

/// What is there under the three indices, of what was put there.
fn found(dir: &Dir, chunks: &[Vec<u8>; 2]) -> [Option<usize>; 3] {
    let (_store, pool) = open(dir);
    let which = |bytes: Vec<u8>| chunks.iter().position(|chunk| *chunk == bytes).expect("it is neither of the two");
    [0, 1, 2].map(|index| get(&pool, at(index)).map(which))
}

#[test]
fn file_that_ends_anywhere_in_a_repeat_has_all_that_came_before() {
    let dir = Dir::new();
    let (chunks, _store, _pool) = two_and_two(&dir);
    let len = std::fs::metadata(&logs(&dir)[0]).unwrap().len();
    for cut in 0..=2 * REPEAT {
        let torn = killed(&dir);
        std::fs::File::options().write(true).open(&logs(&torn)[0]).unwrap().set_len(len - cut).unwrap();
        let expected = match cut {
            0 => [Some(1), Some(1), Some(0)],
            1..=REPEAT => [Some(0), Some(1), (cut < REPEAT + 1).then_some(0)],
            _ => [Some(0), Some(1), None],
        };
        // And what was found once is found again.
        for _ in 0..2 {
            assert_eq!(found(&torn, &chunks), expected, "{cut} bytes are missing");
        }
    }
}

#[test]
fn repeat_with_any_byte_changed_is_whole_or_absent() {
    use std::os::unix::fs::FileExt;
    let dir = Dir::new();
    let (chunks, _store, _pool) = two_and_two(&dir);
    let len = std::fs::metadata(&logs(&dir)[0]).unwrap().len();
    // The second turns the sequence of the one chunk into that of the other.
    for (back, flip) in (1..=2 * REPEAT).flat_map(|back| [(back, 0x10), (back, 3)]) {
        let damaged = killed(&dir);
        let log = std::fs::File::options().read(true).write(true).open(&logs(&damaged)[0]).unwrap();
        let mut byte = [0];
        log.read_exact_at(&mut byte, len - back).unwrap();
        log.write_all_at(&[byte[0] ^ flip], len - back).unwrap();
        let there = found(&damaged, &chunks);
        // Damage of a header hides what comes after it.
        let last = back <= REPEAT;
        assert!(there[1] == Some(1) && (!last || there[2] == Some(0)), "{back} from the end: {there:?}");
        assert!(if last { there[0] == Some(0) } else { there[2].is_none() }, "{back} from the end: {there:?}");
    }
}

#[test]
fn repeat_whose_bytes_did_not_reach_the_device_is_absent_and_brings_the_one_before() {
    use std::os::unix::fs::FileExt;
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    let (first, second) = (noise(1, 3000), noise(2, 3000));
    assert!(put(&pool, at(0), &first));
    store.sync().unwrap();
    let synced = std::fs::metadata(&logs(&dir)[0]).unwrap().len();
    assert!(put(&pool, at(1), &second) && put(&pool, at(0), &second));

    // The repeat is there, what it repeats is not.
    let lost = killed(&dir);
    let log = std::fs::File::options().write(true).open(&logs(&lost)[0]).unwrap();
    log.write_all_at(&[0; 3000], synced + 102).unwrap();

    for _ in 0..2 {
        let (_store, pool) = open(&lost);
        assert!(get(&pool, at(0)).unwrap() == first && get(&pool, at(1)).is_none());
    }
}

#[test]
fn repeat_of_what_was_in_a_file_that_is_gone_is_absent() {
    let dir = Dir::new();
    let (bytes, other) = (noise(1, 3000), noise(2, 3000));
    let (store, pool) = open(&dir);
    assert!(put(&pool, at(0), &bytes));
    drop((store, pool));
    let (store, pool) = open(&dir);
    assert!(put(&pool, at(1), &bytes) && put(&pool, at(2), &other) && pool.stats().puts_same == 1);
    drop((store, pool));
    std::fs::remove_file(&logs(&dir)[0]).unwrap();

    let (_store, pool) = open(&dir);

    assert_eq!((get(&pool, at(0)), get(&pool, at(1)), get(&pool, at(2))), (None, None, Some(other)));
}

#[test]
fn durable_pool_agrees_with_a_model_over_restarts_and_kills() {
    for limit in [8 * MIB, 64 * MIB] {
        let dir = Dir::new();
        let (mut store, mut pool) = open_with(&dir, limit);
        let mut random = Random(limit as u64);
        let chunks: Vec<_> = (0..8).map(|n| random.bytes(1 << (2 * n + 3))).collect();
        let mut model: HashMap<Handle, usize> = HashMap::new();
        let handles = || (0..3).flat_map(|object| (0..6).map(move |index| Handle::new(object, index)));
        let same = |pool: &Pool, model: &HashMap<Handle, usize>, step: usize| {
            for handle in handles() {
                let expected = model.get(&handle).map(|n| &chunks[*n]);
                assert!(get(pool, handle).as_ref() == expected, "step {step}, {handle}");
            }
        };
        for step in 0..3000 {
            let handle = Handle::new(random.below(3), random.below(6) as u32);
            match random.below(16) {
                0..6 => {
                    let n = random.below(8) as usize;
                    pool.put(handle, &chunks[n], Stamp::default()).unwrap();
                    model.insert(handle, n);
                }
                6..9 => assert!(get(&pool, handle).as_ref() == model.get(&handle).map(|n| &chunks[*n]), "step {step}"),
                9 => assert_eq!(pool.flush(handle), model.remove(&handle).is_some(), "step {step}"),
                10 if random.below(8) == 0 => {
                    pool.flush_object(handle.object);
                    model.retain(|h, _| h.object != handle.object);
                }
                11 => drop(store.maintain(Duration::ZERO)),
                12 => drop(store.push_out(random.below(MIB as u64) as usize)),
                13 => drop(store.bring_back(random.below(MIB as u64) as usize)),
                14 => store.sync().unwrap(),
                15 if random.below(8) == 0 => {
                    drop((store, pool));
                    (store, pool) = open_with(&dir, limit);
                    same(&pool, &model, step);
                }
                15 if random.below(4) == 0 => {
                    let killed = killed(&dir);
                    let (_store, pool) = open_with(&killed, limit);
                    same(&pool, &model, step);
                }
                _ => {}
            }
        }
        same(&pool, &model, 3000);
        // Eight chunks at most, whatever was put how often.
        assert!(pool.stats().bytes_file <= chunks.iter().map(Vec::len).sum::<usize>() as u64);
        pool.destroy();
        drop((store, pool));
        assert_eq!(logs(&dir).len(), 0);
    }
}

#[test]
fn chunk_put_over_itself_a_hundred_thousand_times_between_syncs_is_one() {
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    let bytes = noise(1, 1000);
    // In a thread with the stack that threads have: what was replaced goes without a call for each.
    let again = || (0..100_000).for_each(|_| assert!(put(&pool, at(0), &bytes)));
    std::thread::scope(|scope| scope.spawn(again).join().unwrap());
    assert_eq!((pool.stats().chunks, pool.stats().puts_same), (1, 99_999));
    store.sync().unwrap();
    drop((store, pool));
    let (_store, pool) = open(&dir);
    assert!(get(&pool, at(0)).unwrap() == bytes && pool.stats().chunks == 1);
}

#[test]
fn put_of_what_is_damaged_in_the_file_stores_it_anew() {
    use std::os::unix::fs::FileExt;
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    let bytes = noise(1, 3000);
    assert!(put(&pool, at(0), &bytes) && put(&pool, at(1), &bytes));
    store.push_out(usize::MAX);
    std::fs::File::options().write(true).open(&logs(&dir)[0]).unwrap().write_all_at(&[0; 100], 1000).unwrap();

    assert!(pool.get_vec(at(0), &mut Vec::new()).is_err());
    assert!(put(&pool, at(2), &bytes));

    assert!(get(&pool, at(2)).unwrap() == bytes);
    assert_eq!(pool.stats().puts_same, 1);
    drop((store, pool));
    let (_store, pool) = open(&dir);
    assert!(get(&pool, at(1)).is_none() && get(&pool, at(2)).unwrap() == bytes);
}
