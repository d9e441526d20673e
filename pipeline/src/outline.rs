//! A graph's shape, for those who draw or describe it.

use crate::element::Role;
use crate::graph::{Graph, Span};

/// Elements, links and threads of a graph.
///
/// ```
/// use shrbuf_pipeline::Graph;
/// assert!(Graph::new("empty").outline().elements.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// Every element, in the order of the graph.
    pub elements: Vec<OutlineElement>,
    /// Every link, in the order of the graph and of [`Plan::links`](crate::plan::Plan::links).
    pub links: Vec<OutlineLink>,
}

/// An element of an [`Outline`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineElement {
    /// Its name; a link's queue is called `from→to`.
    pub name: String,
    /// How its outputs follow from its inputs.
    pub role: Role,
    /// Put in by negotiation, not by the user.
    pub inserted: bool,
    /// False for a source.
    pub has_inputs: bool,
    /// False for a sink.
    pub has_outputs: bool,
    /// Which thread runs it, from 0.
    pub domain: usize,
    /// Where a file describes it.
    pub span: Option<Span>,
}

/// A link of an [`Outline`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineLink {
    /// Index of the element it comes from.
    pub from: usize,
    /// Index of the element it leads to.
    pub to: usize,
    /// `element`, or `element.port` where it has several outputs.
    pub from_port: String,
    /// `element`, or `element.port` where it has several inputs.
    pub to_port: String,
}

impl Graph {
    /// The graph's shape. While the graph runs its elements are elsewhere: ask before or after.
    pub fn outline(&self) -> Outline {
        let domains = self.domains();
        let element = |(i, node): (usize, &crate::graph::Node)| {
            let ports = node.element.ports();
            OutlineElement {
                name: node.name.clone(),
                role: node.element.role(),
                inserted: node.inserted,
                has_inputs: !ports.inputs.is_empty(),
                has_outputs: !ports.outputs.is_empty(),
                domain: domains[i],
                span: node.span.clone(),
            }
        };
        let link = |l: &crate::graph::Link| OutlineLink {
            from: l.from.node.0,
            to: l.to.node.0,
            from_port: self.port_name(l.from, false),
            to_port: self.port_name(l.to, true),
        };
        Outline {
            elements: self.nodes.iter().enumerate().map(element).collect(),
            links: self.links.iter().map(link).collect(),
        }
    }

    /// Each element's domain: links join elements into one, but for links into a queue. Numbered in the order of the
    /// elements.
    pub(crate) fn domains(&self) -> Vec<usize> {
        let mut domain: Vec<usize> = (0..self.nodes.len()).collect();
        for link in &self.links {
            let (a, b) = (domain[link.from.node.0], domain[link.to.node.0]);
            if !matches!(self.role(link.to.node), Role::Queue(_)) {
                domain.iter_mut().filter(|d| **d == b).for_each(|d| *d = a);
            }
        }
        let mut known = Vec::new();
        for d in &mut domain {
            *d = known.iter().position(|k| k == d).unwrap_or_else(|| {
                known.push(*d);
                known.len() - 1
            });
        }
        domain
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::Context;
    use crate::element::{Element, Failure, Ports};
    use crate::frame::Frame;
    use crate::graph::Graph;
    use crate::queue::QueueSpec;

    struct Scripted(Ports);

    impl Element for Scripted {
        fn ports(&self) -> Ports {
            self.0.clone()
        }

        fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
            Ok(())
        }
    }

    #[test]
    fn a_queue_belongs_to_the_domain_behind_it() {
        let mut graph = Graph::new("test");
        let a = graph.add("a", Box::new(Scripted(Ports::source()))).unwrap();
        let b = graph.add("b", Box::new(Scripted(Ports::filter()))).unwrap();
        let c = graph.add("c", Box::new(Scripted(Ports::sink()))).unwrap();
        graph.link(a, b).unwrap();
        graph.link_queued(b, c, QueueSpec::default()).unwrap();
        let outline = graph.outline();
        let domains: Vec<_> = outline.elements.iter().map(|e| (e.name.as_str(), e.domain)).collect();
        assert_eq!(domains, [("a", 0), ("b", 0), ("c", 1), ("b→c", 1)]);
        assert_eq!(outline.links.len(), 3);
        assert_eq!((outline.links[1].from_port.as_str(), outline.links[1].to), ("b", 3));
    }
}
