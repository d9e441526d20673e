//! Graphs: elements by name, and links between their ports.

mod error;
mod order;

use std::sync::Arc;
use std::time::Duration;

use shrbuf::Ledger;

use crate::element::{Element, Environment, Ports, Role};
use crate::nearest::nearest;
use crate::offer::Composition;
use crate::placeholder::Standby;
use crate::queue::{Queue, QueueSpec};
use crate::stats::NodeStats;

pub use error::{GraphError, PlacedGraphError};

crate::choices! {
    /// What to do where a link would need the CPU to copy or convert.
    #[derive(Default)]
    pub enum Copies {
        /// Refuse, and say what would make it zero-copy.
        #[default]
        Deny = "deny",
        /// Insert the cheapest converter and say so.
        Warn = "warn",
        /// Insert the cheapest converter.
        Allow = "allow",
    }
}

/// An element's number in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) usize);

/// A place in a TOML file: bytes from its start, and how many.
pub type Span = std::ops::Range<usize>;

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) element: Box<dyn Element>,
    pub(crate) span: Option<Span>,
    /// Kept over restarts.
    pub(crate) stats: Arc<NodeStats>,
    /// Put in by negotiation, not by the user.
    pub(crate) inserted: bool,
    pub(crate) standby: Option<Standby>,
    /// A domain has the element.
    pub(crate) lent: bool,
}

/// A port of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Port {
    /// Element.
    pub node: NodeId,
    /// Index among its inputs or outputs.
    pub port: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) from: Port,
    pub(crate) to: Port,
    pub(crate) span: Option<Span>,
}

/// Elements and links, not negotiated yet.
pub struct Graph {
    pub(crate) name: String,
    pub(crate) copies: Copies,
    pub(crate) retry: Option<Duration>,
    pub(crate) ledger: Ledger,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Vec<Link>,
}

impl Graph {
    /// An empty graph. Copies are denied.
    pub fn new(name: &str) -> Graph {
        Graph {
            name: name.to_owned(),
            copies: Copies::Deny,
            retry: None,
            ledger: Ledger::default(),
            nodes: Vec::new(),
            links: Vec::new(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What to do where a copy would be needed.
    pub fn set_copies(&mut self, copies: Copies) {
        self.copies = copies;
    }

    /// How long to keep trying after a device is unplugged or fails; `None`, the default, is to stop at once.
    pub fn set_retry(&mut self, retry: Option<Duration>) {
        self.retry = retry;
    }

    /// How long to keep trying after a device is unplugged or fails.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The copy ledger of everything in this graph.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Adds an element.
    ///
    /// # Errors
    /// A name that is taken, or is none.
    pub fn add(&mut self, name: &str, element: Box<dyn Element>) -> Result<NodeId, GraphError> {
        let usable = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(usable) {
            return Err(GraphError::BadName { name: name.to_owned() });
        }
        self.push(name, element)
    }

    /// Adds an element whose name may hold what users' names may not.
    pub(crate) fn push(&mut self, name: &str, element: Box<dyn Element>) -> Result<NodeId, GraphError> {
        // What negotiation put in lies behind the user's elements, so that their numbers stay.
        self.remove_inserted();
        self.append(name, element)
    }

    fn append(&mut self, name: &str, mut element: Box<dyn Element>) -> Result<NodeId, GraphError> {
        if self.nodes.iter().any(|n| n.name == name) {
            return Err(GraphError::DuplicateName { name: name.to_owned() });
        }
        let stats: Arc<NodeStats> = Arc::default();
        let held = Arc::clone(stats.held());
        element.join(&Environment { held, ..Environment::new(name, self.ledger.clone()) });
        let name = name.to_owned();
        self.nodes.push(Node { name, element, span: None, stats, inserted: false, standby: None, lent: false });
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// Puts a filter into the link that leads to `to`, until [`Graph::remove_inserted`].
    ///
    /// # Errors
    /// A name that is taken.
    pub(crate) fn insert_before(&mut self, to: Port, name: &str, element: Box<dyn Element>) -> Result<(), GraphError> {
        let Some(at) = self.links.iter().position(|l| l.to == to) else {
            return Ok(());
        };
        let node = self.append(name, element)?;
        self.nodes[node.0].inserted = true;
        self.nodes[node.0].element.allow_copies(self.copies);
        let inserted = Port { node, port: 0 };
        self.links[at].to = inserted;
        let span = self.links[at].span.clone();
        self.nodes[node.0].span.clone_from(&span);
        self.links.insert(at + 1, Link { from: inserted, to, span });
        Ok(())
    }

    /// Puts what composes between the inputs of `to` and those linked to them, until [`Graph::remove_inserted`].
    ///
    /// # Errors
    /// A name that is taken.
    pub(crate) fn compose_before(
        &mut self,
        to: NodeId,
        name: &str,
        element: Box<dyn Element>,
        composition: &Composition,
    ) -> Result<(), GraphError> {
        let node = self.append(name, element)?;
        self.nodes[node.0].inserted = true;
        self.nodes[node.0].element.allow_copies(self.copies);
        self.nodes[to.0].element.take_composed(Some(composition));
        self.links.iter_mut().filter(|l| l.to.node == to).for_each(|l| l.to.node = node);
        let span = self.nodes[to.0].span.clone();
        self.nodes[node.0].span.clone_from(&span);
        self.links.push(Link { from: Port { node, port: 0 }, to: Port { node: to, port: 0 }, span });
        Ok(())
    }

    /// Takes out what negotiation put in: what is left is the user's graph.
    pub fn remove_inserted(&mut self) {
        self.remove_inserted_from(0);
    }

    /// As [`Graph::remove_inserted`], but leaves those among the first `keep` elements.
    pub(crate) fn remove_inserted_from(&mut self, keep: usize) {
        while self.nodes.len() > keep && self.nodes.last().is_some_and(|n| n.inserted) {
            let composes = self.nodes.pop().is_some_and(|n| n.element.ports().inputs.len() > 1);
            let gone = self.nodes.len();
            if let Some(out) = self.links.iter().position(|l| l.from.node.0 == gone) {
                let to = self.links.remove(out).to;
                // What composes has the inputs of the element that it is for, in their order.
                let back = |port| if composes { Port { port, ..to } } else { to };
                self.links.iter_mut().filter(|l| l.to.node.0 == gone).for_each(|l| l.to = back(l.to.port));
                if composes {
                    self.nodes[to.node.0].element.take_composed(None);
                }
            }
        }
    }

    /// The element called `name`.
    pub fn node(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|n| n.name == name).map(NodeId)
    }

    /// Notes where in a file an element is described.
    pub fn set_span(&mut self, node: NodeId, span: Span) {
        self.nodes[node.0].span = Some(span);
    }

    /// Links the only (or next free) output of `from` to the only (or next free) input of `to`.
    ///
    /// # Errors
    /// No free port.
    pub fn link(&mut self, from: NodeId, to: NodeId) -> Result<(), GraphError> {
        let (from, to) = (self.free_output(from)?, self.free_input(to)?);
        self.link_ports(from, to, None)
    }

    /// As [`Graph::link`] with a queue between, which puts the two into different threads.
    ///
    /// # Errors
    /// No free port.
    pub fn link_queued(&mut self, from: NodeId, to: NodeId, queue: QueueSpec) -> Result<(), GraphError> {
        let (from, to) = (self.free_output(from)?, self.free_input(to)?);
        self.link_ports_queued(from, to, queue, None)
    }

    /// Links two ports; `span` is where a file says so.
    ///
    /// # Errors
    /// A port that is linked already.
    pub fn link_ports(&mut self, from: Port, to: Port, span: Option<Span>) -> Result<(), GraphError> {
        if self.links.iter().any(|l| l.from == from) {
            return Err(self.taken(from, "output"));
        }
        if self.links.iter().any(|l| l.to == to) {
            return Err(self.taken(to, "input"));
        }
        self.links.push(Link { from, to, span });
        Ok(())
    }

    /// As [`Graph::link_ports`] with a queue between.
    ///
    /// # Errors
    /// A port that is linked already.
    pub fn link_ports_queued(
        &mut self,
        from: Port,
        to: Port,
        queue: QueueSpec,
        span: Option<Span>,
    ) -> Result<(), GraphError> {
        let name = format!("{}→{}", self.port_name(from, false), self.port_name(to, true));
        let node = self.push(&name, Box::new(Queue(queue)))?;
        self.nodes[node.0].span.clone_from(&span);
        self.link_ports(from, Port { node, port: 0 }, span.clone())?;
        self.link_ports(Port { node, port: 0 }, to, span)
    }

    /// The port that `path` (`element` or `element.port`) means as an output.
    ///
    /// # Errors
    /// No such element or port, or none free.
    pub fn output(&mut self, path: &str) -> Result<Port, GraphError> {
        let (node, port) = self.find(path)?;
        let Some(port) = port else {
            return self.free_output(node);
        };
        let known = self.ports(node).outputs;
        self.named(node, "output", port, known)
    }

    /// The port that `path` (`element` or `element.port`) means as an input.
    ///
    /// # Errors
    /// No such element or port, or none free.
    pub fn input(&mut self, path: &str) -> Result<Port, GraphError> {
        let (node, port) = self.find(path)?;
        let Some(port) = port else {
            return self.free_input(node);
        };
        let known = self.ports(node).inputs;
        self.named(node, "input", port, known)
    }

    fn named(&self, node: NodeId, direction: &'static str, port: &str, known: Vec<String>) -> Result<Port, GraphError> {
        match known.iter().position(|p| p == port) {
            Some(port) => Ok(Port { node, port }),
            None => Err(GraphError::UnknownPort {
                element: self.nodes[node.0].name.clone(),
                direction,
                port: port.to_owned(),
                nearest: nearest(port, known.iter().map(String::as_str)).map(str::to_owned),
                known,
            }),
        }
    }

    fn find<'a>(&self, path: &'a str) -> Result<(NodeId, Option<&'a str>), GraphError> {
        let (name, port) = match path.split_once('.') {
            Some((name, port)) => (name, Some(port)),
            None => (path, None),
        };
        match self.node(name) {
            Some(node) => Ok((node, port)),
            None => {
                let known: Vec<_> = self.nodes.iter().map(|n| n.name.clone()).filter(|n| !n.contains('→')).collect();
                Err(GraphError::UnknownElement {
                    name: name.to_owned(),
                    nearest: nearest(name, known.iter().map(String::as_str)).map(str::to_owned),
                    known,
                })
            }
        }
    }

    fn free_output(&mut self, node: NodeId) -> Result<Port, GraphError> {
        let ports = self.ports(node).outputs;
        let taken = |port: usize| self.links.iter().any(|l| l.from == Port { node, port });
        if let Some(port) = (0..ports.len()).find(|&p| !taken(p)) {
            return Ok(Port { node, port });
        }
        if let Some(port) = self.nodes[node.0].element.request_output() {
            return Ok(Port { node, port });
        }
        Err(self.none_free(node, "output", &ports))
    }

    fn free_input(&self, node: NodeId) -> Result<Port, GraphError> {
        let ports = self.ports(node).inputs;
        let taken = |port: usize| self.links.iter().any(|l| l.to == Port { node, port });
        match (0..ports.len()).find(|&p| !taken(p)) {
            Some(port) => Ok(Port { node, port }),
            None => Err(self.none_free(node, "input", &ports)),
        }
    }

    fn none_free(&self, node: NodeId, direction: &'static str, ports: &[String]) -> GraphError {
        let element = self.nodes[node.0].name.clone();
        match ports.first() {
            Some(port) => GraphError::PortTaken { element, port: port.clone(), direction },
            None => GraphError::UnknownPort {
                element,
                direction,
                port: if direction == "output" { "out".into() } else { "in".into() },
                nearest: None,
                known: Vec::new(),
            },
        }
    }

    fn taken(&self, port: Port, direction: &'static str) -> GraphError {
        let ports = self.ports(port.node);
        let names = if direction == "output" { ports.outputs } else { ports.inputs };
        GraphError::PortTaken {
            element: self.nodes[port.node.0].name.clone(),
            port: names.get(port.port).cloned().unwrap_or_default(),
            direction,
        }
    }

    pub(crate) fn ports(&self, node: NodeId) -> Ports {
        self.nodes[node.0].element.ports()
    }

    pub(crate) fn role(&self, node: NodeId) -> Role {
        self.nodes[node.0].element.role()
    }

    /// `element`, or `element.port` where it has several.
    pub(crate) fn port_name(&self, port: Port, input: bool) -> String {
        let ports = self.ports(port.node);
        let names = if input { ports.inputs } else { ports.outputs };
        let element = &self.nodes[port.node.0].name;
        match names.get(port.port) {
            Some(name) if names.len() > 1 => format!("{element}.{name}"),
            _ => element.clone(),
        }
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graph `{}` of {} elements and {} links", self.name, self.nodes.len(), self.links.len())
    }
}
