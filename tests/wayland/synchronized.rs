//! Frames that are still being written, and frames that are still being read: by timelines, by fences beside a commit, and by
//! what stands in the dma-buf alone.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shrbuf::exporter::Udmabuf;
use shrbuf::{Access, BufferId, Fence, Format, Layout};
use shrbuf_elements::Memory;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_pipeline::{Build, Frame};
use shrbuf_tests::{Footprint, counts, on_test_drivers, run_frames};

use crate::behaviour::{source, with_command};
use crate::fake::{Behaviour, Command, Compositor};
use crate::points::Card;
use crate::vgem::{Vgem, Work};
use crate::{alone, graph, window_at};

#[test]
fn frames_are_synchronized_by_timelines_where_the_compositor_has_them() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    for fenced in [false, true] {
        let Some(card) = Card::find() else { return };
        let compositor = Compositor::start(Behaviour { timelines: true, ..Behaviour::default() });
        let source = TestSrc { free_run: true, ..source(Memory::Udmabuf) };
        let mut graph = graph(source.build().unwrap(), window_at(compositor.socket()), move |frame| {
            if fenced {
                frame.buffer.import_fence(0, Access::Write, &Fence::new(card.fence()).unwrap()).unwrap();
            }
        });
        graph.set_retry(None);

        let report = run_frames(graph, 200);

        assert!(report.error.is_none(), "{}", report.error.unwrap());
        // No buffer is given back but by a point, and there are far fewer of them than frames.
        let window = counts(&report.graph, "window");
        assert_eq!((window.frames, window.dropped), (200, 0), "{window}");
        assert_eq!((compositor.seen().frames, compositor.seen().pointed), (200, 200));
    }
    assert_eq!(Footprint::now(), before);
}

#[test]
fn a_frame_that_is_still_being_written_is_not_read_before_it_is() {
    let _alone = alone();
    if !on_test_drivers() || Card::find().is_none() {
        return;
    }
    let timelines = Behaviour { timelines: true, ..Behaviour::default() };
    let explicit_sync = Behaviour { explicit_sync: true, ..Behaviour::default() };
    for behaviour in [timelines, explicit_sync] {
        let compositor = Compositor::start(behaviour);
        let (sender, begun) = std::sync::mpsc::channel::<Work>();
        let mut frames = 0;
        let mut graph = graph(source(Memory::Udmabuf).build().unwrap(), window_at(compositor.socket()), move |frame| {
            frames += 1;
            // The first is written, the second somebody else reads.
            if let Some(access) = [Access::Write, Access::Read].get(frames - 1) {
                sender.send(Vgem::open().unwrap().begin(*access, &frame.buffer, 0)).unwrap();
            }
        });
        graph.set_retry(None);

        let there = &compositor;
        let (report, (written, shown)) = std::thread::scope(|scope| {
            let others = scope.spawn(move || {
                let writing = begun.recv().unwrap();
                std::thread::sleep(Duration::from_millis(700));
                let written = Instant::now();
                writing.end();
                let reading = begun.recv().unwrap();
                let shown = there.seen_once(|s| s.frames >= 5).frames;
                reading.end();
                (written, shown)
            });
            (run_frames(graph, 10), others.join().unwrap())
        });

        assert!(report.error.is_none(), "{}", report.error.unwrap());
        // The compositor has had the first frame all the while, and could not read it; the second it could.
        assert!(compositor.first_ready().unwrap() >= written);
        assert!(shown >= 5, "{shown}");
        let seen = compositor.seen();
        assert_eq!(seen.pointed + seen.synchronized, seen.frames, "{seen:?}");
    }
}

#[test]
fn memory_that_is_no_dma_buf_is_not_synchronized_by_timelines() {
    let _alone = alone();
    if Card::find().is_none() {
        return;
    }
    let compositor = Compositor::start(Behaviour { timelines: true, ..Behaviour::default() });

    let report = with_command(&compositor, Memory::Memfd, None, 30);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!((compositor.seen().frames, compositor.seen().pointed), (30, 0));
}

/// A buffer that is read, and by what.
struct Reading {
    of: BufferId,
    work: Option<Work>,
    dma_buf: OwnedFd,
}

/// Whether nothing that is pending in a dma-buf is in the way of who reads it (POLLIN) or writes it (POLLOUT).
fn is_free(dma_buf: &OwnedFd, to: PollFlags) -> bool {
    poll(&mut [PollFd::new(dma_buf.as_fd(), to)], PollTimeout::ZERO).unwrap() > 0
}

/// Has something begin to read a frame, which ends thirty frames later. In the meantime its buffer is not written again.
fn read_on(compositor: &Compositor, mut begin: impl FnMut(u32, &Frame) -> Work + Send + 'static) {
    const FIRST: u32 = 10;
    const ENDS: u32 = 40;
    let reused: Arc<Mutex<[u32; 2]>> = Arc::default();
    let noted = Arc::clone(&reused);
    let (mut frames, mut read): (u32, Option<Reading>) = (0, None);
    let mut graph = graph(source(Memory::Udmabuf).build().unwrap(), window_at(compositor.socket()), move |frame| {
        frames += 1;
        let Some(Reading { of, work, dma_buf }) = &mut read else {
            if frames == FIRST {
                // The descriptor alone keeps no buffer from its pool.
                let dma_buf = frame.buffer.segments()[0].as_fd().try_clone_to_owned().unwrap();
                read = Some(Reading { of: frame.buffer.id(), work: Some(begin(frames, frame)), dma_buf });
            }
            return;
        };
        if let Some(work) = work.take_if(|_| frames == ENDS) {
            assert_eq!([PollFlags::POLLIN, PollFlags::POLLOUT].map(|to| is_free(dma_buf, to)), [true, false]);
            work.end();
        }
        if *of == frame.buffer.id() {
            noted.lock().unwrap()[usize::from(work.is_none())] += 1;
        }
    });
    graph.set_retry(None);

    let report = run_frames(graph, 70);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let [while_read, after] = *reused.lock().unwrap();
    assert!(while_read == 0 && after > 0, "{while_read} times while it was read, {after} after");
}

#[test]
fn memory_that_the_compositors_gpu_reads_on_after_its_release_is_not_written() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let compositor = Compositor::start(Behaviour::default());
    // As a driver does it, in the dma-buf alone.
    read_on(&compositor, |_, frame| {
        Vgem::open().unwrap().begin_untold(Access::Read, frame.buffer.segments()[0].as_fd())
    });
}

#[test]
fn memory_that_is_released_with_a_fence_is_not_written_before_that_signals() {
    let _alone = alone();
    if !on_test_drivers() {
        return;
    }
    let compositor = Compositor::start(Behaviour { explicit_sync: true, ..Behaviour::default() });
    let commands = compositor.commands();
    // A fence of memory that is nobody's: what the frame's has is what the release says.
    let layout = Layout::linear(Format::Xr24, 64, 64, 64).unwrap();
    let elsewhere = Udmabuf::open("test").unwrap().allocate(&layout).unwrap();

    read_on(&compositor, move |number, _| {
        let work = Vgem::open().unwrap().begin(Access::Write, &elsewhere, 0);
        let fence = elsewhere.export_fence(0, Access::Read).unwrap().unwrap();
        commands.send(Command::FenceRelease(number, fence.into())).unwrap();
        work
    });

    let seen = compositor.seen();
    assert_eq!((seen.synchronized, seen.pointed), (seen.frames, 0), "{seen:?}");
}
