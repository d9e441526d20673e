//! A graph while it runs: cut into domains, a thread each, watched and ended from outside.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::domain::{Context, Control, Domain, News, Target};
use crate::element::{Element, Failure, FailureKind, Ports, Role};
use crate::frame::Frame;
use crate::graph::{Graph, Node, Port};
use crate::ring::{Bell, Ring};
use crate::stats::NodeCounts;

/// How long the elements of a run that is to stop may take: twice the longest that one waits for its device.
const STOPPING: Duration = Duration::from_secs(3);

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

impl Node {
    /// Its element, for a domain.
    pub(crate) fn lend(&mut self) -> Box<dyn Element> {
        self.lent = true;
        std::mem::replace(&mut self.element, Box::new(Away))
    }
}

/// Every domain of a run, wherever its thread is: at work, asleep, or waiting for room in a ring.
struct Everybody {
    control: Arc<Control>,
    /// With the node of the queue that each stands for.
    rings: Vec<(Arc<Ring>, usize)>,
}

impl Everybody {
    fn stop(&self) {
        self.control.stop();
        self.rings.iter().for_each(|(ring, _)| ring.close());
    }
}

/// A domain's thread.
struct Thread {
    handle: JoinHandle<(Domain, Result<(), Failure>)>,
    /// Elements of the domain that do something, in topological order.
    nodes: Vec<usize>,
    over: bool,
}

/// A graph that runs. Dropping it stops it and waits for its threads, as [`Running::join`] does.
pub struct Running {
    graph: Graph,
    everybody: Arc<Everybody>,
    threads: Vec<Thread>,
    news: Receiver<News>,
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
    let (sender, news) = channel();
    let (mut domains, control) = match cut(&mut graph, frames, sender.clone()) {
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
    let of =
        |d: &Domain| d.rings.iter().map(|(ring, slot, _)| (Arc::clone(ring), d.slots[*slot].node)).collect::<Vec<_>>();
    let rings = domains.iter().flat_map(of).collect();
    let everybody = Arc::new(Everybody { control, rings });
    let mut running = Running { graph, everybody, threads: Vec::new(), news };
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
fn cut(graph: &mut Graph, frames: Option<u64>, owner: Sender<News>) -> Result<(Vec<Domain>, Arc<Control>), Failure> {
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
    let links = order.iter().flat_map(|&node| graph.links.iter().filter(move |l| l.from.node == node));
    let links = links.map(|l| (l.from.node.0, l.to.node.0)).collect();
    let control = Arc::new(Control::new(bells.clone(), graph.nodes.len(), links, owner));
    let mut domains = bells
        .iter()
        .map(|bell| Domain::new(Arc::clone(bell), Arc::clone(&control)))
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
        let limit = frames.map(|f| f.saturating_sub(n.stats.frames()));
        domains[place[node.0].0].add(node.0, n, outputs, limit);
    }
    Ok((domains, control))
}

fn put_back(graph: &mut Graph, mut domain: Domain) {
    for slot in domain.slots.drain(..) {
        let node = &mut graph.nodes[slot.node];
        node.element = slot.element;
        node.lent = false;
    }
}

/// Tells the owner that a thread is over, and the others to stop where it ends badly.
struct Last {
    number: usize,
    sender: Sender<News>,
    everybody: Arc<Everybody>,
    well: bool,
}

impl Drop for Last {
    fn drop(&mut self) {
        if !self.well {
            self.everybody.stop();
        }
        // Nobody listens where `Running` has been dropped.
        let _ = self.sender.send(News::Over(self.number));
    }
}

impl Running {
    fn spawn(&mut self, number: usize, mut domain: Domain, sender: Sender<News>) -> Result<(), Failure> {
        let works = |role| !matches!(role, Role::Queue(_));
        let nodes = domain.slots.iter().filter(|s| works(s.element.role())).map(|s| s.node).collect();
        let mut last = Last { number, sender, everybody: Arc::clone(&self.everybody), well: false };
        let thread = std::thread::Builder::new().name(format!("shrbuf-{number}")).spawn(move || {
            let result = domain.run();
            last.well = result.is_ok();
            drop(last);
            (domain, result)
        });
        let handle = thread.map_err(|e| Failure::new(FailureKind::Limit, format!("no thread: {e}")))?;
        self.threads.push(Thread { handle, nodes, over: false });
        Ok(())
    }

    /// **Blocks** until the run is over or `timeout` has passed; true where it is over.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        let begin = Instant::now();
        while !self.is_over() {
            if !self.wait_for_news(timeout.saturating_sub(begin.elapsed())) {
                return false;
            }
        }
        true
    }

    pub(crate) fn is_over(&self) -> bool {
        self.threads.iter().all(|t| t.over)
    }

    /// **Blocks** until one more thread is over, or everybody has been told to end or to stop, which is true, or `timeout`
    /// has passed. Not to be called of a run that is over.
    pub(crate) fn wait_for_news(&mut self, timeout: Duration) -> bool {
        // Never without a sender: `everybody` has one.
        let Ok(news) = self.news.recv_timeout(timeout) else { return false };
        // A thread that could not be had says so too, and is not among them.
        if let News::Over(number) = news
            && let Some(thread) = self.threads.get_mut(number)
        {
            thread.over = true;
        }
        true
    }

    /// Has the sources end; what is on its way arrives. Does not block.
    pub fn end(&self) {
        self.everybody.control.end();
    }

    /// Whether the sources have been told to end, from here or by an element.
    pub(crate) fn is_ending(&self) -> bool {
        self.everybody.control.is_ending()
    }

    /// Whether everything has been told to stop, from here or by a domain that failed.
    pub(crate) fn is_stopping(&self) -> bool {
        self.everybody.control.is_stopping()
    }

    /// Has everything stop at its next step, and nobody wait for room in a queue any more. Does not block.
    pub fn stop(&self) {
        self.everybody.stop();
    }

    /// The graph, for its counters.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Of each thread the element that it is in at the moment, with the frames that this has had; `None` where it is in none,
    /// or waits for room in a queue: then it is another thread's that takes so long.
    pub(crate) fn inside(&self) -> impl Iterator<Item = Option<(usize, u64)>> {
        let nodes = &self.graph.nodes;
        self.threads.iter().map(|thread| {
            let &node = thread.nodes.iter().rfind(|&&n| nodes[n].stats.is_inside())?;
            let leads_to = |queue| self.graph.links.iter().any(|l| (l.from.node.0, l.to.node.0) == (node, queue));
            let waits = self.everybody.rings.iter().any(|(ring, queue)| ring.is_waited_for() && leads_to(*queue));
            (!waits).then(|| (node, nodes[node].stats.frames()))
        })
    }

    /// When that is worth asking; `None` where no placeholder has a device's place.
    pub(crate) fn asks_again(&self) -> Option<Instant> {
        self.graph.asks_again()
    }

    /// Whether a device that a placeholder stands in for has answered.
    pub(crate) fn device_is_back(&mut self) -> bool {
        self.graph.device_is_back()
    }

    /// **Blocks** until the run is over, and gives the graph back. Once everything is to stop, an element has 3 s for it:
    /// a thread that hangs longer in a system call is left behind with its elements, as a failure that names the one it
    /// hangs in. The graph cannot be run again then.
    pub fn join(mut self) -> Ended {
        let failure = self.collect();
        let graph = std::mem::replace(&mut self.graph, Graph::new(""));
        Ended { graph, failure }
    }

    fn collect(&mut self) -> Option<Failure> {
        let mut stopping = None;
        while !self.is_over() {
            let limit = match self.is_stopping() {
                true => STOPPING.saturating_sub(stopping.get_or_insert_with(Instant::now).elapsed()),
                false => Duration::MAX,
            };
            if !self.wait_for_news(limit) {
                break;
            }
        }
        let (mut changes, mut failures, mut hanging) = (Vec::new(), Vec::<Failure>::new(), Vec::new());
        for thread in std::mem::take(&mut self.threads) {
            if !thread.over {
                hanging.push(self.hangs(&thread.nodes));
                continue;
            }
            match thread.handle.join() {
                Ok((mut domain, result)) => {
                    changes.extend(domain.take_change());
                    put_back(&mut self.graph, domain);
                    failures.extend(result.err());
                }
                // Elements' panics are caught where they happen.
                Err(_) => failures.push(Failure::new(FailureKind::Panic, "a domain's loop; its elements are lost")),
            }
        }
        // What waits for buffers that are kept for the next start has stalled because of the change, and not by itself.
        failures.retain(|f| changes.is_empty() || f.kind() != FailureKind::Stalled);
        let mut failures = failures.into_iter();
        let first = failures.next().or_else(|| (!hanging.is_empty()).then(|| hanging.remove(0)));
        let first = first.or_else(|| changes.into_iter().next());
        hanging.iter().for_each(|failure| tracing::error!("{failure}"));
        first
    }

    /// The failure of a thread with these elements that has not stopped.
    fn hangs(&self, nodes: &[usize]) -> Failure {
        let nodes = || nodes.iter().map(|&n| &self.graph.nodes[n]);
        let inside = nodes().rfind(|n| n.stats.is_inside()).map(|n| n.name.as_str());
        let mut what = format!(
            "did not stop within {} s, and is left behind\n\
            look at what it waits for: a device that hangs, a pipe whose other end does nothing",
            STOPPING.as_secs()
        );
        let others: Vec<_> = nodes().map(|n| n.name.as_str()).filter(|&name| Some(name) != inside).collect();
        if !others.is_empty() {
            what.push_str(&format!("\nnot stopped either, as they share its thread: {}", others.join(", ")));
        }
        let failure = Failure::new(FailureKind::Stalled, what);
        match inside {
            Some(name) => failure.at(name),
            None => failure,
        }
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
