//! Where a stream goes: from one output, through tees and queues, to every input that gets it.

use crate::element::Role;
use crate::graph::{Graph, Port};

/// The way of one stream.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// The output it comes from.
    pub(super) from: Port,
    /// The inputs it ends at, in the order of the links.
    pub(super) to: Vec<Port>,
    /// Queues on the way: name and frames each holds. One in front of several inputs is there once.
    pub(super) queues: Vec<(String, u32)>,
    /// Indexes of the links on the way.
    pub(super) links: Vec<usize>,
    /// Routes in the same list that begin where this one ends, because a transform makes them of it.
    pub(super) children: Vec<usize>,
}

/// Outputs whose streams are made of nothing that comes in: each is the root of a tree of routes.
pub(super) fn roots(graph: &Graph) -> Vec<Port> {
    let mut roots = Vec::new();
    for link in &graph.links {
        let makes_its_own = match graph.role(link.from.node) {
            Role::Endpoint => true,
            Role::Transform => graph.ports(link.from.node).inputs.is_empty(),
            Role::Passthrough | Role::Queue(_) | Role::Tap => false,
        };
        if makes_its_own && !roots.contains(&link.from) {
            roots.push(link.from);
        }
    }
    roots
}

/// The routes that follow from `root`, itself first, each before its children.
pub(super) fn tree(graph: &Graph, root: Port) -> Vec<Route> {
    let mut tree = vec![follow(graph, root)];
    let mut next = 0;
    while next < tree.len() {
        for to in tree[next].to.clone() {
            // A transform of several inputs makes its output of the first; at the others a stream just ends.
            let makes = match graph.role(to.node) {
                Role::Transform if to.port == 0 => 0,
                Role::Tap => 1,
                _ => usize::MAX,
            };
            if makes != usize::MAX {
                for link in graph.links.iter().filter(|l| l.from.node == to.node && l.from.port >= makes) {
                    let child = tree.len();
                    tree[next].children.push(child);
                    tree.push(follow(graph, link.from));
                }
            }
        }
        next += 1;
    }
    tree
}

fn follow(graph: &Graph, from: Port) -> Route {
    let mut route = Route { from, to: Vec::new(), queues: Vec::new(), links: Vec::new(), children: Vec::new() };
    walk(graph, from, &mut route);
    route
}

fn walk(graph: &Graph, from: Port, route: &mut Route) {
    for (i, link) in graph.links.iter().enumerate().filter(|(_, l)| l.from == from) {
        route.links.push(i);
        let node = link.to.node;
        match graph.role(node) {
            Role::Endpoint | Role::Transform => {
                route.to.push(link.to);
                continue;
            }
            Role::Tap => {
                route.to.push(link.to);
                walk(graph, Port { node, port: 0 }, route);
                continue;
            }
            Role::Queue(spec) => {
                route.queues.push((format!("queue {}", graph.nodes[node.0].name), spec.capacity()));
            }
            Role::Passthrough => {}
        }
        for port in 0..graph.ports(node).outputs.len() {
            walk(graph, Port { node, port }, route);
        }
    }
}

/// The inputs that a link leads to, itself or through tees and queues.
pub(super) fn reached(graph: &Graph, link: usize) -> Vec<Port> {
    let to = graph.links[link].to;
    if matches!(graph.role(to.node), Role::Endpoint | Role::Transform) {
        return vec![to];
    }
    let tap = graph.role(to.node) == Role::Tap;
    let on = graph.links.iter().enumerate().filter(|(_, l)| l.from.node == to.node && (!tap || l.from.port == 0));
    tap.then_some(to).into_iter().chain(on.flat_map(|(i, _)| reached(graph, i))).collect()
}
