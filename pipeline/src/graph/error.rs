//! What is wrong with a graph.

use super::Span;

/// What is wrong with a graph, before anybody is asked for an offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Two elements of one name.
    #[error("there are two elements called `{name}`; names are unique in a graph")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A name that cannot be used in a path.
    #[error("`{name}` cannot be an element's name: use letters, digits, `-` and `_`")]
    BadName {
        /// The name.
        name: String,
    },
    /// A link names an element that is not there.
    #[error("there is no element `{name}`{}; elements are {}", hint(.nearest), .known.join(", "))]
    UnknownElement {
        /// The name.
        name: String,
        /// The one most like it.
        nearest: Option<String>,
        /// All there are.
        known: Vec<String>,
    },
    /// A link names a port that is not there.
    #[error("`{element}` has no {direction}{}", which(.port, .nearest, .known))]
    UnknownPort {
        /// The element.
        element: String,
        /// `input` or `output`.
        direction: &'static str,
        /// The name.
        port: String,
        /// The one most like it.
        nearest: Option<String>,
        /// All there are.
        known: Vec<String>,
    },
    /// A port is linked twice.
    #[error("{direction} `{element}.{port}` is linked already; {}", if *.direction == "output" { "put a `tee` there to send frames to several" } else { "an input takes one link" })]
    PortTaken {
        /// The element.
        element: String,
        /// The port.
        port: String,
        /// `input` or `output`.
        direction: &'static str,
    },
    /// Frames would go round.
    #[error("the links form a cycle: {}", .path.join(" → "))]
    Cycle {
        /// Names along it; the first is also the last.
        path: Vec<String>,
    },
    /// A port without a link.
    #[error("{direction} `{element}.{port}` is not linked; {}", if *.direction == "output" { "link it to a sink (`null-sink` drops frames)" } else { "link an element to it" })]
    Dangling {
        /// The element.
        element: String,
        /// The port.
        port: String,
        /// `input` or `output`.
        direction: &'static str,
    },
    /// A placeholder that cannot take the element's place.
    #[error("the placeholder of `{element}` cannot take its place: {}", unlike(*.end))]
    Placeholder {
        /// The element.
        element: String,
        /// It is a source or a sink.
        end: bool,
    },
    /// Elements whose thread did not stop in an earlier run.
    #[error("threads did not stop when the graph last ran, and have {} still; build the graph again", .elements.join(", "))]
    Lost {
        /// The elements.
        elements: Vec<String>,
    },
    /// No element at all.
    #[error("the graph has no elements")]
    Empty,
}

fn which(port: &str, nearest: &Option<String>, known: &[String]) -> String {
    if known.is_empty() {
        return "s".into();
    }
    format!(" `{port}`{}; it has {}", hint(nearest), known.join(", "))
}

fn unlike(end: bool) -> &'static str {
    if end {
        "a source's is a source, a sink's is a sink"
    } else {
        "only sources and sinks have one, as their devices may be away"
    }
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default()
}

/// A [`GraphError`] and where in the file it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct PlacedGraphError {
    /// What.
    #[source]
    pub error: GraphError,
    /// Where.
    pub span: Option<Span>,
}
