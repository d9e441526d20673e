//! How a plane is to understand the code values of YUV frames: its properties COLOR_ENCODING and COLOR_RANGE.
//!
//! Both are enumerations whose numbers are each driver's own and whose names are the interface (kernel:
//! `drm_color_mgmt.c`). A plane without them has one way, which is the driver's secret; most such planes take no YUV.

use shrbuf_pipeline::{Colorimetry, Matrix, Range};

use super::props::Props;

/// What a plane's two properties take; `None` for what it does not know, or where it has no such property.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Colors {
    bt601: Option<u64>,
    bt709: Option<u64>,
    bt2020: Option<u64>,
    limited: Option<u64>,
    full: Option<u64>,
}

impl Colors {
    pub(super) const ENCODING: &str = "COLOR_ENCODING";
    pub(super) const RANGE: &str = "COLOR_RANGE";

    pub(super) fn of(plane: &Props) -> Colors {
        Colors::named(plane.choices(Colors::ENCODING), plane.choices(Colors::RANGE))
    }

    fn named(encodings: &[(String, u64)], ranges: &[(String, u64)]) -> Colors {
        let value = |all: &[(String, u64)], name: &str| all.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
        Colors {
            bt601: value(encodings, "ITU-R BT.601 YCbCr"),
            bt709: value(encodings, "ITU-R BT.709 YCbCr"),
            bt2020: value(encodings, "ITU-R BT.2020 YCbCr"),
            limited: value(ranges, "YCbCr limited range"),
            full: value(ranges, "YCbCr full range"),
        }
    }

    /// What the encoding and the range are to be set to. What the plane does not know stays as it is.
    pub(super) fn values(&self, color: Colorimetry) -> [Option<u64>; 2] {
        let encoding = match color.matrix {
            Matrix::Bt601 => self.bt601,
            Matrix::Bt709 => self.bt709,
            Matrix::Bt2020 => self.bt2020,
        };
        let range = match color.range {
            Range::Limited => self.limited,
            Range::Full => self.full,
        };
        [encoding, range]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(all: &[(&str, u64)]) -> Vec<(String, u64)> {
        all.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    fn color(matrix: Matrix, range: Range) -> Colorimetry {
        Colorimetry { matrix, range }
    }

    #[test]
    fn values_go_by_the_driver_s_names_whatever_their_numbers() {
        let encodings = [("ITU-R BT.709 YCbCr", 0), ("ITU-R BT.2020 YCbCr", 7), ("ITU-R BT.601 YCbCr", 4)];
        let ranges = [("YCbCr full range", 5), ("YCbCr limited range", 2)];
        let colors = Colors::named(&choices(&encodings), &choices(&ranges));
        assert_eq!(colors.values(color(Matrix::Bt601, Range::Limited)), [Some(4), Some(2)]);
        assert_eq!(colors.values(color(Matrix::Bt709, Range::Limited)), [Some(0), Some(2)]);
        assert_eq!(colors.values(color(Matrix::Bt2020, Range::Full)), [Some(7), Some(5)]);
    }

    #[test]
    fn what_a_plane_does_not_know_stays_as_it_is() {
        let colors = Colors::named(&choices(&[("ITU-R BT.601 YCbCr", 0), ("ITU-R BT.709 YCbCr", 1)]), &[]);
        assert_eq!(colors.values(color(Matrix::Bt2020, Range::Full)), [None, None]);
        assert_eq!(colors.values(color(Matrix::Bt709, Range::Full)), [Some(1), None]);
    }

    #[test]
    fn a_plane_without_the_properties_is_told_nothing() {
        assert_eq!(Colors::named(&[], &[]).values(Colorimetry::default()), [None, None]);
    }
}
