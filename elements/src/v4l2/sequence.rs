//! A driver's count of frames, without its wrap, and what is missing in it.

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// What the driver said with the last frame.
    last: Option<u32>,
    /// The last frame's number for the pipeline.
    number: u64,
    /// The stream was stopped and started since that.
    anew: bool,
    /// In the driver's own words, for those who check our sums.
    pub(super) told: Told,
}

/// What a driver said, unreckoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// With the first frame.
    pub(super) first: u32,
    /// With the last frame.
    pub(super) last: u32,
    /// Times it gave a frame the number of the one before.
    pub(super) repeated: u64,
    /// Times it went back, or its stream was started again.
    pub(super) restarted: u64,
}

/// A frame as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    /// Higher than that of the frame before, always.
    pub(super) number: u64,
    /// Frames that the driver dropped since the one before.
    pub(super) dropped: u64,
}

impl Sequence {
    /// The stream has been started again, upon which a driver begins to count anew.
    pub(super) fn restart(&mut self) {
        self.anew = self.last.is_some();
    }

    /// A frame that the driver calls `raw`.
    pub(super) fn count(&mut self, raw: u32) -> Counted {
        self.told.last = raw;
        let Some(last) = self.last.replace(raw) else {
            self.told.first = raw;
            self.number = u64::from(raw);
            return Counted { number: self.number, dropped: 0 };
        };
        let step = match raw.wrapping_sub(last) {
            _ if std::mem::take(&mut self.anew) => {
                self.told.restarted += 1;
                1
            }
            0 => {
                self.told.repeated += 1;
                1
            }
            // Back by a few is a driver that starts anew, not four thousand million drops.
            back if back > u32::MAX / 2 => {
                self.told.restarted += 1;
                1
            }
            step => u64::from(step),
        };
        self.number += step;
        Counted { number: self.number, dropped: step - 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers and drops of frames that the driver calls so.
    fn counted(raw: &[u32]) -> (Vec<u64>, Vec<u64>, Sequence) {
        let mut sequence = Sequence::default();
        let counted: Vec<Counted> = raw.iter().map(|&raw| sequence.count(raw)).collect();
        let of = |what: fn(&Counted) -> u64| counted.iter().map(what).collect();
        (of(|c| c.number), of(|c| c.dropped), sequence)
    }

    #[test]
    fn a_row_without_gaps_has_no_drops() {
        let (numbers, dropped, _) = counted(&[7, 8, 9]);
        assert_eq!((numbers, dropped), (vec![7, 8, 9], vec![0, 0, 0]));
    }

    #[test]
    fn a_gap_is_what_was_dropped() {
        let (numbers, dropped, _) = counted(&[0, 1, 5, 6]);
        assert_eq!((numbers, dropped), (vec![0, 1, 5, 6], vec![0, 0, 3, 0]));
    }

    #[test]
    fn a_repeated_number_is_another_frame_and_hides_no_later_gap() {
        let (numbers, dropped, sequence) = counted(&[5, 5, 6, 8]);
        assert_eq!((numbers, dropped), (vec![5, 6, 7, 9], vec![0, 0, 0, 1]));
        assert_eq!(sequence.told, Told { first: 5, last: 8, repeated: 1, restarted: 0 });
        // A driver that goes by the clock repeats one number and leaves the next out.
        let (numbers, dropped, _) = counted(&[5, 5, 7]);
        assert_eq!((numbers, dropped), (vec![5, 6, 8], vec![0, 0, 1]));
    }

    #[test]
    fn a_wrap_is_neither_a_gap_nor_a_step_back() {
        let (numbers, dropped, sequence) = counted(&[u32::MAX - 1, u32::MAX, 0, 2]);
        let wrap = 1 << 32;
        assert_eq!((numbers, dropped), (vec![wrap - 2, wrap - 1, wrap, wrap + 2], vec![0, 0, 0, 1]));
        assert_eq!(sequence.told, Told { first: u32::MAX - 1, last: 2, repeated: 0, restarted: 0 });
    }

    #[test]
    fn a_stream_that_is_started_again_goes_on_counting_wherever_its_driver_begins() {
        for (last, first) in [(100, 0), (0, 0), (3, 7), (u32::MAX - 3, 2)] {
            let (.., mut sequence) = counted(&[last]);

            sequence.restart();

            assert_eq!(sequence.count(first), Counted { number: u64::from(last) + 1, dropped: 0 }, "{last} {first}");
            assert_eq!(sequence.count(first + 2), Counted { number: u64::from(last) + 3, dropped: 1 });
            assert_eq!(sequence.told, Told { first: last, last: first + 2, repeated: 0, restarted: 1 });
        }
    }

    #[test]
    fn a_step_back_is_a_new_beginning() {
        let (numbers, dropped, sequence) = counted(&[100, 101, 0, 1, 3]);
        assert_eq!((numbers, dropped), (vec![100, 101, 102, 103, 105], vec![0, 0, 0, 0, 1]));
        assert_eq!(sequence.told.restarted, 1);
    }
}
