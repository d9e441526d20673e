//! Pixel formats: one list for the whole project.
//!
//! Names are the kernel's: the DRM fourcc where DRM has one (`XR24`, `NV12`), and the V4L2 macro's name without
//! its prefix for raw sensor data (`SRGGB10`), because the fourcc of `V4L2_PIX_FMT_SRGGB16` (`RG16`) is already
//! DRM's RGB565. DRM names a format by its bits in a little-endian word and V4L2 by its bytes in memory, so the two
//! numbers of one format often differ: [`Format::drm`] and [`Format::v4l2`] give each kernel interface its own.
//!
//! Sources: `include/uapi/drm/drm_fourcc.h`, `include/uapi/linux/videodev2.h`.

use std::fmt;
use std::str::FromStr;

/// What a format's samples mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Red, green, blue, with or without alpha.
    Rgb,
    /// Luma and two chroma components.
    Yuv,
    /// Luma alone.
    Gray,
    /// One colour a sample, in a 2x2 mosaic.
    Bayer,
    /// No samples: bytes that a codec makes and understands, another number of them in each frame.
    Compressed,
}

/// How one plane of a format is sampled: a block of `bytes` covers `hsub` x `vsub` pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Bytes in a block; 0 in a compressed format, which has no rows.
    pub bytes: u32,
    /// Pixels a block covers horizontally.
    pub hsub: u32,
    /// Pixels a block covers vertically.
    pub vsub: u32,
}

struct Info {
    format: Format,
    name: &'static str,
    drm: Option<u32>,
    v4l2: u32,
    v4l2_multi: Option<u32>,
    family: Family,
    bits: u8,
    planes: &'static [Sampling],
}

const fn cc(s: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*s)
}

const fn s(bytes: u32, hsub: u32, vsub: u32) -> Sampling {
    Sampling { bytes, hsub, vsub }
}

macro_rules! formats {
    ($($(#[$doc:meta])* $id:ident $name:literal $drm:expr, $v4l2:literal, $multi:expr, $family:ident $bits:literal [$($plane:expr),+];)+) => {
        /// A pixel format that every element understands by the same name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Format { $($(#[$doc])* $id,)+ }

        const TABLE: &[Info] = &[$(Info {
            format: Format::$id, name: $name, drm: $drm, v4l2: cc($v4l2), v4l2_multi: $multi,
            family: Family::$family, bits: $bits, planes: &[$($plane),+],
        },)+];
    };
}

formats! {
    /// B, G, R, unused: DRM_FORMAT_XRGB8888.
    Xr24 "XR24" Some(cc(b"XR24")), b"XR24", None, Rgb 8 [s(4, 1, 1)];
    /// B, G, R, alpha: DRM_FORMAT_ARGB8888.
    Ar24 "AR24" Some(cc(b"AR24")), b"AR24", None, Rgb 8 [s(4, 1, 1)];
    /// R, G, B, unused: DRM_FORMAT_XBGR8888.
    Xb24 "XB24" Some(cc(b"XB24")), b"XB24", None, Rgb 8 [s(4, 1, 1)];
    /// R, G, B, alpha: DRM_FORMAT_ABGR8888.
    Ab24 "AB24" Some(cc(b"AB24")), b"AB24", None, Rgb 8 [s(4, 1, 1)];
    /// B, G, R: DRM_FORMAT_RGB888, V4L2_PIX_FMT_BGR24.
    Rg24 "RG24" Some(cc(b"RG24")), b"BGR3", None, Rgb 8 [s(3, 1, 1)];
    /// R, G, B: DRM_FORMAT_BGR888, V4L2_PIX_FMT_RGB24.
    Bg24 "BG24" Some(cc(b"BG24")), b"RGB3", None, Rgb 8 [s(3, 1, 1)];
    /// 5, 6, 5 bits in a little-endian word: DRM_FORMAT_RGB565.
    Rg16 "RG16" Some(cc(b"RG16")), b"RGBP", None, Rgb 5 [s(2, 1, 1)];
    /// Y, Cb, Y, Cr.
    Yuyv "YUYV" Some(cc(b"YUYV")), b"YUYV", None, Yuv 8 [s(4, 2, 1)];
    /// Cb, Y, Cr, Y.
    Uyvy "UYVY" Some(cc(b"UYVY")), b"UYVY", None, Yuv 8 [s(4, 2, 1)];
    /// Y, Cr, Y, Cb.
    Yvyu "YVYU" Some(cc(b"YVYU")), b"YVYU", None, Yuv 8 [s(4, 2, 1)];
    /// Cr, Y, Cb, Y.
    Vyuy "VYUY" Some(cc(b"VYUY")), b"VYUY", None, Yuv 8 [s(4, 2, 1)];
    /// Y; interleaved Cb, Cr at half size both ways.
    Nv12 "NV12" Some(cc(b"NV12")), b"NV12", Some(cc(b"NM12")), Yuv 8 [s(1, 1, 1), s(2, 2, 2)];
    /// Y; interleaved Cr, Cb at half size both ways.
    Nv21 "NV21" Some(cc(b"NV21")), b"NV21", Some(cc(b"NM21")), Yuv 8 [s(1, 1, 1), s(2, 2, 2)];
    /// Y; interleaved Cb, Cr at half width.
    Nv16 "NV16" Some(cc(b"NV16")), b"NV16", Some(cc(b"NM16")), Yuv 8 [s(1, 1, 1), s(2, 2, 1)];
    /// Y; Cb; Cr at half size both ways (I420).
    Yu12 "YU12" Some(cc(b"YU12")), b"YU12", Some(cc(b"YM12")), Yuv 8 [s(1, 1, 1), s(1, 2, 2), s(1, 2, 2)];
    /// Y; Cr; Cb at half size both ways.
    Yv12 "YV12" Some(cc(b"YV12")), b"YV12", Some(cc(b"YM21")), Yuv 8 [s(1, 1, 1), s(1, 2, 2), s(1, 2, 2)];
    /// Y; Cb; Cr at half width.
    Yu16 "YU16" Some(cc(b"YU16")), b"422P", Some(cc(b"YM16")), Yuv 8 [s(1, 1, 1), s(1, 2, 1), s(1, 2, 1)];
    /// Y; Cb; Cr, none subsampled. V4L2 has no name for it in one buffer; DRM's stands in, which no driver says.
    Yu24 "YU24" Some(cc(b"YU24")), b"YU24", Some(cc(b"YM24")), Yuv 8 [s(1, 1, 1), s(1, 1, 1), s(1, 1, 1)];
    /// 8-bit luma: DRM_FORMAT_R8, V4L2_PIX_FMT_GREY.
    Grey "GREY" Some(cc(b"R8  ")), b"GREY", None, Gray 8 [s(1, 1, 1)];
    /// 8-bit Bayer, rows BGBG, GRGR.
    Sbggr8 "SBGGR8" None, b"BA81", None, Bayer 8 [s(1, 1, 1)];
    /// 8-bit Bayer, rows GBGB, RGRG.
    Sgbrg8 "SGBRG8" None, b"GBRG", None, Bayer 8 [s(1, 1, 1)];
    /// 8-bit Bayer, rows GRGR, BGBG.
    Sgrbg8 "SGRBG8" None, b"GRBG", None, Bayer 8 [s(1, 1, 1)];
    /// 8-bit Bayer, rows RGRG, GBGB.
    Srggb8 "SRGGB8" None, b"RGGB", None, Bayer 8 [s(1, 1, 1)];
    /// 10-bit Bayer in 16-bit words.
    Sbggr10 "SBGGR10" None, b"BG10", None, Bayer 10 [s(2, 1, 1)];
    /// 10-bit Bayer in 16-bit words.
    Sgbrg10 "SGBRG10" None, b"GB10", None, Bayer 10 [s(2, 1, 1)];
    /// 10-bit Bayer in 16-bit words.
    Sgrbg10 "SGRBG10" None, b"BA10", None, Bayer 10 [s(2, 1, 1)];
    /// 10-bit Bayer in 16-bit words.
    Srggb10 "SRGGB10" None, b"RG10", None, Bayer 10 [s(2, 1, 1)];
    /// 12-bit Bayer in 16-bit words.
    Sbggr12 "SBGGR12" None, b"BG12", None, Bayer 12 [s(2, 1, 1)];
    /// 12-bit Bayer in 16-bit words.
    Sgbrg12 "SGBRG12" None, b"GB12", None, Bayer 12 [s(2, 1, 1)];
    /// 12-bit Bayer in 16-bit words.
    Sgrbg12 "SGRBG12" None, b"BA12", None, Bayer 12 [s(2, 1, 1)];
    /// 12-bit Bayer in 16-bit words.
    Srggb12 "SRGGB12" None, b"RG12", None, Bayer 12 [s(2, 1, 1)];
    /// 16-bit Bayer.
    Sbggr16 "SBGGR16" None, b"BYR2", None, Bayer 16 [s(2, 1, 1)];
    /// 16-bit Bayer.
    Sgbrg16 "SGBRG16" None, b"GB16", None, Bayer 16 [s(2, 1, 1)];
    /// 16-bit Bayer.
    Sgrbg16 "SGRBG16" None, b"GR16", None, Bayer 16 [s(2, 1, 1)];
    /// 16-bit Bayer.
    Srggb16 "SRGGB16" None, b"RG16", None, Bayer 16 [s(2, 1, 1)];
    /// Fast Walsh-Hadamard transform: the kernel's own test codec, vicodec.
    Fwht "FWHT" None, b"FWHT", None, Compressed 0 [s(0, 1, 1)];
    /// H.264, an access unit of the byte stream a frame.
    H264 "H264" None, b"H264", None, Compressed 0 [s(0, 1, 1)];
    /// H.265, an access unit of the byte stream a frame.
    Hevc "HEVC" None, b"HEVC", None, Compressed 0 [s(0, 1, 1)];
    /// VP8.
    Vp8 "VP8" None, b"VP80", None, Compressed 0 [s(0, 1, 1)];
    /// VP9.
    Vp9 "VP9" None, b"VP90", None, Compressed 0 [s(0, 1, 1)];
    /// A JPEG picture a frame, as cameras make it (tables may be left out).
    Mjpg "MJPG" None, b"MJPG", None, Compressed 0 [s(0, 1, 1)];
    /// A whole JPEG picture a frame.
    Jpeg "JPEG" None, b"JPEG", None, Compressed 0 [s(0, 1, 1)];
}

impl Format {
    /// Every format that has pixels, in the table's order.
    pub fn all() -> impl Iterator<Item = Format> {
        TABLE.iter().map(|info| info.format).filter(|f| !f.is_compressed())
    }

    /// Every compressed format, in the table's order. Only elements that know what to do without pixels offer them.
    pub fn compressed() -> impl Iterator<Item = Format> {
        TABLE.iter().map(|info| info.format).filter(|f| f.is_compressed())
    }

    /// True where frames are a codec's bytes and not pixels.
    pub fn is_compressed(self) -> bool {
        self.family() == Family::Compressed
    }

    fn info(self) -> &'static Info {
        &TABLE[self as usize]
    }

    /// The name used in TOML, messages and JSON.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The DRM fourcc; `None` for Bayer and compressed data, which DRM does not know.
    pub fn drm(self) -> Option<u32> {
        self.info().drm
    }

    /// The V4L2 fourcc with all planes in one buffer.
    pub fn v4l2(self) -> u32 {
        self.info().v4l2
    }

    /// The V4L2 fourcc with a buffer for each plane (the `M` formats of the multi-planar API).
    pub fn v4l2_multi(self) -> Option<u32> {
        self.info().v4l2_multi
    }

    /// The format of a DRM fourcc.
    pub fn from_drm(fourcc: u32) -> Option<Format> {
        TABLE.iter().find(|i| i.drm == Some(fourcc)).map(|i| i.format)
    }

    /// The format of a V4L2 fourcc, and whether each plane has a buffer of its own.
    pub fn from_v4l2(fourcc: u32) -> Option<(Format, bool)> {
        TABLE.iter().find_map(|i| {
            if i.v4l2 == fourcc {
                Some((i.format, false))
            } else if i.v4l2_multi == Some(fourcc) {
                Some((i.format, true))
            } else {
                None
            }
        })
    }

    /// What the samples mean.
    pub fn family(self) -> Family {
        self.info().family
    }

    /// Significant bits of a sample.
    pub fn bits(self) -> u8 {
        self.info().bits
    }

    /// How each plane is sampled; its length is the number of planes, 1 to 3.
    pub fn planes(self) -> &'static [Sampling] {
        self.info().planes
    }

    /// Bytes of one frame without padding; 0 where it is compressed, and each frame says.
    pub fn frame_bytes(self, width: u32, height: u32) -> u64 {
        self.planes()
            .iter()
            .map(|p| (u64::from(width.div_ceil(p.hsub)) * u64::from(p.bytes), u64::from(height.div_ceil(p.vsub))))
            .fold(0, |sum: u64, (row, rows)| sum.saturating_add(row.saturating_mul(rows)))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a pixel format; formats are {list}", list = names())]
pub struct UnknownFormat(pub String);

fn names() -> String {
    TABLE.iter().map(|i| i.name).collect::<Vec<_>>().join(", ")
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        TABLE
            .iter()
            .find(|i| i.name.eq_ignore_ascii_case(name))
            .map(|i| i.format)
            .ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

/// How the samples are arranged in memory: a DRM format modifier (`drm_fourcc.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Modifier(pub u64);

impl Modifier {
    /// Rows one after the other: DRM_FORMAT_MOD_LINEAR.
    pub const LINEAR: Modifier = Modifier(0);
}

impl fmt::Display for Modifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Modifier::LINEAR { f.pad("LINEAR") } else { write!(f, "{:#018x}", self.0) }
    }
}

/// A fourcc as text, for messages about formats outside the list: `NV12`, or hexadecimal where it is not text.
pub fn fourcc_name(fourcc: u32) -> String {
    let bytes = fourcc.to_le_bytes();
    if bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
        bytes.iter().map(|&b| b as char).collect::<String>().trim_end().to_owned()
    } else {
        format!("{fourcc:#010x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_order_is_enum_order() {
        for (i, info) in TABLE.iter().enumerate() {
            assert_eq!(info.format as usize, i, "{}", info.name);
        }
    }

    #[test]
    fn names_are_unique_and_parse_back() {
        for f in Format::all() {
            assert_eq!(f.name().parse::<Format>(), Ok(f));
            assert_eq!(f.name().to_lowercase().parse::<Format>(), Ok(f));
        }
    }

    #[test]
    fn kernel_numbers_map_back() {
        for f in Format::all() {
            assert_eq!(Format::from_v4l2(f.v4l2()), Some((f, false)));
            assert_eq!(f.drm().and_then(Format::from_drm).unwrap_or(f), f);
            assert_eq!(f.v4l2_multi().and_then(Format::from_v4l2).unwrap_or((f, true)), (f, true));
        }
    }

    #[test]
    fn compressed_formats_are_named_but_have_no_pixels() {
        for f in Format::compressed() {
            assert_eq!(f.name().parse::<Format>(), Ok(f));
            assert_eq!(Format::from_v4l2(f.v4l2()), Some((f, false)));
            assert_eq!(f.frame_bytes(640, 480), 0);
            assert!(!Format::all().any(|raw| raw == f));
        }
    }

    #[test]
    fn rg16_is_rgb565_to_drm_and_bayer_to_v4l2() {
        assert_eq!(Format::from_drm(cc(b"RG16")), Some(Format::Rg16));
        assert_eq!(Format::from_v4l2(cc(b"RG16")), Some((Format::Srggb16, false)));
    }

    #[test]
    fn odd_sizes_round_chroma_up() {
        assert_eq!(Format::Nv12.frame_bytes(3, 3), 9 + 8);
        assert_eq!(Format::Yuyv.frame_bytes(3, 2), 16);
    }

    #[test]
    fn unknown_name_is_reported_with_the_list() {
        let e = "NV13".parse::<Format>().unwrap_err();
        assert!(e.to_string().starts_with("`NV13` is not a pixel format; formats are XR24"));
    }
}
