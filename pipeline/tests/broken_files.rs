//! Every broken file in `broken/` gives the message that lies beside it.
//!
//! Beside what [`broken`] says, `NN-name.set` holds `--set` arguments, one a line.

mod broken;
mod types;

use std::fs;
use std::path::Path;

use miette::Diagnostic;
use shrbuf_pipeline::file::{self, FileError, Override};
use types::types;

fn told(error: &FileError) -> String {
    let place = match error.name() {
        Some("--set") => "--set:",
        _ => "",
    };
    let help = error.help().map(|h| h.to_string()).unwrap_or_default();
    let mut told = broken::told(format!("{place}{}:{}", error.line(), error.column()), error, &help);
    told.extend(error.others().iter().map(self::told));
    told
}

fn load(path: &Path) -> Result<(), FileError> {
    let sets = fs::read_to_string(path.with_extension("set")).unwrap_or_default();
    let overrides = sets.lines().map(str::parse).collect::<Result<Vec<Override>, _>>()?;
    file::load_file(path, &types(), &overrides).map(|_| ())
}

#[test]
fn every_broken_file_gives_its_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    broken::every_file(&folder, 90, |path| load(path).err().map(|e| told(&e)));
}
