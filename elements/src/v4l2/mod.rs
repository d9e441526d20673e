//! V4L2: cameras, receivers, transmitters, codecs, scalers, converters, test drivers.
//!
//! For the `v4l2-src`, `v4l2-sink` and `v4l2-m2m` elements, and for programs that want frames without a pipeline. From the bottom up:
//! - [`ioctl`]: the kernel's calls, one small file each, with checked types and errors that say what to do;
//! - [`Device`]: a node, or one side of a memory-to-memory node: what it offers, its format, frame interval, input and controls;
//! - [`CaptureQueue`]: its buffers, exported once as dma-bufs (or imported), and the stream through them;
//! - [`OutputQueue`]: frames on their way into a device, in their own memory;
//! - [`Requeue`]: gives a buffer back to the driver, from any thread, when the last reference to it is dropped.
//!
//! ```no_run
//! use shrbuf::Access;
//! use shrbuf_elements::v4l2::ioctl::{Dequeued, FormatRequest, PixelFormat};
//! use shrbuf_elements::v4l2::{CaptureQueue, Device};
//!
//! let device = Device::open("/dev/video0")?;
//! let pixelformat = PixelFormat::new(*b"XR24");
//! let wanted = FormatRequest { width: 1280, height: 720, pixelformat, bytesperline: None };
//! let format = device.set_format(&wanted)?;
//! println!("{}x{} {}, {:?}", format.width, format.height, format.pixelformat, format.planes);
//!
//! let (mut queue, buffers) = CaptureQueue::mmap(&device, 4, Access::Write)?;   // `buffers` has each plane's dma-buf
//! let requeue = queue.requeue_handle();
//! queue.start()?;
//! loop {
//!     match queue.dequeue()? {
//!         Dequeued::Buffer(frame) => requeue.requeue(frame.index)?,
//!         Dequeued::NotReady => { /* wait for POLLIN on the queue */ }
//!         Dequeued::EndOfStream => break,
//!     }
//! }
//! # drop(buffers);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod ioctl;

mod blocks;
mod control;
mod device;
mod failure;
mod find;
mod m2m;
mod node;
mod output;
mod ownership;
mod picture;
mod queue;
mod readiness;
mod sequence;
mod signal;
mod sink;
mod src;

pub use control::ControlError;
pub use device::{Device, InputError, OutputError};
pub use find::{DeviceInfo, FormatInfo, M2mInfo, OutputInfo};
pub use m2m::V4l2M2m;
pub use node::{NodeKind, OpenError, Present};
pub use output::{OutputQueue, QueueError, Returned};
pub use queue::{AllocateError, CaptureQueue, ExportedBuffer, ExportedPlane, Requeue, RequeueError, StartError};
pub use readiness::Readiness;
pub use sink::V4l2Sink;
pub use src::{Memory, V4l2Src};
