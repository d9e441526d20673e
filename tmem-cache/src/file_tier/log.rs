//! The log files, written and found again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::budget::{self, KeptBudget};
use super::file::{Body, LogFile, Record};
use super::record::{HEADER, Header, Label};
use super::scan::{Found, Scan};
use crate::store::chunk::hash;
use crate::store::options::FileOptions;
use crate::sync::{Mutex, lock};

/// A file that has reached this gets no more records.
const FILE_BYTES: u64 = 64 << 20;

/// Why the file tier does not open, or takes no chunk.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A call failed: ENOSPC, EIO. What was written of the record has been cut off.
    #[error("{call} {path}: {source}")]
    Os {
        /// What was tried.
        call: &'static str,
        /// Of which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another store has the directory.
    #[error("{path} is in use by another store; give each store a directory of its own")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The files' limit, with the space of dead records given back.
    #[error("{held} of {limit} bytes of files are taken; raise the limit or flush")]
    Limit {
        /// Bytes taken.
        held: u64,
        /// Most bytes.
        limit: u64,
    },
    /// The day's bytes are written.
    #[error("the write budget of {per_day} bytes a day is used up for now")]
    Budget {
        /// Bytes a day.
        per_day: u64,
    },
}

pub(super) fn os(call: &'static str, path: &Path) -> impl Fn(io::Error) -> FileError {
    move |source| FileError::Os { call, path: path.to_owned(), source }
}

/// The file that gets the next record, and the lock of whoever writes one.
type Open = Mutex<Option<Arc<LogFile>>>;

/// Lock order: an open file, then the list.
#[derive(Debug)]
pub(crate) struct FileTier {
    options: FileOptions,
    /// Records of durable pools.
    durable: Open,
    /// Records that do not outlive the store. In files of their own, so that no durable put waits for a drain's write.
    spilled: Open,
    files: Mutex<Files>,
    sequence: AtomicU64,
    budget: Mutex<KeptBudget>,
    held: Arc<AtomicU64>,
    /// By pool.
    found: Mutex<HashMap<u64, Vec<Found>>>,
    /// Records that replace others, and are not known to be on the device.
    replacing: Mutex<Vec<Weak<Record>>>,
    /// Locked for as long as this lives.
    _lock: nix::fcntl::Flock<File>,
}

#[derive(Debug, Default)]
pub(super) struct Files {
    pub all: Vec<Weak<LogFile>>,
    next: u64,
}

/// What a pool's name is in a header; 0 for none.
pub(crate) fn tag(name: Option<&str>) -> u64 {
    name.map_or(0, |n| hash(n.as_bytes()).max(1))
}

impl FileTier {
    /// Opens the directory and finds what is there. **Blocks**: reads every file once.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) fn open(options: &FileOptions) -> Result<FileTier, FileError> {
        let dir = &options.directory;
        fs::create_dir_all(dir).map_err(os("create", dir))?;
        let path = dir.join("lock");
        let lock_file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock_file = lock_file.map_err(os("open", &path))?;
        let flock = nix::fcntl::Flock::lock(lock_file, nix::fcntl::FlockArg::LockExclusiveNonblock);
        let _lock = flock.map_err(|_| FileError::InUse { path: dir.clone() })?;
        let held = Arc::new(AtomicU64::new(0));
        let mut scan = Scan::default();
        for entry in fs::read_dir(dir).map_err(os("list", dir))? {
            let path = entry.map_err(os("list", dir))?.path();
            let number: Option<Option<u64>> =
                path.extension().is_some_and(|e| e == "log").then(|| path.file_stem()?.to_str()?.parse().ok());
            let Some(number) = number.flatten() else { continue };
            scan.files.next = scan.files.next.max(number + 1);
            let file = OpenOptions::new().read(true).write(true).open(&path).map_err(os("open", &path))?;
            scan.read(file, path, &held)?;
        }
        let found = scan.resolve();
        let budget = KeptBudget::open(dir, options.writes_per_day).map_err(os("open", &dir.join("budget")))?;
        let tier = FileTier {
            options: options.clone(),
            durable: Mutex::default(),
            spilled: Mutex::default(),
            files: Mutex::new(scan.files),
            sequence: AtomicU64::new(scan.sequence),
            budget: Mutex::new(budget),
            held,
            found: Mutex::new(found),
            replacing: Mutex::new(scan.replacing),
            _lock,
        };
        tier.tidy();
        Ok(tier)
    }

    /// What was found of the pool of that name, once.
    pub(crate) fn found(&self, name: &str) -> Vec<Found> {
        lock(&self.found).remove(&tag(Some(name))).unwrap_or_default()
    }

    /// Bytes that all files take, holes left out.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Appends a record; `name` is that of a durable pool. **Blocks** on write(2), not on the device.
    ///
    /// # Errors
    /// [`FileError`]; nothing is left of the record then.
    pub(crate) fn append(&self, name: Option<&str>, label: &Label, stored: &[u8]) -> Result<Arc<Record>, FileError> {
        self.append_body(name, label, Body::Stored(stored))
    }

    /// Appends a record for one more chunk of the durable pool of that name that has the bytes of a record of it. **Blocks**
    /// as [`FileTier::append`].
    ///
    /// # Errors
    /// As [`FileTier::append`].
    pub(crate) fn repeat(&self, name: &str, label: &Label, of: &Arc<Record>) -> Result<Arc<Record>, FileError> {
        self.append_body(Some(name), label, Body::Repeat(of))
    }

    fn append_body(&self, name: Option<&str>, label: &Label, body: Body<'_>) -> Result<Arc<Record>, FileError> {
        let bytes = (HEADER + body.len()) as u64;
        if !self.take(bytes) {
            self.tidy();
            if !self.take(bytes) {
                return Err(FileError::Limit { held: self.held(), limit: self.options.limit });
            }
        }
        let record = self.write(name, label, body);
        if record.is_err() {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
        }
        record
    }

    /// Counts bytes as held, as far as the limit allows.
    fn take(&self, bytes: u64) -> bool {
        let more = |held: u64| Some(held + bytes).filter(|held| *held <= self.options.limit);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn write(&self, name: Option<&str>, label: &Label, body: Body<'_>) -> Result<Arc<Record>, FileError> {
        if !lock(&self.budget).take((HEADER + body.len()) as u64, budget::now()) {
            return Err(FileError::Budget { per_day: self.options.writes_per_day });
        }
        let mut open = lock(if name.is_some() { &self.durable } else { &self.spilled });
        let file = match &*open {
            Some(file) => file.clone(),
            None => open.insert(self.create(name.is_some())?).clone(),
        };
        let header = Header {
            label: *label,
            pool: tag(name),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            follow: body.len() as u32,
            repeats: body.repeated().is_some(),
            flushed: false,
        };
        let record = file.append(&header, body).map_err(|(e, cut)| {
            // What follows a record that is not whole would not be found, so the file ends there or gets no more.
            if !cut {
                *open = None;
            }
            os("write", &file.path)(e)
        })?;
        if file.end() >= FILE_BYTES {
            *open = None;
        }
        Ok(Arc::new(record))
    }

    /// A new file.
    fn create(&self, durable: bool) -> Result<Arc<LogFile>, FileError> {
        let dir = &self.options.directory;
        // Never the same again: a file that was made and is not used stays in the way, if it cannot be removed.
        let number = {
            let mut files = lock(&self.files);
            files.next += 1;
            files.next - 1
        };
        let path = dir.join(format!("{number:08}.log"));
        let file =
            OpenOptions::new().create_new(true).read(true).write(true).open(&path).map_err(os("create", &path))?;
        // Dropped, it removes the file.
        let file = Arc::new(LogFile::new(file, path, 0, durable, &self.held));
        // So that the file's name is there after a power failure.
        File::open(dir).and_then(|d| d.sync_all()).map_err(os("fsync", dir))?;
        lock(&self.files).all.push(Arc::downgrade(&file));
        Ok(file)
    }

    /// The files there are.
    fn files(&self) -> Vec<Arc<LogFile>> {
        let mut files = lock(&self.files);
        files.all.retain(|f| f.strong_count() > 0);
        files.all.iter().filter_map(Weak::upgrade).collect()
    }

    /// The chunk of `new` has replaced that of `old`, which is marked only once `new` is on the device.
    pub(crate) fn replaced(&self, new: &Arc<Record>, old: Arc<Record>) {
        new.replace(old);
        lock(&self.replacing).push(Arc::downgrade(new));
    }

    /// Marks what could not be marked before, and gives the space of dead records back, those that were replaced among
    /// them. **Blocks** on the file system, and on the device where records were replaced.
    pub(crate) fn tidy(&self) {
        let replacing = !lock(&self.replacing).is_empty();
        if replacing && let Err(e) = self.sync() {
            tracing::warn!("replaced records keep their space for now: {e}");
        }
        for file in self.files() {
            if let Err(e) = file.mark().and_then(|()| file.punch()) {
                tracing::warn!("{}: its dead records keep their space for now: {e}", file.path.display());
            }
        }
    }

    /// Returns once everything appended and marked before is on the device. **Blocks.**
    ///
    /// # Errors
    /// [`FileError::Os`]; what was not synced before is then not certain.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        let replacing = std::mem::take(&mut *lock(&self.replacing));
        if let Err(e) = self.sync_files() {
            lock(&self.replacing).extend(replacing);
            return Err(e);
        }
        // Not one of them before all are there: a mark may reach the device before what it was made for. And not without
        // the marks, or a later flush of the new one could reach it before them.
        let replaced = replacing.iter().filter_map(Weak::upgrade).filter(|new| new.settle()).count();
        if replaced > 0 { self.sync_files() } else { Ok(()) }
    }

    fn sync_files(&self) -> Result<(), FileError> {
        for file in self.files() {
            file.mark().map_err(os("write", &file.path))?;
            file.sync().map_err(os("fdatasync", &file.path))?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::store::chunk::Coding;

    #[test]
    fn durable_record_waits_for_no_write_of_another() {
        let directory = std::env::temp_dir().join(format!("tmem-log-{}", std::process::id()));
        let options = FileOptions { directory: directory.clone(), limit: 1 << 20, writes_per_day: 1 << 20 };
        let tier = FileTier::open(&options).unwrap();
        let (handle, stamp) = Default::default();
        let label = Label { handle, stamp, coding: Coding::Raw, original: 3, hash: hash(b"abc") };
        let spilled = tier.append(None, &label, b"abc").unwrap();

        // As a drain has it while it writes.
        let writing = lock(&tier.spilled);
        let durable = tier.append(Some("pool"), &label, b"abc").unwrap();
        tier.tidy();
        tier.sync().unwrap();
        drop(writing);

        assert_eq!((spilled.read().unwrap(), durable.read().unwrap()), (b"abc".to_vec(), b"abc".to_vec()));
        drop((spilled, durable, tier));
        fs::remove_dir_all(directory).unwrap();
    }
}
