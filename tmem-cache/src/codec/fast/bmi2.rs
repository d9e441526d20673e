//! Bits picked by masks, as BMI2 does it.

use std::arch::x86_64::{_pdep_u64, _pext_u64};

use super::super::bits::BitReader;
use super::kernel::Masks;

/// A processor with BMI2.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bmi2(());

/// What 64 residuals have from bit `k` on: quotients q of 4 at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quotients {
    /// Which are 1 or more.
    pub first: u64,
    /// The two bits of q - 1, 0 where q is 0.
    pub more: [u64; 2],
}

impl Quotients {
    #[inline(always)]
    pub(super) fn masks(&self, bmi2: Bmi2) -> Masks {
        let [a, b] = self.more;
        let (second, third, fourth) = (a | b, b, a & b);
        let n = second.count_ones();
        let later = bmi2.extract(third, second) | bmi2.extract(fourth, third).wrapping_shl(n);
        let words = [bmi2.extract(second, self.first), later];
        Masks { words, counts: [self.first.count_ones(), n + third.count_ones()] }
    }
}

impl Bmi2 {
    /// # Safety
    /// The processor has BMI2, and the caller runs code compiled for it.
    #[inline(always)]
    pub unsafe fn new() -> Bmi2 {
        Bmi2(())
    }

    /// The two bits of q - 1, by the mask of those quotients that are not 0.
    #[inline(always)]
    pub fn more(self, first: u64, masks: &mut BitReader<'_>) -> [u64; 2] {
        let second = self.deposit(masks.peek(), first);
        masks.skip(first.count_ones());
        let word = masks.peek();
        let n = second.count_ones();
        let third = self.deposit(word, second);
        // An encoder makes no 64 ones; where they are, any word will do.
        let fourth = self.deposit(word.wrapping_shr(n), third);
        masks.skip(n + third.count_ones());
        [second ^ third ^ fourth, third]
    }

    /// The bits of `value` where `mask` has ones, moved together.
    #[inline(always)]
    fn extract(self, value: u64, mask: u64) -> u64 {
        // SAFETY: `self` says that the processor has BMI2.
        unsafe { _pext_u64(value, mask) }
    }

    /// The lowest bits of `value`, moved to where `mask` has ones.
    #[inline(always)]
    fn deposit(self, value: u64, mask: u64) -> u64 {
        // SAFETY: as above.
        unsafe { _pdep_u64(value, mask) }
    }
}
