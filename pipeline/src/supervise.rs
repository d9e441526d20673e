//! Running a graph to its end: negotiate, run, and what is declared for when a device fails.
//!
//! Without a declaration the first failure ends the run. With `retry` (see [`Graph::set_retry`]) a device that is
//! unplugged, stalls or fails is waited for: the graph is negotiated again with growing pauses, until it runs or the
//! time is over. A source whose format has changed is negotiated again at once, always.

use std::time::{Duration, Instant};

use crate::element::{Failure, FailureKind};
use crate::graph::Graph;
use crate::plan::Plan;
use crate::run::{Ended, start};
use crate::solve::{NegotiateOptions, NegotiationError, negotiate};

/// How often the observer is asked, and so how soon its word is obeyed.
const TICK: Duration = Duration::from_millis(250);
/// How long frames on their way may take to arrive once the sources have ended.
const GRACE: Duration = Duration::from_secs(2);
/// Pauses between attempts grow from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long to run, and with what.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Frames that each source sends before it ends.
    pub frames: Option<u64>,
    /// Time after which the sources end.
    pub duration: Option<Duration>,
    /// For negotiation.
    pub negotiate: NegotiateOptions,
}

/// What the observer is told, about four times a second.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The graph has been negotiated and is about to start.
    Negotiated(&'a Graph, &'a Plan),
    /// It runs, since so long.
    Running(&'a Graph, Duration),
    /// A device failed, and the graph is tried again.
    Retrying(&'a Error),
}

/// What the observer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Have the sources end, and frames on their way arrive.
    End,
    /// Stop at once.
    Stop,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a run")]
pub enum Error {
    /// No plan.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// An element.
    #[error(transparent)]
    Element(#[from] Failure),
}

impl Error {
    /// What kind of failure, where an element failed.
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Error::Element(f) | Error::Negotiation(NegotiationError::Element { failure: f, .. }) => Some(f.kind()),
            Error::Negotiation(_) => None,
        }
    }
}

/// How a run went. The graph has the counters and the ledger.
#[derive(Debug)]
pub struct Report {
    /// The graph.
    pub graph: Graph,
    /// The last plan; empty where there never was one.
    pub plan: Plan,
    /// Time in which frames flowed.
    pub duration: Duration,
    /// Times the graph was started again.
    pub restarts: u32,
    /// Why it failed, if it did.
    pub error: Option<Error>,
}

/// Runs a graph until its sources end, the observer says so, or it fails. **Blocks**; elements run on their own
/// threads, the observer on this one.
///
/// ```no_run
/// use shrbuf_pipeline::supervise::{run, Progress, RunOptions, Verdict};
/// # let graph = shrbuf_pipeline::Graph::new("");
/// let report = run(graph, &RunOptions { frames: Some(100), ..Default::default() }, |progress| {
///     if let Progress::Negotiated(_, plan) = progress {
///         println!("{plan:?}");
///     }
///     Verdict::Continue
/// });
/// println!("{:?}, {} bytes copied", report.error, report.graph.ledger().copied());
/// ```
pub fn run(graph: Graph, options: &RunOptions, mut observer: impl FnMut(Progress<'_>) -> Verdict) -> Report {
    let mut report = Report { graph, plan: Plan::default(), duration: Duration::ZERO, restarts: 0, error: None };
    let mut retry = Retry::default();
    loop {
        let before = report.duration;
        let ended = once(&mut report, options, &mut observer);
        if report.duration > before {
            // It ran: whatever comes now is a new trouble.
            retry = Retry::default();
        }
        let Err(error) = ended else { return report };
        let Some(pause) = retry.pause(&error, report.graph.retry()) else {
            report.error = Some(error);
            return report;
        };
        report.restarts += 1;
        let until = Instant::now() + pause;
        loop {
            if observer(Progress::Retrying(&error)) != Verdict::Continue {
                return report;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(TICK));
        }
    }
}

fn once(
    report: &mut Report,
    options: &RunOptions,
    observer: &mut impl FnMut(Progress<'_>) -> Verdict,
) -> Result<(), Error> {
    report.plan = negotiate(&mut report.graph, &options.negotiate)?;
    if observer(Progress::Negotiated(&report.graph, &report.plan)) != Verdict::Continue {
        return Ok(());
    }
    let graph = std::mem::replace(&mut report.graph, Graph::new(""));
    let mut running = match start(graph, options.frames) {
        Ok(running) => running,
        Err(ended) => return give_back(report, *ended),
    };
    let begin = Instant::now();
    let earlier = report.duration;
    let mut ending: Option<Instant> = None;
    while !running.wait(TICK) {
        report.duration = earlier + begin.elapsed();
        let verdict = observer(Progress::Running(running.graph(), report.duration));
        let over = options.duration.is_some_and(|d| report.duration >= d);
        if verdict == Verdict::Stop || ending.is_some_and(|since| since.elapsed() > GRACE) {
            running.stop();
        } else if (verdict == Verdict::End || over) && ending.is_none() {
            ending = Some(Instant::now());
            running.end();
        }
    }
    report.duration = earlier + begin.elapsed();
    give_back(report, running.join())
}

fn give_back(report: &mut Report, ended: Ended) -> Result<(), Error> {
    report.graph = ended.graph;
    ended.failure.map_or(Ok(()), |f| Err(f.into()))
}

#[derive(Default)]
struct Retry {
    since: Option<Instant>,
    attempts: u32,
}

impl Retry {
    /// How long to wait before the next attempt; `None` where there is none to be.
    fn pause(&mut self, error: &Error, limit: Option<Duration>) -> Option<Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let pause = (PAUSES.0 * 2_u32.saturating_pow(self.attempts)).min(PAUSES.1);
        self.attempts += 1;
        match error.kind()? {
            FailureKind::Changed if self.attempts == 1 => Some(Duration::ZERO),
            // A signal that changes again and again needs time, whatever is declared.
            FailureKind::Changed if self.attempts < 10 => Some(pause),
            FailureKind::Data => None,
            _ if since.elapsed() + pause <= limit? => Some(pause),
            _ => None,
        }
    }
}
