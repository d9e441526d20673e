//! `VIDIOC_G_EXT_CTRLS` and `VIDIOC_S_EXT_CTRLS`, for one control at a time.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use v4l::control::Flags;

use super::{Control, ControlKind, Failure, Zeroed, sys, text, uninterrupted};

mod raw {
    // The `v4l` crate's numbers for these two are made with the size of a struct that it keeps to itself; the number is
    // the same, the type is the header's.
    use v4l::v4l_sys::v4l2_ext_controls;
    use v4l::v4l2::vidioc::{VIDIOC_G_EXT_CTRLS, VIDIOC_S_EXT_CTRLS};
    nix::ioctl_readwrite_bad!(vidioc_g_ext_ctrls, VIDIOC_G_EXT_CTRLS, v4l2_ext_controls);
    nix::ioctl_readwrite_bad!(vidioc_s_ext_ctrls, VIDIOC_S_EXT_CTRLS, v4l2_ext_controls);
}

/// A control's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlValue {
    /// For integers, menus (the index) and bitmasks.
    Integer(i64),
    /// For booleans.
    Boolean(bool),
    /// For text.
    Text(String),
    /// For buttons: press it.
    Button,
}

/// Why a control was not read or set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExtCtrlError {
    /// The control is an array or a struct.
    #[error("control `{name}` is an array or a struct, which has no single value; v4l2-ctl can read and set it")]
    Compound {
        /// The control.
        name: String,
    },
    /// The value is of another kind than the control.
    #[error("control `{name}` cannot be used with the value {value:?}; it is {kind}")]
    WrongKind {
        /// The control.
        name: String,
        /// What was given.
        value: ControlValue,
        /// What it takes.
        kind: &'static str,
    },
    /// EINVAL, ERANGE: the device refuses the value.
    #[error("control `{name}`: the device refuses {value:?} ({errno})")]
    Refused {
        /// The control.
        name: String,
        /// What was given.
        value: ControlValue,
        /// What the kernel said.
        errno: Errno,
    },
    /// EACCES: read-only or write-only.
    #[error("control `{name}` is {}", if *.writing { "read-only" } else { "write-only" })]
    Direction {
        /// The control.
        name: String,
        /// Whether it was to be written.
        writing: bool,
    },
    /// EBUSY: grabbed, usually by a running stream.
    #[error("control `{name}` cannot change now (EBUSY): it is grabbed while streaming; set it before the start")]
    Grabbed {
        /// The control.
        name: String,
    },
    /// As for every ioctl.
    #[error("control `{name}`: {failure}")]
    Failure {
        /// The control.
        name: String,
        /// Why.
        failure: Failure,
    },
}

/// The control's present value.
///
/// # Errors
/// [`ExtCtrlError::WrongKind`] for arrays and structs, [`ExtCtrlError::Direction`] for buttons and other
/// write-only controls.
pub fn g_ext_ctrl(fd: impl AsFd, control: &Control) -> Result<ControlValue, ExtCtrlError> {
    if control.flags.contains(Flags::WRITE_ONLY) {
        return Err(ExtCtrlError::Direction { name: control.name.clone(), writing: false });
    }
    if let ControlKind::Compound(_) = control.kind {
        return Err(ExtCtrlError::Compound { name: control.name.clone() });
    }
    let mut storage = vec![0u8; text_size(control)];
    let mut entry = sys::v4l2_ext_control::zeroed();
    entry.id = control.id;
    if let ControlKind::Text { .. } = control.kind {
        entry.size = storage.len() as u32;
        entry.__bindgen_anon_1.string = storage.as_mut_ptr().cast();
    }
    let mut controls = one(&mut entry);
    let fd = fd.as_fd();
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_ext_controls and the one entry it
    // points at, and at most `size` bytes at a text's pointer, which `storage` has.
    uninterrupted(|| unsafe { raw::vidioc_g_ext_ctrls(fd.as_raw_fd(), &mut controls) })
        .map_err(|errno| error(control, None, errno))?;
    let value = entry.__bindgen_anon_1;
    Ok(match control.kind {
        ControlKind::Text { .. } => ControlValue::Text(text(&storage)),
        // SAFETY: all members of the union are plain integers or pointers, and this is the one the kind fills.
        ControlKind::Boolean { .. } => ControlValue::Boolean(unsafe { value.value } != 0),
        // SAFETY: as above.
        ControlKind::Integer { wide: true, .. } => ControlValue::Integer(unsafe { value.value64 }),
        // SAFETY: as above; a bitmask's 32 bits are not a signed number.
        ControlKind::Bitmask { .. } => ControlValue::Integer(i64::from(unsafe { value.value } as u32)),
        // SAFETY: as above.
        _ => ControlValue::Integer(i64::from(unsafe { value.value })),
    })
}

/// Sets the control. Some drivers apply it from the next frame on, some a few frames later.
///
/// # Errors
/// See [`ExtCtrlError`].
pub fn s_ext_ctrl(fd: impl AsFd, control: &Control, value: &ControlValue) -> Result<(), ExtCtrlError> {
    let mut entry = sys::v4l2_ext_control::zeroed();
    entry.id = control.id;
    let mut storage = Vec::new();
    match (&control.kind, value) {
        (ControlKind::Integer { wide: true, .. }, &ControlValue::Integer(n)) => entry.__bindgen_anon_1.value64 = n,
        (ControlKind::Bitmask { .. }, &ControlValue::Integer(n)) => {
            let bits = u32::try_from(n).map_err(|_| refused(control, value, Errno::ERANGE))?;
            entry.__bindgen_anon_1.value = bits as i32;
        }
        (ControlKind::Integer { .. } | ControlKind::Menu { .. }, &ControlValue::Integer(n)) => {
            let n = i32::try_from(n).map_err(|_| refused(control, value, Errno::ERANGE))?;
            entry.__bindgen_anon_1.value = n;
        }
        (ControlKind::Boolean { .. }, &ControlValue::Boolean(on)) => entry.__bindgen_anon_1.value = i32::from(on),
        (ControlKind::Button, ControlValue::Button) => {}
        (ControlKind::Text { .. }, ControlValue::Text(t)) => {
            // The kernel wants the terminating NUL, and reads up to the control's own maximum when told a larger size.
            storage.extend_from_slice(t.as_bytes());
            storage.resize(storage.len().max(text_size(control)) + 1, 0);
            entry.size = text_size(control).max(t.len() + 1) as u32;
            entry.__bindgen_anon_1.string = storage.as_mut_ptr().cast();
        }
        _ => return Err(wrong_kind(control, value)),
    }
    let mut controls = one(&mut entry);
    let fd = fd.as_fd();
    // SAFETY: `fd` is open during the call; the kernel reads and writes one v4l2_ext_controls and the one entry it
    // points at, and reads at most `size` bytes at a text's pointer, which `storage` has.
    uninterrupted(|| unsafe { raw::vidioc_s_ext_ctrls(fd.as_raw_fd(), &mut controls) })
        .map_err(|errno| error(control, Some(value), errno))
}

/// `which` stays 0 (`V4L2_CTRL_WHICH_CUR_VAL`): the present value, of whatever class.
fn one(entry: &mut sys::v4l2_ext_control) -> sys::v4l2_ext_controls {
    let mut controls = sys::v4l2_ext_controls::zeroed();
    controls.count = 1;
    controls.controls = entry;
    controls
}

fn text_size(control: &Control) -> usize {
    match control.kind {
        ControlKind::Text { max, .. } => max as usize + 1,
        _ => 0,
    }
}

fn refused(control: &Control, value: &ControlValue, errno: Errno) -> ExtCtrlError {
    ExtCtrlError::Refused { name: control.name.clone(), value: value.clone(), errno }
}

fn wrong_kind(control: &Control, value: &ControlValue) -> ExtCtrlError {
    let name = control.name.clone();
    let kind = match control.kind {
        ControlKind::Integer { .. } => "a whole number",
        ControlKind::Boolean { .. } => "true or false",
        ControlKind::Menu { .. } => "a menu",
        ControlKind::Bitmask { .. } => "a set of bits",
        ControlKind::Text { .. } => "text",
        ControlKind::Button => "a button",
        ControlKind::Compound(_) => return ExtCtrlError::Compound { name },
    };
    ExtCtrlError::WrongKind { name, value: value.clone(), kind }
}

fn error(control: &Control, written: Option<&ControlValue>, errno: Errno) -> ExtCtrlError {
    let name = control.name.clone();
    let ioctl = if written.is_some() { "VIDIOC_S_EXT_CTRLS" } else { "VIDIOC_G_EXT_CTRLS" };
    match (errno, written) {
        (Errno::EINVAL | Errno::ERANGE, Some(value)) => refused(control, value, errno),
        (Errno::EACCES, _) => ExtCtrlError::Direction { name, writing: written.is_some() },
        (Errno::EBUSY, _) => ExtCtrlError::Grabbed { name },
        (errno, _) => ExtCtrlError::Failure { name, failure: Failure::new(ioctl, errno) },
    }
}
