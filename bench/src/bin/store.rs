//! The store beside stores of lz4 and zstd: `store DATA OUT`.
//!
//! Frames of 1920x1080 from the sets in DATA, as a camera's buffers: each put reads the frame from a mapping, each get
//! writes it to one. The peers copy the frame out of the mapping, compress that, and keep the bytes in a map, as anybody
//! would. One thread, but for the row on scaling. Frames of a still scene are put with shared references and without.
//! Leaves `store.json` in OUT.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use shrbuf::exporter::Memfd;
use shrbuf::{Account, Format, Layout, Ledger, Reason, Shrbuf};
use shrbuf_bench::table::{Goal, Row};
use shrbuf_bench::{Result, sets, table};
use tmem_cache::preroll::{Preroll, Settings};
use tmem_cache::store::{Handle, Pool, PoolOptions, Sharing, Stamp, Store, StoreOptions};

const MIB: usize = 1 << 20;
const GIB: f64 = (1u64 << 30) as f64;
/// Frames put into each store, the sets' own by turns.
const PUTS: u32 = 240;
/// Of these, the last: the stores are full by then, and their memory has been touched.
const STEADY: usize = 120;
/// Of a still scene, the first: they are put once, so that no frame is predicted from an average it is part of.
const AVERAGED: usize = 18;
/// Small enough to be full half way.
const LIMIT: usize = 192 * MIB;
const FPS: f64 = 30.0;
/// How long a camera's frames are kept for its share of a core.
const KEPT: Duration = Duration::from_secs(20);
/// The element's own.
const UPKEEP: f64 = 0.1;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
}

fn account() -> Account {
    Ledger::default().account("bench", Reason::Inspect)
}

/// The frames of a set in mappings, as a camera's buffers are.
fn buffers(format: Format, frames: &[Vec<u8>], account: &Account) -> Result<Vec<Shrbuf>> {
    let layout = Layout::linear(format, 1920, 1080, 1)?;
    let memory = Memfd::new("bench");
    let fill = |bytes: &Vec<u8>| -> Result<Shrbuf> {
        let mut buffer = memory.allocate(&layout)?;
        let mut rest = bytes.as_slice();
        let mut guard = buffer.write()?;
        for p in 0..layout.planes().len() {
            for y in 0..layout.rows(p) as usize {
                let (row, after) = rest.split_at(layout.row_bytes(p) as usize);
                guard.plane(p).write(y, 0, row, account);
                rest = after;
            }
        }
        drop(guard);
        Ok(buffer)
    };
    frames.iter().map(fill).collect()
}

/// Rows of a frame one after the other.
fn packed(frame: &Shrbuf, into: &mut Vec<u8>, account: &Account) -> Result<()> {
    let layout = *frame.layout();
    let guard = frame.read()?;
    into.clear();
    for p in 0..layout.planes().len() {
        let (at, bytes) = (into.len(), layout.row_bytes(p) as usize);
        into.resize(at + bytes * layout.rows(p) as usize, 0);
        for (y, row) in into[at..].chunks_exact_mut(bytes).enumerate() {
            guard.plane(p).read(y, 0, row, account);
        }
    }
    Ok(())
}

fn unpack(bytes: &[u8], frame: &mut Shrbuf, account: &Account) -> Result<()> {
    let layout = *frame.layout();
    let mut guard = frame.write()?;
    let mut rest = bytes;
    for p in 0..layout.planes().len() {
        for y in 0..layout.rows(p) as usize {
            let (row, after) = rest.split_at(layout.row_bytes(p) as usize);
            guard.plane(p).write(y, 0, row, account);
            rest = after;
        }
    }
    Ok(())
}

/// The frame to put as number `n`: like no other, or the store would keep it once.
fn nth<'f>(frames: &'f mut [Shrbuf], n: u32, account: &Account) -> Result<&'f Shrbuf> {
    let (n_th, once) = (n as usize, if frames.len() > AVERAGED { AVERAGED } else { 0 });
    let at = if n_th < once { n_th } else { once + (n_th - once) % (frames.len() - once) };
    frames[at].write()?.plane(0).write(0, 0, &n.to_le_bytes(), account);
    Ok(&frames[at])
}

/// Milliseconds of a put and a get; bytes of a frame stored, and of what frames share.
struct Cost {
    put: f64,
    get: f64,
    bytes: f64,
    shared: f64,
}

impl Cost {
    /// Frames that a GiB holds.
    fn in_a_gib(&self) -> f64 {
        (GIB - self.shared) / self.bytes
    }
}

fn ours(frames: &mut [Shrbuf], target: &mut Shrbuf, account: &Account) -> Result<(Cost, Store, Pool)> {
    let store = Store::new(&StoreOptions::new(LIMIT))?;
    let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared))?;
    let (mut puts, mut gets) = (Vec::new(), Vec::new());
    for n in 0..PUTS {
        let frame = nth(frames, n, account)?;
        let begin = Instant::now();
        pool.put_frame(Handle::new(1, n), frame, Stamp::default())?;
        puts.push(begin.elapsed());
    }
    for n in 0..PUTS {
        let begin = Instant::now();
        if pool.get_frame(Handle::new(1, n), target)?.is_some() {
            gets.push(begin.elapsed());
        }
    }
    let stats = pool.stats();
    let cost = Cost {
        put: median(puts.split_off(puts.len() - STEADY)),
        get: median(gets),
        bytes: stats.bytes_compressed as f64 / stats.chunks.max(1) as f64,
        shared: stats.bytes_references as f64,
    };
    Ok((cost, store, pool))
}

/// A codec of a peer's store.
type Coder = (fn(&[u8]) -> Result<Vec<u8>>, fn(&[u8], usize) -> Result<Vec<u8>>);

fn theirs(frames: &mut [Shrbuf], target: &mut Shrbuf, (encode, decode): Coder, account: &Account) -> Result<Cost> {
    let mut store: HashMap<u32, Vec<u8>> = HashMap::new();
    let (mut puts, mut gets, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..PUTS {
        let frame = nth(frames, n, account)?;
        let begin = Instant::now();
        packed(frame, &mut scratch, account)?;
        store.insert(n, encode(&scratch)?);
        puts.push(begin.elapsed());
        // As many as fit.
        while store.values().map(Vec::len).sum::<usize>() > LIMIT {
            let oldest = store.keys().min().copied().unwrap_or_default();
            store.remove(&oldest);
        }
    }
    let bytes = store.values().map(Vec::len).sum::<usize>() as f64 / store.len() as f64;
    for coded in store.values() {
        let begin = Instant::now();
        unpack(&decode(coded, scratch.len())?, target, account)?;
        gets.push(begin.elapsed());
    }
    Ok(Cost { put: median(puts.split_off(puts.len() - STEADY)), get: median(gets), bytes, shared: 0.0 })
}

const LZ4: Coder = (
    |bytes| Ok(lz4::block::compress(bytes, None, false)?),
    |bytes, len| Ok(lz4::block::decompress(bytes, Some(len as i32))?),
);
const ZSTD: Coder = (|bytes| Ok(zstd::bulk::compress(bytes, 1)?), |bytes, len| Ok(zstd::bulk::decompress(bytes, len)?));

/// Percent of a core that it takes to keep a camera's frames for a while, as the element does: the process's time, with
/// upkeep, and with evictions once the store is full.
fn kept(format: Format, frames: &[Vec<u8>], account: &Account) -> Result<f64> {
    let mut frames = buffers(format, frames, account)?;
    let store = Store::new(&StoreOptions::new(LIMIT))?;
    let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared))?;
    let preroll = Preroll::new(pool, Settings { keep: Duration::from_secs(30), pin: false });
    let _upkeep = store.upkeep(UPKEEP)?;
    let used = || -> Result<Duration> { Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into()) };
    let time = Duration::from_secs_f64(1.0 / FPS);
    let (before, begin) = (used()?, Instant::now());
    for n in 0..(KEPT.as_secs_f64() * FPS) as u32 {
        std::thread::sleep((begin + time * n).saturating_duration_since(Instant::now()));
        let frame = nth(&mut frames, n, account)?;
        preroll.put(frame, (time * n).as_nanos() as u64, time, ())?;
    }
    Ok((used()? - before).as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0)
}

/// Frames a second that so many threads put, each the copies of its own.
fn throughput(store: &Store, format: Format, frames: &[Vec<u8>], threads: u32) -> Result<f64> {
    let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared))?;
    let account = account();
    let own = || buffers(format, frames, &account);
    let copies = (0..threads).map(|_| own()).collect::<Result<Vec<_>>>()?;
    let begin = Instant::now();
    let put = |(t, mut frames): (u32, Vec<Shrbuf>)| {
        let (pool, account) = (&pool, &account);
        move || -> std::result::Result<(), String> {
            for n in 0..PUTS {
                let frame = nth(&mut frames, t << 16 | n, account).map_err(|e| e.to_string())?;
                let put = pool.put_frame(Handle::new(u64::from(t), n), frame, Stamp::default());
                put.map_err(|e| e.to_string())?;
            }
            Ok(())
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).zip(copies).map(|one| scope.spawn(put(one))).collect();
        threads.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread panicked".to_owned())?)
    })?;
    Ok(f64::from(threads * PUTS) / begin.elapsed().as_secs_f64())
}

/// A pool beside another that gets the same frames, and the processor time of each put and get.
struct Side {
    pool: Pool,
    puts: Vec<Duration>,
    gets: Vec<Duration>,
}

/// Processor time of this thread: two pools by turns on a machine with other work to do.
fn cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// A still scene, with and without shared references, frame by frame by turns.
fn still(set: &sets::Set, format: Format, data: &Path, account: &Account) -> Result<Vec<Row>> {
    eprintln!("store: {}", set.name());
    let mut frames = buffers(format, &set.read(data, usize::MAX)?, account)?;
    let mut target = Memfd::new("bench").allocate(frames[0].layout())?;
    let side = |references| -> Result<Side> {
        let store = Store::new(&StoreOptions::new(LIMIT))?;
        let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared).references(references))?;
        Ok(Side { pool, puts: Vec::new(), gets: Vec::new() })
    };
    let mut sides = [side(true)?, side(false)?];
    for n in 0..PUTS {
        let frame = nth(&mut frames, n, account)?;
        // The second finds the frame in the cache.
        for turn in 0..2 {
            let side = &mut sides[(n as usize + turn) % 2];
            let begin = cpu()?;
            side.pool.put_frame(Handle::new(1, n), frame, Stamp::default())?;
            side.puts.push(cpu()? - begin);
        }
    }
    for (n, side) in (0..PUTS).flat_map(|n| [(n, 0), (n, 1)]) {
        let begin = cpu()?;
        if sides[side].pool.get_frame(Handle::new(1, n), &mut target)?.is_some() {
            sides[side].gets.push(cpu()? - begin);
        }
    }
    let figures = |side: &Side| {
        let stats = side.pool.stats();
        let put = side.puts.iter().sum::<Duration>().as_secs_f64() * 1e3 / f64::from(PUTS);
        let bytes = stats.bytes_compressed as f64 / stats.chunks.max(1) as f64;
        let cost = Cost { put, get: median(side.gets.clone()), bytes, shared: stats.bytes_references as f64 };
        let slowest = side.puts.iter().max().copied().unwrap_or_default().as_secs_f64() * 1e3;
        let ratio = cost.in_a_gib() * set.frame_bytes() as f64 / GIB;
        [
            ("put, ms of processor time, all trials among them", cost.put),
            ("slowest put, ms of processor time", slowest),
            ("get, ms of processor time", cost.get),
            ("ratio", ratio),
            ("seconds in a GiB at 30 a second", cost.in_a_gib() / FPS),
        ]
    };
    let name = format!("{} 1080p, still, {} noise", set.format.name(), set.noise);
    let both = figures(&sides[0]).into_iter().zip(figures(&sides[1]));
    let row = |((what, with), (_, without))| {
        Row::new(format!("{name}: {what}, beside no reference"), Some(with), Some(without), Goal::None)
    };
    Ok(both.map(row).collect())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (data, out) = arguments.next().zip(arguments.next()).ok_or("usage: store DATA OUT")?;
    let account = account();
    let mut rows = Vec::new();
    for (format, name) in [(Format::Nv12, "nv12"), (Format::Yuyv, "yuyv")] {
        let sets = sets::load(&data)?;
        let is_meant = |s: &&sets::Set| s.width == 1920 && s.kind == sets::Kind::Pan && s.noise == "medium";
        let set = sets.iter().find(|s| s.format.name() == name && is_meant(s));
        let set = set.ok_or_else(|| format!("no set of {name} frames of 1920x1080 with medium noise"))?;
        eprintln!("store: {}", set.name());
        let mut frames = buffers(format, &set.read(&data, 8)?, &account)?;
        let mut target = Memfd::new("bench").allocate(frames[0].layout())?;
        let raw = set.frame_bytes() as f64;
        // What the pool holds is looked at below.
        let (own, store, _pool) = ours(&mut frames, &mut target, &account)?;
        for (peer, coder) in [("memcpy + lz4", LZ4), ("memcpy + zstd -1", ZSTD)] {
            let other = theirs(&mut frames, &mut target, coder, &account)?;
            let row = |what: &str, a: f64, b: f64| {
                Row::new(format!("{name} 1080p, {what}, beside {peer}"), Some(a), Some(b), Goal::None)
            };
            rows.push(row("put ms", own.put, other.put));
            rows.push(row("get ms", own.get, other.get));
            rows.push(row("ratio", raw / own.bytes, raw / other.bytes));
        }
        let alone = |what: &str, value: f64, goal| Row::new(format!("{name} 1080p30, {what}"), Some(value), None, goal);
        let percent = kept(format, &set.read(&data, 8)?, &account)?;
        rows.push(alone("% of a core to keep it for 20 s, with upkeep", percent, Goal::None));
        rows.push(alone("seconds in a GiB", own.in_a_gib() / FPS, Goal::None));
        let stats = store.stats();
        let overhead =
            stats.bytes_memory as f64 / (stats.pools.bytes_compressed + stats.pools.bytes_references) as f64 - 1.0;
        rows.push(alone(
            "segments above the compressed bytes (heap not counted), %",
            overhead * 100.0,
            Goal::AtMost(3.0),
        ));
        if format == Format::Yuyv {
            let raw = set.read(&data, 8)?;
            let (one, two) = (throughput(&store, format, &raw, 1)?, throughput(&store, format, &raw, 2)?);
            rows.push(Row::new("2 threads putting, frames/s beside 1 thread", Some(two), Some(one), Goal::None));
        }
    }
    for set in sets::load(&data)?.iter().filter(|s| s.width == 1920 && s.kind == sets::Kind::Still) {
        let format = Format::all().find(|f| f.name().eq_ignore_ascii_case(set.format.name()));
        rows.extend(still(set, format.ok_or("a format of frames alone")?, &data, &account)?);
    }
    let store = Store::new(&StoreOptions::new(320 * MIB))?;
    let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared))?;
    let mut chunk = vec![0; MIB];
    let mut x = 1u64;
    for n in 0..320 {
        // Bytes that do not compress.
        for word in chunk.as_chunks_mut::<8>().0 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            *word = x.to_le_bytes();
        }
        pool.put(Handle::new(1, n), &chunk, Stamp::default())?;
    }
    let begin = Instant::now();
    let given = store.give_back(256 * MIB);
    let took = begin.elapsed().as_secs_f64() * 1e3;
    rows.push(Row::new(format!("giving {} MiB back, ms", given / MIB), Some(took), None, Goal::AtMost(10.0)));

    print!("{}", table::text(&rows));
    std::fs::create_dir_all(&out)?;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let value = json!({ "load": load.trim(), "rows": table::json(&rows) });
    Ok(std::fs::write(out.join("store.json"), format!("{value:#}\n"))?)
}
