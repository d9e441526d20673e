//! Frames, and buffers on their way.

use crate::*;

#[test]
fn frames_come_in_every_format_with_what_they_hold() {
    let Some(vivid) = vivid() else { return };
    let names = offered(&vivid.device, &["XR24", "YUYV", "NV12", "RGB3", "GREY", "NM12", "NM16", "YM12"]);
    eprintln!("formats: {names:?}");
    for name in names {
        let format = set_format(&vivid.device, name);
        let (mut queue, buffers) = streaming(&vivid.device, 4);
        let requeue = queue.requeue_handle();
        let mut last = next_frame(&mut queue);
        requeue.requeue(last.index).unwrap();
        for _ in 0..5 {
            let frame = next_frame(&mut queue);
            // Not `<`: vivid counts by its clock's ticks, and gives two frames that come close together one number.
            let order = (last.sequence <= frame.sequence, last.timestamp.ns < frame.timestamp.ns);
            assert_eq!(order, (true, true), "{name}: {last:?} then {frame:?}");
            assert!(!frame.is_corrupt() && !frame.is_last(), "{name}");
            assert_eq!((frame.timestamp.clock, frame.field), (Clock::Monotonic, ioctl::Field::None), "{name}");
            assert_eq!(frame.planes().len(), format.planes.len(), "{name}");
            for (plane, payload) in frame.planes().iter().enumerate() {
                let memory = &buffers[frame.index as usize].planes[plane];
                let end = payload.data_offset + payload.bytesused;
                assert!(end <= format.planes[plane].sizeimage && payload.bytesused > 0, "{name} {payload:?}");
                let picture = bytes(&memory.fd, payload.data_offset, payload.bytesused);
                assert!(picture.iter().any(|&b| b != picture[0]), "{name}: a picture of one value");
            }
            requeue.requeue(frame.index).unwrap();
            last = frame;
        }
    }
}

/// The kernel's document leaves it open whether `bytesused` of a capture plane includes `data_offset`; it does.
#[test]
fn data_offset_is_where_the_picture_begins() {
    let Some(vivid) = vivid() else { return };
    const PLANE0_DATA_OFFSET: u32 = 128;
    for name in offered(&vivid.device, &["NM16"]) {
        let format = set_format(&vivid.device, name);
        let (mut queue, buffers) = CaptureQueue::mmap(&vivid.device, 3, Access::Read).unwrap();
        assert_eq!(queue.data_offsets(1), Ok(vec![PLANE0_DATA_OFFSET, 0]));
        queue.start().unwrap();
        let frame = next_frame(&mut queue);
        let luma = frame.planes()[0];
        assert_eq!(luma.data_offset, PLANE0_DATA_OFFSET);
        assert_eq!(luma.bytesused, format.planes[0].bytesperline * format.height);
        // vivid fills what precedes the picture with the low byte of the offset.
        let before = bytes(&buffers[frame.index as usize].planes[0].fd, 0, PLANE0_DATA_OFFSET);
        assert!(before.iter().all(|&b| b == PLANE0_DATA_OFFSET as u8), "{before:?}");
    }
}

/// With the end of the frame as its source, vivid's time stamps lie 0.9 frame periods in the future: it adds them to
/// the time at which it draws the picture, and hands the picture out at once.
#[test]
fn timestamp_is_of_the_monotonic_clock_and_of_the_source_that_is_set() {
    let Some(vivid) = vivid() else { return };
    set(&vivid.device, "timestamp_source", "Start of Exposure");
    let (mut queue, _buffers) = streaming(&vivid.device, 3);
    let frame = next_frame(&mut queue);
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    drop(queue);
    set(&vivid.device, "timestamp_source", "End of Frame");
    assert_eq!(frame.timestamp.source, TimestampSource::StartOfExposure);
    let age = (now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64).wrapping_sub(frame.timestamp.ns);
    assert!(age < 1_000_000_000, "{age} ns old");
}

#[test]
fn interlaced_fields_alternate() {
    let Some(vivid) = vivid() else { return };
    vivid.device.select_input("1").unwrap();
    let (mut queue, _buffers) = streaming(&vivid.device, 4);
    let requeue = queue.requeue_handle();
    let frame = next_frame(&mut queue);
    requeue.requeue(frame.index).unwrap();
    assert_ne!(frame.field, ioctl::Field::None);
}

/// A difference of 0 is vivid's: see above.
#[test]
fn sequence_wraps_without_an_error() {
    let Some(vivid) = vivid() else { return };
    set(&vivid.device, "wrap_sequence_number", "true");
    vivid.device.set_frame_interval(Fraction { numerator: 1, denominator: 120 }).unwrap();
    let (mut queue, _buffers) = streaming(&vivid.device, 4);
    let requeue = queue.requeue_handle();
    let sequences: Vec<u32> = (0..140)
        .map(|_| {
            let frame = next_frame(&mut queue);
            requeue.requeue(frame.index).unwrap();
            frame.sequence
        })
        .collect();
    drop(queue);
    set(&vivid.device, "wrap_sequence_number", "false");
    assert!(sequences.windows(2).all(|pair| (0..1000).contains(&pair[1].wrapping_sub(pair[0]))), "{sequences:?}");
    assert!(sequences.windows(2).any(|pair| pair[1] < pair[0]), "{sequences:?}");
}

#[test]
fn nothing_allocates_while_streaming() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = streaming(&vivid.device, 4);
    let requeue = queue.requeue_handle();
    let first = next_frame(&mut queue);
    requeue.requeue(first.index).unwrap();
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll.add(queue.as_fd(), EpollEvent::new(Readiness::INTEREST, 0)).unwrap();
    let mut events = [EpollEvent::empty()];
    let before = shrbuf_tests::allocations();
    let mut frames = 0;
    while frames < 30 {
        epoll.wait(&mut events, EpollTimeout::from(2000u16)).unwrap();
        if let Dequeued::Buffer(frame) = queue.dequeue().unwrap() {
            requeue.requeue(frame.index).unwrap();
            frames += 1;
        }
    }
    assert_eq!(shrbuf_tests::allocations() - before, 0);
}

#[test]
fn polling_tells_frames_from_errors() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = CaptureQueue::mmap(&vivid.device, 3, Access::Read).unwrap();
    assert_eq!(ready(&queue), Readiness { frame: false, event: false, error: true, unplugged: false });
    queue.start().unwrap();
    assert_eq!(ready(&queue), Readiness { frame: true, event: false, error: false, unplugged: false });
}

#[test]
fn dequeue_without_a_frame_does_not_wait() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = streaming(&vivid.device, 3);
    // Once all are out, one that waits does so for ever.
    let mut out = 0;
    while out < 3 {
        out += u32::from(matches!(queue.dequeue().unwrap(), Dequeued::Buffer(_)));
    }
    assert!(matches!(queue.dequeue().unwrap(), Dequeued::NotReady));
}

#[test]
fn stopped_queue_says_that_it_is_not_streaming() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = CaptureQueue::mmap(&vivid.device, 3, Access::Read).unwrap();
    assert_eq!(queue.dequeue(), Err(DqbufError::NotStreaming));
}

#[test]
fn held_buffer_is_not_overwritten() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, buffers) = streaming(&vivid.device, 4);
    let requeue = queue.requeue_handle();
    let held = next_frame(&mut queue);
    let plane = &buffers[held.index as usize].planes[0];
    let before = bytes(&plane.fd, 0, plane.length);
    for _ in 0..10 {
        let frame = next_frame(&mut queue);
        assert_ne!(frame.index, held.index);
        requeue.requeue(frame.index).unwrap();
    }
    assert!(bytes(&plane.fd, 0, plane.length) == before);
    assert_eq!(queue.held(), 1);
}

#[test]
fn buffer_given_back_twice_is_refused() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = streaming(&vivid.device, 3);
    let requeue = queue.requeue_handle();
    let index = next_frame(&mut queue).index;
    assert_eq!(requeue.requeue(index), Ok(()));
    // By now it may have been filled and dequeued only by us, and we have not.
    assert_eq!(requeue.requeue(index), Err(RequeueError::NotHeld { index }));
    assert_eq!(requeue.requeue(99), Err(RequeueError::NotHeld { index: 99 }));
}

#[test]
fn buffer_given_back_while_stopped_is_queued_by_the_next_start() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = streaming(&vivid.device, 4);
    let requeue = queue.requeue_handle();
    let (one, two) = (next_frame(&mut queue).index, next_frame(&mut queue).index);
    queue.stop().unwrap();
    assert_eq!(requeue.requeue(one), Err(RequeueError::Stopped { index: one }));
    queue.start().unwrap();
    let mut seen = vec![next_frame(&mut queue).index, next_frame(&mut queue).index, next_frame(&mut queue).index];
    assert!(seen.contains(&one) && !seen.contains(&two), "{seen:?}");
    requeue.requeue(two).unwrap();
    seen.push(next_frame(&mut queue).index);
    assert_eq!(seen[3], two);
    assert_eq!(queue.held(), 4);
}

#[test]
fn buffers_go_back_from_other_threads_while_the_queue_stops_and_starts() {
    let Some(vivid) = vivid() else { return };
    vivid.device.set_frame_interval(Fraction { numerator: 1, denominator: 120 }).unwrap();
    let (mut queue, _buffers) = streaming(&vivid.device, 8);
    let (to_readers, frames) = std::sync::mpsc::sync_channel::<u32>(8);
    let frames = Mutex::new(frames);
    std::thread::scope(|s| {
        for _ in 0..2 {
            let (requeue, frames) = (queue.requeue_handle(), &frames);
            s.spawn(move || {
                loop {
                    let frame = frames.lock().unwrap().recv();
                    let Ok(index) = frame else { break };
                    std::thread::sleep(Duration::from_millis(3));
                    assert!(matches!(requeue.requeue(index), Ok(()) | Err(RequeueError::Stopped { .. })));
                }
            });
        }
        for _ in 0..6 {
            for _ in 0..10 {
                to_readers.send(next_frame(&mut queue).index).unwrap();
            }
            queue.stop().unwrap();
            queue.start().unwrap();
        }
        drop(to_readers);
    });
    assert_eq!(queue.held(), 0);
}

#[test]
fn signals_do_not_disturb_the_stream() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn nothing(_: i32) {}
    let Some(vivid) = vivid() else { return };
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it may interrupt anything.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    // SAFETY: always allowed.
    let main = unsafe { libc::pthread_self() };
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // SAFETY: the scope keeps the thread that `main` names alive.
                unsafe { libc::pthread_kill(main, libc::SIGUSR1) };
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        for _ in 0..4 {
            let (mut queue, _buffers) = streaming(&vivid.device, 4);
            let requeue = queue.requeue_handle();
            for _ in 0..10 {
                requeue.requeue(next_frame(&mut queue).index).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
