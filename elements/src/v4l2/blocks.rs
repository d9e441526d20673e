//! The blocks in which a driver works: what it makes of a size that is no whole number of them.
//!
//! No call says how large they are. So each format is tried (VIDIOC_TRY_FMT) at a size that is a large power of two, of
//! which any block is a part, and one more: what the driver makes of the one is a block. Nor does a call say whether a
//! driver can be told of rows that are longer than the picture's: it is asked for some.

use shrbuf::Format;
use shrbuf_pipeline::Size;

use super::ioctl::{Colorimetry, FormatRequest, FrameSizes};
use super::{Device, FormatInfo};

/// Formats of pixels whose pictures the driver takes in blocks of more than one, or in rows that cannot be longer.
pub(super) fn blocks(device: &Device, formats: &[FormatInfo]) -> Vec<(Format, Size)> {
    let known = formats.iter().filter_map(|info| Some((Format::from_v4l2(info.description.pixelformat.0)?.0, info)));
    known
        .filter(|(format, _)| !format.is_compressed())
        .filter_map(|(format, info)| Some((format, block(device, info)?)))
        .collect()
}

fn block(device: &Device, info: &FormatInfo) -> Option<Size> {
    let pixelformat = info.description.pixelformat;
    let answer = |width, height, bytesperline| {
        let colorimetry = Colorimetry::default();
        device.try_format(&FormatRequest { width, height, pixelformat, bytesperline, colorimetry }).ok()
    };
    let range = match &info.sizes {
        FrameSizes::Stepwise { min, max, .. } => power(min.width, max.width).zip(power(min.height, max.height)),
        _ => None,
    };
    let block = range.and_then(|(width, height)| {
        let made = answer(width + 1, height + 1, None)?;
        Some(Size::new(beyond(width, made.width), beyond(height, made.height)))
    });
    if let Some(block) = block.filter(|block| *block != Size::new(1, 1)) {
        return Some(block);
    }
    // Where sizes are not a range, the driver makes one that it has of it.
    let (width, height) = range.unwrap_or((640, 480));
    let row = |asked: Option<u32>| Some(answer(width, height, asked)?.planes.first()?.bytesperline);
    let own = row(None).filter(|&own| own > 0)?;
    let longer = own.checked_mul(2)?;
    (row(Some(longer))? < longer).then_some(Size::new(1, 1))
}

/// The largest power of two that has a next size in the range.
fn power(min: u32, max: u32) -> Option<u32> {
    let largest = max.checked_sub(1)?.checked_ilog2()?;
    Some(1 << largest).filter(|&power| power >= min)
}

/// A driver that does not round up, or by what is no block, reads just what it is given.
fn beyond(power: u32, answer: u32) -> u32 {
    answer.checked_sub(power).filter(|&block| block > 0 && power.is_multiple_of(block)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_inside_the_range() {
        assert_eq!(power(640, 4096), Some(2048));
        assert_eq!(power(1, 4097), Some(4096));
        assert_eq!(power(640, 640), None);
        assert_eq!(power(1, 1), None);
    }

    #[test]
    fn what_is_made_of_one_more_is_a_block() {
        assert_eq!(beyond(2048, 2064), 16);
        assert_eq!(beyond(2048, 2049), 1);
        // Rounded down, or to something odd.
        assert_eq!(beyond(2048, 2048), 1);
        assert_eq!(beyond(2048, 2048 + 24), 1);
    }
}
