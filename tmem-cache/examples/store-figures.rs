//! What put, get and giving memory back cost on this machine: `cargo run --release -p tmem-cache --example store-figures`.

use std::time::{Duration, Instant};

use shrbuf::exporter::Memfd;
use shrbuf::{Format, Layout, Ledger, Reason};
use tmem_cache::store::{Backing, Handle, PoolOptions, Sharing, Stamp, Store, StoreOptions};

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The same rows as the frames below.
    peers(&noise(1920 * 2 * 1080));
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
