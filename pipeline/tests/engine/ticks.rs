//! What a run does that nobody looks at: all that it should, and no sooner and no later.

use std::time::{Duration, Instant};

use shrbuf_pipeline::supervise::{Progress, RunOptions, Verdict, run};
use shrbuf_pipeline::{Context, Element, Failure, Frame, Graph, InputOffer, Ports};

use crate::elements::{Sink, Source, chain};

/// Of a machine that does other things as well.
const SLACK: Duration = Duration::from_secs(10);

fn never() -> RunOptions {
    RunOptions { tick: Duration::MAX, ..RunOptions::default() }
}

#[test]
fn a_run_ends_when_its_time_is_over_though_nobody_is_asked() {
    let duration = Duration::from_millis(200);
    let options = RunOptions { duration: Some(duration), ..never() };
    let mut asked = 0;

    let report = run(chain(Source::new(2), 0, Sink::new()), &options, |progress| {
        asked += u32::from(matches!(progress, Progress::Running(..)));
        Verdict::Continue
    });

    assert!(report.error.is_none(), "{:?}", report.error);
    assert!((duration..duration + SLACK).contains(&report.duration), "{:?}", report.duration);
    assert_eq!(asked, 0);
}

/// A sink whose user has had enough with the first frame, and that never has dealt with all.
struct Hoards(Sink);

impl Element for Hoards {
    fn ports(&self) -> Ports {
        self.0.ports()
    }

    fn input_offer(&mut self, input: usize) -> Result<InputOffer, Failure> {
        self.0.input_offer(input)
    }

    fn process(&mut self, _input: usize, _frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        context.end_run();
        Ok(())
    }

    fn end(&mut self, _input: usize, _context: &mut Context<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

#[test]
fn what_is_on_its_way_has_two_seconds_after_an_element_has_ended_the_run() {
    let mut graph = Graph::new("test");
    let source = graph.add("source", Box::new(Source::new(2))).unwrap();
    let sink = graph.add("sink", Box::new(Hoards(Sink::new()))).unwrap();
    graph.link(source, sink).unwrap();
    let begin = Instant::now();

    let report = run(graph, &never(), |_| Verdict::Continue);

    assert!(report.error.is_none(), "{:?}", report.error);
    let took = begin.elapsed();
    let grace = Duration::from_secs(2);
    assert!((grace..grace + SLACK).contains(&took), "{took:?}");
}
