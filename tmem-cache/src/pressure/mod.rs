//! How much memory the store may have just now.
//!
//! # How am I supposed to use this?
//! One thread looks, once a second or when the kernel's trigger fires, and sets the budget:
//!
//! ```no_run
//! use std::time::Duration;
//! use tmem_cache::{pressure::{Law, System}, store::{Store, StoreOptions}};
//! let store = Store::new(&StoreOptions::new(1 << 30))?;
//! let (mut law, mut system) = (Law::new(64 << 20, 1 << 30, 256 << 20), System::new());
//! loop {
//!     system.wait(Duration::from_secs(1));
//!     let budget = law.look(system.read());
//!     store.set_budget(budget as usize);
//!     // What may not be dropped goes to the file tier.
//!     store.push_out((store.stats().bytes_memory as usize).saturating_sub(budget as usize));
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Tests, and callers with knowledge of their own, feed the [`Law`] with readings they make.

mod law;
mod source;

pub use law::{Law, Reading};
pub use source::System;
