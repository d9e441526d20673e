//! The first bytes of an input say which picture the rest is for, whether there is a reference, and which region of it
//! is asked for.

use shrbuf::{Format, Layout};
use tmem_cache::codec::{Picture, Reference, Region, Rows};

#[allow(dead_code, reason = "not all targets ask for regions")]
pub struct Shape<'a> {
    pub picture: Picture,
    pub reference: Option<Reference>,
    /// All of it, and a part.
    pub whole: Region,
    pub region: Region,
    pub rest: &'a [u8],
}

pub fn of(data: &[u8]) -> Option<Shape<'_>> {
    let ([format, width, height, more], rest) = data.split_first_chunk()?;
    let format = Format::all().nth(usize::from(*format) % Format::all().count())?;
    let width = 1 + u32::from(*width) + 256 * u32::from(more & 1);
    let height = 1 + u32::from(height % 64);
    let picture = Picture::of(&Layout::linear(format, width, height, 1).ok()?).ok()?;
    // Of the input over and over, as frames of round trips are, but a little beside them.
    let near = rest.iter().chain([&0]).cycle().take(picture.bytes()).map(|v| v.wrapping_add(v & 3)).collect::<Vec<u8>>();
    let reference = Reference::new(&picture, Rows::Packed(&near)).ok().filter(|_| more & 2 > 0);
    let eighths = u32::from(more >> 2);
    let (x, y) = (width * (eighths & 7) / 8, height * (eighths >> 3) / 8);
    let region = Region { x, y, width: (width - x).div_ceil(2), height: (height - y).div_ceil(2) };
    Some(Shape { picture, reference, whole: Region { x: 0, y: 0, width, height }, region, rest })
}
