//! `VIDIOC_G_FMT`, `VIDIOC_S_FMT`, `VIDIOC_TRY_FMT`: the picture a queue delivers.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::{BufType, Failure, VIDEO_MAX_PLANES, Zeroed, sys, uninterrupted};

mod raw {
    use v4l::v4l_sys::v4l2_format;
    use v4l::v4l2::vidioc::{VIDIOC_G_FMT, VIDIOC_S_FMT, VIDIOC_TRY_FMT};
    nix::ioctl_readwrite_bad!(vidioc_g_fmt, VIDIOC_G_FMT, v4l2_format);
    nix::ioctl_readwrite_bad!(vidioc_s_fmt, VIDIOC_S_FMT, v4l2_format);
    nix::ioctl_readwrite_bad!(vidioc_try_fmt, VIDIOC_TRY_FMT, v4l2_format);
}

/// A V4L2 fourcc (`V4L2_PIX_FMT_*`); another number space than DRM's, see [`shrbuf::Format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PixelFormat(pub u32);

impl PixelFormat {
    /// From its four characters.
    pub const fn new(code: [u8; 4]) -> PixelFormat {
        PixelFormat(u32::from_le_bytes(code))
    }
}

/// The four characters, with `-BE` for the big-endian twins (bit 31); hexadecimal where they are no text.
impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BIG_ENDIAN: u32 = 1 << 31;
        let code = (self.0 & !BIG_ENDIAN).to_le_bytes();
        let big_endian = if self.0 & BIG_ENDIAN != 0 { "-BE" } else { "" };
        match std::str::from_utf8(&code) {
            Ok(text) if code.iter().all(|b| (b' '..=b'~').contains(b)) => write!(f, "{}{big_endian}", text.trim_end()),
            _ => write!(f, "{:#010x}", self.0),
        }
    }
}

/// What to ask a driver for. It answers with what it can do instead, unless the fourcc alone is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormatRequest {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// V4L2 fourcc.
    pub pixelformat: PixelFormat,
    /// Bytes from one row to the next that an importer wants, the same for every plane; `None` leaves it to the driver.
    /// Many drivers do not heed it: look at the answer.
    pub bytesperline: Option<u32>,
    /// What the numbers in the pixels mean, of frames that go in; of those that come out it is the driver that says so.
    pub colorimetry: Colorimetry,
}

/// The picture a queue delivers, as the driver chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// V4L2 fourcc.
    pub pixelformat: PixelFormat,
    /// How an interlaced picture is stored; [`Field::None`] for a progressive one.
    pub field: Field,
    /// What the numbers in the pixels mean.
    pub colorimetry: Colorimetry,
    /// Colors are multiplied by alpha already.
    pub premultiplied: bool,
    /// Memory planes, 1 to 8: one fd each. A planar format such as NV12 still has one of them, NM12 two.
    pub planes: Vec<PlaneFormat>,
}

/// A memory plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaneFormat {
    /// Bytes from one row to the next of its first color plane; 0 for compressed formats.
    pub bytesperline: u32,
    /// Bytes of memory the driver needs for it.
    pub sizeimage: u32,
}

/// The kernel's four numbers (`V4L2_COLORSPACE_*`, `V4L2_YCBCR_ENC_*`, `V4L2_QUANTIZATION_*`, `V4L2_XFER_FUNC_*`), as
/// they are: 0 is "the default for what the others say", and numbers newer than this code pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Colorimetry {
    /// `enum v4l2_colorspace`.
    pub colorspace: u32,
    /// `enum v4l2_ycbcr_encoding`.
    pub ycbcr_enc: u32,
    /// `enum v4l2_quantization`.
    pub quantization: u32,
    /// `enum v4l2_xfer_func`.
    pub xfer_func: u32,
}

/// Which lines of an interlaced picture a buffer has, and how (`enum v4l2_field`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Progressive.
    None,
    /// The top field alone.
    Top,
    /// The bottom field alone.
    Bottom,
    /// Both, line by line; which came first depends on the standard.
    Interlaced,
    /// Top field, then bottom field.
    SeqTb,
    /// Bottom field, then top field.
    SeqBt,
    /// One field a buffer, in turn; each buffer says which.
    Alternate,
    /// Both, line by line, top first.
    InterlacedTb,
    /// Both, line by line, bottom first.
    InterlacedBt,
    /// `V4L2_FIELD_ANY` or a number this code does not know.
    Other(u32),
}

impl From<u32> for Field {
    fn from(field: u32) -> Field {
        match field {
            sys::v4l2_field_V4L2_FIELD_NONE => Field::None,
            sys::v4l2_field_V4L2_FIELD_TOP => Field::Top,
            sys::v4l2_field_V4L2_FIELD_BOTTOM => Field::Bottom,
            sys::v4l2_field_V4L2_FIELD_INTERLACED => Field::Interlaced,
            sys::v4l2_field_V4L2_FIELD_SEQ_TB => Field::SeqTb,
            sys::v4l2_field_V4L2_FIELD_SEQ_BT => Field::SeqBt,
            sys::v4l2_field_V4L2_FIELD_ALTERNATE => Field::Alternate,
            sys::v4l2_field_V4L2_FIELD_INTERLACED_TB => Field::InterlacedTb,
            sys::v4l2_field_V4L2_FIELD_INTERLACED_BT => Field::InterlacedBt,
            other => Field::Other(other),
        }
    }
}

/// Why a format was not read or set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FmtError {
    /// EINVAL: the queue does not exist, or the fourcc is refused outright (most drivers choose another instead).
    #[error("{ioctl}: the driver refuses this format (EINVAL); the formats it has are listed by `shrbuf devices`")]
    Refused {
        /// The kernel's name of the call.
        ioctl: &'static str,
    },
    /// The driver's answer makes no sense.
    #[error("{ioctl}: the driver answered {width}x{height} with {num_planes} planes; this is a bug in the driver")]
    Nonsense {
        /// The kernel's name of the call.
        ioctl: &'static str,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// 1 to 8 make sense.
        num_planes: usize,
    },
    /// As for every ioctl; [`Failure::Busy`] while buffers are allocated.
    #[error(transparent)]
    Failure(#[from] Failure),
}

type RawCall = unsafe fn(libc::c_int, *mut sys::v4l2_format) -> nix::Result<libc::c_int>;

/// The format that is set.
///
/// # Errors
/// See [`FmtError`].
pub fn g_fmt(fd: impl AsFd, buf_type: BufType) -> Result<Format, FmtError> {
    let mut format = sys::v4l2_format::zeroed();
    format.type_ = buf_type as u32;
    call("VIDIOC_G_FMT", raw::vidioc_g_fmt, fd.as_fd(), buf_type, format)
}

/// Sets the format, and returns what the driver chose. The frame interval goes back to the default on some drivers: set
/// it afterwards.
///
/// # Errors
/// See [`FmtError`].
pub fn s_fmt(fd: impl AsFd, buf_type: BufType, request: &FormatRequest) -> Result<Format, FmtError> {
    call("VIDIOC_S_FMT", raw::vidioc_s_fmt, fd.as_fd(), buf_type, request.to_raw(buf_type))
}

/// What [`s_fmt`] would choose, without setting anything; works while streaming too.
///
/// # Errors
/// See [`FmtError`]; [`Failure::NotImplemented`] on some old drivers.
pub fn try_fmt(fd: impl AsFd, buf_type: BufType, request: &FormatRequest) -> Result<Format, FmtError> {
    call("VIDIOC_TRY_FMT", raw::vidioc_try_fmt, fd.as_fd(), buf_type, request.to_raw(buf_type))
}

/// The format that is set, for a call that it goes along with.
pub(super) fn in_use(fd: BorrowedFd<'_>, buf_type: BufType) -> Result<sys::v4l2_format, FmtError> {
    let mut format = sys::v4l2_format::zeroed();
    format.type_ = buf_type as u32;
    answer("VIDIOC_G_FMT", raw::vidioc_g_fmt, fd, format)
}

fn answer(
    ioctl: &'static str,
    raw_call: RawCall,
    fd: BorrowedFd<'_>,
    mut format: sys::v4l2_format,
) -> Result<sys::v4l2_format, FmtError> {
    // SAFETY: `fd` is open during the call, and all three calls read and write one v4l2_format, which `format` is.
    uninterrupted(|| unsafe { raw_call(fd.as_raw_fd(), &mut format) }).map_err(|errno| match errno {
        Errno::EINVAL => FmtError::Refused { ioctl },
        errno => Failure::new(ioctl, errno).into(),
    })?;
    Ok(format)
}

fn call(
    ioctl: &'static str,
    raw_call: RawCall,
    fd: BorrowedFd<'_>,
    buf_type: BufType,
    format: sys::v4l2_format,
) -> Result<Format, FmtError> {
    let format = answer(ioctl, raw_call, fd, format)?;
    let format = if buf_type.is_mplane() {
        // SAFETY: every member of the union is plain integers, and `pix_mp` is the one this type fills.
        Format::from(unsafe { format.fmt.pix_mp })
    } else {
        // SAFETY: every member of the union is plain integers, and `pix` is the one this type fills.
        Format::from(unsafe { format.fmt.pix })
    };
    let (width, height, num_planes) = (format.width, format.height, format.planes.len());
    if width == 0 || height == 0 || !(1..=VIDEO_MAX_PLANES).contains(&num_planes) {
        return Err(FmtError::Nonsense { ioctl, width, height, num_planes });
    }
    Ok(format)
}

impl FormatRequest {
    fn to_raw(self, buf_type: BufType) -> sys::v4l2_format {
        let mut format = sys::v4l2_format::zeroed();
        format.type_ = buf_type as u32;
        let bytesperline = self.bytesperline.unwrap_or(0);
        let Colorimetry { colorspace, ycbcr_enc, quantization, xfer_func } = self.colorimetry;
        if buf_type.is_mplane() {
            let mut pix_mp = sys::v4l2_pix_format_mplane::zeroed();
            pix_mp.width = self.width;
            pix_mp.height = self.height;
            pix_mp.pixelformat = self.pixelformat.0;
            pix_mp.field = sys::v4l2_field_V4L2_FIELD_ANY;
            pix_mp.num_planes = sys::VIDEO_MAX_PLANES as u8;
            pix_mp.colorspace = colorspace;
            // The kernel's numbers of these fit, and what does not is none of its numbers.
            let small = |number: u32| u8::try_from(number).unwrap_or(0);
            pix_mp.__bindgen_anon_1.ycbcr_enc = small(ycbcr_enc);
            (pix_mp.quantization, pix_mp.xfer_func) = (small(quantization), small(xfer_func));
            // The struct is packed, so its planes cannot be borrowed.
            pix_mp.plane_fmt =
                [sys::v4l2_plane_pix_format { sizeimage: 0, bytesperline, reserved: [0; 6] }; VIDEO_MAX_PLANES];
            format.fmt.pix_mp = pix_mp;
        } else {
            let mut pix = sys::v4l2_pix_format::zeroed();
            pix.width = self.width;
            pix.height = self.height;
            pix.pixelformat = self.pixelformat.0;
            pix.field = sys::v4l2_field_V4L2_FIELD_ANY;
            pix.bytesperline = bytesperline;
            pix.colorspace = colorspace;
            pix.__bindgen_anon_1.ycbcr_enc = ycbcr_enc;
            (pix.quantization, pix.xfer_func) = (quantization, xfer_func);
            // Without it the kernel takes the fields after `priv` for absent.
            pix.priv_ = sys::V4L2_PIX_FMT_PRIV_MAGIC;
            format.fmt.pix = pix;
        }
        format
    }
}

impl From<sys::v4l2_pix_format> for Format {
    fn from(pix: sys::v4l2_pix_format) -> Format {
        // SAFETY: both members of the union are the same integer.
        let ycbcr_enc = unsafe { pix.__bindgen_anon_1.ycbcr_enc };
        Format {
            width: pix.width,
            height: pix.height,
            pixelformat: PixelFormat(pix.pixelformat),
            field: Field::from(pix.field),
            colorimetry: Colorimetry {
                colorspace: pix.colorspace,
                ycbcr_enc,
                quantization: pix.quantization,
                xfer_func: pix.xfer_func,
            },
            premultiplied: pix.flags & sys::V4L2_PIX_FMT_FLAG_PREMUL_ALPHA != 0,
            planes: vec![PlaneFormat { bytesperline: pix.bytesperline, sizeimage: pix.sizeimage }],
        }
    }
}

impl From<sys::v4l2_pix_format_mplane> for Format {
    fn from(pix: sys::v4l2_pix_format_mplane) -> Format {
        // SAFETY: both members of the union are the same integer.
        let ycbcr_enc = unsafe { pix.__bindgen_anon_1.ycbcr_enc };
        let plane_fmt = pix.plane_fmt;
        let planes = plane_fmt
            .iter()
            .take(usize::from(pix.num_planes))
            .map(|p| PlaneFormat { bytesperline: p.bytesperline, sizeimage: p.sizeimage })
            .collect();
        Format {
            width: pix.width,
            height: pix.height,
            pixelformat: PixelFormat(pix.pixelformat),
            field: Field::from(pix.field),
            colorimetry: Colorimetry {
                colorspace: pix.colorspace,
                ycbcr_enc: u32::from(ycbcr_enc),
                quantization: u32::from(pix.quantization),
                xfer_func: u32::from(pix.xfer_func),
            },
            premultiplied: u32::from(pix.flags) & sys::V4L2_PIX_FMT_FLAG_PREMUL_ALPHA != 0,
            planes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixel_format_shows_its_characters() {
        assert_eq!(PixelFormat::new(*b"YUYV").to_string(), "YUYV");
        assert_eq!(PixelFormat::new(*b"Y16 ").to_string(), "Y16");
    }

    #[test]
    fn big_endian_pixel_format_shows_its_suffix() {
        assert_eq!(PixelFormat(PixelFormat::new(*b"AR15").0 | 1 << 31).to_string(), "AR15-BE");
    }

    #[test]
    fn pixel_format_that_is_no_text_shows_as_number() {
        assert_eq!(PixelFormat(7).to_string(), "0x00000007");
    }

    fn request(pixelformat: &[u8; 4], bytesperline: u32) -> FormatRequest {
        let colorimetry = Colorimetry { colorspace: 3, ycbcr_enc: 2, quantization: 1, xfer_func: 4 };
        let pixelformat = PixelFormat::new(*pixelformat);
        FormatRequest { width: 2, height: 3, pixelformat, bytesperline: Some(bytesperline), colorimetry }
    }

    #[test]
    fn request_says_what_colors_mean() {
        for (buf_type, pixelformat) in [(BufType::VideoOutput, b"YUYV"), (BufType::VideoOutputMplane, b"NM12")] {
            let request = request(pixelformat, 64);
            let raw = request.to_raw(buf_type);
            let asked = if buf_type.is_mplane() {
                // SAFETY: `pix_mp` is the member that to_raw just wrote.
                Format::from(unsafe { raw.fmt.pix_mp })
            } else {
                // SAFETY: `pix` is the member that to_raw just wrote.
                Format::from(unsafe { raw.fmt.pix })
            };
            assert_eq!(asked.colorimetry, request.colorimetry);
        }
    }

    #[test]
    fn single_planar_request_asks_for_stride_and_extended_fields() {
        let request = request(b"XR24", 256);
        let raw = request.to_raw(BufType::VideoCapture);
        // SAFETY: `pix` is the member that to_raw just wrote.
        let pix = unsafe { raw.fmt.pix };
        assert_eq!((pix.width, pix.height, pix.bytesperline), (2, 3, 256));
        assert_eq!(pix.priv_, sys::V4L2_PIX_FMT_PRIV_MAGIC);
    }

    #[test]
    fn multi_planar_request_asks_for_stride_in_every_plane() {
        let request = request(b"NM12", 64);
        let raw = request.to_raw(BufType::VideoCaptureMplane);
        // SAFETY: `pix_mp` is the member that to_raw just wrote.
        let planes = unsafe { raw.fmt.pix_mp }.plane_fmt;
        assert!(planes.iter().all(|p| p.bytesperline == 64));
    }

    #[test]
    fn more_planes_than_there_are_do_not_panic() {
        let mut pix = sys::v4l2_pix_format_mplane::zeroed();
        pix.num_planes = 200;
        assert_eq!(Format::from(pix).planes.len(), VIDEO_MAX_PLANES);
    }

    #[test]
    fn unknown_field_keeps_its_number() {
        assert_eq!(Field::from(77), Field::Other(77));
    }
}
