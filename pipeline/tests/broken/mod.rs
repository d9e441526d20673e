//! Broken files and the messages that lie beside them.
//!
//! `NN-name.toml` is what a user wrote, `NN-name.expected` what they are told: a line `LINE:COLUMN: message` for each
//! error, its help under it. `SHRBUF_BLESS=1` writes the messages that are given now; read each before it is committed.

use std::fs;
use std::path::Path;

/// An error: its place, what is wrong, and what would help.
pub fn told(place: impl std::fmt::Display, message: impl std::fmt::Display, help: &str) -> String {
    let mut told = format!("{place}: {message}\n");
    help.lines().for_each(|line| told.push_str(&format!("    {line}\n")));
    told
}

/// Has every file in `folder`, `least` or more, looked at by `tell`, and compares what that says.
#[track_caller]
pub fn every_file(folder: &Path, least: usize, tell: impl Fn(&Path) -> Option<String>) {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    assert!(files.len() >= least, "only {} files", files.len());

    let bless = std::env::var_os("SHRBUF_BLESS").is_some();
    let mut wrong = String::new();
    for path in &files {
        let name = path.file_name().unwrap().to_string_lossy();
        let told = tell(path).unwrap_or_else(|| "nothing is wrong\n".into());
        if bless {
            fs::write(path.with_extension("expected"), &told).unwrap();
        }
        let expected = fs::read_to_string(path.with_extension("expected"));
        if expected.as_deref().ok() != Some(&told) {
            wrong.push_str(&format!("{name} expected {expected:?}, but was told:\n{told}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
