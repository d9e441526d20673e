//! Negotiation: one solver over the whole graph, before anything streams.
//!
//! It picks formats, modifiers, sizes, rates, who allocates and how many buffers, and proves the pick by importing for
//! real. Where a link cannot do without a copy it refuses and says which link, why, and what would make it zero-copy; or
//! puts in the cheapest converter, where the graph's [`Copies`] say so. `docs/negotiation.md` tells it as duties of
//! producers and consumers.
//!
//! | file | story |
//! | --- | --- |
//! | `route` | where each stream goes: one output, through tees and queues, to its inputs |
//! | `candidate`, `ranges` | what a producer and its consumers could agree on, best first |
//! | `search` | depth first over all streams, on paper and then for real |
//! | `trial` | allocate, look at the real layout, import |
//! | `convert`, `cost` | which inputs get a converter, fewest and cheapest |
//! | `obstacle`, `explain`, `error` | why not, in words that help |
//! | `report` | the plan |

use std::collections::HashMap;

use crate::graph::{Copies, Graph, Port};
use crate::plan::Plan;

mod candidate;
mod convert;
mod cost;
mod error;
mod explain;
mod obstacle;
mod ranges;
mod report;
mod route;
mod search;
mod trial;

use convert::{Choices, Composed, Converted, why};
pub use convert::{Compose, Converter};
pub use error::{Advice, NegotiationError};
use explain::explain;
pub use obstacle::{Asked, Obstacle, Side};
use search::{DeadEnd, Search, Stop};

/// What negotiation may use beyond the graph itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct NegotiateOptions {
    /// What may go into links that cannot do without, in order of preference. The engine itself converts nothing.
    pub converters: &'static [Converter],
}

/// Decides what every link of `graph` carries. The elements have allocated and imported when it returns.
///
/// May be repeated on one graph any number of times, while it does not run: converters put in before are taken out
/// first. Blocks as long as the elements' `allocate` and `import` do.
///
/// # Errors
/// [`NegotiationError`]; the graph is the user's again then, without converters.
pub fn negotiate(graph: &mut Graph, options: &NegotiateOptions) -> Result<Plan, NegotiationError> {
    graph.remove_inserted();
    graph.check()?;
    let mut planned = planned(graph, options, report::plan);
    match &mut planned {
        Ok(plan) if graph.copies == Copies::Warn => {
            for link in plan.links.iter().filter(|l| !l.zero_copy) {
                tracing::warn!(from = link.from, to = link.to, "{}", link.reason);
            }
        }
        Ok(_) => {}
        Err(error) => {
            if let Some(advice) = error.advice() {
                advice.conversions.extend(with_copies(graph, options));
            }
            graph.remove_inserted();
        }
    }
    planned
}

/// What copies would cost in a graph that has no plan without, where they make one: tried for real, as only that shows
/// whether they do.
fn with_copies(graph: &mut Graph, options: &NegotiateOptions) -> Option<String> {
    if graph.copies != Copies::Deny {
        return None;
    }
    graph.remove_inserted();
    graph.copies = Copies::Allow;
    let copied = planned(graph, options, report::copies_made);
    graph.copies = Copies::Deny;
    let copied = copied.ok().filter(|copied| !copied.is_empty())?;
    Some(format!("Or allow a conversion (copies = \"allow\"): {}", copied.join("; ")))
}

/// What inputs got a converter, and why.
type AllConverted = HashMap<Port, Converted>;

/// What `report` makes of a solution for the user's graph; or for that with what composes in front of those whose inputs
/// have no solution as they are, where one helps.
fn planned<T>(
    graph: &mut Graph,
    options: &NegotiateOptions,
    report: fn(&Search<'_>, &AllConverted) -> T,
) -> Result<T, NegotiationError> {
    let copies = graph.copies;
    graph.nodes.iter_mut().for_each(|node| node.element.allow_copies(copies));
    let mut composed: Vec<Composed> = Vec::new();
    let mut no_help = None;
    loop {
        let whole = Whole { options, composed: &composed, no_help: no_help.as_ref() };
        let mut search = Search::new(graph);
        match whole.solve(&mut search) {
            Ok(converted) => return Ok(report(&search, &converted)),
            Err(Impasse::Compose(next)) => composed.push(*next),
            // Nor does anything else help where an element of the user's fails.
            Err(Impasse::Error(error)) if error.is_of_users(graph) => return Err(*error),
            Err(Impasse::Error(error)) => {
                let Some(last) = composed.pop() else { return Err(*error) };
                composed.clear();
                // What copies may help yet; and what is in the way of the user's own graph is what there is to tell.
                no_help = Some((last.by.name, error.in_one_line()));
            }
        }
        graph.remove_inserted();
    }
}

/// What ends the search for a plan.
enum Impasse {
    /// There may be one with this in the graph.
    Compose(Box<Composed>),
    Error(Box<NegotiationError>),
}

impl<E: Into<NegotiationError>> From<E> for Impasse {
    fn from(error: E) -> Impasse {
        Impasse::Error(Box::new(error.into()))
    }
}

/// The search for a plan of a whole graph.
struct Whole<'a> {
    options: &'a NegotiateOptions,
    /// What composes, found necessary so far.
    composed: &'a [Composed],
    /// Composing has been tried: by what, and why that is no help.
    no_help: Option<&'a (&'static str, String)>,
}

impl Whole<'_> {
    fn solve(&self, search: &mut Search<'_>) -> Result<AllConverted, Impasse> {
        let mut converted = HashMap::new();
        for composed in self.composed {
            converted.extend([composed.insert(search)?]);
        }
        for root in route::roots(search.graph) {
            search.enter(root);
            match search.solve() {
                Ok(()) => {}
                Err(Stop::Dead(dead)) => converted.extend(self.with_converters(search, root, &dead)?),
                Err(Stop::Failed(error)) => return Err(Impasse::Error(error)),
            }
        }
        Ok(converted)
    }

    /// Solves a tree of streams with converters of one kind, where these are allowed. Gives the inputs that got one, and
    /// why.
    fn with_converters(
        &self,
        search: &mut Search<'_>,
        root: Port,
        dead: &DeadEnd,
    ) -> Result<Vec<(Port, Converted)>, Impasse> {
        let mut refusals: Vec<(&'static str, String)> = Vec::new();
        for &by in self.options.converters {
            if by.copies && search.graph.copies == Copies::Deny {
                continue;
            }
            if let Err(why) = (by.present)() {
                refusals.extend(dead.cause.is_of_pictures().then_some((by.name, why)));
                continue;
            }
            let users = search.graph.nodes.len();
            match with_converter(search, root, dead, by) {
                Ok(Ok(reasons)) => return Ok(reasons),
                Ok(Err(why)) => refusals.extend(why.map(|why| (by.name, why))),
                // One that fails itself is no help; it is not the user's, whose own elements' failures end negotiation.
                Err(error) => {
                    let Some(failure) = error.of_inserted(search.graph) else { return Err(error.into()) };
                    refusals.push((by.name, failure));
                    search.leave(users);
                }
            }
            match self.no_help {
                Some((name, why)) if *name == by.name => refusals.push((name, why.clone())),
                Some(_) => {}
                None => {
                    if let Some(composed) = Composed::find(search, dead, by, &mut refusals)? {
                        return Err(Impasse::Compose(Box::new(composed)));
                    }
                }
            }
        }
        Err(explain(search, dead, self.options.converters, &refusals)?.into())
    }
}

/// Solves a tree of streams with converters of this kind: the inputs that got one, or why it does not help.
#[expect(clippy::type_complexity, reason = "a failure is something else than no help")]
fn with_converter(
    search: &mut Search<'_>,
    root: Port,
    dead: &DeadEnd,
    by: Converter,
) -> Result<Result<Vec<(Port, Converted)>, Option<String>>, NegotiationError> {
    let mut choices = Choices::new(search, root, by)?;
    while let Some(several) = choices.next(search)? {
        for ports in several {
            let reason = |&p| Ok((p, Converted { by, why: why(search, dead, p)? }));
            let reasons = ports.iter().map(reason).collect::<Result<_, NegotiationError>>()?;
            let keep = choices.insert(search, &ports)?;
            match search.solve() {
                Ok(()) => return Ok(Ok(reasons)),
                Err(Stop::Dead(dead)) => choices.note(search, &dead),
                Err(Stop::Failed(error)) => return Err(*error),
            }
            search.leave(keep);
        }
    }
    Ok(Err(choices.refusal))
}
