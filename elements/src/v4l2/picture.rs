//! A driver's formats as the pipeline's: layouts, colours, offers.

use shrbuf::{Format, Layout, Plane};
use shrbuf_pipeline::{
    Colorimetry, Matrix, Modifiers, Range, Rate, Rates, Refusal, Size, SizeOffer, Sizes, Video,
};

use super::FormatInfo;
use super::ioctl::{self, Fraction, FrameIntervals, FrameSizes};

/// The planes of a driver's format in the memory of one buffer; `data_offset` of each memory plane where there are any.
pub(super) fn layout(format: Format, driver: &ioctl::Format, data_offsets: &[u32]) -> Result<Layout, Refusal> {
    if format.is_compressed() {
        let plane = Plane { segment: 0, offset: data_offsets.first().copied().unwrap_or(0), stride: 0 };
        let layout = Layout::new(format, None, driver.width, driver.height, &[plane]);
        return layout.map_err(|e| Refusal::new(e.to_string()));
    }
    let offset_of = |memory: usize| data_offsets.get(memory).copied().unwrap_or(0);
    let mut planes = [Plane::default(); shrbuf::layout::MAX_PLANES];
    let samplings = format.planes();
    let luma = samplings[0];
    let several = driver.planes.len() > 1;
    let mut end = offset_of(0);
    for (i, s) in samplings.iter().enumerate() {
        let Some(memory) = driver.planes.get(if several { i } else { 0 }) else {
            return Err(Refusal::new(format!(
                "{format} has {} planes, the driver {}",
                samplings.len(),
                driver.planes.len()
            )));
        };
        planes[i] = if several {
            Plane { segment: i as u8, offset: offset_of(i), stride: memory.bytesperline }
        } else {
            // In one buffer chroma follows luma, its stride in proportion (V4L2, "YUV planar formats").
            let stride =
                u64::from(memory.bytesperline) * u64::from(s.bytes * luma.hsub) / u64::from(luma.bytes * s.hsub);
            Plane { segment: 0, offset: end, stride: stride as u32 }
        };
        end = end.saturating_add(planes[i].stride.saturating_mul(driver.height.div_ceil(s.vsub)));
    }
    Layout::new(format, None, driver.width, driver.height, &planes[..samplings.len()])
        .map_err(|e| Refusal::new(e.to_string()))
}

/// The kernel's four numbers as matrix and range, with its own defaults ("Colorspaces", V4L2 documentation).
pub(super) fn colorimetry(format: Format, c: ioctl::Colorimetry, width: u32) -> Colorimetry {
    const SMPTE170M: u32 = 1;
    const REC709: u32 = 3;
    const SRGB: u32 = 8;
    const JPEG: u32 = 7;
    const BT2020: u32 = 10;
    let matrix = match (c.ycbcr_enc, c.colorspace) {
        (1, _) | (0, SMPTE170M | SRGB | JPEG) => Matrix::Bt601,
        (2, _) | (0, REC709) => Matrix::Bt709,
        (6 | 7, _) | (0, BT2020) => Matrix::Bt2020,
        _ if width >= 1280 => Matrix::Bt709,
        _ => Matrix::Bt601,
    };
    let range = match (c.quantization, format.family(), c.colorspace) {
        (1, ..) => Range::Full,
        (2, ..) => Range::Limited,
        (_, shrbuf::Family::Yuv, JPEG) => Range::Full,
        (_, shrbuf::Family::Yuv, _) => Range::Limited,
        _ => Range::Full,
    };
    Colorimetry { matrix, range }
}

fn rates(intervals: &FrameIntervals) -> Rates {
    let rate = |f: &Fraction| Rate::new(f.denominator, f.numerator);
    match intervals {
        FrameIntervals::Discrete(list) => Rates::List(list.iter().map(rate).collect()),
        FrameIntervals::Stepwise { min, max, .. } => Rates::Range(rate(max), rate(min)),
        FrameIntervals::NotEnumerated => Rates::Any,
    }
}

/// A queue's format as an offer, where it is one of the project's list.
pub(super) fn video(info: &FormatInfo, current: Size) -> Option<Video> {
    let (format, multi) = Format::from_v4l2(info.description.pixelformat.0)?;
    let size = |s: &ioctl::Size| Size::new(s.width, s.height);
    let of = |s: Size| info.intervals.iter().find(|(size, _)| (size.width, size.height) == (s.width, s.height));
    let sizes = match &info.sizes {
        FrameSizes::Discrete(list) => {
            let offers = list
                .iter()
                .map(size)
                .map(|s| SizeOffer { sizes: Sizes::Exact(s), rates: of(s).map_or(Rates::Any, |(_, i)| rates(i)) });
            offers.collect()
        }
        FrameSizes::Stepwise { min, max, step } => vec![SizeOffer {
            sizes: Sizes::Range { min: size(min), max: size(max), step: size(step) },
            // The driver tells the rates of single sizes only; those of the smallest are the widest choice, and
            // what it really sets is checked when the format is.
            rates: info.intervals.first().map_or(Rates::Any, |(_, i)| rates(i)),
        }],
        FrameSizes::NotEnumerated => vec![SizeOffer { sizes: Sizes::Exact(current), rates: Rates::Any }],
    };
    let plane_segments = multi && format.planes().len() > 1;
    Some(Video { format, modifiers: Modifiers::Unknown, sizes, plane_segments })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_colour_defaults() {
        let of = |colorspace| ioctl::Colorimetry { colorspace, ..Default::default() };
        let bt709 = Colorimetry { matrix: Matrix::Bt709, range: Range::Limited };
        assert_eq!(colorimetry(Format::Yuyv, of(3), 640), bt709);
        assert_eq!(colorimetry(Format::Yuyv, of(8), 1920), Colorimetry::default());
        assert_eq!(colorimetry(Format::Xr24, of(8), 1920).range, Range::Full);
    }
}
