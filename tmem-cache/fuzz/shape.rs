//! The first bytes of an input say which picture the rest is for.

use shrbuf::{Format, Layout};
use tmem_cache::codec::Picture;

pub fn picture(data: &[u8]) -> Option<(Picture, &[u8])> {
    let ([format, width, height, wide], rest) = data.split_first_chunk()?;
    let format = Format::all().nth(usize::from(*format) % Format::all().count())?;
    let width = 1 + u32::from(*width) + 256 * u32::from(wide & 1);
    let layout = Layout::linear(format, width, 1 + u32::from(height % 64), 1).ok()?;
    Some((Picture::of(&layout).ok()?, rest))
}
