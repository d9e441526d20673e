//! `queue`.

use shrbuf_pipeline::property::{Build, BuildError};
use shrbuf_pipeline::{Element, Full, QueueSpec};

shrbuf_pipeline::choices! {
    /// What a queue does when it is full.
    pub enum WhenFull {
        /// The elements before it wait; a source that cannot wait drops frames, counted.
        Block = "block",
        /// The oldest frame in it goes, counted.
        DropOldest = "drop-oldest",
        /// It holds one frame, the newest; the others are counted as dropped.
        Latest = "latest",
    }
}

shrbuf_pipeline::properties! {
    /// Room for some frames between two threads.
    ///
    /// Elements after it run in a thread of their own. Every frame it can hold is a buffer more that the source
    /// must have; negotiation adds them up. A link's `queue = { … }` is the short form.
    ///
    /// ```toml
    /// [element.room]
    /// type = "queue"
    /// depth = 4
    /// full = "drop-oldest"
    /// ```
    pub struct Queue = "queue" {
        /// Frames it can hold, 1 or more.
        depth: u32 = 2,
        /// What happens to a frame for which there is no room.
        full: WhenFull = WhenFull::Block,
    }
}

impl Build for Queue {
    fn build(self) -> Result<Box<dyn Element>, BuildError> {
        if self.depth == 0 {
            return Err(BuildError::of("depth", "must be 1 or more"));
        }
        let full = match self.full {
            WhenFull::Block => Full::Block,
            WhenFull::DropOldest => Full::DropOldest,
            WhenFull::Latest => Full::Latest,
        };
        Ok(Box::new(shrbuf_pipeline::queue::Queue(QueueSpec { depth: self.depth, full })))
    }
}
