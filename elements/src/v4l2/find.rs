//! Which devices a machine has, and all that they offer.

use std::path::PathBuf;

use super::device::Device;
use super::ioctl::{self, Capability, Failure, FormatDescription, FrameIntervals, FrameSizes, Input, Output, Size};
use super::node::{Node, NodeKind, OpenError};

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

/// An output device and all that it offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputInfo {
    /// What [`Device::open_output`] takes.
    pub path: PathBuf,
    /// Driver, product, bus and flags.
    pub capability: Capability,
    /// Outputs; empty where there is nothing to choose from.
    pub outputs: Vec<Output>,
    /// Pixel formats, of the output in use.
    pub formats: Vec<FormatInfo>,
}

/// A memory-to-memory device and all that it offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct M2mInfo {
    /// What [`Device::open_m2m`] takes.
    pub path: PathBuf,
    /// Driver, product, bus and flags.
    pub capability: Capability,
    /// Formats that go in.
    pub takes: Vec<FormatInfo>,
    /// Formats that come out, of what it is set to take.
    pub gives: Vec<FormatInfo>,
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
        let look = |node: Node| looked_at(&node, Device::capture(&node)?.info());
        Node::every(NodeKind::Capture).map(|node| node.and_then(look)).collect()
    }

    /// All devices that put video out, as [`Device::find`]; nodes that do not open are left out, as they are in that list.
    pub fn find_outputs() -> Vec<Result<OutputInfo, OpenError>> {
        let look = |node: Node| {
            let device = Device::output(&node)?;
            let info = || {
                Ok(OutputInfo {
                    path: node.path.clone(),
                    capability: node.capability.clone(),
                    outputs: ioctl::enum_output(&device)?,
                    formats: device.formats()?,
                })
            };
            looked_at(&node, info())
        };
        Node::every(NodeKind::Output).flatten().map(look).collect()
    }

    /// All memory-to-memory devices, as [`Device::find_outputs`].
    pub fn find_m2m() -> Vec<Result<M2mInfo, OpenError>> {
        let look = |node: Node| {
            let (takes, gives) = Device::m2m(&node)?;
            let (path, capability) = (node.path.clone(), node.capability.clone());
            let info = || Ok(M2mInfo { path, capability, takes: takes.formats()?, gives: gives.formats()? });
            looked_at(&node, info())
        };
        Node::every(NodeKind::M2m).flatten().map(look).collect()
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

fn looked_at<T>(node: &Node, info: Result<T, Failure>) -> Result<T, OpenError> {
    info.map_err(|failure| OpenError::Other { path: node.path.clone(), source: std::io::Error::other(failure) })
}
