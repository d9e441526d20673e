//! A `wl_buffer` of a shared buffer: made once, for as long as both live.
//!
//! A dma-buf goes through linux-dmabuf. A memfd goes through wl_shm: the compositor maps the same memory, but where it
//! draws with a GPU it copies each frame out of it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;

use shrbuf::format::fourcc_name;
use shrbuf::{Format, Layout, MemoryKind, Modifier, Plane, Segment, Shrbuf};
use shrbuf_pipeline::{Modifiers, Refusal};
use wayland_client::protocol::{wl_buffer, wl_shm, wl_shm_pool};
use wayland_protocols::wp::linux_dmabuf::zv1::client::{
    zwp_linux_buffer_params_v1 as params, zwp_linux_dmabuf_v1 as dmabuf,
};

use super::error::WaylandError;
use super::feedback::Feedback;
use super::globals::{DmaBufGlobal, Globals};
use super::object::{Id, Kind};
use super::timeline::Timeline;
use super::wire::{Arg, Owned, Wire};

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
        "the compositor refuses {format} {width}x{height} with {modifier}, {planes}, although it lists that format and \
         modifier (its driver said no)"
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
        /// Each plane's stride and offset, in words.
        planes: String,
        /// Other modifiers of the format that it lists, in words; `None` where that was its only one.
        others: Option<String>,
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
            ImportError::NotListed { listed, .. } => Some(listed.clone()),
            ImportError::Refused { others, .. } => {
                // Not `gpu`: negotiation has that in between already, where there is one.
                let others = others.as_ref().map_or(String::new(), |others| format!("; {others} too"));
                Some(format!("memory of another allocator may do (`memory` of its producer){others}"))
            }
            ImportError::Shm { .. } => Some("a dma-buf, or a format of one plane, would do".to_owned()),
            _ => None,
        };
        Refusal { what: error.to_string(), instead }
    }
}

/// What the compositor knows a buffer by.
#[derive(Debug)]
pub struct WaylandBuffer {
    pub(super) buffer: Owned,
    pub(super) kind: MemoryKind,
    /// Where the compositor says that it has done with it; made for the first frame that needs it.
    pub(super) released: OnceLock<Timeline>,
}

impl WaylandBuffer {
    pub(super) fn new(buffer: Id, kind: MemoryKind, wire: &Wire) -> WaylandBuffer {
        let buffer = wire.owned(buffer, wl_buffer::REQ_DESTROY_OPCODE);
        WaylandBuffer { buffer, kind, released: OnceLock::new() }
    }
}

/// A descriptor that can be sent.
fn shared(segment: &Segment) -> Result<OwnedFd, WaylandError> {
    segment.as_fd().try_clone_to_owned().map_err(|source: io::Error| WaylandError::Descriptor(source))
}

fn named(modifier: Option<Modifier>) -> String {
    modifier.map_or("no modifier".to_owned(), |m| format!("modifier {m}"))
}

/// What the compositor does take: other modifiers of the format, else other formats.
fn listed(feedback: &Feedback, fourcc: u32) -> String {
    listed_but(feedback, fourcc, None).unwrap_or_else(|| {
        let formats: Vec<String> = feedback.video().iter().map(|v| v.format.to_string()).collect();
        format!("it lists {}", formats.join(", "))
    })
}

/// Modifiers of the format that the compositor takes, without one that was tried.
fn listed_but(feedback: &Feedback, fourcc: u32, tried: Option<Modifier>) -> Option<String> {
    let same = feedback.video().into_iter().find(|v| v.format.drm() == Some(fourcc))?;
    let Modifiers::List(modifiers) = same.modifiers else { return None };
    let others: Vec<String> = modifiers.iter().filter(|&&m| Some(m) != tried).map(ToString::to_string).collect();
    (!others.is_empty()).then(|| format!("it lists {} with {}", fourcc_name(fourcc), others.join(", ")))
}

/// `stride 1280, offset 0`; of several planes `strides 320 and 320, offsets 0 and 57600`.
fn planes_in_words(planes: &[Plane]) -> String {
    let all = |of: fn(&Plane) -> u32| planes.iter().map(|p| of(p).to_string()).collect::<Vec<_>>().join(" and ");
    let s = if planes.len() == 1 { "" } else { "s" };
    format!("stride{s} {}, offset{s} {}", all(|p| p.stride), all(|p| p.offset))
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

    fn params(&self, dmabuf: DmaBufGlobal, kind: Kind, wire: &mut Wire) -> Result<Id, WaylandError> {
        let params = wire.new_object(kind);
        wire.request(dmabuf.id, dmabuf::REQ_CREATE_PARAMS_OPCODE, [Arg::Id(params)]);
        for (n, plane) in self.buffer.layout().planes().iter().enumerate() {
            // A buffer has the segments that its layout names.
            let Some(segment) = self.buffer.segments().get(usize::from(plane.segment)) else { continue };
            let [n, offset, stride] = [n as u32, plane.offset, plane.stride].map(Arg::Uint);
            let [high, low] = [(self.modifier >> 32) as u32, self.modifier as u32].map(Arg::Uint);
            let args = [Arg::Fd(shared(segment)?), n, offset, stride, high, low];
            wire.request(params, params::REQ_ADD_OPCODE, args);
        }
        Ok(params)
    }

    /// Its size, format and flags.
    fn described(&self) -> [Arg<'static>; 4] {
        let layout = self.buffer.layout();
        let (width, height) = (Arg::Int(layout.width as i32), Arg::Int(layout.height as i32));
        [width, height, Arg::Uint(self.fourcc), Arg::Uint(0)]
    }

    /// Asks for a `wl_buffer`, which comes as an answer to the request of that number, or does not.
    pub(super) fn create(&self, number: usize, dmabuf: DmaBufGlobal, wire: &mut Wire) -> Result<(), WaylandError> {
        let params = self.params(dmabuf, Kind::Params(number), wire)?;
        wire.request(params, params::REQ_CREATE_OPCODE, self.described());
        Ok(())
    }

    /// A `wl_buffer` now: a refusal will be an error of the connection.
    pub(super) fn create_at_once(&self, dmabuf: DmaBufGlobal, wire: &mut Wire) -> Result<Id, WaylandError> {
        let params = self.params(dmabuf, Kind::Silent("zwp_linux_buffer_params_v1"), wire)?;
        let buffer = wire.new_object(Kind::Buffer);
        let [width, height, fourcc, flags] = self.described();
        wire.request(params, params::REQ_CREATE_IMMED_OPCODE, [Arg::Id(buffer), width, height, fourcc, flags]);
        wire.destroy(params, params::REQ_DESTROY_OPCODE);
        Ok(buffer)
    }

    /// The compositor's driver has refused it.
    pub(super) fn refused(&self, feedback: &Feedback) -> ImportError {
        let layout = self.buffer.layout();
        let Layout { format, width, height, modifier, .. } = *layout;
        // What has no modifier was told as linear, or as nothing, which is offered as linear.
        let tried = modifier.unwrap_or(Modifier::LINEAR);
        ImportError::Refused {
            format,
            width,
            height,
            modifier: named(modifier),
            planes: planes_in_words(layout.planes()),
            others: listed_but(feedback, self.fourcc, Some(tried)),
        }
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
    wire: &mut Wire,
) -> Result<Id, WaylandError> {
    let layout = buffer.layout();
    let format = layout.format;
    let refused = |why| ImportError::Shm { format, why };
    let fourcc = format.drm().ok_or(ImportError::NoFourcc { format })?;
    let number = shm_number(fourcc);
    if !listed.contains(&number) {
        return Err(refused("it is not among the formats of its wl_shm").into());
    }
    let ([plane], [segment]) = (layout.planes(), buffer.segments()) else {
        return Err(refused("wl_shm cannot say where a second plane lies").into());
    };
    if !segment.writable() {
        return Err(refused("this process may only read the memory, and a compositor maps it for writing").into());
    }
    let number = |n: u64| i32::try_from(n).map_err(|_| refused("it is larger than 2 GiB"));
    let (size, offset) = (number(segment.size())?, number(plane.offset.into())?);
    let (width, height, stride) = (layout.width as i32, layout.height as i32, number(plane.stride.into())?);
    let memory = shared(segment)?;
    let pool = wire.new_object(Kind::Silent("wl_shm_pool"));
    wire.request(globals.shm, wl_shm::REQ_CREATE_POOL_OPCODE, [Arg::Id(pool), Arg::Fd(memory), Arg::Int(size)]);
    let made = wire.new_object(Kind::Buffer);
    let [offset, width, height, stride] = [offset, width, height, stride].map(Arg::Int);
    let args = [Arg::Id(made), offset, width, height, stride, Arg::Uint(shm_number(fourcc))];
    wire.request(pool, wl_shm_pool::REQ_CREATE_BUFFER_OPCODE, args);
    wire.destroy(pool, wl_shm_pool::REQ_DESTROY_OPCODE);
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::super::feedback::{Pair, Tranche};
    use super::*;

    #[test]
    fn only_formats_of_one_plane_go_through_shared_memory() {
        let listed = [0, 1, u32::from_le_bytes(*b"NV12"), u32::from_le_bytes(*b"YUYV")];
        let formats: Vec<Format> = shm_formats(&listed).collect();
        assert_eq!(formats, [Format::Xr24, Format::Ar24, Format::Yuyv]);
    }

    /// What is said where the compositor lists the format with these modifiers, and refuses a linear one.
    fn refused(format: Format, modifiers: &[Modifier]) -> String {
        let mut layout = Layout::linear(format, 320, 180, 64).unwrap();
        layout.modifier = Some(Modifier::LINEAR);
        let buffer = shrbuf::exporter::Memfd::new("test").allocate(&layout).unwrap();
        let fourcc = format.drm().unwrap();
        let pairs = modifiers.iter().map(|m| Pair { fourcc, modifier: m.0 }).collect();
        let tranches = vec![Tranche { pairs, ..Tranche::default() }];
        let feedback = Feedback { tranches, ..Feedback::default() };
        let tried = DmaBuf::new(&buffer, &feedback).unwrap();

        Refusal::from(tried.refused(&feedback)).to_string()
    }

    #[test]
    fn a_refusal_names_what_was_tried_and_advises_something_else() {
        assert_eq!(
            refused(Format::Xr24, &[Modifier::LINEAR]),
            "the compositor refuses XR24 320x180 with modifier LINEAR, stride 1280, offset 0, although it lists that \
             format and modifier (its driver said no); memory of another allocator may do (`memory` of its producer)"
        );
        let others = refused(Format::Nv12, &[Modifier(9), Modifier::LINEAR]);
        assert!(others.contains("strides 320 and 320, offsets 0 and 57600, although"), "{others}");
        assert!(others.ends_with("(`memory` of its producer); it lists NV12 with 0x0000000000000009 too"), "{others}");
    }
}
