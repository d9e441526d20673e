//! Exports, and what is left of them.

use crate::*;

#[test]
fn two_exports_of_one_plane_are_two_dma_bufs() {
    let Some(vivid) = vivid() else { return };
    let (_queue, buffers) = CaptureQueue::mmap(&vivid.device, 3, Access::Read).unwrap();
    let again = ioctl::expbuf(&vivid.device, vivid.device.buf_type(), 0, 0, Access::Read).unwrap();
    let inode = |fd: &OwnedFd| fstat(fd).unwrap().st_ino;
    assert_ne!(inode(&buffers[0].planes[0].fd), inode(&again));
}

#[test]
fn every_plane_is_exported_once() {
    let Some(vivid) = vivid() else { return };
    for name in offered(&vivid.device, &["XR24", "NM12", "YM12"]) {
        let format = set_format(&vivid.device, name);
        let (queue, buffers) = CaptureQueue::mmap(&vivid.device, 4, Access::Read).unwrap();
        let fds = buffers.iter().flat_map(|buffer| &buffer.planes).map(|plane| &plane.fd);
        let mut inodes: Vec<_> = fds.map(|fd| fstat(fd).unwrap().st_ino).collect();
        inodes.sort();
        inodes.dedup();
        assert_eq!(inodes.len(), queue.count() as usize * format.planes.len(), "{name}");
    }
}

#[test]
fn buffer_is_readable_after_the_queue_is_freed_and_the_device_closed() {
    let Some(vivid) = vivid() else { return };
    let (mut queue, mut buffers) = streaming(&vivid.device, 3);
    let index = next_frame(&mut queue).index;
    let plane = buffers.swap_remove(index as usize).planes.remove(0);
    let picture = bytes(&plane.fd, 0, plane.length);
    drop((queue, buffers));
    assert!(bytes(&plane.fd, 0, plane.length) == picture);
    let path = vivid.device.path().to_owned();
    let turn = vivid._turn;
    drop(vivid.device);
    assert!(bytes(&plane.fd, 0, plane.length) == picture);
    // Nor does a new queue of the same device get at it.
    let device = Device::open(path).unwrap();
    let (mut queue, _buffers) = streaming(&device, 3);
    next_frame(&mut queue);
    assert!(bytes(&plane.fd, 0, plane.length) == picture);
    drop(turn);
}

/// The kernel's own list of dma-bufs; needs debugfs.
#[test]
fn nothing_is_left_of_queues_that_were_dropped() {
    let Some(vivid) = vivid() else { return };
    let dma_bufs = || std::fs::read_to_string("/sys/kernel/debug/dma_buf/bufinfo").unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = (dma_bufs(), open());
    for _ in 0..20 {
        let (queue, buffers) = streaming(&vivid.device, 4);
        drop((buffers, queue));
    }
    assert_eq!((dma_bufs(), open()), before);
}

#[test]
fn second_queue_of_a_device_is_refused() {
    let Some(vivid) = vivid() else { return };
    let first = CaptureQueue::mmap(&vivid.device, 3, Access::Read).unwrap();
    assert_eq!(CaptureQueue::mmap(&vivid.device, 3, Access::Read).unwrap_err(), AllocateError::AlreadyAllocated);
    assert_eq!(vivid.device.buffer_capabilities(), Err(ReqbufsError::Busy));
    drop(first);
    CaptureQueue::mmap(&vivid.device, 3, Access::Read).unwrap();
}

#[test]
fn queue_of_another_program_is_busy() {
    let Some(vivid) = vivid() else { return };
    let other = Device::open(vivid.device.path()).unwrap();
    let _theirs = CaptureQueue::mmap(&other, 3, Access::Read).unwrap();
    let error = CaptureQueue::mmap(&vivid.device, 3, Access::Read).unwrap_err();
    assert_eq!(error, AllocateError::Reqbufs(ReqbufsError::Busy));
}

#[test]
fn driver_tells_what_memory_it_supports() {
    let Some(vivid) = vivid() else { return };
    let capabilities = vivid.device.buffer_capabilities().unwrap();
    assert_eq!(capabilities.supports(Memory::Mmap), Some(true));
    assert_eq!(capabilities.supports(Memory::Dmabuf), Some(true));
    assert!(capabilities.supports_orphaned_bufs());
}

#[test]
fn no_file_descriptor_left_frees_everything() {
    let Some(vivid) = vivid() else { return };
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let mut others: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    others.pop();
    let error = CaptureQueue::mmap(&vivid.device, 8, Access::Read).map(|_| ()).unwrap_err();
    drop(others);
    assert_eq!(error, AllocateError::Expbuf(ExpbufError::NoFileDescriptor { index: 1, plane: 0 }));
    assert_eq!(open(), before);
    CaptureQueue::mmap(&vivid.device, 8, Access::Read).unwrap();
}

/// Buffers of the size of the format from the system heap.
fn heap_buffers(format: &Format, count: usize) -> Vec<Vec<OwnedFd>> {
    use shrbuf::exporter::DmaHeap;
    let heap = DmaHeap::open("system", "v4l2 test").unwrap();
    let allocate = |bytes: u32| {
        let rows = bytes.div_ceil(4096).max(1);
        let layout = shrbuf::Layout::linear(shrbuf::Format::Grey, 4096, rows, 1).unwrap();
        heap.allocate(&layout).unwrap().export(0).unwrap()
    };
    (0..count).map(|_| format.planes.iter().map(|plane| allocate(plane.sizeimage)).collect()).collect()
}

/// vivid's contiguous allocator takes only contiguous memory, so this is refused there, in words.
#[test]
fn imported_buffers_are_filled_or_refused() {
    let Some(vivid) = vivid() else { return };
    let contiguous = std::fs::read_to_string("/sys/module/vivid/parameters/allocators").unwrap().starts_with('1');
    for name in offered(&vivid.device, &["XR24", "NV12", "NM12", "NM16"]) {
        let format = set_format(&vivid.device, name);
        let buffers = heap_buffers(&format, 4);
        let read: Vec<Vec<_>> =
            buffers.iter().map(|planes| planes.iter().map(|fd| fd.try_clone().unwrap()).collect()).collect();
        let mut queue = CaptureQueue::dmabuf(&vivid.device, buffers).unwrap();
        let started = queue.start();
        assert_eq!(started.is_err(), contiguous, "{started:?}");
        assert!(matches!(started, Ok(()) | Err(StartError::Qbuf(QbufError::OutOfReach { index: 0 }))), "{started:?}");
        for _ in 0..if contiguous { 0 } else { 8 } {
            let frame = next_frame(&mut queue);
            for (plane, payload) in frame.planes().iter().enumerate() {
                let picture = bytes(&read[frame.index as usize][plane], payload.data_offset, payload.bytesused);
                assert!(picture.iter().any(|&b| b != picture[0]), "{name}: a picture of one value");
            }
            queue.requeue_handle().requeue(frame.index).unwrap();
        }
    }
}

#[test]
fn imported_file_that_is_no_dma_buf_is_refused() {
    let Some(vivid) = vivid() else { return };
    let size = vivid.device.format().unwrap().planes[0].sizeimage;
    let memfd = || {
        let fd = nix::sys::memfd::memfd_create("memfd", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&fd, i64::from(size)).unwrap();
        vec![fd]
    };
    let mut queue = CaptureQueue::dmabuf(&vivid.device, (0..3).map(|_| memfd()).collect()).unwrap();
    assert_eq!(queue.start(), Err(StartError::Qbuf(QbufError::Refused { index: 0 })));
    assert!(!queue.is_streaming());
}

#[test]
fn too_few_buffers_to_import_are_refused_with_the_number_needed() {
    let Some(vivid) = vivid() else { return };
    let format = vivid.device.format().unwrap();
    let error = CaptureQueue::dmabuf(&vivid.device, heap_buffers(&format, 1)).unwrap_err();
    assert_eq!(error, AllocateError::Count { given: 1, granted: 2 });
}
