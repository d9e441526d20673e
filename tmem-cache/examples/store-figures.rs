//! What put, get and giving memory back cost on this machine: `cargo run --release -p tmem-cache --example store-figures`.

use std::time::{Duration, Instant};

use shrbuf::exporter::Memfd;
use shrbuf::{Format, Layout, Ledger, Reason};
use tmem_cache::store::{Backing, FileOptions, Handle, PoolOptions, Sharing, Stamp, Store, StoreOptions};

const MIB: usize = 1 << 20;

fn noise(len: usize) -> Vec<u8> {
    let mut x = 1u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x & 7) as u8
    };
    (0..len).map(|i| (i / 64) as u8 ^ next()).collect()
}

fn median(mut v: Vec<Duration>) -> Duration {
    v.sort();
    v.get(v.len() / 2).copied().unwrap_or_default()
}

/// What a store without a frame codec would do: copy the frame out of its mapping, compress; decompress.
fn peer(name: &str, frame: &[u8], pack: impl Fn(&[u8]) -> Vec<u8>, unpack: impl Fn(&[u8], &mut [u8])) {
    let (mut copy, mut out) = (vec![0; frame.len()], vec![0; frame.len()]);
    let (mut puts, mut gets, mut packed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..15 {
        let start = Instant::now();
        copy.copy_from_slice(frame);
        packed = pack(&copy);
        puts.push(start.elapsed());
        let start = Instant::now();
        unpack(&packed, &mut out);
        gets.push(start.elapsed());
    }
    let ratio = frame.len() as f64 / packed.len() as f64;
    println!("memcpy + {name}: ratio {ratio:.2}, put {:?}, get {:?}", median(puts), median(gets));
}

fn peers(frame: &[u8]) {
    let lz4 = |b: &[u8], into: &mut [u8]| drop(lz4_flex::block::decompress_into(b, into));
    peer("lz4", frame, lz4_flex::block::compress, lz4);
    for level in [1, 3] {
        let pack = |b: &[u8]| zstd::bulk::compress(b, level).unwrap_or_default();
        peer(&format!("zstd -{level}"), frame, pack, |b, into| drop(zstd::bulk::decompress_to_buffer(b, into)));
    }
}

/// Frames put into a durable pool, then each again under another handle.
fn durable() -> Result<(), Box<dyn std::error::Error>> {
    const FRAMES: u32 = 100;
    let directory = std::env::temp_dir().join(format!("store-figures-{}", std::process::id()));
    let file = FileOptions { directory: directory.clone(), limit: 1 << 32, writes_per_day: 1 << 40 };
    let store = Store::new(&StoreOptions { file: Some(file), ..StoreOptions::new(600 * MIB) })?;
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared).durable("figures"))?;
    let layout = Layout::linear(Format::Yuyv, 1920, 1080, 1)?;
    let account = Ledger::default().account("figures", Reason::Generate);
    let bytes = noise(1920 * 2 * 1080);
    let mut frame = Memfd::new("figures").allocate(&layout)?;
    for round in 0..2 {
        let (mut puts, before) = (Vec::new(), store.stats().bytes_files);
        for n in 0..FRAMES {
            for y in 0..1080 {
                let at = (y * 7 + n as usize * 17) % 1079 * 1920 * 2;
                frame.write()?.plane(0).write(y, 0, &bytes[at..at + 1920 * 2], &account);
            }
            let start = Instant::now();
            pool.put_frame(Handle::new(round, n), &frame, Stamp::default())?;
            puts.push(start.elapsed());
        }
        let written = (store.stats().bytes_files - before) / u64::from(FRAMES);
        let what = if round == 0 { "first" } else { "again" };
        println!("durable, {what}: put {:?}, {written} bytes of file each", median(puts));
    }
    drop((pool, store));
    Ok(std::fs::remove_dir_all(directory)?)
}

/// Chunks of 16 KiB, appended, then put over others in no order, whose holes they fill.
fn pages() -> Result<(), Box<dyn std::error::Error>> {
    const COUNT: u32 = 24_000;
    let store = Store::new(&StoreOptions::new(512 * MIB))?;
    let pool = store.pool(PoolOptions::persistent(Sharing::Shared))?;
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state
    };
    let mut chunk: Vec<u8> = (0..2048).flat_map(|_| random().to_le_bytes()).collect();
    for fills in [false, true] {
        let start = Instant::now();
        for i in 0..COUNT {
            chunk[..8].copy_from_slice(&random().to_le_bytes());
            let index = if fills { (random() >> 33) as u32 % COUNT } else { i };
            pool.put(Handle::new(1, index), &chunk, Stamp::default())?;
        }
        let what = if fills { "over others" } else { "appended" };
        println!("16 KiB, {what}: put {:?}", start.elapsed() / COUNT);
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The same rows as the frames below.
    peers(&noise(1920 * 2 * 1080));
    durable()?;
    pages()?;
    for backing in [Backing::Anonymous, Backing::Memfd] {
        let store = Store::new(&StoreOptions { backing, ..StoreOptions::new(600 * MIB) })?;
        let pool = store.pool(PoolOptions::ephemeral(Sharing::Shared))?;
        let layout = Layout::linear(Format::Yuyv, 1920, 1080, 1)?;
        let mut frame = Memfd::new("figures").allocate(&layout)?;
        let account = Ledger::default().account("figures", Reason::Generate);
        let bytes = noise(1920 * 2 * 1080);
        let row = 1920 * 2;
        let (mut puts, mut n) = (Vec::new(), 0u32);
        while n < 600 {
            for y in 0..1080 {
                let at = (y * 7 + n as usize * 17) % 1079 * row;
                frame.write()?.plane(0).write(y, 0, &bytes[at..at + row], &account);
            }
            let start = Instant::now();
            pool.put_frame(Handle::new(1, n), &frame, Stamp::default())?;
            puts.push(start.elapsed());
            n += 1;
        }
        let steady: Vec<_> = puts[400..].to_vec();
        let mut gets = Vec::new();
        for i in 400..600 {
            let start = Instant::now();
            if pool.get_frame(Handle::new(1, i), &mut frame)?.is_some() {
                gets.push(start.elapsed());
            }
        }
        let stats = store.stats();
        let start = Instant::now();
        let given = store.give_back(256 * MIB);
        let took = start.elapsed();
        println!(
            "{backing:?}: ratio {:.2}, put {:?} (filling {:?}), get {:?}, {} MiB given back in {took:?}",
            stats.pools.bytes_original as f64 / stats.pools.bytes_compressed as f64,
            median(steady),
            median(puts[..100].to_vec()),
            median(gets),
            given / MIB
        );
    }
    Ok(())
}
