//! An open device, or one of the two sides of a memory-to-memory device.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use v4l::capability::Flags;

use super::control::{self, ControlError};
use super::ioctl::{
    self, BufType, BufferCapabilities, Capability, Control, ControlValue, DvTimings, DvTimingsError, Event, Failure,
    FmtError, Format, FormatRequest, Fraction, Input, Memory, Output, ReqbufsError, SInputError, SOutputError,
};
use super::node::{Node, NodeKind, OpenError};

/// A device, open, and the one queue of it that this handle is about: what it captures, what it puts out, or one side of
/// a memory-to-memory device. Cheap to clone: all clones, and both sides, are one file descriptor, which closes with the
/// last of them and of the queues made from them.
///
/// No call waits for a frame; some wait as long as the driver holds its lock (a USB camera's control transfer takes
/// milliseconds).
#[derive(Debug, Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

/// A device that may have been closed.
#[derive(Debug, Clone)]
pub(super) struct WeakDevice(Weak<Inner>);

impl WeakDevice {
    pub(super) fn upgrade(&self) -> Option<Device> {
        self.0.upgrade().map(|inner| Device { inner })
    }
}

#[derive(Debug)]
struct Inner {
    fd: Arc<OwnedFd>,
    path: PathBuf,
    capability: Capability,
    buf_type: BufType,
    /// A second REQBUFS on the same queue would free the first one's buffers under it.
    allocated: AtomicBool,
}

/// Why an input was not selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// Neither a name nor an index of an input.
    #[error("there is no input `{wanted}`; inputs are {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// The names there are, in order of index.
        known: Vec<String>,
    },
    /// The kernel's answer.
    #[error(transparent)]
    Ioctl(#[from] SInputError),
    /// The inputs could not be listed.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Why an output was not selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputError {
    /// Neither a name nor an index of an output.
    #[error("there is no output `{wanted}`; outputs are {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// The names there are, in order of index.
        known: Vec<String>,
    },
    /// The kernel's answer.
    #[error(transparent)]
    Ioctl(#[from] SOutputError),
    /// The outputs could not be listed.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl Device {
    /// Opens a capture node: read-write, non-blocking, closed on exec. Nothing is set or allocated.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Device, OpenError> {
        Device::capture(&Node::open(path.as_ref().to_owned(), NodeKind::Capture)?)
    }

    /// Opens an output node, as [`Device::open`]: a socket that puts video out.
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub fn open_output(path: impl AsRef<Path>) -> Result<Device, OpenError> {
        Device::output(&Node::open(path.as_ref().to_owned(), NodeKind::Output)?)
    }

    /// Opens a memory-to-memory node, as [`Device::open`]: a codec, a scaler, a converter. Two handles of one file: the
    /// side that takes frames (V4L2's OUTPUT queue), and the one that gives them (its CAPTURE queue).
    ///
    /// # Errors
    /// See [`OpenError`]; each says what to do.
    pub fn open_m2m(path: impl AsRef<Path>) -> Result<(Device, Device), OpenError> {
        Device::m2m(&Node::open(path.as_ref().to_owned(), NodeKind::M2m)?)
    }

    /// The first capture device that opens, in order of their numbers.
    ///
    /// # Errors
    /// Why the first of those that might have been one did not; [`OpenError::NoneFound`] where none might.
    pub fn first() -> Result<Device, OpenError> {
        first(NodeKind::Capture, Device::capture)
    }

    /// The first device that puts video out, as [`Device::first`].
    ///
    /// # Errors
    /// As for [`Device::first`].
    pub fn first_output() -> Result<Device, OpenError> {
        first(NodeKind::Output, Device::output)
    }

    /// All memory-to-memory devices that open, in order of their numbers; there is at least one.
    ///
    /// # Errors
    /// As for [`Device::first`].
    pub fn every_m2m() -> Result<Vec<(Device, Device)>, OpenError> {
        let mut found = Vec::new();
        let mut refused = None;
        for node in Node::every(NodeKind::M2m) {
            match node.and_then(|node| Device::m2m(&node)) {
                Ok(both) => found.push(both),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if found.is_empty() {
            return Err(refused.unwrap_or(OpenError::NoneFound { kind: NodeKind::M2m }));
        }
        Ok(found)
    }

    pub(super) fn capture(node: &Node) -> Result<Device, OpenError> {
        Device::of(node, node.gives)
    }

    pub(super) fn output(node: &Node) -> Result<Device, OpenError> {
        Device::of(node, node.takes)
    }

    pub(super) fn m2m(node: &Node) -> Result<(Device, Device), OpenError> {
        Ok((Device::of(node, node.takes)?, Device::of(node, node.gives)?))
    }

    fn of(node: &Node, buf_type: BufType) -> Result<Device, OpenError> {
        let Node { fd, path, capability, .. } = node;
        if !capability.flags.contains(Flags::STREAMING) {
            return Err(OpenError::NotStreaming { path: path.clone(), card: capability.card.clone() });
        }
        let (fd, path, capability) = (Arc::clone(fd), path.clone(), capability.clone());
        Ok(Device { inner: Arc::new(Inner { fd, path, capability, buf_type, allocated: AtomicBool::new(false) }) })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Driver, product, bus and flags.
    pub fn capability(&self) -> &Capability {
        &self.inner.capability
    }

    /// Which queue it is, and which of the two APIs it is used through.
    pub fn buf_type(&self) -> BufType {
        self.inner.buf_type
    }

    /// What memory its queue can use.
    ///
    /// # Errors
    /// [`ReqbufsError::Busy`] while a queue is allocated, by this program or another.
    pub fn buffer_capabilities(&self) -> Result<BufferCapabilities, ReqbufsError> {
        if !self.take_queue() {
            return Err(ReqbufsError::Busy);
        }
        // A driver without MMAP still fills the field in for DMABUF, and the other way round.
        let granted = ioctl::reqbufs(self, self.buf_type(), Memory::Mmap, 0)
            .or_else(|_| ioctl::reqbufs(self, self.buf_type(), Memory::Dmabuf, 0));
        self.put_queue();
        Ok(granted?.capabilities)
    }

    /// The format that is set.
    ///
    /// # Errors
    /// See [`FmtError`].
    pub fn format(&self) -> Result<Format, FmtError> {
        ioctl::g_fmt(self, self.buf_type())
    }

    /// Sets the format, and returns what the driver chose: compare it with what was asked for. Set the frame interval
    /// afterwards.
    ///
    /// # Errors
    /// See [`FmtError`]; [`Failure::Busy`] while a queue is allocated.
    pub fn set_format(&self, request: &FormatRequest) -> Result<Format, FmtError> {
        ioctl::s_fmt(self, self.buf_type(), request)
    }

    /// What [`Device::set_format`] would choose, without setting it.
    ///
    /// # Errors
    /// See [`FmtError`].
    pub fn try_format(&self, request: &FormatRequest) -> Result<Format, FmtError> {
        ioctl::try_fmt(self, self.buf_type(), request)
    }

    /// The frame interval in use; `None` where the driver does not know it.
    ///
    /// # Errors
    /// Only [`Failure`].
    pub fn frame_interval(&self) -> Result<Option<Fraction>, Failure> {
        ioctl::g_parm(self, self.buf_type())
    }

    /// Asks for a frame interval, and returns the one now in use; `None` where the driver has no say.
    ///
    /// # Errors
    /// Only [`Failure`].
    pub fn set_frame_interval(&self, interval: Fraction) -> Result<Option<Fraction>, Failure> {
        ioctl::s_parm(self, self.buf_type(), interval)
    }

    /// The inputs; empty where there is nothing to choose from.
    ///
    /// # Errors
    /// Only [`Failure`].
    pub fn inputs(&self) -> Result<Vec<Input>, Failure> {
        ioctl::enum_input(self)
    }

    /// Selects an input by its name (in any case of letters) or its index. The format, and which controls and sizes
    /// there are, may change with it.
    ///
    /// # Errors
    /// See [`InputError`]; [`Failure::Busy`] while a queue is allocated.
    pub fn select_input(&self, wanted: &str) -> Result<Input, InputError> {
        let inputs = self.inputs()?;
        let named = inputs.iter().find(|i| i.name.eq_ignore_ascii_case(wanted));
        let found = named.or_else(|| inputs.iter().find(|i| Ok(i.index) == wanted.parse()));
        let Some(input) = found else {
            let known = inputs.into_iter().map(|i| i.name).collect();
            return Err(InputError::Unknown { wanted: wanted.to_owned(), known });
        };
        ioctl::s_input(self, input.index)?;
        Ok(input.clone())
    }

    /// Selects an output of an output node, as [`Device::select_input`].
    ///
    /// # Errors
    /// See [`OutputError`]; [`Failure::Busy`] while a queue is allocated.
    pub fn select_output(&self, wanted: &str) -> Result<Output, OutputError> {
        let outputs = ioctl::enum_output(self)?;
        let named = outputs.iter().find(|o| o.name.eq_ignore_ascii_case(wanted));
        let found = named.or_else(|| outputs.iter().find(|o| Ok(o.index) == wanted.parse()));
        let Some(output) = found else {
            let known = outputs.into_iter().map(|o| o.name).collect();
            return Err(OutputError::Unknown { wanted: wanted.to_owned(), known });
        };
        ioctl::s_output(self, output.index)?;
        Ok(output.clone())
    }

    /// All controls, class headings left out.
    ///
    /// # Errors
    /// Only [`Failure`].
    pub fn controls(&self) -> Result<Vec<Control>, Failure> {
        ioctl::query_ext_ctrls(self)
    }

    /// A control by its name, e.g. `white_balance_automatic`.
    ///
    /// # Errors
    /// [`ControlError::Unknown`] lists the names there are.
    pub fn control(&self, name: &str) -> Result<Control, ControlError> {
        control::by_name(&self.controls()?, name).cloned()
    }

    /// A control's present value.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn control_value(&self, control: &Control) -> Result<ControlValue, ControlError> {
        Ok(ioctl::g_ext_ctrl(self, control)?)
    }

    /// Sets a control. [`Control::parse`] makes the value from text.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn set_control(&self, control: &Control, value: &ControlValue) -> Result<(), ControlError> {
        Ok(ioctl::s_ext_ctrl(self, control, value)?)
    }

    /// The signal that there is on the input in use; `None` where the input has none to detect, as cameras.
    ///
    /// # Errors
    /// No signal that can be captured, or a failure: [`DvTimingsError`].
    pub fn signal(&self) -> Result<Option<DvTimings>, DvTimingsError> {
        ioctl::query_dv_timings(self)
    }

    /// Has the device capture the signal that there is on the input in use, which changes its format. Returns
    /// [`Device::signal`].
    ///
    /// # Errors
    /// As [`Device::signal`].
    pub fn follow_signal(&self) -> Result<Option<DvTimings>, DvTimingsError> {
        let signal = self.signal()?;
        if let Some(timings) = &signal {
            ioctl::s_dv_timings(self, timings)?;
        }
        Ok(signal)
    }

    /// The input in use; `None` where there is nothing to choose from.
    ///
    /// # Errors
    /// Only [`Failure`].
    pub fn input(&self) -> Result<Option<u32>, Failure> {
        ioctl::g_input(self)
    }

    /// Subscribes to changes of the signal on the input in use; polling for `POLLPRI` then waits for them. False where
    /// the device has none to tell, as most cameras.
    ///
    /// # Errors
    /// Only [`Failure`].
    pub fn subscribe_source_change(&self) -> Result<bool, Failure> {
        let input = ioctl::g_input(self)?.unwrap_or(0);
        ioctl::subscribe_source_change(self, input)
    }

    /// The oldest event; `None` where none is waiting. Never waits.
    ///
    /// # Errors
    /// Only [`Failure`].
    pub fn next_event(&self) -> Result<Option<Event>, Failure> {
        ioctl::dqevent(self)
    }

    pub(super) fn downgrade(&self) -> WeakDevice {
        WeakDevice(Arc::downgrade(&self.inner))
    }

    /// Claims the right to allocate this file's queue; false where it is taken.
    pub(super) fn take_queue(&self) -> bool {
        !self.inner.allocated.swap(true, Ordering::AcqRel)
    }

    pub(super) fn put_queue(&self) {
        self.inner.allocated.store(false, Ordering::Release);
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

/// The first node of a kind that `device` takes.
fn first(kind: NodeKind, device: fn(&Node) -> Result<Device, OpenError>) -> Result<Device, OpenError> {
    let mut refused = None;
    for node in Node::every(kind) {
        match node.and_then(|node| device(&node)) {
            Ok(device) => return Ok(device),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or(OpenError::NoneFound { kind }))
}
