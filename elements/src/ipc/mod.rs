//! `ipc-sink`, `ipc-src`: frames to other processes and from them, by [`shrbuf::ipc`].

mod sink;
mod src;

pub use sink::IpcSink;
pub use src::IpcSrc;

use shrbuf::ipc::{FrameInfo, IpcError, Policy, Reason};
use shrbuf_pipeline::{Colorimetry, Failure, FailureKind, Matrix, Range, Rect, Timestamp};

shrbuf_pipeline::choices! {
    /// What happens to a frame for a consumer that holds as many as it may.
    pub enum Lag {
        /// It waits, and nothing is lost; a source without a free buffer waits too, and a camera drops, counted.
        Block = "block",
        /// It waits with those before it; of more than `depth` the oldest goes, counted.
        DropOldest = "drop-oldest",
        /// It waits in place of the one before, which goes, counted.
        Latest = "latest",
    }
}

impl From<Lag> for Policy {
    fn from(lag: Lag) -> Policy {
        match lag {
            Lag::Block => Policy::Block,
            Lag::DropOldest => Policy::DropOldest,
            Lag::Latest => Policy::Latest,
        }
    }
}

fn failed(error: IpcError) -> Failure {
    let kind = match &error {
        IpcError::Refused { reason: Reason::Changed, .. } => FailureKind::Changed,
        IpcError::InUse { .. } | IpcError::Refused { reason: Reason::Full, .. } => FailureKind::InUse,
        // A producer that has ended, or has yet to begin, is waited for as a device is.
        IpcError::Gone
        | IpcError::Unanswered { .. }
        | IpcError::NoProducer { .. }
        | IpcError::Refused { reason: Reason::Ended, .. } => FailureKind::Unplugged,
        IpcError::Late { .. } => FailureKind::Stalled,
        IpcError::Wire { .. } | IpcError::Protocol { .. } | IpcError::Import { .. } => FailureKind::Data,
        IpcError::Os { .. }
        | IpcError::Pool(_)
        | IpcError::Refused { reason: Reason::Resources | Reason::Rate, .. } => FailureKind::Limit,
        _ => FailureKind::Config,
    };
    Failure::new(kind, error)
}

/// MatrixCoefficients of ITU-T H.273.
pub(crate) const MATRICES: [(u8, Matrix); 3] = [(6, Matrix::Bt601), (1, Matrix::Bt709), (9, Matrix::Bt2020)];

/// What is said of a frame.
pub(crate) fn info(frame: &shrbuf_pipeline::Frame) -> FrameInfo {
    FrameInfo {
        timestamp: frame.timestamp.0,
        sequence: frame.sequence,
        matrix: MATRICES.iter().find(|(_, m)| *m == frame.color.matrix).map_or(2, |(code, _)| *code),
        full_range: frame.color.range == Range::Full,
        crop: frame.crop.map(|r| [r.x, r.y, r.width, r.height]),
        corrupt: frame.corrupt,
    }
}

/// A frame as it came. A matrix that nobody here knows becomes the usual one.
fn frame(received: shrbuf::ipc::Received) -> shrbuf_pipeline::Frame {
    let shrbuf::ipc::Received { buffer, info } = received;
    let matrix = MATRICES.iter().find(|(code, _)| *code == info.matrix).map(|(_, m)| *m).unwrap_or_default();
    let range = if info.full_range { Range::Full } else { Range::Limited };
    let layout = *buffer.layout();
    let crop = info.crop.map(|[x, y, width, height]| Rect { x, y, width, height });
    // What lies outside the picture is nothing that elements should have to reckon with.
    let inside = |r: &Rect| {
        let fits =
            |at: u32, length: u32, size: u32| length > 0 && at.checked_add(length).is_some_and(|end| end <= size);
        fits(r.x, r.width, layout.width) && fits(r.y, r.height, layout.height)
    };
    shrbuf_pipeline::Frame {
        buffer,
        timestamp: Timestamp(info.timestamp),
        sequence: info.sequence,
        color: Colorimetry { matrix, range },
        crop: crop.filter(inside),
        corrupt: info.corrupt,
        payload: 0,
    }
}

#[cfg(test)]
mod tests {
    use shrbuf::exporter::Memfd;
    use shrbuf::{Format, Layout};

    use super::*;

    fn around(crop: Option<Rect>) -> (shrbuf_pipeline::Frame, shrbuf_pipeline::Frame) {
        let layout = Layout::linear(Format::Nv12, 64, 48, 1).unwrap();
        let buffer = Memfd::new("test").allocate(&layout).unwrap();
        let mut sent = shrbuf_pipeline::Frame::new(buffer.clone(), Timestamp(5), 1 << 40);
        sent.color = Colorimetry { matrix: Matrix::Bt2020, range: Range::Full };
        (sent.crop, sent.corrupt) = (crop, true);
        let came = frame(shrbuf::ipc::Received { buffer, info: info(&sent) });
        (sent, came)
    }

    #[test]
    fn what_is_known_of_a_frame_survives() {
        let (sent, came) = around(Some(Rect { x: 2, y: 4, width: 62, height: 44 }));
        assert_eq!((came.timestamp, came.sequence, came.color), (sent.timestamp, sent.sequence, sent.color));
        assert_eq!((came.crop, came.corrupt), (sent.crop, true));
    }

    #[test]
    fn crop_outside_the_picture_is_left_out() {
        for (x, width) in [(3, 62), (u32::MAX, 2), (0, 0), (0, 65)] {
            let (_, came) = around(Some(Rect { x, y: 0, width, height: 48 }));
            assert_eq!(came.crop, None, "{x} {width}");
        }
    }
}
