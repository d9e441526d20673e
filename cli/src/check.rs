//! `shrbuf check`: is the file fine, without opening any device?

use serde::Serialize;

use crate::args::CheckArgs;
use crate::outcome::Outcome;
use crate::table::count;
use crate::{error, json};

#[derive(Serialize)]
struct Checked {
    /// Elements of the file, with those that short forms stand for (a link's queue).
    elements: usize,
    /// Links between them.
    links: usize,
}

/// Checks a file.
pub fn check(args: &CheckArgs) -> Outcome {
    let outline = match args.source.load() {
        Ok(graph) => graph.outline(),
        Err(wrong) => return error::wrong_file(wrong, args.json),
    };
    let (elements, links) = (outline.elements.len(), outline.links.len());
    Outcome::done(match args.json {
        true => json::line(&Checked { elements, links }),
        false => format!("ok: {}, {}\n", count(elements, "element"), count(links, "link")),
    })
}
