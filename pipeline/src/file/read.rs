//! A pipeline file's bytes.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use super::error::{FileError, Problem};
use super::source::Source;
use crate::nearest::nearest;

/// The longest file that is read. A thousand elements with all their properties are a tenth of it.
pub const MAX_BYTES: u64 = 1024 * 1024;

pub(super) fn text(path: &Path) -> Result<String, FileError> {
    let shown = path.display().to_string();
    let bytes = bytes(path).map_err(|e| FileError::unread(unreadable(path, &e)))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FileError::unread(Problem::TooLarge { path: shown, limit: MAX_BYTES }));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(offset).copied().unwrap_or_default();
        let lossy = String::from_utf8_lossy(error.as_bytes());
        let spot = Source::new(&shown, &lossy).spot(offset..offset + char::REPLACEMENT_CHARACTER.len_utf8());
        FileError::at(&spot, Problem::NotUtf8 { byte, offset })
    })
}

fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let shown = path.display().to_string();
    match error.kind() {
        ErrorKind::NotFound => Problem::NoFile { path: shown, nearest: neighbour(path) },
        ErrorKind::IsADirectory => Problem::Directory { path: shown },
        ErrorKind::PermissionDenied => Problem::Denied { path: shown },
        _ => Problem::Unreadable { path: shown, error: error.to_string() },
    }
}

/// The TOML file in the same directory whose name is most like that of `path`.
fn neighbour(path: &Path) -> Option<String> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = directory.read_dir().ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let names: Vec<String> = files.filter(|name| name.ends_with(".toml")).collect();
    let name = nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(path.with_file_name(name).display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_errors_have_their_problems() {
        // Whoever runs tests as root may read everything, so a real file would not do.
        let denied = unreadable(Path::new("a.toml"), &io::Error::from(ErrorKind::PermissionDenied));
        assert_eq!(denied, Problem::Denied { path: "a.toml".into() });
        let other = unreadable(Path::new("a.toml"), &io::Error::from_raw_os_error(5));
        assert_eq!(other.to_string(), "cannot read `a.toml`: Input/output error (os error 5)");
    }
}
