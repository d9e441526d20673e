//! A camera of GStreamer's own, vivid, whose dma-bufs come out: on vkms, and to whoever else wants them.

use std::sync::{Arc, Mutex};

use shrbuf::MemoryKind;
use shrbuf_elements::kms::KmsSink;
use shrbuf_pipeline::{Build, Frame, Graph, Origin};
use shrbuf_tests::{Footprint, on_test_drivers};

use super::bringing::{noted, sum};
use super::{Probe, alone, finish, native, own, part, pixels, run, well};

const FRAMES: u64 = 120;
const CAMERA: &str = "v4l2src device=/dev/video0 io-mode=dmabuf ! \
    video/x-raw,format=BGRx,width=640,height=360,framerate=60/1";

/// All but what GStreamer 1.22 leaves open each time that `v4l2src io-mode=dmabuf` was started, in a pipeline with a
/// fakesink alone as well: a descriptor of the device, and four sockets.
fn left_by_us() -> Footprint {
    let mut now = Footprint::now();
    now.descriptors.retain(|of, _| !of.starts_with("/dev/video") && !of.starts_with("socket:"));
    now.descriptors.remove("anon_inode:[eventfd]");
    now
}

#[test]
fn dma_bufs_of_a_camera_of_gstreamers_are_on_a_display_without_a_copy() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let before = left_by_us();
    let mut imports = 0;
    for frames in [FRAMES, FRAMES] {
        let mut graph = Graph::new("camera");
        let camera = graph.add("part", part(&format!("{CAMERA} ! noting")).build().unwrap()).unwrap();
        let compared = Arc::new(Mutex::new((0, 0)));
        let result = Arc::clone(&compared);
        // What is on screen, read back, beside what GStreamer saw in the frame of that stamp.
        let screen = KmsSink::default().build_capturing(Box::new(move |frames, screen| {
            let noted = super::bringing::peek();
            let (source, shown) = (*frames[0].buffer.layout(), *screen.layout());
            let drawn = pixels(frames[0]);
            let is_known = noted.contains(&(frames[0].timestamp.0, sum(&drawn)));
            // It is in the middle of the mode.
            let (width, left) = (source.width as usize * 4, (shown.width - source.width) as usize * 2);
            let top = (shown.height - source.height) as usize / 2;
            let (on_screen, row) = native::plane(screen, 0);
            let colours = |row: &[u8]| row.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect::<Vec<u8>>();
            let same = drawn.chunks_exact(width).zip(on_screen.chunks_exact(row).skip(top));
            let same = same.into_iter().all(|(a, b)| colours(a) == colours(&b[left..left + width]));
            let mut result = result.lock().unwrap();
            result.0 += 1;
            result.1 += u64::from(is_known && same);
        }));
        let display = graph.add("sink", screen).unwrap();
        graph.link(camera, display).unwrap();
        let report = finish(graph, Some(frames + 1));
        well(&report);
        assert_eq!(*compared.lock().unwrap(), (frames, frames));
        assert_eq!(report.plan.links[0].stream.origin, Origin::Gstreamer);
        let granted = u64::from(report.plan.budgets[0].granted);
        assert_eq!(own(&report, "imports"), granted, "all were known before the first frame");
        assert!(imports == 0 || imports == granted);
        imports = granted;
        drop(report);
        noted();
    }
    assert_eq!(left_by_us(), before);
}

#[test]
fn dma_bufs_of_a_camera_of_gstreamers_are_the_same_pixels_here_and_there() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now().dma_bufs;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sums = Arc::clone(&seen);
    let probe = Probe(vec![MemoryKind::DmaBuf], move |frame: Frame| {
        sums.lock().unwrap().push((frame.timestamp.0, sum(&pixels(&frame))));
    });
    let report = run(part(&format!("{CAMERA} ! noting")), probe, Some(FRAMES));
    well(&report);
    let (seen, noted) = (seen.lock().unwrap(), noted());
    assert!(seen.len() as u64 == FRAMES && seen.iter().all(|frame| noted.contains(frame)));
    drop(report);
    assert_eq!(Footprint::now().dma_bufs, before);
}

/// By what GStreamer 1.22 leaves open for each start, as [`left_by_us`] says; later ones leave nothing.
#[test]
fn dma_bufs_of_a_camera_of_gstreamers_take_one_start() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let left = || -> usize {
        let descriptors = Footprint::now().descriptors;
        descriptors.iter().filter(|(of, _)| of.starts_with("/dev/video")).map(|(_, count)| *count).sum()
    };
    let before = left();
    let report = run(part(CAMERA), Probe(vec![MemoryKind::DmaBuf], drop), Some(FRAMES));
    well(&report);
    let granted = u64::from(report.plan.budgets[0].granted);
    assert!(own(&report, "imports") >= granted);
    drop(report);
    let starts = left() - before;
    assert!(starts <= 1, "{starts} starts");
}
