//! Where a picture goes in a window, as `wp_viewport` says it.

use shrbuf_pipeline::{Rect, Size, choices};

choices! {
    /// How a picture fills a window of another shape.
    pub enum Fit {
        /// It keeps its shape, and the window takes that shape too. A maximized window, which has to be filled, shows
        /// the middle of the picture.
        Contain = "contain",
        /// It is stretched to the window.
        Fill = "fill",
    }
}

/// What the compositor has said of the window's size, in its own units (a pixel, or more on a dense screen).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Configured {
    /// The window's size; `None` leaves it to us.
    pub size: Option<Size>,
    /// More than this does not fit on the screen.
    pub bounds: Option<Size>,
    /// The window must be just that large: it is maximized.
    pub exact: bool,
}

/// A part of the buffer, and the size it is shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The part, in the buffer's pixels.
    pub source: Rect,
    /// Its size on screen.
    pub destination: Size,
}

/// What of `part` is in a buffer of `size`: a compositor ends the connection of one who shows more. `None` for nothing.
pub fn within(part: Rect, size: Size) -> Option<Rect> {
    let width = size.width.checked_sub(part.x)?.min(part.width);
    let height = size.height.checked_sub(part.y)?.min(part.height);
    (width > 0 && height > 0).then_some(Rect { width, height, ..part })
}

/// The largest size of `shape`'s shape inside `room`, at least 1x1.
fn inside(shape: Size, room: Size) -> Size {
    let scaled = |n: u32, by: u32, of: u32| (u64::from(n) * u64::from(by) / u64::from(of.max(1))).max(1) as u32;
    let high = scaled(shape.height, room.width, shape.width);
    if high <= room.height {
        Size::new(room.width.max(1), high)
    } else {
        Size::new(scaled(shape.width, room.height, shape.height), room.height.max(1))
    }
}

/// Where `picture`, a part of a buffer, goes.
pub fn place(picture: Rect, window: &Configured, fit: Fit) -> Placement {
    let shape = Size::new(picture.width, picture.height);
    let whole = |destination| Placement { source: picture, destination };
    match (window.size, fit) {
        (Some(size), Fit::Fill) => whole(size),
        (Some(size), Fit::Contain) if window.exact => {
            let part = inside(size, shape);
            let source = Rect {
                x: picture.x + (shape.width - part.width) / 2,
                y: picture.y + (shape.height - part.height) / 2,
                width: part.width,
                height: part.height,
            };
            Placement { source, destination: size }
        }
        (Some(size), Fit::Contain) => whole(inside(shape, size)),
        (None, _) => match window.bounds {
            Some(b) if shape.width > b.width || shape.height > b.height => whole(inside(shape, b)),
            _ => whole(shape),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Rect = Rect { x: 0, y: 0, width: 1280, height: 720 };

    fn window(width: u32, height: u32) -> Configured {
        Configured { size: Some(Size::new(width, height)), ..Configured::default() }
    }

    #[test]
    fn a_window_takes_the_shape_of_the_picture() {
        assert_eq!(place(WIDE, &window(800, 600), Fit::Contain).destination, Size::new(800, 450));
        assert_eq!(place(WIDE, &window(3000, 600), Fit::Contain).destination, Size::new(1066, 600));
        assert_eq!(place(WIDE, &window(800, 600), Fit::Fill).destination, Size::new(800, 600));
        assert_eq!(place(WIDE, &window(1, 1), Fit::Contain).destination, Size::new(1, 1));
    }

    #[test]
    fn a_window_that_may_choose_is_as_large_as_the_picture_or_the_screen() {
        let free = Configured::default();
        assert_eq!(place(WIDE, &free, Fit::Contain).destination, Size::new(1280, 720));
        let small = Configured { bounds: Some(Size::new(640, 480)), ..free };
        assert_eq!(place(WIDE, &small, Fit::Contain).destination, Size::new(640, 360));
    }

    #[test]
    fn a_maximized_window_shows_the_middle_of_the_picture() {
        let maximized = Configured { exact: true, ..window(800, 600) };

        let placed = place(WIDE, &maximized, Fit::Contain);

        assert_eq!(placed.destination, Size::new(800, 600));
        assert_eq!(placed.source, Rect { x: 160, y: 0, width: 960, height: 720 });
    }

    #[test]
    fn a_part_that_reaches_beyond_its_buffer_ends_with_it() {
        let size = Size::new(320, 180);
        let rect = |x, y, width, height| Rect { x, y, width, height };
        assert_eq!(within(rect(0, 0, 320, 180), size), Some(rect(0, 0, 320, 180)));
        assert_eq!(within(rect(10, 20, u32::MAX, 1000), size), Some(rect(10, 20, 310, 160)));
        for nothing in [rect(320, 0, 1, 1), rect(0, 500, 1, 1), rect(0, 0, 0, 10), rect(u32::MAX, 0, 2, 2)] {
            assert_eq!(within(nothing, size), None);
        }
    }

    #[test]
    fn no_part_is_empty_or_outside_of_its_buffer() {
        for (width, height) in [(1, 60000), (60000, 1), (1, 1), (7, 3)] {
            let maximized = Configured { exact: true, ..window(width, height) };
            let source = place(WIDE, &maximized, Fit::Contain).source;
            assert!(source.width >= 1 && source.x + source.width <= 1280, "{source:?}");
            assert!(source.height >= 1 && source.y + source.height <= 720, "{source:?}");
        }
    }
}
