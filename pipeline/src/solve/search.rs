//! The search: a tree of routes, depth first, on paper before anything is allocated, then for real.
//!
//! A stream's candidates are tried in order. One that leaves a stream downstream without any candidate is passed over on
//! paper; the others are allocated and imported. Where a stream downstream finds nothing that works for real, the next
//! candidate upstream is tried. What has been found once is remembered: dead ends by the stream that leads there,
//! refusals by all of the stream that matters to memory.

use std::collections::HashMap;
use std::rc::Rc;

use super::candidate::{Input, Output, candidates};
use super::cost::Cost;
use super::error::NegotiationError;
use super::obstacle::Obstacle;
use super::route::{Route, tree};
use super::trial::{Granted, trial};
use crate::element::Failure;
use crate::graph::{Graph, NodeId, Port};
use crate::offer::Stream;

/// Most candidates of one stream that are allocated and imported for real.
const MAX_TRIALS: u32 = 64;

/// Why there is no solution below some point.
#[derive(Debug, Clone)]
pub(super) struct DeadEnd {
    pub(super) route: Rc<Route>,
    /// What the producer, a transform, gets.
    pub(super) input: Option<Stream>,
    pub(super) cause: Cause,
}

#[derive(Debug, Clone)]
pub(super) enum Cause {
    /// The offers do not meet.
    Paper(Obstacle),
    /// More buffers are needed than the producer can have.
    Buffers { holders: Vec<(String, u32)>, most: u32 },
    /// Every candidate was refused when tried.
    Trials { tried: Vec<String>, untried: usize },
}

impl Cause {
    /// Whether others would do in the place of the pictures that there are, so that what makes pictures may help.
    pub(super) fn is_of_pictures(&self) -> bool {
        match self {
            Cause::Paper(obstacle) => obstacle.is_of_pictures(),
            Cause::Buffers { .. } => false,
            Cause::Trials { .. } => true,
        }
    }
}

/// What ends a search.
#[derive(Debug)]
pub(super) enum Stop {
    /// An element failed: no other candidate would help.
    Failed(Box<NegotiationError>),
    /// There is no solution here; there may be one for another stream upstream.
    Dead(Rc<DeadEnd>),
}

impl From<NegotiationError> for Stop {
    fn from(error: NegotiationError) -> Stop {
        Stop::Failed(Box::new(error))
    }
}

/// A stream that works.
#[derive(Debug, Clone)]
pub(super) struct Solved {
    pub(super) stream: Stream,
    pub(super) input: Option<Stream>,
    pub(super) granted: Granted,
    pub(super) holders: Vec<(String, u32)>,
}

pub(super) struct Search<'g> {
    pub(super) graph: &'g mut Graph,
    /// What works, by the output it comes from.
    pub(super) solved: HashMap<Port, Solved>,
    /// What was tried and refused, in words, in order.
    pub(super) rejected: Vec<String>,
    tree: Vec<Rc<Route>>,
    inputs: HashMap<Port, Rc<Input>>,
    outputs: HashMap<Port, Rc<Output>>,
    /// Least costs by route and what comes in; `None` for dead ends, of which only the first of a route is kept.
    on_paper: HashMap<(usize, Option<Stream>), Option<Cost>>,
    first_dead: HashMap<usize, Rc<DeadEnd>>,
    refused: HashMap<(Port, Option<Port>, Stream), String>,
    first_refusals: HashMap<Port, String>,
    trials: HashMap<usize, u32>,
}

impl<'g> Search<'g> {
    pub(super) fn new(graph: &'g mut Graph) -> Search<'g> {
        Search {
            graph,
            solved: HashMap::new(),
            rejected: Vec::new(),
            tree: Vec::new(),
            inputs: HashMap::new(),
            outputs: HashMap::new(),
            on_paper: HashMap::new(),
            first_dead: HashMap::new(),
            refused: HashMap::new(),
            first_refusals: HashMap::new(),
            trials: HashMap::new(),
        }
    }

    /// Turns to the streams that follow from `root`, as the graph is now.
    pub(super) fn enter(&mut self, root: Port) {
        self.tree = tree(self.graph, root).into_iter().map(Rc::new).collect();
        self.on_paper.clear();
        self.first_dead.clear();
        self.trials.clear();
    }

    /// Takes converters behind the first `keep` elements out of the graph again, and forgets them.
    pub(super) fn leave(&mut self, keep: usize) {
        self.graph.remove_inserted_from(keep);
        self.inputs.retain(|port, _| port.node.0 < keep);
        self.outputs.retain(|port, _| port.node.0 < keep);
        self.solved.retain(|port, _| port.node.0 < keep);
        self.refused.retain(|(from, by, _), _| from.node.0 < keep && by.is_none_or(|b| b.node.0 < keep));
    }

    /// The routes of the tree.
    pub(super) fn routes(&self) -> &[Rc<Route>] {
        &self.tree
    }

    /// Whether there is a solution by the offers alone, and what its conversions cost.
    pub(super) fn sketch(&mut self) -> Result<Cost, Stop> {
        self.paper(0, None)
    }

    /// Finds a solution for real; it is in `solved` then.
    pub(super) fn solve(&mut self) -> Result<(), Stop> {
        self.solve_route(0, None)
    }

    fn solve_route(&mut self, route: usize, input: Option<Stream>) -> Result<(), Stop> {
        let candidates = self.ranked(route, input)?;
        let mut dead: Option<Rc<DeadEnd>> = None;
        let mut tried = Vec::new();
        let mut untried = 0;
        for (i, stream) in candidates.iter().enumerate() {
            if let Err(stop) = self.downstream(route, stream) {
                dead.get_or_insert(only_dead(stop)?);
                continue;
            }
            if self.trials.get(&route).is_some_and(|&n| n >= MAX_TRIALS) {
                untried = candidates.len() - i;
                break;
            }
            match self.try_for_real(route, input, stream)? {
                // One refusal may stand for several candidates.
                Some(refusal) if tried.contains(&refusal) => {}
                Some(refusal) => tried.push(refusal),
                None => match self.children(route, *stream) {
                    Ok(()) => return Ok(()),
                    Err(stop) => dead = dead.or(Some(only_dead(stop)?)),
                },
            }
        }
        Err(Stop::Dead(dead.unwrap_or_else(|| {
            Rc::new(DeadEnd { route: Rc::clone(&self.tree[route]), input, cause: Cause::Trials { tried, untried } })
        })))
    }

    fn children(&mut self, route: usize, stream: Stream) -> Result<(), Stop> {
        for child in self.tree[route].children.clone() {
            self.solve_route(child, Some(stream))?;
        }
        Ok(())
    }

    /// A trial, unless its outcome is known. `None` where it works, else why not.
    fn try_for_real(&mut self, route: usize, input: Option<Stream>, stream: &Stream) -> Result<Option<String>, Stop> {
        let consumers = self.consumers(route)?;
        let from = self.tree[route].from;
        let whom = || std::iter::once(None).chain(consumers.iter().map(|c| Some(c.port)));
        if let Some(known) = whom().find_map(|by| self.refused.get(&(from, by, matters_to(by, stream)))) {
            return Ok(Some(known.clone()));
        }
        *self.trials.entry(route).or_default() += 1;
        let producer = self.output(from, input)?;
        let holders = self.holders(route, &producer, &consumers);
        match trial(self.graph, &self.tree[route], &consumers, &holders, stream) {
            Ok(granted) => {
                self.solved.insert(from, Solved { stream: *stream, input, granted, holders });
                Ok(None)
            }
            Err(refused) => {
                let by = refused
                    .by
                    .map_or_else(|| self.graph.port_name(from, false), |port| self.graph.port_name(port, true));
                let text = format!("{stream}: {by}: {}", refused.refusal);
                self.rejected.push(format!("{} as {text}", self.link_name(route)));
                self.refused.insert((from, refused.by, matters_to(refused.by, stream)), text.clone());
                if let Some(by) = refused.by {
                    self.first_refusals.entry(by).or_insert_with(|| text.clone());
                }
                Ok(Some(text))
            }
        }
    }

    /// Candidates in the order in which to try them: as the offers prefer, or where conversions follow, cheapest first.
    fn ranked(&mut self, route: usize, input: Option<Stream>) -> Result<Vec<Stream>, Stop> {
        let candidates = self.candidates(route, input)?;
        if !self.converts(route) {
            return Ok(candidates);
        }
        let mut dead = None;
        let mut costed = Vec::new();
        for stream in candidates {
            match self.downstream(route, &stream) {
                Ok(cost) => costed.push((cost.plus(self.own_cost(route, input, &stream)), stream)),
                Err(stop) => dead = dead.or(Some(only_dead(stop)?)),
            }
        }
        if let (true, Some(dead)) = (costed.is_empty(), dead) {
            return Err(Stop::Dead(dead));
        }
        costed.sort_by_key(|(cost, _)| *cost);
        Ok(costed.into_iter().map(|(_, stream)| stream).collect())
    }

    /// The least cost of a route and all below it, by the offers alone.
    fn paper(&mut self, route: usize, input: Option<Stream>) -> Result<Cost, Stop> {
        if let Some(known) = self.on_paper.get(&(route, input)) {
            return match (known, self.first_dead.get(&route)) {
                (None, Some(dead)) => Err(Stop::Dead(Rc::clone(dead))),
                (cost, _) => Ok(cost.unwrap_or_default()),
            };
        }
        match self.cheapest(route, input) {
            Ok(cost) => {
                self.on_paper.insert((route, input), Some(cost));
                Ok(cost)
            }
            Err(stop) => {
                let dead = only_dead(stop)?;
                self.on_paper.insert((route, input), None);
                Err(Stop::Dead(Rc::clone(self.first_dead.entry(route).or_insert(dead))))
            }
        }
    }

    fn cheapest(&mut self, route: usize, input: Option<Stream>) -> Result<Cost, Stop> {
        let mut best: Option<Cost> = None;
        let mut dead = None;
        for stream in self.candidates(route, input)? {
            match self.downstream(route, &stream) {
                Ok(below) => {
                    let cost = below.plus(self.own_cost(route, input, &stream));
                    best = Some(best.map_or(cost, |b| b.min(cost)));
                    if cost == Cost::default() {
                        break;
                    }
                }
                Err(stop) => dead = dead.or(Some(only_dead(stop)?)),
            }
        }
        match (best, dead) {
            (Some(best), _) => Ok(best),
            (None, Some(dead)) => Err(Stop::Dead(dead)),
            // Not reached: a route has candidates, or the error that says why not.
            (None, None) => Ok(Cost::default()),
        }
    }

    fn downstream(&mut self, route: usize, stream: &Stream) -> Result<Cost, Stop> {
        let mut cost = Cost::default();
        for child in self.tree[route].children.clone() {
            cost = cost.plus(self.paper(child, Some(*stream))?);
        }
        Ok(cost)
    }

    fn own_cost(&self, route: usize, input: Option<Stream>, stream: &Stream) -> Cost {
        let inserted = self.graph.nodes[self.tree[route].from.node.0].inserted;
        input.filter(|_| inserted).map_or_else(Cost::default, |input| Cost::of(&input, stream))
    }

    /// True where a converter that negotiation put in makes this stream or one below it.
    fn converts(&self, route: usize) -> bool {
        let r = &self.tree[route];
        self.graph.nodes[r.from.node.0].inserted || r.children.iter().any(|&c| self.converts(c))
    }

    fn candidates(&mut self, route: usize, input: Option<Stream>) -> Result<Vec<Stream>, Stop> {
        let producer = self.output(self.tree[route].from, input)?;
        let consumers = self.consumers(route)?;
        let dead = |cause| Stop::Dead(Rc::new(DeadEnd { route: Rc::clone(&self.tree[route]), input, cause }));
        let held = consumers.iter().map(|c| c.offer.memory.holds).chain(self.tree[route].queues.iter().map(|q| q.1));
        let needed = held.fold(producer.offer.memory.keeps, u32::saturating_add);
        let most = producer.offer.memory.max_buffers;
        let all: Vec<&Input> = consumers.iter().map(Rc::as_ref).collect();
        let found = candidates(&producer, &all, input.as_ref(), needed);
        let found = found.map_err(|obstacle| dead(Cause::Paper(obstacle)))?;
        if needed > most {
            return Err(dead(Cause::Buffers { holders: self.holders(route, &producer, &consumers), most }));
        }
        Ok(found)
    }

    /// Who holds how many of a route's buffers at once.
    fn holders(&self, route: usize, producer: &Output, consumers: &[Rc<Input>]) -> Vec<(String, u32)> {
        let mut holders = vec![(producer.name.clone(), producer.offer.memory.keeps)];
        holders.extend(consumers.iter().map(|c| (c.name.clone(), c.offer.memory.holds)));
        holders.extend(self.tree[route].queues.iter().cloned());
        holders
    }

    pub(super) fn consumers(&mut self, route: usize) -> Result<Vec<Rc<Input>>, NegotiationError> {
        self.tree[route].to.clone().into_iter().map(|port| self.input(port)).collect()
    }

    pub(super) fn input(&mut self, port: Port) -> Result<Rc<Input>, NegotiationError> {
        if let Some(known) = self.inputs.get(&port) {
            return Ok(Rc::clone(known));
        }
        let name = self.graph.port_name(port, true);
        let offer = self.graph.nodes[port.node.0].element.input_offer(port.port);
        let offer = offer.map_err(|failure| self.failed(port.node, failure))?;
        let input = Rc::new(Input { port, name, offer });
        self.inputs.insert(port, Rc::clone(&input));
        Ok(input)
    }

    /// What an output offers; of a transform, for what comes in. Sources, which may have to open a device to say, are
    /// asked once.
    pub(super) fn output(&mut self, port: Port, input: Option<Stream>) -> Result<Rc<Output>, NegotiationError> {
        if let (None, Some(known)) = (input, self.outputs.get(&port)) {
            return Ok(Rc::clone(known));
        }
        let name = self.graph.port_name(port, false);
        let offer = self.graph.nodes[port.node.0].element.output_offer(port.port, input.as_ref());
        let offer = offer.map_err(|failure| self.failed(port.node, failure))?;
        let output = Rc::new(Output { name, offer });
        if input.is_none() {
            self.outputs.insert(port, Rc::clone(&output));
        }
        Ok(output)
    }

    fn failed(&self, node: NodeId, failure: Failure) -> NegotiationError {
        let node = &self.graph.nodes[node.0];
        NegotiationError::Element { failure: failure.at(&node.name), span: node.span.clone() }
    }

    fn link_name(&self, route: usize) -> String {
        self.name_of(self.tree[route].from, &self.tree[route].to)
    }

    /// `camera → display, encoder`.
    pub(super) fn name_of(&self, from: Port, to: &[Port]) -> String {
        let to: Vec<String> = to.iter().map(|&port| self.graph.port_name(port, true)).collect();
        format!("{} → {}", self.graph.port_name(from, false), to.join(", "))
    }

    /// What a consumer said when it was tried, first.
    pub(super) fn refusal_by(&self, port: Port) -> Option<&String> {
        self.first_refusals.get(&port)
    }
}

/// Passes failures on and keeps dead ends, from which the search goes on.
fn only_dead(stop: Stop) -> Result<Rc<DeadEnd>, Stop> {
    match stop {
        Stop::Dead(dead) => Ok(dead),
        failed @ Stop::Failed(_) => Err(failed),
    }
}

/// What of a stream a refusal depends on: those who import memory do not care how many buffers there are, nor how often
/// they are filled.
fn matters_to(importer: Option<Port>, stream: &Stream) -> Stream {
    if importer.is_some() { Stream { buffers: 0, rate: None, ..*stream } } else { *stream }
}
