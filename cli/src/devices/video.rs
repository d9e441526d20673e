//! V4L2 devices: cameras, outputs, and what makes frames of frames.

use serde::Serialize;
use shrbuf::Format;
use shrbuf_elements::v4l2::ioctl::{
    Control, FrameIntervals, FrameSizes, Input, InputStatus, PixelFormat, Size as FrameSize,
};
use shrbuf_elements::v4l2::{Device, DeviceInfo, FormatInfo, M2mInfo, OutputInfo};

use super::Found;

#[derive(Debug, Serialize)]
pub struct Camera {
    pub path: String,
    pub card: String,
    pub driver: String,
    pub bus: String,
    pub inputs: Vec<CameraInput>,
    pub formats: Vec<VideoFormat>,
    pub controls: Vec<VideoControl>,
}

#[derive(Debug, Serialize)]
pub struct Output {
    pub path: String,
    pub card: String,
    pub driver: String,
    pub bus: String,
    /// Their names.
    pub outputs: Vec<String>,
    pub formats: Vec<VideoFormat>,
    pub controls: Vec<VideoControl>,
}

#[derive(Debug, Serialize)]
pub struct M2m {
    pub path: String,
    pub card: String,
    pub driver: String,
    pub bus: String,
    pub takes: Vec<VideoFormat>,
    pub makes: Vec<VideoFormat>,
    pub controls: Vec<VideoControl>,
}

#[derive(Debug, Serialize)]
pub struct CameraInput {
    pub name: String,
    /// `ready`, `no power`, `no signal` or `no lock`.
    pub status: &'static str,
}

#[derive(Debug, Serialize)]
pub struct VideoFormat {
    /// As in TOML; null where shrbuf has no name for it.
    pub format: Option<&'static str>,
    /// V4L2's four letters.
    pub fourcc: String,
    pub description: String,
    pub compressed: bool,
    pub sizes: Vec<VideoSize>,
}

#[derive(Debug, Serialize)]
pub struct VideoSize {
    /// `1280x720`, or `48x32 to 1920x1080 in steps of 16x8`; `any` where the driver does not tell.
    pub size: String,
    /// Frames a second, the fastest first; of a range its ends.
    pub rates: Vec<f64>,
}

#[derive(Debug, Serialize)]
pub struct VideoControl {
    pub name: String,
    /// Values, in words.
    pub takes: String,
}

/// Every capture device, and every node that does not open.
pub fn cameras() -> Vec<Found<Camera>> {
    Device::find().into_iter().map(|found| Found::of(found, camera)).collect()
}

/// Every device that puts video out.
pub fn outputs() -> Vec<Found<Output>> {
    Device::find_outputs().into_iter().map(|found| Found::of(found, output)).collect()
}

/// Every codec, scaler and converter.
pub fn m2m() -> Vec<Found<M2m>> {
    Device::find_m2m().into_iter().map(|found| Found::of(found, codec)).collect()
}

fn output(info: OutputInfo) -> Output {
    Output {
        controls: controls(Device::open_output(&info.path).ok()),
        path: info.path.display().to_string(),
        card: info.capability.card,
        driver: info.capability.driver,
        bus: info.capability.bus_info,
        outputs: info.outputs.into_iter().map(|o| o.name).collect(),
        formats: info.formats.iter().map(format).collect(),
    }
}

fn codec(info: M2mInfo) -> M2m {
    M2m {
        controls: controls(Device::open_m2m(&info.path).ok().map(|(takes, _)| takes)),
        path: info.path.display().to_string(),
        card: info.capability.card,
        driver: info.capability.driver,
        bus: info.capability.bus_info,
        takes: info.takes.iter().map(format).collect(),
        makes: info.gives.iter().map(format).collect(),
    }
}

fn camera(info: DeviceInfo) -> Camera {
    Camera {
        controls: controls(Device::open(&info.path).ok()),
        path: info.path.display().to_string(),
        card: info.capability.card,
        driver: info.capability.driver,
        bus: info.capability.bus_info,
        inputs: info.inputs.iter().map(input).collect(),
        formats: info.formats.iter().map(format).collect(),
    }
}

/// A device that was there a moment ago and is gone has none to show.
fn controls(device: Option<Device>) -> Vec<VideoControl> {
    let controls = device.and_then(|device| device.controls().ok()).unwrap_or_default();
    controls.iter().map(control).collect()
}

fn input(input: &Input) -> CameraInput {
    let status = match input.status {
        InputStatus::Ready => "ready",
        InputStatus::NoPower => "no power",
        InputStatus::NoSignal => "no signal",
        InputStatus::NoLock => "no lock",
    };
    CameraInput { name: input.name.clone(), status }
}

fn format(info: &FormatInfo) -> VideoFormat {
    let PixelFormat(fourcc) = info.description.pixelformat;
    VideoFormat {
        format: Format::from_v4l2(fourcc).map(|(format, _)| format.name()),
        fourcc: info.description.pixelformat.to_string(),
        description: info.description.description.clone(),
        compressed: info.description.compressed,
        sizes: sizes(info),
    }
}

fn sizes(info: &FormatInfo) -> Vec<VideoSize> {
    let rates_at =
        |size: FrameSize| info.intervals.iter().find(|(s, _)| *s == size).map_or(Vec::new(), |(_, i)| rates(i));
    match &info.sizes {
        FrameSizes::Discrete(sizes) => {
            sizes.iter().map(|&size| VideoSize { size: size.to_string(), rates: rates_at(size) }).collect()
        }
        FrameSizes::Stepwise { min, max, step } => {
            let steps = if step.width > 1 || step.height > 1 { format!(" in steps of {step}") } else { String::new() };
            vec![VideoSize { size: format!("{min} to {max}{steps}"), rates: rates_at(*max) }]
        }
        FrameSizes::NotEnumerated => vec![VideoSize { size: "any".into(), rates: Vec::new() }],
    }
}

fn rates(intervals: &FrameIntervals) -> Vec<f64> {
    let mut rates: Vec<f64> = match intervals {
        FrameIntervals::Discrete(all) => all.iter().map(|i| i.rate()).collect(),
        FrameIntervals::Stepwise { min, max, .. } => vec![min.rate(), max.rate()],
        FrameIntervals::NotEnumerated => Vec::new(),
    };
    // An interval of 0 is a driver's nonsense that JSON has no word for.
    rates.retain(|rate| rate.is_finite());
    rates.sort_by(|a, b| b.total_cmp(a));
    rates
}

fn control(control: &Control) -> VideoControl {
    VideoControl { name: control.name.clone(), takes: control.expected() }
}
