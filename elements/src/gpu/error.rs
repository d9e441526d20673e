//! What can be wrong with a GPU, and with what it is given.

use std::io;
use std::time::Duration;

use shrbuf::format::fourcc_name;
use shrbuf::{Format, Modifier};
use shrbuf_pipeline::{Failure, FailureKind, Refusal};

/// Why a GPU does not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// No EGL on this machine.
    #[error("cannot load libEGL.so.1: {0}; install the EGL of the GPU's driver (Mesa's: libegl1, libegl-mesa0)")]
    Library(String),
    /// Nothing that renders, or nothing that was asked for.
    #[error("no GPU can be used ({}); device = \"software\" has the CPU render", .tried.join("; "))]
    NoDevice {
        /// Each that there is, and why not.
        tried: Vec<String>,
    },
    /// A GPU is asked for, and that there be none.
    #[error(
        "device = \"{node}\" asks for a GPU, and {by} in the environment for none: drop the one or the other \
         (Mesa crashes with both)"
    )]
    Forced {
        /// Node of the GPU.
        node: String,
        /// Name of the variable.
        by: &'static str,
    },
    /// The node of a GPU cannot be opened.
    #[error("{0}{hint}", hint = hint(.0))]
    Node(io::Error),
    /// What there is renders on the CPU, which was not asked for.
    #[error("{renderer} renders on the CPU")]
    Software {
        /// As GL has it.
        renderer: String,
    },
    /// The driver is too old, or for other things.
    #[error("{device} lacks {extension}, without which {why}")]
    Extension {
        /// Renderer or node.
        device: String,
        /// Name of the extension.
        extension: &'static str,
        /// What it is for.
        why: &'static str,
    },
    /// A call failed that should not.
    #[error("{call} failed: {code}")]
    Egl {
        /// Function.
        call: &'static str,
        /// Name of the error.
        code: String,
    },
    /// A plane is not taken as a texture.
    #[error("plane {plane} of {format} {width}x{height} is refused as {} with stride {stride}, offset {offset}, \
             {modifier}: {code}; {advice}", fourcc_name(*.fourcc))]
    Import {
        /// Number of the plane.
        plane: usize,
        /// The frame's format.
        format: Format,
        /// Pixels of the frame.
        width: u32,
        /// Pixels of the frame.
        height: u32,
        /// What the plane was to be imported as.
        fourcc: u32,
        /// Bytes.
        stride: u32,
        /// Bytes.
        offset: u32,
        /// Arrangement.
        modifier: Modifier,
        /// Name of EGL's error.
        code: String,
        /// What would do.
        advice: String,
    },
    /// A texture that cannot be rendered into.
    #[error("{format} {width}x{height}: plane {plane} cannot be rendered into ({code}); {advice}")]
    Target {
        /// Number of the plane.
        plane: usize,
        /// The frame's format.
        format: Format,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Name of GL's error or status.
        code: String,
        /// What would do.
        advice: String,
    },
    /// Larger than the GPU's textures.
    #[error("{format} {width}x{height} needs a texture of {texels} pixels a side; this GPU's have up to {most}")]
    Size {
        /// The frame's format.
        format: Format,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// Texels of the larger side.
        texels: u32,
        /// Most texels.
        most: u32,
    },
    /// GBM gives no memory.
    #[error("{node}: no memory by GBM: {why}")]
    Gbm {
        /// Node of the device.
        node: String,
        /// What is in the way.
        why: String,
    },
    /// No device gives memory by GBM.
    #[error("no device gives memory by GBM ({})", if .tried.is_empty() { "there is no /dev/dri/card*".to_owned() } else { .tried.join("; ") })]
    NoGbm {
        /// Each that there is, and why not.
        tried: Vec<String>,
    },
    /// No allocator that a GPU renders into.
    #[error(
        "there is no memory that a GPU can render into: neither /dev/udmabuf nor /dev/dma_heap/system can be \
             opened (modprobe udmabuf, or join the group that owns the node), and {0}. With copies = \"allow\" each \
             picture is copied from the GPU into a memfd"
    )]
    NoMemory(Box<GpuError>),
    /// memfds are asked for, and that nothing be copied.
    #[error(
        "no GPU renders into a memfd: with memory = \"memfd\" each picture would have to be copied there; let \
             copies = \"allow\", or use memory = \"auto\", which takes what a GPU reaches"
    )]
    Copy,
    /// A format for which there is no sampler here.
    #[error("{0} cannot be sampled; the nearest that can is GREY of the same size, which shows the mosaic as it is")]
    Format(Format),
    /// A driver's compiler refuses what we wrote.
    #[error("the driver does not compile a shader: {0}")]
    Shader(String),
    /// The GPU was reset, or is gone.
    #[error("the GPU was reset or is gone; all it had is lost. A restart begins anew")]
    Lost,
    /// A GPU that was lost is not there again.
    #[error("the GPU that was lost is not back: {0}")]
    Away(Box<GpuError>),
    /// The GPU does not finish.
    #[error("the GPU has not finished a frame in {0:?}")]
    Stalled(Duration),
    /// The kernel on a fence.
    #[error("fence of a buffer: {0}")]
    Fence(#[from] io::Error),
    /// CPU access to a buffer that has to be uploaded.
    #[error(transparent)]
    Access(#[from] shrbuf::AccessError),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; add the user to the group that owns it, often `render` (usermod -aG render NAME), and log in again"
        }
        _ => "",
    }
}

/// EGL's or GL's no. Whoever asked knows what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Denied {
    /// The context is lost, and says so to whatever is asked of it.
    Lost,
    /// The name of the error.
    Code(String),
}

impl Denied {
    /// As the error of a call that should not fail.
    pub(super) fn of(self, call: &'static str) -> GpuError {
        self.or(|code| GpuError::Egl { call, code })
    }

    /// As what `error` makes of its name.
    pub(super) fn or(self, error: impl FnOnce(String) -> GpuError) -> GpuError {
        match self {
            Denied::Lost => GpuError::Lost,
            Denied::Code(code) => error(code),
        }
    }
}

impl From<khronos_egl::Error> for Denied {
    fn from(error: khronos_egl::Error) -> Denied {
        match error {
            khronos_egl::Error::ContextLost => Denied::Lost,
            other => Denied::Code(other.to_string()),
        }
    }
}

impl From<GpuError> for Failure {
    fn from(error: GpuError) -> Failure {
        let kind = match error {
            GpuError::Library(_)
            | GpuError::NoDevice { .. }
            | GpuError::Forced { .. }
            | GpuError::Node(_)
            | GpuError::Software { .. }
            | GpuError::NoGbm { .. }
            | GpuError::NoMemory(_)
            | GpuError::Copy
            | GpuError::Extension { .. } => FailureKind::Config,
            GpuError::Away(_) => FailureKind::Unplugged,
            GpuError::Stalled(_) => FailureKind::Stalled,
            _ => FailureKind::Device,
        };
        Failure::new(kind, error)
    }
}

impl From<GpuError> for Refusal {
    fn from(error: GpuError) -> Refusal {
        Refusal::new(error.to_string())
    }
}
