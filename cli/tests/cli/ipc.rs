//! Two pipelines in two processes, and a look at both.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{Going, Place};

const OUT: &str = r#"
pipeline.name = "out"

[element.camera]
type = "test-src"
size = [64, 48]
format = "NV12"
rate = 60

[element.out]
type = "ipc-sink"
path = "socket"
wait-for = 1

[[link]]
path = ["camera", "out"]
"#;

const IN: &str = r#"
pipeline.name = "in"

[element.in]
type = "ipc-src"
path = "socket"

[element.drop]
type = "null-sink"

[[link]]
path = ["in", "drop"]
"#;

fn place(test: &str, out: &str) -> Place {
    // The name of a socket is 107 bytes at most, which the directory of the tests may exceed.
    let place = Place::with(test, IN);
    place.write("out.toml", out);
    place
}

fn start(place: &Place, args: &[&str]) -> Going {
    let mut out = Going::start(place.command(&[&["-v", "run", "out.toml", "--json"], args].concat()));
    out.says("running");
    out
}

fn ends(out: Going) -> Value {
    out.ends().with_code(0).json()
}

#[test]
fn every_frame_arrives_without_a_copy_and_the_end_ends_both() {
    let place = place("ipc-all", &OUT.replace("wait-for = 1", "wait-for = 1\nlag = \"block\""));
    let out = start(&place, &["--frames", "60"]);
    let received = place.run(&["run", "pipeline.toml", "--json"]).with_code(0).json();
    let sent = ends(out);
    assert_eq!((&received["frames"], &received["bytes_copied"]), (&60.into(), &0.into()), "{received}");
    assert_eq!(received["links"][0]["memory"], "memfd");
    assert_eq!((&received["links"][0]["format"], &received["links"][0]["rate"]), (&"NV12".into(), &60.0.into()));
    assert_eq!(sent["elements"]["out"]["counters"]["sent"], 60, "{sent}");
    assert_eq!(sent["bytes_copied"], 0);
    assert_eq!(place.names(), ["out.toml", "pipeline.toml"], "the socket and its lock are gone");
}

#[test]
fn a_producer_that_dies_is_a_device_unplugged() {
    let place = place("ipc-dies", OUT);
    let mut out = start(&place, &[]);
    let consumer = Going::start(place.command(&["run", "pipeline.toml", "--json"]));
    let begin = Instant::now();
    while Looked::at(&place).is_none_or(|looked| looked.sent() < 3) {
        assert!(begin.elapsed() < Duration::from_secs(20), "no consumer came");
    }
    // As in a child of the producer's, which outlives it.
    let pipes = ends_for_writing(out.child.id());
    assert!(!pipes.is_empty());
    out.signal(Signal::SIGKILL);
    out.child.wait().unwrap();
    let json = consumer.ends().with_code(1).json();
    assert_eq!(json["error"]["kind"], "unplugged", "{json}");
    assert!(json["error"]["message"].as_str().unwrap().contains("the producer has gone"), "{json}");
}

/// Of every pipe that a process has beside its standard outputs.
fn ends_for_writing(process: u32) -> Vec<File> {
    let pipes = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().map(|entry| entry.unwrap());
    let inherited = |name: &str| ["0", "1", "2"].contains(&name);
    pipes
        .filter(|entry| !inherited(entry.file_name().to_str().unwrap()))
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:")))
        .map(|entry| File::options().write(true).open(entry.path()).unwrap())
        .collect()
}

/// `shrbuf top --json`.
struct Looked(Value);

impl Looked {
    fn at(place: &Place) -> Option<Looked> {
        let done = place.run(&["top", "socket", "--json"]);
        (done.status.code() == Some(0)).then(|| Looked(done.json()))
    }

    fn sent(&self) -> u64 {
        self.0["consumers"].as_array().unwrap().iter().map(|c| c["sent"].as_u64().unwrap()).sum()
    }
}

#[test]
fn top_shows_who_holds_what() {
    let place = place("ipc-top", OUT);
    let out = start(&place, &[]);
    let consumer = Going::start(place.command(&["run", "pipeline.toml", "--json"]));
    let begin = Instant::now();
    let looked = loop {
        assert!(begin.elapsed() < Duration::from_secs(20), "no consumer came");
        if let Some(looked) = Looked::at(&place).filter(|looked| looked.sent() > 3) {
            break looked.0;
        }
    };
    let one = &looked["consumers"][0];
    assert_eq!((&one["name"], &one["lag"], &one["window"]), (&"in".into(), &"latest".into(), &3.into()), "{looked}");
    assert_eq!((&looked["pid"], &one["pid"]), (&out.child.id().into(), &consumer.child.id().into()));
    assert!(one["fps"].as_f64().unwrap() > 1.0, "{looked}");
    let text = place.run(&["top", "socket", "--interval", "100ms", "--times", "2"]).with_code(0).out;
    assert_eq!(text.matches("consumer  process").count(), 2, "{text}");
    out.signal(Signal::SIGINT);
    let counters = &consumer.ends().with_code(0).json()["elements"]["in"]["counters"];
    let came = counters["received"].as_u64().unwrap() + counters["skipped"].as_u64().unwrap();
    assert_eq!(ends(out)["elements"]["out"]["counters"]["sent"], came);
}

/// Passes on what the producer at "device" has; a smaller picture while there is none.
const RELAY: &str = r#"
pipeline.name = "relay"

[element.camera]
type = "ipc-src"
path = "device"
placeholder = { type = "test-src", size = [32, 24], format = "NV12", rate = 60 }

[element.out]
type = "ipc-sink"
path = "socket"
window = 1
consumers = 1

[[link]]
path = ["camera", "out"]
"#;

#[test]
fn consumers_go_on_as_a_placeholder_stands_in_and_as_the_device_is_back() {
    let place = place("ipc-placeholder", &OUT.replace("\"socket\"\nwait-for = 1", "\"device\""));
    place.write("relay.toml", RELAY);
    let device = start(&place, &[]);
    let mut relay = Going::start(place.command(&["-v", "run", "relay.toml", "--json"]));
    relay.says("running");
    let mut consumer = Going::start(place.command(&["-v", "run", "pipeline.toml", "--json"]));
    consumer.says("64x48");
    device.signal(Signal::SIGKILL);
    consumer.says("32x24");
    consumer.seen.clear();
    let device = start(&place, &[]);
    consumer.says("64x48");
    consumer.says("running");
    relay.signal(Signal::SIGINT);
    let (relayed, came) = (ends(relay), consumer.ends().with_code(0).json());
    assert_eq!((&relayed["restarts"], &came["restarts"]), (&2.into(), &2.into()), "{came}");
    let counters =
        |json: &Value, element: &str, name: &str| json["elements"][element]["counters"][name].as_u64().unwrap();
    let sent = counters(&relayed, "out", "sent");
    assert_eq!(sent, counters(&came, "in", "received") + counters(&came, "in", "skipped"));
    device.signal(Signal::SIGINT);
    ends(device);
}

#[test]
fn an_end_reaches_those_who_read_though_another_does_not() {
    let place = place("ipc-stopped", &OUT.replace("wait-for = 1", "lag = \"block\""));
    let mut out = start(&place, &[]);
    let [stopped, reads] = [0, 1].map(|_| {
        let mut consumer = Going::start(place.command(&["-v", "run", "pipeline.toml", "--json"]));
        consumer.says("running");
        consumer
    });
    stopped.signal(Signal::SIGSTOP);
    let begin = Instant::now();
    let waits = |looked: Looked| looked.0["consumers"].as_array().unwrap().iter().any(|c| c["pending"] != 0);
    while !Looked::at(&place).is_some_and(waits) {
        assert!(begin.elapsed() < Duration::from_secs(20), "the stopped one takes frames");
    }
    out.signal(Signal::SIGTERM);
    // After the time that frames on their way have.
    assert_eq!(out.child.wait().unwrap().code(), Some(0));
    reads.ends().with_code(0);
    stopped.signal(Signal::SIGCONT);
    stopped.ends().with_code(0);
}

#[test]
fn an_end_does_not_wait_for_consumers_who_have_not_come_and_counts_what_was_kept_for_them() {
    let place = place("ipc-nobody", &OUT.replace("wait-for = 1", "wait-for = 1\nlag = \"block\""));
    let out = start(&place, &[]);
    // Nothing tells how many frames have come and wait; some have by then.
    std::thread::sleep(Duration::from_millis(200));
    let begin = Instant::now();
    out.signal(Signal::SIGTERM);
    let json = ends(out);
    // That long an end waits for frames on their way.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    let counts = &json["elements"]["out"];
    assert!(counts["frames"].as_u64().unwrap() > 0 && counts["dropped"] == counts["frames"], "{json}");
}

#[test]
fn a_consumer_that_must_not_lose_frames_is_refused_where_the_producer_drops_some() {
    let place = place("ipc-no-block", &OUT.replace("wait-for = 1", ""));
    let out = start(&place, &[]);
    place.write("pipeline.toml", IN.replace("\"socket\"", "\"socket\"\nlag = \"block\""));
    let done = place.run(&["run", "pipeline.toml"]).with_code(1);
    assert!(done.err.contains("`lag = \"block\"`") && done.err.contains("set that at its `ipc-sink`"), "{}", done.err);
    out.signal(Signal::SIGINT);
    ends(out);
}

#[test]
fn top_without_a_producer_says_what_to_do() {
    let done = Place::new("ipc-none").run(&["top", "socket"]).with_code(1);
    assert!(
        done.err.contains("no producer listens at \"socket\"") && done.err.contains("start it first"),
        "{}",
        done.err
    );
}

#[test]
fn a_window_too_small_for_the_consumer_is_refused_with_the_sum() {
    let place = place("ipc-window", &OUT.replace("wait-for = 1", "window = 1"));
    let needs_two = IN.replace("[\"in\", \"drop\"]", "[\"in\", \"drop\"]\nqueue = { depth = 1 }");
    place.write("pipeline.toml", needs_two);
    let out = start(&place, &[]);
    let done = place.run(&["run", "pipeline.toml"]).with_code(1);
    assert!(done.err.contains("in keeps 0, drop holds 1") && done.err.contains("= 2"), "{}", done.err);
    out.signal(Signal::SIGINT);
    ends(out);
}

#[test]
fn the_examples_go_together() {
    let place = Place::new("ipc-examples");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for name in ["ipc-out.toml", "ipc-in.toml"] {
        let text = std::fs::read_to_string(examples.join(name)).unwrap();
        assert!(text.contains("\"/tmp/shrbuf-camera\""));
        place.write(name, text.replace("/tmp/shrbuf-camera", "socket"));
    }
    let small = ["--set", "camera.size=[64,48]", "--set", "out.wait-for=1"];
    let mut out = Going::start(place.command(&[&["-v", "run", "ipc-out.toml", "--json"][..], &small].concat()));
    out.says("running");
    let shown = place.run(&["run", "ipc-in.toml", "--frames", "10", "--json", "--set", "display.png=screen.png"]);
    let shown = shown.with_code(0).json();
    assert_eq!((&shown["elements"]["camera"]["frames"], &shown["restarts"]), (&10.into(), &0.into()), "{shown}");
    assert_eq!(shown["links"][0]["format"], "YU12");
    out.signal(Signal::SIGINT);
    ends(out);
}
