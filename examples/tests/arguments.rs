//! What `camera-to-display` says to arguments that are none.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

#[test]
fn arguments_that_are_none_are_told_what_they_could_be() {
    let say = |argument: &OsStr| {
        let output = Command::new(env!("CARGO_BIN_EXE_camera-to-display")).arg(argument).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        text
    };
    let usage = "camera-to-display: usage: camera-to-display [SECONDS] [PICTURE.png]\n";
    for argument in [&b"--help"[..], b"picture.png", b"\xff", b""] {
        assert_eq!(say(OsStr::from_bytes(argument)), usage);
    }
    assert!(say(OsStr::new("-1")).contains("negative"));
}
