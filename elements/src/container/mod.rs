//! What files hold, for `file-src` and `file-sink`.

pub(crate) mod y4m;

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use shrbuf_pipeline::{Failure, FailureKind, Size};

shrbuf_pipeline::choices! {
    /// How a file holds pictures.
    pub enum Container {
        /// What the file's name says: `.y4m`, `.png`; `.raw`, `.yuv`, `.rgb`, `.gray`, `.bayer`.
        Auto = "auto",
        /// Frames one after the other, planes one after the other, rows without padding.
        Raw = "raw",
        /// YUV4MPEG2: as raw, with a header that says format, size and rate.
        Y4m = "y4m",
        /// PNG: one picture, or with `%d` or `%04d` in its name, numbered ones.
        Png = "png",
    }
}

impl Container {
    /// What `path` says; `None` where it says nothing.
    pub(crate) fn resolve(self, path: &Path) -> Option<Container> {
        if self != Container::Auto {
            return Some(self);
        }
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "y4m" => Container::Y4m,
            "png" => Container::Png,
            "raw" | "yuv" | "rgb" | "gray" | "grey" | "bayer" => Container::Raw,
            _ => return None,
        })
    }
}

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be opened.
    #[error("cannot open {}: {source}{}", .path.display(), hint(.source))]
    Open {
        /// Path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is a directory.
    #[error("{} is a directory; name a file in it, or for numbered pictures a pattern such as {}", .path.display(), .path.join("%04d.png").display())]
    Directory {
        /// Path.
        path: PathBuf,
    },
    /// It has no frame.
    #[error("{} holds no frame", .path.display())]
    Empty {
        /// Path.
        path: PathBuf,
    },
    /// The last frame is not all there.
    #[error("{} ends in the middle of frame {frame}: {found} of {expected} bytes are there; it was cut off, or format and size are not those of the file", .path.display())]
    Short {
        /// Path.
        path: PathBuf,
        /// Number of the frame, from 0.
        frame: u64,
        /// Bytes of a frame.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// It is no Y4M, or one that cannot be expressed.
    #[error("{}: {what}", .path.display())]
    Y4m {
        /// Path.
        path: PathBuf,
        /// What is wrong, and what would do.
        what: y4m::HeaderError,
    },
    /// The bytes between two frames of a Y4M are no frame header.
    #[error("{}: no `FRAME` before frame {frame}; the file is damaged there", .path.display())]
    NoFrame {
        /// Path.
        path: PathBuf,
        /// Number of the frame, from 0.
        frame: u64,
    },
    /// It is no PNG, or a damaged one.
    #[error("{}: not a PNG that can be read: {source}", .path.display())]
    Png {
        /// Path.
        path: PathBuf,
        /// What the decoder said.
        source: png::DecodingError,
    },
    /// A picture of a sequence has another size than the first.
    #[error("{} is {found}, the pictures before it are {expected}; a sequence has one size", .path.display())]
    Resized {
        /// Path.
        path: PathBuf,
        /// Size of the first.
        expected: Size,
        /// Its size.
        found: Size,
    },
    /// Reading failed.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// Path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no room for another frame.
    #[error("no space for frame {frame} of {}: {source}; make room, or write fewer frames (`every`)", .path.display())]
    Full {
        /// Path.
        path: PathBuf,
        /// Number of the frame, from 0.
        frame: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is a pipe without a reader.
    #[error("nobody reads {}; start its reader first, or have it waited for (`retry = \"1min\"` in [pipeline])", .path.display())]
    NoReader {
        /// Path.
        path: PathBuf,
    },
    /// Writing failed.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// Path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

fn is_pipe(path: &Path) -> bool {
    path.metadata().is_ok_and(|m| m.file_type().is_fifo())
}

fn hint(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::NotFound => "; check the path, which is relative to where the command runs",
        io::ErrorKind::PermissionDenied => "; check the permissions of the file and of the folders above it",
        _ => "",
    }
}

impl FileError {
    /// Of opening `path`.
    pub(crate) fn open(path: &Path, source: io::Error) -> FileError {
        match source.kind() {
            io::ErrorKind::IsADirectory => FileError::Directory { path: path.to_owned() },
            // Of a device it has another meaning.
            _ if source.raw_os_error() == Some(libc::ENXIO) && is_pipe(path) => {
                FileError::NoReader { path: path.to_owned() }
            }
            _ => FileError::Open { path: path.to_owned(), source },
        }
    }

    /// Of writing frame `frame` to `path`.
    pub(crate) fn write(path: &Path, frame: u64, source: io::Error) -> FileError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::WriteZero => {
                FileError::Full { path, frame, source }
            }
            io::ErrorKind::BrokenPipe => FileError::NoReader { path },
            _ => FileError::Write { path, source },
        }
    }

    fn kind(&self) -> FailureKind {
        match self {
            FileError::Open { .. } | FileError::Directory { .. } => FailureKind::Config,
            FileError::Full { .. } => FailureKind::Limit,
            FileError::NoReader { .. } => FailureKind::Unplugged,
            FileError::Read { .. } | FileError::Write { .. } => FailureKind::Device,
            _ => FailureKind::Data,
        }
    }
}

impl From<FileError> for Failure {
    fn from(e: FileError) -> Failure {
        Failure::new(e.kind(), e)
    }
}

/// A path with a number in it: `frame-%04d.png`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbered {
    before: String,
    digits: usize,
    after: String,
}

impl Numbered {
    /// `None` where there is no `%d` or `%04d` in the path.
    pub(crate) fn parse(path: &Path) -> Option<Numbered> {
        let (before, rest) = path.to_str()?.split_once('%')?;
        let (digits, after) = rest.split_once('d')?;
        let digits = if digits.is_empty() { 1 } else { digits.parse().ok().filter(|d| *d <= 20)? };
        Some(Numbered { before: before.to_owned(), digits, after: after.to_owned() })
    }

    /// The path of number `n`.
    pub(crate) fn path(&self, n: u64) -> PathBuf {
        format!("{}{n:0digits$}{}", self.before, self.after, digits = self.digits).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_follow_from_names() {
        let of = |name: &str| Container::Auto.resolve(Path::new(name));
        assert_eq!(of("a/b.Y4M"), Some(Container::Y4m));
        assert_eq!(of("b.yuv"), Some(Container::Raw));
        assert_eq!(of("%04d.png"), Some(Container::Png));
        assert_eq!(of("b.mp4"), None);
        assert_eq!(of("b"), None);
        assert_eq!(Container::Raw.resolve(Path::new("b.png")), Some(Container::Raw));
    }

    #[test]
    fn numbers_in_paths() {
        let path = |pattern: &str, n| Numbered::parse(Path::new(pattern)).map(|p| p.path(n));
        assert_eq!(path("a/f-%04d.png", 12), Some("a/f-0012.png".into()));
        assert_eq!(path("%d.png", 12), Some("12.png".into()));
        assert_eq!(path("100%.png", 1), None);
        assert_eq!(path("%99d.png", 1), None);
    }
}
