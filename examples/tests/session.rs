//! `camera-to-display` inside a desktop session: it shows a window there, and leaves the displays alone.

#[path = "../../tests/wayland/weston.rs"]
#[expect(dead_code, reason = "a compositor that is killed and started again is for the tests of the element")]
mod weston;

use std::process::Command;

use shrbuf_pipeline::Size;
use weston::Weston;

fn run(display: &str, seconds: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_camera-to-display"))
        .arg(seconds)
        .env("WAYLAND_DISPLAY", display)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn camera_to_display_picks_a_window_inside_a_session() {
    let Some(weston) = Weston::start(Size::new(320, 180)) else { return };

    let said = run(&weston.socket(), "3");

    assert!(said.contains(&format!("display: a window of the Wayland compositor at {}", weston.socket())), "{said}");
    // Frames have been shown, and the compositor has said when.
    let window = said.lines().find(|l| l.starts_with("display: ") && l.contains("frames")).unwrap_or_default();
    assert!(window.contains("latency"), "{said}");
    assert!(said.contains("\n0 bytes copied"), "{said}");
}

#[test]
fn camera_to_display_outside_of_a_session_opens_no_window() {
    let said = run("/nonexistent/wayland-9", "0.2");

    assert!(said.contains("display: no window (no compositor at /nonexistent/wayland-9"), "{said}");
    assert!(!said.contains("a window of the Wayland compositor"), "{said}");
}
