//! What a picture is called on both sides, as pipelines say it: caps, planes, colorimetry.

use gst_video::VideoInfo;
use shrbuf::{Family, Format, Modifier, Shrbuf};
use shrbuf_gst_memory::{Planes, PlanesError, video};
use shrbuf_pipeline::{Colorimetry, Matrix, Range, Rate, Size};

use crate::ipc::MATRICES;

/// What one side has and the other cannot say.
#[derive(Debug, thiserror::Error)]
pub(super) enum VideoError {
    #[error("GStreamer has no name for {0}")]
    NoFormat(Format),
    #[error("pictures laid out as {0} cannot be passed to GStreamer, only linear ones")]
    Tiled(Modifier),
    #[error("{0}")]
    Planes(#[from] PlanesError),
    #[error("{0}")]
    Gst(#[from] gst::glib::BoolError),
}

/// GStreamer's name.
fn theirs(format: Format) -> Result<gst_video::VideoFormat, VideoError> {
    video::theirs(format).ok_or(VideoError::NoFormat(format))
}

/// Frames of this format, size and rate; their rows are padded as GStreamer does by default.
pub(super) fn info(
    format: Format,
    size: Size,
    rate: Option<Rate>,
    color: Option<Colorimetry>,
) -> Result<VideoInfo, VideoError> {
    let color = color.filter(|_| matches!(format.family(), Family::Yuv)).and_then(colorimetry);
    let fraction = |rate: Rate| Some((i32::try_from(rate.num).ok()?, i32::try_from(rate.den).ok()?));
    let fps = rate.and_then(fraction).map_or(gst::Fraction::new(0, 1), gst::Fraction::from);
    let builder = VideoInfo::builder(theirs(format)?, size.width, size.height).fps(fps);
    Ok(builder.colorimetry_if_some(color.as_ref()).build()?)
}

/// Caps of such frames that leave open what is not known: the rate, the colorimetry.
pub(super) fn caps(format: Format, size: Size, rate: Option<Rate>) -> Result<gst::Caps, VideoError> {
    let (width, height) = (size.width.min(i32::MAX as u32) as i32, size.height.min(i32::MAX as u32) as i32);
    let caps = gst_video::VideoCapsBuilder::new().format(theirs(format)?).width(width).height(height);
    let fraction = |rate: Rate| Some(gst::Fraction::new(i32::try_from(rate.num).ok()?, i32::try_from(rate.den).ok()?));
    Ok(match rate.and_then(fraction) {
        Some(rate) => caps.framerate(rate).build(),
        None => caps.build(),
    })
}

/// Where the planes of these buffers lie, which must be alike.
pub(super) fn planes(buffers: &[Shrbuf]) -> Result<Planes, VideoError> {
    let layout = video::alike(buffers)?.layout();
    if let Some(modifier) = layout.modifier.filter(|_| !layout.is_linear()) {
        return Err(VideoError::Tiled(modifier));
    }
    let info = info(layout.format, Size::new(layout.width, layout.height), None, None)?;
    Ok(Planes::of(buffers, info)?)
}

fn colorimetry(color: Colorimetry) -> Option<gst_video::VideoColorimetry> {
    let (code, _) = MATRICES.iter().find(|(_, matrix)| *matrix == color.matrix)?;
    video::colorimetry(*code, color.range == Range::Full)
}

/// What frames say of themselves; of what they do not know, the usual.
pub(super) fn color(info: &VideoInfo) -> Colorimetry {
    let (code, full_range) = video::h273(&info.colorimetry());
    let matrix = MATRICES.iter().find(|(known, _)| *known == code).map_or(Matrix::default(), |(_, matrix)| *matrix);
    Colorimetry { matrix, range: if full_range { Range::Full } else { Range::Limited } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colorimetry_goes_there_and_back() {
        gst::init().unwrap();
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
            for range in [Range::Full, Range::Limited] {
                let there = info(Format::Nv12, Size::new(64, 48), None, Some(Colorimetry { matrix, range })).unwrap();
                let back = VideoInfo::from_caps(&there.to_caps().unwrap()).unwrap();
                assert_eq!(color(&back), Colorimetry { matrix, range });
            }
        }
    }
}
