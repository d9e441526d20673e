//! `VIDIOC_QUERY_EXT_CTRL` and `VIDIOC_QUERYMENU`: the controls of a device.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use v4l::control::Flags;

use super::{Failure, Zeroed, sys, text, uninterrupted};

mod raw {
    use v4l::v4l_sys::{v4l2_query_ext_ctrl, v4l2_querymenu};
    use v4l::v4l2::vidioc::{VIDIOC_QUERY_EXT_CTRL, VIDIOC_QUERYMENU};
    nix::ioctl_readwrite_bad!(vidioc_query_ext_ctrl, VIDIOC_QUERY_EXT_CTRL, v4l2_query_ext_ctrl);
    nix::ioctl_readwrite_bad!(vidioc_querymenu, VIDIOC_QUERYMENU, v4l2_querymenu);
}

/// A control: a setting that a device has while it streams or not (brightness, exposure, a fault to inject).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// `V4L2_CID_*`.
    pub id: u32,
    /// The name that a pipeline file uses, as v4l2-ctl has it: `auto_exposure` for `Auto Exposure`.
    pub name: String,
    /// The driver's name for it, for people.
    pub title: String,
    /// What values it takes.
    pub kind: ControlKind,
    /// Read-only, inactive, grabbed by a running stream, and so on.
    pub flags: Flags,
}

/// What values a control takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlKind {
    /// A whole number (`INTEGER`, `INTEGER64`).
    Integer {
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
        /// Increment above `min`; at least 1.
        step: u64,
        /// At power-on.
        default: i64,
        /// 64 bits wide.
        wide: bool,
    },
    /// On or off.
    Boolean {
        /// At power-on.
        default: bool,
    },
    /// One of a list (`MENU`, `INTEGER_MENU`).
    Menu {
        /// Those that the driver really has; indices need not follow one another.
        items: Vec<MenuItem>,
        /// Index at power-on.
        default: i64,
    },
    /// Any of these bits.
    Bitmask {
        /// All bits it has.
        max: u32,
        /// At power-on.
        default: u32,
    },
    /// Text of `min` to `max` bytes.
    Text {
        /// Fewest bytes.
        min: u32,
        /// Most bytes.
        max: u32,
    },
    /// Does something when set; has no value.
    Button,
    /// An array or struct (`V4L2_CTRL_COMPOUND_TYPES` and what is newer than this code), by its number.
    Compound(u32),
}

/// An entry of a menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MenuItem {
    /// The control's value that selects it.
    pub index: i64,
    /// What it stands for: the entry's name, or its number for an integer menu.
    pub label: String,
}

/// A control's name as v4l2-ctl makes it: letters and digits in lower case, `_` for each run of anything else.
///
/// ```
/// # use shrbuf_elements::v4l2::ioctl::normalise;
/// assert_eq!(normalise("White Balance, Auto & Preset"), "white_balance_auto_preset");
/// ```
pub fn normalise(title: &str) -> String {
    let words: Vec<_> = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("_").to_ascii_lowercase()
}

/// All controls, without the class headings and those that the driver has disabled; empty where it has none.
///
/// # Errors
/// Only [`Failure`].
pub fn query_ext_ctrls(fd: impl AsFd) -> Result<Vec<Control>, Failure> {
    let fd = fd.as_fd();
    let mut controls = Vec::new();
    let mut id = 0;
    loop {
        let mut query = sys::v4l2_query_ext_ctrl::zeroed();
        query.id = id | sys::V4L2_CTRL_FLAG_NEXT_CTRL | sys::V4L2_CTRL_FLAG_NEXT_COMPOUND;
        // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_query_ext_ctrl, which `query` is.
        match uninterrupted(|| unsafe { raw::vidioc_query_ext_ctrl(fd.as_raw_fd(), &mut query) }) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOTTY) => break,
            Err(errno) => return Err(Failure::new("VIDIOC_QUERY_EXT_CTRL", errno)),
        }
        // Ids only grow; a driver that says otherwise would keep us here for ever.
        if query.id <= id {
            break;
        }
        id = query.id;
        let heading = query.type_ == sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_CTRL_CLASS;
        if !heading && query.flags & sys::V4L2_CTRL_FLAG_DISABLED == 0 {
            controls.push(control(fd, &query)?);
        }
    }
    Ok(controls)
}

fn control(fd: BorrowedFd<'_>, query: &sys::v4l2_query_ext_ctrl) -> Result<Control, Failure> {
    let title = text(&query.name.map(|c| c as u8));
    let kind = match kind(query) {
        ControlKind::Menu { default, .. } => ControlKind::Menu { items: menu(fd, query)?, default },
        kind => kind,
    };
    let flags = Flags::from_bits_truncate(query.flags);
    Ok(Control { id: query.id, name: normalise(&title), title, kind, flags })
}

fn kind(query: &sys::v4l2_query_ext_ctrl) -> ControlKind {
    let array = query.nr_of_dims > 0;
    match query.type_ {
        other if array => ControlKind::Compound(other),
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER | sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER64 => {
            ControlKind::Integer {
                min: query.minimum,
                max: query.maximum,
                step: query.step.max(1),
                default: query.default_value,
                wide: query.type_ == sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER64,
            }
        }
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BOOLEAN => ControlKind::Boolean { default: query.default_value != 0 },
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU | sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU => {
            ControlKind::Menu { items: Vec::new(), default: query.default_value }
        }
        // The kernel keeps a bitmask's 32 bits in these 64-bit fields.
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BITMASK => {
            ControlKind::Bitmask { max: query.maximum as u32, default: query.default_value as u32 }
        }
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_STRING => {
            let bytes = |n: i64| u32::try_from(n).unwrap_or(0);
            ControlKind::Text { min: bytes(query.minimum), max: bytes(query.maximum) }
        }
        sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_BUTTON => ControlKind::Button,
        other => ControlKind::Compound(other),
    }
}

fn menu(fd: BorrowedFd<'_>, query: &sys::v4l2_query_ext_ctrl) -> Result<Vec<MenuItem>, Failure> {
    // No menu of the kernel's has as many; the bound is against a driver that reports a nonsensical maximum.
    const LONGEST: i64 = 1024;
    let mut items = Vec::new();
    for index in query.minimum.max(0)..=query.maximum.min(LONGEST) {
        let mut item = sys::v4l2_querymenu::zeroed();
        item.id = query.id;
        item.index = index as u32;
        // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_querymenu, which `item` is.
        match uninterrupted(|| unsafe { raw::vidioc_querymenu(fd.as_raw_fd(), &mut item) }) {
            Ok(()) => items.push(MenuItem { index, label: label(query, &item) }),
            // Allowed by the API: an entry between minimum and maximum that this device lacks.
            Err(Errno::EINVAL) => {}
            Err(errno) => return Err(Failure::new("VIDIOC_QUERYMENU", errno)),
        }
    }
    Ok(items)
}

fn label(query: &sys::v4l2_query_ext_ctrl, item: &sys::v4l2_querymenu) -> String {
    // The struct is packed, so the union is copied out before it is looked at.
    let entry = item.__bindgen_anon_1;
    if query.type_ == sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU {
        // SAFETY: both members of the union are plain bytes, and `value` is the one this type fills.
        unsafe { entry.value }.to_string()
    } else {
        // SAFETY: both members of the union are plain bytes, and `name` is the one this type fills.
        text(&unsafe { entry.name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(type_: u32) -> sys::v4l2_query_ext_ctrl {
        let mut query = sys::v4l2_query_ext_ctrl::zeroed();
        query.type_ = type_;
        query
    }

    #[test]
    fn names_are_as_v4l2_ctl_makes_them() {
        assert_eq!(normalise("Inject VIDIOC_STREAMON Error"), "inject_vidioc_streamon_error");
        assert_eq!(normalise("  Gain, Automatic (dB)  "), "gain_automatic_db");
        assert_eq!(normalise("50/60 Hz"), "50_60_hz");
    }

    #[test]
    fn control_type_newer_than_this_code_is_compound() {
        assert_eq!(kind(&query(0x7fff)), ControlKind::Compound(0x7fff));
    }

    #[test]
    fn integer_array_is_compound() {
        let mut array = query(sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER);
        array.nr_of_dims = 1;
        assert_eq!(kind(&array), ControlKind::Compound(sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER));
    }

    #[test]
    fn integer_with_step_zero_steps_by_one() {
        let ControlKind::Integer { step, .. } = kind(&query(sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER)) else {
            unreachable!("an integer control")
        };
        assert_eq!(step, 1);
    }
}
