//! Controls.

use crate::*;

#[test]
fn every_kind_of_control_takes_a_value_and_gives_it_back() {
    let Some(vivid) = vivid() else { return };
    for (name, text, value) in [
        ("brightness", "17", ControlValue::Integer(17)),
        ("horizontal_flip", "true", ControlValue::Boolean(true)),
        ("integer_64_bits", "-9223372036854775808", ControlValue::Integer(i64::MIN)),
        ("menu", "Menu Item 4", ControlValue::Integer(4)),
        ("integer_menu", "42", ControlValue::Integer(8)),
        ("bitmask", "0x80402010", ControlValue::Integer(0x8040_2010)),
        ("string", "abcd", ControlValue::Text("abcd".to_owned())),
    ] {
        let control = vivid.device.control(name).unwrap();
        let before = vivid.device.control_value(&control).unwrap();
        assert_eq!(control.parse(text), Ok(value.clone()), "{name}");
        vivid.device.set_control(&control, &value).unwrap();
        assert_eq!(vivid.device.control_value(&control).unwrap(), value, "{name}");
        vivid.device.set_control(&control, &before).unwrap();
    }
}

#[test]
fn controls_have_the_names_of_v4l2_ctl() {
    let Some(vivid) = vivid() else { return };
    let names: Vec<_> = vivid.device.controls().unwrap().into_iter().map(|c| c.name).collect();
    for name in ["inject_vidioc_streamon_error", "limited_rgb_range_16_235", "y_cbcr_encoding", "u8_2x3x4x5_array"] {
        assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
    }
}

#[test]
fn unknown_control_lists_the_known_ones() {
    let Some(vivid) = vivid() else { return };
    let error = vivid.device.control("brigthness").unwrap_err();
    assert!(
        matches!(&error, ControlError::Unknown { known, .. } if known.contains(&"brightness".to_owned())),
        "{error}"
    );
}

#[test]
fn read_only_control_cannot_be_set() {
    let Some(vivid) = vivid() else { return };
    let control = vivid.device.control("read_only_integer_32_bits").unwrap();
    let error = vivid.device.set_control(&control, &ControlValue::Integer(1)).unwrap_err();
    assert!(matches!(error, ControlError::Ioctl(ExtCtrlError::Direction { writing: true, .. })), "{error}");
}

#[test]
fn array_control_is_refused_with_its_name() {
    let Some(vivid) = vivid() else { return };
    let control = vivid.device.control("u16_8x16_matrix").unwrap();
    let error = vivid.device.control_value(&control).unwrap_err();
    assert!(matches!(error, ControlError::Ioctl(ExtCtrlError::Compound { .. })), "{error}");
}
