//! What code values mean, in the kernel's four numbers and in matrix and range ("Colorspaces", V4L2 documentation; its
//! defaults are the `V4L2_MAP_*_DEFAULT` of linux/videodev2.h).

use shrbuf::{Family, Format};
use shrbuf_pipeline::{Colorimetry, Matrix, Range, Stream};
use v4l::v4l_sys::{
    v4l2_colorspace_V4L2_COLORSPACE_BT2020 as BT2020, v4l2_colorspace_V4L2_COLORSPACE_DCI_P3 as DCI_P3,
    v4l2_colorspace_V4L2_COLORSPACE_JPEG as JPEG, v4l2_colorspace_V4L2_COLORSPACE_REC709 as REC709,
    v4l2_colorspace_V4L2_COLORSPACE_SMPTE170M as SMPTE170M, v4l2_colorspace_V4L2_COLORSPACE_SMPTE240M as SMPTE240M,
    v4l2_colorspace_V4L2_COLORSPACE_SRGB as SRGB, v4l2_quantization_V4L2_QUANTIZATION_FULL_RANGE as FULL_RANGE,
    v4l2_quantization_V4L2_QUANTIZATION_LIM_RANGE as LIM_RANGE, v4l2_xfer_func_V4L2_XFER_FUNC_709 as XFER_709,
    v4l2_xfer_func_V4L2_XFER_FUNC_SRGB as XFER_SRGB, v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_601 as ENC_601,
    v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_709 as ENC_709, v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020 as ENC_BT2020,
    v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_BT2020_CONST_LUM as ENC_BT2020_CONST_LUM,
    v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_SMPTE240M as ENC_SMPTE240M,
    v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV601 as ENC_XV601, v4l2_ycbcr_encoding_V4L2_YCBCR_ENC_XV709 as ENC_XV709,
};

use super::ioctl::{self, Codec};

/// Of all four: "the default for what the others say".
const DEFAULT: u32 = 0;

/// What a driver says of pictures of this width.
pub(super) fn meant(format: Format, said: ioctl::Colorimetry, width: u32) -> Colorimetry {
    let colorspace = match said.colorspace {
        // V4L2_MAP_COLORSPACE_DEFAULT wants to know what television it is.
        DEFAULT if width >= 1280 => REC709,
        other => other,
    };
    let matrix = match (said.ycbcr_enc, colorspace) {
        (ENC_709 | ENC_XV709, _) | (DEFAULT, REC709 | DCI_P3) => Matrix::Bt709,
        // The nearest that there is: saturated colours are up to 5 of 255 beside theirs.
        (ENC_SMPTE240M, _) | (DEFAULT, SMPTE240M) => Matrix::Bt709,
        // Of constant luminance no matrix is right.
        (ENC_BT2020 | ENC_BT2020_CONST_LUM, _) | (DEFAULT, BT2020) => Matrix::Bt2020,
        _ => Matrix::Bt601,
    };
    let range = match (format.family(), said.quantization) {
        // There is but one xvYCC, whatever is said of its range: what lies outside 16..235 are colours outside the gamut.
        (Family::Yuv, _) if matches!(said.ycbcr_enc, ENC_XV601 | ENC_XV709) => Range::Limited,
        (_, FULL_RANGE) => Range::Full,
        (_, LIM_RANGE) => Range::Limited,
        (Family::Yuv, _) if colorspace != JPEG => Range::Limited,
        _ => Range::Full,
    };
    Colorimetry { matrix, range }
}

/// What to tell a driver of frames. Primaries and transfer function are those that usually go with the matrix: frames do not
/// say.
pub(super) fn told(format: Format, color: Colorimetry) -> ioctl::Colorimetry {
    let (colorspace, ycbcr_enc, xfer_func) = match (format.family(), color.matrix) {
        (Family::Rgb, _) => return ioctl::Colorimetry { colorspace: SRGB, xfer_func: XFER_SRGB, ..Default::default() },
        (Family::Yuv, Matrix::Bt601) => (SMPTE170M, ENC_601, XFER_709),
        (Family::Yuv, Matrix::Bt709) => (REC709, ENC_709, XFER_709),
        (Family::Yuv, Matrix::Bt2020) => (BT2020, ENC_BT2020, XFER_709),
        _ => return ioctl::Colorimetry::default(),
    };
    let quantization = match color.range {
        Range::Full => FULL_RANGE,
        // Which is limited; but a converter that says of its RGB what it was told of YUV would make that limited too.
        Range::Limited => DEFAULT,
    };
    ioctl::Colorimetry { colorspace, ycbcr_enc, quantization, xfer_func }
}

/// What a memory-to-memory device makes, where that is not what its frames were made of: a decoder reads it from the stream,
/// unless it says nothing, and of RGB a converter makes YUV as it likes.
pub(super) fn made(codec: Option<Codec>, of: Format, stream: &Stream, said: ioctl::Colorimetry) -> Option<Colorimetry> {
    let own = match codec {
        Some(Codec::Encoder) => false,
        Some(Codec::Decoder) => (said.colorspace, said.ycbcr_enc, said.quantization) != (DEFAULT, DEFAULT, DEFAULT),
        None => of.family() != stream.format.family(),
    };
    own.then(|| meant(stream.format, said, stream.size.width))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BT601: Colorimetry = Colorimetry { matrix: Matrix::Bt601, range: Range::Limited };
    const BT709: Colorimetry = Colorimetry { matrix: Matrix::Bt709, range: Range::Limited };
    const BT2020: Colorimetry = Colorimetry { matrix: Matrix::Bt2020, range: Range::Limited };

    fn said(colorspace: u32, ycbcr_enc: u32, quantization: u32) -> ioctl::Colorimetry {
        ioctl::Colorimetry { colorspace, ycbcr_enc, quantization, xfer_func: 0 }
    }

    fn yuyv(colorspace: u32, ycbcr_enc: u32, quantization: u32, width: u32) -> Colorimetry {
        meant(Format::Yuyv, said(colorspace, ycbcr_enc, quantization), width)
    }

    #[test]
    fn the_kernels_default_of_each_colorspace() {
        let matrices = [
            (1, BT601),
            (2, BT709),
            (3, BT709),
            (5, BT601),
            (6, BT601),
            (8, BT601),
            (9, BT601),
            (10, BT2020),
            (11, BT601),
            (12, BT709),
        ];
        for (colorspace, expected) in matrices {
            for width in [640, 1920] {
                assert_eq!(yuyv(colorspace, 0, 0, width), expected, "{colorspace} {width}");
            }
        }
        assert_eq!(yuyv(7, 0, 0, 640), Colorimetry { range: Range::Full, ..BT601 });
    }

    #[test]
    fn without_a_colorspace_the_width_decides() {
        assert_eq!((yuyv(0, 0, 0, 1279), yuyv(0, 0, 0, 1280)), (BT601, BT709));
    }

    #[test]
    fn an_encoding_that_is_named_is_that_of_any_colorspace() {
        let encodings =
            [(1, BT601), (2, BT709), (3, BT601), (4, BT709), (5, BT601), (6, BT2020), (7, BT2020), (8, BT709)];
        for (encoding, expected) in encodings {
            for (colorspace, width) in [(0, 640), (0, 1920), (1, 1920), (3, 640), (10, 640)] {
                assert_eq!(yuyv(colorspace, encoding, 0, width), expected, "{colorspace} {encoding} {width}");
            }
        }
    }

    #[test]
    fn a_range_that_is_named_is_that_of_all_but_xvycc() {
        for encoding in [1, 2, 5, 6, 8] {
            assert_eq!(yuyv(8, encoding, 1, 640).range, Range::Full, "{encoding}");
            assert_eq!(yuyv(7, encoding, 2, 640).range, Range::Limited, "{encoding}");
        }
        for encoding in [3, 4] {
            assert_eq!(yuyv(8, encoding, 1, 640).range, Range::Limited, "{encoding}");
        }
    }

    #[test]
    fn rgb_is_full_unless_it_is_said_not_to_be() {
        let range = |quantization| meant(Format::Xr24, said(8, 0, quantization), 640).range;
        assert_eq!((range(0), range(1), range(2)), (Range::Full, Range::Full, Range::Limited));
    }

    #[test]
    fn what_is_told_means_the_same() {
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
            for range in [Range::Limited, Range::Full] {
                let color = Colorimetry { matrix, range };
                for width in [640, 1920] {
                    assert_eq!(meant(Format::Nv12, told(Format::Nv12, color), width), color);
                }
                // And nothing of it says that RGB is anything but full.
                assert_eq!(meant(Format::Xr24, told(Format::Nv12, color), 640).range, Range::Full);
            }
        }
    }

    #[test]
    fn of_rgb_no_matrix_is_told_and_of_a_codecs_frames_nothing() {
        let color = Colorimetry { matrix: Matrix::Bt709, range: Range::Limited };
        let rgb = told(Format::Xr24, color);
        assert_eq!((rgb.colorspace, rgb.ycbcr_enc, rgb.quantization, rgb.xfer_func), (8, 0, 0, 2));
        assert_eq!(told(Format::H264, color), ioctl::Colorimetry::default());
    }
}
