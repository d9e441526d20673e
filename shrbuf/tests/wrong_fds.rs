//! Descriptors that are no memory to share: the exact error each, and every descriptor closed.
//!
//! A closed descriptor needs no test: `Shrbuf::import` takes `OwnedFd`, which is open for as long as it exists.

mod common;

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use common::{Descriptors, nv12, one_segment, opened_again};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use shrbuf::exporter::Memfd;
use shrbuf::{ImportError, LayoutError, MemoryKind, Shrbuf};

/// Imports what `make` gives, which must fail, and leave nothing open.
fn refused(make: impl FnOnce() -> OwnedFd) -> ImportError {
    let descriptors = Descriptors::count();
    let error = Shrbuf::import(vec![make()], one_segment()).unwrap_err();
    descriptors.assert_same();
    error
}

fn not_shareable(make: impl FnOnce() -> OwnedFd) -> &'static str {
    match refused(make) {
        ImportError::NotShareable { found } => found,
        other => panic!("{other}"),
    }
}

fn memfd(size: i64, seals: SealFlag) -> OwnedFd {
    let fd = memfd_create("wrong", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
    nix::unistd::ftruncate(&fd, size).unwrap();
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    fd
}

fn sealed() -> OwnedFd {
    memfd(48 * 256, SealFlag::F_SEAL_SHRINK)
}

#[test]
fn memfd_that_could_shrink_returns_error() {
    let error = refused(|| memfd(48 * 256, SealFlag::F_SEAL_GROW));
    assert!(matches!(error, ImportError::Unsealed { size } if size == 48 * 256), "{error}");
}

#[test]
fn file_of_tmpfs_returns_error() {
    let path = format!("/dev/shm/shrbuf-{}", std::process::id());
    let error = refused(|| {
        fs::write(&path, [0; 100]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        file.into()
    });
    assert!(matches!(error, ImportError::Unsealed { size: 100 }), "{error}");
}

#[test]
fn empty_memfd_returns_error() {
    let error = refused(|| memfd(0, SealFlag::F_SEAL_SHRINK));
    assert!(matches!(error, ImportError::Empty { kind: MemoryKind::Memfd }), "{error}");
}

#[test]
fn memfd_opened_for_writing_returns_error() {
    let error = refused(|| opened_again(sealed(), OFlag::O_WRONLY).unwrap());
    assert!(matches!(error, ImportError::WriteOnly), "{error}");
}

#[test]
fn memfd_opened_for_writing_returns_error_also_where_its_buffer_is_known() {
    let descriptors = Descriptors::count();
    let buffer = Memfd::new("known").allocate(&one_segment()).unwrap();
    let writing = opened_again(buffer.export(0).unwrap(), OFlag::O_WRONLY).unwrap();
    let error = Shrbuf::import(vec![writing], one_segment()).unwrap_err();
    assert!(matches!(error, ImportError::WriteOnly), "{error}");
    assert_eq!(buffer.references(), 1);
    drop(buffer);
    descriptors.assert_same();
}

#[test]
fn memfd_opened_with_o_path_returns_error() {
    assert_eq!(not_shareable(|| opened_again(sealed(), OFlag::O_PATH).unwrap()), "descriptor opened with O_PATH");
}

#[test]
fn socket_returns_error() {
    assert_eq!(not_shareable(|| UnixStream::pair().unwrap().0.into()), "socket");
    assert_eq!(not_shareable(|| UdpSocket::bind("127.0.0.1:0").unwrap().into()), "socket");
}

#[test]
fn directory_returns_error() {
    assert_eq!(not_shareable(|| File::open("/").unwrap().into()), "directory");
}

#[test]
fn regular_file_returns_error() {
    assert_eq!(not_shareable(|| File::open(std::env::current_exe().unwrap()).unwrap().into()), "regular file");
}

#[test]
fn pipe_returns_error() {
    assert_eq!(not_shareable(|| std::io::pipe().unwrap().0.into()), "pipe");
}

#[test]
fn character_device_returns_error() {
    assert_eq!(not_shareable(|| File::open("/dev/zero").unwrap().into()), "character device");
}

#[test]
fn eventfd_returns_error() {
    assert_eq!(not_shareable(|| EventFd::new().unwrap().into()), "descriptor of another kind");
}

#[test]
fn epoll_returns_error() {
    assert_eq!(not_shareable(|| Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap().0), "descriptor of another kind");
}

#[test]
fn one_wrong_descriptor_among_good_ones_closes_all() {
    let descriptors = Descriptors::count();
    let fds = vec![sealed(), File::open("/").unwrap().into(), sealed()];
    let error = Shrbuf::import(fds, nv12([0, 1], [0, 0])).unwrap_err();
    assert!(matches!(error, ImportError::NotShareable { found: "directory" }), "{error}");
    descriptors.assert_same();
}

#[test]
fn fewer_descriptors_than_segments_returns_error() {
    let descriptors = Descriptors::count();
    let error = Shrbuf::import(vec![sealed()], nv12([0, 1], [0, 0])).unwrap_err();
    let expected = LayoutError::OutOfSegment { plane: 1, segment: 1, end: 24 * 64, size: 0 };
    assert!(matches!(error, ImportError::Layout(e) if e == expected));
    let error = Shrbuf::import(Vec::new(), one_segment()).unwrap_err();
    let expected = LayoutError::OutOfSegment { plane: 0, segment: 0, end: 48 * 256, size: 0 };
    assert!(matches!(error, ImportError::Layout(e) if e == expected));
    descriptors.assert_same();
}

#[test]
fn layout_changed_after_it_was_checked_returns_error() {
    let descriptors = Descriptors::count();
    let mut layout = one_segment();
    layout.width = u32::MAX;
    let error = Shrbuf::import(vec![sealed()], layout).unwrap_err();
    let expected = LayoutError::Size { width: u32::MAX, height: 48 };
    assert!(matches!(error, ImportError::Layout(e) if e == expected));
    descriptors.assert_same();
}
