//! How much memory the store may have just now.
//!
//! # How am I supposed to use this?
//! [`Steering`] is a thread that waits on the kernel's trigger, looks now and then anyway, and sets a store's budget, one
//! for each store. Tests, and callers with knowledge of their own, feed [`steer`] or the bare [`Law`] with readings they
//! make, or give [`System::at`] files of their own.
//!
//! ```
//! use tmem_cache::pressure::{Law, Reading, steer};
//! use tmem_cache::store::{Store, StoreOptions};
//! let store = Store::new(&StoreOptions::new(1 << 30))?;
//! let mut law = Law::new(64 << 20, 1 << 30, 256 << 20);
//! let heavy = Reading { some: 0.5, free: 1 << 30 };
//! assert_eq!(steer(&store, &mut law, heavy), 512 << 20);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod law;
mod source;
mod steer;
mod steering;

pub use law::{Law, Reading};
pub use source::System;
pub use steer::steer;
pub use steering::Steering;
