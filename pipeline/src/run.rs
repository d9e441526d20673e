//! A graph while it runs: cut into domains, a thread each, watched and ended from outside.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::domain::{Context, Control, Domain, Slot, Target};
use crate::element::{Element, Failure, FailureKind, Ports, Role};
use crate::frame::Frame;
use crate::graph::{Graph, Port};
use crate::ring::{Bell, Ring};
use crate::stats::NodeCounts;

/// Holds an element's place in the graph while a domain has the element.
struct Away;

impl Element for Away {
    fn ports(&self) -> Ports {
        Ports::default()
    }

    fn process(&mut self, _input: usize, _frame: Frame, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// A graph that runs. Dropping it stops it and waits for its threads.
pub struct Running {
    graph: Graph,
    control: Arc<Control>,
    bells: Vec<Arc<Bell>>,
    threads: Vec<JoinHandle<(Domain, Result<(), Failure>)>>,
    done: Receiver<()>,
    left: usize,
}

/// A graph that has run, ready to be negotiated and run again.
pub struct Ended {
    /// The graph.
    pub graph: Graph,
    /// Why it ended before its time; the first failure where there were several.
    pub failure: Option<Failure>,
}

/// Counters of an element by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElementCounts {
    /// The element's name in the graph.
    pub name: String,
    /// What the engine counts.
    pub counts: NodeCounts,
    /// What the element itself counts; empty while it runs.
    pub own: Vec<(&'static str, u64)>,
}

impl Graph {
    /// What each element has counted so far, over all runs of this graph.
    pub fn counts(&self) -> Vec<ElementCounts> {
        let nodes = self.nodes.iter();
        nodes
            .map(|n| {
                let mut own = Vec::new();
                n.element.counters(&mut |name, value| own.push((name, value)));
                ElementCounts { name: n.name.clone(), counts: n.stats.read(), own }
            })
            .collect()
    }
}

/// Starts a graph that has been negotiated. `frames` limits how many each source sends in all runs of this graph.
///
/// # Errors
/// The graph, and the failure of the element that did not start; those that did have been stopped.
pub fn start(mut graph: Graph, frames: Option<u64>) -> Result<Running, Box<Ended>> {
    let control = Arc::new(Control::default());
    let (mut domains, bells) = match cut(&mut graph, frames, &control) {
        Ok(cut) => cut,
        Err(failure) => return Err(Box::new(Ended { graph, failure: Some(failure) })),
    };
    // Sinks lie in later domains; they are ready before a source sends.
    for i in (0..domains.len()).rev() {
        if let Err(failure) = domains[i].start() {
            domains[i + 1..].iter_mut().for_each(Domain::stop);
            domains.into_iter().for_each(|d| put_back(&mut graph, d));
            return Err(Box::new(Ended { graph, failure: Some(failure) }));
        }
    }
    let (sender, done) = channel();
    let mut running = Running { graph, control, bells, threads: Vec::new(), done, left: 0 };
    for (i, domain) in domains.into_iter().enumerate() {
        if let Err(failure) = running.spawn(i, domain, sender.clone()) {
            running.stop();
            let mut ended = running.join();
            ended.failure = Some(failure);
            return Err(Box::new(ended));
        }
    }
    Ok(running)
}

/// Takes the elements out of the graph into domains, in topological order of both.
fn cut(
    graph: &mut Graph,
    frames: Option<u64>,
    control: &Arc<Control>,
) -> Result<(Vec<Domain>, Vec<Arc<Bell>>), Failure> {
    let order = graph.check().map_err(|e| Failure::new(FailureKind::Config, e))?;
    // Numbers of domains and of slots in them, in topological order.
    let domain_of = graph.domains();
    let mut roots: Vec<usize> = Vec::new();
    let mut place = vec![(0, 0); graph.nodes.len()];
    let mut sizes: Vec<usize> = Vec::new();
    for node in &order {
        let r = domain_of[node.0];
        let d = roots.iter().position(|&known| known == r).unwrap_or_else(|| {
            roots.push(r);
            sizes.push(0);
            roots.len() - 1
        });
        place[node.0] = (d, sizes[d]);
        sizes[d] += 1;
    }

    let os = |e| Failure::new(FailureKind::Limit, format!("no descriptor for a domain's loop: {e}"));
    let bells = roots.iter().map(|_| Bell::new().map(Arc::new)).collect::<Result<Vec<_>, _>>().map_err(os)?;
    let mut domains = bells
        .iter()
        .map(|bell| Domain::new(Arc::clone(bell), Arc::clone(control)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(os)?;

    for node in order {
        let mut outputs = Vec::new();
        for port in 0..graph.ports(node).outputs.len() {
            let Some(l) = graph.links.iter().find(|l| l.from == Port { node, port }) else {
                outputs.push(Target::Nowhere);
                continue;
            };
            let (d, slot) = place[l.to.node.0];
            let input = l.to.port;
            outputs.push(match graph.role(l.to.node) {
                Role::Queue(spec) => {
                    let stats = Arc::clone(&graph.nodes[l.to.node.0].stats);
                    let ring = Arc::new(Ring::new(spec, Arc::clone(&bells[d]), stats));
                    domains[d].rings.push((Arc::clone(&ring), slot, input));
                    Target::Ring(ring)
                }
                _ => Target::Local { slot, input },
            });
        }
        let n = &mut graph.nodes[node.0];
        if outputs.is_empty() {
            n.stats.keep_latency();
        }
        let limit = frames.map(|f| f.saturating_sub(n.stats.read().frames));
        let element = std::mem::replace(&mut n.element, Box::new(Away));
        let (d, _) = place[node.0];
        let (name, stats) = (n.name.clone(), Arc::clone(&n.stats));
        domains[d].slots.push(Slot::new(name, element, node.0, outputs, stats, limit, Arc::clone(control)));
    }
    Ok((domains, bells))
}

fn put_back(graph: &mut Graph, mut domain: Domain) {
    for slot in domain.slots.drain(..) {
        graph.nodes[slot.node].element = slot.element;
    }
}

/// Tells the owner that a thread is over, and the others to stop where it ends badly, even by a panic.
struct Last {
    sender: Sender<()>,
    control: Arc<Control>,
    bells: Vec<Arc<Bell>>,
    well: bool,
}

impl Drop for Last {
    fn drop(&mut self) {
        if !self.well {
            self.control.stop();
            self.bells.iter().for_each(|b| b.ring());
        }
        // Nobody listens where `Running` has been dropped.
        let _ = self.sender.send(());
    }
}

impl Running {
    fn spawn(&mut self, number: usize, mut domain: Domain, sender: Sender<()>) -> Result<(), Failure> {
        let mut last = Last { sender, control: Arc::clone(&self.control), bells: self.bells.clone(), well: false };
        let thread = std::thread::Builder::new().name(format!("shrbuf-{number}")).spawn(move || {
            let result = domain.run();
            last.well = result.is_ok();
            drop(last);
            (domain, result)
        });
        self.threads.push(thread.map_err(|e| Failure::new(FailureKind::Limit, format!("no thread: {e}")))?);
        self.left += 1;
        Ok(())
    }

    /// **Blocks** until the run is over or `timeout` has passed; true where it is over.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        while self.left > 0 {
            match self.done.recv_timeout(timeout) {
                Ok(()) => self.left -= 1,
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => self.left = 0,
            }
        }
        true
    }

    /// Has the sources end; what is on its way arrives. Does not block.
    pub fn end(&self) {
        self.control.end();
        self.bells.iter().for_each(|b| b.ring());
    }

    /// Whether the sources have been told to end, from here or by an element.
    pub(crate) fn is_ending(&self) -> bool {
        self.control.is_ending()
    }

    /// Has everything stop at its next step. Does not block.
    pub fn stop(&self) {
        self.control.stop();
        self.bells.iter().for_each(|b| b.ring());
    }

    /// The graph, for its counters.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Whether a device that a placeholder stands in for has answered.
    pub(crate) fn device_is_back(&mut self) -> bool {
        self.graph.device_is_back()
    }

    /// **Blocks** until the run is over, and gives the graph back.
    pub fn join(mut self) -> Ended {
        let failure = self.collect();
        let graph = std::mem::replace(&mut self.graph, Graph::new(""));
        Ended { graph, failure }
    }

    fn collect(&mut self) -> Option<Failure> {
        let mut first = None;
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok((domain, result)) => {
                    put_back(&mut self.graph, domain);
                    first = first.or(result.err());
                }
                Err(panic) => {
                    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
                    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                    first.get_or_insert_with(|| {
                        Failure::new(FailureKind::Device, format!("an element panicked: {text}"))
                    });
                }
            }
        }
        first
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stop();
            self.collect();
        }
    }
}
