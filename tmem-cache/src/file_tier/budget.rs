//! How much may be written, for the life of flash: a bucket that fills over a day.

use std::time::Duration;

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
}
