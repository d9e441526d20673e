//! Wrong files and wrong arguments: exit code 2, and words that help.

use crate::{CAMERA, Place};

#[track_caller]
fn refused(place: &Place, args: &[&str], says: &str) {
    let done = place.run(args).with_code(2);
    assert!(done.err.contains(says), "no `{says}` in:\n{}", done.err);
    assert_eq!(done.out, "");
}

#[test]
fn every_subcommand_refuses_a_missing_file() {
    let place = Place::with("no-file", CAMERA);
    for command in ["run", "check", "explain", "graph"] {
        refused(&place, &[command, "pipelin.toml"], "did you mean `pipeline.toml`?");
    }
}

#[test]
fn a_directory_is_no_pipeline() {
    refused(&Place::new("directory"), &["run", "."], "is a directory");
}

#[test]
fn garbage_is_no_pipeline() {
    let place = Place::new("garbage");
    place.write("pipeline.toml", b"\x7fELF\x02\x01\xff\xfe\x00\x1b[2J");
    refused(&place, &["run", "pipeline.toml"], "not UTF-8");
    place.write("pipeline.toml", b"\x00\x1b[2J\x07");
    let done = place.run(&["check", "pipeline.toml"]).with_code(2);
    assert!(!done.err.contains('\x1b'), "an escape sequence came through: {:?}", done.err);
}

#[test]
fn an_empty_file_is_told_what_a_pipeline_is() {
    refused(&Place::with("empty", ""), &["check", "pipeline.toml"], "[element.camera]");
}

#[test]
fn an_unknown_property_is_shown_where_it_stands() {
    let place = Place::with("property", &CAMERA.replace("size =", "sise ="));
    refused(&place, &["run", "pipeline.toml"], "pipeline.toml:7:1");
    refused(&place, &["run", "pipeline.toml"], "did you mean `size`?");
}

#[test]
fn errors_as_json_have_their_places() {
    let place = Place::with("json-errors", &CAMERA.replace("size =", "sise =").replace("null-sink", "nul-sink"));
    for command in ["run", "check", "explain"] {
        let json = place.run(&[command, "pipeline.toml", "--json"]).with_code(2).json();
        assert_eq!(json["error"]["kind"], "file");
        assert_eq!(json["errors"].as_array().unwrap().len(), 2);
        let first = &json["errors"][0];
        assert_eq!((&first["line"], &first["column"], &first["file"]), (&7.into(), &1.into(), &"pipeline.toml".into()));
        assert!(json["errors"][1]["help"].as_str().unwrap().contains("null-sink"), "{json}");
    }
}

#[test]
fn a_wrong_override_is_shown() {
    let place = Place::with("override", CAMERA);
    refused(&place, &["check", "pipeline.toml", "--set", "camera.size=big"], "--set");
    refused(&place, &["check", "pipeline.toml", "--set", "camra.size=64x48"], "did you mean `camera`?");
    refused(&place, &["check", "pipeline.toml", "--set", "camera"], "element.property=value");
}

#[test]
fn usage_errors_are_exit_code_2() {
    let place = Place::with("usage", CAMERA);
    refused(&place, &[], "Usage");
    refused(&place, &["rum"], "run");
    refused(&place, &["run"], "FILE");
    refused(&place, &["run", "pipeline.toml", "--frames", "0"], "--frames");
    refused(&place, &["run", "pipeline.toml", "--frames", "many"], "--frames");
    refused(&place, &["run", "pipeline.toml", "--duration", "0"], "no time");
    refused(&place, &["run", "pipeline.toml", "--duration", "-1"], "--duration");
    refused(&place, &["run", "pipeline.toml", "--duration", "1y"], "units are");
    refused(&place, &["run", "pipeline.toml", "--duration", "1e99"], "--duration");
}

#[test]
fn an_unknown_type_has_its_nearest() {
    refused(&Place::new("inspect-unknown"), &["inspect", "kms-snik"], "did you mean `kms-sink`?");
}

#[test]
fn a_picture_that_cannot_be_written_is_refused() {
    let place = Place::with("no-svg", CAMERA);
    refused(&place, &["graph", "pipeline.toml", "--svg", "nowhere/g.svg"], "cannot write `nowhere/g.svg`");
}

#[test]
fn a_picture_does_not_overwrite_its_pipeline() {
    let place = Place::with("svg-over", CAMERA);
    std::os::unix::fs::symlink("pipeline.toml", place.0.join("link.svg")).unwrap();
    for name in ["pipeline.toml", "link.svg"] {
        refused(&place, &["graph", "pipeline.toml", "--svg", name], "it is the pipeline's own file");
    }
    assert_eq!(std::fs::read_to_string(place.0.join("pipeline.toml")).unwrap(), CAMERA);
}

#[test]
#[cfg(not(feature = "gstreamer"))]
fn a_type_that_this_build_is_without_is_told_from_one_that_there_is_not() {
    let place = Place::with("left-out", &CAMERA.replace("null-sink", "gst"));
    refused(
        &place,
        &["check", "pipeline.toml"],
        "`gst` is left out of this build: cargo build --release -p shrbuf-cli",
    );
    refused(&place, &["inspect", "gst"], "`gst` is left out of this build");
    let done = Place::with("no-type", &CAMERA.replace("null-sink", "gstt")).run(&["check", "pipeline.toml"]);
    assert!(!done.with_code(2).err.contains("left out"));
}

#[test]
fn too_few_descriptors_are_told_what_sets_them() {
    let place = Place::with("few-descriptors", CAMERA);
    // From hardly started to running: how many that takes depends on what is
    // inherited and on which devices are there.
    let runs = (5..64).find(|limit| {
        let limited = format!("ulimit -n {limit}; exec {} run pipeline.toml --frames 2", env!("CARGO_BIN_EXE_shrbuf"));
        let output = std::process::Command::new("sh").args(["-c", &limited]).current_dir(&place.0).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if output.status.code() == Some(0) {
            return true;
        }
        assert_eq!(output.status.code(), Some(1), "{limit}: {said}");
        assert!(said.contains("Too many open files") && said.contains("ulimit -n"), "{limit}: {said}");
        false
    });
    assert!(runs.is_some_and(|limit| limit > 10), "{runs:?}");
}
