//! `shrbuf run`: what it prints when all is well, and when the pipeline is not.

use std::os::unix::net::UnixListener;

use serde_json::Value;

use crate::{CAMERA, Going, Place};

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Keys in the order in which they are printed, which a parsed object does not keep.
fn in_order(line: &str, keys: &[&str]) -> bool {
    let places: Vec<_> = keys.iter().map(|key| line.find(&format!("\"{key}\":"))).collect();
    places.iter().all(Option::is_some) && places.is_sorted()
}

#[test]
fn frames_end_it_and_the_summary_says_so() {
    let done = Place::with("frames", CAMERA).run(&["run", "pipeline.toml", "--frames", "5"]).with_code(0);
    assert!(done.out.starts_with("test: 5 frames in "), "{}", done.out);
    assert!(done.out.contains("camera → display  XR24    64x48"), "{}", done.out);
    assert!(done.out.contains("zero-copy"), "{}", done.out);
    assert_eq!(done.err, "");
}

#[test]
fn json_has_every_promised_key_in_order() {
    let done = Place::with("json", CAMERA).run(&["run", "pipeline.toml", "--frames", "5", "--json"]).with_code(0);
    assert_eq!(done.out.lines().count(), 1);
    let top = [
        "frames",
        "dropped",
        "duration_s",
        "bytes_copied",
        "cpu_us_per_frame",
        "interrupted",
        "restarts",
        "links",
        "elements",
    ];
    assert!(in_order(&done.out, &top), "{}", done.out);
    let json = done.json();
    assert_eq!(json["frames"], 5);
    assert_eq!(json["bytes_copied"], 0);
    assert!(json["duration_s"].as_f64().unwrap() > 0.0);
    assert!(json["cpu_us_per_frame"].as_f64().unwrap() > 0.0);
    assert!(json.get("error").is_none());
    let link = &json["links"][0];
    let of_link = [
        "from",
        "to",
        "format",
        "modifier",
        "width",
        "height",
        "rate",
        "memory",
        "allocator",
        "stride",
        "zero_copy",
        "reason",
    ];
    assert!(in_order(&done.out, &of_link), "{}", done.out);
    assert_eq!((&link["from"], &link["to"], &link["format"]), (&"camera".into(), &"display".into(), &"XR24".into()));
    assert_eq!((&link["width"], &link["height"], &link["zero_copy"]), (&64.into(), &48.into(), &true.into()));
    assert_eq!(keys(&json["elements"]), ["camera", "display"]);
    assert_eq!(keys(&json["elements"]["camera"]), ["corrupt", "counters", "dropped", "frames", "misdated"]);
    assert_eq!(keys(&json["elements"]["display"]["latency_us"]), ["max", "p50", "p99"]);
}

#[test]
fn frames_are_those_that_reached_every_sink() {
    let tee = r#"
        element.camera = { type = "test-src", size = [64, 48], free-run = true, frames = 40 }
        element.split = { type = "tee" }
        element.all = { type = "null-sink" }
        element.screen = { type = "screen-sink", mode = "latest", terminal = "never" }
        link = [{ path = ["camera", "split", "all"] }, { path = ["split", "screen"] }]
    "#;
    let tee = tee.replace(", frames = 40", "");
    let json = Place::with("tee", &tee).run(&["run", "pipeline.toml", "--frames", "40", "--json"]).with_code(0).json();
    let screen = &json["elements"]["screen"];
    let count = |value: &Value| value.as_u64().unwrap();
    assert_eq!(json["elements"]["all"]["frames"], 40);
    assert_eq!(count(&json["frames"]), count(&screen["frames"]) - count(&screen["dropped"]));
    assert!(count(&json["dropped"]) >= count(&screen["dropped"]));
}

#[test]
fn duration_ends_it() {
    let done = Place::with("duration", CAMERA).run(&["run", "pipeline.toml", "--duration", "200ms", "--json"]);
    let seconds = done.with_code(0).json()["duration_s"].as_f64().unwrap();
    assert!((0.2..2.0).contains(&seconds), "{seconds}");
}

#[test]
fn set_goes_over_the_file() {
    let args = [
        "run",
        "pipeline.toml",
        "--frames",
        "2",
        "--json",
        "--set",
        "camera.size=32x16",
        "--set",
        "camera.format=YUYV",
    ];
    let json = Place::with("set", CAMERA).run(&args).with_code(0).json();
    assert_eq!((&json["links"][0]["width"], &json["links"][0]["format"]), (&32.into(), &"YUYV".into()));
}

#[test]
fn a_file_is_written() {
    let place = Place::with("file", &CAMERA.replace("null-sink", "file-sink"));
    let args = ["run", "pipeline.toml", "--frames", "3", "--set", "display.path=frames.raw"];
    place.run(&args).with_code(0);
    assert_eq!(std::fs::metadata(place.0.join("frames.raw")).unwrap().len(), 3 * 64 * 48 * 4);
}

#[test]
fn a_conversion_is_counted_and_shown() {
    let y4m = CAMERA
        .replace("[pipeline]", "[pipeline]\ncopies = \"allow\"")
        .replace("null-sink\"", "file-sink\"\npath = \"out.y4m\"");
    let place = Place::with("conversion", &y4m);
    let json = place.run(&["run", "pipeline.toml", "--frames", "2", "--json"]).with_code(0).json();
    assert!(json["bytes_copied"].as_u64().unwrap() > 0, "{json}");
    assert_eq!(json["links"].as_array().unwrap().iter().filter(|l| l["zero_copy"] == false).count(), 1, "{json}");
    let text = place.run(&["run", "pipeline.toml", "--frames", "2"]).with_code(0).out;
    assert!(text.contains("COPIES"), "{text}");
}

#[test]
fn a_pipeline_that_cannot_be_negotiated_is_exit_code_1() {
    let place = Place::with("refused", &CAMERA.replace("null-sink\"", "file-sink\"\npath = \"out.y4m\""));
    let done = place.run(&["run", "pipeline.toml", "--json"]).with_code(1);
    let json = done.json();
    assert_eq!((&json["error"]["kind"], &json["frames"]), (&"negotiation".into(), &0.into()));
    assert!(json["cpu_us_per_frame"].is_null());
    assert!(done.err.contains("no format in common"), "{}", done.err);
    assert!(done.err.contains("pipeline.toml:"), "the place in the file is missing: {}", done.err);
    assert!(done.err.contains("copies = \"allow\""), "{}", done.err);
}

#[test]
fn an_element_that_fails_is_named() {
    let missing = CAMERA
        .replace("test-src\"", "file-src\"\npath = \"none.y4m\"")
        .replace("size = [64, 48]\n", "")
        .replace("format = \"XR24\"\n", "");
    let done = Place::with("missing", &missing).run(&["run", "pipeline.toml", "--json"]).with_code(1);
    assert_eq!(done.json()["error"]["element"], "camera", "{done:#?}");
    assert!(done.err.contains("none.y4m"), "{}", done.err);
}

#[test]
fn a_disk_that_stays_full_is_given_up() {
    let full = CAMERA
        .replace("[pipeline]", "[pipeline]\nretry = \"500ms\"")
        .replace("null-sink\"", "file-sink\"\npath = \"/dev/full\"\ncontainer = \"raw\"");
    let done = Place::with("full-disk", &full).run(&["run", "pipeline.toml", "--json"]).with_code(1);
    let json = done.json();
    assert_eq!((&json["error"]["kind"], &json["error"]["element"]), (&"limit".into(), &"display".into()));
    // After 0.1 and 0.2 s, which a slow machine may not come to.
    assert!((1..=2).contains(&json["restarts"].as_u64().unwrap()), "{json}");
    assert!(done.err.contains("make room, or write fewer frames"), "{}", done.err);
}

#[test]
fn the_only_frame_gets_through_every_queue() {
    for full in ["block", "drop-oldest", "latest"] {
        let queued = format!("{CAMERA}queue = {{ depth = 1, full = \"{full}\" }}\n");
        let done = Place::with("one-frame", &queued).run(&["run", "pipeline.toml", "--frames", "1", "--json"]);
        let json = done.with_code(0).json();
        assert_eq!((&json["frames"], &json["dropped"]), (&1.into(), &0.into()), "{full}: {json}");
    }
}

#[test]
fn a_placeholder_runs_where_the_camera_is_missing() {
    let camera = CAMERA.replace("type = \"test-src\"", "type = \"v4l2-src\"\ndevice = \"/dev/video-none\"");
    let with = camera.replace("format = \"XR24\"", "placeholder = { type = \"test-src\", size = [64, 48] }");
    let place = Place::with("placeholder", &with);
    let done = place.run(&["run", "pipeline.toml", "--frames", "5", "--json"]).with_code(0);
    assert_eq!(done.json()["frames"], 5);
    assert!(done.err.contains("its placeholder stands in until it is back"), "{}", done.err);
}

#[test]
fn without_a_display_it_says_what_stands_in() {
    if std::path::Path::new("/dev/dri").exists() {
        println!("this machine may have a display");
        return;
    }
    let done = Place::with("no-display", &CAMERA.replace("null-sink", "kms-sink")).run(&["run", "pipeline.toml"]);
    let said = done.with_code(1).err.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
    assert!(said.contains("there is no display") && said.contains("let a `screen-sink` stand in"), "{said}");
}

#[test]
fn the_preroll_example_writes_what_was_before_the_trigger() {
    let example = include_str!("../../../examples/preroll.toml");
    let place = Place::with("preroll", &example.replace("/tmp/preroll", "control"));
    let small = ["--set", "camera.size=[64,48]", "--set", "camera.rate=60", "--set", "preroll.after=100ms"];
    let run =
        [&["run", "pipeline.toml", "--duration", "2", "--json", "--set", "preroll.stdin=false"][..], &small].concat();
    let control = place.0.join("control");
    let trigger = std::thread::spawn(move || {
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let begin = std::time::Instant::now();
        // A second of pictures is to be replayed; then as soon as there is a socket.
        while begin.elapsed().as_secs() < 1 || socket.send_to(b"trigger", &control).is_err() {
            assert!(begin.elapsed().as_secs() < 20, "no socket");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });

    let done = place.run(&run).with_code(0);

    trigger.join().unwrap();
    let json = done.json();
    let preroll = &json["elements"]["preroll"];
    assert_eq!(preroll["counters"]["triggers"], 1, "{json}");
    let written = json["elements"]["file"]["frames"].as_u64().unwrap();
    assert!(written > 30 && written < json["frames"].as_u64().unwrap(), "{json}");
    assert!(preroll["held"]["seconds"].as_f64().unwrap() > 1.0 && preroll["held"]["ratio"].as_f64().unwrap() > 1.0);
    let bytes = std::fs::metadata(place.0.join("preroll.y4m")).unwrap().len();
    assert!(bytes > written * 64 * 48 * 3 / 2, "{bytes} bytes of {written} frames");
    assert!(!place.0.join("control").exists(), "the socket is left behind");
}

/// Into a window, waiting for whatever can be waited for.
const WINDOW: &str = "pipeline.retry = \"500ms\"\n\
    element.camera = { type = \"test-src\" }\n\
    element.window = { type = \"wayland-sink\" }\n\
    link = [{ path = [\"camera\", \"window\"] }]";

#[test]
fn a_window_outside_of_a_session_is_not_waited_for() {
    let place = Place::with("no-session", WINDOW);
    for (name, value, said) in [("WAYLAND_DISPLAY", "", "WAYLAND_DISPLAY"), ("XDG_RUNTIME_DIR", "", "XDG_RUNTIME_DIR")]
    {
        let mut command = place.command(&["run", "pipeline.toml"]);
        command.env("WAYLAND_DISPLAY", "wayland-9").env("XDG_RUNTIME_DIR", &place.0).env(name, value);
        let done = Going::start(command).ends().with_code(1);
        assert!(done.err.contains(&format!("{said} is not set")), "{}", done.err);
        assert!(!done.err.contains("trying again"), "{}", done.err);
    }
}

#[test]
fn a_compositor_that_is_not_there_is_told_with_those_that_are() {
    let place = Place::with("other-session", WINDOW);
    let _other = UnixListener::bind(place.0.join("wayland-7")).unwrap();
    place.write("wayland-7.lock", "");
    let mut command = place.command(&["run", "pipeline.toml"]);
    command.env("WAYLAND_DISPLAY", "wayland-9").env("XDG_RUNTIME_DIR", &place.0);
    let done = Going::start(command).ends().with_code(1);
    // One may be starting.
    assert!(done.err.contains("trying again for up to 0.5 s"), "{}", done.err);
    assert!(done.err.contains("in XDG_RUNTIME_DIR there is wayland-7, for `display`"), "{}", done.err);
}
