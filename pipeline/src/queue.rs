//! What a queue does when it is full.

use crate::domain::Context;
use crate::element::{Element, Failure, Ports, Role};
use crate::frame::Frame;

crate::choices! {
    /// When a frame comes and there is no room.
    #[derive(Default)]
    pub enum Full {
        /// The upstream domain waits: nothing is lost here, the source may have to drop.
        #[default]
        Block = "block",
        /// The oldest frame goes (a leaky queue), counted.
        DropOldest = "drop-oldest",
        /// Only the newest frame is kept (a mailbox), the others counted.
        Latest = "latest",
    }
}

/// A queue's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueueSpec {
    /// Frames it can hold, 1 or more; `Latest` holds one whatever it says.
    pub depth: u32,
    /// When full.
    pub full: Full,
}

impl QueueSpec {
    /// Frames it holds at most.
    pub fn capacity(self) -> u32 {
        if self.full == Full::Latest { 1 } else { self.depth.max(1) }
    }
}

impl Default for QueueSpec {
    fn default() -> QueueSpec {
        QueueSpec { depth: 2, full: Full::Block }
    }
}

/// A queue in a graph. The engine cuts the graph here and puts a ring in its place.
#[derive(Debug, Clone, Copy)]
pub struct Queue(pub QueueSpec);

impl Element for Queue {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Queue(self.0)
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        // Only a domain's plan would bring it here; passing on is what it means.
        context.push(0, frame)
    }
}
