//! What can go wrong between a client and its compositor.

use std::io;
use std::path::PathBuf;

use shrbuf_pipeline::{Failure, FailureKind, Rect, Size};

/// Why a window cannot be had, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum WaylandError {
    /// This is no desktop session.
    #[error("WAYLAND_DISPLAY is not set: run this inside a Wayland session, or set `display` to a compositor's socket")]
    NoDisplay,
    /// A socket's name alone does not say where it is.
    #[error("XDG_RUNTIME_DIR is not set, so nobody knows where the socket `{name}` is; give its whole path")]
    NoRuntimeDir {
        /// The socket's name.
        name: String,
    },
    /// The compositor does not answer at its socket.
    #[error("no compositor at {}: {source}{}", path.display(), elsewhere(others))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Of connect(2).
        source: io::Error,
        /// Sockets of compositors that there are in XDG_RUNTIME_DIR.
        others: Vec<String>,
    },
    /// The connection broke: the compositor has ended, or has thrown this client out.
    #[error("the compositor is gone: {source}")]
    Gone {
        /// Of the socket.
        source: io::Error,
    },
    /// The compositor says that this client broke the protocol.
    #[error("the compositor ended the connection: error {code} of {interface}@{object}: {message}")]
    Protocol {
        /// Interface whose error it is.
        interface: String,
        /// Number of the object.
        object: u32,
        /// Number of the error in that interface.
        code: u32,
        /// In the compositor's words.
        message: String,
    },
    /// The compositor sent what is no message.
    #[error("the compositor sent a message that cannot be read: {0}")]
    BadMessage(String),
    /// The compositor does not read, or does not answer.
    #[error("the compositor has not answered for {seconds} s while this client waited for {what}")]
    Silent {
        /// What for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
    /// The compositor lacks what a window of frames needs.
    #[error("this compositor does not offer {interface}, version {version}: {need}")]
    Missing {
        /// Interface.
        interface: &'static str,
        /// Lowest version that would do.
        version: u32,
        /// What for.
        need: &'static str,
    },
    /// The list of formats cannot be read.
    #[error("the compositor's table of dma-buf formats ({size} bytes) cannot be read: {source}")]
    FormatTable {
        /// As the compositor says.
        size: u32,
        /// Of pread(2).
        source: io::Error,
    },
    /// A frame of which no part is in its buffer.
    #[error("the part of a frame that is picture, {part:?}, is outside of its buffer of {size}")]
    Outside {
        /// As its producer says.
        part: Rect,
        /// Of the buffer.
        size: Size,
    },
    /// A fence of the compositor could not be put into the buffer.
    #[error("the fence after which a frame is free again: {0}")]
    Fence(io::Error),
    /// A buffer's memory could not be shared.
    #[error("a descriptor of a buffer cannot be passed to the compositor: {0}; raise the limit (ulimit -n)")]
    Descriptor(io::Error),
    /// A point of a timeline could not be made or asked for.
    #[error("the kernel's timeline by which frames are synchronized: {0}")]
    Timeline(io::Error),
    /// A buffer that came while frames were shown.
    #[error("{0}")]
    Import(#[from] super::buffer::ImportError),
}

/// What else `display` may be set to.
fn elsewhere(others: &[String]) -> String {
    match others {
        [] => String::new(),
        others => format!("; in XDG_RUNTIME_DIR there is {}, for `display` or WAYLAND_DISPLAY", others.join(", ")),
    }
}

impl WaylandError {
    /// For those who decide what to do about it.
    pub fn kind(&self) -> FailureKind {
        match self {
            WaylandError::NoDisplay | WaylandError::NoRuntimeDir { .. } | WaylandError::Missing { .. } => {
                FailureKind::Config
            }
            WaylandError::Connect { .. } | WaylandError::Gone { .. } => FailureKind::Unplugged,
            WaylandError::Silent { .. } => FailureKind::Stalled,
            WaylandError::Outside { .. } | WaylandError::BadMessage(_) => FailureKind::Data,
            _ => FailureKind::Device,
        }
    }
}

impl From<WaylandError> for Failure {
    fn from(error: WaylandError) -> Failure {
        let kind = error.kind();
        let failure = Failure::new(kind, error);
        // A variable of this process that is not set, or what a compositor was built without.
        if kind == FailureKind::Config { failure.lasting() } else { failure }
    }
}
