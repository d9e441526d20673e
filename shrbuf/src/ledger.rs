//! The copy ledger: every byte that a CPU moves is counted, by place and reason.
//!
//! The guards of [`crate::access`] move bytes only against an [`Account`], so there is no way to touch pixels that
//! does not show in the ledger.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Why a CPU moved bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A CPU made the picture: it was written once, here.
    Generate,
    /// A CPU read a file into a frame, or a frame into a file: the frame's first or last station.
    File,
    /// A CPU compressed a frame into a store, or brought it out again, as somebody asked.
    Store,
    /// A CPU looked at the picture (a screenshot, a checksum).
    Inspect,
    /// A CPU wrote the same picture in another format.
    Convert,
    /// A CPU moved the same bytes to memory that the next device can reach.
    Transfer,
}

impl Reason {
    /// True where the picture existed already and now exists twice: what zero-copy means to avoid.
    pub fn is_copy(self) -> bool {
        matches!(self, Reason::Convert | Reason::Transfer)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Reason::Generate => "generate",
            Reason::File => "file",
            Reason::Store => "store",
            Reason::Inspect => "inspect",
            Reason::Convert => "convert",
            Reason::Transfer => "transfer",
        })
    }
}

#[derive(Debug)]
struct Line {
    place: String,
    reason: Reason,
    bytes: AtomicU64,
}

/// A line of the ledger, to which one place adds. Adding is one relaxed atomic.
#[derive(Debug, Clone)]
pub struct Account(Arc<Line>);

impl Account {
    pub(crate) fn add(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

/// One line, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who moved them: an element's name.
    pub place: String,
    /// Why.
    pub reason: Reason,
    /// How many.
    pub bytes: u64,
}

/// All lines. Clones are the same ledger.
///
/// ```
/// use shrbuf::{Ledger, Reason};
/// let ledger = Ledger::default();
/// let account = ledger.account("convert", Reason::Convert);
/// assert_eq!(ledger.copied(), 0);
/// # let _ = account;
/// ```
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Account>>>);

impl Ledger {
    /// The account of `place` for `reason`, opened on first use. Allocates: open it once, not for each frame.
    pub fn account(&self, place: &str, reason: Reason) -> Account {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lines.iter().find(|a| a.0.place == place && a.0.reason == reason) {
            return known.clone();
        }
        let new = Account(Arc::new(Line { place: place.to_owned(), reason, bytes: AtomicU64::new(0) }));
        lines.push(new.clone());
        new
    }

    /// Every line.
    pub fn entries(&self) -> Vec<Entry> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|a| Entry { place: a.0.place.clone(), reason: a.0.reason, bytes: a.bytes() }).collect()
    }

    /// Bytes that now exist twice: the sum over reasons that are copies.
    pub fn copied(&self) -> u64 {
        self.entries().iter().filter(|e| e.reason.is_copy()).map(|e| e.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_and_reason_is_one_account() {
        let ledger = Ledger::default();
        ledger.account("sink", Reason::Convert).add(3);
        ledger.clone().account("sink", Reason::Convert).add(4);
        assert_eq!(ledger.entries(), [Entry { place: "sink".to_owned(), reason: Reason::Convert, bytes: 7 }]);
    }

    #[test]
    fn only_conversions_and_transfers_are_copies() {
        let ledger = Ledger::default();
        let reasons = [Reason::Generate, Reason::File, Reason::Inspect, Reason::Convert, Reason::Transfer];
        for (bytes, reason) in [1, 10, 100, 1000, 10_000].into_iter().zip(reasons) {
            ledger.account("x", reason).add(bytes);
        }
        assert_eq!(ledger.copied(), 11_000);
    }
}
