//! kill -9 at random moments: every chunk is whole or absent, and what was acknowledged as durable is there.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Camera, Dir, MIB, Random, file, killed, logs};
use shrbuf::Format;
use tmem_cache::file_tier::FileError;
use tmem_cache::store::{FileOptions, Handle, Pool, PoolOptions, PutError, Sharing, Stamp, Store, StoreOptions};

const CHILD: &str = "TMEM_CRASH_CHILD";
const FILM: &str = "TMEM_FILM_CHILD";
/// Frames that the child has.
const FRAMES: usize = 1000;
const REPEATS: &str = "TMEM_REPEATS_CHILD";
const FULL: &str = "TMEM_FULL_CHILD";

/// This program again, as the test of that name, with the variable that makes it a child.
fn child(test: &str, variable: &str, dir: &Dir) -> Command {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(variable, &dir.0);
    child
}

fn open(dir: &Dir) -> (Store, Pool) {
    open_with(dir, 8 * MIB)
}

fn open_with(dir: &Dir, limit: usize) -> (Store, Pool) {
    let store = Store::new(&StoreOptions { file: Some(file(dir)), ..StoreOptions::new(limit) }).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Private).durable("crash")).unwrap();
    (store, pool)
}

fn chunk(index: u32) -> Vec<u8> {
    let mut random = Random(index.into());
    let len = 1 + random.below(200_000) as usize;
    random.bytes(len)
}

/// The child: puts, now and then flushes, has holes made, and says what has been synced. Runs until it is killed.
#[test]
fn child_puts_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let dir = std::mem::ManuallyDrop::new(Dir(path.into()));
    let (store, pool) = open(&dir);
    for index in 0.. {
        pool.put(Handle::new(1, index), &chunk(index), Stamp::default()).unwrap();
        if index >= 20 {
            pool.flush(Handle::new(1, index - 20));
        }
        if index % 8 == 5 {
            store.maintain(Duration::ZERO);
        }
        if index % 4 == 3 {
            store.sync().unwrap();
            println!("synced {index}");
        }
    }
}

/// Kills a child some time after it has said that `least` is synced; the last that it said.
fn killed_after(child: &mut Child, least: u32) -> u32 {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut synced = lines.filter_map(|l| l.split_once("synced ")?.1.parse().ok());
    let said = synced.find(|index| *index >= least).expect("the child ended first");
    child.kill().unwrap();
    child.wait().unwrap();
    // What it said meanwhile.
    synced.last().unwrap_or(said)
}

#[test]
fn durable_chunks_survive_kill_9() {
    let mut random = Random(std::process::id().into());
    for _ in 0..8 {
        let dir = Dir::new();
        let mut child = child("child_puts_until_it_is_killed", CHILD, &dir).stdout(Stdio::piped()).spawn().unwrap();
        let synced = killed_after(&mut child, 20 + random.below(300) as u32);
        let (_store, pool) = open(&dir);
        let mut bytes = Vec::new();
        // It flushes no more than a few ahead of the next acknowledgement.
        for index in 0..synced + 50 {
            let got = pool.get_vec(Handle::new(1, index), &mut bytes).unwrap();
            assert!(got.is_none() || bytes == chunk(index), "{index} is neither whole nor absent");
            if index + 15 > synced && index <= synced {
                assert!(got.is_some(), "{index} was durable at {synced}");
            }
            if index + 20 <= synced {
                assert!(got.is_none(), "{index} was flushed before {synced}");
            }
        }
    }
}

/// What the child puts under an index: few different ones, so that most puts are repeats, often of what has been flushed.
fn repeated(index: u32) -> Vec<u8> {
    chunk(index % 7 + index / 500 * 7)
}

/// The child: as the first one, but for what it puts; each handle gets two chunks, one after the other.
#[test]
fn child_repeats_until_it_is_killed() {
    let Ok(path) = std::env::var(REPEATS) else { return };
    let dir = std::mem::ManuallyDrop::new(Dir(path.into()));
    let (store, pool) = open(&dir);
    for index in 0.. {
        pool.put(Handle::new(1, index), &repeated(index + 3), Stamp::default()).unwrap();
        pool.put(Handle::new(1, index), &repeated(index), Stamp::default()).unwrap();
        if index >= 20 {
            pool.flush(Handle::new(1, index - 20));
        }
        if index % 8 == 5 {
            store.maintain(Duration::ZERO);
            store.push_out(usize::MAX);
        }
        if index % 4 == 3 {
            store.sync().unwrap();
            println!("synced {index}");
        }
    }
}

#[test]
fn repeats_of_durable_chunks_survive_kill_9() {
    let mut random = Random(std::process::id().into());
    for _ in 0..8 {
        let dir = Dir::new();
        let mut child =
            child("child_repeats_until_it_is_killed", REPEATS, &dir).stdout(Stdio::piped()).spawn().unwrap();
        let synced = killed_after(&mut child, 40 + random.below(600) as u32);
        let (store, pool) = open(&dir);
        let mut bytes = Vec::new();
        for index in 0..synced + 50 {
            let got = pool.get_vec(Handle::new(1, index), &mut bytes).unwrap().is_some();
            // Of those after what is said to be synced, the first of the two may be there.
            let first = index > synced && bytes == repeated(index + 3);
            assert!(!got || first || bytes == repeated(index), "{index} is neither whole nor absent");
            assert!(got || index + 15 <= synced || index > synced, "{index} was durable at {synced}");
            assert!(!got || index + 20 > synced, "{index} was flushed before {synced}");
        }
        // Each of some fourteen once, and holes that were not made yet.
        assert!(pool.stats().bytes_file < 15 * 200_000, "{:?}", pool.stats());
        drop((store, pool));
    }
}

fn film(count: usize) -> Vec<Vec<u8>> {
    let mut camera = Camera::new(Format::Yuyv, (160, 120), 1);
    (0..count).map(|_| camera.shot()).collect()
}

/// The child: puts each frame into a durable pool, and into another, whose frames share references until they are pushed
/// out. Says what has been synced, and runs until it is killed.
#[test]
fn child_films_until_it_is_killed() {
    let Ok(path) = std::env::var(FILM) else { return };
    let dir = std::mem::ManuallyDrop::new(Dir(path.into()));
    // Large enough for references.
    let (store, durable) = open_with(&dir, 64 * MIB);
    let other = store.pool(PoolOptions::persistent(Sharing::Shared)).unwrap();
    let camera = Camera::new(Format::Yuyv, (160, 120), 1);
    for (index, shot) in (0..).zip(film(FRAMES)) {
        let frame = camera.buffer(&shot);
        for pool in [&durable, &other] {
            pool.put_frame(Handle::new(1, index), &frame, Stamp::default()).unwrap();
        }
        if index % 40 == 39 {
            assert!(other.stats().puts_reference > 0 && durable.stats().puts_reference == 0);
            store.push_out(usize::MAX);
            assert_eq!(store.stats().pools.bytes_references, 0);
        }
        if index % 4 == 3 {
            store.sync().unwrap();
            println!("synced {index}");
        }
    }
    // Until it is killed, or its parent ends.
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn durable_frames_survive_kill_9_beside_those_with_references() {
    let dir = Dir::new();
    let mut command = child("child_films_until_it_is_killed", FILM, &dir);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Frames have been pushed out by then.
    let synced = killed_after(&mut child, 130);

    let (store, durable) = open(&dir);
    let mut bytes = Vec::new();
    for (index, shot) in (0..).zip(film(FRAMES)) {
        let got = durable.get_vec(Handle::new(1, index), &mut bytes).unwrap();
        assert!(got.is_none() || bytes == shot, "{index} is neither whole nor absent");
        assert!(got.is_some() || index > synced, "{index} was durable at {synced}");
    }
    // What was pushed out is of the killed store alone, and takes no space.
    let stored = durable.stats().bytes_file;
    assert!(store.stats().bytes_files < stored + stored / 4 + (1 << 20), "{:?}", store.stats());
}

/// The child: RLIMIT_FSIZE makes write(2) short, then fail, as a full device does.
#[test]
fn child_runs_into_the_end_of_the_device() {
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigHandler, Signal, signal};
    let Ok(path) = std::env::var(FULL) else { return };
    let dir = std::mem::ManuallyDrop::new(Dir(path.into()));
    // SAFETY: ignoring a signal runs no handler.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 1 << 20, 1 << 20).unwrap();
    let (_store, pool) = open(&dir);
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for index in 0..60 {
        let handle = Handle::new(1, index);
        // The older chunk goes when the newer one is refused.
        let _ = pool.put(handle, b"older", Stamp::default());
        match pool.put(handle, &chunk(index), Stamp::default()) {
            Ok(()) => accepted.push(index),
            Err(PutError::File { .. }) => refused += 1,
            Err(e) => panic!("{e}"),
        }
    }
    assert!(!accepted.is_empty() && refused > 0, "{accepted:?}");
    assert!(pool.stats().refused_file >= refused);
    println!("\naccepted {}", accepted.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
}

#[test]
fn full_device_refuses_and_what_was_there_stays() {
    let dir = Dir::new();
    let child = child("child_runs_into_the_end_of_the_device", FULL, &dir).output().unwrap();
    let said = String::from_utf8(child.stdout).unwrap();
    assert!(child.status.success(), "{said}");
    let accepted = said.lines().find_map(|l| l.strip_prefix("accepted ")).unwrap();
    let accepted: Vec<u32> = accepted.split(' ').map(|n| n.parse().unwrap()).collect();
    let (_store, pool) = open(&dir);
    let mut bytes = Vec::new();
    for index in 0..60 {
        let got = pool.get_vec(Handle::new(1, index), &mut bytes).unwrap();
        assert_eq!(got.is_some(), accepted.contains(&index), "{index}");
        assert!(got.is_none() || bytes == chunk(index), "{index}");
    }
}

#[test]
fn write_budget_and_limit_refuse_by_name() {
    for (limit, writes_per_day) in [(1 << 20, 1 << 40), (1 << 40, 4 << 20)] {
        let dir = Dir::new();
        let options = FileOptions { limit, writes_per_day, ..file(&dir) };
        let store = Store::new(&StoreOptions { file: Some(options), ..StoreOptions::new(8 * MIB) }).unwrap();
        let pool = store.pool(PoolOptions::persistent(Sharing::Private).durable("full")).unwrap();
        let put = |i| pool.put(Handle::new(1, i), &chunk(i), Stamp::default());
        let refused = (0..200).find_map(|i| put(i).err()).unwrap();
        assert!(matches!(refused, PutError::File { source: FileError::Limit { .. } | FileError::Budget { .. }, .. }));
    }
}

#[test]
fn damaged_or_cut_file_is_an_error_once_and_a_miss_from_then_on() {
    for cut in [false, true] {
        let dir = Dir::new();
        let (store, pool) = open(&dir);
        pool.put(Handle::new(1, 1), &Random(5).bytes(100_000), Stamp::default()).unwrap();
        store.push_out(usize::MAX);
        let log = logs(&dir).remove(0);
        let len = std::fs::metadata(&log).unwrap().len();
        if cut {
            std::fs::File::options().write(true).open(&log).unwrap().set_len(len / 2).unwrap();
        } else {
            use std::os::unix::fs::FileExt;
            std::fs::File::options().write(true).open(&log).unwrap().write_all_at(&[0xa5; 16], len / 2).unwrap();
        }
        let mut bytes = Vec::new();
        assert!(pool.get_vec(Handle::new(1, 1), &mut bytes).is_err());
        assert!(pool.get_vec(Handle::new(1, 1), &mut bytes).unwrap().is_none());
        assert_eq!(pool.stats().damaged, 1);
    }
}

#[test]
fn directory_of_another_store_is_refused() {
    let dir = Dir::new();
    let _first = open(&dir);
    let second = Store::new(&StoreOptions { file: Some(file(&dir)), ..StoreOptions::new(8 * MIB) });
    assert!(second.is_err_and(|e| e.to_string().contains("in use")));
}

#[test]
fn power_failure_between_a_put_over_another_and_its_sync_brings_the_one_before() {
    let dir = Dir::new();
    let (store, pool) = open(&dir);
    let put = |index: u32, of: u32| pool.put(Handle::new(1, index), &chunk(of), Stamp::default()).unwrap();
    (0..3).for_each(|index| put(index, index));
    store.sync().unwrap();
    let synced = std::fs::metadata(&logs(&dir)[0]).unwrap().len();
    put(0, 10);
    put(1, 11);
    put(1, 12);
    pool.flush(Handle::new(1, 2));

    // What the device has, where it was given all that was written in place, and not the new records.
    let lost = killed(&dir);
    std::fs::File::options().write(true).open(&logs(&lost)[0]).unwrap().set_len(synced).unwrap();
    let (_after, found) = open(&lost);
    let mut bytes = Vec::new();
    for (index, of) in [(0, Some(0)), (1, Some(1)), (2, None)] {
        let got = found.get_vec(Handle::new(1, index), &mut bytes).unwrap().map(|_| bytes.clone());
        assert!(got == of.map(chunk), "{index} after a power failure");
    }

    // And from the sync on the new ones; what is flushed then takes none of the old ones with it.
    store.sync().unwrap();
    pool.flush(Handle::new(1, 1));
    let whole = killed(&dir);
    let (_after, found) = open(&whole);
    for (index, of) in [(0, Some(10)), (1, None), (2, None)] {
        let got = found.get_vec(Handle::new(1, index), &mut bytes).unwrap().map(|_| bytes.clone());
        assert!(got == of.map(chunk), "{index} after the sync");
    }
    // The space of what was replaced comes back.
    let before = store.stats().bytes_files;
    store.maintain(Duration::ZERO);
    assert!(store.stats().bytes_files < before, "{before}");
}

#[test]
fn replaced_records_make_room_before_a_put_is_refused_for_the_limit() {
    let dir = Dir::new();
    let options = FileOptions { limit: 2 << 20, ..file(&dir) };
    let store = Store::new(&StoreOptions { file: Some(options), ..StoreOptions::new(8 * MIB) }).unwrap();
    let pool = store.pool(PoolOptions::persistent(Sharing::Private).durable("replaced")).unwrap();
    let mut random = Random(3);
    for _ in 0..40 {
        let noise: Vec<u8> = (0..25_000).flat_map(|_| random.next().to_le_bytes()).collect();
        pool.put(Handle::new(1, 1), &noise, Stamp::default()).unwrap();
    }
}
