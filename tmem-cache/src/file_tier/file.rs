//! One log file and the records in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::record::{HEADER, MARK};
use crate::sync::{Mutex, lock};

/// One file, removed with the last record that anybody has of it, unless durable ones are in it that were not flushed.
#[derive(Debug)]
pub(super) struct LogFile {
    pub file: File,
    pub path: PathBuf,
    /// Where the next record goes.
    end: AtomicU64,
    /// Durable records that were not flushed.
    durable: AtomicU32,
    dirty: AtomicBool,
    /// Headers of flushed records that could not be marked so far.
    unmarked: Mutex<Vec<u64>>,
    /// Bytes of all files.
    held: Arc<AtomicU64>,
}

impl LogFile {
    /// A file whose first `end` bytes count as records.
    pub(super) fn new(file: File, path: PathBuf, end: u64, held: &Arc<AtomicU64>) -> LogFile {
        held.fetch_add(end, Ordering::Relaxed);
        LogFile {
            file,
            path,
            end: AtomicU64::new(end),
            durable: AtomicU32::new(0),
            dirty: AtomicBool::new(false),
            unmarked: Mutex::default(),
            held: held.clone(),
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Writes a record to the end. One caller at a time, who counts its bytes as held.
    ///
    /// # Errors
    /// That of write(2), and whether the file could be cut off where it ended before.
    pub(super) fn append(
        self: &Arc<LogFile>,
        header: &[u8; HEADER],
        stored: &[u8],
        durable: bool,
    ) -> Result<Record, (io::Error, bool)> {
        let at = self.end();
        let written = self.file.write_all_at(header, at);
        if let Err(e) = written.and_then(|()| self.file.write_all_at(stored, at + HEADER as u64)) {
            return Err((e, self.file.set_len(at).is_ok()));
        }
        self.end.fetch_add((HEADER + stored.len()) as u64, Ordering::Relaxed);
        self.dirty.store(true, Ordering::Relaxed);
        Ok(self.record(at, stored.len() as u32, durable))
    }

    /// The record at `at`; `durable` where it counts as one that was not flushed.
    pub(super) fn record(self: &Arc<LogFile>, at: u64, stored: u32, durable: bool) -> Record {
        self.durable.fetch_add(durable.into(), Ordering::Relaxed);
        Record { file: self.clone(), at, stored, durable: AtomicBool::new(durable) }
    }

    /// Marks the headers of flushed records.
    ///
    /// # Errors
    /// That of write(2); the rest stays to be marked.
    pub(super) fn mark(&self) -> io::Result<()> {
        let mut unmarked = lock(&self.unmarked);
        while let Some(at) = unmarked.last() {
            self.file.write_all_at(&[1], at + MARK)?;
            self.dirty.store(true, Ordering::Relaxed);
            unmarked.pop();
        }
        Ok(())
    }

    /// Returns once what was written and marked before is on the device. **Blocks.**
    ///
    /// # Errors
    /// That of fdatasync(2).
    pub(super) fn sync(&self) -> io::Result<()> {
        if !self.dirty.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let synced = self.file.sync_data();
        if synced.is_err() {
            self.dirty.store(true, Ordering::Relaxed);
        }
        synced
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.held.fetch_sub(self.end(), Ordering::Relaxed);
        let ended = if self.durable.load(Ordering::Relaxed) == 0 {
            // If it stays, the next opening finds nothing live in it and tries again.
            fs::remove_file(&self.path)
        } else {
            self.mark()
        };
        if let Err(e) = ended {
            tracing::warn!("{}: flushed chunks may come back after a restart: {e}", self.path.display());
        }
    }
}

/// A chunk's place in a file.
#[derive(Debug)]
pub(crate) struct Record {
    file: Arc<LogFile>,
    at: u64,
    stored: u32,
    durable: AtomicBool,
}

impl Record {
    pub(crate) fn len(&self) -> usize {
        self.stored as usize
    }

    /// True until it is flushed, of a durable pool.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Relaxed)
    }

    /// The stored bytes, unchecked. **Blocks.**
    ///
    /// # Errors
    /// That of read(2); a file cut short is `UnexpectedEof`.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(self.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(self.len(), 0);
        self.file.file.read_exact_at(&mut bytes, self.at + HEADER as u64)?;
        Ok(bytes)
    }

    /// The chunk has been flushed: it will not be found again.
    pub(crate) fn kill(&self) {
        if !self.durable.swap(false, Ordering::Relaxed) {
            return;
        }
        self.file.durable.fetch_sub(1, Ordering::Relaxed);
        lock(&self.file.unmarked).push(self.at);
        if let Err(e) = self.file.mark() {
            tracing::warn!("{}: a flushed chunk is to be marked later: {e}", self.file.path.display());
        }
    }
}
