//! `shrbuf explain`: what each link carries, and why.

use std::fmt::Write;

use serde::Serialize;
use shrbuf_pipeline::Failure;
use shrbuf_pipeline::outline::Outline;
use shrbuf_pipeline::plan::{Budget, LinkPlan, Plan};
use shrbuf_pipeline::solve::NegotiateOptions;
use shrbuf_pipeline::supervise;

use crate::args::ExplainArgs;
use crate::outcome::{FAILED, Outcome};
use crate::table::Paint;
use crate::{error, json, table};

#[derive(Serialize)]
struct Explained {
    links: Vec<json::Link>,
    /// Who holds how many of each stream's buffers.
    budgets: Vec<json::Buffers>,
    /// What was tried before and refused, in order.
    rejected: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<json::Error>,
}

/// How this command negotiates.
pub fn options() -> NegotiateOptions {
    NegotiateOptions { converters: shrbuf_elements::CONVERTERS }
}

/// Negotiates a file's pipeline and says how it would run.
pub fn explain(args: &ExplainArgs) -> Outcome {
    let mut graph = match args.source.load() {
        Ok(graph) => graph,
        Err(wrong) => return error::wrong_file(wrong, args.json),
    };
    let stands_in = |why: &Failure| tracing::warn!("{why}; its placeholder stands in until it is back");
    let (plan, failed) = match supervise::plan(&mut graph, &options(), stands_in) {
        Ok(plan) => (plan, None),
        Err(failed) => (Plan::default(), Some(failed)),
    };
    let mut outcome = Outcome::default();
    if let Some(failed) = &failed {
        outcome = Outcome::failed(FAILED, error::show_negotiation(failed, &args.source.file));
    }
    if args.json {
        let error = failed.as_ref().map(error::negotiation);
        let (links, budgets) = (json::Link::all(&plan), json::Buffers::all(&plan));
        outcome.out = json::line(&Explained { links, budgets, rejected: plan.rejected, error });
    } else if failed.is_none() {
        outcome.out = text(&plan, &graph.outline(), Paint::stdout());
    }
    outcome
}

fn text(plan: &Plan, outline: &Outline, paint: Paint) -> String {
    let mut out = String::new();
    for link in &plan.links {
        describe(&mut out, link, outline, paint);
    }
    let _ = writeln!(out, "{}", paint.bold("buffers"));
    for budget in &plan.budgets {
        let _ = writeln!(out, "  {}", holders(budget));
    }
    if !plan.rejected.is_empty() {
        let _ = writeln!(out, "\n{}", paint.bold("refused before"));
        for refused in &plan.rejected {
            let _ = writeln!(out, "  {refused}");
        }
    }
    out
}

fn describe(out: &mut String, link: &LinkPlan, outline: &Outline, paint: Paint) {
    let Some(name) = table::link(link, outline) else { return };
    let stream = &link.stream;
    let verdict = if link.zero_copy { paint.good("zero-copy") } else { paint.bad("copies") };
    let rate = stream.rate.map(|r| format!(" at {r} fps")).unwrap_or_default();
    let modifier = stream.modifier.map_or("no modifier".to_owned(), |m| m.to_string());
    let planes = if stream.plane_segments { ", each plane in a buffer of its own" } else { "" };
    let _ = write!(
        out,
        "{}  {verdict}\n  picture  {} {}{rate}, {modifier}\n  memory   {}, stride {}{planes}\n  \
         why      {}\n\n",
        paint.bold(&name),
        stream.format,
        stream.size,
        table::memory(link),
        link.stride,
        link.reason,
    );
}

/// `camera made 5: camera keeps 2, display holds 2`.
fn holders(budget: &Budget) -> String {
    let each = budget.holders.iter().enumerate().map(|(i, (name, n))| {
        let does = if i == 0 { "keeps" } else { "holds" };
        format!("{name} {does} {n}")
    });
    format!("{} made {}: {}", budget.producer, budget.granted, each.collect::<Vec<_>>().join(", "))
}
