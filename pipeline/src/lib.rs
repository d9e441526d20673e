//! The graph engine: elements joined by links, negotiated as a whole, run by a thread for each domain.
#![allow(clippy::result_large_err)]

pub mod domain;
pub mod element;
pub mod file;
pub mod frame;
pub mod graph;
pub mod nearest;
pub mod offer;
pub mod outline;
pub mod placeholder;
pub mod plan;
pub mod property;
pub mod queue;
pub mod reference;
mod ring;
pub mod run;
pub mod solve;
mod spin;
pub mod stats;
pub mod supervise;
mod sync;

pub use domain::{Alarm, Context, Events, Start, Waker, Watch};
pub use element::{Element, Environment, Failure, FailureKind, Ports, Refusal, Role};
pub use file::FileError;
pub use frame::{Colorimetry, Frame, Matrix, Range, Rect, Timestamp};
pub use graph::{Copies, Graph, GraphError, NodeId};
pub use offer::{
    Composition, Consumes, InputOffer, Layer, Modifiers, Origin, OutputOffer, Produces, Rate, Rates, SetBy, Size,
    SizeOffer, Sizes, Stream, Video, Wanted,
};
pub use property::{Build, BuildError, ElementType};
pub use queue::{Full, QueueSpec};
