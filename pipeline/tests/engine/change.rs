//! A stream that becomes another: what was on its way arrives, before and behind the element that says so.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shrbuf::Shrbuf;
use shrbuf_pipeline::supervise::{Error, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{
    Consumes, Context, Element, Events, Failure, FailureKind, Frame, Full, Graph, InputOffer, Ports, Refusal, Role,
    Start, Stream, Video, Wanted,
};

use crate::elements::{Sink, Source, spec};

/// Says at every so many frames that the stream is another from there on, and keeps what comes for the next start.
struct Changes {
    every: u64,
    kept: Vec<Frame>,
    over: bool,
    starts: u64,
    /// What goes wrong with what comes after a change.
    fails: Option<FailureKind>,
}

impl Changes {
    fn every(frames: u64) -> Changes {
        Changes { every: frames, kept: Vec::new(), over: false, starts: 0, fails: None }
    }
}

impl Element for Changes {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        self.starts += 1;
        self.over = false;
        start.waker(0).wake();
        Ok(())
    }

    fn ready(&mut self, _token: u32, _events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        self.kept.drain(..).try_for_each(|frame| context.push(0, frame))
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        if self.over {
            self.kept.push(frame);
            return self.fails.map_or(Ok(()), |kind| Err(Failure::new(kind, "smoke")));
        }
        self.ready(0, Events::default(), context)?;
        if !frame.sequence.is_multiple_of(self.every) {
            return context.push(0, frame);
        }
        self.kept.push(frame);
        self.over = true;
        let what = format!("another after {} starts", self.starts);
        context.change(Failure::new(FailureKind::Changed, what))
    }
}

/// Takes what comes for so many negotiations, and nothing after that.
struct Fussy {
    sink: Sink,
    agrees: u64,
}

impl Element for Fussy {
    fn ports(&self) -> Ports {
        self.sink.ports()
    }

    fn input_offer(&mut self, _input: usize) -> Result<InputOffer, Failure> {
        let video = vec![Video::linear(shrbuf::Format::Grey)];
        Ok(InputOffer { video, memory: Consumes::cpu(), wanted: Wanted::default(), natural: None })
    }

    fn import(&mut self, _input: usize, _stream: &Stream, _buffers: &[Shrbuf]) -> Result<(), Refusal> {
        self.agrees = self.agrees.checked_sub(1).ok_or_else(|| Refusal::new("too much").instead("less would do"))?;
        Ok(())
    }

    fn process(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.sink.process(input, frame, context)
    }
}

/// `source → queue → changes → queue → sink`, of so many frames.
fn changing(changes: Changes, sink: Box<dyn Element>, frames: u64) -> Report {
    let mut graph = Graph::new("test");
    let queue = || Box::new(shrbuf_pipeline::queue::Queue(spec(4, Full::Block)));
    let elements: [(&str, Box<dyn Element>); 5] = [
        ("source", Box::new(Source::new(32))),
        ("before", queue()),
        ("changes", Box::new(changes)),
        ("behind", queue()),
        ("sink", sink),
    ];
    let nodes = elements.map(|(name, element)| graph.add(name, element).unwrap());
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());
    // Nobody looks at the run until it is over.
    let tick = Duration::from_secs(60);
    run(graph, &RunOptions { frames: Some(frames), tick, ..RunOptions::default() }, |_| Verdict::Continue)
}

#[test]
fn a_change_loses_no_frame_and_waits_for_nobody_to_look() {
    // What is behind is slow, so that there is something on its way.
    let sink = Sink::with(|_| {
        std::thread::sleep(Duration::from_millis(1));
        Ok(())
    });
    let seen = Arc::clone(&sink.seen);
    let begin = Instant::now();

    let report = changing(Changes::every(40), Box::new(sink), 60);

    let took = begin.elapsed();
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!(report.restarts, 1);
    assert!(seen.lock().unwrap().sequences.iter().copied().eq(1..=60), "{:?}", seen.lock().unwrap().sequences);
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn a_source_that_has_sent_all_ends_once_more() {
    let sink = Sink::new();
    let seen = Arc::clone(&sink.seen);

    let report = changing(Changes::every(20), Box::new(sink), 20);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(seen.lock().unwrap().sequences.iter().copied().eq(1..=20));
}

#[test]
fn what_there_is_no_plan_for_is_said_with_what_has_changed() {
    let sink = Sink::new();
    let seen = Arc::clone(&sink.seen);

    let report = changing(Changes::every(10), Box::new(Fussy { sink, agrees: 1 }), 20);

    let error = report.error.unwrap();
    assert!(matches!(error, Error::Unfit { .. }), "{error}");
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Changed), Some("changes")));
    let text = error.to_string();
    assert!(text.starts_with("`changes`: source changed: another after 1 starts\n  "), "{text}");
    assert!(text.contains("sink: too much; less would do"), "{text}");
    assert_eq!(report.restarts, 1);
    assert!(seen.lock().unwrap().sequences.iter().copied().eq(1..10));
}

#[test]
fn what_stalls_for_want_of_kept_buffers_is_no_reason_to_give_up() {
    let fails = |kind| changing(Changes { fails: Some(kind), ..Changes::every(50) }, Box::new(Sink::new()), 60);

    let stalled = fails(FailureKind::Stalled);
    let device = fails(FailureKind::Device);

    assert!(stalled.error.is_none(), "{}", stalled.error.unwrap());
    assert_eq!(stalled.restarts, 1);
    assert_eq!(device.error.unwrap().kind(), Some(FailureKind::Device));
}
