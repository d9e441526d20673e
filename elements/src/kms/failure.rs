//! What a device's error is to the engine.

use shrbuf_pipeline::{Failure, FailureKind};

use super::{CommitError, DeviceError, OutputError};

pub(super) fn device_failed(error: DeviceError) -> Failure {
    let kind = match error {
        DeviceError::InUse { .. } => FailureKind::InUse,
        DeviceError::Query { .. } => FailureKind::Device,
        _ => FailureKind::Config,
    };
    Failure::new(kind, error)
}

pub(super) fn output_failed(error: OutputError) -> Failure {
    match error {
        OutputError::Device(e) => device_failed(e),
        OutputError::Taken { .. } => Failure::new(FailureKind::InUse, error),
        e => Failure::new(FailureKind::Config, e),
    }
}

pub(super) fn commit_failed(error: CommitError) -> Failure {
    match error {
        CommitError::LostMaster => Failure::new(FailureKind::InUse, error),
        CommitError::Unplugged => Failure::new(FailureKind::Unplugged, error),
        CommitError::Device(e) => device_failed(e),
        e => Failure::new(FailureKind::Device, e),
    }
}
