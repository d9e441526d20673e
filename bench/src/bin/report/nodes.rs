//! V4L2 nodes by their drivers' names: their numbers hang on the order in which modules were loaded.

use std::fs;
use std::path::Path;

use shrbuf_bench::Result;

/// vivid's first camera.
pub const CAMERA: &str = "vivid-000-vid-cap";

/// A node in /dev.
pub struct Node {
    pub path: String,
    pub minor: u32,
}

/// The node of that name.
pub fn find(name: &str) -> Result<Node> {
    let folder = Path::new("/sys/class/video4linux");
    let none = || format!("no V4L2 node is called {name}");
    let read = |entry: &fs::DirEntry, file| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let entry = entries.flatten().find(|entry| read(entry, "name").trim() == name).ok_or_else(none)?;
    let number = read(&entry, "dev");
    let minor = number.trim().split_once(':').and_then(|(_, minor)| minor.parse().ok()).ok_or_else(none)?;
    Ok(Node { path: format!("/dev/{}", entry.file_name().display()), minor })
}
