//! What renders, and where windows are.

use serde::Serialize;
use shrbuf_elements::gpu::Gpu;
use shrbuf_elements::kms::{RenderNode, render_nodes};
use shrbuf_elements::wayland;
use shrbuf_pipeline::Build;

use super::{Found, Usable};

#[derive(Debug, Serialize)]
pub struct Node {
    pub path: String,
    pub driver: String,
}

#[derive(Debug, Serialize)]
pub struct Compositor {
    /// Its socket; null outside of a session.
    pub socket: Option<String>,
    #[serde(flatten)]
    pub usable: Usable,
}

/// Every render node: what `gpu` takes as its `device`.
pub fn nodes() -> Vec<Found<Node>> {
    let node = |RenderNode { path, driver }| {
        let path = path.display().to_string();
        let refused = |e| format!("{path}: {e}; join the group that owns it (often `render`) and log in again");
        Found::of(driver.map_err(refused), |driver| Node { path: path.clone(), driver })
    };
    render_nodes().into_iter().map(node).collect()
}

/// Whether `gpu` finds something to render with where it is not told what.
pub fn gpu() -> Usable {
    let opened = Gpu::default().build().map_err(|e| e.to_string());
    Usable::of(opened.and_then(|mut gpu| gpu.input_offer(0).map_err(|failure| failure.to_string())))
}

/// The session's compositor.
pub fn compositor() -> Compositor {
    let socket = wayland::socket_path(None).ok().map(|path| path.display().to_string());
    Compositor { socket, usable: Usable::of(wayland::compositor()) }
}
