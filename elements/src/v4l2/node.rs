//! A node: opened as what it is to be; and what could be opened in its place where that does not work.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use shrbuf::Format;

use super::ioctl::{self, BufType, Capability, Failure, FormatDescription, QuerycapError};

/// What a node is opened as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A camera, a receiver.
    Capture,
    /// A transmitter, a modulator, a loop-back.
    Output,
    /// A codec, a scaler, a converter.
    M2m,
}

impl NodeKind {
    /// The queue that takes frames and the one that gives them, which are one but for a memory-to-memory device's; `None`
    /// where the node is of another kind.
    fn queues(self, capability: &Capability) -> Option<(BufType, BufType)> {
        let one = |queue: BufType| (queue, queue);
        match self {
            NodeKind::Capture => capability.capture_type().map(one),
            NodeKind::Output => capability.output_type().map(one),
            NodeKind::M2m => capability.m2m_types(),
        }
    }

    /// What is said of a device that is none.
    fn denied(self) -> &'static str {
        match self {
            NodeKind::Capture => "captures no video here",
            NodeKind::Output => "puts no video out here",
            NodeKind::M2m => "is no memory-to-memory device",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            NodeKind::Capture => "devices that capture video",
            NodeKind::Output => "devices that put video out",
            NodeKind::M2m => "memory-to-memory devices (codecs, scalers, converters)",
        }
    }

    /// How to get one.
    fn remedy(self) -> &'static str {
        match self {
            NodeKind::Capture => {
                "plug a camera in, or load its driver (`modprobe uvcvideo`); `modprobe vivid` makes one up"
            }
            NodeKind::Output => "load its driver (`modprobe v4l2loopback`); `modprobe vivid` makes one up",
            NodeKind::M2m => "load its driver; `modprobe vicodec` makes a codec up, `modprobe vim2m` a converter",
        }
    }
}

/// The nodes of a kind that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Their kind.
    pub kind: NodeKind,
    /// Each with its product's name, and of a memory-to-memory device with what it takes and makes; or with why it does
    /// not open, in which case it may be another.
    pub nodes: Vec<(PathBuf, String)>,
}

impl Present {
    fn unknown(kind: NodeKind) -> Present {
        Present { kind, nodes: Vec::new() }
    }

    /// Opens every node for a moment.
    pub(super) fn look(kind: NodeKind) -> Present {
        let describe = |opened: Result<Node, OpenError>| match opened {
            Ok(node) => Some((node.path.clone(), node.describe(kind)?)),
            Err(OpenError::Permission { path }) => Some((path, "no permission".into())),
            Err(OpenError::Busy { path }) => Some((path, "in use".into())),
            Err(_) => None,
        };
        Present { kind, nodes: Node::every(kind).filter_map(describe).collect() }
    }
}

impl fmt::Display for Present {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes.is_empty() {
            return write!(f, "there are no {}: {}", self.kind.plural(), self.kind.remedy());
        }
        let nodes: Vec<String> = self.nodes.iter().map(|(path, what)| format!("{} ({what})", path.display())).collect();
        write!(f, "{}: {}", self.kind.plural(), nodes.join(", "))
    }
}

/// Why a device was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing at this path.
    #[error("{}: there is no such device; {present}", .path.display())]
    NotFound {
        /// What was asked for.
        path: PathBuf,
        /// What there is.
        present: Present,
    },
    /// None was asked for, and there is none.
    #[error("{}", Present::unknown(*.kind))]
    NoneFound {
        /// What it was to be.
        kind: NodeKind,
    },
    /// EACCES, EPERM.
    #[error(
        "{}: no permission; join the group that owns it (`sudo usermod -aG video $USER`) and log in again",
        .path.display()
    )]
    Permission {
        /// What was asked for.
        path: PathBuf,
    },
    /// EBUSY: the driver lets one program in at a time.
    #[error("{}: another program has it open (`fuser -v` names it)", .path.display())]
    Busy {
        /// What was asked for.
        path: PathBuf,
    },
    /// A file, a directory, or a device of another kind.
    #[error("{}: not a V4L2 device; {present}", .path.display())]
    NotV4l2 {
        /// What was asked for.
        path: PathBuf,
        /// What there is.
        present: Present,
    },
    /// A V4L2 node of another kind: metadata, radio, or one of the other [`NodeKind`]s.
    #[error("{}: {card} {}; {present}", .path.display(), .present.kind.denied())]
    OtherKind {
        /// What was asked for.
        path: PathBuf,
        /// The product's name.
        card: String,
        /// What there is of the kind that was asked for.
        present: Present,
    },
    /// Only `read()` and `write()`, which copy.
    #[error("{}: {card} cannot stream buffers, only read() or write(); it cannot be used without copying", .path.display())]
    NotStreaming {
        /// What was asked for.
        path: PathBuf,
        /// The product's name.
        card: String,
    },
    /// ENODEV, ENXIO: the node is there, the device is not.
    #[error("{}: the device is gone; plug it in again, or load its driver", .path.display())]
    Unplugged {
        /// What was asked for.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{}: {source}", .path.display())]
    Other {
        /// What was asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OpenError {
    fn of(path: PathBuf, kind: NodeKind, source: io::Error) -> OpenError {
        match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => OpenError::NotFound { path, present: Present::unknown(kind) },
            Some(libc::EACCES | libc::EPERM) => OpenError::Permission { path },
            Some(libc::EBUSY) => OpenError::Busy { path },
            Some(libc::ENODEV | libc::ENXIO) => OpenError::Unplugged { path },
            _ => OpenError::Other { path, source },
        }
    }

    /// Whether the path is the wrong one, whatever state its device is in.
    fn is_of_another(&self) -> bool {
        matches!(self, OpenError::NotV4l2 { .. } | OpenError::OtherKind { .. })
    }
}

/// An open node.
pub(super) struct Node {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) path: PathBuf,
    pub(super) capability: Capability,
    /// As [`NodeKind::queues`].
    pub(super) takes: BufType,
    pub(super) gives: BufType,
}

impl Node {
    /// Opens a node that somebody has named: what there is instead of a wrong one is in the error.
    pub(super) fn open(path: PathBuf, kind: NodeKind) -> Result<Node, OpenError> {
        Node::open_one(path, kind).map_err(|mut error| {
            if let OpenError::NotFound { present, .. }
            | OpenError::NotV4l2 { present, .. }
            | OpenError::OtherKind { present, .. } = &mut error
            {
                *present = Present::look(kind);
            }
            error
        })
    }

    /// All nodes of a kind, in order of their numbers; ones that do not open, and may be of it, are there with the reason.
    pub(super) fn every(kind: NodeKind) -> impl Iterator<Item = Result<Node, OpenError>> {
        let opened = numbered().into_iter().map(move |path| Node::open_one(path, kind));
        opened.filter(|opened| !opened.as_ref().is_err_and(OpenError::is_of_another))
    }

    fn open_one(path: PathBuf, kind: NodeKind) -> Result<Node, OpenError> {
        let present = Present::unknown(kind);
        // Opening is not harmless on every device (a watchdog starts to tick), so look before.
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.file_type().is_char_device() => {}
            Ok(_) => return Err(OpenError::NotV4l2 { path, present }),
            Err(error) => return Err(OpenError::of(path, kind, error)),
        }
        let file = match OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path) {
            Ok(file) => file,
            Err(error) => return Err(OpenError::of(path, kind, error)),
        };
        let capability = match ioctl::querycap(&file) {
            Ok(capability) => capability,
            Err(QuerycapError::NotV4l2(_)) => return Err(OpenError::NotV4l2 { path, present }),
            Err(QuerycapError::Failure(Failure::Unplugged { .. })) => return Err(OpenError::Unplugged { path }),
            Err(error) => return Err(OpenError::Other { path, source: io::Error::other(error) }),
        };
        let Some((takes, gives)) = kind.queues(&capability) else {
            return Err(OpenError::OtherKind { path, card: capability.card, present });
        };
        Ok(Node { fd: Arc::new(file.into()), path, capability, takes, gives })
    }

    /// `None` for a device of which no format is known here, as a stateless codec: it is of no use in place of another.
    fn describe(&self, kind: NodeKind) -> Option<String> {
        let card = self.capability.card.clone();
        if kind != NodeKind::M2m {
            return Some(card);
        }
        let names = |queue: BufType| known(&ioctl::enum_fmt(&*self.fd, queue).unwrap_or_default());
        let (takes, gives) = (names(self.takes), names(self.gives));
        (!takes.is_empty() && !gives.is_empty()).then(|| format!("{card}: {} → {}", list(&takes), list(&gives)))
    }
}

/// Those of the project's list, each once.
pub(super) fn known(formats: &[FormatDescription]) -> Vec<Format> {
    let mut known = Vec::new();
    for (format, _) in formats.iter().filter_map(|f| Format::from_v4l2(f.pixelformat.0)) {
        if !known.contains(&format) {
            known.push(format);
        }
    }
    known
}

/// The first few of a list of formats.
fn list(formats: &[Format]) -> String {
    const SHOWN: usize = 4;
    let shown = if formats.len() == SHOWN + 1 { SHOWN + 1 } else { SHOWN };
    let names: Vec<&str> = formats.iter().take(shown).map(|f| f.name()).collect();
    match formats.len().saturating_sub(shown) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// The `/dev/video<number>` nodes, in order of their numbers.
fn numbered() -> Vec<PathBuf> {
    // Only the path is asked of the crate's nodes: for /dev/video-something (a udev rule's link to one of these) its
    // other calls panic.
    let mut numbered: Vec<(u32, PathBuf)> = v4l::context::enum_devices()
        .iter()
        .filter_map(|node| {
            let number = node.path().file_name()?.to_str()?.strip_prefix("video")?.parse().ok()?;
            Some((number, node.path().to_owned()))
        })
        .collect();
    numbered.sort();
    numbered.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &str) -> OpenError {
        Node::open(path.into(), NodeKind::Capture).map(|_| ()).unwrap_err()
    }

    fn two(kind: NodeKind) -> Present {
        let nodes = vec![("/dev/video2".into(), "vim2m: RG16 → YUYV".into()), ("/dev/video3".into(), "in use".into())];
        Present { kind, nodes }
    }

    #[test]
    fn missing_device_is_not_found() {
        assert!(matches!(open("/dev/video-that-is-not-there"), OpenError::NotFound { .. }));
    }

    #[test]
    fn directory_is_not_v4l2() {
        assert!(matches!(open("/tmp"), OpenError::NotV4l2 { .. }));
    }

    #[test]
    fn other_character_device_is_not_v4l2() {
        assert!(matches!(open("/dev/null"), OpenError::NotV4l2 { .. }));
    }

    #[test]
    fn no_device_at_all_says_how_to_get_one_of_the_kind() {
        let said = |kind| OpenError::NoneFound { kind }.to_string();
        let camera = said(NodeKind::Capture);
        assert!(camera.starts_with("there are no devices that capture video: plug a camera in"), "{camera}");
        let (output, m2m) = (said(NodeKind::Output), said(NodeKind::M2m));
        assert!(output.contains("put video out") && output.contains("modprobe vivid"), "{output}");
        assert!(m2m.contains("memory-to-memory") && m2m.contains("modprobe vicodec"), "{m2m}");
        assert!(![output, m2m].iter().any(|said| said.contains("camera") || said.contains("uvcvideo")));
    }

    #[test]
    fn a_wrong_node_is_told_with_those_that_would_do() {
        let card = "vivid".into();
        let wrong = OpenError::OtherKind { path: "/dev/video0".into(), card, present: two(NodeKind::M2m) };
        assert_eq!(
            wrong.to_string(),
            "/dev/video0: vivid is no memory-to-memory device; memory-to-memory devices (codecs, scalers, converters): \
             /dev/video2 (vim2m: RG16 → YUYV), /dev/video3 (in use)"
        );
        let null = OpenError::NotV4l2 { path: "/dev/null".into(), present: two(NodeKind::Output) };
        assert!(null.to_string().starts_with("/dev/null: not a V4L2 device; devices that put video out: /dev/video2"));
    }

    #[test]
    fn one_format_more_than_are_shown_takes_no_more_room_than_its_name() {
        let formats = [Format::Xr24, Format::Ar24, Format::Rg24, Format::Yuyv, Format::Nv12, Format::Nv21];
        assert_eq!(list(&formats[..5]), "XR24, AR24, RG24, YUYV, NV12");
        assert_eq!(list(&formats), "XR24, AR24, RG24, YUYV and 2 more");
    }
}
