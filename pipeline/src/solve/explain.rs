//! From a dead end to a message that helps: who is at fault alone, what may be left out, why no conversion helps.

use std::rc::Rc;

use super::candidate::{Input, Output, candidates};
use super::convert::{Converter, combinations};
use super::error::{Advice, NegotiationError};
use super::obstacle::Obstacle;
use super::search::{Cause, DeadEnd, Search};
use crate::graph::{Copies, Port, Span};
use crate::offer::{Stream, Wanted};

/// The error for a dead end; `refusals` says by name why converters do not help.
pub(super) fn explain(
    search: &mut Search<'_>,
    dead: &DeadEnd,
    converters: &[Converter],
    refusals: &[(&str, String)],
) -> Result<NegotiationError, NegotiationError> {
    let conversions = conversions(search.graph.copies, converters, refusals);
    let link = search.name_of(dead.route.from, &dead.route.to);
    let span = link_span(search, &dead.route.to);
    Ok(match dead.cause.clone() {
        Cause::Paper(obstacle) => at_fault(search, dead, obstacle, conversions)?,
        Cause::Buffers { holders, most } => {
            let excess = holders.iter().map(|(_, n)| u64::from(*n)).sum::<u64>() - u64::from(most);
            let spare: u64 = dead.route.queues.iter().map(|(_, n)| u64::from(n.saturating_sub(1))).sum();
            let shorter = (spare >= excess).then(|| format!("queues that hold {excess} fewer"));
            let advice = Advice { zero_copy: shorter.into_iter().collect(), conversions };
            let producer = search.graph.port_name(dead.route.from, false);
            NegotiationError::Buffers { link, producer, holders, most, advice, span }
        }
        Cause::Trials { tried, untried } => {
            let advice = Advice { zero_copy: Vec::new(), conversions };
            NegotiationError::Refused { link, tried, untried, advice, span }
        }
    })
}

/// The fewest consumers that cannot be together with the producer, what they lack, and what would help.
fn at_fault(
    search: &mut Search<'_>,
    dead: &DeadEnd,
    obstacle: Obstacle,
    conversions: Vec<String>,
) -> Result<NegotiationError, NegotiationError> {
    let producer = search.output(dead.route.from, dead.input)?;
    let consumers: Vec<Rc<Input>> = dead.route.to.iter().map(|&port| search.input(port)).collect::<Result<_, _>>()?;
    let all: Vec<&Input> = consumers.iter().map(Rc::as_ref).collect();
    let try_with = |some: &[&Input]| candidates(&producer, some, dead.input.as_ref(), 0).err();
    // One alone, or two that exclude each other, say more than a list of all.
    let few = (1..=2).flat_map(|n| combinations(&all, n)).find_map(|few| Some((try_with(&few)?, few)));
    let (obstacle, few) = few.unwrap_or((obstacle, all));
    let ports: Vec<Port> = few.iter().map(|c| c.port).collect();
    let mut zero_copy = without_wishes(&producer, &few, dead.input.as_ref());
    // Where a wish is all that is in the way there is no need to tell what else would do, but for the nearest size.
    if zero_copy.is_empty() || matches!(obstacle, Obstacle::Size { .. }) {
        zero_copy.splice(..0, obstacle.remedy());
    }
    let span = match &obstacle {
        Obstacle::NotOffered { element, .. } if *element == producer.name => {
            search.graph.nodes[dead.route.from.node.0].span.clone()
        }
        Obstacle::NotOffered { element, .. } => {
            let own = few.iter().find(|c| c.name == *element).map(|c| c.port.node);
            own.and_then(|node| search.graph.nodes[node.0].span.clone())
        }
        _ => link_span(search, &ports),
    };
    Ok(NegotiationError::Link {
        link: search.name_of(dead.route.from, &ports),
        obstacle,
        made_of: dead.input.map(|stream| (producer.name.clone(), stream)),
        advice: Advice { zero_copy, conversions },
        span,
    })
}

/// Which single wish could be left out, and what would come of it.
fn without_wishes(producer: &Output, consumers: &[&Input], input: Option<&Stream>) -> Vec<String> {
    let less = |wanted: &Wanted| {
        [
            ("format", wanted.format.is_some(), Wanted { format: None, ..*wanted }),
            ("size", wanted.size.is_some(), Wanted { size: None, ..*wanted }),
            ("rate", wanted.rate.is_some(), Wanted { rate: None, ..*wanted }),
        ]
        .into_iter()
        .filter(|(_, set, _)| *set)
        .map(|(key, _, wanted)| (key, wanted))
    };
    let mut found = Vec::new();
    let mut note = |name: &str, key: &str, outcome: Result<Vec<Stream>, Obstacle>| {
        if let Some(stream) = outcome.ok().and_then(|streams| streams.first().copied()) {
            found.push(format!("leave out `{key}` of {name} (it would be {stream})"));
        }
    };
    for (key, wanted) in less(&producer.offer.wanted) {
        let mut offer = producer.offer.clone();
        offer.wanted = wanted;
        note(&producer.name, key, candidates(&Output { name: producer.name.clone(), offer }, consumers, input, 0));
    }
    for (i, consumer) in consumers.iter().enumerate() {
        for (key, wanted) in less(&consumer.offer.wanted) {
            let mut offer = consumer.offer.clone();
            offer.wanted = wanted;
            let relaxed = Input { port: consumer.port, name: consumer.name.clone(), offer };
            let mut all = consumers.to_vec();
            all[i] = &relaxed;
            note(&consumer.name, key, candidates(producer, &all, input, 0));
        }
    }
    found
}

/// Why no converter helps. What a copy would cost where it would help but is denied is tried once all is known.
fn conversions(copies: Copies, converters: &[Converter], refusals: &[(&str, String)]) -> Vec<String> {
    if copies != Copies::Deny && converters.is_empty() {
        return vec!["Copies are allowed, but there is no converter".to_owned()];
    }
    refusals.iter().map(|(name, why)| format!("`{name}` does not help: {why}")).collect()
}

/// Where the link that leads to the first of these inputs is described.
fn link_span(search: &Search<'_>, to: &[Port]) -> Option<Span> {
    let link = search.graph.links.iter().find(|l| Some(&l.to) == to.first())?;
    link.span.clone()
}
