//! Faults, injected by vivid, and events.

use crate::*;

#[test]
fn failing_reqbufs_is_an_error_once() {
    let Some(vivid) = vivid() else { return };
    press(&vivid.device, "inject_vidioc_reqbufs_error");
    let error = CaptureQueue::mmap(&vivid.device, 4, Access::Read).unwrap_err();
    assert_eq!(error, AllocateError::Reqbufs(ReqbufsError::UnsupportedMemory { memory: Memory::Mmap }));
    CaptureQueue::mmap(&vivid.device, 4, Access::Read).unwrap();
}

#[test]
fn failing_qbuf_at_the_start_leaves_a_queue_that_starts() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = CaptureQueue::mmap(&vivid.device, 4, Access::Read).unwrap();
    press(&vivid.device, "inject_vidioc_qbuf_error");
    assert_eq!(queue.start(), Err(StartError::Qbuf(QbufError::Refused { index: 0 })));
    queue.start().unwrap();
    next_frame(&mut queue);
}

#[test]
fn failing_qbuf_in_mid_stream_loses_no_buffer() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = streaming(&vivid.device, 3);
    let requeue = queue.requeue_handle();
    let index = next_frame(&mut queue).index;
    press(&vivid.device, "inject_vidioc_qbuf_error");
    assert_eq!(requeue.requeue(index), Err(RequeueError::Qbuf(QbufError::Refused { index })));
    assert_eq!((queue.held(), queue.queue_free()), (0, Ok(1)));
    let seen: Vec<_> = (0..3).map(|_| next_frame(&mut queue).index).collect();
    assert!(seen.contains(&index), "{seen:?}");
}

#[test]
fn failing_streamon_leaves_a_queue_that_starts() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = CaptureQueue::mmap(&vivid.device, 4, Access::Read).unwrap();
    press(&vivid.device, "inject_vidioc_streamon_error");
    assert_eq!(queue.start(), Err(StartError::Streamon(StreamonError::NotReady)));
    queue.start().unwrap();
    next_frame(&mut queue);
}

#[test]
fn damaged_frame_is_marked_and_the_stream_goes_on() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = streaming(&vivid.device, 4);
    let requeue = queue.requeue_handle();
    requeue.requeue(next_frame(&mut queue).index).unwrap();
    press(&vivid.device, "inject_v4l2_buf_flag_error");
    let damaged: Vec<bool> = (0..10)
        .map(|_| {
            let frame = next_frame(&mut queue);
            requeue.requeue(frame.index).unwrap();
            frame.is_corrupt()
        })
        .collect();
    assert_eq!(damaged.iter().filter(|&&damaged| damaged).count(), 1, "{damaged:?}");
}

#[test]
fn fatal_error_is_told_by_everything_and_ends_with_a_restart() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = streaming(&vivid.device, 4);
    let requeue = queue.requeue_handle();
    let index = next_frame(&mut queue).index;
    press(&vivid.device, "inject_fatal_streaming_error");
    let readiness = ready(&queue);
    assert!(readiness.error && !readiness.unplugged, "{readiness:?}");
    assert_eq!(queue.dequeue(), Err(DqbufError::QueueError));
    assert_eq!(requeue.requeue(index), Err(RequeueError::Qbuf(QbufError::QueueError)));
    queue.stop().unwrap();
    queue.start().unwrap();
    let seen: Vec<_> = (0..4).map(|_| next_frame(&mut queue).index).collect();
    assert!(seen.contains(&index), "{seen:?}");
}

#[test]
fn dropped_frames_show_in_the_sequence() {
    let Some(vivid) = vivid() else { return };
    set(&vivid.device, "percentage_of_dropped_buffers", "50");
    let (mut queue, _buffers) = streaming(&vivid.device, 4);
    let requeue = queue.requeue_handle();
    let sequences: Vec<u32> = (0..20)
        .map(|_| {
            let frame = next_frame(&mut queue);
            requeue.requeue(frame.index).unwrap();
            frame.sequence
        })
        .collect();
    set(&vivid.device, "percentage_of_dropped_buffers", "0");
    assert!(sequences[19] - sequences[0] > 19, "{sequences:?}");
}

#[test]
fn unplugged_device_is_told_by_everything_and_opens_again_while_a_frame_is_held() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, mut buffers) = streaming(&vivid.device, 4);
    let requeue = queue.requeue_handle();
    let index = next_frame(&mut queue).index;
    let plane = buffers.swap_remove(index as usize).planes.remove(0);
    let picture = bytes(&plane.fd, 0, plane.length);
    press(&vivid.device, "disconnect");

    assert!(ready(&queue).unplugged);
    assert!(matches!(queue.dequeue(), Err(DqbufError::Failure(Failure::Unplugged { .. }))));
    let requeued = requeue.requeue(index);
    assert!(matches!(requeued, Err(RequeueError::Qbuf(QbufError::Failure(Failure::Unplugged { .. })))), "{requeued:?}");
    assert!(queue.stop().is_err_and(|failure| failure.is_unplugged()));
    let again = queue.start();
    assert!(matches!(again, Err(StartError::Qbuf(QbufError::Failure(Failure::Unplugged { .. })))), "{again:?}");
    assert!(vivid.device.format().is_err());
    assert!(bytes(&plane.fd, 0, plane.length) == picture);

    let path = vivid.device.path().to_owned();
    let error = Device::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Unplugged { .. } | OpenError::NotFound { .. }), "{error:?}");
    // vivid plugs itself in again when its last file is closed; a handle that is left does not keep it open.
    drop((queue, vivid.device));
    assert_eq!(requeue.requeue(index), Err(RequeueError::NotHeld { index }));
    let device = Device::open(&path).unwrap();
    let (mut queue, _buffers) = streaming(&device, 4);
    next_frame(&mut queue);
    assert!(bytes(&plane.fd, 0, plane.length) == picture);
}

#[test]
fn another_signal_is_an_event() {
    let Some(vivid) = vivid() else { return };
    vivid.device.select_input("HDMI 000-0").unwrap();
    assert_eq!(vivid.device.subscribe_source_change(), Ok(true));
    assert_eq!(vivid.device.next_event(), Ok(None));
    let (queue, _buffers) = streaming(&vivid.device, 4);
    set(&vivid.device, "dv_timings_signal_mode", "Selected DV Timings");
    set(&vivid.device, "dv_timings", "1280x720p60");
    let deadline = Instant::now() + Duration::from_secs(2);
    while !ready(&queue).event {
        assert!(Instant::now() < deadline, "no event within 2 s");
    }
    assert_eq!(vivid.device.next_event(), Ok(Some(Event::SourceChange { input: 3, resolution: true })));
    set(&vivid.device, "dv_timings_signal_mode", "Current DV Timings");
}

#[test]
fn readiness_needs_no_poll_flags_of_ours_for_errors() {
    assert!(!Readiness::INTEREST.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP));
}
