//! Nodes that render and drive no display: `/dev/dri/renderD*`.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;

use drm::Device as _;

use super::device::{Fd, nodes};

/// A render node. Not every one is a GPU's: vgem has one and renders nothing.
#[derive(Debug)]
pub struct RenderNode {
    /// The node, as /dev/dri/renderD128.
    pub path: PathBuf,
    /// The driver's name, as `i915`; or why it could not be asked.
    pub driver: io::Result<String>,
}

/// Every render node, in the order of their numbers. Opens each for a moment.
pub fn render_nodes() -> Vec<RenderNode> {
    let driver = |path: &PathBuf| {
        let node = OpenOptions::new().read(true).write(true).open(path)?.into();
        Ok(Fd(&node).get_driver()?.name().to_string_lossy().into_owned())
    };
    nodes("renderD").into_iter().map(|path| RenderNode { driver: driver(&path), path }).collect()
}
