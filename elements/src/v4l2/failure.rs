//! What the engine is told of a device's errors, and controls that are set.

use std::collections::BTreeMap;

use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::{Failure, FailureKind};

use super::ioctl::{self, DqbufError, FmtError, QbufError, ReqbufsError, StreamonError};
use super::{AllocateError, Device, OpenError, QueueError, StartError};

fn kind_of(failure: &ioctl::Failure) -> FailureKind {
    match failure {
        ioctl::Failure::Unplugged { .. } => FailureKind::Unplugged,
        ioctl::Failure::Busy { .. } => FailureKind::InUse,
        _ => FailureKind::Device,
    }
}

/// A kernel's answer as the element's failure.
pub(super) fn failed(failure: ioctl::Failure) -> Failure {
    Failure::new(kind_of(&failure), failure)
}

/// A device that does not open, as the element's failure.
pub(super) fn open_failed(error: OpenError) -> Failure {
    let kind = match error {
        OpenError::Busy { .. } => FailureKind::InUse,
        OpenError::Unplugged { .. } => FailureKind::Unplugged,
        OpenError::Other { .. } => FailureKind::Device,
        _ => FailureKind::Config,
    };
    Failure::new(kind, error)
}

/// What asking for a format, or for another one, said, as the element's failure.
pub(super) fn format_failed(error: FmtError) -> Failure {
    match error {
        FmtError::Failure(failure) => failed(failure),
        other => Failure::new(FailureKind::Device, other),
    }
}

/// What starting a stream said, as the element's failure.
pub(super) fn start_failed(error: StreamonError) -> Failure {
    match error {
        StreamonError::Failure(failure) => failed(failure),
        other => Failure::new(FailureKind::Device, other),
    }
}

/// What starting a queue said, as the element's failure.
pub(super) fn start_queue_failed(error: StartError) -> Failure {
    match error {
        StartError::Qbuf(QbufError::Failure(failure)) => failed(failure),
        StartError::Streamon(error) => start_failed(error),
        other => Failure::new(FailureKind::Device, other),
    }
}

/// What taking a buffer from a driver said, as the element's failure.
pub(super) fn dequeue_failed(error: DqbufError) -> Failure {
    match error {
        DqbufError::Failure(failure) => failed(failure),
        other => Failure::new(FailureKind::Device, other),
    }
}

/// What giving a frame to a driver said, as the element's failure.
pub(super) fn queue_failed(error: QueueError) -> Failure {
    let kind = match error {
        QueueError::Qbuf(QbufError::Failure(failure))
        | QueueError::Allocate(AllocateError::Reqbufs(ReqbufsError::Failure(failure))) => return failed(failure),
        QueueError::Streamon(error) => return start_failed(error),
        QueueError::Planes { .. } | QueueError::Payload { .. } | QueueError::TooSmall { .. } | QueueError::Unfit(_) => {
            FailureKind::Data
        }
        QueueError::Fence => FailureKind::Stalled,
        QueueError::Told(_) | QueueError::Allocate(_) | QueueError::Qbuf(_) | QueueError::Os(_) => FailureKind::Device,
    };
    Failure::new(kind, error)
}

/// Sets the controls that a pipeline names.
pub(super) fn set_controls(device: &Device, controls: &BTreeMap<String, Value>) -> Result<(), Failure> {
    for (name, value) in controls {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let set = device.control(name).and_then(|c| device.set_control(&c, &c.parse(&text)?));
        set.map_err(|e| Failure::new(FailureKind::Config, format!("control `{name}`: {e}")))?;
    }
    Ok(())
}
