//! The KMS device layer on a real kernel driver: vkms, with its writeback connector.
//!
//! `scripts/test-guest kms`. Elsewhere the tests say so and pass.
#![cfg(feature = "kms")]

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use drm::control::Device as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shrbuf::exporter::{DmaHeap, Udmabuf};
use shrbuf::{Account, Format, Layout, Ledger, Modifier, Reason, Shrbuf};
use shrbuf_elements::kms::{
    Card, CommitError, DeviceError, DumbBuffer, EventBuffer, Fit, Flip, FlipEvent, FrameBuffer, FramePlane, FrameSpec,
    ImportError, Output, OutputError, Placement, PlanError, RestoreError, Screen, Writeback, refresh_ns,
};

/// Counts this thread's allocations.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands every call on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, memory) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// There is one display and one master: one test at a time.
static DISPLAY: Mutex<()> = Mutex::new(());

struct Vkms {
    card: Card,
    // After the card, whose mastership it guards.
    _alone: MutexGuard<'static, ()>,
}

fn vkms() -> Option<Vkms> {
    let alone = DISPLAY.lock().unwrap_or_else(PoisonError::into_inner);
    let found = Card::find().into_iter().flatten().find(|card| card.driver == "vkms");
    let Some(found) = found else {
        assert!(std::env::var_os("SHRBUF_REQUIRE_DRIVERS").is_none(), "vkms is required and missing");
        println!("needs vkms: run through guest/run");
        return None;
    };
    Some(Vkms { card: Card::open(found.path).unwrap(), _alone: alone })
}

const XR24: u32 = u32::from_le_bytes(*b"XR24");
const RG16: u32 = u32::from_le_bytes(*b"RG16");
const NV12: u32 = u32::from_le_bytes(*b"NV12");

/// vkms composes on the CPU with a division for each component: under emulation a capture of 640x480 in RG16 takes a
/// second, and 1280x720 in XR24 0.15 s.
const CAPTURE: Duration = Duration::from_secs(20);

fn account() -> Account {
    Ledger::default().account("test", Reason::Inspect)
}

/// Pixels that differ everywhere, and from one seed to another.
fn pattern(layout: &Layout, seed: u32) -> Vec<Vec<u8>> {
    let mut x = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut byte = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        (x >> 11) as u8
    };
    (0..layout.height).map(|_| (0..layout.row_bytes(0)).map(|_| byte()).collect()).collect()
}

fn draw(buffer: &mut Shrbuf, rows: &[Vec<u8>]) {
    let account = account();
    let mut guard = buffer.write().unwrap();
    for (y, row) in rows.iter().enumerate() {
        guard.plane(0).write(y, 0, row, &account);
    }
}

/// A picture's rows, with the unused byte of XR24 cleared.
fn rows(buffer: &Shrbuf) -> Vec<Vec<u8>> {
    let account = account();
    let guard = buffer.read().unwrap();
    let plane = guard.plane(0);
    let mut rows = vec![vec![0; plane.row_bytes()]; plane.rows()];
    for (y, row) in rows.iter_mut().enumerate() {
        plane.read(y, 0, row, &account);
        if buffer.layout().format == Format::Xr24 {
            row.iter_mut().skip(3).step_by(4).for_each(|x| *x = 0);
        }
    }
    rows
}

fn layout(fourcc: u32, width: u32, height: u32) -> Layout {
    Layout::linear(Format::from_drm(fourcc).unwrap(), width, height, 256).unwrap()
}

/// A frame in a udmabuf, with a pattern.
fn frame(card: &Card, fourcc: u32, (width, height): (u32, u32), seed: u32) -> (FrameBuffer, Shrbuf) {
    let layout = layout(fourcc, width, height);
    let mut buffer = Udmabuf::open("test").unwrap().allocate(&layout).unwrap();
    draw(&mut buffer, &pattern(&layout, seed));
    (FrameBuffer::of_shrbuf(card, &buffer).unwrap(), buffer)
}

fn flip(frame: &FrameBuffer, user_data: u64) -> Flip<'_> {
    Flip { frame, in_fence: None, user_data }
}

/// Waits for the next flip event, at most two seconds.
fn next_event(card: &Card, buffer: &mut EventBuffer) -> FlipEvent {
    let mut fds = [PollFd::new(card.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut fds, PollTimeout::from(2000u16)).unwrap();
    assert_eq!(ready, 1, "no flip event within 2 s");
    let mut events = card.read_events(buffer).unwrap();
    let event = events.next().expect("a flip event");
    assert_eq!(events.next(), None, "one flip, one event");
    event
}

fn exact(output: &Output, frame: &FrameBuffer) -> Placement {
    let plan = output.plan_for(frame).unwrap();
    assert_eq!(plan[0].fit, Fit::Exact);
    plan[0].clone()
}

/// Shows a frame in a mode of its size, and waits until it is there.
fn show(output: &Output, frame: &FrameBuffer, writeback: Option<Writeback>) -> Screen {
    let screen = Screen::start(output, &exact(output, frame), writeback, &flip(frame, 0)).unwrap();
    assert_eq!(next_event(output.card(), &mut EventBuffer::new()).user_data, 0);
    screen
}

/// What the kernel says is on the first CRTC and its planes, without reference counts.
fn on_screen() -> String {
    let state = std::fs::read_to_string("/sys/kernel/debug/dri/0/state").unwrap();
    let (mut lines, mut off) = (Vec::new(), false);
    for line in state.lines() {
        // A plane that is off keeps its rectangles; they mean nothing.
        off = if line.starts_with('\t') { off || line == "\tfb=0" } else { false };
        let wanted = ["\tcrtc=", "\tfb=", "\tactive=", "\tenable=", "\tmode:"];
        let rectangle = ["\tcrtc-pos=", "\tsrc-pos="].iter().any(|w| line.starts_with(w));
        if !line.starts_with('\t') || wanted.iter().any(|w| line.starts_with(w)) || (rectangle && !off) {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n")
}

fn open_fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How many dma-bufs there are and how large they are, by the kernel's own list.
fn dma_bufs() -> String {
    let list = std::fs::read_to_string("/sys/kernel/debug/dma_buf/bufinfo").unwrap();
    list.lines().rev().find(|l| l.starts_with("Total")).unwrap().to_owned()
}

#[test]
fn a_card_says_what_it_has() {
    let Some(vkms) = vkms() else { return };
    let info = vkms.card.info().unwrap();
    for connector in &info.connectors {
        let modes: Vec<_> = connector.modes.iter().map(|m| (m.size(), m.vrefresh())).collect();
        println!("{} writeback={} connected={}: {modes:?}", connector.name, connector.writeback, connector.connected);
    }
    info.planes.iter().for_each(|p| println!("{:?} {:?}: {}", p.handle, p.kind, p.formats));
    assert_eq!((info.driver.as_str(), info.in_use), ("vkms", false));
    let display = info.connectors.iter().find(|c| c.name == "Virtual-1").unwrap();
    assert!(display.connected && !display.writeback);
    assert_eq!(display.preferred().map(|m| m.size()), Some((1024, 768)));
    assert!(info.connectors.iter().any(|c| c.name == "Writeback-1" && c.writeback && !c.connected));
    assert!(info.planes.iter().all(|p| p.formats.takes(XR24, Some(0)) && p.formats.takes(RG16, None)));
    assert!(vkms.card.has_modifiers());
}

#[test]
fn a_card_that_only_renders_is_no_display() {
    let Some(_vkms) = vkms() else { return };
    assert!(matches!(Card::open("/dev/dri/card1"), Err(DeviceError::NoDisplay { driver, .. }) if driver == "vgem"));
    let missing = Card::open("/dev/dri/card9").unwrap_err().to_string();
    assert_eq!(missing, "/dev/dri/card9: No such file or directory (os error 2); is the driver loaded (ls /dev/dri)?");
}

#[test]
fn an_output_is_found_by_name_or_refused_by_name() {
    let Some(vkms) = vkms() else { return };
    assert_eq!(Output::find(&vkms.card, Some("Virtual-1")).unwrap().name(), "Virtual-1");
    assert_eq!(Output::find(&vkms.card, None).unwrap().name(), "Virtual-1");
    let refused = Output::find(&vkms.card, Some("HDMI-A-1")).unwrap_err();
    assert!(matches!(refused, OutputError::NoSuchConnector { .. }));
    assert_eq!(refused.to_string(), "there is no connector HDMI-A-1; vkms has Virtual-1");
}

#[test]
fn importing_twice_is_one_handle_closed_once() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let (first, buffer) = frame(card, XR24, (640, 480), 1);
    let second = FrameBuffer::of_shrbuf(card, &buffer).unwrap();
    let handle = first.gem_handles().next().unwrap();
    assert_eq!(second.gem_handles().next(), Some(handle));
    assert_ne!(first.id(), second.id());
    assert_eq!(card.gem_handles(), 1);

    let raw = drm::control::from_u32(handle).unwrap();
    drop(first);
    assert_eq!(card.gem_handles(), 1);
    // The handle lives: the kernel can still name its dma-buf, and the second frame buffer can be shown.
    card.buffer_to_prime_fd(raw, drm::CLOEXEC).unwrap();
    Output::find(card, None).unwrap().plan_for(&second).unwrap();

    drop(second);
    assert_eq!(card.gem_handles(), 0);
    card.buffer_to_prime_fd(raw, drm::CLOEXEC).unwrap_err();
    card.close_buffer(raw).unwrap_err();
}

#[test]
fn threads_that_import_and_drop_one_buffer_never_lose_its_handle() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let buffer = Udmabuf::open("test").unwrap().allocate(&layout(XR24, 64, 64)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..250).for_each(|_| drop(FrameBuffer::of_shrbuf(card, &buffer).unwrap())));
        }
    });
    assert_eq!(card.gem_handles(), 0);
}

#[test]
fn three_hundred_flips_come_one_refresh_apart() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let output = Output::find(card, None).unwrap();
    let frames: Vec<_> = (0..3).map(|seed| frame(card, XR24, (1280, 720), seed).0).collect();
    let mut screen = show(&output, &frames[0], None);
    let period = refresh_ns(&screen.placement().mode).unwrap();
    let mut buffer = EventBuffer::new();
    screen.flip(&flip(&frames[1], 0)).unwrap();
    let mut before = next_event(card, &mut buffer);
    assert_eq!((before.user_data, before.crtc), (0, Some(screen.crtc())));

    let (started, allocated) = (Instant::now(), ALLOCATIONS.get());
    let (mut missed, mut worst) = (0, 0);
    for i in 1..=300u64 {
        screen.flip(&flip(&frames[i as usize % 3], i)).unwrap();
        let event = next_event(card, &mut buffer);
        assert_eq!(event.user_data, i);
        let refreshes = event.sequence.wrapping_sub(before.sequence);
        assert!(refreshes >= 1);
        missed += refreshes - 1;
        worst = worst.max((event.time_ns - before.time_ns).abs_diff(u64::from(refreshes) * period));
        before = event;
    }
    assert_eq!(ALLOCATIONS.get(), allocated, "a frame allocates nothing");
    println!("300 flips in {:?}: {missed} refreshes missed, {worst} ns off the {period} ns grid", started.elapsed());
    // Whether each refresh is met depends on the machine; that a flip says which one it met does not.
    assert!(worst < 50_000, "time stamps are {worst} ns off the refresh grid");
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let now = Duration::new(now.tv_sec() as u64, now.tv_nsec() as u32).as_nanos() as u64;
    assert!(before.time_ns < now + period && now < before.time_ns + 1_000_000_000, "CLOCK_MONOTONIC");
}

#[test]
fn a_second_flip_before_the_first_is_busy() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let output = Output::find(card, None).unwrap();
    let frames: Vec<_> = (0..2).map(|seed| frame(card, XR24, (1024, 768), seed).0).collect();
    let mut screen = show(&output, &frames[0], None);
    let mut buffer = EventBuffer::new();
    screen.flip(&flip(&frames[1], 1)).unwrap();
    assert!(matches!(screen.flip(&flip(&frames[0], 2)), Err(CommitError::Busy)));
    assert_eq!(next_event(card, &mut buffer).user_data, 1);
    screen.flip(&flip(&frames[0], 3)).unwrap();
    assert_eq!(next_event(card, &mut buffer).user_data, 3);
    assert_eq!(card.read_events(&mut buffer).unwrap().count(), 0, "reading does not block");
}

/// Shows `count` frames, captures every other one as XR24, and compares each with what was put in.
fn captures_equal_frames(fourcc: u32, size: (u32, u32), count: u32, in_xr24: fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>) {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let output = Output::find(card, None).unwrap();
    let all: Vec<_> = (0..4).map(|seed| frame(card, fourcc, size, seed)).collect();
    let writeback = Writeback::find(&output).unwrap().unwrap();
    let mut screen = show(&output, &all[0].0, Some(writeback.clone()));
    let picture = writeback.target(&output, screen.placement(), XR24).unwrap();
    let mut buffer = EventBuffer::new();
    for i in 0..count {
        let (frame, memory) = &all[i as usize % all.len()];
        let next = flip(frame, u64::from(i));
        let fence = match i % 2 {
            0 => Some(screen.flip_and_capture(&next, picture.frame()).unwrap()),
            _ => screen.flip(&next).map(|()| None).unwrap(),
        };
        assert_eq!(next_event(card, &mut buffer).user_data, u64::from(i));
        if let Some(fence) = fence {
            assert!(fence.wait(CAPTURE).unwrap(), "writeback fence");
            assert!(rows(picture.buffer()) == in_xr24(rows(memory)), "frame {i} is not what was put in");
        }
    }
}

/// RG16 as vkms shows it: each component to 16 bits, rounded, and from there to 8. (Its way back to RG16 truncates, so
/// a capture in RG16 would be one less in places.)
fn wide(row: &[u8]) -> Vec<u8> {
    let component = |value: u16, max: u32| {
        let sixteen = (u32::from(value) * 65535 * 2 + max) / (2 * max);
        ((sixteen + 128) / 257) as u8
    };
    let pixel = |two: &[u8]| {
        let pixel = u16::from_le_bytes([two[0], two[1]]);
        [component(pixel & 31, 31), component(pixel >> 5 & 63, 63), component(pixel >> 11, 31), 0]
    };
    row.chunks_exact(2).flat_map(pixel).collect()
}

#[test]
fn writeback_gives_xr24_pixel_for_pixel() {
    captures_equal_frames(XR24, (1280, 720), 24, |rows| rows);
}

#[test]
fn writeback_gives_rg16_pixel_for_pixel() {
    captures_equal_frames(RG16, (640, 480), 8, |rows| rows.into_iter().map(|row| wide(&row)).collect());
}

#[test]
fn captures_may_follow_one_another_without_a_wait() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let output = Output::find(card, None).unwrap();
    let all: Vec<_> = (0..3).map(|seed| frame(card, XR24, (640, 480), seed)).collect();
    let writeback = Writeback::find(&output).unwrap().unwrap();
    let mut screen = show(&output, &all[0].0, Some(writeback.clone()));
    let target = || (writeback.target(&output, screen.placement(), XR24).unwrap(), None::<shrbuf::Fence>, 0);
    let mut targets = [target(), target()];
    let mut buffer = EventBuffer::new();
    for i in 0..14 {
        let (picture, pending, shown) = &mut targets[i % 2];
        if let Some(fence) = pending.take() {
            assert!(fence.wait(CAPTURE).unwrap(), "writeback fence before frame {i}");
            assert!(rows(picture.buffer()) == rows(&all[*shown].1), "the capture before frame {i}");
        }
        *shown = i % 3;
        *pending = Some(screen.flip_and_capture(&flip(&all[*shown].0, i as u64), picture.frame()).unwrap());
        assert_eq!(next_event(card, &mut buffer).user_data, i as u64);
    }
    for (_, pending, _) in targets {
        assert!(pending.unwrap().wait(CAPTURE).unwrap());
    }
}

#[test]
fn writeback_without_its_connector_is_refused() {
    let Some(vkms) = vkms() else { return };
    let output = Output::find(&vkms.card, None).unwrap();
    let (frame, _) = frame(&vkms.card, XR24, (1024, 768), 1);
    let mut screen = show(&output, &frame, None);
    let refused = screen.flip_and_capture(&flip(&frame, 1), &frame).unwrap_err();
    assert!(matches!(refused, CommitError::NoWriteback));
}

#[test]
fn a_small_frame_sits_in_the_middle_of_a_larger_mode() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let output = Output::find(card, None).unwrap();
    let (small, memory) = frame(card, XR24, (500, 300), 5);
    let plan = output.plan_for(&small).unwrap();
    plan.iter().for_each(|p| println!("{p:?}"));
    let placement = plan[0].clone();
    assert_eq!((placement.fit, placement.mode.size()), (Fit::Window, (1024, 768)));
    assert_eq!((placement.at.x, placement.at.y), (262, 234));
    assert!(!plan.iter().any(|p| p.fit == Fit::Scaled), "vkms does not scale");

    let writeback = Writeback::find(&output).unwrap().unwrap();
    let picture = writeback.target(&output, &placement, XR24).unwrap();
    let mut screen = Screen::start(&output, &placement, Some(writeback), &flip(&small, 0)).unwrap();
    next_event(card, &mut EventBuffer::new());
    let fence = screen.flip_and_capture(&flip(&small, 1), picture.frame()).unwrap();
    assert!(fence.wait(CAPTURE).unwrap());
    assert!(rows(picture.buffer()) == windowed(&rows(&memory), (1024, 768), (262, 234)));
}

/// A picture of XR24 at `at` on a black screen.
fn windowed(picture: &[Vec<u8>], screen: (usize, usize), at: (usize, usize)) -> Vec<Vec<u8>> {
    let mut rows = vec![vec![0; screen.0 * 4]; screen.1];
    for (row, from) in rows.iter_mut().skip(at.1).zip(picture) {
        row[at.0 * 4..][..from.len()].copy_from_slice(from);
    }
    rows
}

#[test]
fn a_plan_needs_no_frame_where_a_dumb_buffer_proves_it() {
    let Some(vkms) = vkms() else { return };
    let output = Output::find(&vkms.card, None).unwrap();
    let started = Instant::now();
    assert_eq!(output.plan(1920, 1080, RG16, Some(0)).unwrap()[0].fit, Fit::Exact);
    println!("a plan takes {:?}", started.elapsed());
    assert_eq!(output.plan(500, 300, RG16, None).unwrap()[0].fit, Fit::Window);
    assert_eq!(vkms.card.gem_handles(), 0);

    let format = output.plan(1280, 720, NV12, None).unwrap_err().to_string();
    println!("{format}");
    assert!(format.starts_with("Virtual-1 cannot show 1280x720 NV12: no plane takes it; its planes take: primary "));
    assert!(format.contains("XR24") && format.contains("1024x768"));
    let size = output.plan(6000, 5000, XR24, None).unwrap_err();
    println!("{size}");
    assert!(matches!(size, PlanError::Refused { .. }));
    assert!(matches!(output.plan(640, 480, XR24, Some(7)), Err(PlanError::NoPlane { .. })));
}

#[test]
fn refused_imports_say_which_value_is_wrong() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let buffer = Udmabuf::open("test").unwrap().allocate(&layout(XR24, 640, 480)).unwrap();
    let fd: OwnedFd = buffer.export(0).unwrap();
    let good = FramePlane { fd: fd.as_fd(), offset: 0, stride: 2560 };
    let import = |fourcc, modifier, width, planes: &[FramePlane<'_>]| {
        let refused =
            FrameBuffer::import(card, &FrameSpec { width, height: 480, fourcc, modifier, planes }).unwrap_err();
        println!("{refused}");
        refused
    };
    let stride = import(XR24, None, 640, &[FramePlane { stride: 2559, ..good }]);
    assert!(matches!(stride, ImportError::Stride { plane: 0, stride: 2559, row: 2560 }));
    let offset = import(XR24, None, 640, &[FramePlane { offset: 4096, ..good }]);
    assert!(matches!(offset, ImportError::Extent { plane: 0, offset: 4096, bytes: 1_228_800, .. }));
    let format = import(u32::from_le_bytes(*b"YUYV"), None, 640, &[good]);
    assert!(matches!(format, ImportError::Format { takes, .. } if !takes.is_empty()));
    let modifier = import(XR24, Some(0x0100_0000_0000_0001), 640, &[good]);
    assert!(matches!(modifier, ImportError::Modifier { takes, .. } if takes == [0]));
    let size = import(XR24, None, 9, &[good]);
    assert!(matches!(size, ImportError::Size { widths, .. } if widths == (10..=8192)));
    let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
    let not_dma_buf = import(XR24, None, 640, &[FramePlane { fd: socket.as_fd(), ..good }]);
    assert!(matches!(not_dma_buf, ImportError::NotDmaBuf { plane: 0, .. }));
    assert!(matches!(import(XR24, None, 640, &[]), ImportError::PlaneCount { given: 0, .. }));
    assert_eq!(card.gem_handles(), 0, "nothing stays imported");
}

#[test]
fn memory_of_every_exporter_can_be_shown() {
    let Some(vkms) = vkms() else { return };
    let layout = layout(XR24, 1024, 768);
    let heap = DmaHeap::open("system", "test").unwrap().allocate(&layout).unwrap();
    let udmabuf = Udmabuf::open("test").unwrap().allocate(&layout).unwrap();
    let output = Output::find(&vkms.card, None).unwrap();
    for buffer in [heap, udmabuf] {
        let frame = FrameBuffer::of_shrbuf(&vkms.card, &buffer).unwrap();
        assert_eq!(frame.modifier(), Some(Modifier::LINEAR.0));
        // The frame buffer holds the memory by itself.
        drop(buffer);
        show(&output, &frame, None);
    }
}

#[test]
fn a_second_master_is_refused_and_told_what_to_do() {
    let Some(vkms) = vkms() else { return };
    assert!(vkms.card.is_master());
    let other = Card::open(vkms.card.path()).unwrap();
    assert!(!other.is_master());
    let refused = other.become_master().unwrap_err();
    assert!(matches!(refused, DeviceError::InUse { .. }));
    assert!(refused.to_string().contains("in use by another DRM master; stop the desktop session"));
    let output = Output::find(&other, None).unwrap();
    let (frame, _) = frame(&other, XR24, (1024, 768), 1);
    assert!(matches!(output.plan_for(&frame), Err(PlanError::Device(DeviceError::InUse { .. }))));
    // Once the first lets go, the second may.
    drm::Device::release_master_lock(&vkms.card).unwrap();
    other.become_master().unwrap();
    assert!(Card::find().into_iter().flatten().any(|c| c.driver == "vkms" && c.in_use));
}

#[test]
fn losing_master_in_mid_stream_is_typed_and_can_be_recovered() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let output = Output::find(card, None).unwrap();
    let (frame, _) = frame(card, XR24, (1024, 768), 1);
    let mut screen = show(&output, &frame, None);
    drm::Device::release_master_lock(card).unwrap();
    assert!(matches!(screen.flip(&flip(&frame, 1)), Err(CommitError::LostMaster)));
    card.become_master().unwrap();
    screen.flip(&flip(&frame, 2)).unwrap();
    assert_eq!(next_event(card, &mut EventBuffer::new()).user_data, 2);
}

#[test]
fn a_frame_smaller_than_the_first_is_refused() {
    let Some(vkms) = vkms() else { return };
    let output = Output::find(&vkms.card, None).unwrap();
    let (first, _) = frame(&vkms.card, XR24, (1024, 768), 1);
    let (small, _) = frame(&vkms.card, XR24, (1000, 700), 1);
    let refused = show(&output, &first, None).flip(&flip(&small, 1)).unwrap_err();
    assert_eq!(refused.to_string(), "the frame is smaller than 1024x768, which the plane was set up for");
}

#[test]
fn what_was_on_screen_comes_back() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let console = on_screen();
    assert!(console.contains("\tactive=1"), "the console is on: {console}");
    let output = Output::find(card, None).unwrap();
    let (first, _) = frame(card, XR24, (800, 600), 1);
    let (second, _) = frame(card, RG16, (500, 300), 2);

    let outer = show(&output, &first, None);
    let shown = on_screen();
    assert!(shown.contains(&format!("fb={}", u32::from(first.id()))) && shown.contains("\"800x600\""), "{shown}");
    let writeback = Writeback::find(&output).unwrap();
    let window = output.plan_for(&second).unwrap().remove(0);
    let inner = Screen::start(&output, &window, writeback, &flip(&second, 0)).unwrap();
    assert!(on_screen().contains(&format!("fb={}", u32::from(second.id()))));
    drop(inner);
    assert_eq!(on_screen(), shown);
    outer.stop().unwrap();
    assert_eq!(on_screen(), console);
}

#[test]
fn what_was_on_screen_comes_back_after_a_panic() {
    let Some(vkms) = vkms() else { return };
    let console = on_screen();
    let output = Output::find(&vkms.card, None).unwrap();
    let panicked = std::thread::scope(|scope| {
        let panics = || {
            let (frame, _) = frame(&vkms.card, XR24, (800, 600), 1);
            let _screen = show(&output, &frame, None);
            panic!("on purpose");
        };
        scope.spawn(panics).join().is_err()
    });
    assert!(panicked);
    assert_eq!(on_screen(), console);
}

#[test]
fn nothing_on_screen_comes_back_as_nothing() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let crtc = Output::find(card, None).unwrap().crtc();
    card.set_crtc(crtc, None, (0, 0), &[], None).unwrap();
    let dark = on_screen();
    assert!(dark.contains("\tactive=0"), "{dark}");
    let output = Output::find(card, None).unwrap();
    let (frame, _) = frame(card, XR24, (800, 600), 1);
    let screen = show(&output, &frame, None);
    assert_ne!(on_screen(), dark);
    screen.stop().unwrap();
    assert_eq!(on_screen(), dark);
}

#[test]
fn what_is_gone_by_then_leaves_nothing_on_screen() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let console = on_screen();
    let output = Output::find(card, None).unwrap();
    let (first, _) = frame(card, XR24, (800, 600), 1);
    let (second, _) = frame(card, XR24, (1024, 768), 2);
    let outer = show(&output, &first, None);
    let inner = show(&output, &second, None);
    drop(first);
    let gone = inner.stop().unwrap_err();
    assert!(matches!(gone, RestoreError::Gone { .. }), "{gone}");
    assert!(on_screen().contains("\tactive=0") && !on_screen().contains("\tcrtc=crtc-0"), "{}", on_screen());
    outer.stop().unwrap();
    assert_eq!(on_screen(), console);
}

#[test]
fn a_frame_buffer_dropped_while_on_screen_leaves_the_screen_on() {
    let Some(vkms) = vkms() else { return };
    let output = Output::find(&vkms.card, None).unwrap();
    let (frame, _) = frame(&vkms.card, XR24, (1024, 768), 1);
    let screen = show(&output, &frame, None);
    let count = || on_screen().matches("\tcrtc=crtc-0").count();
    let shown = count();
    drop(frame);
    assert_eq!(count(), shown, "{}", on_screen());
    drop(screen);
}

#[test]
fn everything_is_given_back() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let once = || {
        let output = Output::find(card, None).unwrap();
        let frames: Vec<_> = (0..3).map(|seed| frame(card, XR24, (640, 480), seed)).collect();
        let writeback = Writeback::find(&output).unwrap().unwrap();
        let mut screen = show(&output, &frames[0].0, Some(writeback.clone()));
        let picture = writeback.target(&output, screen.placement(), XR24).unwrap();
        for i in 0..10 {
            let fence = screen.flip_and_capture(&flip(&frames[i % 3].0, i as u64), picture.frame()).unwrap();
            next_event(card, &mut EventBuffer::new());
            assert!(fence.wait(CAPTURE).unwrap());
        }
        DumbBuffer::new(card, 100, 100, RG16).unwrap();
    };
    // The kernel frees captures and old frames from work queues.
    let settled = || {
        std::thread::sleep(Duration::from_millis(200));
        (open_fds(), card.gem_handles(), dma_bufs(), on_screen())
    };
    once();
    let before = settled();
    assert_eq!(before.1, 0);
    (0..5).for_each(|_| once());
    assert_eq!(settled(), before);
}

#[test]
fn a_flip_waits_for_its_fence() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let output = Output::find(card, None).unwrap();
    let frames: Vec<_> = (0..2).map(|seed| frame(card, XR24, (1024, 768), seed).0).collect();
    let mut screen = show(&output, &frames[0], None);
    let work = Work::start();
    let fence = work.buffer.export_fence(0, shrbuf::Access::Write).unwrap().unwrap();
    let mut buffer = EventBuffer::new();
    screen.flip(&Flip { frame: &frames[1], in_fence: Some(fence.as_fd()), user_data: 1 }).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(card.read_events(&mut buffer).unwrap().count(), 0, "the work is not done");
    work.done();
    assert_eq!(next_event(card, &mut buffer).user_data, 1);
}

/// Work on a buffer that is done when we say so: a vgem buffer with a fence.
struct Work {
    vgem: std::fs::File,
    fence: u32,
    buffer: Shrbuf,
}

struct Vgem<'a>(&'a std::fs::File);

impl AsFd for Vgem<'_> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Vgem<'_> {}
impl drm::control::Device for Vgem<'_> {}

nix::ioctl_readwrite!(
    /// struct drm_vgem_fence_attach { handle, flags, out_fence, pad }
    vgem_fence_attach, b'd', 0x41, [u32; 4]
);
nix::ioctl_write_ptr!(
    /// struct drm_vgem_fence_signal { fence, flags }
    vgem_fence_signal, b'd', 0x42, [u32; 2]
);

impl Work {
    fn start() -> Work {
        const WRITE: u32 = 1;
        let vgem = std::fs::File::options().read(true).write(true).open("/dev/dri/card1").unwrap();
        let format = drm::buffer::DrmFourcc::Xrgb8888;
        let dumb = Vgem(&vgem).create_dumb_buffer((64, 64), format, 32).unwrap();
        let handle = drm::buffer::Buffer::handle(&dumb);
        let fd = Vgem(&vgem).buffer_to_prime_fd(handle, drm::CLOEXEC | drm::RDWR).unwrap();
        let buffer = Shrbuf::import(vec![fd], Layout::linear(Format::Xr24, 64, 64, 1).unwrap()).unwrap();
        let mut attach = [u32::from(handle), WRITE, 0, 0];
        // SAFETY: the ioctl takes four u32 and fills in the third.
        unsafe { vgem_fence_attach(std::os::fd::AsRawFd::as_raw_fd(&vgem), &mut attach) }.unwrap();
        Work { vgem, fence: attach[2], buffer }
    }

    fn done(self) {
        // SAFETY: the ioctl takes two u32.
        unsafe { vgem_fence_signal(std::os::fd::AsRawFd::as_raw_fd(&self.vgem), &[self.fence, 0]) }.unwrap();
    }
}

#[test]
fn an_overlay_shows_a_small_frame_over_black() {
    let Some(vkms) = vkms() else { return };
    let card = &vkms.card;
    let output = Output::find(card, None).unwrap();
    let Some(overlay) = output.planes().find(|p| p.kind == drm::control::PlaneType::Overlay) else {
        println!("needs overlay planes: guest/run --vkms 'enable_writeback=1 enable_overlay=1'");
        return;
    };
    let console = on_screen();
    let (small, memory) = frame(card, XR24, (500, 300), 5);
    let writeback = Writeback::find(&output).unwrap().unwrap();
    for backdrop in [false, true] {
        let window = output.plan_for(&small).unwrap().remove(0);
        let placement = Placement { plane: overlay.handle, kind: overlay.kind, backdrop, ..window };
        let picture = writeback.target(&output, &placement, XR24).unwrap();
        let mut screen = Screen::start(&output, &placement, Some(writeback.clone()), &flip(&small, 0)).unwrap();
        next_event(card, &mut EventBuffer::new());
        let fence = screen.flip_and_capture(&flip(&small, 1), picture.frame()).unwrap();
        assert!(fence.wait(CAPTURE).unwrap());
        assert!(rows(picture.buffer()) == windowed(&rows(&memory), (1024, 768), (262, 234)));
        next_event(card, &mut EventBuffer::new());
        screen.stop().unwrap();
        assert_eq!(on_screen(), console);
    }
}
