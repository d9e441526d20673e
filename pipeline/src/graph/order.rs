//! Whether a graph can run, and the order in which its elements come.

use crate::element::Role;

use super::{Graph, GraphError, NodeId, PlacedGraphError, Port};

impl Graph {
    /// Whether a thread that did not stop has elements still.
    pub(crate) fn has_lost(&self) -> bool {
        self.nodes.iter().any(|n| n.lent)
    }

    /// Elements in an order in which every link goes forward.
    ///
    /// # Errors
    /// No elements, one that is lost, a port without a link, a cycle.
    pub(crate) fn check(&self) -> Result<Vec<NodeId>, PlacedGraphError> {
        if self.nodes.is_empty() {
            return Err(PlacedGraphError { error: GraphError::Empty, span: None });
        }
        if self.has_lost() {
            let lost = self.nodes.iter().filter(|n| n.lent);
            let elements = lost.map(|n| format!("`{}`", n.name)).collect();
            return Err(PlacedGraphError { error: GraphError::Lost { elements }, span: None });
        }
        for (i, node) in self.nodes.iter().enumerate() {
            let node_id = NodeId(i);
            let ports = node.element.ports();
            let dangling = |port: &str, direction| PlacedGraphError {
                error: GraphError::Dangling { element: node.name.clone(), port: port.to_owned(), direction },
                span: node.span.clone(),
            };
            for (port, name) in ports.inputs.iter().enumerate() {
                if !self.links.iter().any(|l| l.to == Port { node: node_id, port }) {
                    return Err(dangling(name, "input"));
                }
            }
            let optional = usize::from(node.element.role() == Role::Tap);
            for (port, name) in ports.outputs.iter().enumerate().skip(optional) {
                if !self.links.iter().any(|l| l.from == Port { node: node_id, port }) {
                    return Err(dangling(name, "output"));
                }
            }
        }
        self.sorted()
    }

    fn sorted(&self) -> Result<Vec<NodeId>, PlacedGraphError> {
        let mut missing: Vec<usize> =
            (0..self.nodes.len()).map(|n| self.links.iter().filter(|l| l.to.node.0 == n).count()).collect();
        let mut order: Vec<NodeId> = (0..self.nodes.len()).filter(|&n| missing[n] == 0).map(NodeId).collect();
        let mut next = 0;
        while let Some(&node) = order.get(next) {
            next += 1;
            for l in self.links.iter().filter(|l| l.from.node == node) {
                missing[l.to.node.0] -= 1;
                if missing[l.to.node.0] == 0 {
                    order.push(l.to.node);
                }
            }
        }
        if order.len() == self.nodes.len() {
            return Ok(order);
        }
        Err(self.cycle(&missing))
    }

    fn cycle(&self, missing: &[usize]) -> PlacedGraphError {
        // Backwards from any node that was never reached, every step stays among such nodes, so one repeats.
        let mut path: Vec<usize> = missing.iter().position(|&m| m > 0).into_iter().collect();
        let mut span = None;
        while let Some(&last) = path.last() {
            let back = self.links.iter().find(|l| l.to.node.0 == last && missing[l.from.node.0] > 0);
            let Some(link) = back else { break };
            span.clone_from(&link.span);
            let seen = path.iter().position(|&n| n == link.from.node.0);
            path.push(link.from.node.0);
            if let Some(start) = seen {
                path.drain(..start);
                break;
            }
        }
        let names = path.iter().rev().map(|&n| self.nodes[n].name.clone()).filter(|n| !n.contains('→')).collect();
        PlacedGraphError { error: GraphError::Cycle { path: names }, span }
    }
}
