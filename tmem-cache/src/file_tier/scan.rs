//! What a directory holds when it is opened: every header is read, then the bytes that somebody may want.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

use super::file::{LogFile, Record, SEQUENCE};
use super::log::{FileError, Files, os};
use super::record::{HEADER, Header, Label};
use crate::store::chunk::hash_both;
use crate::store::{Handle, Stamp};

/// Whole stored bytes, and the durable chunks that have them.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where the bytes are.
    pub bytes: Arc<Record>,
    /// What that record says of them; the chunk it was written for may have been flushed.
    pub label: Label,
    /// Both halves of their hash.
    pub hash: [u64; 2],
    /// Each with a record of its own.
    pub chunks: Vec<(Handle, Stamp, Arc<Record>)>,
}

/// Headers, and what they belong to.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub files: Files,
    pub sequence: u64,
    /// Records of durable pools that have bytes, flushed or not, by sequence: mostly as they lie.
    bodies: BTreeMap<u64, (Header, Arc<Record>)>,
    /// Repeats that were not flushed, by whom they repeat.
    repeats: HashMap<u64, Vec<Repeat>>,
    /// Records that replace others; who was killed may not have synced them.
    pub replacing: Vec<Weak<Record>>,
}

/// The last record of a handle, and which of the bytes that were found it has.
#[derive(Debug)]
struct Latest {
    sequence: u64,
    stamp: Stamp,
    record: Arc<Record>,
    found: usize,
}

#[derive(Debug)]
struct Repeat {
    header: Header,
    file: Arc<LogFile>,
    at: u64,
}

impl Repeat {
    /// True where these are the bytes that it was made for.
    fn is_of(&self, body: &Header) -> bool {
        let of = |header: &Header| {
            let Label { coding, original, hash, .. } = header.label;
            (header.pool, coding, original, hash)
        };
        of(&self.header) == of(body)
    }

    fn record(&self, of: Option<&Arc<Record>>) -> Record {
        self.file.record(self.at, &self.header, of)
    }
}

impl Scan {
    /// Reads a file's headers up to the first record that is not whole.
    pub(super) fn read(&mut self, file: File, path: PathBuf, held: &Arc<AtomicU64>) -> Result<(), FileError> {
        let len = file.metadata().map_err(os("stat", &path))?.len();
        let log_file = Arc::new(LogFile::new(file, path, len, true, held));
        self.files.all.push(Arc::downgrade(&log_file));
        let mut at = 0;
        while at + (HEADER as u64) <= len {
            let mut bytes = [0; HEADER];
            let read = log_file.file.read_exact_at(&mut bytes, at);
            let Some(header) = read.ok().and_then(|()| Header::decode(&bytes)) else { break };
            let follows = at + HEADER as u64;
            let next = follows + u64::from(header.follow);
            if next > len {
                break;
            }
            self.sequence = self.sequence.max(header.sequence);
            if !header.repeats {
                let record = Arc::new(log_file.record(at, &header, None));
                if header.pool != 0 {
                    self.bodies.insert(header.sequence, (header, record));
                }
            } else if !header.flushed {
                let mut of = [0; SEQUENCE];
                let of = log_file.file.read_exact_at(&mut of, follows).map_or(0, |()| u64::from_le_bytes(of));
                self.repeats.entry(of).or_default().push(Repeat { header, file: log_file.clone(), at });
            }
            at = next;
        }
        Ok(())
    }

    /// Reads the bytes of all that was not flushed, checks them, and marks what is void; of each handle the last record, by
    /// pool.
    pub(super) fn resolve(&mut self) -> HashMap<u64, Vec<Found>> {
        let mut all: Vec<(u64, Found)> = Vec::new();
        let mut latest: HashMap<(u64, Handle), Latest> = HashMap::new();
        for (sequence, (header, bytes)) in std::mem::take(&mut self.bodies) {
            let (repeats, void): (Vec<_>, Vec<_>) =
                self.repeats.remove(&sequence).unwrap_or_default().into_iter().partition(|r| r.is_of(&header));
            void.iter().for_each(|repeat| repeat.record(None).kill());
            let own = (!header.flushed).then(|| (header, bytes.clone()));
            let others = repeats.iter().map(|repeat| (repeat.header, Arc::new(repeat.record(Some(&bytes)))));
            let wanted: Vec<_> = own.into_iter().chain(others).collect();
            if wanted.is_empty() {
                continue;
            }
            let hash = bytes.read().ok().map(|stored| hash_both(&stored)).filter(|hash| hash[0] == header.label.hash);
            let Some(hash) = hash else {
                wanted.iter().for_each(|(_, record)| record.kill());
                continue;
            };
            for (header, record) in wanted {
                let new = Latest { sequence: header.sequence, stamp: header.label.stamp, record, found: all.len() };
                match latest.entry((header.pool, header.label.handle)) {
                    Entry::Vacant(entry) => drop(entry.insert(new)),
                    Entry::Occupied(mut entry) => {
                        let of = entry.get_mut();
                        let older = if of.sequence > new.sequence { new } else { std::mem::replace(of, new) };
                        of.record.replace(older.record);
                        self.replacing.push(Arc::downgrade(&of.record));
                    }
                }
            }
            all.push((header.pool, Found { bytes, label: header.label, hash, chunks: Vec::new() }));
        }
        let void = std::mem::take(&mut self.repeats);
        void.into_values().flatten().for_each(|repeat| repeat.record(None).kill());
        for ((_, handle), Latest { stamp, record, found, .. }) in latest {
            all[found].1.chunks.push((handle, stamp, record));
        }
        let mut found: HashMap<u64, Vec<Found>> = HashMap::new();
        for (pool, one) in all.into_iter().filter(|(_, one)| !one.chunks.is_empty()) {
            found.entry(pool).or_default().push(one);
        }
        found
    }
}
