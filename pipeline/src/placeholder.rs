//! Placeholders: what has a device's place in the graph while the device is missing or fails.
//!
//! The display behind a camera that was unplugged goes on showing something, a test card say, and the camera itself is
//! asked again with growing pauses until it answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::element::{Element, Environment, Role};
use crate::graph::{Graph, GraphError, Node, NodeId};

/// Pauses between attempts grow from this.
const SHORTEST: Duration = Duration::from_millis(100);
/// To this.
pub(crate) const LONGEST: Duration = Duration::from_secs(2);

/// How long to wait after so many attempts that failed.
pub(crate) fn pause(attempts: u32) -> Duration {
    SHORTEST.saturating_mul(2_u32.saturating_pow(attempts)).min(LONGEST)
}

/// The one of a device and its placeholder that does not have the place.
pub(crate) struct Standby {
    element: Box<dyn Element>,
    /// The device is the one that waits.
    standing_in: bool,
    /// The device has answered.
    back: bool,
    /// The device is asked then.
    due: Instant,
    attempts: u32,
}

impl Graph {
    /// Has `placeholder` take the place of a source or a sink whose device is missing or fails. The device is asked
    /// again with growing pauses of up to 2 s, and takes its place as soon as it answers. Each change negotiates the
    /// graph again. What the placeholder sends counts as the element's.
    ///
    /// # Errors
    /// The element is neither a source nor a sink, or the placeholder has other ports.
    pub fn set_placeholder(&mut self, node: NodeId, mut placeholder: Box<dyn Element>) -> Result<(), GraphError> {
        let (ports, own) = (self.ports(node), placeholder.ports());
        let name = self.nodes[node.0].name.clone();
        let end = self.role(node) == Role::Endpoint && (ports.inputs.is_empty() || ports.outputs.is_empty());
        if !end || (ports.inputs.len(), ports.outputs.len()) != (own.inputs.len(), own.outputs.len()) {
            return Err(GraphError::Placeholder { element: name, end });
        }
        let held = Arc::clone(self.nodes[node.0].stats.held());
        placeholder.join(&Environment { held, ..Environment::new(name, self.ledger.clone()) });
        self.nodes[node.0].standby =
            Some(Standby { element: placeholder, standing_in: false, back: false, due: Instant::now(), attempts: 0 });
        Ok(())
    }

    /// Whether the element called `name` has its place taken by a placeholder at the moment.
    pub fn is_placeholder(&self, name: &str) -> bool {
        self.nodes.iter().any(|n| n.name == name && n.standby.as_ref().is_some_and(|s| s.standing_in))
    }

    /// Gives the place of the element called `name` to its placeholder; false where there is none, or it has failed
    /// itself. Where it had `recovered` from its last trouble, this is a new one, with pauses that begin anew.
    pub(crate) fn stand_in(&mut self, name: &str, recovered: bool) -> bool {
        let Some(node) = self.nodes.iter_mut().find(|n| n.name == name) else { return false };
        let Some(standby) = node.standby.as_mut().filter(|s| !s.standing_in) else { return false };
        if recovered {
            standby.attempts = 0;
        }
        standby.due = Instant::now() + pause(standby.attempts);
        standby.swap(&mut node.element);
        true
    }

    /// When a device is to be asked, the first of those whose placeholders have their places.
    pub(crate) fn asks_again(&self) -> Option<Instant> {
        let standbys = self.nodes.iter().filter_map(|n| n.standby.as_ref());
        standbys.filter(|s| s.standing_in).map(|s| s.due).min()
    }

    /// Asks devices whose placeholders have their places, where that is due; true where one has answered. They may be
    /// asked while the graph runs. May block as long as a device takes to open.
    pub(crate) fn device_is_back(&mut self) -> bool {
        let now = Instant::now();
        let mut any = false;
        for standby in self.nodes.iter_mut().filter_map(|n| n.standby.as_mut()) {
            if standby.standing_in && standby.due <= now {
                standby.back = standby.answers();
                standby.attempts += 1;
                standby.due = now + pause(standby.attempts);
            }
            any |= standby.back;
        }
        any
    }

    /// Gives devices that have answered their places back.
    pub(crate) fn take_back(&mut self) {
        for node in &mut self.nodes {
            let Node { element, standby: Some(standby), .. } = node else { continue };
            if standby.back {
                standby.swap(element);
            }
        }
    }

    /// Tells every element that nothing is started again, those too that have no place just now.
    pub(crate) fn over(&mut self, failed: bool) {
        for node in &mut self.nodes {
            node.element.over(failed);
            if let Some(standby) = &mut node.standby {
                standby.element.over(failed);
            }
        }
    }
}

impl Standby {
    fn swap(&mut self, place: &mut Box<dyn Element>) {
        std::mem::swap(&mut self.element, place);
        self.standing_in = !self.standing_in;
        self.back = false;
    }

    fn answers(&mut self) -> bool {
        if self.element.ports().inputs.is_empty() {
            self.element.output_offer(0, None).is_ok()
        } else {
            self.element.input_offer(0).is_ok()
        }
    }
}
