//! The V4L2 device layer on a real driver: `guest/run -- target/debug/deps/v4l2_device-*`.
//!
//! Each test takes the first capture device whose driver is vivid; without one it says so and passes. vivid's own
//! controls inject the faults. Both APIs and both allocators are covered by running the file four times, with
//! `--vivid "n_devs=1 node_types=0x1 multiplanar={1,2} allocators={0,1}"`.
#![cfg(feature = "v4l2")]

#[macro_use]
#[path = "../../../shrbuf/tests/common/cases.rs"]
mod cases;
#[path = "../../../shrbuf/tests/common/mod.rs"]
mod common;
mod controls;
mod exporter;
mod faults;
mod finding;
mod formats;
mod memory;
mod streaming;

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use shrbuf::Access;
use shrbuf_elements::v4l2::ioctl::{
    self, Buffer, Clock, Colorimetry, ControlValue, Dequeued, DqbufError, Event, ExpbufError, ExtCtrlError, Failure,
    Format, FormatRequest, Fraction, FrameSizes, Memory, PixelFormat, QbufError, ReqbufsError, Size, StreamonError,
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

fn request(name: &str) -> FormatRequest {
    let (pixelformat, colorimetry) = (pixelformat(name), Colorimetry::default());
    FormatRequest { width: SIZE.width, height: SIZE.height, pixelformat, bytesperline: None, colorimetry }
}

fn set_format(device: &Device, name: &str) -> Format {
    let request = request(name);
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
    let (mut queue, buffers) = CaptureQueue::mmap(device, count, Access::Read).unwrap();
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
