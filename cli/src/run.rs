//! `shrbuf run`.

use std::time::Duration;

use indicatif::ProgressBar;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use shrbuf_pipeline::outline::Outline;
use shrbuf_pipeline::supervise::{self, Progress, Report, RunOptions, Verdict};

use crate::args::RunArgs;
use crate::outcome::{FAILED, Outcome};
use crate::progress::Line;
use crate::signals::Interrupts;
use crate::summary::Summary;
use crate::table::Paint;
use crate::{error, explain};

/// Runs a file's pipeline until it ends, fails, or is interrupted.
pub fn run(args: &RunArgs, bar: &ProgressBar) -> Outcome {
    let graph = match args.source.load() {
        Ok(graph) => graph,
        Err(wrong) => return error::wrong_file(wrong, args.json),
    };
    let interrupts = match Interrupts::watch() {
        Ok(interrupts) => interrupts,
        Err(e) => return Outcome::failed(FAILED, format!("error: signals cannot be watched: {e}\n")),
    };
    let mut outline = graph.outline();
    let mut line = Line::new(bar, args);
    let options = RunOptions {
        frames: args.frames,
        duration: args.duration,
        tick: line.tick().unwrap_or(RunOptions::default().tick),
        negotiate: explain::options(),
    };
    let mut started: Option<Duration> = None;
    let report = supervise::run(graph, &options, |progress| {
        match progress {
            Progress::Negotiated(graph, plan) => {
                started.get_or_insert_with(cpu_time);
                interrupts.started();
                // Only now, and until it starts, has it the converters that were put in.
                outline = graph.outline();
                for link in &plan.links {
                    tracing::info!("{} → {}: {}, {}", link.from, link.to, link.stream, link.reason);
                }
            }
            Progress::Running(graph, elapsed) => line.running(graph, elapsed, &outline),
            Progress::Hanging(element) => line.hanging(element),
            Progress::Retrying(why, left) => line.retrying(why, left),
            Progress::StandingIn(why) => line.standing_in(why),
        }
        interrupts.verdict()
    });
    line.finish();
    let cpu = started.map_or(Duration::ZERO, |before| cpu_time().saturating_sub(before));
    outcome(args, &report, &outline, cpu, interrupts.verdict() != Verdict::Continue)
}

fn outcome(args: &RunArgs, report: &Report, outline: &Outline, cpu: Duration, interrupted: bool) -> Outcome {
    let mut outcome = Outcome::default();
    if let Some(failed) = &report.error {
        outcome = Outcome::failed(FAILED, error::show_run(failed, outline, &args.source.file));
    }
    let summary = Summary::new(report, outline, cpu, interrupted);
    outcome.out = if args.json { summary.json() } else { summary.text(Paint::stdout()) };
    outcome
}

/// User and system time of this process so far.
fn cpu_time() -> Duration {
    // The kernel refuses only an address that is none, and another `who`.
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(us.unsigned_abs())
}
