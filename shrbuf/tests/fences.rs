//! Real dma-fences without a GPU: vgem attaches them to a dma-buf and signals them when told to.
//!
//! Needs vgem and a dma-heap: `guest/run -- target/debug/deps/fences-…`.

mod common;
#[path = "common/vgem.rs"]
mod vgem;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::BorrowedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use common::{Descriptors, account, one_segment, row, two_segments, with_descriptors_left};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shrbuf::exporter::{DmaHeap, Exporter, Memfd, Udmabuf};
use shrbuf::ipc::{Announced, Connection, FrameInfo, Next, Options, Producer, Wishes};
use shrbuf::{Access, AccessError, Fence, FenceStatus, Layout, Pool, Shrbuf};
use vgem::Vgem;

/// Runs a test with vgem and each exporter of dma-bufs there is, and looks afterwards for descriptors left open.
fn on_vgem(test: impl Fn(&Vgem, &Exporter)) {
    let descriptors = Descriptors::count();
    let heaps =
        [Udmabuf::open("fences").map(Exporter::Udmabuf), DmaHeap::open("system", "fences").map(Exporter::DmaHeap)];
    match (Vgem::open(), heaps) {
        (Some(vgem), [Ok(udmabuf), Ok(heap)]) => [udmabuf, heap].iter().for_each(|exporter| test(&vgem, exporter)),
        _ => common::without_drivers("needs vgem, /dev/udmabuf and /dev/dma_heap/system"),
    }
    descriptors.assert_same();
}

const LONG: Duration = Duration::from_secs(5);

fn is_readable(fd: BorrowedFd<'_>, timeout: PollTimeout) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout).unwrap() == 1
}

fn status(buffer: &Shrbuf, access: Access) -> FenceStatus {
    buffer.export_fence(0, access).unwrap().unwrap().status().unwrap()
}

#[test]
fn writer_keeps_both_waiting_and_reader_only_writers() {
    use FenceStatus::{Pending, Signalled};
    on_vgem(|vgem, exporter| {
        let buffer = exporter.allocate(&one_segment()).unwrap();
        assert_eq!([Access::Read, Access::Write].map(|a| status(&buffer, a)), [Signalled, Signalled]);
        let reading = vgem.begin(Access::Read, &buffer, 0);
        assert_eq!([Access::Read, Access::Write].map(|a| status(&buffer, a)), [Signalled, Pending]);
        reading.end();
        let writing = vgem.begin(Access::Write, &buffer, 0);
        assert_eq!([Access::Read, Access::Write].map(|a| status(&buffer, a)), [Pending, Pending]);
        writing.end();
        assert_eq!([Access::Read, Access::Write].map(|a| status(&buffer, a)), [Signalled, Signalled]);
    });
}

#[test]
fn wait_ends_with_the_time_or_with_the_signal() {
    on_vgem(|vgem, exporter| {
        let buffer = exporter.allocate(&one_segment()).unwrap();
        let work = vgem.begin(Access::Write, &buffer, 0);
        let fence = buffer.export_fence(0, Access::Read).unwrap().unwrap();
        let begin = Instant::now();
        assert!(!fence.wait(Duration::from_millis(30)).unwrap());
        assert!(begin.elapsed() >= Duration::from_millis(30));
        work.end();
        assert!(fence.wait(Duration::MAX).unwrap());
        assert_eq!(fence.status().unwrap(), FenceStatus::Signalled);
    });
}

#[test]
fn merged_fence_signals_with_the_later_one() {
    on_vgem(|vgem, exporter| {
        let (a, b) = (exporter.allocate(&one_segment()).unwrap(), exporter.allocate(&one_segment()).unwrap());
        let (first, second) = (vgem.begin(Access::Write, &a, 0), vgem.begin(Access::Write, &b, 0));
        let both = a.export_fence(0, Access::Read).unwrap().unwrap();
        let both = both.merge(&b.export_fence(0, Access::Read).unwrap().unwrap()).unwrap();
        first.end();
        assert_eq!(both.status().unwrap(), FenceStatus::Pending);
        second.end();
        assert!(both.wait(LONG).unwrap());
    });
}

#[test]
fn fences_of_all_segments_are_one() {
    on_vgem(|vgem, exporter| {
        for later in [0, 1] {
            let buffer = exporter.allocate(&two_segments()).unwrap();
            assert!(buffer.export_fences(Access::Read).unwrap().is_none(), "nobody has said that there are any");
            let works = [0, 1].map(|segment| vgem.begin(Access::Write, &buffer, segment));
            let all = buffer.export_fences(Access::Read).unwrap().unwrap();
            let [first, second] = works;
            let (sooner, later) = if later == 0 { (second, first) } else { (first, second) };
            sooner.end();
            assert_eq!(all.status().unwrap(), FenceStatus::Pending);
            later.end();
            assert!(all.wait(LONG).unwrap());
        }
    });
}

#[test]
fn fence_of_the_last_segment_alone_is_exported_too() {
    on_vgem(|vgem, exporter| {
        let buffer = exporter.allocate(&two_segments()).unwrap();
        let work = vgem.begin(Access::Write, &buffer, 1);
        let all = buffer.export_fences(Access::Read).unwrap().unwrap();
        assert_eq!(all.status().unwrap(), FenceStatus::Pending);
        work.end();
        assert!(all.wait(LONG).unwrap());
    });
}

#[test]
fn whoever_waits_is_told_of_each_segment_and_of_what_is_in_the_way() {
    on_vgem(|vgem, exporter| {
        let buffer = exporter.allocate(&two_segments()).unwrap();
        let waits = |access| !buffer.wait(access, Duration::ZERO).unwrap();
        assert_eq!([Access::Read, Access::Write].map(waits), [false, false]);
        let reading = vgem.begin(Access::Read, &buffer, 1);
        assert_eq!([Access::Read, Access::Write].map(waits), [false, true]);
        reading.end();
        let writing = vgem.begin(Access::Write, &buffer, 1);
        assert_eq!([Access::Read, Access::Write].map(waits), [true, true]);
        let ends = std::thread::spawn(move || writing.end());
        assert!(buffer.wait(Access::Write, LONG).unwrap());
        ends.join().unwrap();
    });
}

#[test]
fn imported_fence_stands_against_the_cpu() {
    on_vgem(|vgem, exporter| {
        let (source, target) = (exporter.allocate(&one_segment()).unwrap(), exporter.allocate(&one_segment()).unwrap());
        let work = vgem.begin(Access::Write, &source, 0);
        let fence = source.export_fence(0, Access::Read).unwrap().unwrap();
        assert!(!target.has_fences());
        target.import_fence(0, Access::Write, &fence).unwrap();
        assert!(target.has_fences());
        assert!(matches!(target.try_read(), Err(AccessError::Busy)));
        work.end();
        assert!(target.try_read().is_ok());
    });
}

#[test]
fn cpu_reads_beside_a_reading_device() {
    on_vgem(|vgem, exporter| {
        let buffer = exporter.allocate(&one_segment()).unwrap();
        let work = vgem.begin(Access::Read, &buffer, 0);
        assert!(buffer.try_read().is_ok());
        work.end();
    });
}

#[test]
fn second_segment_busy_closes_the_first() {
    on_vgem(|vgem, exporter| {
        let mut buffer = exporter.allocate(&two_segments()).unwrap();
        let work = vgem.begin(Access::Write, &buffer, 1);
        assert!(matches!(buffer.try_read(), Err(AccessError::Busy)));
        work.end();
        buffer.write().unwrap().plane(1).write(0, 0, &[1; 64], &account());
        assert_eq!(row(&buffer, 1, 0), [1; 64]);
    });
}

/// Blocks until thread `tid` sleeps in the kernel.
fn until_asleep(tid: i32) {
    let stat = || fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
    while !stat().contains(") S ") {
        std::thread::yield_now();
    }
}

#[test]
fn read_blocks_until_the_writer_has_signalled() {
    on_vgem(|vgem, exporter| {
        let buffer = exporter.allocate(&one_segment()).unwrap();
        let work = vgem.begin(Access::Write, &buffer, 0);
        let (ended, (tell, told)) = (AtomicBool::new(false), mpsc::channel());
        std::thread::scope(|s| {
            let reader = s.spawn(|| {
                tell.send(nix::unistd::gettid().as_raw()).unwrap();
                let _guard = buffer.read().unwrap();
                ended.load(Ordering::SeqCst)
            });
            until_asleep(told.recv().unwrap());
            ended.store(true, Ordering::SeqCst);
            work.end();
            assert!(reader.join().unwrap(), "read() returned before the writer was done");
        });
    });
}

/// A pool of one buffer, whose releases are logged.
fn pool_of_one(exporter: &Exporter, layout: &Layout) -> (Pool, Arc<Mutex<Vec<usize>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let released = log.clone();
    let buffers = vec![exporter.allocate(layout).unwrap()];
    (Pool::new(buffers, move |index| released.lock().unwrap().push(index)).unwrap(), log)
}

#[test]
fn buffer_that_a_device_still_reads_is_not_used_again() {
    on_vgem(|vgem, exporter| {
        let (pool, released) = pool_of_one(exporter, &one_segment());
        let frame = pool.acquire().unwrap();
        let work = vgem.begin(Access::Read, &frame, 0);
        drop(frame);
        assert_eq!((pool.idle(), pool.draining()), (0, 1));
        assert!(pool.acquire().is_none());
        assert!(pool.take(0).is_none());
        pool.reap().unwrap();
        assert_eq!(*released.lock().unwrap(), []);
        assert!(!is_readable(pool.fences_fd(), PollTimeout::ZERO));

        work.end();
        assert!(is_readable(pool.fences_fd(), PollTimeout::from(5000u16)));
        assert_eq!(*released.lock().unwrap(), []);
        pool.reap().unwrap();
        assert_eq!(*released.lock().unwrap(), [0]);
        assert!(!is_readable(pool.fences_fd(), PollTimeout::ZERO));
        assert!(pool.acquire().is_some());
    });
}

#[test]
fn buffer_drains_again_and_again() {
    on_vgem(|vgem, exporter| {
        let (pool, released) = pool_of_one(exporter, &one_segment());
        for _ in 0..20 {
            let frame = pool.acquire().unwrap();
            let work = vgem.begin(Access::Read, &frame, 0);
            drop(frame);
            work.end();
            assert!(is_readable(pool.fences_fd(), PollTimeout::from(5000u16)));
            pool.reap().unwrap();
        }
        assert_eq!(released.lock().unwrap().len(), 20);
    });
}

#[test]
fn buffer_drains_until_the_last_segment_is_free() {
    on_vgem(|vgem, exporter| {
        let (pool, released) = pool_of_one(exporter, &two_segments());
        let frame = pool.acquire().unwrap();
        let works = [0, 1].map(|segment| vgem.begin(Access::Read, &frame, segment));
        drop(frame);
        for (work, before) in works.into_iter().zip([1, 1]) {
            assert_eq!(pool.draining(), before);
            work.end();
            assert!(is_readable(pool.fences_fd(), PollTimeout::from(5000u16)));
            pool.reap().unwrap();
        }
        assert_eq!((pool.idle(), pool.draining()), (1, 0));
        assert_eq!(*released.lock().unwrap(), [0]);
    });
}

#[test]
fn fence_over_before_the_release_delays_nothing() {
    on_vgem(|vgem, exporter| {
        let (pool, released) = pool_of_one(exporter, &one_segment());
        let frame = pool.acquire().unwrap();
        vgem.begin(Access::Read, &frame, 0).end();
        drop(frame);
        assert_eq!(*released.lock().unwrap(), [0]);
    });
}

#[test]
fn pool_dropped_while_a_buffer_drains_runs_no_hook() {
    on_vgem(|vgem, exporter| {
        let (pool, released) = pool_of_one(exporter, &one_segment());
        let frame = pool.acquire().unwrap();
        let weak = frame.downgrade();
        let work = vgem.begin(Access::Read, &frame, 0);
        drop(frame);
        drop(pool);
        assert!(weak.is_gone());
        work.end();
        assert_eq!(*released.lock().unwrap(), []);
    });
}

#[test]
fn fences_that_were_imported_are_over_once_they_have_signalled() {
    on_vgem(|vgem, exporter| {
        let source = exporter.allocate(&one_segment()).unwrap();
        let (pool, _) = pool_of_one(exporter, &one_segment());
        for expects in [false, true] {
            let work = vgem.begin(Access::Write, &source, 0);
            let fence = source.export_fence(0, Access::Read).unwrap().unwrap();
            let frame = pool.acquire().unwrap();
            if expects {
                frame.expect_fences();
            }
            frame.import_fence(0, Access::Read, &fence).unwrap();
            drop(frame);
            assert_eq!(pool.draining(), 1);
            work.end();
            assert!(is_readable(pool.fences_fd(), PollTimeout::from(5000u16)));
            pool.reap().unwrap();

            // Whoever attaches them by himself may have begun anew.
            assert_eq!(pool.acquire().unwrap().has_fences(), expects);
        }
    });
}

#[test]
fn a_fence_that_has_signalled_is_nothing_to_wait_for() {
    on_vgem(|vgem, exporter| {
        let buffer = exporter.allocate(&one_segment()).unwrap();
        let work = vgem.begin(Access::Write, &buffer, 0);
        let fence = || buffer.export_fence(0, Access::Read).unwrap().unwrap().into();
        let pending = Fence::pending(fence()).unwrap().unwrap();
        work.end();
        assert!(pending.wait(LONG).unwrap());

        assert!(Fence::pending(fence()).unwrap().is_none());
        let error = Fence::pending(File::open("/dev/null").unwrap().into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTTY));
    });
}

#[test]
fn pool_takes_a_buffer_that_is_still_read() {
    on_vgem(|vgem, exporter| {
        let frame = exporter.allocate(&one_segment()).unwrap();
        let work = vgem.begin(Access::Read, &frame, 0);
        let pool = Pool::new(vec![frame], |_| {}).unwrap();
        assert!(pool.acquire().is_none());
        work.end();
        assert!(is_readable(pool.fences_fd(), PollTimeout::from(5000u16)));
        pool.reap().unwrap();
        assert!(pool.acquire().is_some());
    });
}

#[test]
fn descriptor_limit_at_export_of_a_fence_returns_error() {
    on_vgem(|vgem, exporter| {
        let buffer = exporter.allocate(&one_segment()).unwrap();
        let work = vgem.begin(Access::Write, &buffer, 0);
        let fence = buffer.export_fence(0, Access::Read).unwrap().unwrap();
        let errors = with_descriptors_left(0, || {
            [buffer.export_fence(0, Access::Read).map(drop), fence.merge(&fence).map(drop)]
        });
        work.end();
        assert_eq!(errors.map(|e| e.unwrap_err().raw_os_error()), [Some(nix::libc::EMFILE); 2]);
    });
}

#[test]
fn fence_of_a_device_that_hangs_ends_after_its_time() {
    on_vgem(|vgem, exporter| {
        let buffer = exporter.allocate(&one_segment()).unwrap();
        let _never_ended = vgem.begin(Access::Write, &buffer, 0);
        let fence = buffer.export_fence(0, Access::Read).unwrap().unwrap();
        assert_eq!(fence.status().unwrap(), FenceStatus::Pending);
        // vgem signals by itself after 10 s.
        assert!(fence.wait(Duration::from_secs(15)).unwrap());
        assert_eq!(fence.status().unwrap(), FenceStatus::Signalled);
    });
}

#[test]
fn memfd_has_no_fences() {
    let descriptors = Descriptors::count();
    let buffer = Memfd::new("fences").allocate(&one_segment()).unwrap();
    assert!(buffer.export_fence(0, Access::Write).unwrap().is_none());
    buffer.expect_fences();
    assert!(buffer.export_fences(Access::Write).unwrap().is_none());
    assert_eq!(buffer.export_fence(1, Access::Write).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    drop(buffer);
    descriptors.assert_same();
}

#[test]
fn descriptor_that_is_no_fence_returns_error() {
    let descriptors = Descriptors::count();
    let error = Fence::new(File::open("/dev/null").unwrap().into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTTY));
    descriptors.assert_same();
}

const CONSUMER: &str = "SHRBUF_FENCES_SOCKET";

/// Not a test: the other process of the test below.
#[test]
fn consumer() {
    let Ok(socket) = std::env::var(CONSUMER) else { return };
    let connection = Connection::open(socket.as_ref(), &Wishes::default(), LONG).unwrap();
    let mut consumer = connection.start().unwrap();
    let Next::Frame(frame) = consumer.wait(LONG).unwrap() else { panic!("no frame") };
    let written = frame.buffer.export_fence(0, Access::Read).unwrap().unwrap();
    assert_eq!(written.status().unwrap(), FenceStatus::Pending);
    println!("\n>pending");
    assert!(written.wait(LONG).unwrap());
    // Dropped while a device here still reads it: it goes back once that is done.
    let vgem = Vgem::open().unwrap();
    let reading = vgem.begin(Access::Read, &frame.buffer, 0);
    drop(frame);
    assert!(!is_readable(consumer.fences_fd(), PollTimeout::ZERO));
    reading.end();
    assert!(is_readable(consumer.fences_fd(), PollTimeout::from(5000_u16)));
    // There is no other buffer for the next frame.
    let Next::Frame(_) = consumer.wait(LONG).unwrap() else { panic!("no second frame") };
}

#[test]
fn fences_cross_to_another_process_with_the_dma_buf() {
    on_vgem(|vgem, exporter| {
        let buffer = exporter.allocate(&one_segment()).unwrap();
        let path = std::env::temp_dir().join(format!("shrbuf-fences-{}", std::process::id()));
        let announced = vec![Announced::of(&buffer).unwrap()];
        let pool = Pool::new(vec![buffer], |_| {}).unwrap();
        let mut producer = Producer::bind(&path, Options::default(), announced, None).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "consumer", "--nocapture"])
            .env(CONSUMER, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        while producer.consumers() == 0 {
            assert!(child.try_wait().unwrap().is_none(), "the consumer has failed");
            producer.wait(Some(Duration::from_millis(50))).unwrap();
        }
        let frame = pool.acquire().unwrap();
        let writing = vgem.begin(Access::Write, &frame, 0);
        producer.send(&frame, &FrameInfo::default()).unwrap();
        drop(frame);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().any(|line| line.unwrap() == ">pending"));
        writing.end();
        let again = loop {
            assert!(child.try_wait().unwrap().is_none(), "the consumer has failed");
            producer.wait(Some(Duration::from_millis(50))).unwrap();
            pool.reap().unwrap();
            if let Some(frame) = pool.acquire() {
                break frame;
            }
        };
        producer.send(&again, &FrameInfo::default()).unwrap();
        drop(again);
        assert!(child.wait().unwrap().success());
        while pool.idle() == 0 {
            producer.wait(Some(Duration::from_millis(50))).unwrap();
            pool.reap().unwrap();
        }
        assert_eq!(producer.counts().refused, 0);
    });
}
