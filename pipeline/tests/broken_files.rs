//! Every broken file in `broken/` gives the message that lies beside it.
//!
//! `NN-name.toml` is what a user wrote, `NN-name.expected` what they are told: a line `LINE:COLUMN: message` for each
//! error, its help under it. `NN-name.set` holds `--set` arguments, one a line. `SHRBUF_BLESS=1` writes the messages
//! that are given now; read each before it is committed.

mod types;

use std::fs;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use shrbuf_pipeline::file::{self, FileError, Override};
use types::types;

fn told(error: &FileError) -> String {
    let place = match error.name() {
        Some("--set") => "--set:",
        _ => "",
    };
    let mut told = format!("{place}{}:{}: {error}\n", error.line(), error.column());
    for line in error.help().map(|h| h.to_string()).unwrap_or_default().lines() {
        told.push_str(&format!("    {line}\n"));
    }
    told.extend(error.others().iter().map(self::told));
    told
}

fn load(path: &Path) -> Result<(), FileError> {
    let sets = fs::read_to_string(path.with_extension("set")).unwrap_or_default();
    let overrides = sets.lines().map(str::parse).collect::<Result<Vec<Override>, _>>()?;
    file::load_file(path, &types(), &overrides).map(|_| ())
}

fn broken() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken")
}

#[test]
fn every_broken_file_gives_its_message() {
    let mut files: Vec<_> = fs::read_dir(broken()).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    assert!(files.len() >= 45, "only {} files", files.len());

    let bless = std::env::var_os("SHRBUF_BLESS").is_some();
    let mut wrong = String::new();
    for path in &files {
        let name = path.file_name().unwrap().to_string_lossy();
        let told = load(path).map_or_else(|e| told(&e), |()| "nothing is wrong\n".into());
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
