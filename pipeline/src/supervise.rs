//! Running a graph to its end: negotiate, run, and what is declared for when a device fails.
//!
//! Without a declaration the first failure ends the run. With `retry` (see [`Graph::set_retry`]) a device that is
//! unplugged, stalls or fails is waited for: the graph is negotiated again with growing pauses, until it runs or the
//! time is over; unless nothing can become of it ([`Failure::lasting`], bad data). With a placeholder (see [`Graph::set_placeholder`]) the graph goes on with that in the device's place
//! until the device is back, however long that takes. A source whose format has changed is negotiated again at once,
//! always, and waited for where it is away for a moment as it changes.
//!
//! A call of an element's that does not return (a driver that hangs, a pipe that nobody reads) is told of, and ends nothing:
//! only the user knows how long it may take.
//!
//! That a device starts says little: one that fails at its first frame does so each time. A trouble is over once its
//! element has had frames for longer than the longest pause; until then the time and the pauses go on where they were.

use std::time::{Duration, Instant};

use crate::element::{Failure, FailureKind};
use crate::graph::Graph;
use crate::placeholder::{LONGEST, pause};
use crate::plan::Plan;
use crate::run::{Ended, Running, start};
use crate::solve::{NegotiateOptions, NegotiationError, negotiate};

/// How long frames on their way may take to arrive once the sources have ended.
const GRACE: Duration = Duration::from_secs(2);
/// How long a call of an element's may take until it is told of.
const LONG: Duration = Duration::from_millis(1500);

/// How long to run, and with what.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Frames that each source sends before it ends.
    pub frames: Option<u64>,
    /// Time after which the sources end.
    pub duration: Option<Duration>,
    /// How often the observer is asked, and so how soon its word is obeyed, and how often it is looked whether an element
    /// hangs, which nothing else shows: each time is a wake-up. 500 ms, so that one that hangs is told of within 2 s; a
    /// progress line wants it shorter. Nothing else waits for it: with [`Duration::MAX`] only what there is to do wakes this
    /// thread.
    pub tick: Duration,
    /// For negotiation.
    pub negotiate: NegotiateOptions,
}

impl Default for RunOptions {
    fn default() -> RunOptions {
        RunOptions { frames: None, duration: None, tick: LONG / 3, negotiate: NegotiateOptions::default() }
    }
}

/// What the observer is told, once a [tick](RunOptions::tick).
#[derive(Debug)]
pub enum Progress<'a> {
    /// The graph has been negotiated and is about to start.
    Negotiated(&'a Graph, &'a Plan),
    /// It runs, since so long.
    Running(&'a Graph, Duration),
    /// This element has been in one call for 1.5 s, as far as ticks show; told once of each such call. What the observer says
    /// to this counts for nothing, as it is asked again at once.
    Hanging(&'a str),
    /// A device failed, and the graph is tried again: for so long, or where its stream has changed, for some times.
    Retrying(&'a Error, Option<Duration>),
    /// A device failed, and its placeholder takes its place until it is back.
    StandingIn(&'a Error),
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
pub enum Error {
    /// No plan.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// An element.
    #[error(transparent)]
    Element(#[from] Failure),
    /// A stream has changed, and there is no plan for what it is now.
    #[error("{change}\n  {}", error.to_string().replace('\n', "\n  "))]
    Unfit {
        /// The element, from what, and to what.
        change: Failure,
        /// Why that does not go on.
        #[source]
        error: NegotiationError,
    },
}

impl Error {
    /// What kind of failure, where an element failed.
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Error::Element(f) | Error::Negotiation(NegotiationError::Element { failure: f, .. }) => Some(f.kind()),
            Error::Unfit { change, .. } => Some(change.kind()),
            Error::Negotiation(_) => None,
        }
    }

    /// Whether it would be the same each time.
    fn is_lasting(&self) -> bool {
        match self {
            Error::Element(f) | Error::Negotiation(NegotiationError::Element { failure: f, .. }) => f.is_lasting(),
            Error::Unfit { .. } => true,
            Error::Negotiation(_) => false,
        }
    }

    /// What it is where the last run ended with a change.
    fn after(self, change: &mut Option<Failure>) -> Error {
        let there_is_no_plan = matches!(&self, Error::Negotiation(e) if !matches!(e, NegotiationError::Element { .. }));
        match (self, change.take_if(|_| there_is_no_plan)) {
            (Error::Negotiation(error), Some(change)) => Error::Unfit { change, error },
            (error, _) => error,
        }
    }

    /// Whether what has changed is not to be had at the moment.
    fn is_in_the_middle_of(&self, change: &Option<Failure>) -> bool {
        let before_it_runs = matches!(self, Error::Negotiation(_));
        before_it_runs && change.as_ref().is_some_and(|change| change.element() == self.element())
    }

    /// The element that failed, where one did.
    pub fn element(&self) -> Option<&str> {
        match self {
            Error::Element(f) | Error::Negotiation(NegotiationError::Element { failure: f, .. }) => f.element(),
            Error::Unfit { change, .. } => change.element(),
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
pub fn run(graph: Graph, options: &RunOptions, observer: impl FnMut(Progress<'_>) -> Verdict) -> Report {
    let mut report = Report { graph, plan: Plan::default(), duration: Duration::ZERO, restarts: 0, error: None };
    report.error = again_and_again(&mut report, options, observer);
    report.graph.over(report.error.is_some());
    report
}

/// Starts the graph as often as there is reason to; why it failed, if it did.
fn again_and_again(
    report: &mut Report,
    options: &RunOptions,
    mut observer: impl FnMut(Progress<'_>) -> Verdict,
) -> Option<Error> {
    let mut retry = Retry::default();
    let mut worked = Worked::default();
    let mut change = None;
    loop {
        let error = match once(report, options, &mut worked, &mut observer) {
            Ok(Step::Over) => return None,
            Ok(Step::DeviceIsBack) => {
                report.graph.take_back();
                report.restarts += 1;
                change = None;
                continue;
            }
            Err(error) => error.after(&mut change),
        };
        if error.kind() == Some(FailureKind::Panic) || report.graph.has_lost() {
            return Some(error);
        }
        let recovered = worked.long_enough(&report.graph, error.element());
        if recovered {
            retry = Retry::default();
        }
        if error.kind().is_some_and(replaceable)
            && error.element().is_some_and(|name| report.graph.stand_in(name, recovered))
        {
            report.restarts += 1;
            if observer(Progress::StandingIn(&error)) != Verdict::Continue {
                return None;
            }
            continue;
        }
        let changing = error.is_in_the_middle_of(&change);
        let Some((pause, limit)) = retry.pause(&error, changing, report.graph.retry()) else {
            return Some(error);
        };
        report.restarts += 1;
        let until = Instant::now() + pause;
        loop {
            if observer(Progress::Retrying(&error, limit)) != Verdict::Continue {
                return None;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(options.tick));
        }
        if let Error::Element(failure) = error {
            change = Some(failure).filter(|f| f.kind() == FailureKind::Changed);
        }
    }
}

/// The plan that [`run`] would begin with, which is not run: with placeholders in the places of devices that are missing,
/// of which `stands_in` is told. May be repeated, and followed by [`run`].
///
/// # Errors
/// As [`negotiate`].
pub fn plan(
    graph: &mut Graph,
    options: &NegotiateOptions,
    mut stands_in: impl FnMut(&Failure),
) -> Result<Plan, NegotiationError> {
    loop {
        let error = match negotiate(graph, options) {
            Ok(plan) => return Ok(plan),
            Err(error) => error,
        };
        match &error {
            NegotiationError::Element { failure, .. }
                if replaceable(failure.kind()) && failure.element().is_some_and(|name| graph.stand_in(name, false)) =>
            {
                stands_in(failure);
            }
            _ => return Err(error),
        }
    }
}

/// Whether a placeholder may have the place of what failed so: a changed source is negotiated again, and bad data stays bad.
fn replaceable(kind: FailureKind) -> bool {
    !matches!(kind, FailureKind::Changed | FailureKind::Data)
}

/// How a start of the graph ended, where nothing failed.
enum Step {
    /// There is nothing more to do.
    Over,
    /// A device is to have its place back.
    DeviceIsBack,
}

fn once(
    report: &mut Report,
    options: &RunOptions,
    worked: &mut Worked,
    observer: &mut impl FnMut(Progress<'_>) -> Verdict,
) -> Result<Step, Error> {
    *worked = Worked::default();
    report.plan = negotiate(&mut report.graph, &options.negotiate)?;
    if observer(Progress::Negotiated(&report.graph, &report.plan)) != Verdict::Continue {
        return Ok(Step::Over);
    }
    let graph = std::mem::replace(&mut report.graph, Graph::new(""));
    let mut running = match start(graph, options.frames) {
        Ok(running) => running,
        Err(ended) => return give_back(report, *ended, Step::Over),
    };
    let mut step = Step::Over;
    let mut calls = Calls::default();
    let begin = Instant::now();
    let earlier = report.duration;
    let mut ending: Option<Duration> = None;
    let mut tick = options.tick;
    while !running.is_over() && !running.is_stopping() {
        let now = begin.elapsed();
        let over = match (ending, options.duration) {
            (Some(since), _) => since + GRACE,
            (None, Some(duration)) => duration.saturating_sub(earlier),
            (None, None) => Duration::MAX,
        };
        let asks_again = running.asks_again().filter(|_| ending.is_none());
        let asks_again = asks_again.map_or(Duration::MAX, |at| at.saturating_duration_since(begin));
        let due = over.min(tick).min(asks_again).min(worked.due());
        running.wait_for_news(due.saturating_sub(now));
        let now = begin.elapsed();
        report.duration = earlier + now;
        worked.look(running.graph(), now);
        let mut verdict = Verdict::Continue;
        if now >= tick {
            tick = now.saturating_add(options.tick);
            if let Some(node) = calls.too_long(&running, now) {
                observer(Progress::Hanging(&running.graph().nodes[node].name));
            }
            verdict = observer(Progress::Running(running.graph(), report.duration));
        }
        if verdict == Verdict::Stop || ending.is_some_and(|since| now >= since + GRACE) {
            running.stop();
        } else if ending.is_none() && (verdict == Verdict::End || now >= over || running.is_ending()) {
            ending = Some(now);
            running.end();
        } else if ending.is_none() && running.device_is_back() {
            step = Step::DeviceIsBack;
            running.stop();
        }
    }
    report.duration = earlier + begin.elapsed();
    give_back(report, running.join(), step)
}

fn give_back(report: &mut Report, ended: Ended, step: Step) -> Result<Step, Error> {
    report.graph = ended.graph;
    ended.failure.map_or(Ok(step), |f| Err(f.into()))
}

/// The call of an element's that each thread is in, as far as looks once a tick show.
#[derive(Default)]
struct Calls(Vec<Call>);

#[derive(Default)]
struct Call {
    /// The element, and frames it has had: with another frame it is another call.
    inside: Option<(usize, u64)>,
    since: Duration,
    told: bool,
}

impl Calls {
    /// The element that has been in one for too long, unless that has been told.
    fn too_long(&mut self, running: &Running, now: Duration) -> Option<usize> {
        let inside: Vec<_> = running.inside().collect();
        self.0.resize_with(inside.len(), Call::default);
        for (call, inside) in self.0.iter_mut().zip(inside) {
            if call.inside != inside {
                *call = Call { inside, since: now, told: false };
            } else if !call.told && now.saturating_sub(call.since) >= LONG {
                call.told = true;
                if let Some((node, _)) = inside {
                    return Some(node);
                }
            }
        }
        None
    }
}

/// Frames that each element had had when the longest pause had passed since the last start.
#[derive(Default)]
struct Worked(Vec<u64>);

impl Worked {
    /// When, since the start, a look is due.
    fn due(&self) -> Duration {
        if self.0.is_empty() { LONGEST } else { Duration::MAX }
    }

    fn look(&mut self, graph: &Graph, since_start: Duration) {
        if since_start >= self.due() {
            self.0 = graph.nodes.iter().map(|n| n.stats.frames()).collect();
        }
    }

    /// Whether the element called `name` has had frames since its last pause was made up for, other than the one that it
    /// may have failed at.
    fn long_enough(&self, graph: &Graph, name: Option<&str>) -> bool {
        let mut had = graph.nodes.iter().zip(&self.0);
        had.any(|(node, &had)| Some(node.name.as_str()) == name && node.stats.frames() > had + 1)
    }
}

#[derive(Default)]
struct Retry {
    since: Option<Instant>,
    attempts: u32,
}

impl Retry {
    /// How long to wait before the next attempt, and how much longer there are to be any where that is limited; `None` where
    /// there is none to be.
    fn pause(
        &mut self,
        error: &Error,
        changing: bool,
        limit: Option<Duration>,
    ) -> Option<(Duration, Option<Duration>)> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let pause = pause(self.attempts);
        self.attempts += 1;
        match error.kind()? {
            _ if error.is_lasting() => None,
            FailureKind::Changed if self.attempts == 1 => Some((Duration::ZERO, None)),
            // A signal that changes again and again, or goes and comes as it does, needs time, whatever is declared.
            FailureKind::Changed if self.attempts < 10 => Some((pause, None)),
            FailureKind::Stalled if changing && self.attempts < 10 => Some((pause, None)),
            FailureKind::Data => None,
            _ => {
                let left = limit?.saturating_sub(since.elapsed());
                (pause <= left).then_some((pause, Some(left)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: FailureKind) -> Error {
        Failure::new(kind, "a test").into()
    }

    fn pauses(kind: FailureKind, limit: Option<Duration>) -> Vec<u128> {
        let mut retry = Retry::default();
        let error = error(kind);
        std::iter::from_fn(|| retry.pause(&error, false, limit)).take(20).map(|(pause, _)| pause.as_millis()).collect()
    }

    #[test]
    fn pauses_grow_while_a_trouble_lasts() {
        let pauses = pauses(FailureKind::Unplugged, Some(Duration::from_secs(60)));

        assert_eq!(pauses[..7], [100, 200, 400, 800, 1600, 2000, 2000]);
    }

    #[test]
    fn a_pause_that_would_end_too_late_is_not_begun() {
        assert_eq!(pauses(FailureKind::Unplugged, Some(Duration::from_millis(500))), [100, 200, 400]);
        assert_eq!(pauses(FailureKind::Unplugged, None), []);
    }

    #[test]
    fn a_source_that_changes_again_and_again_is_given_up() {
        assert_eq!(pauses(FailureKind::Changed, None), [0, 200, 400, 800, 1600, 2000, 2000, 2000, 2000]);
    }

    #[test]
    fn how_long_it_is_tried_for_is_told() {
        let limit = Duration::from_secs(60);
        let mut retry = Retry::default();
        let mut left = |kind| retry.pause(&error(kind), false, Some(limit)).unwrap().1;

        let [first, second] = [left(FailureKind::Unplugged), left(FailureKind::Unplugged)].map(Option::unwrap);

        assert!(second < first && first <= limit && second > limit / 2, "{first:?}, {second:?}");
        assert_eq!(left(FailureKind::Changed), None);
    }

    #[test]
    fn what_lasts_is_not_tried_again() {
        let lasting: Error = Failure::new(FailureKind::Config, "a test").lasting().into();

        assert_eq!(Retry::default().pause(&lasting, false, Some(Duration::from_secs(60))), None);
    }

    #[test]
    fn bad_data_stays_bad() {
        assert_eq!(pauses(FailureKind::Data, Some(Duration::from_secs(60))), []);
    }
}
