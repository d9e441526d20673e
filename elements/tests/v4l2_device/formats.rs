//! Format, rate, input.

use crate::*;

#[test]
fn driver_answers_an_odd_size_with_the_nearest() {
    let Some(vivid) = vivid() else { return };
    let request = FormatRequest { width: 643, height: 363, ..request("XR24") };
    let format = vivid.device.try_format(&request).unwrap();
    assert_eq!((format.width, format.height), (SIZE.width, SIZE.height));
}

#[test]
fn stride_asked_for_is_the_stride_of_every_plane() {
    let Some(vivid) = vivid() else { return };
    let request = FormatRequest { bytesperline: Some(4096), ..request("XR24") };
    let format = vivid.device.set_format(&request).unwrap();
    assert_eq!(format.planes[0].bytesperline, 4096);
    assert_eq!(format.planes[0].sizeimage, 4096 * SIZE.height);
    assert_eq!(vivid.device.format().unwrap(), format);
}

#[test]
fn format_has_as_many_planes_as_the_fourcc_says() {
    let Some(vivid) = vivid() else { return };
    for (name, planes) in [("XR24", 1), ("NV12", 1), ("NM12", 2), ("NM16", 2), ("YM12", 3)] {
        for name in offered(&vivid.device, &[name]) {
            assert_eq!(set_format(&vivid.device, name).planes.len(), planes, "{name}");
        }
    }
}

#[test]
fn format_tells_its_colorimetry() {
    let Some(vivid) = vivid() else { return };
    const SRGB: u32 = 8;
    assert_eq!(set_format(&vivid.device, "XR24").colorimetry.colorspace, SRGB);
}

#[test]
fn frame_interval_is_the_one_in_use_afterwards() {
    let Some(vivid) = vivid() else { return };
    let wanted = Fraction { numerator: 1, denominator: 30 };
    assert_eq!(vivid.device.set_frame_interval(wanted), Ok(Some(wanted)));
    assert_eq!(vivid.device.frame_interval(), Ok(Some(wanted)));
}

#[test]
fn input_is_selected_by_name_or_index() {
    let Some(vivid) = vivid() else { return };
    assert_eq!(vivid.device.select_input("hdmi 000-0").unwrap().index, 3);
    assert_eq!(vivid.device.select_input("1").unwrap().name, "TV 000-0");
    assert_eq!(ioctl::g_input(&vivid.device), Ok(Some(1)));
}

#[test]
fn unknown_input_lists_the_known_ones() {
    let Some(vivid) = vivid() else { return };
    let error = vivid.device.select_input("Scart").unwrap_err();
    assert!(matches!(&error, InputError::Unknown { known, .. } if known.len() == 4), "{error}");
}

#[test]
fn format_cannot_change_while_a_queue_is_allocated() {
    let Some(vivid) = vivid() else { return };
    let _queue = CaptureQueue::mmap(&vivid.device, 3, Access::Read).unwrap();
    let request = FormatRequest { width: 320, height: 180, ..request("YUYV") };
    let error = vivid.device.set_format(&request).unwrap_err();
    assert!(matches!(error, ioctl::FmtError::Failure(Failure::Busy { .. })), "{error}");
}
