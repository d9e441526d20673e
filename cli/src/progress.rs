//! The line on standard error while a pipeline runs, where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use shrbuf_pipeline::Graph;
use shrbuf_pipeline::outline::Outline;
use shrbuf_pipeline::supervise::Error;

use crate::args::RunArgs;
use crate::summary::Totals;
use crate::table::bytes;

/// Updates a second, at most.
const HZ: u8 = 10;
/// Between two updates of a line that somebody sees.
const TICK: Duration = Duration::from_millis(250);
/// The rate shown is that of about the last so long.
const WINDOW: Duration = Duration::from_secs(1);

/// The line.
pub struct Line<'a> {
    bar: &'a ProgressBar,
    /// Somebody sees it. Otherwise what it says is not worked out, several times a second.
    seen: bool,
    limit: Option<u64>,
    /// Where the window began.
    mark: (Duration, u64),
    rate: Option<f64>,
    running: bool,
    /// What it waits for, told once.
    trouble: Option<String>,
}

impl<'a> Line<'a> {
    /// Nothing is drawn yet.
    pub fn new(bar: &'a ProgressBar, args: &RunArgs) -> Line<'a> {
        let meter = match (args.frames, args.duration) {
            (None, None) => "{spinner} {elapsed}",
            _ => "{bar:8.cyan/dim} {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(&format!("{meter}  {{wide_msg}}")) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_length(args.frames.or(args.duration.map(millis)).unwrap_or(1));
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(HZ));
        let (seen, mark) = (!bar.is_hidden(), (Duration::ZERO, 0));
        Line { bar, seen, limit: args.frames, mark, rate: None, running: false, trouble: None }
    }

    /// How often it wants to be told how the run goes; `None` where nobody sees it.
    pub fn tick(&self) -> Option<Duration> {
        self.seen.then_some(TICK)
    }

    /// It runs.
    pub fn running(&mut self, graph: &Graph, elapsed: Duration, outline: &Outline) {
        if !self.running {
            self.running = true;
            self.trouble = None;
            tracing::info!("running");
        }
        if !self.seen {
            return;
        }
        let totals = Totals::of(&graph.counts(), outline);
        self.bar.set_position(self.limit.map_or(millis(elapsed), |_| totals.frames));
        let window = elapsed.saturating_sub(self.mark.0);
        if window >= WINDOW || self.rate.is_none() {
            let frames = totals.frames.saturating_sub(self.mark.1);
            self.rate = (!window.is_zero()).then(|| frames as f64 / window.as_secs_f64());
        }
        if window >= WINDOW {
            self.mark = (elapsed, totals.frames);
        }
        let mut text = format!("{} frames", totals.frames);
        if let Some(rate) = self.rate {
            text.push_str(&format!(", {rate:.1} fps"));
        }
        text.push_str(&format!(", {} dropped, {} copied", totals.dropped, bytes(graph.ledger().copied())));
        if let Some(latency) = totals.latency {
            let ms = |ns: u64| ns as f64 / 1e6;
            text.push_str(&format!(", latency {:.1}/{:.1} ms", ms(latency.p50), ms(latency.p99)));
        } else if totals.misdated {
            text.push_str(", latency unknown");
        }
        for (name, held) in &totals.held {
            text.push_str(&format!(", {name} holds {:.1} s at {:.2}:1", held.time.as_secs_f64(), held.ratio()));
        }
        self.bar.set_message(text);
    }

    /// An element does not come back.
    pub fn hanging(&self, element: &str) {
        tracing::warn!(
            "`{element}` has been busy with one frame for 1.5 s, and holds up the run; look at what it waits for: a device \
             that hangs, a pipe whose other end does nothing"
        );
    }

    /// It failed and is tried again, for so long where that is limited.
    pub fn retrying(&mut self, why: &Error, left: Option<Duration>) {
        self.running = false;
        let why = why.to_string();
        if self.trouble.as_ref() != Some(&why) {
            let tenths = |left: Duration| (left.as_secs_f64() * 10.0).round() / 10.0;
            let limit = left.map_or(String::new(), |left| format!(" for up to {} s", tenths(left)));
            tracing::warn!("{why}; trying again{limit}");
            self.bar.set_message(format!("waiting: {}", why.lines().next().unwrap_or_default()));
            self.trouble = Some(why);
        }
    }

    /// A device failed, and its placeholder goes on.
    pub fn standing_in(&mut self, why: &Error) {
        self.running = false;
        tracing::warn!("{why}; its placeholder stands in until it is back");
    }

    /// Nothing of it is left on the screen.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
