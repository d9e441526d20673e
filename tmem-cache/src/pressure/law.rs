//! The control law: what the system says of its memory, to the bytes that the store may have.
//!
//! With `some` the share of time that tasks stalled on memory since the last look, and `free` what the system (or the
//! cgroup) could still give:
//! - `some` above [`Law::shrink_above`]: the budget becomes `(1 - cut)` of itself, where `cut` grows linearly from 1/8 at the
//!   threshold to 1/2 at four times it. Multiplicative, so that a few looks give back nearly everything.
//! - `free` below [`Law::reserve`]: the budget falls by what is missing, at once.
//! - both calm for [`Law::calm`] looks in a row: it grows by a 1/32 of the most it may have, but never into the reserve.
//!
//! Between shrinking and growing lies the calm time, so that the store does not flip-flop with the load it causes.

/// What was seen at one look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Share of the time since the last look in which some task stalled on memory, 0 to 1.
    pub some: f64,
    /// Bytes that could be had without reclaim.
    pub free: u64,
}

/// The law and its state. A pure function of the readings.
#[derive(Debug, Clone, PartialEq)]
pub struct Law {
    /// Bytes the store has at least and at most.
    pub range: (u64, u64),
    /// Bytes that are left to others.
    pub reserve: u64,
    /// Share of stalled time above which the budget shrinks.
    pub shrink_above: f64,
    /// Calm looks before it grows again.
    pub calm: u32,
    budget: u64,
    calm_looks: u32,
}

impl Law {
    /// A law that starts at the most. `reserve` bytes are left to others; the budget shrinks when more than 2 % of the time
    /// is stalled, and grows after five calm looks.
    pub fn new(min: u64, max: u64, reserve: u64) -> Law {
        let max = max.max(min);
        Law { range: (min, max), reserve, shrink_above: 0.02, calm: 5, budget: max, calm_looks: 0 }
    }

    /// The same with the budget at so many bytes, as far as the range allows.
    #[must_use]
    pub fn at(self, budget: u64) -> Law {
        Law { budget: budget.clamp(self.range.0, self.range.1), ..self }
    }

    /// The budget after a look.
    pub fn look(&mut self, reading: Reading) -> u64 {
        let (min, max) = self.range;
        let missing = self.reserve.saturating_sub(reading.free);
        if reading.some > self.shrink_above || missing > 0 {
            let stalled = (reading.some / self.shrink_above - 1.0).clamp(0.0, 3.0) / 3.0;
            let cut = if reading.some > self.shrink_above { 0.125 + 0.375 * stalled } else { 0.0 };
            let by_stall = self.budget as f64 * (1.0 - cut);
            self.budget = (by_stall as u64).min(self.budget.saturating_sub(missing));
            self.calm_looks = 0;
        } else {
            self.calm_looks = self.calm_looks.saturating_add(1);
            if self.calm_looks > self.calm {
                self.budget += (max / 32).min(reading.free - self.reserve);
            }
        }
        self.budget = self.budget.clamp(min, max);
        self.budget
    }

    /// True where the budget may grow.
    pub(super) fn is_calm(&self) -> bool {
        self.calm_looks > self.calm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const CALM: Reading = Reading { some: 0.0, free: 10 * GIB };

    #[test]
    fn heavy_stall_halves_the_budget_each_look_down_to_the_least() {
        let mut law = Law::new(GIB / 64, GIB, 0);
        let heavy = Reading { some: 0.5, free: GIB };
        assert_eq!([(); 3].map(|()| law.look(heavy)), [GIB / 2, GIB / 4, GIB / 8]);
        assert_eq!((0..10).map(|_| law.look(heavy)).last(), Some(GIB / 64));
    }

    #[test]
    fn missing_reserve_is_given_back_at_once() {
        let mut law = Law::new(0, GIB, GIB / 2);
        assert_eq!(law.look(Reading { some: 0.0, free: GIB / 4 }), GIB * 3 / 4);
    }

    #[test]
    fn growth_waits_for_calm_and_ends_at_the_most() {
        let mut law = Law::new(0, GIB, 0);
        law.look(Reading { some: 1.0, free: GIB });
        assert_eq!((0..5).map(|_| law.look(CALM)).last(), Some(GIB / 2));
        assert_eq!(law.look(CALM), GIB / 2 + GIB / 32);
        assert_eq!((0..100).map(|_| law.look(CALM)).last(), Some(GIB));
    }

    #[test]
    fn growth_never_takes_the_reserve() {
        let mut law = Law::new(0, GIB, GIB);
        law.look(Reading { some: 1.0, free: 2 * GIB });
        let tight = Reading { some: 0.0, free: GIB + 10 };
        assert_eq!((0..7).map(|_| law.look(tight)).last(), Some(GIB / 2 + 20));
    }

    #[test]
    fn pressure_that_comes_and_goes_does_not_flip_flop() {
        let mut law = Law::new(0, GIB, 0);
        let readings = (0..60).map(|i| if i % 4 == 0 { Reading { some: 0.03, free: GIB } } else { CALM });
        let budgets: Vec<_> = readings.map(|r| law.look(r)).collect();
        assert!(budgets.windows(2).all(|w| w[1] <= w[0]));
    }
}
