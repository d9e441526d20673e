//! One log file and the records in it.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use nix::fcntl::{FallocateFlags, fallocate};

use super::record::{HEADER, Header, MARK};
use crate::sync::{Mutex, lock};

/// One file, removed with the last record that anybody has of it, unless durable ones are in it that were not flushed.
#[derive(Debug)]
pub(super) struct LogFile {
    pub file: File,
    pub path: PathBuf,
    /// Where the next record goes.
    end: AtomicU64,
    /// What a later opening needs of it: headers of durable records that were not flushed, and bytes for repeats elsewhere,
    /// each as often as it is repeated.
    needed: AtomicU32,
    dirty: AtomicBool,
    /// Headers of flushed records that could not be marked so far.
    unmarked: Mutex<Vec<u64>>,
    /// True where records follow one another through headers that a later opening reads.
    chained: bool,
    /// What nobody will read again, and still takes space.
    dead: Mutex<Vec<Range<u64>>>,
    /// Bytes of a block of the file system.
    block: u64,
    /// Bytes it takes: up to its end, without holes.
    takes: AtomicU64,
    /// The same of all files.
    held: Arc<AtomicU64>,
}

impl LogFile {
    /// A file whose first `end` bytes are records. `chained` where a later opening is to find them.
    pub(super) fn new(file: File, path: PathBuf, end: u64, chained: bool, held: &Arc<AtomicU64>) -> LogFile {
        held.fetch_add(end, Ordering::Relaxed);
        let block = file.metadata().map_or(4096, |m| m.blksize()).max(1);
        LogFile {
            file,
            path,
            end: AtomicU64::new(end),
            needed: AtomicU32::new(0),
            // Whoever wrote what is there may have been killed before a sync.
            dirty: AtomicBool::new(end > 0),
            unmarked: Mutex::default(),
            chained,
            dead: Mutex::default(),
            block,
            takes: AtomicU64::new(end),
            held: held.clone(),
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Writes a record to the end. One caller at a time, who has counted its bytes as held.
    ///
    /// # Errors
    /// That of write(2), and whether the file could be cut off where it ended before.
    pub(super) fn append(self: &Arc<LogFile>, header: &Header, body: Body<'_>) -> Result<Record, (io::Error, bool)> {
        let at = self.end();
        let encoded = header.encode();
        let written = match body {
            Body::Stored(stored) => {
                let written = self.file.write_all_at(&encoded, at);
                written.and_then(|()| self.file.write_all_at(stored, at + HEADER as u64))
            }
            Body::Repeat(of) => {
                let mut all = [0; HEADER + SEQUENCE];
                all[..HEADER].copy_from_slice(&encoded);
                all[HEADER..].copy_from_slice(&of.sequence.to_le_bytes());
                self.file.write_all_at(&all, at)
            }
        };
        if let Err(e) = written {
            return Err((e, self.file.set_len(at).is_ok()));
        }
        let bytes = (HEADER + body.len()) as u64;
        self.end.fetch_add(bytes, Ordering::Relaxed);
        self.takes.fetch_add(bytes, Ordering::Relaxed);
        self.dirty.fetch_or(header.pool != 0, Ordering::Relaxed);
        Ok(self.record(at, header, body.repeated()))
    }

    /// The record at `at`, which counts as a durable one if it is one that was not flushed. `of` is the record that has
    /// the bytes where it is a repeat.
    pub(super) fn record(self: &Arc<LogFile>, at: u64, header: &Header, of: Option<&Arc<Record>>) -> Record {
        let durable = header.pool != 0 && !header.flushed;
        let record = Record {
            file: self.clone(),
            at,
            follow: header.follow,
            sequence: header.sequence,
            of: of.cloned(),
            durable: AtomicBool::new(durable),
            chunks: AtomicU32::new(0),
            replaces: Mutex::default(),
        };
        if durable {
            [Some(&record), of.map(Arc::as_ref)].into_iter().flatten().for_each(Record::claim);
        }
        record
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

    /// Gives the whole blocks of what is dead back to the file system. Where that knows no holes, nothing happens.
    ///
    /// # Errors
    /// That of fallocate(2); the rest stays to be given back.
    pub(super) fn punch(&self) -> io::Result<()> {
        let mut dead = std::mem::take(&mut *lock(&self.dead));
        dead.sort_unstable_by_key(|range| std::cmp::Reverse(range.start));
        while let Some(mut range) = dead.pop() {
            // Neighbours that died together share the block between them.
            while let Some(next) = dead.pop_if(|next| next.start == range.end) {
                range.end = next.end;
            }
            let whole = range.start.next_multiple_of(self.block)..range.end / self.block * self.block;
            if whole.is_empty() {
                continue;
            }
            let (from, len) = (whole.start as i64, (whole.end - whole.start) as i64);
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            match fallocate(&self.file, flags, from, len) {
                Ok(()) => {
                    self.takes.fetch_sub(len as u64, Ordering::Relaxed);
                    self.held.fetch_sub(len as u64, Ordering::Relaxed);
                }
                Err(nix::Error::EOPNOTSUPP) => {}
                Err(e) => {
                    dead.push(range);
                    lock(&self.dead).append(&mut dead);
                    return Err(e.into());
                }
            }
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
        self.held.fetch_sub(self.takes.load(Ordering::Relaxed), Ordering::Relaxed);
        let ended = if self.needed.load(Ordering::Relaxed) == 0 {
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

/// Bytes of a sequence.
pub(super) const SEQUENCE: usize = 8;

/// What follows a header.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body<'a> {
    Stored(&'a [u8]),
    /// The stored bytes are this record's.
    Repeat(&'a Arc<Record>),
}

impl<'a> Body<'a> {
    pub(super) fn len(self) -> usize {
        match self {
            Body::Stored(stored) => stored.len(),
            Body::Repeat(_) => SEQUENCE,
        }
    }

    pub(super) fn repeated(self) -> Option<&'a Arc<Record>> {
        match self {
            Body::Stored(_) => None,
            Body::Repeat(of) => Some(of),
        }
    }
}

/// A chunk's place in a file, which is dead when nobody has it any more, unless a durable chunk has these bytes.
#[derive(Debug)]
pub(crate) struct Record {
    file: Arc<LogFile>,
    at: u64,
    follow: u32,
    sequence: u64,
    /// The one that has the bytes, if that is not this one.
    of: Option<Arc<Record>>,
    /// Not flushed, of a durable pool.
    durable: AtomicBool,
    /// Durable records that need this one: itself and its repeats.
    chunks: AtomicU32,
    /// The records that this one replaces, until this one is on the device: who loses power before has one of them again.
    replaces: Mutex<Vec<Arc<Record>>>,
}

impl Record {
    /// Bytes stored. Not of a repeat.
    pub(crate) fn len(&self) -> usize {
        self.follow as usize
    }

    fn claim(&self) {
        self.chunks.fetch_add(1, Ordering::Relaxed);
        self.file.needed.fetch_add(1, Ordering::Relaxed);
    }

    fn release(&self) {
        self.chunks.fetch_sub(1, Ordering::Relaxed);
        self.file.needed.fetch_sub(1, Ordering::Relaxed);
    }

    /// The stored bytes, unchecked. Not of a repeat. **Blocks.**
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

    /// The chunk has replaced that of `old`, which stays as it is until [`Record::settle`].
    pub(super) fn replace(&self, old: Arc<Record>) {
        // Those too that it replaced: a list, or the last of many would go by a call for each.
        let mut all = std::mem::take(&mut *lock(&old.replaces));
        all.push(old);
        lock(&self.replaces).append(&mut all);
    }

    /// The record is on the device, so that those it replaces can go; true where there were some.
    pub(super) fn settle(&self) -> bool {
        let old = std::mem::take(&mut *lock(&self.replaces));
        old.iter().for_each(|old| old.kill());
        !old.is_empty()
    }

    /// The chunk has been flushed: neither it nor one that it replaces will be found again. Its bytes will, if another
    /// repeats them.
    pub(crate) fn kill(&self) {
        self.settle();
        if !self.durable.swap(false, Ordering::Relaxed) {
            return;
        }
        [Some(self), self.of.as_deref()].into_iter().flatten().for_each(Record::release);
        lock(&self.file.unmarked).push(self.at);
        if let Err(e) = self.file.mark() {
            tracing::warn!("{}: a flushed chunk is to be marked later: {e}", self.file.path.display());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if *self.chunks.get_mut() == 0 {
            // Of a chained one the header stays, which says where the next is.
            let kept = if self.file.chained { HEADER as u64 } else { 0 };
            let end = self.at + HEADER as u64 + u64::from(self.follow);
            lock(&self.file.dead).push(self.at + kept..end);
        }
    }
}
