//! A frame of GStreamer's copied into a buffer of ours.

use gst::glib;
use gst_video::prelude::*;
use gst_video::{VideoFrameRef, VideoInfo};
use shrbuf::{AccessError, Account, Shrbuf, State};

/// Why a frame cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// In GStreamer's words.
    #[error("the frame cannot be mapped: {0}")]
    Map(#[from] glib::BoolError),
    /// The buffer cannot be written.
    #[error("{0}")]
    Access(#[from] AccessError),
    /// A stride is negative.
    #[error("the frame's rows go from the bottom up, which shrbuf has no name for")]
    BottomUp,
    /// A plane ends before its last row does.
    #[error("the frame is shorter than its format says")]
    Short,
}

/// Copies the pixels of a frame, which are as `info` and its `GstVideoMeta` say, each byte counted. The buffer is
/// filled then.
///
/// # Errors
/// [`CopyError`]; the buffer may have been written in part.
pub fn copy(frame: &gst::BufferRef, info: &VideoInfo, into: &mut Shrbuf, account: &Account) -> Result<(), CopyError> {
    let frame = VideoFrameRef::from_buffer_ref_readable(frame, info)?;
    let mut write = into.write()?;
    for (index, &stride) in frame.plane_stride().iter().enumerate() {
        let from = frame.plane_data(index as u32)?;
        let mut to = write.plane(index);
        let (row, rows) = (to.row_bytes(), to.rows());
        let stride = usize::try_from(stride).map_err(|_| CopyError::BottomUp)?;
        for y in 0..rows {
            let bytes = from.get(y * stride..).and_then(|rest| rest.get(..row));
            to.write(y, 0, bytes.ok_or(CopyError::Short)?, account);
        }
    }
    drop(write);
    into.set_state(State::Filled);
    Ok(())
}
