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

pub use convert::Converter;
use convert::{Choices, Converted, why};
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
    let copies = graph.copies;
    graph.nodes.iter_mut().for_each(|node| node.element.allow_copies(copies));
    let planned = whole(&mut Search::new(graph), options);
    match &planned {
        Ok(plan) if graph.copies == Copies::Warn => {
            for link in plan.links.iter().filter(|l| !l.zero_copy) {
                tracing::warn!(from = link.from, to = link.to, "{}", link.reason);
            }
        }
        Ok(_) => {}
        Err(_) => graph.remove_inserted(),
    }
    planned
}

fn whole(search: &mut Search<'_>, options: &NegotiateOptions) -> Result<Plan, NegotiationError> {
    let mut converted = HashMap::new();
    for root in route::roots(search.graph) {
        search.enter(root);
        match search.solve() {
            Ok(()) => {}
            Err(Stop::Dead(dead)) => converted.extend(with_converters(search, root, &dead, options)?),
            Err(Stop::Failed(error)) => return Err(*error),
        }
    }
    Ok(report::plan(search, &converted))
}

/// Solves a tree of streams with converters of one kind, where these are allowed. Gives the inputs that got one, and why.
fn with_converters(
    search: &mut Search<'_>,
    root: Port,
    dead: &DeadEnd,
    options: &NegotiateOptions,
) -> Result<Vec<(Port, Converted)>, NegotiationError> {
    let mut refusals = Vec::new();
    for &by in options.converters {
        if by.copies && search.graph.copies == Copies::Deny || !(by.present)() {
            continue;
        }
        let users = search.graph.nodes.len();
        match with_converter(search, root, dead, by) {
            Ok(Ok(reasons)) => return Ok(reasons),
            Ok(Err(why)) => refusals.extend(why.map(|why| (by.name, why))),
            // One that fails itself is no help; it is not the user's, whose own elements' failures end negotiation.
            Err(error) => {
                let Some(failure) = error.of_inserted(search.graph) else { return Err(error) };
                refusals.push((by.name, failure));
                search.leave(users);
            }
        }
    }
    Err(explain(search, root, dead, options.converters, &refusals)?)
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
