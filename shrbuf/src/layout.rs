//! Where each plane of a picture lies in a buffer's segments.

use crate::format::{Format, Modifier, Sampling};

/// Most planes a layout can have, as in `drm_mode_fb_cmd2`.
pub const MAX_PLANES: usize = 4;

/// Where one plane lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Plane {
    /// Index of the segment that holds it.
    pub segment: u8,
    /// Bytes from the start of that segment.
    pub offset: u32,
    /// Bytes from one row of blocks to the next.
    pub stride: u32,
}

/// Format, size and planes of the picture in a buffer. Plain data, cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Pixel format.
    pub format: Format,
    /// Arrangement of the samples; `None` where the producer knows of no modifiers (V4L2), which importers take as
    /// "whatever this driver calls linear".
    pub modifier: Option<Modifier>,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    planes: [Plane; MAX_PLANES],
}

/// A layout that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Width or height is 0 or above 65535.
    #[error("size {width}x{height} is outside 1..=65535")]
    Size {
        /// Pixels asked for.
        width: u32,
        /// Pixels asked for.
        height: u32,
    },
    /// The planes given are not as many as the format has.
    #[error("{format} has {expected} plane(s), {given} given")]
    PlaneCount {
        /// The format.
        format: Format,
        /// Planes it has.
        expected: usize,
        /// Planes given.
        given: usize,
    },
    /// A compressed frame has no rows to lay out: its codec says how large a buffer must be.
    #[error("{format} is compressed: its frames have no rows; the codec alone can allocate them")]
    Compressed {
        /// The format.
        format: Format,
    },
    /// A row does not fit in the stride.
    #[error("plane {plane}: stride {stride} is less than the {row} bytes of a row")]
    Stride {
        /// Which plane.
        plane: usize,
        /// Stride given, in bytes.
        stride: u32,
        /// Bytes of a row.
        row: u32,
    },
    /// The planes do not fit in what the kernel's 32-bit offsets and strides can say.
    #[error("{format} {width}x{height} with rows aligned to {align} bytes has a plane beyond 4 GiB; align less")]
    TooLarge {
        /// The format.
        format: Format,
        /// Pixels asked for.
        width: u32,
        /// Pixels asked for.
        height: u32,
        /// Alignment asked for, in bytes.
        align: u32,
    },
    /// A plane names a segment that is not there, or reaches beyond the end of it.
    #[error("plane {plane} needs bytes 0..{end} of segment {segment}, which has {size} bytes")]
    OutOfSegment {
        /// Which plane.
        plane: usize,
        /// Segment it names.
        segment: usize,
        /// First byte after the plane.
        end: u64,
        /// Bytes of the segment; 0 where there is none of that number.
        size: u64,
    },
}

impl Layout {
    /// A layout from planes as a driver gave them. A compressed format has one plane, whose stride is 0: a CPU finds no
    /// rows in it.
    ///
    /// # Errors
    /// A size out of range, a number of planes that is not the format's, a stride shorter than a row.
    pub fn new(
        format: Format,
        modifier: Option<Modifier>,
        width: u32,
        height: u32,
        planes: &[Plane],
    ) -> Result<Layout, LayoutError> {
        let expected = format.planes().len();
        if planes.len() != expected {
            return Err(LayoutError::PlaneCount { format, expected, given: planes.len() });
        }
        let mut all = [Plane::default(); MAX_PLANES];
        all[..expected].copy_from_slice(planes);
        let layout = Layout { format, modifier, width, height, planes: all };
        layout.check()?;
        Ok(layout)
    }

    /// Public fields may have been changed since `new`.
    fn check(&self) -> Result<(), LayoutError> {
        size_in_range(self.width, self.height)?;
        for (plane, p) in self.planes().iter().enumerate().filter(|_| self.is_linear()) {
            let row = self.row_bytes(plane);
            if p.stride < row {
                return Err(LayoutError::Stride { plane, stride: p.stride, row });
            }
        }
        Ok(())
    }

    /// A linear layout in one segment, planes one after the other, each stride a multiple of `align` bytes.
    ///
    /// ```
    /// # use shrbuf::{Format, Layout};
    /// let l = Layout::linear(Format::Nv12, 1270, 720, 256)?;
    /// assert_eq!(l.planes()[1].offset, 1280 * 720);
    /// assert_eq!(l.segment_size(0), 1280 * 720 * 3 / 2);
    /// # Ok::<(), shrbuf::LayoutError>(())
    /// ```
    ///
    /// # Errors
    /// A size out of range; offsets or strides beyond 32 bits; a compressed format.
    pub fn linear(format: Format, width: u32, height: u32, align: u32) -> Result<Layout, LayoutError> {
        size_in_range(width, height)?;
        if format.is_compressed() {
            return Err(LayoutError::Compressed { format });
        }
        let too_large = || LayoutError::TooLarge { format, width, height, align };
        let align = u64::from(align.max(1));
        let row = |s: &Sampling| u64::from(width.div_ceil(s.hsub)) * u64::from(s.bytes);
        let luma = &format.planes()[0];
        let luma_stride = row(luma).next_multiple_of(align);
        let mut planes = [Plane::default(); MAX_PLANES];
        let mut next = 0u64;
        for (plane, s) in planes.iter_mut().zip(format.planes()) {
            // Chroma strides follow from the luma stride, as V4L2 single-buffer formats and most importers require.
            let follow =
                luma_stride / u64::from(luma.bytes) * u64::from(luma.hsub) * u64::from(s.bytes) / u64::from(s.hsub);
            let stride = follow.max(row(s).next_multiple_of(align));
            *plane = Plane {
                segment: 0,
                offset: u32::try_from(next).map_err(|_| too_large())?,
                stride: u32::try_from(stride).map_err(|_| too_large())?,
            };
            next += stride * u64::from(height.div_ceil(s.vsub));
        }
        Layout::new(format, Some(Modifier::LINEAR), width, height, &planes[..format.planes().len()])
    }

    /// The planes, as many as the format has.
    pub fn planes(&self) -> &[Plane] {
        &self.planes[..self.format.planes().len()]
    }

    /// True where rows follow one another, so that a CPU can find a pixel.
    pub fn is_linear(&self) -> bool {
        self.modifier.is_none_or(|m| m == Modifier::LINEAR)
    }

    /// Bytes of a row of plane `plane`, without padding.
    ///
    /// # Panics
    /// Where the format has no such plane.
    pub fn row_bytes(&self, plane: usize) -> u32 {
        let s = self.format.planes()[plane];
        self.width.div_ceil(s.hsub).saturating_mul(s.bytes)
    }

    /// Rows of plane `plane`.
    ///
    /// # Panics
    /// Where the format has no such plane.
    pub fn rows(&self, plane: usize) -> u32 {
        self.height.div_ceil(self.format.planes()[plane].vsub)
    }

    /// Number of segments the planes name.
    pub fn segments(&self) -> usize {
        self.planes().iter().map(|p| usize::from(p.segment) + 1).max().unwrap_or(0)
    }

    /// Bytes that segment `segment` needs for its planes; the last row's padding is not needed.
    pub fn segment_bytes(&self, segment: usize) -> u64 {
        self.planes()
            .iter()
            .enumerate()
            .filter(|(_, p)| usize::from(p.segment) == segment)
            .map(|(i, _)| self.plane_end(i))
            .max()
            .unwrap_or(0)
    }

    /// Bytes to allocate for segment `segment`, padding of the last row included.
    pub fn segment_size(&self, segment: usize) -> u64 {
        self.planes()
            .iter()
            .enumerate()
            .filter(|(_, p)| usize::from(p.segment) == segment)
            .map(|(i, p)| u64::from(p.offset) + u64::from(p.stride) * u64::from(self.rows(i)))
            .max()
            .unwrap_or(0)
    }

    /// The whole picture's bytes without padding.
    pub fn frame_bytes(&self) -> u64 {
        self.format.frame_bytes(self.width, self.height)
    }

    fn plane_end(&self, plane: usize) -> u64 {
        let p = self.planes[plane];
        let last = u64::from(p.stride) * u64::from(self.rows(plane).saturating_sub(1));
        u64::from(p.offset) + last + u64::from(if self.is_linear() { self.row_bytes(plane) } else { p.stride })
    }

    /// The same picture where segment `i` has become segment `now[i]`, for each that the planes name.
    pub(crate) fn renumbered(mut self, now: &[u8]) -> Layout {
        let planes = self.planes().len();
        for p in &mut self.planes[..planes] {
            p.segment = now[usize::from(p.segment)];
        }
        self
    }

    /// Checks that every plane lies inside its segment.
    ///
    /// # Errors
    /// [`LayoutError::OutOfSegment`] for the first plane that does not; those of [`Layout::new`] where a public field
    /// has been given a value that cannot be.
    pub fn fits(&self, sizes: &[u64]) -> Result<(), LayoutError> {
        self.check()?;
        for (plane, p) in self.planes().iter().enumerate() {
            let segment = usize::from(p.segment);
            let size = sizes.get(segment).copied().unwrap_or(0);
            let end = self.plane_end(plane);
            if end > size {
                return Err(LayoutError::OutOfSegment { plane, segment, end, size });
            }
        }
        Ok(())
    }
}

fn size_in_range(width: u32, height: u32) -> Result<(), LayoutError> {
    let range = 1..=65535;
    if range.contains(&width) && range.contains(&height) { Ok(()) } else { Err(LayoutError::Size { width, height }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_planar_strides_follow_luma() {
        let l = Layout::linear(Format::Yu12, 100, 50, 64).unwrap();
        let strides: Vec<_> = l.planes().iter().map(|p| p.stride).collect();
        assert_eq!(strides, [128, 64, 64]);
        assert_eq!(l.segment_size(0), 128 * 50 + 2 * 64 * 25);
    }

    #[test]
    fn odd_width_never_gives_a_short_stride() {
        for format in Format::all() {
            for width in 1..70 {
                let l = Layout::linear(format, width, 3, 1).unwrap();
                for (i, p) in l.planes().iter().enumerate() {
                    assert!(p.stride >= l.row_bytes(i), "{format} {width} plane {i}");
                }
            }
        }
    }

    #[test]
    fn zero_size_is_refused() {
        assert_eq!(Layout::linear(Format::Xr24, 0, 1, 1), Err(LayoutError::Size { width: 0, height: 1 }));
    }

    #[test]
    fn compressed_frame_has_no_rows() {
        let refused = LayoutError::Compressed { format: Format::Fwht };
        assert_eq!(Layout::linear(Format::Fwht, 640, 480, 1), Err(refused));
        let l = Layout::new(Format::Fwht, None, 640, 480, &[Plane::default()]).unwrap();
        assert_eq!((l.row_bytes(0), l.segment_bytes(0), l.frame_bytes()), (0, 0, 0));
        assert_eq!(l.fits(&[0]), Ok(()));
    }

    #[test]
    fn short_stride_is_refused() {
        let plane = Plane { segment: 0, offset: 0, stride: 10 };
        assert_eq!(
            Layout::new(Format::Xr24, None, 4, 4, &[plane]),
            Err(LayoutError::Stride { plane: 0, stride: 10, row: 16 })
        );
    }

    #[test]
    fn plane_beyond_its_segment_is_refused() {
        let l = Layout::linear(Format::Xr24, 4, 4, 1).unwrap();
        assert_eq!(l.fits(&[64]), Ok(()));
        assert_eq!(l.fits(&[63]), Err(LayoutError::OutOfSegment { plane: 0, segment: 0, end: 64, size: 63 }));
        assert!(l.fits(&[]).is_err());
    }

    #[test]
    fn last_row_needs_no_padding() {
        let l = Layout::linear(Format::Xr24, 10, 4, 256).unwrap();
        assert_eq!(l.segment_bytes(0), 3 * 256 + 40);
        assert_eq!(l.segment_size(0), 4 * 256);
    }

    /// Deterministic numbers in which the edges of ranges come often (SplitMix64).
    fn values(seed: u64) -> impl FnMut() -> u32 {
        let mut state = seed;
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            let edges = [0, 1, 2, 3, 64, 4095, 65534, 65535, 65536, 1 << 31, u32::MAX - 1, u32::MAX];
            // Half of them edges, the rest of any magnitude.
            if z & 1 == 0 { edges[(z >> 8) as usize % edges.len()] } else { (z >> 32) as u32 >> ((z >> 1) & 31) }
        }
    }

    /// Miri takes its time.
    const VALUES: usize = if cfg!(miri) { 1_000 } else { 50_000 };

    fn formats(count: usize) -> impl Iterator<Item = Format> {
        std::iter::repeat_with(Format::all).flatten().take(count)
    }

    #[test]
    fn linear_of_any_values_is_an_error_or_whole() {
        let mut value = values(1);
        let mut whole = 0;
        for format in formats(VALUES) {
            let (width, height, align) = (value(), value(), value());
            let Ok(l) = Layout::linear(format, width, height, align) else { continue };
            whole += 1;
            let mut end = 0;
            for (i, p) in l.planes().iter().enumerate() {
                assert!(p.stride >= l.row_bytes(i), "{l:?}");
                assert_eq!(p.stride % align.max(1), 0, "{l:?} align {align}");
                assert_eq!(u64::from(p.offset), end, "{l:?}: planes overlap or leave a gap");
                end += u64::from(p.stride) * u64::from(l.rows(i));
            }
            assert_eq!(l.segment_size(0), end);
            assert!(l.frame_bytes() <= l.segment_bytes(0) && l.segment_bytes(0) <= end);
            assert_eq!(l.fits(&[l.segment_bytes(0)]), Ok(()));
            assert!(l.fits(&[l.segment_bytes(0) - 1]).is_err());
        }
        assert!(whole > VALUES / 10, "only {whole} layouts were possible");
    }

    #[test]
    fn planes_of_any_values_are_an_error_or_inside() {
        let mut value = values(2);
        let mut inside = 0;
        for format in formats(VALUES) {
            let planes: Vec<_> = (0..format.planes().len())
                .map(|_| Plane { segment: value() as u8 % 3, offset: value(), stride: value() })
                .collect();
            let modifier = [None, Some(Modifier::LINEAR), Some(Modifier(u64::from(value())))][value() as usize % 3];
            let Ok(mut l) = Layout::new(format, modifier, value(), value(), &planes) else { continue };
            let sizes: Vec<u64> = (0..3).map(|_| u64::from(value()) << (value() % 20)).collect();
            let fits = l.fits(&sizes).is_ok();
            inside += usize::from(fits);
            let needs = (0..3).map(|s| l.segment_bytes(s)).collect::<Vec<_>>();
            assert_eq!(fits, needs.iter().zip(&sizes).all(|(need, size)| need <= size), "{l:?} in {sizes:?}");
            // What the public fields allow to be said must not panic either.
            (l.width, l.height) = (value(), value());
            let _ = (l.fits(&sizes), l.segments(), l.segment_size(0), l.segment_bytes(2), l.frame_bytes());
        }
        assert!(inside > VALUES / 100, "only {inside} layouts were possible");
    }

    #[test]
    fn linear_beyond_32_bits_is_refused() {
        let refused = |format, align| LayoutError::TooLarge { format, width: 65535, height: 65535, align };
        for (format, align) in [(Format::Nv12, 1 << 31), (Format::Yu12, 1 << 31), (Format::Nv16, u32::MAX)] {
            assert_eq!(Layout::linear(format, 65535, 65535, align), Err(refused(format, align)));
        }
        // One plane may be larger than 4 GiB: only where it begins must be said in 32 bits.
        assert!(Layout::linear(Format::Xr24, 65535, 65535, 1 << 31).is_ok());
    }
}
