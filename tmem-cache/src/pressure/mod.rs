//! How much memory the store may have just now.
//!
//! # How am I supposed to use this?
//! One thread looks, once a second or when the kernel's trigger fires, and sets the budget:
//!
//! ```no_run
//! use std::time::Duration;
//! use tmem_cache::{pressure::{Law, System, steer}, store::{Store, StoreOptions}};
//! let store = Store::new(&StoreOptions::new(1 << 30))?;
//! let (mut law, mut system) = (Law::new(64 << 20, 1 << 30, 256 << 20), System::new());
//! loop {
//!     system.wait(Duration::from_secs(1));
//!     steer(&store, &mut law, system.read());
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Tests, and callers with knowledge of their own, feed [`steer`] or the bare [`Law`] with readings they make.

mod law;
mod source;
mod steer;

pub use law::{Law, Reading};
pub use source::System;
pub use steer::steer;
