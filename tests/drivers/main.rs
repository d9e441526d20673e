//! Pipelines on vivid and vkms, in the virtual machine.

mod composed;
mod endurance;
mod faults;
mod gpu;
mod limits;
mod m2m;
mod negotiation;
mod output;
mod pixels;
mod planes;
mod processes;

#[path = "../../elements/tests/native/mod.rs"]
mod native;
