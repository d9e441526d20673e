//! Dumb buffers: memory that the driver allocates for a CPU to draw into or to look at. Black backgrounds, trial
//! frames, and what a writeback connector writes to. Every KMS driver has them (kernel doc: `gpu/drm-kms.rst`, "Dumb
//! Buffer Objects").

use std::os::fd::AsFd;

use drm::control::Device as _;
use nix::errno::Errno;
use shrbuf::format::Sampling;
use shrbuf::layout::{MAX_PLANES, Plane};
use shrbuf::{Family, Format, Layout, Shrbuf};

use super::device::{Card, DeviceError};
use super::gem::{FrameBuffer, GemHandle};
use super::import::ImportError;
use super::sys;

/// A dumb buffer with its frame buffer, exported as a [`Shrbuf`], through whose guards a CPU reads and writes it.
#[derive(Debug)]
pub struct DumbBuffer {
    frame: FrameBuffer,
    buffer: Shrbuf,
}

impl DumbBuffer {
    /// Allocates a linear frame. Its bytes are zero: black in RGB formats, green in YUV ones.
    ///
    /// # Errors
    /// [`ImportError::Format`] where the driver takes no such format, [`ImportError::Dumb`] where there is no memory.
    pub fn new(card: &Card, width: u32, height: u32, fourcc: u32) -> Result<DumbBuffer, ImportError> {
        DumbBuffer::with_room(card, (width, height), (width, height), fourcc)
    }

    /// The same, in memory laid out for a larger one, in whose upper left corner it is.
    ///
    /// # Errors
    /// As [`DumbBuffer::new`].
    pub fn with_room(
        card: &Card,
        (width, height): (u32, u32),
        room: (u32, u32),
        fourcc: u32,
    ) -> Result<DumbBuffer, ImportError> {
        let Some(format) = Format::from_drm(fourcc) else {
            return Err(ImportError::format(card, fourcc));
        };
        let refused = |source| ImportError::Dumb { width, height, fourcc, source };
        let luma = format.planes()[0];
        let bits = luma.bytes * 8 / luma.hsub;
        let rows = rows(format, room.1).ok_or_else(|| refused(Errno::EINVAL.into()))?;
        let made = sys::create_dumb(card.as_fd(), room.0, rows, bits).map_err(refused)?;
        let handle = GemHandle::adopt(card, made.handle);

        let mut fb = sys::AddFb2 {
            width,
            height,
            fourcc,
            // Dumb buffers are what drivers without modifiers mean by linear, so all take them without one.
            modifier: None,
            handles: [0; 4],
            strides: [0; 4],
            offsets: [0; 4],
        };
        let mut planes = [Plane::default(); MAX_PLANES];
        let mut offset = 0;
        for (i, p) in format.planes().iter().enumerate() {
            let stride = stride(made.stride, luma, *p);
            planes[i] = Plane { segment: 0, offset, stride };
            (fb.handles[i], fb.strides[i], fb.offsets[i]) = (made.handle, stride, offset);
            offset = offset.saturating_add(stride.saturating_mul(room.1.div_ceil(p.vsub)));
        }
        let layout = Layout::new(format, None, width, height, &planes[..format.planes().len()])
            .map_err(|e| refused(std::io::Error::other(e)))?;
        let fd = drm::control::from_u32(made.handle)
            .ok_or(Errno::ENOENT.into())
            .and_then(|handle| card.buffer_to_prime_fd(handle, drm::CLOEXEC | drm::RDWR))
            .map_err(refused)?;
        let buffer = Shrbuf::import(vec![fd], layout).map_err(|e| refused(std::io::Error::other(e)))?;
        let frame = FrameBuffer::add(card, &fb, vec![handle]).map_err(|source| {
            let taken = card.planes().is_ok_and(|all| all.iter().any(|p| p.formats.takes(fourcc, None)));
            if taken { refused(source) } else { ImportError::format(card, fourcc) }
        })?;
        Ok(DumbBuffer { frame, buffer })
    }

    /// A black frame in the first of `fourccs` that can be had.
    pub(super) fn black(
        card: &Card,
        (width, height): (u32, u32),
        fourccs: impl Iterator<Item = u32>,
    ) -> Result<DumbBuffer, DeviceError> {
        let mut last = Errno::EOPNOTSUPP.into();
        for fourcc in fourccs.filter(|f| Format::from_drm(*f).is_some_and(|f| f.family() == Family::Rgb)) {
            match DumbBuffer::new(card, width, height, fourcc) {
                Ok(buffer) => return Ok(buffer),
                Err(ImportError::Dumb { source, .. }) => last = source,
                Err(_) => {}
            }
        }
        Err(card.asked("a black dumb buffer")(last))
    }

    /// What planes show and a writeback connector writes.
    pub fn frame(&self) -> &FrameBuffer {
        &self.frame
    }

    /// The memory, for a CPU or another device. A writeback into it puts no fence there: wait for the one that
    /// [`super::Screen::flip_and_capture`] returns.
    pub fn buffer(&self) -> &Shrbuf {
        &self.buffer
    }

    /// Both, apart.
    pub(super) fn into_parts(self) -> (FrameBuffer, Shrbuf) {
        (self.frame, self.buffer)
    }

    /// As [`DumbBuffer::buffer`], to write.
    pub fn buffer_mut(&mut self) -> &mut Shrbuf {
        &mut self.buffer
    }
}

/// The stride of a plane that follows from the first plane's, as importers expect it.
fn stride(first: u32, luma: Sampling, plane: Sampling) -> u32 {
    (u64::from(first) * u64::from(plane.bytes * luma.hsub) / u64::from(luma.bytes * plane.hsub)) as u32
}

/// Rows of the first plane's stride that hold all planes.
fn rows(format: Format, height: u32) -> Option<u32> {
    // Any stride divisible by all the samplings would do.
    const UNIT: u32 = 1 << 12;
    let luma = format.planes()[0];
    let bytes: u64 =
        format.planes().iter().map(|p| u64::from(stride(UNIT, luma, *p)) * u64::from(height.div_ceil(p.vsub))).sum();
    u32::try_from(bytes.div_ceil(UNIT.into())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_every_plane() {
        let cases =
            [(Format::Xr24, 100), (Format::Yuyv, 100), (Format::Nv12, 150), (Format::Nv16, 200), (Format::Yu12, 150)];
        for (format, expected) in cases {
            assert_eq!(rows(format, 100), Some(expected), "{format}");
        }
        assert_eq!(rows(Format::Nv12, 3), Some(5));
    }
}
