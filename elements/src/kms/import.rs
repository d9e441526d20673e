//! Why the kernel refused a frame buffer.
//!
//! PRIME import and AddFB2 answer EINVAL to a dozen different mistakes. After a refusal, and only then, this goes
//! through the checks that `drm_framebuffer.c` and `drm_gem_framebuffer_helper.c` make and names the first that the
//! values fail. What none of them explains is a rule of the driver's own, and says all values.

use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::os::fd::BorrowedFd;

use drm::control::Device as _;
use shrbuf::Modifier;
use shrbuf::format::fourcc_name;

use super::device::Card;
use super::formats::PlaneFormats;
use super::gem::FrameSpec;

/// A frame buffer that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The descriptor is open, or not, but no dma-buf.
    #[error("plane {plane}: the descriptor is not a dma-buf: {source}")]
    NotDmaBuf {
        /// Which plane.
        plane: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The driver cannot reach the dma-buf's memory.
    #[error(
        "plane {plane}: {driver} cannot import this dma-buf: {source}; memory from another exporter may do \
         (a contiguous dma-heap, or the display's own dumb buffers)"
    )]
    Memory {
        /// Which plane.
        plane: usize,
        /// The driver.
        driver: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// DRM has no fourcc for the format.
    #[error("{format} cannot be shown: DRM has no fourcc for it")]
    NoFourcc {
        /// The format.
        format: shrbuf::Format,
    },
    /// No plane takes the format.
    #[error("{driver} takes no {}; its planes take {}", fourcc_name(*.fourcc), list(.takes))]
    Format {
        /// DRM fourcc.
        fourcc: u32,
        /// The driver.
        driver: String,
        /// What each plane takes.
        takes: Vec<PlaneFormats>,
    },
    /// Planes take the format, but not with this modifier.
    #[error(
        "{driver} takes {} but not with modifier {}; it takes {}",
        fourcc_name(*.fourcc), Modifier(*.modifier), modifiers(.takes)
    )]
    Modifier {
        /// DRM fourcc.
        fourcc: u32,
        /// The modifier.
        modifier: u64,
        /// The driver.
        driver: String,
        /// Modifiers that some plane takes with this format.
        takes: Vec<u64>,
    },
    /// The driver knows no modifiers.
    #[error("{driver} knows no modifiers; {} must be linear, not {}", fourcc_name(*.fourcc), Modifier(*.modifier))]
    NoModifiers {
        /// DRM fourcc.
        fourcc: u32,
        /// The modifier.
        modifier: u64,
        /// The driver.
        driver: String,
    },
    /// The size is beyond the driver's limits.
    #[error(
        "size {width}x{height} is outside {}x{} to {}x{}, which {driver} takes",
        .widths.start(), .heights.start(), .widths.end(), .heights.end()
    )]
    Size {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// The driver.
        driver: String,
        /// Pixels it takes.
        widths: RangeInclusive<u32>,
        /// Pixels it takes.
        heights: RangeInclusive<u32>,
    },
    /// The planes are not as many as the format has.
    #[error(
        "{} has {} plane(s), {given} given", fourcc_name(*.fourcc),
        if .expected.start() == .expected.end() { .expected.start().to_string() } else { "1 to 4".to_owned() }
    )]
    PlaneCount {
        /// DRM fourcc.
        fourcc: u32,
        /// Planes given.
        given: usize,
        /// Planes it has.
        expected: RangeInclusive<usize>,
    },
    /// A row does not fit in the stride.
    #[error("plane {plane}: stride {stride} is less than the {row} bytes of a row")]
    Stride {
        /// Which plane.
        plane: usize,
        /// Bytes.
        stride: u32,
        /// Bytes.
        row: u64,
    },
    /// The plane reaches beyond the end of its dma-buf.
    #[error("plane {plane} at offset {offset} with stride {stride} ends at byte {end} of a dma-buf of {bytes} bytes")]
    Extent {
        /// Which plane.
        plane: usize,
        /// Bytes.
        offset: u32,
        /// Bytes.
        stride: u32,
        /// First byte after the plane.
        end: u64,
        /// The dma-buf's size.
        bytes: u64,
    },
    /// Not allowed.
    #[error("{driver} does not let this process make frame buffers: {source}")]
    Permission {
        /// The driver.
        driver: String,
        /// EACCES or EPERM.
        source: io::Error,
    },
    /// No dumb buffer of this kind.
    #[error("no dumb buffer of {width}x{height} {}: {source}", fourcc_name(*.fourcc))]
    Dumb {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// DRM fourcc.
        fourcc: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// A rule of the driver's own.
    #[error(
        "{driver} refuses {width}x{height} {} ({}) with strides {strides:?} at offsets {offsets:?}: {source}; drivers \
         have alignment rules of their own (AMD wants strides that are multiples of 256 bytes, Mali of 64)",
        fourcc_name(*.fourcc), .modifier.map_or("no modifier".to_owned(), |m| Modifier(m).to_string())
    )]
    Refused {
        /// The driver.
        driver: String,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// DRM fourcc.
        fourcc: u32,
        /// Modifier.
        modifier: Option<u64>,
        /// Bytes, of each plane.
        strides: Vec<u32>,
        /// Bytes, of each plane.
        offsets: Vec<u32>,
        /// What the kernel said.
        source: io::Error,
    },
}

fn list(planes: &[PlaneFormats]) -> String {
    let mut all: Vec<String> = planes.iter().map(ToString::to_string).collect();
    all.dedup();
    all.join(" | ")
}

fn modifiers(modifiers: &[u64]) -> String {
    modifiers.iter().map(|m| Modifier(*m).to_string()).collect::<Vec<_>>().join(", ")
}

/// What a card allows, gathered once it has refused something.
struct Limits {
    driver: String,
    widths: RangeInclusive<u32>,
    heights: RangeInclusive<u32>,
    planes: Vec<PlaneFormats>,
}

impl Limits {
    fn of(card: &Card) -> Limits {
        let any = 0..=u32::MAX;
        let (widths, heights) = card
            .resource_handles()
            .map_or((any.clone(), any), |r| (inclusive(&r.supported_fb_width()), inclusive(&r.supported_fb_height())));
        let planes = card.planes().unwrap_or_default().into_iter().map(|p| p.formats).collect();
        Limits { driver: card.driver().to_owned(), widths, heights, planes }
    }
}

fn inclusive(range: &impl RangeBounds<u32>) -> RangeInclusive<u32> {
    let at = |bound: Bound<&u32>, open: u32| match bound {
        Bound::Included(&at) | Bound::Excluded(&at) => at,
        Bound::Unbounded => open,
    };
    at(range.start_bound(), 0)..=at(range.end_bound(), u32::MAX)
}

/// The numbers of a [`FrameSpec`], with the size of each plane's dma-buf.
struct Numbers {
    width: u32,
    height: u32,
    fourcc: u32,
    modifier: Option<u64>,
    /// Offset, stride, bytes of the dma-buf.
    planes: Vec<(u32, u32, u64)>,
}

/// The error for a frame buffer that AddFB2 refused.
pub(super) fn explain(card: &Card, spec: &FrameSpec<'_>, source: io::Error) -> ImportError {
    let planes = spec.planes.iter().map(|p| (p.offset, p.stride, dma_buf_bytes(p.fd))).collect();
    let numbers =
        Numbers { width: spec.width, height: spec.height, fourcc: spec.fourcc, modifier: spec.modifier, planes };
    diagnose(&Limits::of(card), &numbers, source)
}

impl ImportError {
    /// The error for a dma-buf that PRIME import refused.
    pub(super) fn prime(card: &Card, plane: usize, fd: BorrowedFd<'_>, source: io::Error) -> ImportError {
        // DMA_BUF_MAGIC of linux/magic.h.
        let dma_buf = nix::sys::statfs::fstatfs(fd).is_ok_and(|s| s.filesystem_type().0 == 0x444d_4142);
        match source.kind() {
            _ if !dma_buf => ImportError::NotDmaBuf { plane, source },
            io::ErrorKind::PermissionDenied => ImportError::Permission { driver: card.driver().to_owned(), source },
            _ => ImportError::Memory { plane, driver: card.driver().to_owned(), source },
        }
    }

    /// The error for a format that no plane takes.
    pub(super) fn format(card: &Card, fourcc: u32) -> ImportError {
        let limits = Limits::of(card);
        ImportError::Format { fourcc, driver: limits.driver, takes: limits.planes }
    }
}

fn dma_buf_bytes(fd: BorrowedFd<'_>) -> u64 {
    use nix::unistd::{Whence, lseek};
    // dma-bufs answer this with their size and move nothing.
    lseek(fd, 0, Whence::SeekEnd).map_or(u64::MAX, |end| end as u64)
}

fn diagnose(limits: &Limits, n: &Numbers, source: io::Error) -> ImportError {
    let driver = limits.driver.clone();
    if source.kind() == io::ErrorKind::PermissionDenied {
        return ImportError::Permission { driver, source };
    }
    if !limits.widths.contains(&n.width) || !limits.heights.contains(&n.height) {
        let (widths, heights) = (limits.widths.clone(), limits.heights.clone());
        return ImportError::Size { width: n.width, height: n.height, driver, widths, heights };
    }
    if !limits.planes.is_empty() && limits.planes.iter().all(|p| !p.takes(n.fourcc, None)) {
        return ImportError::Format { fourcc: n.fourcc, driver, takes: limits.planes.clone() };
    }
    if let Some(modifier) = n.modifier
        && limits.planes.iter().all(|p| !p.takes(n.fourcc, Some(modifier)))
    {
        let mut takes: Vec<u64> = limits.planes.iter().flat_map(|p| p.modifiers(n.fourcc).to_vec()).collect();
        takes.sort_unstable();
        takes.dedup();
        return ImportError::Modifier { fourcc: n.fourcc, modifier, driver, takes };
    }
    if let Some(format) = shrbuf::Format::from_drm(n.fourcc)
        && n.modifier.is_none_or(|m| m == Modifier::LINEAR.0)
    {
        let samplings = format.planes();
        if samplings.len() != n.planes.len() {
            let expected = samplings.len()..=samplings.len();
            return ImportError::PlaneCount { fourcc: n.fourcc, given: n.planes.len(), expected };
        }
        for (plane, (s, &(offset, stride, bytes))) in samplings.iter().zip(&n.planes).enumerate() {
            let row = u64::from(n.width.div_ceil(s.hsub)) * u64::from(s.bytes);
            if u64::from(stride) < row {
                return ImportError::Stride { plane, stride, row };
            }
            let last = u64::from(n.height.div_ceil(s.vsub).saturating_sub(1)) * u64::from(stride);
            let end = u64::from(offset) + last + row;
            if end > bytes {
                return ImportError::Extent { plane, offset, stride, end, bytes };
            }
        }
    }
    ImportError::Refused {
        driver,
        width: n.width,
        height: n.height,
        fourcc: n.fourcc,
        modifier: n.modifier,
        strides: n.planes.iter().map(|p| p.1).collect(),
        offsets: n.planes.iter().map(|p| p.0).collect(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    const XR24: u32 = u32::from_le_bytes(*b"XR24");
    const NV12: u32 = u32::from_le_bytes(*b"NV12");

    fn limits() -> Limits {
        Limits {
            driver: "test".to_owned(),
            widths: 10..=4096,
            heights: 10..=4096,
            planes: vec![PlaneFormats::linear(&[XR24, NV12])],
        }
    }

    fn frame(fourcc: u32, planes: &[(u32, u32, u64)]) -> Numbers {
        Numbers { width: 100, height: 50, fourcc, modifier: Some(0), planes: planes.to_vec() }
    }

    fn said(numbers: &Numbers, errno: Errno) -> String {
        diagnose(&limits(), numbers, errno.into()).to_string()
    }

    #[test]
    fn each_check_that_fails_is_named_with_its_values() {
        let good = (0, 400, 20_000);
        let mut big = frame(XR24, &[good]);
        big.width = 5000;
        let mut tiled = frame(XR24, &[good]);
        tiled.modifier = Some(0x100_0000_0000_0001);
        let cases = [
            (big, "size 5000x50 is outside 10x10 to 4096x4096, which test takes"),
            (frame(u32::from_le_bytes(*b"YUYV"), &[good]), "test takes no YUYV; its planes take XR24, NV12"),
            (tiled, "test takes XR24 but not with modifier 0x0100000000000001; it takes LINEAR"),
            (frame(NV12, &[good]), "NV12 has 2 plane(s), 1 given"),
            (frame(XR24, &[(0, 399, 20_000)]), "plane 0: stride 399 is less than the 400 bytes of a row"),
            (
                frame(XR24, &[(4, 400, 20_000)]),
                "plane 0 at offset 4 with stride 400 ends at byte 20004 of a dma-buf of 20000 bytes",
            ),
        ];
        for (numbers, expected) in cases {
            assert_eq!(said(&numbers, Errno::EINVAL), expected);
        }
    }

    #[test]
    fn what_no_check_explains_says_every_value() {
        let text = said(&frame(XR24, &[(0, 400, 20_000)]), Errno::EINVAL);
        assert!(text.starts_with("test refuses 100x50 XR24 (LINEAR) with strides [400] at offsets [0]: "), "{text}");
    }

    #[test]
    fn permission_comes_before_guessing() {
        assert!(said(&frame(0, &[]), Errno::EACCES).starts_with("test does not let this process"));
    }
}
