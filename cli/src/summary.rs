//! How a run went, for people and for programs.

use std::fmt::Write;
use std::time::Duration;

use shrbuf_pipeline::Role;
use shrbuf_pipeline::outline::{Outline, OutlineElement};
use shrbuf_pipeline::plan::Plan;
use shrbuf_pipeline::run::ElementCounts;
use shrbuf_pipeline::stats::{Held, Latency};
use shrbuf_pipeline::supervise::Report;

use crate::table::{Align, Paint, Table, bytes, count, is_own_queue, link, memory, time};
use crate::{error, json};

/// Frames a second of less time than this say nothing.
const SHORTEST: Duration = Duration::from_millis(100);

/// Figures of the whole pipeline.
pub struct Totals {
    /// Frames that reached every sink: the least of the sinks' counts, without what they dropped.
    pub frames: u64,
    /// Frames dropped by all elements together.
    pub dropped: u64,
    /// Of the sink with the worst p99.
    pub latency: Option<Latency>,
    /// A sink got frames whose time stamp was wrong.
    pub misdated: bool,
    /// What stores hold, by name.
    pub held: Vec<(String, Held)>,
}

impl Totals {
    /// Adds up.
    pub fn of(counts: &[ElementCounts], outline: &Outline) -> Totals {
        let reached = reached_by_every_frame(outline);
        let is_sink = |e: &OutlineElement| !e.has_outputs && reached.contains(&e.name.as_str());
        let sinks = || counts.iter().filter(|c| outline.elements.iter().any(|e| e.name == c.name && is_sink(e)));
        Totals {
            frames: sinks().map(|c| c.counts.frames.saturating_sub(c.counts.dropped)).min().unwrap_or(0),
            dropped: counts.iter().map(|c| c.counts.dropped).sum(),
            latency: sinks().filter_map(|c| c.counts.latency).max_by_key(|l| l.p99),
            misdated: sinks().any(|c| c.counts.misdated > 0),
            held: counts.iter().filter_map(|c| Some((c.name.clone(), c.counts.held?))).collect(),
        }
    }
}

/// Names of elements that are not only behind a store's replay, which sends what it is asked for.
fn reached_by_every_frame(outline: &Outline) -> Vec<&str> {
    let mut reached: Vec<bool> = outline.elements.iter().map(|e| !e.has_inputs).collect();
    // As often as a chain may be long.
    for _ in &outline.elements {
        for link in &outline.links {
            let replay = outline.elements[link.from].role == Role::Tap && link.from_port.ends_with(".replay");
            reached[link.to] |= reached[link.from] && !replay;
        }
    }
    outline.elements.iter().zip(reached).filter(|(_, reached)| *reached).map(|(e, _)| e.name.as_str()).collect()
}

/// A run's end.
pub struct Summary<'a> {
    report: &'a Report,
    outline: &'a Outline,
    counts: Vec<ElementCounts>,
    totals: Totals,
    cpu: Duration,
    interrupted: bool,
}

impl<'a> Summary<'a> {
    /// Of a run that used so much CPU time.
    pub fn new(report: &'a Report, outline: &'a Outline, cpu: Duration, interrupted: bool) -> Summary<'a> {
        let counts = report.graph.counts();
        let totals = Totals::of(&counts, outline);
        Summary { report, outline, counts, totals, cpu, interrupted }
    }

    fn cpu_us_per_frame(&self) -> Option<f64> {
        (self.totals.frames > 0).then(|| self.cpu.as_micros() as f64 / self.totals.frames as f64)
    }

    /// One line.
    pub fn json(&self) -> String {
        json::line(&json::Run {
            frames: self.totals.frames,
            dropped: self.totals.dropped,
            duration_s: self.report.duration.as_secs_f64(),
            bytes_copied: self.report.graph.ledger().copied(),
            cpu_us_per_frame: self.cpu_us_per_frame(),
            interrupted: self.interrupted,
            restarts: self.report.restarts,
            links: json::Link::all(&self.report.plan),
            elements: json::Element::all(&self.counts),
            error: self.report.error.as_ref().map(error::run),
        })
    }

    /// For people; empty where it never came so far as to have a plan.
    pub fn text(&self, paint: Paint) -> String {
        if self.report.plan.links.is_empty() {
            return if self.interrupted { "interrupted before it started\n".into() } else { String::new() };
        }
        let mut out = paint.bold(&self.headline());
        let _ = write!(
            out,
            "\n\n{}\n{}",
            links(&self.report.plan, self.outline, paint),
            elements(&self.counts, self.outline, paint)
        );
        out
    }

    fn headline(&self) -> String {
        let report = self.report;
        let seconds = report.duration.as_secs_f64();
        let interrupted = if self.interrupted { "interrupted, " } else { "" };
        let mut line = format!(
            "{}: {interrupted}{} in {seconds:.2} s",
            report.graph.name().escape_debug(),
            count(usize::try_from(self.totals.frames).unwrap_or(usize::MAX), "frame")
        );
        if report.duration >= SHORTEST {
            let _ = write!(line, " ({:.1} fps)", self.totals.frames as f64 / seconds);
        }
        let _ = write!(line, ", {} dropped, {} copied", self.totals.dropped, bytes(report.graph.ledger().copied()));
        if let Some(us) = self.cpu_us_per_frame() {
            let _ = write!(line, ", {us:.0} µs CPU a frame");
        }
        if report.restarts > 0 {
            let _ = write!(line, ", started again {}", count(report.restarts as usize, "time"));
        }
        line
    }
}

fn links(plan: &Plan, outline: &Outline, paint: Paint) -> String {
    let left = ["link", "format", "size", "rate", "memory", "", "why"].map(|head| (head, Align::Left));
    let mut table = Table::new(&left);
    for planned in &plan.links {
        let stream = &planned.stream;
        let Some(name) = link(planned, outline) else { continue };
        table.row([
            name,
            stream.format.to_string(),
            stream.size.to_string(),
            stream.rate.map(|r| r.to_string()).unwrap_or_default(),
            memory(planned),
            if planned.zero_copy { "zero-copy" } else { "COPIES" }.to_owned(),
            planned.reason.clone(),
        ]);
    }
    let table = table.show(paint);
    table.replace("zero-copy", &paint.good("zero-copy")).replace("COPIES", &paint.bad("COPIES"))
}

fn elements(counts: &[ElementCounts], outline: &Outline, paint: Paint) -> String {
    let mut table = Table::new(&[
        ("element", Align::Left),
        ("frames", Align::Right),
        ("dropped", Align::Right),
        ("corrupt", Align::Right),
        ("misdated", Align::Right),
        ("latency p50", Align::Right),
        ("p99", Align::Right),
        ("max", Align::Right),
        ("", Align::Left),
    ]);
    let own_queue = |name: &str| outline.elements.iter().any(|e| e.name == name && is_own_queue(e));
    for element in counts {
        let c = &element.counts;
        let unknown = if c.misdated > 0 { "unknown" } else { "" };
        let latency = |of: fn(&Latency) -> u64| c.latency.as_ref().map_or(unknown.to_owned(), |l| time(of(l)));
        let some = |n: u64| if n > 0 { n.to_string() } else { String::new() };
        let mut own: Vec<String> = element.own.iter().map(|(name, n)| format!("{name} {n}")).collect();
        own.extend(c.held.map(|h| format!("holds {:.1} s at {:.2}:1", h.time.as_secs_f64(), h.ratio())));
        table.row([
            format!("{}{}", if own_queue(&element.name) { "queue " } else { "" }, element.name),
            c.frames.to_string(),
            c.dropped.to_string(),
            some(c.corrupt),
            some(c.misdated),
            latency(|l| l.p50),
            latency(|l| l.p99),
            latency(|l| l.max),
            own.join(", "),
        ]);
    }
    table.show(paint)
}

#[cfg(test)]
mod tests {
    use shrbuf_pipeline::stats::NodeCounts;

    use super::*;

    #[test]
    fn a_latency_that_is_known_of_no_frame_is_unknown() {
        let of = |name: &str, counts| ElementCounts { name: name.into(), counts, own: Vec::new() };
        let camera = of("camera", NodeCounts { frames: 30, ..NodeCounts::default() });
        let display = of("display", NodeCounts { frames: 30, misdated: 30, ..NodeCounts::default() });
        let outline = Outline { elements: Vec::new(), links: Vec::new() };
        let plain = Paint::stdout();

        let shown = elements(&[camera, display], &outline, plain);

        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows: Vec<_> = shown.lines().map(words).collect();
        assert_eq!(rows[1], ["camera", "30", "0"]);
        assert_eq!(rows[2], ["display", "30", "0", "30", "unknown", "unknown", "unknown"]);
    }
}
