//! A camera's dma-bufs through GStreamer to other processes, on vivid and vkms in the virtual machine.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use gst::prelude::*;
use shrbuf::ipc::{Connection, Next, Wishes};
use shrbuf::{Access, MemoryKind};
use shrbuf_elements::ipc::IpcSrc;
use shrbuf_elements::kms::KmsSink;
use shrbuf_pipeline::supervise::{self, RunOptions, Verdict};
use shrbuf_pipeline::{Build, Graph};
use shrbuf_tests::{Footprint, on_test_drivers};

use crate::launch::{LEAKS_TRACER, LONG, Launch, Temporary, nothing_is_alive, register, until, until_listening};
use crate::vgem::{Vgem, Work};

const SOCKET: &str = "SHRBUF_GST_DRIVERS_SOCKET";
const FRAMES: u64 = 60;

/// Not a test: the display's process, a pipeline of ours.
#[test]
fn display() {
    let Ok(path) = std::env::var(SOCKET) else { return };
    let connection = Connection::open(path.as_ref(), &Wishes::default(), LONG).unwrap();
    assert!(connection.buffers().iter().all(|buffer| buffer.kind() == MemoryKind::DmaBuf));
    drop(connection);
    let mut graph = Graph::new("in");
    let source = IpcSrc { path: path.into(), ..IpcSrc::default() };
    let source = graph.add("in", source.build().unwrap()).unwrap();
    let display = graph.add("display", KmsSink::default().build().unwrap()).unwrap();
    graph.link(source, display).unwrap();
    let options = RunOptions { frames: Some(FRAMES), ..RunOptions::default() };
    let report = supervise::run(graph, &options, |_| Verdict::Continue);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(report.graph.ledger().copied(), 0);
}

/// Not a test: a process that gives frames back while a device still reads them, as one does that knows of no fences.
#[test]
fn slow_reader() {
    let Ok(path) = std::env::var(SOCKET) else { return };
    let vgem = Vgem::open().unwrap();
    let connection = Connection::open(path.as_ref(), &Wishes::default(), LONG).unwrap();
    let mut consumer = connection.start().unwrap();
    let mut reading = VecDeque::new();
    for _ in 0..FRAMES {
        let Next::Frame(frame) = consumer.wait(LONG).unwrap() else { panic!("no frame in {LONG:?}") };
        let memory = frame.buffer.segments()[0].as_fd().try_clone_to_owned().unwrap();
        // In this order: fences known of a frame are waited for here already.
        drop(frame);
        reading.push_back(vgem.begin_untold(Access::Read, memory.as_fd()));
        if reading.len() > 1 {
            reading.pop_front().unwrap().end();
        }
    }
    reading.into_iter().for_each(Work::end);
}

fn start(role: &str, socket: &Temporary) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("drivers::{role}"), "--nocapture"]).env(SOCKET, socket.as_str());
    command.stdout(Stdio::null()).spawn().unwrap()
}

/// The camera's pipeline, in this process.
struct Camera {
    pipeline: gst::Pipeline,
    socket: Temporary,
}

impl Camera {
    fn start() -> Camera {
        Camera::of("video/x-raw,format=BGRx")
    }

    fn of(format: &str) -> Camera {
        register();
        let socket = Temporary::new("camera");
        let pictures = format!("{format},width=640,height=360");
        let sink = format!("shrbufsink name=sink path={} consumers=2 window=3", socket.as_str());
        let line = format!("v4l2src device=/dev/video0 io-mode=dmabuf ! {pictures} ! {sink}");
        let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let camera = Camera { pipeline, socket };
        until_listening(&camera.socket);
        camera
    }

    fn stat(&self, name: &str) -> u64 {
        let error = self.pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]);
        assert!(error.is_none(), "{error:?}");
        self.pipeline.by_name("sink").unwrap().property::<gst::Structure>("stats").get(name).unwrap()
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

#[test]
fn a_cameras_dma_bufs_reach_gstreamer_and_a_display_in_other_processes_without_a_copy() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now().dma_bufs;
    let camera = Camera::start();
    let log = Launch::with(
        &format!("-v shrbufsrc path={} num-buffers={FRAMES} ! fakesink silent=false", camera.socket.as_str()),
        &LEAKS_TRACER,
    )
    .end_well();
    assert!(log.matches("chain").count() as u64 >= FRAMES, "{log}");
    nothing_is_alive(&log);
    assert!(start("display", &camera.socket).wait().unwrap().success());
    let sent = camera.stat("sent");
    assert!(sent >= 2 * FRAMES, "{sent} frames sent");
    assert_eq!((camera.stat("copied-frames"), camera.stat("copied-bytes")), (0, 0));
    drop(camera);
    assert_eq!(Footprint::now().dma_bufs, before);
}

#[test]
fn frames_of_a_consumer_that_is_killed_are_the_cameras_again() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now().dma_bufs;
    let camera = Camera::start();
    for _ in 0..5 {
        let sent = camera.stat("sent");
        let line = format!("shrbufsrc path={} ! identity sleep-time=100000000 ! fakesink", camera.socket.as_str());
        let mut consumer = Launch::new(&line);
        // It has all that it may have.
        until("three frames more", || camera.stat("sent") >= sent + 3);
        consumer.kill();
        until("nobody", || camera.stat("consumers") == 0);
    }
    // All of the camera's buffers are there, or it would stop.
    let line = format!("shrbufsrc path={} num-buffers={FRAMES} ! fakesink", camera.socket.as_str());
    Launch::new(&line).end_well();
    assert_eq!(camera.stat("copied-bytes"), 0);
    drop(camera);
    assert_eq!(Footprint::now().dma_bufs, before);
}

#[test]
fn what_a_device_still_reads_is_the_cameras_again_after_that() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now().dma_bufs;
    let camera = Camera::start();
    // More frames than the camera has buffers: each comes home several times.
    assert!(start("slow_reader", &camera.socket).wait().unwrap().success());
    assert_eq!(camera.stat("copied-bytes"), 0);
    drop(camera);
    assert_eq!(Footprint::now().dma_bufs, before);
}

#[cfg(feature = "v1_24")]
#[test]
fn a_cameras_dma_bufs_are_named_as_the_kernel_does_at_both_ends() {
    if !on_test_drivers() {
        return;
    }
    let drm = "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=XR24";
    let camera = Camera::of(drm);
    let source = format!("shrbufsrc path={} num-buffers={FRAMES}", camera.socket.as_str());
    let log = Launch::new(&format!("-v {source} ! {drm} ! fakesink silent=false")).end_well();
    assert!(log.matches("chain").count() as u64 >= FRAMES, "{log}");
    assert!(start("display", &camera.socket).wait().unwrap().success());
    assert_eq!(camera.stat("copied-bytes"), 0);
}
