//! What a user is told when there is no solution: which link, why, and what would make it work.

use super::obstacle::Obstacle;
use crate::element::Failure;
use crate::graph::{Graph, PlacedGraphError, Span};
use crate::offer::Stream;

/// Most refusals that a message shows.
const SHOWN: usize = 3;

/// Why a graph cannot run as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// The graph is none: a cycle, a port without a link, no elements.
    #[error(transparent)]
    Graph(#[from] PlacedGraphError),
    /// An element could not say what it can do, or a converter could not be put in.
    #[error("{failure}")]
    Element {
        /// The element and what is wrong with it.
        #[source]
        failure: Failure,
        /// Where the element is described.
        span: Option<Span>,
    },
    /// The offers of a producer and its consumers have nothing in common.
    #[error("{}{obstacle}{}{}", heading(.link, .obstacle), origin_of(.made_of), .advice.lines(goal(.obstacle)))]
    Link {
        /// `camera → display`; several consumers where each alone would do.
        link: String,
        /// What they lack.
        obstacle: Obstacle,
        /// The transform that is the producer, and what it gets.
        made_of: Option<(String, Stream)>,
        /// What would help.
        advice: Advice,
        /// Where the link, or the element that is at fault alone, is described.
        span: Option<Span>,
    },
    /// The graph holds more buffers at once than the producer can have.
    #[error("{link}: not enough buffers: {}; {producer} gives at most {most}{}", sum(.holders), .advice.lines("zero-copy"))]
    Buffers {
        /// `camera → display, encoder`.
        link: String,
        /// The producer.
        producer: String,
        /// Elements and the frames that each holds, the producer's own first.
        holders: Vec<(String, u32)>,
        /// Most buffers that the producer can have.
        most: u32,
        /// What would help.
        advice: Advice,
        /// Where the link is described.
        span: Option<Span>,
    },
    /// On paper they agree, but every candidate was refused when tried with real buffers.
    #[error("{link}: every candidate was refused when tried{}{}", trials(.tried, *.untried), .advice.lines("zero-copy"))]
    Refused {
        /// `camera → display`.
        link: String,
        /// Candidates and why each was refused.
        tried: Vec<String>,
        /// Candidates left when the limit of trials was reached.
        untried: usize,
        /// What would help.
        advice: Advice,
        /// Where the link is described.
        span: Option<Span>,
    },
}

impl NegotiationError {
    /// Where in a file the fault is, if the graph came from one.
    pub fn span(&self) -> Option<Span> {
        match self {
            NegotiationError::Graph(e) => e.span.clone(),
            NegotiationError::Element { span, .. }
            | NegotiationError::Link { span, .. }
            | NegotiationError::Buffers { span, .. }
            | NegotiationError::Refused { span, .. } => span.clone(),
        }
    }

    /// What would help, where something may.
    pub(super) fn advice(&mut self) -> Option<&mut Advice> {
        match self {
            NegotiationError::Graph(_) | NegotiationError::Element { .. } => None,
            NegotiationError::Link { advice, .. }
            | NegotiationError::Buffers { advice, .. }
            | NegotiationError::Refused { advice, .. } => Some(advice),
        }
    }

    /// As a part of another message.
    pub(super) fn in_one_line(&self) -> String {
        match self {
            NegotiationError::Refused { tried, .. } if !tried.is_empty() => tried[0].clone(),
            other => other.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }

    /// Whether an element of the user's has failed.
    pub(super) fn is_of_users(&self, graph: &Graph) -> bool {
        matches!(self, NegotiationError::Element { .. }) && self.of_inserted(graph).is_none()
    }

    /// What failed, where that is an element that negotiation put into `graph`.
    pub(super) fn of_inserted(&self, graph: &Graph) -> Option<String> {
        let NegotiationError::Element { failure, .. } = self else { return None };
        graph.nodes.iter().any(|n| n.inserted && failure.element() == Some(&n.name)).then(|| failure.to_string())
    }
}

/// What would help; shown as lines of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advice {
    /// Ways to have it without a copy.
    pub zero_copy: Vec<String>,
    /// What a conversion would cost, or why there is none; of each kind that there is.
    pub conversions: Vec<String>,
}

impl Advice {
    /// A line for what would make it `zero-copy` (or `work` at all), and one for each kind of conversion.
    fn lines(&self, goal: &str) -> String {
        let mut lines = String::new();
        if !self.zero_copy.is_empty() {
            lines.push_str(&format!("\nTo make it {goal}: {}.", self.zero_copy.join("; or ")));
        }
        for conversion in &self.conversions {
            lines.push_str(&format!("\n{conversion}."));
        }
        lines
    }
}

/// `camera keeps 2, display holds 2, queue room holds 3 = 7`.
pub(super) fn sum(holders: &[(String, u32)]) -> String {
    let does = |i| if i == 0 { "keeps" } else { "holds" };
    let each: Vec<String> =
        holders.iter().enumerate().map(|(i, (name, n))| format!("{name} {} {n}", does(i))).collect();
    let total: u64 = holders.iter().map(|(_, n)| u64::from(*n)).sum();
    format!("{} = {total}", each.join(", "))
}

fn heading(link: &str, obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::NotOffered { .. } => String::new(),
        _ => format!("{link}: "),
    }
}

/// Without what was asked for there is no link yet that could be zero-copy.
fn goal(obstacle: &Obstacle) -> &'static str {
    match obstacle {
        Obstacle::NotOffered { .. } => "work",
        _ => "zero-copy",
    }
}

fn origin_of(made_of: &Option<(String, Stream)>) -> String {
    made_of.as_ref().map(|(name, stream)| format!("\n{name} makes it of {stream}")).unwrap_or_default()
}

fn trials(tried: &[String], untried: usize) -> String {
    let mut lines: String = tried.iter().take(SHOWN).map(|t| format!("\n  {t}")).collect();
    if tried.len() > SHOWN {
        lines.push_str(&format!("\n  and {} more", tried.len() - SHOWN));
    }
    if untried > 0 {
        lines.push_str(&format!("\n  {untried} candidates were not tried any more"));
    }
    lines
}
