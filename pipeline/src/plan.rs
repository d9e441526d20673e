//! What negotiation decided, for those who run it and those who ask why.

use shrbuf::MemoryKind;

use crate::offer::Stream;

/// One link of the graph as it will run, in the order of the graph's links; a link that got a converter is two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPlan {
    /// Element, or `element.port` where it has several outputs.
    pub from: String,
    /// Element, or `element.port` where it has several inputs.
    pub to: String,
    /// What flows.
    pub stream: Stream,
    /// Bytes from row to row of the first plane.
    pub stride: u32,
    /// What holds the memory.
    pub memory: MemoryKind,
    /// False where the picture is written a second time to get it over this link: by the CPU, or by whoever takes it
    /// outside of this process.
    pub zero_copy: bool,
    /// Why it is so: why this format and memory, or why a copy is needed.
    pub reason: String,
}

/// Who holds how many of a stream's buffers at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The producer.
    pub producer: String,
    /// Elements and the frames each holds, the producer's own first.
    pub holders: Vec<(String, u32)>,
    /// Buffers that the producer made.
    pub granted: u32,
}

/// The whole graph as it will run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every link.
    pub links: Vec<LinkPlan>,
    /// Every producer's buffers.
    pub budgets: Vec<Budget>,
    /// What was tried before and refused, in order: "camera → display as YUYV: …".
    pub rejected: Vec<String>,
}

impl Plan {
    /// True where no link copies.
    pub fn is_zero_copy(&self) -> bool {
        self.links.iter().all(|l| l.zero_copy)
    }
}
