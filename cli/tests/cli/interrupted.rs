//! Ctrl-C, SIGTERM, SIGHUP, SIGKILL.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::{CAMERA, Going, Place};

fn running(place: &Place, args: &[&str]) -> Going {
    let mut going = Going::start(place.command(&[&["-v", "run", "pipeline.toml"], args].concat()));
    going.says("running");
    going
}

#[test]
fn ctrl_c_ends_it_with_a_summary() {
    let going = running(&Place::with("ctrl-c", CAMERA), &[]);
    going.signal(Signal::SIGINT);
    let done = going.ends().with_code(0);
    assert!(done.out.starts_with("test: interrupted, "), "{}", done.out);
    assert!(done.out.contains("camera → display"), "{}", done.out);
}

#[test]
fn sigterm_ends_it_with_the_json() {
    let queued = CAMERA.replace("\"display\"]", "\"display\"]\nqueue = { depth = 2 }");
    let going = running(&Place::with("sigterm", &queued), &["--json"]);
    going.signal(Signal::SIGTERM);
    let json = going.ends().with_code(0).json();
    assert_eq!(json["interrupted"], true);
    assert_eq!(json["elements"]["camera"]["frames"], json["elements"]["display"]["frames"], "{json}");
}

/// Started with SIGHUP as env(1) is told, whatever the tests were started with.
fn hung_up(name: &str, how: &str) -> Going {
    let place = Place::with(name, CAMERA);
    let mut command = Command::new("env");
    command.args([how, env!("CARGO_BIN_EXE_shrbuf"), "-v", "run", "pipeline.toml"]).current_dir(&place.0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut going = Going::start(command);
    going.says("running");
    going.signal(Signal::SIGHUP);
    going
}

#[test]
fn a_terminal_that_is_closed_ends_it() {
    let going = hung_up("hangup", "--default-signal=HUP");
    assert!(going.ends().with_code(0).out.starts_with("test: interrupted, "));
}

#[test]
fn one_that_was_started_to_outlive_its_terminal_does() {
    let going = hung_up("nohup", "--ignore-signal=HUP");
    let status = std::fs::read_to_string(format!("/proc/{}/status", going.child.id())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() & 1, 1, "{status}");
    going.signal(Signal::SIGTERM);
    going.ends().with_code(0);
}

#[test]
fn a_second_ctrl_c_stops_it() {
    let going = running(&Place::with("twice", CAMERA), &[]);
    going.signal(Signal::SIGINT);
    going.signal(Signal::SIGTERM);
    assert!(going.ends().with_code(0).out.contains("interrupted"));
}

#[test]
fn a_pipe_that_nobody_reads_hinders_no_end() {
    let file = CAMERA.replace("null-sink\"", "file-sink\"\npath = \"pipe.raw\"");
    let queued = file.replace("\"display\"]", "\"display\"]\nqueue = { depth = 2 }");
    for (name, pipeline) in [("pipe", &file), ("pipe-queued", &queued)] {
        let place = Place::with(name, pipeline);
        let pipe = place.0.join("pipe.raw");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = std::fs::File::options().read(true).write(true).open(&pipe).unwrap();
        let mut going = running(&place, &[]);
        until_full(&reader);
        going.says("`display` has been busy with one frame for 1.5 s, and holds up the run");
        going.signal(Signal::SIGINT);
        going.signal(Signal::SIGTERM);
        let done = going.ends().with_code(0);
        assert!(done.out.starts_with("test: interrupted, "), "{}", done.out);
    }
}

/// Until a pipe has no room.
fn until_full(pipe: &std::fs::File) {
    let begin = Instant::now();
    let has_room = || poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO).unwrap() > 0;
    while has_room() {
        assert!(begin.elapsed() < Duration::from_secs(20), "nobody fills it");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn waiting_for_a_device_can_be_interrupted() {
    let missing = "pipeline.retry = \"1min\"\n\
        element.camera = { type = \"file-src\", path = \"none.y4m\" }\n\
        element.display = { type = \"null-sink\" }\n\
        link = [{ path = [\"camera\", \"display\"] }]";
    let place = Place::with("waiting", missing);
    let mut going = Going::start(place.command(&["run", "pipeline.toml"]));
    going.says("trying again for up to 60 s");
    going.signal(Signal::SIGINT);
    assert_eq!(going.ends().with_code(0).out, "interrupted before it started\n");
}

#[test]
fn a_second_ctrl_c_ends_what_waits_before_it_starts() {
    let pipe = "element.film = { type = \"file-src\", path = \"film.y4m\" }\n\
        element.display = { type = \"null-sink\" }\n\
        link = [{ path = [\"film\", \"display\"] }]";
    let place = Place::with("unwritten", pipe);
    let film = place.0.join("film.y4m");
    nix::unistd::mkfifo(&film, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let going = Going::start(place.command(&["run", "pipeline.toml"]));
    // Opened at once, so that it waits for a header that never comes.
    let _writer = std::fs::File::options().write(true).open(&film).unwrap();
    going.signal(Signal::SIGINT);
    going.signal(Signal::SIGTERM);
    going.ends().with_code(128 + Signal::SIGTERM as i32);
}

#[test]
fn kill_leaves_no_files_behind() {
    let place = Place::with("kill", CAMERA);
    let mut going = running(&place, &[]);
    going.signal(Signal::SIGKILL);
    assert!(!going.child.wait().unwrap().success());
    assert_eq!(place.names(), ["pipeline.toml"]);
}
