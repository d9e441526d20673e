//! Opening and finding.

use crate::*;

#[test]
fn find_lists_formats_sizes_and_rates() {
    let Some(_vivid) = vivid() else { return };
    let start = Instant::now();
    let found = Device::find();
    eprintln!("Device::find(): {:?}", start.elapsed());
    let info = found.into_iter().flatten().find(|info| info.capability.driver == "vivid").unwrap();
    assert!(info.capability.bus_info.starts_with("platform:vivid"), "{}", info.capability.bus_info);
    assert_eq!(info.inputs[0].name, "Webcam 000-0");
    let xr24 = info.formats.iter().find(|f| f.description.pixelformat == pixelformat("XR24")).unwrap();
    assert!(xr24.sizes.contains(SIZE), "{:?}", xr24.sizes);
    let (_, intervals) = xr24.intervals.iter().find(|(size, _)| *size == SIZE).unwrap();
    let sixty = Fraction { numerator: 1, denominator: 60 };
    assert!(matches!(intervals, ioctl::FrameIntervals::Discrete(list) if list.contains(&sixty)), "{intervals:?}");
    assert!(info.formats.len() > 60, "{} formats", info.formats.len());
}

#[test]
fn sizes_of_an_hdmi_input_are_a_range() {
    let Some(vivid) = vivid() else { return };
    vivid.device.select_input("hdmi 000-0").unwrap();
    let sizes = ioctl::enum_framesizes(&vivid.device, pixelformat("XR24")).unwrap();
    assert!(matches!(sizes, FrameSizes::Stepwise { .. }), "{sizes:?}");
}

#[test]
fn first_is_the_first_that_captures() {
    let Some(vivid) = vivid() else { return };
    assert_eq!(Device::first().unwrap().path(), vivid.device.path());
}

/// Needs a node that does not capture as well: vivid's `node_types=0x101`, or vim2m.
#[test]
fn other_nodes_are_left_out_and_refused_with_the_product_name() {
    let Some(_vivid) = vivid() else { return };
    let found: Vec<_> = Device::find().into_iter().map(|info| info.unwrap().path).collect();
    let nodes = std::fs::read_dir("/sys/class/video4linux").unwrap().map(|entry| entry.unwrap().file_name());
    let others = nodes.map(|name| std::path::Path::new("/dev").join(name)).filter(|path| !found.contains(path));
    for path in others {
        let error = Device::open(&path).unwrap_err();
        assert!(matches!(&error, OpenError::OtherKind { card, .. } if !card.is_empty()), "{error}");
    }
}

#[test]
fn descriptor_closes_on_exec_and_does_not_block() {
    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    let Some(vivid) = vivid() else { return };
    let fd_flags = FdFlag::from_bits_retain(fcntl(&vivid.device, FcntlArg::F_GETFD).unwrap());
    let status = OFlag::from_bits_retain(fcntl(&vivid.device, FcntlArg::F_GETFL).unwrap());
    assert!(fd_flags.contains(FdFlag::FD_CLOEXEC) && status.contains(OFlag::O_NONBLOCK | OFlag::O_RDWR));
}
