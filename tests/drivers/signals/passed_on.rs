//! Another signal, and consumers of the camera in other processes.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shrbuf_elements::ipc::{IpcSink, IpcSrc};
use shrbuf_elements::null_sink::NullSink;
use shrbuf_pipeline::Build;
use shrbuf_pipeline::supervise::{RunOptions, Verdict, run};
use shrbuf_tests::{Footprint, Watch, on_test_drivers, run_frames, set_control};

use super::{Hdmi, Held, in_a_row};

const SOCKET: &str = "SHRBUF_DRIVERS_HDMI";

/// Not a test: the process of a camera that passes on what it captures, until it is killed.
#[test]
fn camera() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let out = IpcSink { path: socket.into(), ..IpcSink::default() };
    let graph = in_a_row([("camera", Hdmi::camera().build().unwrap()), ("out", out.build().unwrap())]);
    let report = run(graph, &RunOptions::default(), |_| Verdict::Continue);
    panic!("the camera has ended: {:?}", report.error);
}

#[test]
fn consumers_in_other_processes_go_on_with_another_signal() {
    if !on_test_drivers() {
        return;
    }
    let before = Footprint::now();
    let _hdmi = Hdmi::with("640x480p59");
    let socket = std::env::temp_dir().join("shrbuf-drivers-hdmi");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "signals::passed_on::camera", "--nocapture"]).env(SOCKET, &socket).stdout(Stdio::null());
    let mut camera = command.spawn().unwrap();
    let begin = Instant::now();
    while !socket.exists() {
        assert!(begin.elapsed() < Duration::from_secs(30) && camera.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(20));
    }
    let seen: Arc<Mutex<Vec<u32>>> = Arc::default();
    let (widths, held) = (Arc::clone(&seen), Held::default());
    let holds = held.clone();
    let watch = Watch::new(move |frame| {
        let mut widths = widths.lock().unwrap();
        widths.push(frame.buffer.layout().width);
        if widths.len() == 20 {
            holds.hold(frame);
            set_control("dv_timings", "720x480p59");
        }
    });
    let source = IpcSrc { path: socket.clone(), ..IpcSrc::default() };
    let drop_all = NullSink {}.build().unwrap();

    let report = run_frames(in_a_row([("in", source.build().unwrap()), ("watch", watch), ("drop", drop_all)]), 60);

    camera.kill().unwrap();
    camera.wait().unwrap();
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let widths = seen.lock().unwrap().clone();
    assert_eq!((report.restarts, widths.len(), widths[19], widths[59]), (1, 60, 640, 720));
    assert!(widths.is_sorted(), "{widths:?}");
    held.assert_untouched();
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
    for ending in ["", ".lock"] {
        std::fs::remove_file(format!("{}{ending}", socket.display())).unwrap();
    }
}
