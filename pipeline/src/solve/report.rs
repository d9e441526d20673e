//! The plan: every link with its reason, and every producer's buffers.

use std::collections::HashMap;

use shrbuf::MemoryKind;

use super::convert::Converted;
use super::cost::{describe, describe_composed};
use super::route::{Route, reached, roots, tree};
use super::search::{Search, Solved};
use crate::graph::{Link, Port};
use crate::plan::{Budget, LinkPlan, Plan};

/// The plan of a graph all of whose streams are solved. `converted` says why an input got a converter.
pub(super) fn plan(search: &Search<'_>, converted: &HashMap<Port, Converted>) -> Plan {
    let routes: Vec<Route> = roots(search.graph).into_iter().flat_map(|root| tree(search.graph, root)).collect();
    let mut links = Vec::new();
    for (i, link) in search.graph.links.iter().enumerate() {
        let route = routes.iter().find(|r| r.links.contains(&i));
        // Every link lies on a route, and every route is solved.
        let Some(solved) = route.and_then(|r| search.solved.get(&r.from)) else { continue };
        let from = route.map_or(link.from, |r| r.from);
        let inserted = search.graph.nodes[link.from.node.0].inserted;
        let made = converted.get(&link.to).filter(|_| inserted);
        let own = search.graph.nodes[from.node.0].element.copies(from.port);
        let copied = copied(search, i);
        let zero_copy = made.is_none_or(|c| !c.by.copies) && own.is_none() && copied.is_none();
        let mut reason = match (made, own) {
            (Some(made), own) => {
                let inputs = search.graph.links.iter().filter(|l| l.to.node == from.node).count();
                conversion_reason(solved, inputs, made, own)
            }
            (None, Some(why)) => why,
            (None, None) => shared_reason(search, from, i, solved),
        };
        reason.extend(copied.map(|by| format!("; {by}")));
        links.push(LinkPlan {
            from: search.graph.port_name(link.from, false),
            to: search.graph.port_name(link.to, true),
            stream: solved.stream,
            stride: solved.granted.stride,
            memory: solved.stream.origin.kind(),
            zero_copy,
            reason,
        });
    }
    let budgets = routes.iter().filter_map(|r| search.solved.get(&r.from)).map(|solved| Budget {
        producer: solved.holders.first().map(|(name, _)| name.clone()).unwrap_or_default(),
        holders: solved.holders.clone(),
        granted: solved.granted.buffers,
    });
    Plan { links, budgets: budgets.collect(), rejected: search.rejected.clone() }
}

/// The copies that converters make, with what each costs, and those that elements of the user's make; of a graph all of
/// whose streams are solved.
pub(super) fn copies_made(search: &Search<'_>, converted: &HashMap<Port, Converted>) -> Vec<String> {
    let copy = |link: &Link| {
        let own = search.graph.nodes[link.from.node.0].element.copies(link.from.port);
        let Some(made) = converted.get(&link.to) else { return own };
        let solved = search.solved.get(&link.from).filter(|_| made.by.copies || own.is_some())?;
        Some(describe(solved.input.as_ref()?, &solved.stream))
    };
    search.graph.links.iter().filter_map(copy).collect()
}

/// `both do XR24; display imports camera's dma-bufs`.
fn shared_reason(search: &Search<'_>, from: Port, link: usize, solved: &Solved) -> String {
    let consumers: Vec<String> =
        reached(search.graph, link).into_iter().map(|port| search.graph.port_name(port, true)).collect();
    let (both, takes) = if consumers.len() == 1 { ("both", "s") } else { ("all", "") };
    let takes = match solved.stream.origin.kind() {
        MemoryKind::DmaBuf => format!("import{takes}"),
        MemoryKind::Memfd => format!("map{takes}"),
    };
    let names = match consumers.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => consumers.join(""),
    };
    let producer = search.graph.port_name(from, false);
    format!("{both} do {}; {names} {takes} {producer}'s {}s", solved.stream.format, solved.stream.origin.kind())
}

/// By whom what comes over a link is copied behind it, where all that it leads to have it copied.
fn copied(search: &Search<'_>, link: usize) -> Option<String> {
    let ports = reached(search.graph, link).into_iter();
    let all: Option<Vec<String>> = ports.map(|p| search.graph.nodes[p.node.0].element.copied(p.port)).collect();
    let mut all = all?;
    all.dedup();
    (!all.is_empty()).then(|| all.join(", "))
}

/// What is written, by whom, and why.
fn conversion_reason(solved: &Solved, inputs: usize, made: &Converted, own: Option<String>) -> String {
    let what = match solved.input {
        Some(input) => describe(&input, &solved.stream),
        None => describe_composed(inputs, &solved.stream),
    };
    let need = match (made.by.copies, own) {
        (true, _) => "a copy is needed".to_owned(),
        (false, None) => format!("by `{}`, which is needed", made.by.name),
        (false, Some(own)) => format!("by `{}`, which is needed and copies ({own})", made.by.name),
    };
    format!("{what}; {need}: {}", made.why)
}
