//! Wayland: frames in a window of a desktop session, without a copy.
//!
//! # How am I supposed to use this?
//! As the element [`WaylandSink`], inside a session; [`compositor`] says beforehand whether there is one.
//!
//! ```no_run
//! use shrbuf_elements::wayland::{self, WaylandSink};
//! use shrbuf_pipeline::{Build, Graph};
//! let mut graph = Graph::new("window");
//! if let Ok(socket) = wayland::compositor() {
//!     println!("a window of the compositor at {}", socket.display());
//!     graph.add("window", WaylandSink { fullscreen: true, ..WaylandSink::default() }.build()?)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The protocol is spoken here: libwayland is not needed, and nothing is allocated for a frame, whose memory is made known
//! once.
//!
//! # What lives where
//! | module | story |
//! | --- | --- |
//! | [`feedback`] | which dma-bufs the compositor takes, and when others would be better |
//! | [`place`] | where a picture goes in a window |
//! | [`clock`] | the compositor's clock and ours |
//! | `wire`, `object` | the protocol as bytes, and which object has which number |
//! | `globals`, `window`, `buffer` | the objects on the compositor's side |
//! | `color` | what YUV code values mean |
//! | `timeline` | explicit synchronization |
//! | `state`, `session` | what it has told us; the connection |
//! | `sink` | the element |

mod buffer;
pub mod clock;
mod color;
mod error;
pub mod feedback;
mod globals;
mod object;
pub mod place;
mod session;
mod sink;
mod state;
mod sys;
mod timeline;
mod window;
mod wire;

use std::path::PathBuf;

pub use buffer::ImportError;
pub use error::WaylandError;
pub use place::Fit;
pub use session::socket_path;
pub use sink::{Order, WaylandSink};

/// The socket of the session's compositor, where there is one and it lets us connect.
///
/// # Errors
/// [`WaylandError::NoDisplay`] outside of a session, [`WaylandError::Connect`] where it has ended.
pub fn compositor() -> Result<PathBuf, WaylandError> {
    let path = socket_path(None)?;
    session::reach(&path)?;
    Ok(path)
}
