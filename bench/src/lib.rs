//! What the programs of `bench/` share.

use std::error::Error;

pub mod pace;
pub mod process;
pub mod sets;
mod sys;
pub mod table;
pub mod trace;

/// What these programs fail with.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The least of several values: what disturbs a measurement on a shared machine only ever adds to it.
pub fn least(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    values.into_iter().reduce(f64::min)
}
