//! What a compositor says of dma-bufs: linux-dmabuf's feedback.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use wayland_protocols::wp::linux_dmabuf::zv1::server::zwp_linux_dmabuf_feedback_v1::{
    TrancheFlags, ZwpLinuxDmabufFeedbackV1,
};

/// Formats and modifiers of one device.
pub type Tranche = [(&'static [u8; 4], u64)];

/// What it takes from the start.
pub const LINEAR: &Tranche = &[(b"XR24", 0), (b"NV12", 0)];
/// I915_FORMAT_MOD_X_TILED.
pub const X_TILED: u64 = 0x0100_0000_0000_0001;

/// These tranches: the last is that of `device`, which composes; those before are another's, which shows.
pub fn tell(feedback: &ZwpLinuxDmabufFeedbackV1, device: u8, tranches: &[&Tranche]) {
    let mut table = Vec::new();
    for (fourcc, modifier) in tranches.concat() {
        table.extend(u32::from_le_bytes(*fourcc).to_ne_bytes());
        table.extend([0; 4]);
        table.extend(modifier.to_ne_bytes());
    }
    let path = std::env::temp_dir().join(format!("shrbuf-table-{}-{:p}", std::process::id(), feedback));
    File::create(&path).unwrap().write_all(&table).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let [composes, shows] = [device, device + 100].map(|device| vec![device; 8]);
    feedback.format_table(file.as_fd(), table.len() as u32);
    feedback.main_device(composes.clone());
    let mut first = 0;
    for (n, tranche) in tranches.iter().enumerate() {
        let (device, flags) =
            if n + 1 == tranches.len() { (&composes, TrancheFlags::empty()) } else { (&shows, TrancheFlags::Scanout) };
        feedback.tranche_target_device(device.clone());
        feedback.tranche_flags(flags);
        let indices = first..first + tranche.len() as u16;
        first = indices.end;
        feedback.tranche_formats(indices.flat_map(u16::to_ne_bytes).collect());
        feedback.tranche_done();
    }
    feedback.done();
}
