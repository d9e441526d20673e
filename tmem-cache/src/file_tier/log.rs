//! The log files, written and found again.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::budget::Budget;
use super::file::{LogFile, Record};
use super::record::{HEADER, Header, Label};
use crate::store::Handle;
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
    /// The files' limit.
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

fn os(call: &'static str, path: &Path) -> impl Fn(io::Error) -> FileError {
    move |source| FileError::Os { call, path: path.to_owned(), source }
}

/// The chunks of one durable pool, as found.
pub(crate) type Found = Vec<(Label, Arc<Record>)>;

#[derive(Debug)]
pub(crate) struct FileTier {
    options: FileOptions,
    log: Mutex<Log>,
    held: Arc<AtomicU64>,
    started: Instant,
    found: Mutex<HashMap<u64, Found>>,
    /// Locked for as long as this lives.
    _lock: nix::fcntl::Flock<File>,
}

#[derive(Debug)]
struct Log {
    current: Option<Arc<LogFile>>,
    files: Vec<std::sync::Weak<LogFile>>,
    next_file: u64,
    sequence: u64,
    budget: Budget,
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
        let mut log = Log {
            current: None,
            files: Vec::new(),
            next_file: 0,
            sequence: 0,
            budget: Budget::new(options.writes_per_day),
        };
        let mut latest = HashMap::new();
        for entry in fs::read_dir(dir).map_err(os("list", dir))? {
            let path = entry.map_err(os("list", dir))?.path();
            let number: Option<Option<u64>> =
                path.extension().is_some_and(|e| e == "log").then(|| path.file_stem()?.to_str()?.parse().ok());
            let Some(number) = number.flatten() else { continue };
            log.next_file = log.next_file.max(number + 1);
            let file = OpenOptions::new().read(true).write(true).open(&path).map_err(os("open", &path))?;
            log.scan(file, path, &held, &mut latest)?;
        }
        let mut found: HashMap<u64, Found> = HashMap::new();
        for ((pool, _), (_, label, record)) in latest {
            found.entry(pool).or_default().push((label, record));
        }
        let (log, found) = (Mutex::new(log), Mutex::new(found));
        Ok(FileTier { options: options.clone(), log, held, started: Instant::now(), found, _lock })
    }

    /// What was found of the pool of that name, once.
    pub(crate) fn found(&self, name: &str) -> Found {
        lock(&self.found).remove(&tag(Some(name))).unwrap_or_default()
    }

    /// Bytes of all files.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Appends a record; `name` is that of a durable pool. **Blocks** on write(2), not on the device.
    ///
    /// # Errors
    /// [`FileError`]; nothing is left of the record then.
    pub(crate) fn append(&self, name: Option<&str>, label: &Label, stored: &[u8]) -> Result<Arc<Record>, FileError> {
        let bytes = (HEADER + stored.len()) as u64;
        let mut log = lock(&self.log);
        let held = self.held();
        if held + bytes > self.options.limit {
            return Err(FileError::Limit { held, limit: self.options.limit });
        }
        if !log.budget.take(bytes, self.started.elapsed()) {
            return Err(FileError::Budget { per_day: self.options.writes_per_day });
        }
        log.sequence += 1;
        let header = Header {
            label: *label,
            pool: tag(name),
            sequence: log.sequence,
            stored: stored.len() as u32,
            flushed: false,
        };
        let file = log.file(&self.options.directory, &self.held)?;
        let record = file.append(&header.encode(), stored, name.is_some()).map_err(|(e, cut)| {
            // What follows a record that is not whole would not be found, so the file ends there or gets no more.
            if !cut {
                log.current = None;
            }
            os("write", &file.path)(e)
        })?;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        if file.end() >= FILE_BYTES {
            log.current = None;
        }
        Ok(Arc::new(record))
    }

    /// Returns once everything appended and marked before is on the device. **Blocks.**
    ///
    /// # Errors
    /// [`FileError::Os`]; what was not synced before is then not certain.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        let files: Vec<_> = {
            let mut log = lock(&self.log);
            log.files.retain(|f| f.strong_count() > 0);
            log.files.iter().filter_map(std::sync::Weak::upgrade).collect()
        };
        for file in files {
            file.mark().map_err(os("write", &file.path))?;
            file.sync().map_err(os("fdatasync", &file.path))?;
        }
        Ok(())
    }
}

impl Log {
    /// The file that gets the next record.
    fn file(&mut self, dir: &Path, held: &Arc<AtomicU64>) -> Result<Arc<LogFile>, FileError> {
        if let Some(file) = &self.current {
            return Ok(file.clone());
        }
        let path = dir.join(format!("{:08}.log", self.next_file));
        // Also where it fails: a file that was made and is not used stays in the way of the next, if it cannot be removed.
        self.next_file += 1;
        let file =
            OpenOptions::new().create_new(true).read(true).write(true).open(&path).map_err(os("create", &path))?;
        // Dropped, it removes the file.
        let file = Arc::new(LogFile::new(file, path, 0, held));
        // So that the file's name is there after a power failure.
        File::open(dir).and_then(|d| d.sync_all()).map_err(os("fsync", dir))?;
        self.files.push(Arc::downgrade(&file));
        self.current = Some(file.clone());
        Ok(file)
    }

    /// Reads a file from an earlier life.
    fn scan(
        &mut self,
        file: File,
        path: PathBuf,
        held: &Arc<AtomicU64>,
        latest: &mut HashMap<(u64, Handle), (u64, Label, Arc<Record>)>,
    ) -> Result<(), FileError> {
        let len = file.metadata().map_err(os("stat", &path))?.len();
        let log_file = Arc::new(LogFile::new(file, path, len, held));
        self.files.push(Arc::downgrade(&log_file));
        let mut at = 0;
        while at + (HEADER as u64) <= len {
            let mut bytes = [0; HEADER];
            let read = log_file.file.read_exact_at(&mut bytes, at);
            let Some(header) = read.ok().and_then(|()| Header::decode(&bytes)) else { break };
            let next = at + HEADER as u64 + u64::from(header.stored);
            if next > len {
                break;
            }
            self.sequence = self.sequence.max(header.sequence);
            let live = header.pool != 0 && !header.flushed;
            let record = Arc::new(log_file.record(at, header.stored, live));
            at = next;
            if !live {
                continue;
            }
            let whole = record.read().is_ok_and(|b| hash(&b) == header.label.hash);
            let of = (header.pool, header.label.handle);
            let older = latest.get(&of).is_some_and(|(sequence, ..)| *sequence > header.sequence);
            if !whole || older {
                record.kill();
            } else if let Some((_, _, beaten)) = latest.insert(of, (header.sequence, header.label, record)) {
                beaten.kill();
            }
        }
        Ok(())
    }
}
