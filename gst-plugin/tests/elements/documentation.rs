//! The lines that the elements' documentation opens with, run as they stand but for their paths.

use crate::launch::{Launch, Temporary, command, until_listening};

/// The pipeline after `gst-launch-1.0`, the first time that it is named.
fn line(documentation: &str, replaced: &[(&str, &str)]) -> String {
    let line = documentation.lines().find_map(|line| line.strip_prefix("//! gst-launch-1.0 ")).unwrap();
    replaced.iter().fold(line.to_owned(), |line, (from, to)| {
        assert!(line.contains(from), "{line} has no {from}");
        line.replace(from, to)
    })
}

const SINK: &str = include_str!("../../src/shrbufsink/mod.rs");
const TMEM: &str = include_str!("../../src/shrbuftmem/mod.rs");
const SOURCE: &str = include_str!("../../src/shrbufsrc/mod.rs");

#[test]
fn lines_of_both_elements_run() {
    let (socket, file) = (Temporary::new("documented"), Temporary::new("raw"));
    let sink = line(SINK, &[("/tmp/picture", socket.as_str())]);
    let sink = Launch::new(&format!("{sink} wait-for=1 policy=block"));
    until_listening(&socket);
    let source = line(SOURCE, &[("/tmp/picture", socket.as_str()), ("frames.raw", file.as_str())]);
    Launch::new(&source).end_well();
    sink.end_well();
    let frames = std::fs::metadata(&file.0).unwrap().len();
    assert!(frames > 0 && frames % 100 == 0, "{frames} bytes are not 100 frames");
}

#[test]
fn line_of_the_preroll_runs_and_leaves_nothing() {
    let tracer = [("GST_TRACERS", "leaks"), ("GST_DEBUG", "GST_TRACER:7"), ("GST_DEBUG_NO_COLOR", "1")];
    let log = Launch::with(&line(TMEM, &[]), &tracer).end_well();
    assert!(log.contains("new format string: object-alive"), "there is no tracer: {log}");
    assert!(!log.contains("object-alive, type-name=(string)Gst"), "{log}");
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
