//! What is drawn: a background once into each buffer, and what moves for each frame.

use shrbuf::access::WriteGuard;
use shrbuf::{AccessError, Account, Format, Shrbuf};
use shrbuf_pipeline::Size;

use super::overlay;
use crate::image::color::Coefficients;
use crate::image::encode::Encoder;
use crate::image::shape::Shape;

shrbuf_pipeline::choices! {
    /// What a test source draws.
    pub enum Pattern {
        /// Colour bars as in SMPTE ECR 1-1978, at 75 %.
        Bars = "bars",
        /// Ramps of grey, red, green and blue.
        Ramp = "ramp",
        /// A box that moves over a grid.
        Box = "box",
        /// Noise, the same in every run.
        Noise = "noise",
    }
}

const BLACK: [u8; 3] = [0; 3];
const BOX: [u8; 3] = [255, 176, 0];
const GROUND: [u8; 3] = [24, 32, 64];
const GRID: [u8; 3] = [48, 60, 104];
/// Pixels between lines of the grid.
const GRID_STEP: u32 = 32;

/// Colour of a background's pixel.
fn pixel(pattern: Pattern, x: u32, y: u32, size: Size) -> [u8; 3] {
    match pattern {
        Pattern::Bars => bars(x, y, size),
        Pattern::Ramp => {
            let value = (u64::from(x) * 255 / u64::from(size.width.max(2) - 1)).min(255) as u8;
            match u64::from(y) * 4 / u64::from(size.height) {
                0 => [value; 3],
                1 => [value, 0, 0],
                2 => [0, value, 0],
                _ => [0, 0, value],
            }
        }
        Pattern::Box if x % GRID_STEP < 2 || y % GRID_STEP < 2 => GRID,
        Pattern::Box => GROUND,
        Pattern::Noise => BLACK,
    }
}

fn bars(x: u32, y: u32, size: Size) -> [u8; 3] {
    const A: u8 = 191;
    const TOP: [[u8; 3]; 7] = [[A, A, A], [A, A, 0], [0, A, A], [0, A, 0], [A, 0, A], [A, 0, 0], [0, 0, A]];
    const MIDDLE: [[u8; 3]; 7] = [[0, 0, A], BLACK, [A, 0, A], BLACK, [0, A, A], BLACK, [A, A, A]];
    const GREY: [u8; 3] = [19; 3];
    // -I, white, +Q, black in five quarters of a bar each; then 3.5 %, 7.5 % and 11.5 % between blacks.
    const BOTTOM: [[u8; 3]; 4] = [[0, 33, 76], [255; 3], [50, 0, 106], GREY];
    const PLUGE: [[u8; 3]; 3] = [[9; 3], GREY, [29; 3]];
    let (x, width) = (u64::from(x), u64::from(size.width));
    let twelfth = u64::from(y) * 12 / u64::from(size.height);
    let bar = (x * 7 / width) as usize;
    match twelfth {
        0..8 => TOP[bar],
        8 => MIDDLE[bar],
        _ => match bar {
            0..5 => BOTTOM[(x * 28 / width / 5) as usize],
            5 => PLUGE[(x * 21 / width - 15) as usize],
            _ => GREY,
        },
    }
}

/// What a buffer shows at present and the next frame has to take away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    x: u32,
    y: u32,
}

/// A box that goes to and fro: stripes that were encoded once.
#[derive(Debug)]
struct Moving {
    side: u32,
    box_stripe: Encoder,
    /// The background's rows on a line of the grid and between two, as wide as the picture.
    ground: [Encoder; 2],
}

/// Random bytes from which rows are cut.
#[derive(Debug)]
struct Noise {
    bytes: Vec<u8>,
}

const NOISE_SLACK: usize = 4096;

#[derive(Debug)]
enum Change {
    Nothing,
    Box(Box<Moving>),
    Noise(Noise),
}

/// Draws one pattern into buffers of one format and size.
#[derive(Debug)]
pub(crate) struct Painter {
    pattern: Pattern,
    size: Size,
    format: Format,
    color: Coefficients,
    change: Change,
    /// Of each buffer, where its box is.
    boxes: Vec<(shrbuf::BufferId, Option<Place>)>,
}

impl Painter {
    /// `None` for a format without a [`Shape`].
    pub(crate) fn new(pattern: Pattern, format: Format, color: Coefficients, size: Size) -> Option<Painter> {
        let shape = Shape::of(format)?;
        let change = match pattern {
            Pattern::Box => {
                let side = ((size.width.min(size.height) / 4) & !1).max(2).min(size.width & !1);
                match side {
                    0 => Change::Nothing,
                    _ => Change::Box(Box::new(Moving {
                        side,
                        box_stripe: stripe(format, color, side, |_| BOX)?,
                        ground: [
                            stripe(format, color, size.width, |x| pixel(pattern, x, 0, size))?,
                            stripe(format, color, size.width, |x| pixel(pattern, x, GRID_STEP / 2, size))?,
                        ],
                    })),
                }
            }
            Pattern::Noise => Change::Noise(Noise::new(format, shape, size)),
            _ => Change::Nothing,
        };
        Some(Painter { pattern, size, format, color, change, boxes: Vec::new() })
    }

    /// Draws the background into every buffer.
    pub(crate) fn prepare(&mut self, buffers: &mut [Shrbuf], account: &Account) -> Result<(), AccessError> {
        self.boxes = buffers.iter().map(|b| (b.id(), None)).collect();
        let Some((first, others)) = buffers.split_first_mut() else {
            return Ok(());
        };
        self.background(&mut first.write()?, account);
        let from = first.read()?;
        for buffer in others {
            let mut guard = buffer.write()?;
            for p in 0..self.format.planes().len() {
                let (source, mut plane) = (from.plane(p), guard.plane(p));
                for y in 0..source.rows() {
                    plane.copy_row(y, &source, y, account);
                }
            }
        }
        Ok(())
    }

    fn background(&self, guard: &mut WriteGuard<'_>, account: &Account) {
        let Some(mut encoder) = Encoder::new(self.format, self.color, self.size.width) else { return };
        let (panel_width, panel_height) = overlay::extent(self.size).unwrap_or((0, 0));
        let mut rows = [0, 1].map(|_| vec![0; self.size.width as usize * 3]);
        for y in (0..self.size.height).step_by(2) {
            for (dy, row) in rows.iter_mut().enumerate() {
                let y = (y + dy as u32).min(self.size.height - 1);
                for (x, out) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                    let panel = x < panel_width && (y as usize) < panel_height;
                    *out = if panel { BLACK } else { pixel(self.pattern, x as u32, y, self.size) };
                }
            }
            encoder.encode(&rows[0], &rows[1]);
            encoder.put(guard, 0, y, account);
        }
    }

    /// Draws what moves, for frame `frame`.
    pub(crate) fn draw(&mut self, buffer: shrbuf::BufferId, guard: &mut WriteGuard<'_>, frame: u64, account: &Account) {
        match &self.change {
            Change::Nothing => {}
            Change::Box(moving) => {
                let Some((_, shown)) = self.boxes.iter_mut().find(|(id, _)| *id == buffer) else { return };
                let new = moving.place(frame, self.size);
                let old = shown.replace(new);
                if let Some(old) = old.filter(|old| *old != new) {
                    moving.erase(old, guard, account);
                }
                moving.draw(new, guard, account);
            }
            Change::Noise(noise) => noise.draw(guard, frame, self.size, self.format, account),
        }
    }
}

fn stripe(format: Format, color: Coefficients, width: u32, rgb: impl Fn(u32) -> [u8; 3]) -> Option<Encoder> {
    let mut encoder = Encoder::new(format, color, width)?;
    let row: Vec<u8> = (0..width).flat_map(rgb).collect();
    encoder.encode(&row, &row);
    Some(encoder)
}

impl Moving {
    fn draw(&self, at: Place, guard: &mut WriteGuard<'_>, account: &Account) {
        for y in (at.y..at.y + self.side).step_by(2) {
            self.box_stripe.put(guard, at.x, y, account);
        }
    }

    fn erase(&self, at: Place, guard: &mut WriteGuard<'_>, account: &Account) {
        for y in (at.y..at.y + self.side).step_by(2) {
            let ground = &self.ground[usize::from(y % GRID_STEP >= 2)];
            ground.put_part(guard, at.x..at.x + self.side, (at.x, y), account);
        }
    }

    /// To and fro below the overlay, on even positions; the two speeds make it visit most of the picture.
    fn place(&self, frame: u64, size: Size) -> Place {
        let (_, top) = overlay::extent(size).unwrap_or((0, 0));
        let top = (top as u32).min(size.height.saturating_sub(self.side)) & !1;
        let swing = |span: u32, speed: u64| {
            let span = u64::from(span / 2);
            let at = if span == 0 { 0 } else { frame * speed % (2 * span) };
            2 * at.min(2 * span - at) as u32
        };
        let x = swing(size.width.saturating_sub(self.side), 4);
        let y = swing(size.height.saturating_sub(self.side + top), 3);
        Place { x, y: top + y }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn random(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

impl Noise {
    fn new(format: Format, shape: Shape, size: Size) -> Noise {
        let s = format.planes();
        let row = s.iter().map(|s| size.width.div_ceil(s.hsub) * s.bytes).max().unwrap_or(0) as usize;
        let mut bytes: Vec<u8> =
            (0..(row + NOISE_SLACK).div_ceil(8) as u64).flat_map(|n| random(n).to_le_bytes()).collect();
        if let Shape::Bayer { bits: bits @ 9..16, .. } = shape {
            bytes.as_chunks_mut::<2>().0.iter_mut().for_each(|s| s[1] &= (1u8 << (bits - 8)) - 1);
        }
        Noise { bytes }
    }

    /// Cuts each row from another place. The overlay's part of the first plane stays.
    fn draw(&self, guard: &mut WriteGuard<'_>, frame: u64, size: Size, format: Format, account: &Account) {
        let (panel_width, panel_height) = overlay::extent(size).unwrap_or((0, 0));
        for (p, s) in format.planes().iter().enumerate() {
            let mut plane = guard.plane(p);
            let (panel_rows, panel) = match p {
                0 => (panel_height, panel_width.div_ceil(s.hsub as usize) * s.bytes as usize),
                // Chroma of the overlay stays neutral.
                _ => (panel_height.div_ceil(s.vsub as usize), panel_width.div_ceil(s.hsub as usize) * s.bytes as usize),
            };
            for y in 0..plane.rows() {
                let x = if y < panel_rows { panel.min(plane.row_bytes()) } else { 0 };
                let from = random(frame << 20 ^ (p as u64) << 18 ^ y as u64) as usize % (NOISE_SLACK / 8) * 8;
                let length = plane.row_bytes() - x;
                plane.write(y, x, &self.bytes[from..from + length], account);
            }
        }
    }
}
