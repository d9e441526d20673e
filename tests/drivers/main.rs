//! Pipelines on vivid and vkms, in the virtual machine.

mod pixels;
