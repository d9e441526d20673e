//! The KMS device layer on a real kernel driver: vkms, with its writeback connector.
//!
//! `scripts/test-guest kms`. Elsewhere the tests say so and pass.
#![cfg(feature = "kms")]

mod cards;
mod frames;
mod ownership;
mod two_displays;
#[path = "../../../shrbuf/tests/common/vgem.rs"]
mod vgem;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use drm::control::Device as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shrbuf::exporter::{DmaHeap, Udmabuf};
use shrbuf::{Account, Format, Layout, Ledger, Modifier, Reason, Shrbuf};
use shrbuf_elements::kms::{
    Card, CommitError, DeviceError, DumbBuffer, EventBuffer, Fit, Flip, FlipEvent, FrameBuffer, FramePlane, FrameSpec,
    ImportError, Output, OutputError, Placement, PlanError, RenderNode, RestoreError, Screen, Writeback, refresh_ns,
    render_nodes,
};
use shrbuf_pipeline::Colorimetry;

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
    Flip { frame, in_fence: None, color: Colorimetry::default(), user_data }
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

/// A picture of XR24 at `at` on a black screen.
fn windowed(picture: &[Vec<u8>], screen: (usize, usize), at: (usize, usize)) -> Vec<Vec<u8>> {
    let mut rows = vec![vec![0; screen.0 * 4]; screen.1];
    for (row, from) in rows.iter_mut().skip(at.1).zip(picture) {
        row[at.0 * 4..][..from.len()].copy_from_slice(from);
    }
    rows
}
