//! Stores of every configuration, and chunks that say who wrote them.
#![allow(dead_code)] // each test file uses some of it

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use shrbuf::exporter::Memfd;
use shrbuf::{Account, Format, Layout, Ledger, Reason, Shrbuf};
use tmem_cache::codec::Picture;
use tmem_cache::store::{Backing, FileOptions, Handle, Pool, PoolOptions, Sharing, Stamp, Store, StoreOptions};

pub const MIB: usize = 1 << 20;

/// A directory that goes with the value.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Dir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tmem-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

/// What kill -9 leaves just now: all that has been written, in a directory of its own.
pub fn killed(dir: &Dir) -> Dir {
    let copy = Dir::new();
    for log in logs(dir) {
        std::fs::copy(&log, copy.0.join(log.file_name().unwrap())).unwrap();
    }
    copy
}

/// The log files of a directory, oldest first.
pub fn logs(dir: &Dir) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(&dir.0).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    logs.sort();
    logs
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn file(dir: &Dir) -> FileOptions {
    FileOptions { directory: dir.0.clone(), limit: 1 << 30, writes_per_day: 1 << 40 }
}

/// Every kind of store, by name; the directory lives as long as its store.
pub fn stores() -> Vec<(&'static str, Store, Option<Dir>)> {
    let with_file = |limit| {
        let dir = Dir::new();
        let store = Store::new(&StoreOptions { file: Some(file(&dir)), ..StoreOptions::new(limit) }).unwrap();
        (store, Some(dir))
    };
    let (filed, filed_dir) = with_file(64 * MIB);
    let (tiny, tiny_dir) = with_file(8 * MIB);
    let memfd = StoreOptions { backing: Backing::Memfd, ..StoreOptions::new(64 * MIB) };
    vec![
        ("memory", Store::new(&StoreOptions::new(64 * MIB)).unwrap(), None),
        ("memfd", Store::new(&memfd).unwrap(), None),
        ("memory and file", filed, filed_dir),
        ("tiny memory and file", tiny, tiny_dir),
        ("tiny memory", Store::new(&StoreOptions::new(8 * MIB)).unwrap(), None),
    ]
}

/// Every kind of pool that a store can have.
pub fn pools(filed: bool) -> Vec<PoolOptions> {
    let kinds = [PoolOptions::ephemeral, PoolOptions::persistent];
    let mut all: Vec<_> = kinds.iter().flat_map(|k| [k(Sharing::Private), k(Sharing::Shared)]).collect();
    all.push(PoolOptions::ephemeral(Sharing::Private).thinning(3));
    all.push(PoolOptions::ephemeral(Sharing::Shared).quota(8 * MIB));
    if filed {
        all.push(PoolOptions::persistent(Sharing::Private).durable("conformance"));
    }
    all
}

/// Every kind of pool of every kind of store, with what it is called.
pub fn each_pool(f: impl Fn(&str, &Store, &Pool)) {
    for (name, store, dir) in stores() {
        for options in pools(dir.is_some()) {
            let said = format!("{name}, {options:?}");
            f(&said, &store, &store.pool(options).unwrap());
        }
    }
}

/// True where the put was accepted.
pub fn put(pool: &Pool, handle: Handle, bytes: &[u8]) -> bool {
    pool.put(handle, bytes, Stamp::default()).is_ok()
}

pub fn get(pool: &Pool, handle: Handle) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    pool.get_vec(handle, &mut bytes).unwrap().map(|_| bytes)
}

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Bytes, half of which compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let compressible = self.below(2) == 0;
        (0..len).map(|i| if compressible { (i / 100) as u8 } else { self.next() as u8 }).collect()
    }
}

/// Bytes that nothing makes smaller.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}

/// A frame in which rows are alike, but for noise.
pub fn frame(layout: &Layout, seed: u64) -> Shrbuf {
    let mut frame = Memfd::new("frame").allocate(layout).unwrap();
    let account = Ledger::default().account("test", Reason::Generate);
    let mut random = Random(seed);
    let mut guard = frame.write().unwrap();
    for p in 0..layout.planes().len() {
        for y in 0..layout.rows(p) as usize {
            let row: Vec<u8> =
                (0..layout.row_bytes(p)).map(|x| (x as u8).wrapping_add(random.below(8) as u8)).collect();
            guard.plane(p).write(y, 0, &row, &account);
        }
    }
    drop(guard);
    frame
}

/// A frame's rows, without padding.
pub fn packed(frame: &Shrbuf) -> Vec<u8> {
    let account = Ledger::default().account("test", Reason::Inspect);
    let guard = frame.read().unwrap();
    let mut all = Vec::new();
    for p in 0..frame.layout().planes().len() {
        for y in 0..frame.layout().rows(p) as usize {
            let mut row = vec![0; frame.layout().row_bytes(p) as usize];
            guard.plane(p).read(y, 0, &mut row, &account);
            all.extend(row);
        }
    }
    all
}

/// Frames of a camera on a tripod: one picture with much detail, and new noise in each frame.
pub struct Camera {
    layout: Layout,
    scene: Vec<u8>,
    noise: Random,
    account: Account,
}

impl Camera {
    pub fn new(format: Format, (width, height): (u32, u32), scene: u64) -> Camera {
        let layout = Layout::linear(format, width, height, 1).unwrap();
        let mut random = Random(scene);
        let bytes = Picture::of(&layout).unwrap().bytes();
        let scene = (0..bytes).map(|i| 60 + (i / 64) as u8 % 32 + random.below(64) as u8).collect();
        Camera { layout, scene, noise: Random(!random.0), account: Ledger::default().account("test", Reason::Generate) }
    }

    /// Looks at something else.
    pub fn turn(&mut self, scene: u64) {
        let mut random = Random(scene);
        self.scene.iter_mut().for_each(|sample| *sample = 60 + random.below(64) as u8);
    }

    /// The next frame's rows, without padding.
    pub fn shot(&mut self) -> Vec<u8> {
        let words = self.scene.len().div_ceil(16);
        let noise: Vec<u64> = (0..words).map(|_| self.noise.next() & 0x3333_3333_3333_3333).collect();
        let of = |i: usize| (noise[i / 16] >> (4 * (i % 16))) as u8 & 3;
        self.scene.iter().enumerate().map(|(i, sample)| sample + of(i)).collect()
    }

    /// A buffer that holds these rows.
    pub fn buffer(&self, rows: &[u8]) -> Shrbuf {
        let mut buffer = Memfd::new("camera").allocate(&self.layout).unwrap();
        self.fill(&mut buffer, rows);
        buffer
    }

    pub fn fill(&self, buffer: &mut Shrbuf, mut rows: &[u8]) {
        let mut guard = buffer.write().unwrap();
        for p in 0..self.layout.planes().len() {
            for y in 0..self.layout.rows(p) as usize {
                let (row, rest) = rows.split_at(self.layout.row_bytes(p) as usize);
                guard.plane(p).write(y, 0, row, &self.account);
                rows = rest;
            }
        }
    }
}
