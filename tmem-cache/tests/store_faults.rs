//! System calls that fail: a put is refused, a get says so, nobody gets anything wrong, and all is well again afterwards.
//!
//! A seccomp filter makes the kernel answer a call with an error. It holds for one thread and can never be taken off,
//! so each fault has a thread of its own, and what comes after it happens on the test's.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use common::{Dir, MIB, Random, file, killed, logs};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use tmem_cache::file_tier::FileError;
use tmem_cache::store::{
    Backing, GetError, Handle, OpenError, Pool, PoolOptions, PutError, Sharing, Stamp, Store, StoreOptions,
};

/// A call; of its arguments, which bits have to be what.
type Call<'a> = (libc::c_long, &'a [(u8, u64, u64)]);

/// What the kernel answers to these calls while `f` runs.
fn failing<T: Send>(calls: &[Call<'_>], errno: i32, f: impl FnOnce() -> T + Send) -> T {
    let rule = |arguments: &[(u8, u64, u64)]| {
        let condition =
            |(n, mask, is): &(u8, u64, u64)| SeccompCondition::new(*n, Len::Qword, Op::MaskedEq(*mask), *is);
        let conditions: Vec<_> = arguments.iter().map(condition).collect::<Result<_, _>>().unwrap();
        if conditions.is_empty() { vec![] } else { vec![SeccompRule::new(conditions).unwrap()] }
    };
    let rules = calls.iter().map(|(call, arguments)| (*call, rule(arguments))).collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    let run = || {
        apply_filter(&filter).unwrap();
        f()
    };
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

const READ: Call<'_> = (libc::SYS_pread64, &[]);
const WRITE: Call<'_> = (libc::SYS_pwrite64, &[]);
const TRUNCATE: Call<'_> = (libc::SYS_ftruncate, &[]);

fn open(dir: &Dir) -> (Store, Pool) {
    let store = Store::new(&StoreOptions { file: Some(file(dir)), ..StoreOptions::new(16 * MIB) }).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Private).durable("faults")).unwrap();
    (store, pool)
}

fn chunk(seed: u32) -> Vec<u8> {
    Random(seed.into()).bytes(100_000)
}

fn put(pool: &Pool, index: u32, seed: u32) -> Result<(), PutError> {
    pool.put(Handle::new(1, index), &chunk(seed), Stamp::default())
}

/// What is there under an index.
fn get(pool: &Pool, index: u32) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    pool.get_vec(Handle::new(1, index), &mut bytes).unwrap().map(|_| bytes)
}

fn is_file_error(result: &Result<(), PutError>, errno: i32) -> bool {
    matches!(result, Err(PutError::File { source: FileError::Os { source, .. }, .. })
        if source.raw_os_error() == Some(errno))
}

#[test]
fn read_that_fails_is_an_error_once_and_a_miss_from_then_on() {
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    (0..2).for_each(|i| put(&pool, i, i).unwrap());
    assert!(store.push_out(usize::MAX) >= 100_000);

    let got = failing(&[READ], libc::EIO, || pool.get_vec(Handle::new(1, 0), &mut Vec::new()));

    assert!(matches!(&got, Err(GetError::Io(e)) if e.raw_os_error() == Some(libc::EIO)), "{got:?}");
    assert!(get(&pool, 0).is_none());
    assert!(get(&pool, 1) == Some(chunk(1)));
    assert_eq!((pool.stats().damaged, pool.stats().chunks), (1, 1));
    assert!(pool.flush(Handle::new(1, 1)));
    assert_eq!(pool.stats().bytes_file, 0);
}

#[test]
fn chunks_that_cannot_be_brought_back_stay_in_the_file() {
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    (0..4).for_each(|i| put(&pool, i, i).unwrap());
    store.push_out(usize::MAX);

    let brought = failing(&[READ], libc::EIO, || store.bring_back(usize::MAX));

    assert_eq!(brought, 0);
    (0..4).for_each(|i| assert!(get(&pool, i) == Some(chunk(i))));
    assert!(store.bring_back(usize::MAX) > 0);
    (0..4).for_each(|i| assert!(get(&pool, i) == Some(chunk(i))));
}

#[test]
fn durable_put_that_cannot_be_written_flushes_what_was_there_for_ever() {
    for errno in [libc::EIO, libc::ENOSPC] {
        let dir = Dir::new();
        let (store, pool) = open(&dir);
        (0..3).for_each(|i| put(&pool, i, i).unwrap());
        store.sync().unwrap();

        let (refused, synced) = failing(&[WRITE], errno, || (put(&pool, 1, 7), store.sync()));

        assert!(is_file_error(&refused, errno), "{refused:?}");
        assert!(synced.is_err(), "nobody knows on the device that the older one has been flushed");
        assert_eq!((get(&pool, 1), pool.stats().refused_file), (None, 1));
        put(&pool, 3, 3).unwrap();
        store.sync().unwrap();
        drop((store, pool));
        let (_store, pool) = open(&dir);
        for (i, there) in [(0, true), (1, false), (2, true), (3, true)] {
            assert!(get(&pool, i) == there.then(|| chunk(i)), "{i} after a restart");
        }
    }
}

#[test]
fn repeat_that_cannot_be_written_flushes_what_was_there_and_harms_no_other() {
    // A call that fails, and one that cannot be taken back either.
    for calls in [&[WRITE][..], &[WRITE, TRUNCATE]] {
        let dir = Dir::new();
        let (store, pool) = open(&dir);
        (0..3).for_each(|i| put(&pool, i, i).unwrap());

        let refused = failing(calls, libc::ENOSPC, || put(&pool, 1, 0));

        assert!(is_file_error(&refused, libc::ENOSPC), "{refused:?}");
        assert_eq!((get(&pool, 1), pool.stats().refused_file, pool.stats().puts_same), (None, 1, 0));
        put(&pool, 3, 0).unwrap();
        put(&pool, 4, 2).unwrap();
        assert!(pool.stats().puts_same == 2 && pool.flush(Handle::new(1, 0)));
        store.sync().unwrap();
        drop((store, pool));
        let (_store, pool) = open(&dir);
        for (i, of) in [(0, None), (1, None), (2, Some(2)), (3, Some(0)), (4, Some(2))] {
            assert!(get(&pool, i) == of.map(chunk), "{i} after a restart");
        }
    }
}

#[test]
fn flush_that_cannot_be_written_is_written_when_the_store_ends() {
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    (0..2).for_each(|i| put(&pool, i, i).unwrap());

    assert!(failing(&[WRITE], libc::EIO, || pool.flush(Handle::new(1, 0))));

    drop((store, pool));
    let (_store, pool) = open(&dir);
    assert!(get(&pool, 0).is_none() && get(&pool, 1) == Some(chunk(1)));
}

#[test]
fn record_that_can_neither_be_written_nor_cut_off_hides_none_after_it() {
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    put(&pool, 0, 0).unwrap();
    // The header goes through; what follows it does not.
    let body: &[_] = &[(2, u64::MAX, 100_000)];
    let noise: Vec<u8> = (0..12_500).flat_map(|i| Random(i).next().to_le_bytes()).collect();
    let write = || pool.put(Handle::new(1, 1), &noise, Stamp::default());

    let refused = failing(&[(libc::SYS_pwrite64, body), TRUNCATE], libc::EIO, write);

    assert!(is_file_error(&refused, libc::EIO), "{refused:?}");
    (2..4).for_each(|i| put(&pool, i, i).unwrap());
    drop((store, pool));
    let (_store, pool) = open(&dir);
    for (i, there) in [(0, true), (1, false), (2, true), (3, true)] {
        assert!(get(&pool, i) == there.then(|| chunk(i)), "{i} after a restart");
    }
}

#[test]
fn log_file_that_cannot_be_made_is_made_by_the_next_put() {
    // No file; a file whose name may not be there after a power failure.
    for (call, errno) in [(libc::SYS_openat, libc::EMFILE), (libc::SYS_fsync, libc::EIO)] {
        let dir = Dir::new();
        let (store, pool) = open(&dir);

        let refused = failing(&[(call, &[])], errno, || put(&pool, 0, 0));

        assert!(is_file_error(&refused, errno), "{refused:?}");
        put(&pool, 1, 1).unwrap();
        drop((store, pool));
        let (_store, pool) = open(&dir);
        assert!(get(&pool, 0).is_none() && get(&pool, 1) == Some(chunk(1)));
    }
}

#[test]
fn sync_that_fails_says_so_and_the_next_one_does_it() {
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    put(&pool, 0, 0).unwrap();

    let synced = failing(&[(libc::SYS_fdatasync, &[])], libc::EIO, || store.sync());

    assert!(matches!(&synced, Err(FileError::Os { call: "fdatasync", .. })), "{synced:?}");
    store.sync().unwrap();
}

#[test]
fn what_a_killed_store_left_is_synced_before_it_counts() {
    let sync = [(libc::SYS_fdatasync, &[][..])];
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    put(&pool, 0, 0).unwrap();
    store.sync().unwrap();
    let synced = std::fs::metadata(&logs(&dir)[0]).unwrap().len();
    put(&pool, 0, 1).unwrap();

    let left = killed(&dir);
    let (store, pool) = failing(&sync, libc::EIO, || open(&left));
    assert!(get(&pool, 0) == Some(chunk(1)));
    assert!(failing(&sync, libc::EIO, || store.sync()).is_err());
    drop((store, pool));
    // Power fails, and takes what was not synced: the one before is still there.
    std::fs::File::options().write(true).open(&logs(&left)[0]).unwrap().set_len(synced).unwrap();
    assert!(get(&open(&left).1, 0) == Some(chunk(0)));

    let left = killed(&dir);
    open(&left).0.sync().unwrap();
    assert!(get(&open(&left).1, 0) == Some(chunk(1)));
}

#[test]
fn chunks_that_cannot_be_pushed_out_stay_in_memory() {
    let dir = Dir::new();
    let (store, _) = open(&dir);
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    (0..8).for_each(|i| put(&pool, i, i).unwrap());

    let pushed = failing(&[WRITE], libc::EIO, || store.push_out(usize::MAX));

    assert_eq!((pushed, pool.stats().bytes_file), (0, 0));
    (0..8).for_each(|i| assert!(get(&pool, i) == Some(chunk(i))));
    assert!(store.push_out(usize::MAX) > 0);
    (0..8).for_each(|i| assert!(get(&pool, i) == Some(chunk(i))));
}

#[test]
fn space_that_cannot_be_given_back_is_given_back_later() {
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    (0..20).for_each(|i| put(&pool, i, i).unwrap());
    (1..20).for_each(|i| assert!(pool.flush(Handle::new(1, i))));
    let before = store.stats().bytes_files;

    failing(&[(libc::SYS_fallocate, &[])], libc::EIO, || store.maintain(Duration::ZERO));

    assert_eq!(store.stats().bytes_files, before);
    store.maintain(Duration::ZERO);
    assert!(store.stats().bytes_files < before / 2, "{} of {before}", store.stats().bytes_files);
    assert!(get(&pool, 0) == Some(chunk(0)));
}

/// Those who count memfds take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn memfds() -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    let to = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    to.filter(|to| to.to_string_lossy().starts_with("/memfd:tmem")).count()
}

fn on_memfd(dir: Option<&Dir>) -> Result<Store, OpenError> {
    Store::new(&StoreOptions { backing: Backing::Memfd, file: dir.map(file), ..StoreOptions::new(32 * MIB) })
}

#[test]
fn memfd_that_cannot_be_had_is_an_error_and_leaves_nothing() {
    let _alone = alone();
    // Of mmap, only what maps a file shared; the allocator needs the rest.
    let shared: &[_] = &[(3, 0xf, libc::MAP_SHARED as u64)];
    for (call, errno) in [
        ((libc::SYS_memfd_create, &[][..]), libc::EMFILE),
        (TRUNCATE, libc::ENOSPC),
        ((libc::SYS_mmap, shared), libc::ENOMEM),
    ] {
        let store = failing(&[call], errno, || on_memfd(None));

        let Err(OpenError::Memory { source, .. }) = &store else { panic!("{store:?}") };
        assert_eq!(source.raw_os_error(), Some(errno));
        assert_eq!(memfds(), 0);
    }
    let store = on_memfd(None).unwrap();
    assert_eq!(memfds(), 1);
    drop(store);
    assert_eq!(memfds(), 0);
}

/// No pages for a segment; those that are to be given back are let go.
const PROVIDE: Call<'_> = (libc::SYS_fallocate, &[(1, libc::FALLOC_FL_PUNCH_HOLE as u64, 0)]);

/// Chunks that fill a segment and more.
fn noise() -> Vec<u8> {
    (0..MIB as u64 / 8).flat_map(|i| Random(i).next().to_le_bytes()).collect()
}

#[test]
fn segments_that_cannot_be_had_refuse_persistent_puts_and_harm_no_chunk() {
    let _alone = alone();
    let store = on_memfd(None).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    put(&pool, 0, 0).unwrap();
    let noise = noise();
    let fill = |i| pool.put(Handle::new(2, i), &noise[i as usize..], Stamp::default());

    // The first segment has room for some.
    let refused = failing(&[PROVIDE], libc::ENOMEM, || (0..9).find_map(|i| fill(i).err()));

    assert!(matches!(refused, Some(PutError::Full { .. })), "{refused:?}");
    assert!(get(&pool, 0) == Some(chunk(0)));
    let mut bytes = Vec::new();
    for i in 0..9 {
        fill(i).unwrap();
        assert!(pool.get_vec(Handle::new(2, i), &mut bytes).unwrap().is_some() && bytes == noise[i as usize..]);
    }
    pool.destroy();
    assert_eq!((pool.stats().bytes_compressed, pool.stats().bytes_held), (0, 0));
}

#[test]
fn ephemeral_chunks_make_do_with_the_segments_there_are() {
    let _alone = alone();
    let store = on_memfd(None).unwrap();
    let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared)).unwrap();
    let noise = noise();
    let fill = |i| pool.put(Handle::new(2, i), &noise[i as usize..], Stamp::default());
    fill(0).unwrap();

    failing(&[PROVIDE], libc::ENOMEM, || (1..20).for_each(|i| fill(i).unwrap()));

    assert_eq!(store.stats().bytes_memory, 4 << 20);
    let mut bytes = Vec::new();
    let there = |i: &u32| {
        pool.get_vec(Handle::new(2, *i), &mut bytes).unwrap().is_some_and(|_| {
            assert!(bytes == noise[*i as usize..]);
            true
        })
    };
    let count = (0..20).filter(there).count();
    assert!((1..=4).contains(&count), "{count}");
    (20..26).for_each(|i| fill(i).unwrap());
    assert!(store.stats().bytes_memory > 4 << 20);
}

#[test]
fn persistent_chunks_go_to_the_file_while_there_are_no_segments() {
    let _alone = alone();
    let dir = Dir::new();
    let store = on_memfd(Some(&dir)).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();

    failing(&[PROVIDE], libc::ENOMEM, || (0..4).for_each(|i| put(&pool, i, i).unwrap()));

    assert_eq!((pool.stats().puts_file, pool.stats().bytes_compressed), (4, 0));
    assert!(store.bring_back(usize::MAX) > 0);
    assert_eq!(pool.stats().bytes_file, 0);
    (0..4).for_each(|i| assert!(get(&pool, i) == Some(chunk(i))));
}

#[test]
fn pages_that_the_kernel_does_not_take_back_do_no_harm() {
    let _alone = alone();
    let give_back = [(libc::SYS_madvise, &[][..]), (libc::SYS_fallocate, &[])];
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let store = Store::new(&StoreOptions { backing, ..StoreOptions::new(32 * MIB) }).unwrap();
        let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared)).unwrap();
        (0..200).for_each(|i| put(&pool, i, i).unwrap());

        failing(&give_back, libc::EAGAIN, || store.give_back(usize::MAX));

        assert_eq!((pool.stats().chunks, pool.stats().bytes_held), (0, 0));
        (0..200).for_each(|i| put(&pool, i, 1000 + i).unwrap());
        (0..200).filter_map(|i| Some((i, get(&pool, i)?))).for_each(|(i, got)| assert!(got == chunk(1000 + i)));
        assert!(pool.stats().chunks > 0);
    }
}
