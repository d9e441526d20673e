//! The signal on the input that a device captures from, once the device has told that something has happened to it.
//!
//! V4L2_EVENT_SOURCE_CHANGE says no more than that: the signal may be another one, lost, back, or have been away for a
//! moment. A receiver is to be stopped and started each time, as not every one locks on to a signal again by itself.

use shrbuf_pipeline::{Failure, FailureKind};

use super::Device;
use super::failure::failed;
use super::ioctl::{self, DvTimings, DvTimingsError, Event};

/// What was agreed to be captured.
pub(super) struct Captured {
    /// `None` of an input that has none to detect.
    pub(super) signal: Option<DvTimings>,
    /// What the driver makes of it.
    pub(super) format: ioctl::Format,
}

/// What there is in its place.
pub(super) enum Now {
    /// The same, of these colours.
    Same(ioctl::Colorimetry),
    /// Another one, in words.
    Other(String),
    /// None that can be captured.
    Lost(DvTimingsError),
}

impl Captured {
    pub(super) fn look(&self, device: &Device) -> Result<Now, Failure> {
        let signal = match device.signal() {
            Ok(signal) => signal,
            Err(DvTimingsError::Failure(failure)) => return Err(failed(failure)),
            Err(lost) => return Ok(Now::Lost(lost)),
        };
        let same = match (&self.signal, &signal) {
            (Some(before), Some(now)) => before.matches(now),
            (before, now) => before.is_some() == now.is_some(),
        };
        if !same {
            return Ok(Now::Other(signal.map_or_else(|| "without timings".to_owned(), |now| now.to_string())));
        }
        let now = device.format().map_err(|e| Failure::new(FailureKind::Device, e))?;
        let as_agreed = ioctl::Format { colorimetry: self.format.colorimetry, ..now.clone() };
        if as_agreed != self.format {
            return Ok(Now::Other(format!("{} {}x{}", now.pixelformat, now.width, now.height)));
        }
        Ok(Now::Same(now.colorimetry))
    }
}

/// Whether the device has told of a change since it was asked last.
pub(super) fn has_changed(device: &Device) -> Result<bool, Failure> {
    let mut changed = false;
    while let Some(event) = device.next_event().map_err(failed)? {
        changed |= matches!(event, Event::SourceChange { .. });
    }
    Ok(changed)
}

/// A signal that cannot be followed, as the element's failure.
pub(super) fn no_signal(error: DvTimingsError) -> Failure {
    match error {
        DvTimingsError::Failure(failure) => failed(failure),
        error => Failure::new(FailureKind::Stalled, error),
    }
}
