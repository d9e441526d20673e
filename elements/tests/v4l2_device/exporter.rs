//! A driver's exported buffers, by the conformance suite of every exporter.

use shrbuf::{Layout, Modifier, Shrbuf, layout::Plane};

use crate::cases::Case;
use crate::common::Descriptors;
use crate::*;

/// The driver's buffers as the pipeline has them.
fn shrbufs(name: &str, format: &Format, exported: Vec<ExportedBuffer>, offsets: &[u32]) -> Vec<Shrbuf> {
    let (known, _) = shrbuf::Format::from_v4l2(pixelformat(name).0).unwrap();
    let planes: Vec<Plane> = (0u8..)
        .zip(format.planes.iter().zip(offsets))
        .map(|(segment, (plane, &offset))| Plane { segment, offset, stride: plane.bytesperline })
        .collect();
    let layout = Layout::new(known, Some(Modifier::LINEAR), format.width, format.height, &planes).unwrap();
    let import = |b: ExportedBuffer| Shrbuf::import(b.planes.into_iter().map(|p| p.fd).collect(), layout).unwrap();
    exported.into_iter().map(import).collect()
}

fn on_vivid(case: Case) {
    let Some(vivid) = vivid() else { return };
    let descriptors = Descriptors::count();
    for name in offered(&vivid.device, &["XR24", "NM12", "NM16", "YM12"]) {
        let format = set_format(&vivid.device, name);
        let (queue, exported) = CaptureQueue::mmap(&vivid.device, 4, Access::Write).unwrap();
        let offsets = queue.data_offsets(0).unwrap();
        let mut buffers = shrbufs(name, &format, exported, &offsets);
        case(&mut || buffers.pop().unwrap());
    }
    descriptors.assert_same();
}

cases!(on_vivid);
