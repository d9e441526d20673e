//! How much may be written, for the life of flash: a bucket that fills over a day, and goes on over restarts.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: f64 = 24.0 * 3600.0;

/// Bytes that may be written now. A quarter of a day's come at once, the rest as the day goes by.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Budget {
    per_day: f64,
    left: f64,
    at: Duration,
}

impl Budget {
    pub(super) fn new(per_day: u64) -> Budget {
        Budget { per_day: per_day as f64, left: per_day as f64 / 4.0, at: Duration::ZERO }
    }

    /// Takes `bytes` at `now`, which never goes back; false where they are not left.
    pub(super) fn take(&mut self, bytes: u64, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + self.per_day * passed / DAY).min(self.per_day / 4.0);
        let enough = self.left >= bytes as f64;
        if enough {
            self.left -= bytes as f64;
        }
        enough
    }
}

/// The budget of a directory. A file there says how much is left, and when that was so: never more than there is, since
/// it is written a 64th of a day's bytes ahead. So whoever kills the process gains nothing by it, and loses that much.
#[derive(Debug)]
pub(super) struct KeptBudget {
    budget: Budget,
    file: File,
    /// What the file says.
    said: f64,
}

impl KeptBudget {
    /// That of the directory, or a new one. Times are those of the system's clock.
    pub(super) fn open(directory: &Path, per_day: u64) -> io::Result<KeptBudget> {
        let path = directory.join("budget");
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        let mut text = String::new();
        // What cannot be read says that nothing is left.
        let read = file.read_to_string(&mut text).is_ok();
        let mut budget = Budget::new(per_day);
        if !read || !text.is_empty() {
            let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().ok());
            let both = numbers.next().flatten().zip(numbers.next().flatten());
            let (left, at) = both.unwrap_or((0, now().as_secs()));
            (budget.left, budget.at) = ((left as f64).min(budget.left), Duration::from_secs(at).min(now()));
        }
        let mut kept = KeptBudget { budget, file, said: f64::INFINITY };
        kept.take(0, now());
        Ok(kept)
    }

    /// Takes `bytes`; false where they are not left.
    pub(super) fn take(&mut self, bytes: u64, now: Duration) -> bool {
        let taken = self.budget.take(bytes, now);
        if self.budget.left < self.said {
            self.say(self.budget.left - self.budget.per_day / 64.0);
        }
        taken
    }

    fn say(&mut self, left: f64) {
        let left = left.max(0.0);
        let text = format!("{:<20} {:<20}\n", left as u64, self.budget.at.as_secs());
        // Where it cannot be written the next take tries again.
        if self.file.write_all_at(text.as_bytes(), 0).is_ok() {
            self.said = left;
        }
    }
}

impl Drop for KeptBudget {
    fn drop(&mut self) {
        self.say(self.budget.left);
    }
}

/// The system's clock.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarter_of_a_day_comes_at_once_and_a_day_brings_no_more_than_its_own() {
        let mut budget = Budget::new(4000);
        assert!(budget.take(1000, Duration::ZERO));
        assert!(!budget.take(1, Duration::ZERO));
        let hours = (1..=24).filter(|h| budget.take(160, Duration::from_secs(h * 3600))).count();
        assert_eq!(hours, 24);
        assert!(!budget.take(1000, Duration::from_secs(24 * 3600)));
    }

    #[test]
    fn restart_brings_no_more_than_the_time_between() {
        let directory = std::env::temp_dir().join(format!("tmem-budget-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let open = || KeptBudget::open(&directory, 6400).unwrap();
        let mut first = open();
        let start = first.budget.at;
        assert!(first.take(1000, start));
        // As after kill -9: what the file says is at most what is left, and at least a 64th of a day's less.
        std::mem::forget(first);
        let mut second = open();
        let left = second.budget.left;
        assert!((500.0..=601.0).contains(&left) && !second.take(700, start), "{left}");
        drop(second);
        let mut third = open();
        assert!((left - 1.0..=left + 1.0).contains(&third.budget.left), "{third:?}");
        // An hour brings its share.
        assert!(!third.take(760, start) && third.take(760, start + Duration::from_secs(3600)));
        drop(third);
        std::fs::write(directory.join("budget"), "nonsense").unwrap();
        assert!(!open().take(100, now()));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
