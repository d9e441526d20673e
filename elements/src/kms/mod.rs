//! Kernel mode setting: frames on displays, without a copy.
//!
//! # How am I supposed to use this?
//! [`Card::open`] a card, [`Output::find`] a display on it, [`Output::plan`] how it could show your frames. Import
//! each buffer once ([`FrameBuffer::of_shrbuf`]), [`Screen::start`] with the first, then [`Screen::flip`] for each
//! frame and wait for its event ([`Card::read_events`]). Drop the [`Screen`], and what was there before is back.
//!
//! ```no_run
//! use shrbuf_elements::kms::{Card, EventBuffer, Flip, FrameBuffer, Output, Screen};
//! # fn frames() -> Vec<shrbuf::Shrbuf> { Vec::new() }
//! let card = Card::open("/dev/dri/card0")?;
//! let output = Output::find(&card, None)?;
//! let frames: Vec<FrameBuffer> =
//!     frames().iter().map(|f| FrameBuffer::of_shrbuf(&card, f)).collect::<Result<_, _>>()?;
//! let placement = output.plan_for(&frames[0])?.remove(0);
//! let flip = |frame, user_data| Flip { frame, in_fence: None, color: Default::default(), user_data };
//! let mut screen = Screen::start(&output, &placement, None, &flip(&frames[0], 0))?;
//! screen.flip(&flip(&frames[1], 1))?; // once the first one's event has come
//! for event in card.read_events(&mut EventBuffer::new())? {
//!     println!("frame {} is on screen since {} ns", event.user_data, event.time_ns);
//! }
//! screen.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What lives where
//! | module | story |
//! | --- | --- |
//! | [`device`], [`formats`] | the card: what it has, whether it is ours |
//! | [`gem`], [`import`], [`dumb`] | frame buffers, of dma-bufs and of the card's own memory; why one is refused |
//! | [`output`], [`placement`] | a display, and the ways in which it can show a frame |
//! | [`arrange`], [`planes`] | several frames on it, each on a plane |
//! | [`commit`], [`event`] | the screen while it shows frames |
//! | `sink`, `show` | the element `kms-sink`: what it negotiates, and what it does with frames |
//! | `capture` | the element `kms-capture`, which is read back as well |
//! | `share` | several displays of one card |
//! | [`writeback`] | reading the screen back |
//! | [`restore`] | what was there before |
//! | `render` | nodes that display nothing |

pub mod arrange;
mod capture;
mod color;
pub mod commit;
pub mod device;
pub mod dumb;
pub mod event;
mod failure;
pub mod formats;
pub mod gem;
pub mod import;
pub mod output;
pub mod placement;
pub mod planes;
mod props;
mod render;
pub mod restore;
mod share;
mod show;
mod sink;
mod state;
mod sys;
pub mod writeback;

pub use arrange::{ArrangeError, Layer, NoPlane};
pub use capture::KmsCapture;
pub use commit::{CommitError, Flip, Screen};
pub use device::{Card, CardInfo, ConnectorInfo, DeviceError, PlaneInfo};
pub use dumb::DumbBuffer;
pub use event::{EventBuffer, FlipEvent, FlipEvents};
pub use formats::PlaneFormats;
pub use gem::{FrameBuffer, FramePlane, FrameSpec};
pub use import::ImportError;
pub use output::{Output, OutputError, Placement, refresh_ns};
pub use placement::{Fit, Offer, PlanError, Try};
pub use planes::{Planes, Spot};
pub use render::{RenderNode, render_nodes};
pub use restore::RestoreError;
pub use sink::{KmsSink, OnCapture, Order};
pub use state::Rect;
pub use writeback::Writeback;
