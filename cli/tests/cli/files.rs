//! Files of the real types: those that are broken give the message that lies beside them, the examples none.

#[path = "../../../pipeline/tests/broken/mod.rs"]
mod broken;

use std::path::{Path, PathBuf};

use crate::Place;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn every_broken_file_gives_its_message() {
    let place = Place::new("broken");
    broken::every_file(&Path::new(ROOT).join("tests/broken"), 14, |path| {
        let done = place.run(&["check", "--json", path.to_str().unwrap()]);
        let told = |e: &serde_json::Value| {
            let place = format!("{}:{}", e["line"], e["column"]);
            broken::told(place, e["message"].as_str().unwrap(), e["help"].as_str().unwrap_or_default())
        };
        Some(done.json()["errors"].as_array()?.iter().map(told).collect())
    });
}

fn examples(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let here =
        files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "toml") && !path.ends_with("Cargo.toml"));
    here.chain(folders.iter().flat_map(|f| examples(f))).collect()
}

#[test]
fn the_examples_are_in_order() {
    let all = examples(&Path::new(ROOT).join("../examples"));
    let of_gstreamer = |path: &PathBuf| std::fs::read_to_string(path).unwrap().contains("type = \"gst\"");
    let (gstreamer, plain): (Vec<_>, Vec<_>) = all.into_iter().partition(of_gstreamer);
    assert!(plain.len() >= 7 && gstreamer.len() >= 5, "{plain:?} {gstreamer:?}");
    let place = Place::new("examples");
    let check = |path: &PathBuf| place.run(&["check", path.to_str().unwrap()]);
    for path in &plain {
        assert!(check(path).with_code(0).out.starts_with("ok: "), "{}", path.display());
    }
    for path in &gstreamer {
        let built_in = cfg!(feature = "gstreamer");
        let done = check(path).with_code(if built_in { 0 } else { 2 });
        assert!(built_in || done.err.contains("no element type `gst`"), "{}: {}", path.display(), done.err);
    }
}
