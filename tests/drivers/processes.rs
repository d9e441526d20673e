//! The camera in one process, the display in another: the same dma-bufs, and none left when either is killed.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shrbuf::Format;
use shrbuf_elements::ipc::{IpcSink, IpcSrc};
use shrbuf_elements::kms::KmsSink;
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_pipeline::supervise::{Error, Progress, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, FailureKind, Graph};
use shrbuf_tests::{Footprint, counts, on_test_drivers, run_frames, small_camera};

const SOCKET: &str = "SHRBUF_DRIVERS_SOCKET";

/// Not a test: the camera's process, until it is killed.
#[test]
fn camera() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let mut graph = Graph::new("out");
    // Which a display takes too; nobody asks the display here.
    let camera = V4l2Src { format: Some(Format::Xr24), ..small_camera() };
    let camera = graph.add("camera", camera.build().unwrap()).unwrap();
    let out = IpcSink { path: socket.into(), consumers: 2, ..IpcSink::default() };
    let out = graph.add("out", out.build().unwrap()).unwrap();
    graph.link(camera, out).unwrap();
    let report = run(graph, &RunOptions::default(), |_| Verdict::Continue);
    panic!("the camera has ended: {:?}", report.error);
}

struct Camera(Child);

impl Camera {
    fn start(socket: &std::path::Path) -> Camera {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "processes::camera", "--nocapture"]).env(SOCKET, socket).stdout(Stdio::null());
        let mut camera = Camera(command.spawn().unwrap());
        let begin = Instant::now();
        while !socket.exists() {
            assert!(begin.elapsed() < Duration::from_secs(30) && camera.0.try_wait().unwrap().is_none());
            std::thread::sleep(Duration::from_millis(20));
        }
        camera
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn display(socket: &std::path::Path) -> Graph {
    let mut graph = Graph::new("in");
    let source = IpcSrc { path: socket.to_owned(), ..IpcSrc::default() };
    let source = graph.add("in", source.build().unwrap()).unwrap();
    let display = graph.add("display", KmsSink::default().build().unwrap()).unwrap();
    graph.link(source, display).unwrap();
    graph
}

fn imports(report: &Report) -> u64 {
    let own = report.graph.counts().into_iter().find(|c| c.name == "display").unwrap().own;
    own.iter().find(|(n, _)| *n == "imports").unwrap().1
}

#[test]
fn a_camera_of_another_process_is_shown_without_a_copy() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let socket = std::env::temp_dir().join("shrbuf-drivers");
    let camera = Camera::start(&socket);
    let report = run_frames(display(&socket), 120);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(counts(&report.graph, "display").frames, 120);
    assert_eq!(report.graph.ledger().copied(), 0);
    assert_eq!(imports(&report), u64::from(report.plan.budgets[0].granted), "each buffer once");
    // Another may follow, which has the buffers that the first gave back.
    let again = run_frames(display(&socket), 30);
    assert!(again.error.is_none(), "{}", again.error.unwrap());
    drop((report, again, camera));
    assert_eq!(Footprint::settled(&before), before);
    std::fs::remove_file(&socket).unwrap();
}

#[test]
fn a_camera_that_is_killed_is_unplugged_and_leaves_nothing() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let socket = std::env::temp_dir().join("shrbuf-drivers-killed");
    let mut camera = Some(Camera::start(&socket));
    let report = run(display(&socket), &RunOptions::default(), |progress| {
        if let Progress::Running(graph, _) = progress
            && counts(graph, "display").frames > 10
        {
            drop(camera.take());
        }
        Verdict::Continue
    });
    let Some(Error::Element(failure)) = &report.error else { panic!("{:?}", report.error) };
    assert_eq!((failure.kind(), failure.element()), (FailureKind::Unplugged, Some("in")));
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
    std::fs::remove_file(&socket).unwrap();
}
