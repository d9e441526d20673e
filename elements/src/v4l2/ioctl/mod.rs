//! The V4L2 ioctls that the elements need, one small file each.
//!
//! In each file the raw call is private; the public function takes a borrowed file descriptor and only what it
//! needs, and returns a checked type of plain Rust. What is no failure is a variant of the result ("no buffer yet",
//! "no more events", "this format has no frame sizes to enumerate"), and each error says what to do.
//!
//! Numbers and structs are those of the `v4l` crate. Its safe calls are not used here, for reasons met on real
//! devices: they know no multi-planar API, open without `O_CLOEXEC`, and panic on a device's word (a control type newer
//! than the crate, a card name cut in the middle of a UTF-8 sequence, a color space it does not list).
//!
//! `unsafe` is confined to this folder. Every call is interrupted and repeated transparently (EINTR); none blocks for
//! longer than the driver holds its lock when the device was opened with `O_NONBLOCK`.
//!
//! Source: [Linux Media Infrastructure userspace API, part
//! I](https://docs.kernel.org/userspace-api/media/v4l/v4l2.html).

mod buffer;
mod codec_cmd;
mod create_bufs;
mod dqbuf;
mod dv_timings;
mod enum_fmt;
mod enum_frameintervals;
mod enum_framesizes;
mod enum_input;
mod enum_output;
mod expbuf;
mod g_ext_ctrls;
mod g_fmt;
mod g_parm;
mod g_selection;
mod prepare_buf;
mod qbuf;
mod query_ext_ctrl;
mod querybuf;
mod querycap;
mod reqbufs;
mod streamon;
mod subscribe_event;

pub use buffer::{BufType, Memory, VIDEO_MAX_PLANES};
pub use codec_cmd::{Codec, CodecCmdError, codec_stop};
pub use create_bufs::{CreateBufsError, create_buf};
pub use dqbuf::{Buffer, Clock, Dequeued, DqbufError, PlanePayload, Timestamp, TimestampSource, dqbuf};
pub use dv_timings::{DvTimings, DvTimingsError, query_dv_timings, s_dv_timings};
pub use enum_fmt::{FormatDescription, enum_fmt};
pub use enum_frameintervals::{Fraction, FrameIntervals, enum_frameintervals};
pub use enum_framesizes::{FrameSizes, Size, enum_framesizes};
pub use enum_input::{Input, InputStatus, SInputError, enum_input, g_input, s_input};
pub use enum_output::{Output, SOutputError, enum_output, s_output};
pub use expbuf::{ExpbufError, expbuf};
pub use g_ext_ctrls::{ControlValue, ExtCtrlError, g_ext_ctrl, s_ext_ctrl};
pub use g_fmt::{Colorimetry, Field, FmtError, Format, FormatRequest, PixelFormat, PlaneFormat, g_fmt, s_fmt, try_fmt};
pub use g_parm::{g_parm, s_parm};
pub use g_selection::{Selection, SelectionError, SelectionTarget, g_selection, s_selection};
pub use prepare_buf::{prepare_buf, prepare_output};
pub use qbuf::{DmabufPlane, OutputPlane, QbufError, QbufPlanes, qbuf, qbuf_output};
pub use query_ext_ctrl::{Control, ControlKind, MenuItem, normalise, query_ext_ctrls};
pub use querybuf::{BufferPlane, QuerybufError, querybuf};
pub use querycap::{Capability, QuerycapError, querycap};
pub use reqbufs::{BufferCapabilities, Granted, ReqbufsError, reqbufs};
pub use streamon::{StreamonError, streamoff, streamon};
pub use subscribe_event::{Event, dqevent, subscribe_source_change};

use nix::errno::Errno;
use v4l::v4l_sys as sys;

/// Why an ioctl failed, where the reason means the same for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// ENODEV: the device was unplugged, or its driver unbound, while it was open.
    #[error("{ioctl}: the device is gone (ENODEV); close it, and open it again when it is back")]
    Unplugged {
        /// The kernel's name of the call.
        ioctl: &'static str,
    },
    /// ENOTTY: the driver does not implement this call.
    #[error("{ioctl}: this driver does not implement it (ENOTTY)")]
    NotImplemented {
        /// The kernel's name of the call.
        ioctl: &'static str,
    },
    /// EBUSY: another file handle streams or owns the buffers, or the setting cannot change while buffers are
    /// allocated.
    #[error(
        "{ioctl}: busy (EBUSY); buffers are allocated or another program is using the device (`fuser -v /dev/video*` \
         names it)"
    )]
    Busy {
        /// The kernel's name of the call.
        ioctl: &'static str,
    },
    /// EIO: the hardware or its bus failed.
    #[error("{ioctl}: input/output error (EIO); `dmesg` has the driver's reason")]
    Io {
        /// The kernel's name of the call.
        ioctl: &'static str,
    },
    /// ENOMEM: no memory for the driver, often contiguous memory (CMA).
    #[error(
        "{ioctl}: no memory for the driver (ENOMEM); ask for fewer or smaller buffers, or boot with a larger `cma=`"
    )]
    NoMemory {
        /// The kernel's name of the call.
        ioctl: &'static str,
    },
    /// Anything else, by its number.
    #[error("{ioctl}: {errno}")]
    Other {
        /// The kernel's name of the call.
        ioctl: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

impl Failure {
    fn new(ioctl: &'static str, errno: Errno) -> Failure {
        match errno {
            Errno::ENODEV => Failure::Unplugged { ioctl },
            Errno::ENOTTY => Failure::NotImplemented { ioctl },
            Errno::EBUSY => Failure::Busy { ioctl },
            Errno::EIO => Failure::Io { ioctl },
            Errno::ENOMEM => Failure::NoMemory { ioctl },
            errno => Failure::Other { ioctl, errno },
        }
    }

    /// True where the device has gone away for good: nothing but closing it and opening it anew will help.
    pub fn is_unplugged(&self) -> bool {
        matches!(self, Failure::Unplugged { .. })
    }
}

/// Repeats a call that a signal interrupted; a V4L2 ioctl that returns EINTR has done nothing yet.
fn uninterrupted(mut call: impl FnMut() -> nix::Result<i32>) -> Result<(), Errno> {
    loop {
        match call() {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Enumerations end with EINVAL; a driver that never says so is cut off here instead of filling the memory.
const ENUM_LIMIT: u32 = 1024;

/// A kernel struct that may start as all zeros.
///
/// # Safety
/// Only for types of which every field is an integer, a raw pointer, or an array, struct or union of such.
unsafe trait Zeroed: Sized {
    fn zeroed() -> Self {
        // SAFETY: the trait's contract: zero is a valid value of every field.
        unsafe { std::mem::zeroed() }
    }
}

macro_rules! zeroed {
    ($($name:ident)*) => {$(
        // SAFETY: generated by bindgen from linux/videodev2.h: integers, raw pointers and unions of them.
        unsafe impl Zeroed for sys::$name {}
    )*};
}

zeroed! {
    v4l2_buffer v4l2_plane v4l2_capability v4l2_decoder_cmd v4l2_dv_timings v4l2_encoder_cmd v4l2_event v4l2_event_subscription v4l2_exportbuffer v4l2_ext_control
    v4l2_ext_controls v4l2_fmtdesc v4l2_format v4l2_frmivalenum v4l2_frmsizeenum v4l2_input v4l2_output v4l2_pix_format
    v4l2_create_buffers v4l2_pix_format_mplane v4l2_query_ext_ctrl v4l2_querymenu v4l2_requestbuffers v4l2_selection v4l2_streamparm
}

/// Text from a fixed-size field: up to the first NUL. The kernel cuts names by bytes, so half a character may be
/// left at the end; it becomes U+FFFD.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_nul_is_taken_whole() {
        assert_eq!(text(b"vivid"), "vivid");
    }

    #[test]
    fn text_cut_inside_a_character_does_not_panic() {
        assert_eq!(text(&"Kamera \u{fc}".as_bytes()[..8]), "Kamera \u{fffd}");
    }

    #[test]
    fn uninterrupted_repeats_after_eintr_only() {
        let mut left = 3;
        let result = uninterrupted(|| {
            left -= 1;
            if left > 0 { Err(Errno::EINTR) } else { Err(Errno::EIO) }
        });
        assert_eq!((result, left), (Err(Errno::EIO), 0));
    }

    #[test]
    fn enodev_is_unplugged() {
        assert!(Failure::new("VIDIOC_QBUF", Errno::ENODEV).is_unplugged());
    }
}
