//! A `wl_buffer` of a shared buffer: made once, for as long as both live.
//!
//! A dma-buf goes through linux-dmabuf. A memfd goes through wl_shm: the compositor maps the same memory, but where it
//! draws with a GPU it copies each frame out of it.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use shrbuf::format::fourcc_name;
use shrbuf::{Format, Layout, MemoryKind, Modifier, Shrbuf};
use shrbuf_pipeline::{Modifiers, Refusal, Video};
use wayland_client::QueueHandle;
use wayland_client::protocol::{wl_buffer::WlBuffer, wl_shm};
use wayland_protocols::wp::linux_dmabuf::zv1::client::zwp_linux_buffer_params_v1::{
    Flags, ZwpLinuxBufferParamsV1 as Params,
};

use super::feedback::Feedback;
use super::globals::Globals;
use super::state::State;
use super::timeline::Timeline;

/// Why the compositor does not take a buffer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Bayer data.
    #[error("{format} has no DRM fourcc, so no compositor can be told of it")]
    NoFourcc {
        /// The format.
        format: Format,
    },
    /// The compositor's list has the format not at all, or not with this modifier.
    #[error("the compositor does not list {format} with {modifier}")]
    NotListed {
        /// The format.
        format: Format,
        /// The buffer's modifier, in words.
        modifier: String,
        /// What it does list.
        listed: String,
    },
    /// The compositor's list has it, but it refuses this buffer.
    #[error(
        "the compositor refuses {format} {width}x{height} with {modifier}, which is on its list (its driver said no)"
    )]
    Refused {
        /// The format.
        format: Format,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// The buffer's modifier, in words.
        modifier: String,
        /// What else it lists.
        listed: String,
    },
    /// wl_shm, which takes memfds, takes neither every format nor every memory.
    #[error("the compositor takes no memfd of {format}: {why}")]
    Shm {
        /// The format.
        format: Format,
        /// What is in the way.
        why: &'static str,
    },
    /// No linux-dmabuf.
    #[error("this compositor takes no dma-bufs (zwp_linux_dmabuf_v1 version 3 or later is not there)")]
    NoDmaBuf,
}

impl From<ImportError> for Refusal {
    fn from(error: ImportError) -> Refusal {
        let instead = match &error {
            ImportError::NotListed { listed, .. } | ImportError::Refused { listed, .. } => Some(listed.clone()),
            ImportError::Shm { .. } => Some("a dma-buf, or a format of one plane, would do".to_owned()),
            _ => None,
        };
        Refusal { what: error.to_string(), instead }
    }
}

/// What the compositor knows a buffer by.
#[derive(Debug)]
pub struct WaylandBuffer {
    pub(super) buffer: WlBuffer,
    pub(super) kind: MemoryKind,
    /// Where the compositor says that it has done with it; made for the first frame that needs it.
    pub(super) released: OnceLock<Timeline>,
}

impl WaylandBuffer {
    pub(super) fn new(buffer: WlBuffer, kind: MemoryKind) -> WaylandBuffer {
        WaylandBuffer { buffer, kind, released: OnceLock::new() }
    }
}

impl Drop for WaylandBuffer {
    fn drop(&mut self) {
        self.buffer.destroy();
    }
}

fn named(modifier: Option<Modifier>) -> String {
    modifier.map_or("no modifier".to_owned(), |m| format!("modifier {m}"))
}

/// What the compositor does take: other modifiers of the format, else other formats.
fn listed(feedback: &Feedback, fourcc: u32) -> String {
    let video = feedback.video();
    let same = video.iter().find(|v| v.format.drm() == Some(fourcc));
    if let Some(Video { modifiers: Modifiers::List(modifiers), .. }) = same {
        let modifiers: Vec<String> = modifiers.iter().map(ToString::to_string).collect();
        return format!("it lists {} with {}", fourcc_name(fourcc), modifiers.join(", "));
    }
    let formats: Vec<String> = video.iter().map(|v| v.format.to_string()).collect();
    format!("it lists {}", formats.join(", "))
}

/// A dma-buf as linux-dmabuf is told of it.
pub(super) struct DmaBuf<'a> {
    buffer: &'a Shrbuf,
    fourcc: u32,
    modifier: u64,
}

impl<'a> DmaBuf<'a> {
    pub(super) fn new(buffer: &'a Shrbuf, feedback: &Feedback) -> Result<DmaBuf<'a>, ImportError> {
        let Layout { format, modifier, .. } = *buffer.layout();
        let fourcc = format.drm().ok_or(ImportError::NoFourcc { format })?;
        let modifier = feedback.takes(fourcc, modifier).ok_or_else(|| ImportError::NotListed {
            format,
            modifier: named(modifier),
            listed: listed(feedback, fourcc),
        })?;
        Ok(DmaBuf { buffer, fourcc, modifier })
    }

    fn add_planes(&self, params: &Params) {
        for (n, plane) in self.buffer.layout().planes().iter().enumerate() {
            // A buffer has the segments that its layout names.
            let Some(segment) = self.buffer.segments().get(usize::from(plane.segment)) else { continue };
            let (high, low) = ((self.modifier >> 32) as u32, self.modifier as u32);
            params.add(segment.as_fd(), n as u32, plane.offset, plane.stride, high, low);
        }
    }

    /// Asks for a `wl_buffer`, which comes as an event of `params`, or does not.
    pub(super) fn create(&self, params: &Params) {
        let layout = self.buffer.layout();
        self.add_planes(params);
        params.create(layout.width as i32, layout.height as i32, self.fourcc, Flags::empty());
    }

    /// A `wl_buffer` now: a refusal will be an error of the connection.
    pub(super) fn create_at_once(&self, params: &Params, handle: &QueueHandle<State>) -> WlBuffer {
        let layout = self.buffer.layout();
        self.add_planes(params);
        let (width, height) = (layout.width as i32, layout.height as i32);
        let buffer = params.create_immed(width, height, self.fourcc, Flags::empty(), handle, ());
        params.destroy();
        buffer
    }

    /// The compositor's driver has refused it.
    pub(super) fn refused(&self, feedback: &Feedback) -> ImportError {
        let Layout { format, width, height, modifier, .. } = *self.buffer.layout();
        ImportError::Refused { format, width, height, modifier: named(modifier), listed: listed(feedback, self.fourcc) }
    }
}

/// wl_shm's number of a format: DRM's, but for two that it had before.
fn shm_number(fourcc: u32) -> u32 {
    match &fourcc.to_le_bytes() {
        b"AR24" => wl_shm::Format::Argb8888.into(),
        b"XR24" => wl_shm::Format::Xrgb8888.into(),
        _ => fourcc,
    }
}

/// Formats that memfds may have: those of one plane, since wl_shm cannot say where a second lies.
pub(super) fn shm_formats(listed: &[u32]) -> impl Iterator<Item = Format> {
    Format::all().filter(|f| f.planes().len() == 1 && f.drm().is_some_and(|d| listed.contains(&shm_number(d))))
}

/// A `wl_buffer` of a memfd.
pub(super) fn of_memfd(
    buffer: &Shrbuf,
    globals: &Globals,
    listed: &[u32],
    handle: &QueueHandle<State>,
) -> Result<WlBuffer, ImportError> {
    let layout = buffer.layout();
    let format = layout.format;
    let refused = |why| ImportError::Shm { format, why };
    let fourcc = format.drm().ok_or(ImportError::NoFourcc { format })?;
    let number = shm_number(fourcc);
    if !listed.contains(&number) {
        return Err(refused("it is not among the formats of its wl_shm"));
    }
    let ([plane], [segment]) = (layout.planes(), buffer.segments()) else {
        return Err(refused("wl_shm cannot say where a second plane lies"));
    };
    if !segment.writable() {
        return Err(refused("this process may only read the memory, and a compositor maps it for writing"));
    }
    let number = |n: u64| i32::try_from(n).map_err(|_| refused("it is larger than 2 GiB"));
    let (size, offset) = (number(segment.size())?, number(plane.offset.into())?);
    let shm_format = wl_shm::Format::try_from(shm_number(fourcc)).map_err(|()| refused("wl_shm has no such format"))?;
    let pool = globals.shm.create_pool(segment.as_fd(), size, handle, ());
    let (width, height, stride) = (layout.width as i32, layout.height as i32, number(plane.stride.into())?);
    let made = pool.create_buffer(offset, width, height, stride, shm_format, handle, ());
    pool.destroy();
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_formats_of_one_plane_go_through_shared_memory() {
        let listed = [0, 1, u32::from_le_bytes(*b"NV12"), u32::from_le_bytes(*b"YUYV")];
        let formats: Vec<Format> = shm_formats(&listed).collect();
        assert_eq!(formats, [Format::Xr24, Format::Ar24, Format::Yuyv]);
    }
}
