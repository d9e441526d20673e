//! What must be as before when a test is done, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::gem;

/// What a run must leave as it found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// dma-bufs in the whole system, by exporter (`/sys/kernel/debug/dma_buf/bufinfo`).
    pub dma_bufs: BTreeMap<String, usize>,
    /// Which devices have how many of them attached: an import each.
    pub attached: BTreeMap<String, usize>,
    /// GEM handles of this process, by card.
    pub gem_handles: BTreeMap<String, usize>,
    /// Frame buffers in the whole system.
    pub frame_buffers: usize,
    /// Descriptors of this process, by what they are of.
    pub descriptors: BTreeMap<String, usize>,
    /// Mappings of device memory in this process.
    pub mappings: usize,
}

impl Footprint {
    /// As things are now.
    pub fn now() -> Footprint {
        let info = fs::read_to_string("/sys/kernel/debug/dma_buf/bufinfo").unwrap_or_default();
        let (mut dma_bufs, mut attached) = (BTreeMap::new(), BTreeMap::new());
        for line in info.lines() {
            if line.starts_with(|c: char| c.is_ascii_digit()) {
                // A line per dma-buf: size flags mode count exp_name ino name.
                let exporter = line.split_whitespace().nth(4).unwrap_or("?");
                *dma_bufs.entry(exporter.to_owned()).or_insert(0) += 1;
            } else if let Some(device) = line.strip_prefix('\t').filter(|l| *l != "Attached Devices:") {
                *attached.entry(device.to_owned()).or_insert(0) += 1;
            }
        }
        let mut descriptors = BTreeMap::new();
        for fd in fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
            let target = fs::read_link(fd.path()).unwrap_or_default().display().to_string();
            // The listing's own descriptor is not among what lasts.
            if !target.starts_with("/proc/") {
                *descriptors.entry(target).or_insert(0) += 1;
            }
        }
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let mappings =
            maps.lines().filter(|l| l.contains("dmabuf") || l.contains("memfd") || l.contains("/dev/")).count();
        Footprint {
            dma_bufs,
            attached,
            gem_handles: gem::handles(),
            frame_buffers: gem::frame_buffers(),
            descriptors,
            mappings,
        }
    }

    /// As things are once they are as `before`, which they soon are where nothing is left: what a display has shown is
    /// freed by the kernel's own threads. Otherwise as they are after two seconds.
    pub fn settled(before: &Footprint) -> Footprint {
        let begin = Instant::now();
        loop {
            let now = Footprint::now();
            if now == *before || begin.elapsed() > Duration::from_secs(2) {
                return now;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
