//! One conformance suite over every exporter; what does not depend on how a buffer is laid out is in `common/cases.rs`.
//!
//! memfd runs anywhere; the kernel's exporters need their device nodes: `guest/run -- target/debug/deps/exporters-…`.

#[macro_use]
#[path = "common/cases.rs"]
mod cases;
mod common;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::with_descriptors_left;
use common::{Descriptors, account, nv12, one_segment, opened_again, row, two_segments};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use shrbuf::exporter::{DmaHeap, ExportError, Exporter, Memfd, Udmabuf};
use shrbuf::{
    AccessError, Format, ImportError, Layout, LayoutError, MemoryKind, Modifier, Pool, PoolError, Shrbuf, State,
};

mod open {
    use super::*;

    pub fn memfd() -> Result<Exporter, ExportError> {
        Ok(Exporter::Memfd(Memfd::new("suite")))
    }

    pub fn udmabuf() -> Result<Exporter, ExportError> {
        Udmabuf::open("suite").map(Exporter::Udmabuf)
    }

    pub fn dma_heap() -> Result<Exporter, ExportError> {
        DmaHeap::open("system", "suite").map(Exporter::DmaHeap)
    }
}

/// Runs one test of the suite, and looks afterwards whether a descriptor was left open.
fn run(open: impl FnOnce() -> Result<Exporter, ExportError>, test: impl FnOnce(Exporter)) {
    let descriptors = Descriptors::count();
    match open() {
        Ok(exporter) => test(exporter),
        Err(e) => common::without_drivers(&e.to_string()),
    }
    descriptors.assert_same();
}

macro_rules! suite {
    ($exporter:ident: $($test:ident)+) => {
        mod $exporter {
            $(#[test]
            fn $test() {
                super::run(super::open::$exporter, super::$test);
            })+

            fn shared(case: crate::cases::Case) {
                super::run(super::open::$exporter, |exporter| {
                    case(&mut || exporter.allocate(&super::one_segment()).unwrap());
                });
            }
            cases!(shared);
        }
    };
    ($($exporter:ident)+) => {
        $(suite! { $exporter:
            plane_by_plane_descriptors_of_one_memory_are_one_segment
            buffer_outlives_its_exporter
            memory_is_zeroed_and_whole_pages
            kernel_shows_the_name
            other_process_reads_and_writes
            segments_follow_the_planes
            other_layout_for_known_memory_returns_error
            part_of_known_memory_returns_error
            layout_larger_than_memory_returns_error
            tiled_layout_refuses_both_guards
            descriptor_limit_returns_error
        })+
    };
}
suite! { memfd udmabuf dma_heap }

fn plane_by_plane_descriptors_of_one_memory_are_one_segment(exporter: Exporter) {
    let layout = nv12([0, 0], [0, 64 * 48]);
    let buffer = exporter.allocate(&layout).unwrap();
    let fds = vec![buffer.export(0).unwrap(), buffer.export(0).unwrap()];
    let import = Shrbuf::import(fds, nv12([0, 1], [0, 64 * 48])).unwrap();
    assert_eq!(import.id(), buffer.id());
    assert_eq!(*import.layout(), layout);
}

fn buffer_outlives_its_exporter(exporter: Exporter) {
    let mut buffer = exporter.allocate(&one_segment()).unwrap();
    drop(exporter);
    buffer.write().unwrap().plane(0).write(47, 0, &[7; 256], &account());
    assert_eq!(row(&buffer, 0, 47), [7; 256]);
}

fn memory_is_zeroed_and_whole_pages(exporter: Exporter) {
    let odd = Layout::linear(Format::Grey, 61, 67, 1).unwrap();
    let buffer = exporter.allocate(&odd).unwrap();
    assert_eq!(buffer.segments()[0].size(), 4096);
    assert!((0..67).all(|y| row(&buffer, 0, y) == [0; 61]));
}

fn kernel_shows_the_name(exporter: Exporter) {
    let buffer = exporter.allocate(&one_segment()).unwrap();
    let (inode, fd) = (buffer.segments()[0].inode().to_string(), buffer.segments()[0].as_fd().as_raw_fd());
    let shown = match buffer.kind() {
        MemoryKind::Memfd => fs::read_link(format!("/proc/self/fd/{fd}")).unwrap().display().to_string(),
        MemoryKind::DmaBuf => {
            let list = fs::read_to_string("/sys/kernel/debug/dma_buf/bufinfo").unwrap();
            list.lines().find(|l| l.split_whitespace().any(|word| word.ends_with(&inode))).unwrap().to_owned()
        }
    };
    assert!(shown.contains("suite"), "{shown}");
}

fn other_process_reads_and_writes(exporter: Exporter) {
    let mut buffer = exporter.allocate(&one_segment()).unwrap();
    buffer.write().unwrap().plane(0).write(5, 0, &[0xa5; 256], &account());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_the_other_process"])
        .env(OTHER_PROCESS, "")
        .stdin(Stdio::from(buffer.export(0).unwrap()))
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(row(&buffer, 0, 6), [0x5a; 256]);
}

/// Set in the environment of the other process.
const OTHER_PROCESS: &str = "SHRBUF_TEST_OTHER_PROCESS";

/// The other half of `other_process_reads_and_writes`: its standard input is the buffer. Nothing in any other process.
#[test]
fn in_the_other_process() {
    if std::env::var_os(OTHER_PROCESS).is_none() {
        return;
    }
    let fd = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut buffer = Shrbuf::import(vec![fd], one_segment()).unwrap();
    assert_eq!(row(&buffer, 0, 5), [0xa5; 256]);
    buffer.write().unwrap().plane(0).write(6, 0, &[0x5a; 256], &account());
}

fn segments_follow_the_planes(exporter: Exporter) {
    let mut buffer = exporter.allocate(&two_segments()).unwrap();
    assert_eq!(buffer.segments().len(), 2);
    let mut guard = buffer.write().unwrap();
    guard.plane(0).write(0, 0, &[1; 64], &account());
    guard.plane(1).write(0, 0, &[2; 64], &account());
    drop(guard);
    let chroma = Layout::linear(Format::Grey, 64, 24, 1).unwrap();
    let fd = buffer.export(1).unwrap();
    let luma = row(&buffer, 0, 0);
    drop(buffer);
    assert_eq!(luma, [1; 64]);
    assert_eq!(row(&Shrbuf::import(vec![fd], chroma).unwrap(), 0, 0), [2; 64]);
}

fn other_layout_for_known_memory_returns_error(exporter: Exporter) {
    let buffer = exporter.allocate(&one_segment()).unwrap();
    let other = Layout::linear(Format::Ar24, 64, 48, 64).unwrap();
    let error = Shrbuf::import(vec![buffer.export(0).unwrap()], other).unwrap_err();
    assert_eq!(
        error.to_string(),
        "this memory is already imported as XR24 64x48 LINEAR (segment 0 offset 0 stride 256); \
         asked for AR24 64x48 LINEAR (segment 0 offset 0 stride 256)"
    );
    assert_eq!(buffer.references(), 1);
}

fn part_of_known_memory_returns_error(exporter: Exporter) {
    let buffer = exporter.allocate(&two_segments()).unwrap();
    let part = Layout::linear(Format::Grey, 64, 24, 1).unwrap();
    for segment in 0..2 {
        let error = Shrbuf::import(vec![buffer.export(segment).unwrap()], part).unwrap_err();
        assert!(matches!(error, ImportError::OtherLayout { .. }), "{error}");
    }
    let swapped = vec![buffer.export(1).unwrap(), buffer.export(0).unwrap()];
    let error = Shrbuf::import(swapped, nv12([1, 0], [0, 0])).unwrap_err();
    assert!(matches!(error, ImportError::OtherLayout { .. }), "{error}");
}

fn layout_larger_than_memory_returns_error(exporter: Exporter) {
    let buffer = exporter.allocate(&one_segment()).unwrap();
    let fd = buffer.export(0).unwrap();
    drop(buffer);
    let large = Layout::linear(Format::Xr24, 64, 49, 64).unwrap();
    let error = Shrbuf::import(vec![fd], large).unwrap_err();
    let expected = LayoutError::OutOfSegment { plane: 0, segment: 0, end: 49 * 256, size: 48 * 256 };
    assert!(matches!(error, ImportError::Layout(e) if e == expected));
}

fn tiled_layout_refuses_both_guards(exporter: Exporter) {
    let tiled = Modifier(0x0100_0000_0000_0001);
    let mut layout = one_segment();
    layout.modifier = Some(tiled);
    let mut buffer = exporter.allocate(&layout).unwrap();
    assert!(matches!(buffer.read(), Err(AccessError::Tiled { modifier }) if modifier == tiled));
    assert!(matches!(buffer.try_read(), Err(AccessError::Tiled { modifier }) if modifier == tiled));
    assert!(matches!(buffer.write(), Err(AccessError::Tiled { modifier }) if modifier == tiled));
}

fn descriptor_limit_returns_error(exporter: Exporter) {
    let emfile = Some(nix::libc::EMFILE);
    let buffer = exporter.allocate(&one_segment()).unwrap();
    for spare in 0..2 {
        let error = with_descriptors_left(spare, || exporter.allocate(&two_segments())).unwrap_err();
        assert!(matches!(&error, ExportError::Allocate { source, .. } if source.raw_os_error() == emfile), "{error}");
    }
    let (export, state_fd, pool) = with_descriptors_left(0, || {
        let (export, state_fd) = (buffer.export(0).err(), buffer.state_fd().err());
        (export, state_fd, Pool::new(vec![buffer], |_| {}).err())
    });
    assert_eq!(export.unwrap().raw_os_error(), emfile);
    assert_eq!(state_fd.unwrap().raw_os_error(), emfile);
    assert!(matches!(pool, Some(PoolError::Os(e)) if e.raw_os_error() == emfile));
}

#[test]
fn memfd_opened_again_is_the_same_buffer() {
    run(open::memfd, |exporter| {
        let buffer = exporter.allocate(&one_segment()).unwrap();
        let again = opened_again(buffer.export(0).unwrap(), OFlag::O_RDWR).unwrap();
        assert_eq!(Shrbuf::import(vec![again], one_segment()).unwrap().id(), buffer.id());
    });
}

#[test]
fn memfd_opened_for_reading_refuses_writing_until_a_better_descriptor_comes() {
    run(open::memfd, |exporter| {
        let fd = exporter.allocate(&one_segment()).unwrap().export(0).unwrap();
        let reading = opened_again(&fd, OFlag::O_RDONLY).unwrap();
        let mut buffer = Shrbuf::import(vec![reading], one_segment()).unwrap();
        assert!(matches!(buffer.write(), Err(AccessError::ReadOnly)));

        let open_meanwhile = buffer.clone();
        let guard = open_meanwhile.read().unwrap();
        let same = Shrbuf::import(vec![fd], one_segment()).unwrap();
        assert_eq!(same.id(), buffer.id());
        assert_eq!(guard.plane(0).rows(), 48);
        buffer.write().unwrap().plane(0).write(3, 0, &[3; 256], &account());
        assert_eq!(row(&same, 0, 3), [3; 256]);
    });
}

#[test]
fn memfd_sealed_against_writing_refuses_writing() {
    use nix::fcntl::SealFlag;
    run(open::memfd, |_| {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        let fd = memfd_create("sealed", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::ftruncate(&fd, 48 * 256).unwrap();
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_FUTURE_WRITE;
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        let mut buffer = Shrbuf::import(vec![fd], one_segment()).unwrap();
        assert!(matches!(buffer.write(), Err(AccessError::ReadOnly)));
        assert_eq!(row(&buffer, 0, 0), [0; 256]);
    });
}

#[test]
fn dma_buf_cannot_be_opened_again() {
    run(open::dma_heap, |exporter| {
        let fd = exporter.allocate(&one_segment()).unwrap().export(0).unwrap();
        assert_eq!(opened_again(fd, OFlag::O_RDWR).unwrap_err(), nix::Error::ENXIO);
    });
}

#[test]
fn dma_heap_descriptor_for_reading_refuses_writing() {
    #[repr(C)]
    struct Allocation {
        len: u64,
        fd: u32,
        fd_flags: u32,
        heap_flags: u64,
    }
    nix::ioctl_readwrite!(dma_heap_alloc, b'H', 0, Allocation);

    run(open::dma_heap, |_| {
        use std::os::fd::FromRawFd;
        let heap = fs::File::open("/dev/dma_heap/system").unwrap();
        let fd_flags = (OFlag::O_RDONLY | OFlag::O_CLOEXEC).bits() as u32;
        let mut new = Allocation { len: 48 * 256, fd: 0, fd_flags, heap_flags: 0 };
        // SAFETY: the pointer is to a live struct of the ioctl's type.
        unsafe { dma_heap_alloc(heap.as_raw_fd(), &mut new) }.unwrap();
        // SAFETY: the kernel has just installed it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(new.fd as i32) };
        let mut buffer = Shrbuf::import(vec![fd], one_segment()).unwrap();
        assert!(matches!(buffer.write(), Err(AccessError::ReadOnly)));
        assert_eq!(row(&buffer, 0, 47), [0; 256]);
    });
}

#[test]
fn heap_of_no_such_name_returns_error() {
    run(open::memfd, |_| {
        let error = DmaHeap::open("../null", "x").unwrap_err();
        assert!(matches!(&error, ExportError::NoHeap { name, .. } if name == "../null"), "{error}");
    });
}

#[test]
fn segment_without_planes_returns_error() {
    run(open::memfd, |exporter| {
        let error = exporter.allocate(&nv12([0, 2], [0, 0])).unwrap_err();
        assert!(matches!(error, ExportError::Import(ImportError::Empty { kind: MemoryKind::Memfd })), "{error}");
    });
}

#[test]
fn wait_for_a_state_is_woken_by_another_thread() {
    run(open::memfd, |exporter| {
        let buffer = exporter.allocate(&one_segment()).unwrap();
        let producer = buffer.clone();
        let filled = std::thread::scope(|s| {
            s.spawn(move || producer.set_state(State::Filled));
            buffer.wait_state(|s| s == State::Filled, Duration::MAX)
        });
        assert_eq!(filled, Ok(State::Filled));
    });
}
