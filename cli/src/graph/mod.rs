//! `shrbuf graph`: a picture of a pipeline, as text or SVG.

mod layout;
mod svg;
mod text;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use shrbuf_pipeline::outline::{Outline, OutlineElement};
use shrbuf_pipeline::plan::Plan;
use shrbuf_pipeline::property::Property;
use shrbuf_pipeline::solve::negotiate;
use shrbuf_pipeline::{QueueSpec, Role};

use crate::args::GraphArgs;
use crate::outcome::{Outcome, WRONG};
use crate::{error, explain};
use layout::Layout;

/// What is drawn.
struct Picture {
    name: String,
    outline: Outline,
    layout: Layout,
    /// One for each link of the outline.
    labels: Vec<Label>,
}

/// What is known of a link.
#[derive(Default)]
struct Label {
    /// Format and size; empty where they stand at another link of the same stream, or are not known.
    what: String,
    /// Memory, and whether it is zero-copy; empty likewise.
    how: String,
    /// `None` where it was not negotiated.
    zero_copy: Option<bool>,
    /// Why it is so.
    reason: String,
}

/// Draws a file's pipeline.
pub fn graph(args: &GraphArgs) -> Outcome {
    let mut graph = match args.source.load() {
        Ok(graph) => graph,
        Err(wrong) => return error::wrong_file(wrong, false),
    };
    let mut outcome = Outcome::default();
    let plan = negotiate(&mut graph, &explain::options()).unwrap_or_else(|failed| {
        let why = failed.to_string();
        outcome.err = format!("not negotiated, so links bear no labels: {}\n", why.lines().next().unwrap_or_default());
        Plan::default()
    });
    let outline = graph.outline();
    let picture = Picture {
        name: graph.name().to_owned(),
        layout: Layout::of(&outline),
        labels: labels(&outline, &plan),
        outline,
    };
    let Some(path) = &args.svg else {
        outcome.out = text::draw(&picture);
        return outcome;
    };
    if is_same(path, &args.source.file) {
        let why = "it is the pipeline's own file; name another for the picture";
        return Outcome::failed(WRONG, format!("error: `{}` is not overwritten: {why}\n", path.display()));
    }
    match std::fs::write(path, svg::draw(&picture)) {
        Ok(()) => outcome,
        Err(e) => Outcome::failed(WRONG, format!("error: cannot write `{}`: {e}\n", path.display())),
    }
}

/// Whether two paths lead to one file.
fn is_same(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    identity(a).is_some_and(|a| identity(b) == Some(a))
}

fn labels(outline: &Outline, plan: &Plan) -> Vec<Label> {
    let label = |link: &shrbuf_pipeline::outline::OutlineLink| {
        let found = plan.links.iter().find(|l| l.from == link.from_port && l.to == link.to_port);
        let Some(planned) = found else { return Label::default() };
        let mut label =
            Label { zero_copy: Some(planned.zero_copy), reason: planned.reason.clone(), ..Label::default() };
        // Tees and queues pass on what came in: said once is enough.
        if matches!(outline.elements[link.from].role, Role::Endpoint | Role::Transform | Role::Tap) {
            let rate = planned.stream.rate.map(|r| format!(" @{r}")).unwrap_or_default();
            label.what = format!("{} {}{rate}", planned.stream.format, planned.stream.size);
            label.how = format!("{}, {}", planned.memory, if planned.zero_copy { "zero-copy" } else { "copies" });
        }
        label
    };
    outline.links.iter().map(label).collect()
}

/// What an element is, in a word.
fn role(element: &OutlineElement) -> &'static str {
    match element.role {
        Role::Endpoint if !element.has_inputs => "source",
        Role::Endpoint => "sink",
        Role::Passthrough => "tee",
        Role::Queue(_) => "queue",
        Role::Transform if element.inserted => "put in: copies",
        Role::Transform => "transform",
        Role::Tap => "tap",
    }
}

fn queue(element: &OutlineElement) -> Option<QueueSpec> {
    match element.role {
        Role::Queue(spec) => Some(spec),
        _ => None,
    }
}

/// What a queue does when it is full, in TOML's word.
fn full(spec: QueueSpec) -> String {
    spec.full.show().trim_matches('"').to_owned()
}
