//! What a picture is called on both sides: formats, layouts and `VideoInfo`, colorimetry.

use gst_video::{
    VideoColorMatrix, VideoColorPrimaries, VideoColorRange, VideoColorimetry, VideoFormat, VideoInfo,
    VideoTransferFunction,
};
use shrbuf::layout::{Layout, LayoutError, Plane};
use shrbuf::{Format, Modifier, Shrbuf};

use crate::dma_buf::{self, Drm};

/// Of each pair the planes are in the same order, too.
const FORMATS: [(Format, VideoFormat); 19] = [
    (Format::Xr24, VideoFormat::Bgrx),
    (Format::Ar24, VideoFormat::Bgra),
    (Format::Xb24, VideoFormat::Rgbx),
    (Format::Ab24, VideoFormat::Rgba),
    (Format::Rg24, VideoFormat::Bgr),
    (Format::Bg24, VideoFormat::Rgb),
    (Format::Rg16, VideoFormat::Rgb16),
    (Format::Yuyv, VideoFormat::Yuy2),
    (Format::Uyvy, VideoFormat::Uyvy),
    (Format::Yvyu, VideoFormat::Yvyu),
    (Format::Vyuy, VideoFormat::Vyuy),
    (Format::Nv12, VideoFormat::Nv12),
    (Format::Nv21, VideoFormat::Nv21),
    (Format::Nv16, VideoFormat::Nv16),
    (Format::Yu12, VideoFormat::I420),
    (Format::Yv12, VideoFormat::Yv12),
    (Format::Yu16, VideoFormat::Y42b),
    (Format::Yu24, VideoFormat::Y444),
    (Format::Grey, VideoFormat::Gray8),
];

/// GStreamer's name; `None` where it has none.
pub fn theirs(format: Format) -> Option<VideoFormat> {
    FORMATS.iter().find(|(ours, _)| *ours == format).map(|(_, theirs)| *theirs)
}

/// Our name; `None` where we have none.
pub fn ours(format: VideoFormat) -> Option<Format> {
    FORMATS.iter().find(|(_, theirs)| *theirs == format).map(|(ours, _)| *ours)
}

/// Every format that both sides know.
pub fn formats() -> impl Iterator<Item = Format> {
    FORMATS.iter().map(|(ours, _)| *ours)
}

/// The formats that a structure of caps says and that both sides know, in its order; of DMA_DRM the linear ones.
pub fn formats_of(structure: &gst::StructureRef) -> Vec<Format> {
    if let Some(linear) = dma_buf::formats_of(structure) {
        return linear;
    }
    match said(structure, "format") {
        Some(names) => names.iter().filter_map(|name| ours(VideoFormat::from_string(name))).collect(),
        None => formats().collect(),
    }
}

/// The strings of a field; `None` where it is not there, and so anything.
pub(crate) fn said(structure: &gst::StructureRef, field: &str) -> Option<Vec<String>> {
    if let Ok(one) = structure.get::<String>(field) {
        return Some(vec![one]);
    }
    let list = structure.get::<gst::List>(field).ok()?;
    Some(list.iter().filter_map(|value| value.get::<String>().ok()).collect())
}

/// Caps of every format that both sides know.
pub fn caps() -> gst::Caps {
    gst_video::VideoCapsBuilder::new().format_list(FORMATS.map(|(_, theirs)| theirs)).build()
}

/// The planes of frames as GStreamer lays them out by default, in one segment.
///
/// # Errors
/// [`LayoutError::Size`] where one begins beyond 4 GiB.
pub fn planes(info: &VideoInfo) -> Result<Vec<Plane>, LayoutError> {
    let plane = |(&offset, &stride): (&usize, &i32)| {
        let number =
            |n: usize| u32::try_from(n).map_err(|_| LayoutError::Size { width: info.width(), height: info.height() });
        Ok(Plane { segment: 0, offset: number(offset)?, stride: number(stride.max(0) as usize)? })
    };
    info.offset().iter().zip(info.stride()).map(plane).collect()
}

/// The linear layout of such frames.
///
/// # Errors
/// As of [`planes`], or the format has others.
pub fn layout(format: Format, info: &VideoInfo) -> Result<Layout, LayoutError> {
    Layout::new(format, Some(Modifier::LINEAR), info.width(), info.height(), &planes(info)?)
}

/// The layout of frames whose planes lie there, of the format that `drm` or else `info` says; `None` where that is none of
/// ours, or it has others.
pub fn layout_of(info: &VideoInfo, drm: Option<Drm>, planes: &[Plane]) -> Option<Layout> {
    let (format, modifier) = drm.or_else(|| Some((ours(info.format())?, Modifier::LINEAR)))?;
    Layout::new(format, Some(modifier), info.width(), info.height(), planes).ok()
}

/// Why it cannot be said where the planes of buffers lie.
#[derive(Debug, thiserror::Error)]
pub enum PlanesError {
    /// There are none, or they differ.
    #[error("the buffers are of several formats, sizes or kinds")]
    Unlike,
    /// Rows are longer than GStreamer can say.
    #[error("{0}")]
    Layout(#[from] LayoutError),
}

/// The first of buffers, which must be alike.
///
/// # Errors
/// [`PlanesError::Unlike`] where they are not, or there is none.
pub fn alike(buffers: &[Shrbuf]) -> Result<&Shrbuf, PlanesError> {
    let first = buffers.first().ok_or(PlanesError::Unlike)?;
    if buffers.iter().any(|b| b.layout() != first.layout() || b.kind() != first.kind()) {
        return Err(PlanesError::Unlike);
    }
    Ok(first)
}

/// Where the planes of buffers lie, as `GstVideoMeta` says it.
#[derive(Debug, Clone)]
pub struct Planes {
    /// Format and size.
    pub info: VideoInfo,
    /// Bytes from the first memory's begin, the memories one behind the other.
    pub offsets: Vec<usize>,
    /// Bytes of a row.
    pub strides: Vec<i32>,
    /// Bytes of each segment that are memory of the frame.
    pub sizes: Vec<usize>,
}

impl Planes {
    /// Of these buffers, which must be alike, and of the format and size that `info` says.
    ///
    /// # Errors
    /// [`PlanesError`].
    pub fn of(buffers: &[Shrbuf], info: VideoInfo) -> Result<Planes, PlanesError> {
        let layout = alike(buffers)?.layout();
        let smallest = |s: usize| buffers.iter().map(|b| b.segments()[s].size()).min().unwrap_or(0);
        // Padding behind the last row belongs to the frame where there is room for it: elements without GstVideoMeta
        // count on it.
        let sizes = (0..layout.segments()).map(|s| layout.segment_size(s).min(smallest(s)) as usize);
        let sizes: Vec<usize> = sizes.collect();
        let before = |segment: u8| sizes[..usize::from(segment)].iter().sum::<usize>();
        let offsets = layout.planes().iter().map(|p| before(p.segment) + p.offset as usize).collect();
        let too_wide = |p: &Plane| LayoutError::TooLarge {
            format: layout.format,
            width: layout.width,
            height: layout.height,
            align: p.stride,
        };
        let stride = |p: &Plane| i32::try_from(p.stride).map_err(|_| too_wide(p));
        let strides = layout.planes().iter().map(stride).collect::<Result<_, _>>()?;
        Ok(Planes { info, offsets, strides, sizes })
    }

    /// True where elements that do not look at `GstVideoMeta` find the planes.
    pub fn are_usual(&self) -> bool {
        let usual = (self.info.offset(), self.info.stride());
        usual == (&self.offsets[..], &self.strides[..]) && self.size() >= self.info.size()
    }

    /// Bytes of a frame.
    pub fn size(&self) -> usize {
        self.sizes.iter().sum()
    }
}

/// MatrixCoefficients of ITU-T H.273, and what usually goes with them.
const MATRICES: [(u8, VideoColorMatrix, VideoTransferFunction, VideoColorPrimaries); 3] = [
    (6, VideoColorMatrix::Bt601, VideoTransferFunction::Bt601, VideoColorPrimaries::Smpte170m),
    (1, VideoColorMatrix::Bt709, VideoTransferFunction::Bt709, VideoColorPrimaries::Bt709),
    (9, VideoColorMatrix::Bt2020, VideoTransferFunction::Bt202012, VideoColorPrimaries::Bt2020),
];

/// MatrixCoefficients and VideoFullRangeFlag of ITU-T H.273 of frames with this colorimetry; 2 for a matrix that nobody
/// here knows.
pub fn h273(colorimetry: &VideoColorimetry) -> (u8, bool) {
    let matrix = MATRICES.iter().find(|m| m.1 == colorimetry.matrix()).map_or(2, |m| m.0);
    (matrix, colorimetry.range() == VideoColorRange::Range0_255)
}

/// The colorimetry of frames that say so; `None` where they do not know.
pub fn colorimetry(matrix: u8, full_range: bool) -> Option<VideoColorimetry> {
    let range = if full_range { VideoColorRange::Range0_255 } else { VideoColorRange::Range16_235 };
    let known = MATRICES.iter().find(|m| m.0 == matrix);
    known.map(|&(_, matrix, transfer, primaries)| VideoColorimetry::new(range, matrix, transfer, primaries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_its_name_layout_and_planes_on_both_sides() {
        gst::init().unwrap();
        for format in formats() {
            let info = VideoInfo::builder(theirs(format).unwrap(), 322, 242).build().unwrap();
            let layout = layout(format, &info).unwrap();
            assert_eq!(ours(info.format()), Some(format));
            assert_eq!(layout.planes().len(), info.n_planes() as usize, "{format}");
            assert!(layout.segment_bytes(0) <= info.size() as u64, "{format}");
        }
    }

    #[test]
    fn colorimetry_goes_there_and_back() {
        gst::init().unwrap();
        for (matrix, full_range) in [6, 1, 9].into_iter().flat_map(|matrix| [(matrix, false), (matrix, true)]) {
            let there = colorimetry(matrix, full_range).unwrap();
            let info = VideoInfo::builder(VideoFormat::Nv12, 64, 48).colorimetry(&there).build().unwrap();
            let back = VideoInfo::from_caps(&info.to_caps().unwrap()).unwrap();
            assert_eq!(h273(&back.colorimetry()), (matrix, full_range));
        }
        assert!(colorimetry(2, true).is_none());
    }
}
