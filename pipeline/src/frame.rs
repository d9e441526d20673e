//! A frame: a reference to a buffer, and what its producer knows about this one picture.

use std::fmt;

use shrbuf::Shrbuf;

/// Nanoseconds of CLOCK_MONOTONIC, which V4L2 capture and KMS flips both use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time now; no system call where the vDSO has the clock.
    pub fn now() -> Timestamp {
        match nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
            Ok(t) => Timestamp(t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64),
            // Linux always has CLOCK_MONOTONIC.
            Err(_) => Timestamp(0),
        }
    }

    /// Nanoseconds from `earlier` to this; 0 where `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Which primaries and matrix turn YUV into RGB (`V4L2_COLORSPACE_*`, `V4L2_YCBCR_ENC_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Matrix {
    /// ITU-R BT.601, standard definition and webcams.
    #[default]
    Bt601,
    /// ITU-R BT.709, high definition.
    Bt709,
    /// ITU-R BT.2020.
    Bt2020,
}

/// Which code values are black and white (`V4L2_QUANTIZATION_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Range {
    /// 16..235, 16..240.
    #[default]
    Limited,
    /// 0..255.
    Full,
}

/// How code values are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Colorimetry {
    /// Matrix; without meaning for RGB.
    pub matrix: Matrix,
    /// Range; RGB is full unless it says otherwise.
    pub range: Range,
}

/// A rectangle in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rect {
    /// From the left.
    pub x: u32,
    /// From the top.
    pub y: u32,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// One picture on its way. Cloning is a reference to the same memory.
#[derive(Clone)]
pub struct Frame {
    /// The memory.
    pub buffer: Shrbuf,
    /// When it was captured.
    pub timestamp: Timestamp,
    /// The producer's count, with gaps where it dropped frames.
    pub sequence: u64,
    /// How code values are to be understood.
    pub color: Colorimetry,
    /// The part that is picture; `None` for all of it.
    pub crop: Option<Rect>,
    /// The producer says that the picture is damaged.
    pub corrupt: bool,
    /// Bytes of the buffer's only segment that a compressed frame takes, from its start; 0 for a picture.
    pub payload: u32,
}

impl Frame {
    /// A whole frame of default colorimetry.
    pub fn new(buffer: Shrbuf, timestamp: Timestamp, sequence: u64) -> Frame {
        let color = Colorimetry::default();
        Frame { buffer, timestamp, sequence, color, crop: None, corrupt: false, payload: 0 }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame {} of {:?}", self.sequence, self.buffer)
    }
}
