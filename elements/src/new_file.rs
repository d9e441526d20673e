//! A file that is to be written: one that cannot be is known before anything streams, and what is there stays until there
//! is something to write, so that a run which fails at its start costs nobody the last one's picture or film.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file, open. Where it was not there before, and is still empty when this is dropped, it goes again.
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    created: bool,
    /// What it holds is not ours.
    stale: bool,
}

impl NewFile {
    /// Opens `path`; what is there stays for now.
    ///
    /// # Errors
    /// Those of open(2); of a pipe that nobody reads ENXIO.
    pub(crate) fn open(path: &Path) -> io::Result<NewFile> {
        let of = |file, created| NewFile { file, path: path.to_owned(), created, stale: !created };
        match NewFile::options().create_new(true).open(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                NewFile::options().create(true).open(path).map(|file| of(file, false))
            }
            created => created.map(|file| of(file, true)),
        }
    }

    /// Opens `path` to add to what is there.
    ///
    /// # Errors
    /// As those of [`NewFile::open`].
    pub(crate) fn go_on(path: &Path) -> io::Result<NewFile> {
        let file = NewFile::options().append(true).create(true).open(path)?;
        Ok(NewFile { file, path: path.to_owned(), created: false, stale: false })
    }

    /// A pipe's reader may never come, or never read: that is for the caller to wait for. To files it is all one.
    fn options() -> std::fs::OpenOptions {
        let mut options = File::options();
        options.write(true).custom_flags(libc::O_NONBLOCK);
        options
    }

    /// For writing. What was there before us goes with the first call.
    ///
    /// # Errors
    /// Those of ftruncate(2).
    pub(crate) fn begin(&mut self) -> io::Result<&File> {
        if self.stale && self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.stale = false;
        Ok(&self.file)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // What somebody else has put there meanwhile stays.
        let is = |a: &Metadata, b: Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let is_ours = |there: Metadata| there.len() == 0 && self.file.metadata().is_ok_and(|ours| is(&there, ours));
        if self.created && self.path.symlink_metadata().is_ok_and(is_ours) {
            // Nothing depends on it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path where nothing is.
    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("shrbuf-new-file-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        path
    }

    #[test]
    fn what_was_there_stays_until_there_is_something_to_write() {
        let path = path("stale");
        std::fs::write(&path, "older and longer").unwrap();
        let mut file = NewFile::open(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"older and longer");
        for word in ["new", "er"] {
            io::Write::write_all(&mut file.begin().unwrap(), word.as_bytes()).unwrap();
        }
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"newer");
        drop(NewFile::open(&path).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"newer");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn one_that_stays_empty_goes_again_and_what_others_put_there_stays() {
        let (ours, theirs) = (path("ours"), path("theirs"));
        drop(NewFile::open(&ours).unwrap());
        assert!(!ours.exists());

        let file = NewFile::open(&ours).unwrap();
        std::fs::write(&ours, "by another way").unwrap();
        drop(file);
        assert_eq!(std::fs::read(&ours).unwrap(), b"by another way");

        std::fs::remove_file(&ours).unwrap();
        let file = NewFile::open(&ours).unwrap();
        std::fs::write(&theirs, "").unwrap();
        std::fs::rename(&theirs, &ours).unwrap();
        drop(file);
        assert!(ours.exists());
        std::fs::remove_file(ours).unwrap();
    }
}
