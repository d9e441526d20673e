//! elements
#[cfg(feature = "v4l2")]
pub mod v4l2;
#[cfg(feature = "kms")]
pub mod kms;
