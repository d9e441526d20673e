//! Pipelines on vivid and vkms, in the virtual machine.

mod endurance;
mod faults;
#[cfg(feature = "gpu")]
mod gpu;
mod limits;
mod negotiation;
mod pixels;
mod processes;
