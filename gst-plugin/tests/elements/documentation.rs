//! The lines that the elements' documentation opens with, run as they stand but for their paths.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::launch::{LEAKS_TRACER, Launch, PAGE, Temporary, command, nothing_is_alive, until_listening};

/// The pipelines after `gst-launch-1.0`.
fn lines(documentation: &str, replaced: &[(&str, &str)]) -> Vec<String> {
    let lines = documentation.lines().filter_map(|line| line.strip_prefix("//! gst-launch-1.0 "));
    let put = |line: &str| replaced.iter().fold(line.to_owned(), |line, (from, to)| line.replace(from, to));
    lines.map(put).collect()
}

/// The first.
fn line(documentation: &str, replaced: &[(&str, &str)]) -> String {
    lines(documentation, replaced).swap_remove(0)
}

const PLUGIN: &str = include_str!("../../src/lib.rs");
const SINK: &str = include_str!("../../src/shrbufsink/mod.rs");
const TMEM: &str = include_str!("../../src/shrbuftmem/mod.rs");
const SOURCE: &str = include_str!("../../src/shrbufsrc/mod.rs");

#[test]
fn lines_of_both_elements_run() {
    let (socket, file) = (Temporary::new("documented"), Temporary::new("raw"));
    let sink = Launch::new(&line(SINK, &[("/tmp/picture", socket.as_str())]));
    until_listening(&socket);
    let source = line(SOURCE, &[("/tmp/picture", socket.as_str()), ("frames.raw", file.as_str())]);
    let log = Launch::new(&format!("-v {source}")).end_well();
    sink.end_well();
    gst::init().unwrap();
    let caps = log.lines().find_map(|line| line.split_once("shrbufsrc0.GstPad:src: caps = ")).unwrap().1;
    let picture = gst_video::VideoInfo::from_caps(&caps.parse::<gst::Caps>().unwrap()).unwrap().size() as u64;
    assert_eq!(std::fs::metadata(&file.0).unwrap().len(), 100 * picture, "{caps}");
}

#[test]
fn lines_of_the_plugin_run_beside_each_other() {
    let socket = Temporary::new("plugin");
    // This machine may have no display; and neither ends by itself.
    let lines = lines(PLUGIN, &[("/tmp/picture", socket.as_str()), ("autovideosink", "fakesink num-buffers=10")]);
    let [sink, source] = &lines[..] else { panic!("{lines:?}") };
    let _sink = Launch::new(sink);
    until_listening(&socket);
    Launch::new(source).end_well();
}

#[test]
fn line_of_the_preroll_runs_and_leaves_nothing() {
    nothing_is_alive(&Launch::with(&line(TMEM, &[]), &LEAKS_TRACER).end_well());
}

#[test]
fn inspect_knows_the_elements_and_their_properties() {
    for (element, properties) in [
        ("shrbufsrc", &["path", "policy", "window", "granted", "timeout"][..]),
        ("shrbuftmem", &["keep", "max", "after", "waiting", "stats", "\"trigger\""]),
        (
            "shrbufsink",
            &[
                "path",
                "mode",
                "users",
                "policy",
                "copies",
                "consumers",
                "window",
                "depth",
                "buffers",
                "wait-for",
                "stats",
            ],
        ),
    ] {
        let inspect = command("gst-inspect-1.0").arg(element).output().unwrap();
        let text = String::from_utf8_lossy(&inspect.stdout).into_owned();
        assert!(inspect.status.success(), "{text}");
        for property in properties {
            assert!(text.lines().any(|line| line.trim_start().starts_with(property)), "{property}: {text}");
        }
    }
}

#[test]
fn program_in_c_fires_the_trigger() {
    let (source, program, film) = (Temporary::new("trigger.c"), Temporary::new("trigger"), Temporary::new("webm"));
    let code = PAGE.split("```c\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(code.contains("/tmp/event.webm"), "{code}");
    std::fs::write(&source.0, code.replace("/tmp/event.webm", film.as_str())).unwrap();
    let build = code.lines().next().unwrap().strip_prefix("// ").unwrap();
    let build = build.replace("trigger.c", &format!("-Wall -Werror -o {} {}", program.as_str(), source.as_str()));
    assert!(Command::new("sh").args(["-c", &build]).status().unwrap().success(), "{build}");
    let size_after = |keys: &[u8]| {
        let mut child = command(program.as_str()).stdin(Stdio::piped()).spawn().unwrap();
        // For something to be kept.
        std::thread::sleep(Duration::from_secs(1));
        child.stdin.take().unwrap().write_all(keys).unwrap();
        assert!(child.wait().unwrap().success());
        std::fs::metadata(&film.0).unwrap().len()
    };
    let (nothing, second) = (size_after(b""), size_after(b"\n"));
    assert!(second > nothing + 2000, "{second} bytes, and {nothing} without a trigger");
}
