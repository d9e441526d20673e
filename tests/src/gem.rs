//! What the kernel has for this process's displays: GEM handles, frame buffers.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::RawFd;

use nix::errno::Errno;

/// A file has more handles than are looked for where it loses one with each frame.
const HANDLES: u32 = 256;

/// `struct drm_mode_map_dumb`.
#[repr(C)]
#[derive(Default)]
struct MapDumb {
    handle: u32,
    pad: u32,
    offset: u64,
}

nix::ioctl_readwrite!(map_dumb, b'd', 0xb3, MapDumb);

/// Handles of every card that this process has open, files of the same card together.
///
/// No file of debugfs lists them, and `fdinfo` only for drivers with memory of their own, which vkms is not. So each file
/// is asked for every number (DRM_IOCTL_MODE_MAP_DUMB): ENOENT is what is no handle, EINVAL one that was imported. What
/// shares a file by dup(2) shares its handles too, and is counted as often.
pub(crate) fn handles() -> BTreeMap<String, usize> {
    let mut handles = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(fd) = number.filter(|_| target.starts_with("/dev/dri/card")) {
            *handles.entry(target).or_insert(0) += (1..=HANDLES).filter(|&handle| is_handle(fd, handle)).count();
        }
    }
    handles
}

fn is_handle(fd: RawFd, handle: u32) -> bool {
    let mut map = MapDumb { handle, ..MapDumb::default() };
    // SAFETY: the kernel reads and writes one drm_mode_map_dumb, which `map` is, and nothing is done with the offset. A
    // number that another thread has closed meanwhile is EBADF or ENOTTY, and nothing is changed by asking.
    let answer = unsafe { map_dumb(fd, &mut map) };
    matches!(answer, Ok(_) | Err(Errno::EINVAL))
}

/// Frame buffers of every card, of whichever process (`/sys/kernel/debug/dri/*/framebuffer`).
pub(crate) fn frame_buffers() -> usize {
    let cards = fs::read_dir("/sys/class/drm").into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix("card").and_then(|n| n.parse::<u32>().ok());
    let numbers = cards.filter_map(|card| number(card.file_name().to_str()?));
    let lists = numbers.filter_map(|n| fs::read_to_string(format!("/sys/kernel/debug/dri/{n}/framebuffer")).ok());
    lists.map(|list| list.lines().filter(|l| l.starts_with("framebuffer[")).count()).sum()
}
