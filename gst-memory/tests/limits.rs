//! What is left where the process runs out of descriptors: in a process of its own, whose limit this lowers.

use std::fs::{File, read_dir};
use std::os::fd::AsRawFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shrbuf::exporter::Memfd;
use shrbuf::ipc::FrameInfo;
use shrbuf::layout::{Layout, Plane};
use shrbuf::{Format, Shrbuf};
use shrbuf_gst_memory::{Lender, Planes, WrapError};

fn buffer() -> Shrbuf {
    let plane = |segment| Plane { segment, offset: 0, stride: 64 };
    let layout = Layout::new(Format::Nv12, None, 64, 48, &[plane(0), plane(1)]).unwrap();
    Memfd::new("test").allocate(&layout).unwrap()
}

#[test]
fn a_buffer_of_which_a_part_cannot_be_wrapped_is_wrapped_whole_the_next_time() {
    gst::init().unwrap();
    let (first, late, about) = (buffer(), buffer(), FrameInfo::default());
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Nv12, 64, 48).build().unwrap();
    let planes = Planes::of(std::slice::from_ref(&first), info).unwrap();
    let mut lender = Lender::new(std::slice::from_ref(&first), planes).unwrap();
    let open = || read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Of its two segments' descriptors the first is to be had.
    let next = File::open("/dev/null").unwrap().as_raw_fd() as u64;
    setrlimit(Resource::RLIMIT_NOFILE, next + 1, hard).unwrap();
    let error = lender.pass(&late, &about).unwrap_err();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert!(matches!(error, WrapError::Export(_)), "{error}");
    assert_eq!((open(), late.references(), lender.lent()), (before, 1, 0));
    let memories = |frame: gst::Buffer| frame.iter_memories().map(|memory| memory.as_ptr()).collect::<Vec<_>>();
    let [one, other] = [(); 2].map(|()| memories(lender.pass(&late, &about).unwrap()));
    assert_eq!((one.len(), &one), (2, &other));
}
