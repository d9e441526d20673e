//! Outputs that are closed, full, or a terminal.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::pty::openpty;

use crate::{CAMERA, Place};

/// The writing end of a pipe that nobody reads.
fn closed() -> OwnedFd {
    nix::unistd::pipe().unwrap().1
}

#[test]
fn a_closed_output_is_nobodys_failure() {
    let place = Place::with("closed", CAMERA);
    for args in [
        &["devices"][..],
        &["inspect", "--markdown"],
        &["--help"],
        &["graph", "pipeline.toml"],
        &["run", "pipeline.toml", "--frames", "2"],
        &["run", "pipeline.toml", "--frames", "2", "--json"],
    ] {
        let output = place.command(args).stdout(closed()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{args:?}");
    }
}

#[test]
fn closed_standard_error_changes_no_exit_code() {
    let place = Place::with("closed-err", CAMERA);
    let run = |args: &[&str]| place.command(args).stderr(closed()).status().unwrap().code();
    assert_eq!(run(&["-vvv", "run", "pipeline.toml", "--frames", "2"]), Some(0));
    assert_eq!(run(&["check", "none.toml"]), Some(2));
    assert_eq!(run(&["rum"]), Some(2));
}

#[test]
fn a_full_output_is_reported() {
    for what in ["inspect", "--help", "--version"] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = Place::new("full").command(&[what]).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{what}");
    }
}

#[test]
fn colours_are_for_terminals_only() {
    let place = Place::with("colours", CAMERA);
    let done = place.run(&["run", "pipeline.toml", "--frames", "2"]).with_code(0);
    assert!(!done.out.contains('\x1b'), "{}", done.out);
    let on_terminal = |no_color: &str| {
        let pty = openpty(None, None).unwrap();
        let mut command = place.command(&["inspect"]);
        command.stdout(pty.slave).stderr(Stdio::null()).env("TERM", "xterm").env("NO_COLOR", no_color);
        // Its own end must be closed, or the other never is.
        let status = command.status();
        drop(command);
        assert!(status.unwrap().success());
        read_all(pty.master)
    };
    assert!(on_terminal("").contains("\x1b[1m"));
    assert!(!on_terminal("1").contains('\x1b'));
}

#[test]
fn the_progress_line_is_drawn_on_a_terminal() {
    let place = Place::with("progress", CAMERA);
    let pty = openpty(None, None).unwrap();
    let mut command = place.command(&["run", "pipeline.toml", "--duration", "500ms"]);
    command.stderr(pty.slave).env("TERM", "xterm").stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    let drawn = read_all(pty.master);
    assert!(child.wait().unwrap().success());
    assert!(drawn.contains(" fps, ") && drawn.contains(" copied") && drawn.contains("latency"), "{drawn:?}");
}

/// All that comes until the last writer is gone, which a terminal tells as EIO.
fn read_all(terminal: OwnedFd) -> String {
    let mut terminal = File::from(terminal);
    let (mut text, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = terminal.read(&mut chunk) {
        text.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&text).into_owned()
}
