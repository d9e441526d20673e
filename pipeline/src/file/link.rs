//! `[[link]]` tables.

use super::error::{Errors, FileError, Problem};
use super::source::Spot;
use super::table::{Entry, Item};
use crate::graph::{Graph, GraphError};
use crate::property::Property;
use crate::queue::{Full, QueueSpec};

const PATH: &str = "names of elements in the order of the frames, such as [\"camera\", \"display\"]";
const QUEUE: &str = "a table such as { depth = 2, full = \"block\" }";

/// One `[[link]]`.
pub(super) struct Path<'a> {
    names: Vec<(&'a str, Spot)>,
    queue: Option<QueueSpec>,
}

/// Every link in the order of the file.
pub(super) fn paths<'a>(entry: &Entry<'a>, errors: &mut Errors) -> Vec<Path<'a>> {
    let links = entry.item.list(entry.name, "tables of the form [[link]], with two brackets");
    let links = errors.take(links).unwrap_or_default();
    links.iter().filter_map(|link| path(link, errors)).collect()
}

fn path<'a>(link: &Item<'a>, errors: &mut Errors) -> Option<Path<'a>> {
    let entries = errors.take(link.entries("link", "tables of the form [[link]]"))?;
    let (mut list, mut queue) = (None, None);
    for entry in &entries {
        match entry.name {
            "path" => list = Some(&entry.item),
            "queue" => queue = queue_spec(entry, errors),
            _ => errors.push(entry.unknown("[[link]]", &["path", "queue"])),
        }
    }
    let Some(list) = list else {
        errors.push(FileError::at(&link.spot, Problem::NoPath));
        return None;
    };
    let mut names = Vec::new();
    for item in errors.take(list.list("path", PATH))? {
        names.push((errors.take(item.text("path", PATH))?, item.spot));
    }
    if names.len() < 2 {
        errors.push(FileError::at(&list.spot, Problem::ShortPath { names: names.len() }));
        return None;
    }
    Some(Path { names, queue })
}

fn queue_spec(entry: &Entry<'_>, errors: &mut Errors) -> Option<QueueSpec> {
    let mut spec = QueueSpec::default();
    for entry in errors.take(entry.item.entries("queue", QUEUE))? {
        match entry.name {
            "depth" => spec.depth = errors.take(entry.item.read::<Depth>("depth"))?.0,
            "full" => spec.full = errors.take(entry.item.read::<Full>("full"))?,
            _ => errors.push(entry.unknown("`queue`", &["depth", "full"])),
        }
    }
    Some(spec)
}

/// Frames that a queue holds: an integer, but not 0.
struct Depth(u32);

impl Property for Depth {
    fn expected() -> String {
        format!("an integer from 1 to {}", u32::MAX)
    }
    fn parse(value: &toml::Value) -> Result<Depth, String> {
        match u32::parse(value)? {
            0 => Err("a queue of 0 frames passes none on".into()),
            depth => Ok(Depth(depth)),
        }
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Path<'_> {
    /// Links its elements in the graph.
    pub(super) fn link(&self, graph: &mut Graph) -> Result<(), FileError> {
        for pair in self.names.windows(2) {
            let [(from, from_spot), (to, to_spot)] = pair else { continue };
            let at = |spot: &Spot, error| FileError::at(spot, Problem::Graph(error));
            let from = graph.output(from).map_err(|e| at(from_spot, e))?;
            let to = graph.input(to).map_err(|e| at(to_spot, e))?;
            let span = Some(from_spot.to(to_spot).span);
            let linked = match self.queue {
                Some(queue) => graph.link_ports_queued(from, to, queue, span),
                None => graph.link_ports(from, to, span),
            };
            linked.map_err(|error| match &error {
                GraphError::PortTaken { direction: "input", .. } => at(to_spot, error),
                _ => at(from_spot, error),
            })?;
        }
        Ok(())
    }
}
