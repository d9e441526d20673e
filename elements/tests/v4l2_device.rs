//! The V4L2 device layer on a real driver: `guest/run -- target/debug/deps/v4l2_device-*`.
//!
//! Each test takes the first capture device whose driver is vivid; without one it says so and passes. vivid's own
//! controls inject the faults. Both APIs and both allocators are covered by running the file four times, with
//! `--vivid "n_devs=1 node_types=0x1 multiplanar={1,2} allocators={0,1}"`.
#![cfg(feature = "v4l2")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use shrbuf_elements::v4l2::ioctl::{
    self, Buffer, Clock, ControlValue, Dequeued, DqbufError, Event, ExpbufError, ExtCtrlError, Failure, Format,
    FormatRequest, Fraction, FrameSizes, Memory, PixelFormat, QbufError, ReqbufsError, Size, StreamonError,
    TimestampSource,
};
use shrbuf_elements::v4l2::{
    AllocateError, CaptureQueue, ControlError, Device, ExportedBuffer, InputError, OpenError, Readiness, RequeueError,
    StartError,
};

const SIZE: Size = Size { width: 640, height: 360 };

/// One test at a time has the device.
static TURN: Mutex<()> = Mutex::new(());

struct Turn {
    device: Device,
    _turn: MutexGuard<'static, ()>,
}

/// The device in a known state; `None` where there is no vivid.
fn vivid() -> Option<Turn> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let found = Device::find().into_iter().flatten().find(|info| info.capability.driver == "vivid");
    let Some(info) = found else {
        assert!(std::env::var_os("SHRBUF_REQUIRE_DRIVERS").is_none(), "vivid is required and missing");
        eprintln!("needs vivid: run through guest/run");
        return None;
    };
    let device = Device::open(info.path).unwrap();
    device.select_input("0").unwrap();
    set_format(&device, "XR24");
    device.set_frame_interval(Fraction { numerator: 1, denominator: 60 }).unwrap();
    Some(Turn { device, _turn: turn })
}

fn pixelformat(name: &str) -> PixelFormat {
    PixelFormat::new(name.as_bytes().try_into().unwrap())
}

fn set_format(device: &Device, name: &str) -> Format {
    let request =
        FormatRequest { width: SIZE.width, height: SIZE.height, pixelformat: pixelformat(name), bytesperline: None };
    let format = device.set_format(&request).unwrap();
    assert_eq!((format.width, format.height, format.pixelformat), (SIZE.width, SIZE.height, request.pixelformat));
    format
}

/// The formats of the list that this vivid has: the multi-planar ones only with multiplanar=2.
fn offered<'a>(device: &Device, names: &[&'a str]) -> Vec<&'a str> {
    let all = ioctl::enum_fmt(device, device.buf_type()).unwrap();
    names.iter().copied().filter(|name| all.iter().any(|f| f.pixelformat == pixelformat(name))).collect()
}

fn press(device: &Device, control: &str) {
    let control = device.control(control).unwrap();
    device.set_control(&control, &ControlValue::Button).unwrap();
}

fn set(device: &Device, control: &str, value: &str) {
    let control = device.control(control).unwrap();
    device.set_control(&control, &control.parse(value).unwrap()).unwrap();
}

/// What polling tells within two seconds.
fn ready(queue: &CaptureQueue) -> Readiness {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    epoll.add(queue.as_fd(), EpollEvent::new(Readiness::INTEREST, 0)).unwrap();
    let mut events = [EpollEvent::empty()];
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match epoll.wait(&mut events, EpollTimeout::from(100u8)) {
            Ok(1) => return Readiness::from(events[0].events()),
            Ok(_) | Err(nix::errno::Errno::EINTR) => assert!(Instant::now() < deadline, "nothing to poll within 2 s"),
            Err(errno) => panic!("epoll_wait: {errno}"),
        }
    }
}

fn next_frame(queue: &mut CaptureQueue) -> Buffer {
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        ready(queue);
        if let Dequeued::Buffer(buffer) = queue.dequeue().unwrap() {
            return buffer;
        }
    }
    panic!("no frame within 2 s")
}

fn streaming(device: &Device, count: u32) -> (CaptureQueue, Vec<ExportedBuffer>) {
    let (mut queue, buffers) = CaptureQueue::mmap(device, count).unwrap();
    queue.start().unwrap();
    (queue, buffers)
}

/// A copy of what is in a dma-buf.
fn bytes(fd: &OwnedFd, offset: u32, length: u32) -> Vec<u8> {
    let all = NonZeroUsize::new((offset + length) as usize).unwrap();
    // SAFETY: a new shared mapping of the whole range, unmapped below; vivid's memory may change meanwhile, which is
    // why it is copied out as raw bytes and no reference to it is made.
    unsafe {
        let map = mmap(None, all, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, fd, 0).unwrap();
        let mut copy = vec![0; length as usize];
        std::ptr::copy_nonoverlapping(map.as_ptr().cast::<u8>().add(offset as usize), copy.as_mut_ptr(), copy.len());
        munmap(map, all.get()).unwrap();
        copy
    }
}

// Opening and finding.

#[test]
fn find_lists_formats_sizes_and_rates() {
    let Some(_vivid) = vivid() else { return };
    let start = Instant::now();
    let found = Device::find();
    eprintln!("Device::find(): {:?}", start.elapsed());
    let info = found.into_iter().flatten().find(|info| info.capability.driver == "vivid").unwrap();
    assert!(info.capability.bus_info.starts_with("platform:vivid"), "{}", info.capability.bus_info);
    assert_eq!(info.inputs[0].name, "Webcam 000-0");
    let xr24 = info.formats.iter().find(|f| f.description.pixelformat == pixelformat("XR24")).unwrap();
    assert!(xr24.sizes.contains(SIZE), "{:?}", xr24.sizes);
    let (_, intervals) = xr24.intervals.iter().find(|(size, _)| *size == SIZE).unwrap();
    let sixty = Fraction { numerator: 1, denominator: 60 };
    assert!(matches!(intervals, ioctl::FrameIntervals::Discrete(list) if list.contains(&sixty)), "{intervals:?}");
    assert!(info.formats.len() > 60, "{} formats", info.formats.len());
}

#[test]
fn sizes_of_an_hdmi_input_are_a_range() {
    let Some(vivid) = vivid() else { return };
    vivid.device.select_input("hdmi 000-0").unwrap();
    let sizes = ioctl::enum_framesizes(&vivid.device, pixelformat("XR24")).unwrap();
    assert!(matches!(sizes, FrameSizes::Stepwise { .. }), "{sizes:?}");
}

#[test]
fn first_is_the_first_that_captures() {
    let Some(vivid) = vivid() else { return };
    assert_eq!(Device::first().unwrap().path(), vivid.device.path());
}

/// Needs a node that does not capture as well: vivid's `node_types=0x101`, or vim2m.
#[test]
fn other_nodes_are_left_out_and_refused_with_the_product_name() {
    let Some(_vivid) = vivid() else { return };
    let found: Vec<_> = Device::find().into_iter().map(|info| info.unwrap().path).collect();
    let nodes = std::fs::read_dir("/sys/class/video4linux").unwrap().map(|entry| entry.unwrap().file_name());
    let others = nodes.map(|name| std::path::Path::new("/dev").join(name)).filter(|path| !found.contains(path));
    for path in others {
        let error = Device::open(&path).unwrap_err();
        assert!(matches!(&error, OpenError::NotCapture { card, .. } if !card.is_empty()), "{error}");
    }
}

#[test]
fn descriptor_closes_on_exec_and_does_not_block() {
    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    let Some(vivid) = vivid() else { return };
    let fd_flags = FdFlag::from_bits_retain(fcntl(&vivid.device, FcntlArg::F_GETFD).unwrap());
    let status = OFlag::from_bits_retain(fcntl(&vivid.device, FcntlArg::F_GETFL).unwrap());
    assert!(fd_flags.contains(FdFlag::FD_CLOEXEC) && status.contains(OFlag::O_NONBLOCK | OFlag::O_RDWR));
}

// Format, rate, input.

#[test]
fn driver_answers_an_odd_size_with_the_nearest() {
    let Some(vivid) = vivid() else { return };
    let request = FormatRequest { width: 643, height: 363, pixelformat: pixelformat("XR24"), bytesperline: None };
    let format = vivid.device.try_format(&request).unwrap();
    assert_eq!((format.width, format.height), (SIZE.width, SIZE.height));
}

#[test]
fn stride_asked_for_is_the_stride_of_every_plane() {
    let Some(vivid) = vivid() else { return };
    let request = FormatRequest {
        width: SIZE.width,
        height: SIZE.height,
        pixelformat: pixelformat("XR24"),
        bytesperline: Some(4096),
    };
    let format = vivid.device.set_format(&request).unwrap();
    assert_eq!(format.planes[0].bytesperline, 4096);
    assert_eq!(format.planes[0].sizeimage, 4096 * SIZE.height);
    assert_eq!(vivid.device.format().unwrap(), format);
}

#[test]
fn format_has_as_many_planes_as_the_fourcc_says() {
    let Some(vivid) = vivid() else { return };
    for (name, planes) in [("XR24", 1), ("NV12", 1), ("NM12", 2), ("NM16", 2), ("YM12", 3)] {
        for name in offered(&vivid.device, &[name]) {
            assert_eq!(set_format(&vivid.device, name).planes.len(), planes, "{name}");
        }
    }
}

#[test]
fn format_tells_its_colorimetry() {
    let Some(vivid) = vivid() else { return };
    const SRGB: u32 = 8;
    assert_eq!(set_format(&vivid.device, "XR24").colorimetry.colorspace, SRGB);
}

#[test]
fn frame_interval_is_the_one_in_use_afterwards() {
    let Some(vivid) = vivid() else { return };
    let wanted = Fraction { numerator: 1, denominator: 30 };
    assert_eq!(vivid.device.set_frame_interval(wanted), Ok(Some(wanted)));
    assert_eq!(vivid.device.frame_interval(), Ok(Some(wanted)));
}

#[test]
fn input_is_selected_by_name_or_index() {
    let Some(vivid) = vivid() else { return };
    assert_eq!(vivid.device.select_input("hdmi 000-0").unwrap().index, 3);
    assert_eq!(vivid.device.select_input("1").unwrap().name, "TV 000-0");
    assert_eq!(ioctl::g_input(&vivid.device), Ok(Some(1)));
}

#[test]
fn unknown_input_lists_the_known_ones() {
    let Some(vivid) = vivid() else { return };
    let error = vivid.device.select_input("Scart").unwrap_err();
    assert!(matches!(&error, InputError::Unknown { known, .. } if known.len() == 4), "{error}");
}

#[test]
fn format_cannot_change_while_a_queue_is_allocated() {
    let Some(vivid) = vivid() else { return };
    let _queue = CaptureQueue::mmap(&vivid.device, 3).unwrap();
    let request = FormatRequest { width: 320, height: 180, pixelformat: pixelformat("YUYV"), bytesperline: None };
    let error = vivid.device.set_format(&request).unwrap_err();
    assert!(matches!(error, ioctl::FmtError::Failure(Failure::Busy { .. })), "{error}");
}

// Controls.

#[test]
fn every_kind_of_control_takes_a_value_and_gives_it_back() {
    let Some(vivid) = vivid() else { return };
    for (name, text, value) in [
        ("brightness", "17", ControlValue::Integer(17)),
        ("horizontal_flip", "true", ControlValue::Boolean(true)),
        ("integer_64_bits", "-9223372036854775808", ControlValue::Integer(i64::MIN)),
        ("menu", "Menu Item 4", ControlValue::Integer(4)),
        ("integer_menu", "42", ControlValue::Integer(8)),
        ("bitmask", "0x80402010", ControlValue::Integer(0x8040_2010)),
        ("string", "abcd", ControlValue::Text("abcd".to_owned())),
    ] {
        let control = vivid.device.control(name).unwrap();
        let before = vivid.device.control_value(&control).unwrap();
        assert_eq!(control.parse(text), Ok(value.clone()), "{name}");
        vivid.device.set_control(&control, &value).unwrap();
        assert_eq!(vivid.device.control_value(&control).unwrap(), value, "{name}");
        vivid.device.set_control(&control, &before).unwrap();
    }
}

#[test]
fn controls_have_the_names_of_v4l2_ctl() {
    let Some(vivid) = vivid() else { return };
    let names: Vec<_> = vivid.device.controls().unwrap().into_iter().map(|c| c.name).collect();
    for name in ["inject_vidioc_streamon_error", "limited_rgb_range_16_235", "y_cbcr_encoding", "u8_2x3x4x5_array"] {
        assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
    }
}

#[test]
fn unknown_control_lists_the_known_ones() {
    let Some(vivid) = vivid() else { return };
    let error = vivid.device.control("brigthness").unwrap_err();
    assert!(
        matches!(&error, ControlError::Unknown { known, .. } if known.contains(&"brightness".to_owned())),
        "{error}"
    );
}

#[test]
fn read_only_control_cannot_be_set() {
    let Some(vivid) = vivid() else { return };
    let control = vivid.device.control("read_only_integer_32_bits").unwrap();
    let error = vivid.device.set_control(&control, &ControlValue::Integer(1)).unwrap_err();
    assert!(matches!(error, ControlError::Ioctl(ExtCtrlError::Direction { writing: true, .. })), "{error}");
}

#[test]
fn array_control_is_refused_with_its_name() {
    let Some(vivid) = vivid() else { return };
    let control = vivid.device.control("u16_8x16_matrix").unwrap();
    let error = vivid.device.control_value(&control).unwrap_err();
    assert!(matches!(error, ControlError::Ioctl(ExtCtrlError::Compound { .. })), "{error}");
}

// Streaming.

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
                assert_eq!(payload.length, memory.length, "{name}");
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
        let (mut queue, buffers) = CaptureQueue::mmap(&vivid.device, 3).unwrap();
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
    let before = ALLOCATIONS.get();
    let mut frames = 0;
    while frames < 30 {
        epoll.wait(&mut events, EpollTimeout::from(2000u16)).unwrap();
        if let Dequeued::Buffer(frame) = queue.dequeue().unwrap() {
            requeue.requeue(frame.index).unwrap();
            frames += 1;
        }
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

#[test]
fn polling_tells_frames_from_errors() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = CaptureQueue::mmap(&vivid.device, 3).unwrap();
    assert_eq!(ready(&queue), Readiness { frame: false, event: false, error: true, unplugged: false });
    queue.start().unwrap();
    assert_eq!(ready(&queue), Readiness { frame: true, event: false, error: false, unplugged: false });
}

#[test]
fn dequeue_without_a_frame_does_not_wait() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = streaming(&vivid.device, 3);
    while let Dequeued::Buffer(_) = queue.dequeue().unwrap() {}
    let start = Instant::now();
    while let Dequeued::Buffer(_) = queue.dequeue().unwrap() {}
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
}

#[test]
fn stopped_queue_says_that_it_is_not_streaming() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = CaptureQueue::mmap(&vivid.device, 3).unwrap();
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

// Memory.

#[test]
fn two_exports_of_one_plane_are_two_dma_bufs() {
    let Some(vivid) = vivid() else { return };
    let (_queue, buffers) = CaptureQueue::mmap(&vivid.device, 3).unwrap();
    let again = ioctl::expbuf(&vivid.device, vivid.device.buf_type(), 0, 0).unwrap();
    let inode = |fd: &OwnedFd| fstat(fd).unwrap().st_ino;
    assert_ne!(inode(&buffers[0].planes[0].fd), inode(&again));
}

#[test]
fn every_plane_is_exported_once() {
    let Some(vivid) = vivid() else { return };
    for name in offered(&vivid.device, &["XR24", "NM12", "YM12"]) {
        let format = set_format(&vivid.device, name);
        let (queue, buffers) = CaptureQueue::mmap(&vivid.device, 4).unwrap();
        let fds = buffers.iter().flat_map(|buffer| &buffer.planes).map(|plane| &plane.fd);
        let mut inodes: Vec<_> = fds.map(|fd| fstat(fd).unwrap().st_ino).collect();
        inodes.sort();
        inodes.dedup();
        assert_eq!(inodes.len(), queue.count() as usize * format.planes.len(), "{name}");
    }
}

#[test]
fn buffer_is_readable_after_the_queue_is_freed_and_the_device_closed() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, mut buffers) = streaming(&vivid.device, 3);
    let index = next_frame(&mut queue).index;
    let plane = buffers.swap_remove(index as usize).planes.remove(0);
    let picture = bytes(&plane.fd, 0, plane.length);
    drop((queue, buffers));
    assert!(bytes(&plane.fd, 0, plane.length) == picture);
    let path = vivid.device.path().to_owned();
    let turn = vivid._turn;
    drop(vivid.device);
    assert!(bytes(&plane.fd, 0, plane.length) == picture);
    // Nor does a new queue of the same device get at it.
    let device = Device::open(path).unwrap();
    let (mut queue, _buffers) = streaming(&device, 3);
    next_frame(&mut queue);
    assert!(bytes(&plane.fd, 0, plane.length) == picture);
    drop(turn);
}

/// The kernel's own list of dma-bufs; needs debugfs.
#[test]
fn nothing_is_left_of_queues_that_were_dropped() {
    let Some(vivid) = vivid() else { return };
    let dma_bufs = || std::fs::read_to_string("/sys/kernel/debug/dma_buf/bufinfo").unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = (dma_bufs(), open());
    for _ in 0..20 {
        let (queue, buffers) = streaming(&vivid.device, 4);
        drop((buffers, queue));
    }
    assert_eq!((dma_bufs(), open()), before);
}

#[test]
fn second_queue_of_a_device_is_refused() {
    let Some(vivid) = vivid() else { return };
    let first = CaptureQueue::mmap(&vivid.device, 3).unwrap();
    assert_eq!(CaptureQueue::mmap(&vivid.device, 3).unwrap_err(), AllocateError::AlreadyAllocated);
    assert_eq!(vivid.device.buffer_capabilities(), Err(ReqbufsError::Busy));
    drop(first);
    CaptureQueue::mmap(&vivid.device, 3).unwrap();
}

#[test]
fn queue_of_another_program_is_busy() {
    let Some(vivid) = vivid() else { return };
    let other = Device::open(vivid.device.path()).unwrap();
    let _theirs = CaptureQueue::mmap(&other, 3).unwrap();
    let error = CaptureQueue::mmap(&vivid.device, 3).unwrap_err();
    assert_eq!(error, AllocateError::Reqbufs(ReqbufsError::Busy));
}

#[test]
fn driver_tells_what_memory_it_supports() {
    let Some(vivid) = vivid() else { return };
    let capabilities = vivid.device.buffer_capabilities().unwrap();
    assert_eq!(capabilities.supports(Memory::Mmap), Some(true));
    assert_eq!(capabilities.supports(Memory::Dmabuf), Some(true));
    assert!(capabilities.supports_orphaned_bufs());
}

#[test]
fn no_file_descriptor_left_frees_everything() {
    let Some(vivid) = vivid() else { return };
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let mut others: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    others.pop();
    let error = CaptureQueue::mmap(&vivid.device, 8).map(|_| ()).unwrap_err();
    drop(others);
    assert_eq!(error, AllocateError::Expbuf(ExpbufError::NoFileDescriptor { index: 1, plane: 0 }));
    assert_eq!(open(), before);
    CaptureQueue::mmap(&vivid.device, 8).unwrap();
}

/// Buffers of the size of the format from the system heap.
fn heap_buffers(format: &Format, count: usize) -> Vec<Vec<OwnedFd>> {
    use shrbuf::exporter::DmaHeap;
    let heap = DmaHeap::open("system", "v4l2 test").unwrap();
    let allocate = |bytes: u32| {
        let rows = bytes.div_ceil(4096).max(1);
        let layout = shrbuf::Layout::linear(shrbuf::Format::Grey, 4096, rows, 1).unwrap();
        heap.allocate(&layout).unwrap().export(0).unwrap()
    };
    (0..count).map(|_| format.planes.iter().map(|plane| allocate(plane.sizeimage)).collect()).collect()
}

/// vivid's contiguous allocator takes only contiguous memory, so this is refused there, in words.
#[test]
fn imported_buffers_are_filled_or_refused() {
    let Some(vivid) = vivid() else { return };
    let contiguous = std::fs::read_to_string("/sys/module/vivid/parameters/allocators").unwrap().starts_with('1');
    for name in offered(&vivid.device, &["XR24", "NV12", "NM12", "NM16"]) {
        let format = set_format(&vivid.device, name);
        let buffers = heap_buffers(&format, 4);
        let read: Vec<Vec<_>> =
            buffers.iter().map(|planes| planes.iter().map(|fd| fd.try_clone().unwrap()).collect()).collect();
        let mut queue = CaptureQueue::dmabuf(&vivid.device, buffers).unwrap();
        let started = queue.start();
        assert_eq!(started.is_err(), contiguous, "{started:?}");
        assert!(matches!(started, Ok(()) | Err(StartError::Qbuf(QbufError::OutOfReach { index: 0 }))), "{started:?}");
        for _ in 0..if contiguous { 0 } else { 8 } {
            let frame = next_frame(&mut queue);
            for (plane, payload) in frame.planes().iter().enumerate() {
                let picture = bytes(&read[frame.index as usize][plane], payload.data_offset, payload.bytesused);
                assert!(picture.iter().any(|&b| b != picture[0]), "{name}: a picture of one value");
            }
            queue.requeue_handle().requeue(frame.index).unwrap();
        }
    }
}

#[test]
fn imported_file_that_is_no_dma_buf_is_refused() {
    let Some(vivid) = vivid() else { return };
    let size = vivid.device.format().unwrap().planes[0].sizeimage;
    let memfd = || {
        let fd = nix::sys::memfd::memfd_create("memfd", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, i64::from(size)).unwrap();
        vec![fd]
    };
    let mut queue = CaptureQueue::dmabuf(&vivid.device, (0..3).map(|_| memfd()).collect()).unwrap();
    assert_eq!(queue.start(), Err(StartError::Qbuf(QbufError::Refused { index: 0 })));
    assert!(!queue.is_streaming());
}

#[test]
fn too_few_buffers_to_import_are_refused_with_the_number_needed() {
    let Some(vivid) = vivid() else { return };
    let format = vivid.device.format().unwrap();
    let error = CaptureQueue::dmabuf(&vivid.device, heap_buffers(&format, 1)).unwrap_err();
    assert_eq!(error, AllocateError::Count { given: 1, granted: 2 });
}

// Faults, injected by vivid.

#[test]
fn failing_reqbufs_is_an_error_once() {
    let Some(vivid) = vivid() else { return };
    press(&vivid.device, "inject_vidioc_reqbufs_error");
    let error = CaptureQueue::mmap(&vivid.device, 4).unwrap_err();
    assert_eq!(error, AllocateError::Reqbufs(ReqbufsError::UnsupportedMemory { memory: Memory::Mmap }));
    CaptureQueue::mmap(&vivid.device, 4).unwrap();
}

#[test]
fn failing_qbuf_at_the_start_leaves_a_queue_that_starts() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, _buffers) = CaptureQueue::mmap(&vivid.device, 4).unwrap();
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
    let (mut queue, _buffers) = CaptureQueue::mmap(&vivid.device, 4).unwrap();
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

// Events.

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

// How `nothing_allocates_while_streaming` counts, by thread.

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's contract is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is ours.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
