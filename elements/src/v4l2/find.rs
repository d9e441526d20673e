//! Which capture devices a machine has, and all that they offer.

use std::path::PathBuf;

use super::device::{Device, OpenError};
use super::ioctl::{self, Capability, Failure, FormatDescription, FrameIntervals, FrameSizes, Input, Size};

/// A capture device and all that it offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// What [`Device::open`] takes.
    pub path: PathBuf,
    /// Driver, product, bus and flags.
    pub capability: Capability,
    /// Inputs; empty where there is nothing to choose from.
    pub inputs: Vec<Input>,
    /// Pixel formats, of the input in use.
    pub formats: Vec<FormatInfo>,
}

/// A pixel format with its sizes and rates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatInfo {
    /// Fourcc and name.
    pub description: FormatDescription,
    /// The sizes it comes in.
    pub sizes: FrameSizes,
    /// The rates: of every size where sizes are discrete, of the smallest and the largest where they are a range.
    pub intervals: Vec<(Size, FrameIntervals)>,
}

impl Device {
    /// All capture devices of this machine, in order of their numbers; nodes that capture no video are left out, and
    /// ones that could not be looked at are there with the reason.
    ///
    /// Opens every `/dev/video*` for a moment; some USB cameras switch their light or power on for it.
    pub fn find() -> Vec<Result<DeviceInfo, OpenError>> {
        nodes()
            .into_iter()
            .filter_map(|path| match Device::open(&path) {
                Ok(device) => Some(
                    device.info().map_err(|failure| OpenError::Other { path, source: std::io::Error::other(failure) }),
                ),
                Err(OpenError::NotCapture { .. } | OpenError::NotV4l2 { .. }) => None,
                Err(error) => Some(Err(error)),
            })
            .collect()
    }

    /// The first capture device that opens, in order of their numbers.
    ///
    /// # Errors
    /// Why the first of those that might have been one did not; [`OpenError::NotFound`] where none might.
    pub fn first() -> Result<Device, OpenError> {
        first(Device::open)
    }

    /// The first device that puts video out, as [`Device::first`].
    ///
    /// # Errors
    /// As for [`Device::first`].
    pub fn first_output() -> Result<Device, OpenError> {
        first(Device::open_output)
    }

    /// The first memory-to-memory device, as [`Device::first`].
    ///
    /// # Errors
    /// As for [`Device::first`].
    pub fn first_m2m() -> Result<(Device, Device), OpenError> {
        first(Device::open_m2m)
    }

    /// All that this device offers.
    ///
    /// # Errors
    /// Only [`Failure`].
    pub fn info(&self) -> Result<DeviceInfo, Failure> {
        Ok(DeviceInfo {
            path: self.path().to_owned(),
            capability: self.capability().clone(),
            inputs: self.inputs()?,
            formats: self.formats()?,
        })
    }

    /// All pixel formats of the input in use, with sizes and rates, in the driver's order of preference.
    ///
    /// # Errors
    /// Only [`Failure`].
    pub fn formats(&self) -> Result<Vec<FormatInfo>, Failure> {
        ioctl::enum_fmt(self, self.buf_type())?.into_iter().map(|description| self.format_info(description)).collect()
    }

    fn format_info(&self, description: FormatDescription) -> Result<FormatInfo, Failure> {
        let pixelformat = description.pixelformat;
        let sizes = ioctl::enum_framesizes(self, pixelformat)?;
        let asked = match &sizes {
            FrameSizes::Discrete(sizes) => sizes.clone(),
            FrameSizes::Stepwise { min, max, .. } => vec![*min, *max],
            FrameSizes::NotEnumerated => Vec::new(),
        };
        let intervals = asked
            .into_iter()
            .map(|size| Ok((size, ioctl::enum_frameintervals(self, pixelformat, size)?)))
            .collect::<Result<_, Failure>>()?;
        Ok(FormatInfo { description, sizes, intervals })
    }
}

/// The first node that `open` takes.
fn first<T>(open: impl Fn(PathBuf) -> Result<T, OpenError>) -> Result<T, OpenError> {
    use OpenError::{NotCapture, NotM2m, NotOutput, NotV4l2};
    let mut error = None;
    for path in nodes() {
        match open(path) {
            Ok(device) => return Ok(device),
            Err(NotCapture { .. } | NotOutput { .. } | NotM2m { .. } | NotV4l2 { .. }) => {}
            Err(other) => error = error.or(Some(other)),
        }
    }
    Err(error.unwrap_or_else(|| OpenError::NotFound { path: "/dev/video*".into(), present: nodes() }))
}

/// The `/dev/video<number>` nodes, in order of their numbers.
pub(super) fn nodes() -> Vec<PathBuf> {
    // Only the path is asked of the crate's nodes: for /dev/video-something (a udev rule's link to one of these) its
    // other calls panic.
    let mut numbered: Vec<(u32, PathBuf)> = v4l::context::enum_devices()
        .iter()
        .filter_map(|node| {
            let number = node.path().file_name()?.to_str()?.strip_prefix("video")?.parse().ok()?;
            Some((number, node.path().to_owned()))
        })
        .collect();
    numbered.sort();
    numbered.into_iter().map(|(_, path)| path).collect()
}
