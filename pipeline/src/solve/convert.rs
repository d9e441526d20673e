//! Where a copy cannot be avoided: which inputs get a converter, as few and as cheap as possible.

use super::candidate::candidates;
use super::cost::Cost;
use super::error::{NegotiationError, sum};
use super::route::Route;
use super::search::{Cause, DeadEnd, Search, Stop};
use crate::element::{Element, Failure, FailureKind};
use crate::graph::{NodeId, PlacedGraphError, Port};
use crate::offer::{Composition, Stream};

/// A kind of element that negotiation may put into a link which cannot do without: one input, one output,
/// [`Role::Transform`](crate::Role::Transform).
#[derive(Debug, Clone, Copy)]
pub struct Converter {
    /// Makes one.
    pub make: fn() -> Box<dyn Element>,
    /// Whether this machine has what it needs, or why not; asked when a link is found to need one, not before.
    pub present: fn() -> Result<(), String>,
    /// Behind the names of the elements it stands between: "camera→display convert".
    pub name: &'static str,
    /// True where the CPU writes the picture a second time: only where the graph allows copies then.
    pub copies: bool,
    /// Makes one of several inputs, [`Role::Endpoint`](crate::Role::Endpoint), that composes them as is said; or says
    /// why it does not. `None` for a kind that composes nothing.
    pub compose: Option<Compose>,
}

/// See [`Converter::compose`].
pub type Compose = fn(&Composition) -> Result<Box<dyn Element>, String>;

/// What has all inputs of an element composed into one.
#[derive(Debug)]
pub(super) struct Composed {
    /// The element.
    pub(super) at: NodeId,
    pub(super) composition: Composition,
    pub(super) by: Converter,
    make: Compose,
    why: String,
}

impl Composed {
    /// What there is for one of those whom a dead end leads to; `refusals` gets why there is none.
    pub(super) fn find(
        search: &mut Search<'_>,
        dead: &DeadEnd,
        by: Converter,
        refusals: &mut Vec<(&'static str, String)>,
    ) -> Result<Option<Composed>, NegotiationError> {
        let Some(make) = by.compose else { return Ok(None) };
        for &port in &dead.route.to {
            let Some(composition) = search.graph.nodes[port.node.0].element.composition() else { continue };
            match make(&composition) {
                Ok(_) => {
                    let why = why(search, dead, port)?;
                    return Ok(Some(Composed { at: port.node, composition, by, make, why }));
                }
                Err(why) => refusals.push((by.name, why)),
            }
        }
        Ok(None)
    }

    /// Puts it into the graph: the input that has all in one then, and why.
    pub(super) fn insert(&self, search: &mut Search<'_>) -> Result<(Port, Converted), NegotiationError> {
        let failed = |what: String| NegotiationError::Element {
            failure: Failure::new(FailureKind::Config, what).at(&search.graph.nodes[self.at.0].name),
            span: search.graph.nodes[self.at.0].span.clone(),
        };
        let element = (self.make)(&self.composition).map_err(failed)?;
        let name = format!("inputs→{} {}", search.graph.nodes[self.at.0].name, self.by.name);
        let put = search.graph.compose_before(self.at, &name, element, &self.composition);
        put.map_err(|error| PlacedGraphError { error, span: None })?;
        Ok((Port { node: self.at, port: 0 }, Converted { by: self.by, why: self.why.clone() }))
    }
}

/// What an input got, and why.
#[derive(Debug)]
pub(super) struct Converted {
    pub(super) by: Converter,
    pub(super) why: String,
}

/// Most choices of inputs looked at, for each number of converters.
const MAX_CHOICES: usize = 64;

/// Choices of inputs to put behind a converter each, fewest first.
pub(super) struct Choices {
    root: Port,
    converter: Converter,
    /// Inputs that cannot do without, whatever the others do.
    needed: Vec<Port>,
    /// The other inputs.
    others: Vec<Port>,
    /// How many of the others the next choices have.
    extra: usize,
    /// Why the first choice that did not help does not.
    pub(super) refusal: Option<String>,
}

impl Choices {
    /// For the streams that follow from `root`, of which the search has found that they have no solution as they are.
    pub(super) fn new(search: &mut Search<'_>, root: Port, converter: Converter) -> Result<Choices, NegotiationError> {
        search.enter(root);
        let routes = search.routes().to_vec();
        let mut needed = Vec::new();
        let mut others = Vec::new();
        for (i, route) in routes.iter().enumerate() {
            for &port in &route.to {
                // What a transform gives is not known before its input is; so only those at the root are told apart.
                let alone = if i == 0 { obstacle(search, route, None, port)? } else { None };
                if alone.is_some() { needed.push(port) } else { others.push(port) }
            }
        }
        let extra = usize::from(needed.is_empty());
        Ok(Choices { root, converter, needed, others, extra, refusal: None })
    }

    /// The next larger choices that have a solution by the offers alone, cheapest first; `None` when there are no more.
    pub(super) fn next(&mut self, search: &mut Search<'_>) -> Result<Option<Vec<Vec<Port>>>, NegotiationError> {
        while self.extra <= self.others.len() {
            let mut viable: Vec<(Cost, Vec<Port>)> = Vec::new();
            let several: Vec<Vec<Port>> = combinations(&self.others, self.extra).take(MAX_CHOICES).collect();
            for more in several {
                let ports: Vec<Port> = self.needed.iter().copied().chain(more).collect();
                let keep = self.insert(search, &ports)?;
                match search.sketch() {
                    Ok(cost) => viable.push((cost, ports)),
                    Err(Stop::Dead(dead)) => self.note(search, &dead),
                    Err(Stop::Failed(error)) => return Err(*error),
                }
                search.leave(keep);
            }
            self.extra += 1;
            if !viable.is_empty() {
                viable.sort_by_key(|(cost, _)| *cost);
                return Ok(Some(viable.into_iter().map(|(_, ports)| ports).collect()));
            }
        }
        Ok(None)
    }

    /// Puts a converter before each of these inputs and turns the search to that. Gives what [`Search::leave`] wants.
    pub(super) fn insert(&self, search: &mut Search<'_>, ports: &[Port]) -> Result<usize, NegotiationError> {
        let keep = search.graph.nodes.len();
        search.enter(self.root);
        let kind = self.converter.name;
        for (port, name) in ports.iter().map(|&port| (port, converter_name(search, port, kind))).collect::<Vec<_>>() {
            let inserted = search.graph.insert_before(port, &name, (self.converter.make)());
            inserted.map_err(|error| PlacedGraphError { error, span: None })?;
        }
        search.enter(self.root);
        Ok(keep)
    }

    /// Remembers why a choice does not help, while its converters are still there to be named.
    pub(super) fn note(&mut self, search: &Search<'_>, dead: &DeadEnd) {
        let link = search.name_of(dead.route.from, &dead.route.to);
        self.refusal.get_or_insert_with(|| format!("{link}: {}", short(&dead.cause)));
    }
}

/// `camera→display convert`.
fn converter_name(search: &Search<'_>, port: Port, kind: &str) -> String {
    let from = search.routes().iter().find(|r| r.to.contains(&port)).map(|r| search.graph.port_name(r.from, false));
    format!("{}→{} {kind}", from.unwrap_or_default(), search.graph.port_name(port, true))
}

/// Why a producer and this one consumer cannot do without a copy, if the offers say so.
fn obstacle(
    search: &mut Search<'_>,
    route: &Route,
    input: Option<Stream>,
    port: Port,
) -> Result<Option<String>, NegotiationError> {
    let producer = search.output(route.from, input)?;
    let consumer = search.input(port)?;
    Ok(candidates(&producer, &[&consumer], input.as_ref(), 0).err().map(|o| o.to_string()))
}

/// Why this input gets a converter.
pub(super) fn why(search: &mut Search<'_>, dead: &DeadEnd, port: Port) -> Result<String, NegotiationError> {
    if dead.route.to.contains(&port)
        && let Some(obstacle) = obstacle(search, &dead.route, dead.input, port)?
    {
        return Ok(obstacle);
    }
    if let Some(refusal) = search.refusal_by(port) {
        return Ok(refusal.clone());
    }
    Ok(short(&dead.cause))
}

/// A cause in one line.
pub(super) fn short(cause: &Cause) -> String {
    match cause {
        Cause::Paper(obstacle) => obstacle.to_string(),
        Cause::Buffers { holders, most } => format!("{} buffers are needed, there are at most {most}", sum(holders)),
        Cause::Trials { tried, .. } => tried.first().cloned().unwrap_or_default(),
    }
}

/// All choices of `count` of `items`, in their order.
pub(super) fn combinations<T: Copy>(items: &[T], count: usize) -> impl Iterator<Item = Vec<T>> {
    let mut next: Option<Vec<usize>> = (count <= items.len()).then(|| (0..count).collect());
    std::iter::from_fn(move || {
        let now = next.clone()?;
        // The last index that can still move on does, and those behind it follow directly.
        let movable = (0..count).rev().find(|&i| now[i] + count < items.len() + i);
        next = movable.map(|i| now[..i].iter().copied().chain(now[i] + 1..now[i] + 1 + count - i).collect());
        Some(now.iter().map(|&i| items[i]).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::combinations;

    #[test]
    fn combinations_come_once_each_and_in_order() {
        let all: Vec<_> = combinations(&['a', 'b', 'c', 'd'], 2).map(|c| c.iter().collect::<String>()).collect();
        assert_eq!(all, ["ab", "ac", "ad", "bc", "bd", "cd"]);
        assert_eq!(combinations(&[1, 2], 0).collect::<Vec<_>>(), [vec![]]);
        assert_eq!(combinations(&[1, 2], 3).count(), 0);
    }
}
