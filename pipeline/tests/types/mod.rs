//! Types of element that declare what the real ones do, and no more.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use shrbuf::Format;
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::{
    Build, BuildError, Context, Element, ElementType, Failure, Frame, Full, Ports, QueueSpec, Rate, Role, Size,
    choices, properties, queue::Queue,
};

choices! {
    /// What to draw.
    pub enum Pattern {
        /// Colour bars.
        Bars = "bars",
        /// A ramp.
        Ramp = "ramp",
        /// A box that moves.
        MovingBox = "moving-box",
        /// Noise.
        Noise = "noise",
    }
}

properties! {
    /// Frames from a V4L2 device.
    pub struct V4l2Src = "v4l2-src" {
        /// The device.
        device: PathBuf = "/dev/video0".into(),
        /// Pixel format.
        format: Option<Format> = None,
        /// Width and height.
        size: Option<Size> = None,
        /// Frames a second.
        rate: Option<Rate> = None,
        /// Buffers to ask for at least.
        buffers: u32 = 2,
        /// Which input of the device.
        input: Option<u32> = None,
        /// Controls by name.
        controls: BTreeMap<String, Value> = BTreeMap::new(),
        /// How long without a frame is a failure.
        stall: Duration = Duration::from_secs(2),
    }
}

properties! {
    /// Frames drawn by the CPU.
    pub struct TestSrc = "test-src" {
        /// What to draw.
        pattern: Pattern = Pattern::Bars,
        /// Pixel format.
        format: Option<Format> = None,
        /// Width and height.
        size: Size = Size::new(1280, 720),
        /// Frames a second.
        rate: Rate = Rate::new(60, 1),
        /// Frames to draw; 0 is no end.
        frames: u64 = 0,
        /// Draw at this rate, not as fast as frames are taken.
        live: bool = true,
        /// Gamma of the ramp.
        gamma: f64 = 2.2,
    }
}

properties! {
    /// Frames on a display.
    ///
    /// Restores what was on screen before.
    pub struct KmsSink = "kms-sink" {
        /// The card; the first that has a display where not set.
        device: Option<PathBuf> = None,
        /// The connector's name, such as `HDMI-A-1`.
        connector: Option<String> = None,
        /// Show frames in order, or the newest.
        show: Full = Full::Block,
    }
}

properties! {
    /// The same frames to several.
    pub struct Tee = "tee" {}
}

properties! {
    /// Room for some frames, and a thread of its own behind it.
    pub struct Room = "queue" {
        /// Frames.
        depth: u32 = 2,
        /// When full.
        full: Full = Full::Block,
    }
}

properties! {
    /// Frames into a file.
    pub struct FileSink = "file-sink" {
        /// The file.
        path: PathBuf = PathBuf::new(),
        /// Position of the first byte, which may be before what is there.
        offset: i64 = 0,
    }
}

/// Ports, and nothing behind them.
struct Dummy(Ports);

impl Element for Dummy {
    fn ports(&self) -> Ports {
        self.0.clone()
    }

    fn process(&mut self, _: usize, _: Frame, _: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

struct Splitter(usize);

impl Element for Splitter {
    fn ports(&self) -> Ports {
        Ports { inputs: vec!["in".into()], outputs: (0..self.0).map(|n| format!("out{n}")).collect() }
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn request_output(&mut self) -> Option<usize> {
        self.0 += 1;
        Some(self.0 - 1)
    }

    fn process(&mut self, _: usize, _: Frame, _: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

impl Build for V4l2Src {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        Ok(Box::new(Dummy(Ports::source())))
    }
}

impl Build for TestSrc {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        Ok(Box::new(Dummy(Ports::source())))
    }
}

impl Build for KmsSink {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        Ok(Box::new(Dummy(Ports::sink())))
    }
}

impl Build for Tee {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        Ok(Box::new(Splitter(0)))
    }
}

impl Build for Room {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        if self.depth == 0 {
            return Err(BuildError::of("depth", "must be 1 or more"));
        }
        Ok(Box::new(Queue(QueueSpec { depth: self.depth, full: self.full })))
    }
}

impl Build for FileSink {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        if self.path.as_os_str().is_empty() {
            return Err(BuildError::of("path", "must be set"));
        }
        Ok(Box::new(Dummy(Ports::sink())))
    }
}

/// All of them.
pub fn types() -> Vec<ElementType> {
    vec![
        ElementType::of::<V4l2Src>(),
        ElementType::of::<TestSrc>(),
        ElementType::of::<KmsSink>(),
        ElementType::of::<Tee>(),
        ElementType::of::<Room>(),
        ElementType::of::<FileSink>(),
    ]
}
