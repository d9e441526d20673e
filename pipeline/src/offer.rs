//! What a port can do, and what a stream was agreed to be.
//!
//! A port offers *all* it can do and, apart from that, what its user asked for ([`Wanted`]): only so can the solver say
//! "asked for 1000x700, offers 960x540 and 1280x720" instead of "no more input formats".

use std::fmt;

use shrbuf::{Format, MemoryKind, Modifier};

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl Size {
    /// `width` x `height`.
    pub const fn new(width: u32, height: u32) -> Size {
        Size { width, height }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}x{}", self.width, self.height))
    }
}

/// Frames a second, as a fraction in lowest terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Numerator.
    pub num: u32,
    /// Denominator, not 0.
    pub den: u32,
}

impl Rate {
    /// `num / den` in lowest terms; a denominator of 0 becomes 1.
    pub const fn new(num: u32, den: u32) -> Rate {
        let (mut a, mut b) = (num, if den == 0 { 1 } else { den });
        let den = b;
        while b != 0 {
            (a, b) = (b, a % b);
        }
        // A denominator of 1 or more keeps the divisor from being 0.
        Rate { num: num / a, den: den / a }
    }

    /// Frames a second.
    pub fn hz(self) -> f64 {
        f64::from(self.num) / f64::from(self.den)
    }

    /// Nanoseconds of one frame; 0 for a rate of 0.
    pub fn period_ns(self) -> u64 {
        (1_000_000_000 * u64::from(self.den)).checked_div(u64::from(self.num)).unwrap_or(0)
    }
}

impl PartialOrd for Rate {
    fn partial_cmp(&self, other: &Rate) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rate {
    fn cmp(&self, other: &Rate) -> std::cmp::Ordering {
        (u64::from(self.num) * u64::from(other.den)).cmp(&(u64::from(other.num) * u64::from(self.den)))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.den == 1 { write!(f, "{}", self.num) } else { write!(f, "{}/{}", self.num, self.den) }
    }
}

/// Rates on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rates {
    /// Whatever comes.
    Any,
    /// These.
    List(Vec<Rate>),
    /// All from the first to the second.
    Range(Rate, Rate),
}

impl Rates {
    /// True where `rate` is among them.
    pub fn contains(&self, rate: Rate) -> bool {
        match self {
            Rates::Any => true,
            Rates::List(list) => list.contains(&rate),
            Rates::Range(min, max) => *min <= rate && rate <= *max,
        }
    }
}

/// Sizes on offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// One.
    Exact(Size),
    /// From `min` to `max` in steps.
    Range {
        /// Smallest.
        min: Size,
        /// Largest.
        max: Size,
        /// Steps of width and height from `min`, not 0.
        step: Size,
    },
}

impl Sizes {
    /// Any size that V4L2 and DRM can express.
    pub const ANY: Sizes = Sizes::Range { min: Size::new(1, 1), max: Size::new(65535, 65535), step: Size::new(1, 1) };

    /// True where `size` is among them.
    pub fn contains(&self, size: Size) -> bool {
        match *self {
            Sizes::Exact(s) => s == size,
            Sizes::Range { min, max, step } => {
                let fits = |n: u32, min: u32, max: u32, step: u32| {
                    (min..=max).contains(&n) && (n - min).is_multiple_of(step.max(1))
                };
                fits(size.width, min.width, max.width, step.width)
                    && fits(size.height, min.height, max.height, step.height)
            }
        }
    }
}

/// Sizes with the rates that each has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeOffer {
    /// Sizes.
    pub sizes: Sizes,
    /// Rates at these sizes.
    pub rates: Rates,
}

/// Modifiers of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Modifiers {
    /// The driver knows of none (V4L2). Its layout is what LINEAR means to its neighbours.
    Unknown,
    /// These, in order of preference.
    List(Vec<Modifier>),
}

/// One format a port can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Video {
    /// Format.
    pub format: Format,
    /// Arrangement in memory.
    pub modifiers: Modifiers,
    /// Sizes and rates. Without a wish the solver takes the consumer's natural size, else the largest.
    pub sizes: Vec<SizeOffer>,
    /// True where each plane is (output) or may be (input) a segment of its own. An output that can do both offers
    /// the format twice.
    pub plane_segments: bool,
}

impl Video {
    /// A linear format of any size and rate, in one segment: what CPU elements offer.
    pub fn linear(format: Format) -> Video {
        Video {
            format,
            modifiers: Modifiers::List(vec![Modifier::LINEAR]),
            sizes: vec![SizeOffer { sizes: Sizes::ANY, rates: Rates::Any }],
            plane_segments: false,
        }
    }
}

/// Who allocates a stream's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The capture driver: VIDIOC_REQBUFS and VIDIOC_EXPBUF.
    V4l2,
    /// `/dev/dma_heap/*`.
    DmaHeap,
    /// `/dev/udmabuf`.
    Udmabuf,
    /// memfd.
    Memfd,
    /// A display controller's driver: DRM_IOCTL_MODE_CREATE_DUMB.
    Dumb,
    /// A GPU's driver, by GBM.
    Gbm,
    /// Another process, which passes its dma-bufs.
    Process,
    /// An element of GStreamer's, which brings its own dma-bufs.
    Gstreamer,
}

impl Origin {
    /// Name in TOML and messages.
    pub fn name(self) -> &'static str {
        match self {
            Origin::V4l2 => "v4l2",
            Origin::DmaHeap => "dma-heap",
            Origin::Udmabuf => "udmabuf",
            Origin::Memfd => "memfd",
            Origin::Dumb => "dumb",
            Origin::Gbm => "gbm",
            Origin::Process => "process",
            Origin::Gstreamer => "gstreamer",
        }
    }

    /// Kind of kernel object it gives.
    pub fn kind(self) -> MemoryKind {
        match self {
            Origin::Memfd => MemoryKind::Memfd,
            _ => MemoryKind::DmaBuf,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What an output does about memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Produces {
    /// Allocators it can fill, in order of preference.
    pub origins: Vec<Origin>,
    /// Multiple of bytes that its strides can be made: 1 where the driver alone decides.
    pub max_stride_align: u32,
    /// Buffers it must have queued to run.
    pub keeps: u32,
    /// Most buffers it can have.
    pub max_buffers: u32,
}

/// Properties by which an input can be made to hold fewer frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetBy {
    /// Their names, such as "`consumers` or `window`".
    pub properties: &'static str,
    /// Fewest frames that it can be made to hold.
    pub least: u32,
}

/// What an input does about memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumes {
    /// Kinds it can import.
    pub kinds: Vec<MemoryKind>,
    /// Who within it insists on these, where that is somebody with a name of their own: for the message.
    pub insists: Option<String>,
    /// Strides must be multiples of this many bytes.
    pub stride_align: u32,
    /// Formats whose rows it reads one right after the other, in whole blocks of so many pixels (codecs), so that the memory
    /// must have room for these, below a picture and at its right: 1x1 for a device that cannot be told of longer rows than
    /// the picture's. Of a format that is not named here it takes rows of any length.
    pub blocks: Vec<(Format, Size)>,
    /// Frames it holds at once on the steady path.
    pub holds: u32,
    /// What decides that, where its user can set it: for the message.
    pub set_by: Option<SetBy>,
    /// It passes the memory on to processes that are only to read it.
    pub read_only: bool,
}

impl Consumes {
    /// What a CPU takes: any kind, any stride, one frame at a time.
    pub fn cpu() -> Consumes {
        let kinds = vec![MemoryKind::DmaBuf, MemoryKind::Memfd];
        let (insists, blocks, set_by) = (None, Vec::new(), None);
        Consumes { kinds, insists, stride_align: 1, blocks, holds: 1, set_by, read_only: false }
    }

    /// The blocks in which pictures of `format` are read; `None` where rows may be of any length.
    pub fn block(&self, format: Format) -> Option<Size> {
        self.blocks.iter().find(|(f, _)| *f == format).map(|(_, block)| *block)
    }
}

/// What the element's user asked for; `None` leaves the choice to the solver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Format.
    pub format: Option<Format>,
    /// Size.
    pub size: Option<Size>,
    /// Rate.
    pub rate: Option<Rate>,
}

/// What an output port can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputOffer {
    /// Formats in order of preference.
    pub video: Vec<Video>,
    /// Memory.
    pub memory: Produces,
    /// Asked for.
    pub wanted: Wanted,
}

/// What an input port can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputOffer {
    /// Formats in order of preference.
    pub video: Vec<Video>,
    /// Memory.
    pub memory: Consumes,
    /// Asked for.
    pub wanted: Wanted,
    /// The size it would choose for itself (a display's current mode).
    pub natural: Option<Size>,
}

/// Several pictures in one: what an element makes of its inputs, or has made of them where it cannot.
#[derive(Debug, Clone, PartialEq)]
pub struct Composition {
    /// Of the whole, which is black where there is nothing.
    pub size: Size,
    /// The picture of each input, the first lowest.
    pub layers: Vec<Layer>,
}

/// A picture in a [`Composition`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layer {
    /// Its left edge; it may lie partly outside.
    pub x: i32,
    /// Its upper edge.
    pub y: i32,
    /// To which it is scaled.
    pub size: Size,
    /// From 0 to 1.
    pub opacity: f64,
}

/// What a stream was agreed to be: the same for every port it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream {
    /// Format.
    pub format: Format,
    /// Arrangement; `None` where the producer knows of none.
    pub modifier: Option<Modifier>,
    /// Pixels.
    pub size: Size,
    /// Frames a second, where known.
    pub rate: Option<Rate>,
    /// Allocator.
    pub origin: Origin,
    /// Strides are to be multiples of this.
    pub stride_align: u32,
    /// The memory is to have room for whole blocks of so many pixels, and rows no longer than for these, but for
    /// `stride_align`: 1x1 for rows of the picture alone, `None` for rows as the producer likes them. A driver that decides
    /// by itself does not heed it, and those who import look at what it made.
    pub block: Option<Size>,
    /// Each plane is a segment of its own.
    pub plane_segments: bool,
    /// Descriptors are to be made for reading alone, where their exporter can do that.
    pub read_only: bool,
    /// Buffers the graph needs at once.
    pub buffers: u32,
}

impl Stream {
    /// The size that the memory has room for: the picture's, in whole blocks.
    pub fn room(&self) -> Size {
        let whole = |n: u32, block: u32| n.checked_next_multiple_of(block.max(1)).unwrap_or(n);
        let block = self.block.unwrap_or(Size::new(1, 1));
        Size::new(whole(self.size.width, block.width), whole(self.size.height, block.height))
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.format, self.size)?;
        if let Some(rate) = self.rate {
            write!(f, " at {rate} fps")?;
        }
        if let Some(modifier) = self.modifier {
            write!(f, " {modifier}")?;
        }
        write!(f, " from {}", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_compare_as_fractions() {
        assert!(Rate::new(30000, 1001) < Rate::new(30, 1));
        assert_eq!(Rate::new(60, 2), Rate::new(30, 1));
        assert_eq!(Rate::new(60, 1).period_ns(), 16_666_666);
        assert_eq!(Rate::new(30, 0), Rate::new(30, 1));
    }

    #[test]
    fn size_ranges_keep_their_steps() {
        let sizes = Sizes::Range { min: Size::new(16, 16), max: Size::new(640, 480), step: Size::new(16, 2) };
        assert!(sizes.contains(Size::new(320, 240)));
        assert!(!sizes.contains(Size::new(321, 240)));
        assert!(!sizes.contains(Size::new(656, 480)));
    }
}
