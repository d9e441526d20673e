//! Where a pixel of the target comes from: crop, turn, mirror and scale as one linear map.

use shrbuf_pipeline::{Rect, Size};

shrbuf_pipeline::choices! {
    /// How far a picture is turned, clockwise.
    pub enum Rotate {
        /// Not at all.
        None = "0",
        /// The left side is on top then.
        Quarter = "90",
        /// Upside down.
        Half = "180",
        /// The right side is on top then.
        ThreeQuarters = "270",
    }
}

/// What is done to a picture's geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) rotate: Rotate,
    /// Left and right change places, after turning.
    pub(super) mirror: bool,
}

impl Turn {
    pub(super) const NONE: Turn = Turn { rotate: Rotate::None, mirror: false };

    /// The size of a picture of `size` when it has been turned.
    pub(super) fn of(self, size: Size) -> Size {
        match self.rotate {
            Rotate::None | Rotate::Half => size,
            Rotate::Quarter | Rotate::ThreeQuarters => Size::new(size.height, size.width),
        }
    }

    /// Position in the source, where `from` is the part that is seen, by that in the target, where it fills `to`. For
    /// each of x and y the factors of x, of y, and of 1.
    pub(super) fn map(self, from: Rect, to: Place) -> [[f32; 3]; 2] {
        let (w, h) = (f64::from(to.width), f64::from(to.height));
        let (left, top) = (f64::from(to.x), f64::from(to.y));
        // Across and down the target, from 0 to 1; then across and down the turned source.
        let across = if self.mirror { [-1.0 / w, 0.0, 1.0 + left / w] } else { [1.0 / w, 0.0, -left / w] };
        let down = [0.0, 1.0 / h, -top / h];
        let back = |[x, y, one]: [f64; 3]| [-x, -y, 1.0 - one];
        let (x, y) = match self.rotate {
            Rotate::None => (across, down),
            Rotate::Quarter => (down, back(across)),
            Rotate::Half => (back(across), back(down)),
            Rotate::ThreeQuarters => (back(down), across),
        };
        let scaled = |[x, y, one]: [f64; 3], length: u32, start: u32| {
            let (length, start) = (f64::from(length), f64::from(start));
            [(x * length) as f32, (y * length) as f32, (one * length + start) as f32]
        };
        [scaled(x, from.width, from.x), scaled(y, from.height, from.y)]
    }
}

/// Where a picture is put into another; it may lie partly, or all, outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Place {
    /// All of a picture of `size`.
    pub(super) fn all(size: Size) -> Place {
        Place { x: 0, y: 0, width: size.width, height: size.height }
    }

    pub(super) fn size(self) -> Size {
        Size::new(self.width, self.height)
    }

    /// What of it lies in a picture of `size`.
    pub(super) fn within(self, size: Size) -> Option<Rect> {
        let part = |start: i32, length: u32, all: u32| {
            let end = (i64::from(start) + i64::from(length)).min(i64::from(all));
            let start = u32::try_from(start).unwrap_or(0);
            let length = u32::try_from(end - i64::from(start)).ok().filter(|n| *n > 0)?;
            Some((start, length))
        };
        let (x, width) = part(self.x, self.width, size.width)?;
        let (y, height) = part(self.y, self.height, size.height)?;
        Some(Rect { x, y, width, height })
    }
}

/// All of a picture.
pub(super) fn whole(size: Size) -> Rect {
    Rect { x: 0, y: 0, width: size.width, height: size.height }
}

/// True where `inner` lies in a picture of `size` and has pixels.
pub(super) fn inside(inner: Rect, size: Size) -> bool {
    let fits =
        |start: u32, length: u32, all: u32| length > 0 && start.checked_add(length).is_some_and(|end| end <= all);
    fits(inner.x, inner.width, size.width) && fits(inner.y, inner.height, size.height)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the pixel in the middle of which this is comes from.
    fn from(turn: Turn, x: u32, y: u32) -> (i32, i32) {
        let size = Size::new(4, 2);
        let turned = turn.of(size);
        let [mx, my] = turn.map(whole(size), Place::all(turned));
        let at = [x as f32 + 0.5, y as f32 + 0.5, 1.0];
        let dot = |m: [f32; 3]| m.iter().zip(at).map(|(a, b)| a * b).sum::<f32>().floor() as i32;
        (dot(mx), dot(my))
    }

    #[test]
    fn corners_go_where_turning_a_sheet_of_paper_puts_them() {
        let turn = |rotate, mirror| Turn { rotate, mirror };
        assert_eq!(from(turn(Rotate::None, false), 3, 1), (3, 1));
        // Turned clockwise, what was on the left and at the bottom is at the top left.
        assert_eq!(from(turn(Rotate::Quarter, false), 0, 0), (0, 1));
        assert_eq!(from(turn(Rotate::Quarter, false), 1, 0), (0, 0));
        assert_eq!(from(turn(Rotate::Half, false), 0, 0), (3, 1));
        assert_eq!(from(turn(Rotate::ThreeQuarters, false), 0, 0), (3, 0));
        assert_eq!(from(turn(Rotate::None, true), 0, 0), (3, 0));
        assert_eq!(from(turn(Rotate::Quarter, true), 0, 0), (0, 0));
    }

    #[test]
    fn of_a_place_counts_what_is_inside() {
        let size = Size::new(8, 8);
        let within = |x, width| Place { x, y: 0, width, height: 8 }.within(size).map(|r| (r.x, r.width));
        assert_eq!(within(3, 5), Some((3, 5)));
        assert_eq!(within(3, 6), Some((3, 5)));
        assert_eq!(within(-2, 6), Some((0, 4)));
        assert_eq!(within(-2, 60), Some((0, 8)));
        assert_eq!(within(-2, 2), None);
        assert_eq!(within(8, 2), None);
        assert_eq!(within(i32::MIN, u32::MAX), Some((0, 8)));
    }

    #[test]
    fn parts_outside_are_told_from_those_inside() {
        let size = Size::new(8, 8);
        let rect = |x, width| Rect { x, y: 0, width, height: 8 };
        assert!(inside(rect(3, 5), size));
        assert!(!inside(rect(3, 6), size));
        assert!(!inside(rect(3, 0), size));
        assert!(!inside(rect(u32::MAX, 2), size));
    }
}
