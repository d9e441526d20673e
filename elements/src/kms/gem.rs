//! Frame buffers: dma-bufs and dumb buffers that planes can show.
//!
//! A dma-buf comes into a card as a GEM handle (`DRM_IOCTL_PRIME_FD_TO_HANDLE`) and becomes a frame buffer by AddFB2.
//! The kernel gives **one** handle for one dma-buf, however often it is imported, and does not count the imports: the
//! first `GEM_CLOSE` ends it for all. So handles are counted here, per open card, and closed with their last user.
//! The count is held under one lock together with the ioctl that gains or loses the handle; otherwise a second import
//! could be given a handle that another thread is just about to close.
//!
//! The handle stays open as long as the frame buffer: while it does, importing the same dma-buf again finds the same
//! object instead of attaching it anew.

use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::PoisonError;

use drm::control::framebuffer;

use super::device::Card;
use super::import::{ImportError, explain};
use super::sys;

/// One user's share of a GEM handle.
pub(super) struct GemHandle {
    card: Card,
    handle: u32,
}

impl GemHandle {
    /// The handle of a dma-buf, with one more user.
    fn import(card: &Card, dma_buf: BorrowedFd<'_>) -> io::Result<GemHandle> {
        let mut users = card.gem().lock().unwrap_or_else(PoisonError::into_inner);
        let handle = sys::prime_fd_to_handle(card.as_fd(), dma_buf)?;
        *users.entry(handle).or_insert(0) += 1;
        Ok(GemHandle { card: card.clone(), handle })
    }

    /// Takes over a handle that was just made.
    pub(super) fn adopt(card: &Card, handle: u32) -> GemHandle {
        let mut users = card.gem().lock().unwrap_or_else(PoisonError::into_inner);
        *users.entry(handle).or_insert(0) += 1;
        GemHandle { card: card.clone(), handle }
    }

    /// The number, for ioctls.
    pub(super) fn raw(&self) -> u32 {
        self.handle
    }
}

impl Drop for GemHandle {
    fn drop(&mut self) {
        let mut users = self.card.gem().lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = users.entry(self.handle) else { return };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
            // Still under the lock. It fails only where the card is gone, and the handle with it.
            let _ = sys::gem_close(self.card.as_fd(), self.handle);
        }
    }
}

/// Where one plane of a picture lies.
#[derive(Debug, Clone, Copy)]
pub struct FramePlane<'fd> {
    /// The dma-buf; several planes may lie in one. Only borrowed: the kernel takes its own reference.
    pub fd: BorrowedFd<'fd>,
    /// Bytes from the start of the dma-buf.
    pub offset: u32,
    /// Bytes from one row to the next.
    pub stride: u32,
}

/// A picture in dma-bufs, as AddFB2 wants it.
#[derive(Debug, Clone, Copy)]
pub struct FrameSpec<'a> {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// DRM fourcc.
    pub fourcc: u32,
    /// DRM format modifier; `None` where the producer knows none, which the driver then takes as its own default.
    pub modifier: Option<u64>,
    /// As many as the format (or the modifier) has, at most 4.
    pub planes: &'a [FramePlane<'a>],
}

/// A picture that the card's planes can show (`struct drm_framebuffer`).
///
/// It holds the memory: the dma-bufs' own descriptors may be closed, and their exporter too. Dropped from whatever
/// thread, it lets the memory go; a plane that shows it keeps it until the next commit (CLOSEFB, Linux 6.8; older
/// kernels turn the plane off instead).
pub struct FrameBuffer {
    id: framebuffer::Handle,
    width: u32,
    height: u32,
    fourcc: u32,
    modifier: Option<u64>,
    handles: Vec<GemHandle>,
}

impl FrameBuffer {
    /// Makes a frame buffer of dma-bufs: a few ioctls, for once a buffer and not once a frame.
    ///
    /// A modifier goes to the kernel only where the driver takes modifiers; `LINEAR` goes without saying elsewhere.
    ///
    /// # Errors
    /// [`ImportError`]: the kernel says little more than EINVAL, so the variants say which of its known checks the
    /// values fail. Nothing stays imported.
    pub fn import(card: &Card, spec: &FrameSpec<'_>) -> Result<FrameBuffer, ImportError> {
        if spec.planes.is_empty() || spec.planes.len() > 4 {
            let planes = shrbuf::Format::from_drm(spec.fourcc).map(|f| f.planes().len());
            let expected = planes.map_or(1..=4, |n| n..=n);
            return Err(ImportError::PlaneCount { fourcc: spec.fourcc, given: spec.planes.len(), expected });
        }
        let modifier = match spec.modifier {
            Some(0) if !card.has_modifiers() => None,
            Some(modifier) if !card.has_modifiers() => {
                return Err(ImportError::NoModifiers {
                    fourcc: spec.fourcc,
                    modifier,
                    driver: card.driver().to_owned(),
                });
            }
            modifier => modifier,
        };
        let mut handles = Vec::with_capacity(spec.planes.len());
        for (plane, p) in spec.planes.iter().enumerate() {
            let handle =
                GemHandle::import(card, p.fd).map_err(|source| ImportError::prime(card, plane, p.fd, source))?;
            handles.push(handle);
        }
        let mut fb = sys::AddFb2 {
            width: spec.width,
            height: spec.height,
            fourcc: spec.fourcc,
            modifier,
            handles: [0; 4],
            strides: [0; 4],
            offsets: [0; 4],
        };
        for (i, (p, handle)) in spec.planes.iter().zip(&handles).enumerate() {
            (fb.handles[i], fb.strides[i], fb.offsets[i]) = (handle.raw(), p.stride, p.offset);
        }
        FrameBuffer::add(card, &fb, handles).map_err(|source| explain(card, spec, source))
    }

    /// Makes a frame buffer of a shared buffer's memory, which it holds by itself: the buffer may be dropped.
    /// To keep its producer from writing, hold the buffer as well.
    ///
    /// # Errors
    /// [`ImportError::NoFourcc`] for Bayer data, which DRM has no fourcc for; else as [`FrameBuffer::import`].
    pub fn of_shrbuf(card: &Card, buffer: &shrbuf::Shrbuf) -> Result<FrameBuffer, ImportError> {
        let layout = buffer.layout();
        let Some(fourcc) = layout.format.drm() else {
            return Err(ImportError::NoFourcc { format: layout.format });
        };
        let mut planes = Vec::with_capacity(layout.planes().len());
        for (plane, p) in layout.planes().iter().enumerate() {
            // A layout names only segments that are there; a missing one would be a plane too few.
            let Some(segment) = buffer.segments().get(usize::from(p.segment)) else {
                return Err(ImportError::PlaneCount { fourcc, given: plane, expected: 1..=layout.planes().len() });
            };
            planes.push(FramePlane { fd: segment.as_fd(), offset: p.offset, stride: p.stride });
        }
        let (width, height, modifier) = (layout.width, layout.height, layout.modifier.map(|m| m.0));
        FrameBuffer::import(card, &FrameSpec { width, height, fourcc, modifier, planes: &planes })
    }

    pub(super) fn add(card: &Card, fb: &sys::AddFb2, handles: Vec<GemHandle>) -> io::Result<FrameBuffer> {
        let id = sys::add_fb2(card.as_fd(), fb)?;
        let id = drm::control::from_u32(id).ok_or(nix::errno::Errno::EPROTO)?;
        Ok(FrameBuffer { id, width: fb.width, height: fb.height, fourcc: fb.fourcc, modifier: fb.modifier, handles })
    }

    /// The kernel's number, as in the property FB_ID.
    pub fn id(&self) -> framebuffer::Handle {
        self.id
    }

    /// Pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// DRM fourcc.
    pub fn fourcc(&self) -> u32 {
        self.fourcc
    }

    /// Whether its code values are luma and chroma.
    pub(super) fn is_yuv(&self) -> bool {
        shrbuf::Format::from_drm(self.fourcc).is_some_and(|f| f.family() == shrbuf::Family::Yuv)
    }

    /// The modifier that the kernel was told, if any.
    pub fn modifier(&self) -> Option<u64> {
        self.modifier
    }

    /// The GEM handle of each plane; equal numbers are the same dma-buf.
    pub fn gem_handles(&self) -> impl Iterator<Item = u32> + '_ {
        self.handles.iter().map(GemHandle::raw)
    }
}

impl std::fmt::Debug for FrameBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let format = shrbuf::format::fourcc_name(self.fourcc);
        write!(f, "FrameBuffer({}, {format} {}x{})", u32::from(self.id), self.width, self.height)
    }
}

impl Drop for FrameBuffer {
    fn drop(&mut self) {
        let Some(card) = self.handles.first().map(|h| h.card.as_fd()) else { return };
        // Kernels before 6.8 have no CLOSEFB and say EINVAL.
        if sys::close_fb(card, self.id.into()).is_err() {
            let _ = sys::rm_fb(card, self.id.into());
        }
    }
}
