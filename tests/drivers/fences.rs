//! Fences on their way through a pipeline: readers keep a buffer from the camera, writers a frame from the screen.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use shrbuf::{Access, BufferId, Format, Shrbuf};
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_pipeline::{Build, Graph, Size};
use shrbuf_tests::{Footprint, Watch, counts, on_test_drivers, run_frames, small_camera};

use crate::vgem::{Vgem, Work};

/// What is in a dma-buf that nobody here has a reference to.
fn bytes(fd: &OwnedFd, length: usize) -> Vec<u8> {
    let length = NonZeroUsize::new(length).unwrap();
    // SAFETY: a new shared mapping of memory at least as long, copied out as raw bytes and unmapped again; no reference
    // to it is made.
    unsafe {
        let map = mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, fd, 0).unwrap();
        let mut copy = vec![0; length.get()];
        std::ptr::copy_nonoverlapping(map.as_ptr().cast::<u8>(), copy.as_mut_ptr(), copy.len());
        munmap(map, length.get()).unwrap();
        copy
    }
}

fn all_of(buffer: &Shrbuf) -> Vec<u8> {
    let fd = buffer.export(0).unwrap();
    bytes(&fd, buffer.segments()[0].size() as usize)
}

/// A frame that was let go of while a device goes on reading it.
struct Read {
    id: BufferId,
    memory: OwnedFd,
    picture: Vec<u8>,
    work: Option<Work>,
}

#[derive(Default)]
struct Seen {
    frames: u64,
    read: Option<Read>,
    came_while_read: u64,
    came_after: u64,
    others_differ: bool,
}

#[test]
fn a_frame_that_a_device_still_reads_is_not_queued_at_the_camera() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let vgem = Vgem::open().unwrap();
    let seen: Arc<Mutex<Seen>> = Arc::default();
    let noted = Arc::clone(&seen);
    let watch = Watch::new(move |frame| {
        let mut seen = noted.lock().unwrap();
        seen.frames += 1;
        let frames = seen.frames;
        let Seen { read, came_while_read, came_after, others_differ, .. } = &mut *seen;
        let Some(read) = read else {
            if frames == 10 {
                let memory = frame.buffer.export(0).unwrap();
                let work = Some(vgem.begin(Access::Read, &frame.buffer, 0));
                *read = Some(Read { id: frame.buffer.id(), memory, picture: all_of(&frame.buffer), work });
            }
            return;
        };
        if frame.buffer.id() == read.id {
            *(if read.work.is_some() { came_while_read } else { came_after }) += 1;
        }
        if frames == 60 {
            // Each of vivid's pictures has its number in it.
            *others_differ = all_of(&frame.buffer) != read.picture;
            assert!(bytes(&read.memory, read.picture.len()) == read.picture, "it was overwritten");
            read.work.take().unwrap().end();
        }
    });
    let mut graph = Graph::new("test");
    let camera = graph.add("camera", small_camera().build().unwrap()).unwrap();
    let watch = graph.add("watch", watch).unwrap();
    let sink = graph.add("sink", NullSink {}.build().unwrap()).unwrap();
    graph.link(camera, watch).unwrap();
    graph.link(watch, sink).unwrap();

    let report = run_frames(graph, 120);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.frames, 120);
    assert_eq!(seen.came_while_read, 0);
    assert!(seen.others_differ);
    assert!(seen.came_after >= 3, "{}: the camera has not got it back", seen.came_after);
    drop((report, seen));
    assert_eq!(Footprint::settled(&before), before);
}

#[test]
fn a_frame_that_a_device_still_writes_is_shown_once_it_is_done() {
    if !on_test_drivers() {
        return;
    }
    const WRITING: Duration = Duration::from_millis(400);
    let before = Footprint::now();
    let vgem = Vgem::open().unwrap();
    let written: Arc<Mutex<Option<(u64, Instant)>>> = Arc::default();
    let shown: Arc<Mutex<Vec<(u64, Instant)>>> = Arc::default();
    let (noted, ended) = (Arc::clone(&shown), Arc::clone(&written));
    let mut frames = 0;
    let watch = Watch::new(move |frame| {
        frames += 1;
        if frames == 10 {
            let work = vgem.begin(Access::Write, &frame.buffer, 0);
            let (ended, number) = (Arc::clone(&ended), frame.sequence);
            std::thread::spawn(move || {
                std::thread::sleep(WRITING);
                *ended.lock().unwrap() = Some((number, Instant::now()));
                work.end();
            });
        }
    });
    let camera = V4l2Src { format: Some(Format::Xr24), size: Some(Size::new(320, 180)), ..V4l2Src::default() };
    let display = KmsSink::default().build_capturing(Box::new(move |frames, _| {
        noted.lock().unwrap().push((frames[0].sequence, Instant::now()));
    }));
    let mut graph = Graph::new("test");
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let watch = graph.add("watch", watch).unwrap();
    let display = graph.add("display", display).unwrap();
    graph.link(camera, watch).unwrap();
    graph.link(watch, display).unwrap();

    let report = run_frames(graph, 30);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(counts(&report.graph, "display").frames, 30);
    let (number, ended) = written.lock().unwrap().take().unwrap();
    let shown = std::mem::take(&mut *shown.lock().unwrap());
    let of = |wanted| shown.iter().find(|(number, _)| *number == wanted).unwrap().1;
    let earlier = shown.iter().filter(|(n, _)| *n < number).map(|(n, _)| *n).max().unwrap();
    assert!(of(earlier) < ended, "the frame before was waiting too");
    assert!(of(number) >= ended, "{:?} too soon", ended - of(number));
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}
