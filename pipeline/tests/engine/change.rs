//! A stream that becomes another: what was on its way arrives, before and behind the element that says so.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shrbuf::Shrbuf;
use shrbuf_pipeline::supervise::{Error, Report, RunOptions, Verdict, run};
use shrbuf_pipeline::{
    Consumes, Context, Element, Events, Failure, FailureKind, Frame, Full, Graph, InputOffer, OutputOffer, Ports,
    Refusal, Role, Start, Stream, Video, Wanted,
};

use crate::elements::{Sink, Source, spec};

/// Says at every so many frames that the stream is another from there on, and keeps what comes for the next start.
struct Changes {
    every: u64,
    kept: Vec<Frame>,
    over: bool,
    starts: u64,
    /// What goes wrong at the end after a change.
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
        if self.over {
            // A change has come before this was called for the start.
            return Ok(());
        }
        self.kept.drain(..).try_for_each(|frame| context.push(0, frame))
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        if self.over {
            self.kept.push(frame);
            return Ok(());
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

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        self.ready(0, Events::default(), context)?;
        match self.fails {
            Some(kind) if self.over => Err(Failure::new(kind, "smoke")),
            _ => context.end_all(),
        }
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

/// Passes on, and notes at the end whether it leads to a change.
struct Asks(Arc<Mutex<Vec<bool>>>);

impl Element for Asks {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        context.push(0, frame)
    }

    fn end(&mut self, _input: usize, context: &mut Context<'_>) -> Result<(), Failure> {
        self.0.lock().unwrap().push(context.leads_to_change());
        context.end_all()
    }
}

/// A source whose signal changes after ten frames, and cannot be had the next so many times that it is asked for.
struct Flickers {
    source: Source,
    away: u32,
    changed: bool,
}

impl Element for Flickers {
    fn ports(&self) -> Ports {
        self.source.ports()
    }

    fn output_offer(&mut self, output: usize, input: Option<&Stream>) -> Result<OutputOffer, Failure> {
        if self.changed && self.away > 0 {
            self.away -= 1;
            return Err(Failure::new(FailureKind::Stalled, "no signal"));
        }
        self.source.output_offer(output, input)
    }

    fn allocate(&mut self, output: usize, stream: &Stream) -> Result<Vec<Shrbuf>, Refusal> {
        self.source.allocate(output, stream)
    }

    fn start(&mut self, start: &mut Start<'_>) -> Result<(), Failure> {
        self.source.start(start)
    }

    fn ready(&mut self, token: u32, events: Events, context: &mut Context<'_>) -> Result<(), Failure> {
        if !self.changed && self.source.sent() == 10 {
            self.changed = true;
            return context.change(Failure::new(FailureKind::Changed, "another signal"));
        }
        self.source.ready(token, events, context)
    }

    fn process(&mut self, input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        self.source.process(input, frame, context)
    }

    fn stop(&mut self) {
        self.source.stop();
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
    assert_eq!(seen.lock().unwrap().sequences, (1..10).collect::<Vec<_>>());
}

#[test]
fn who_leads_to_a_change_is_told_so_and_who_follows_is_not() {
    let [far, near, behind] = <[Arc<Mutex<Vec<bool>>>; 3]>::default();
    let queue = || Box::new(shrbuf_pipeline::queue::Queue(spec(4, Full::Block)));
    let elements: [(&str, Box<dyn Element>); 7] = [
        ("source", Box::new(Source::new(32))),
        ("far", Box::new(Asks(Arc::clone(&far)))),
        ("queue", queue()),
        ("near", Box::new(Asks(Arc::clone(&near)))),
        ("changes", Box::new(Changes::every(10))),
        ("behind", Box::new(Asks(Arc::clone(&behind)))),
        ("sink", Box::new(Sink::new())),
    ];
    let mut graph = Graph::new("test");
    let nodes = elements.map(|(name, element)| graph.add(name, element).unwrap());
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());

    let report = run(graph, &RunOptions { frames: Some(15), ..RunOptions::default() }, |_| Verdict::Continue);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    // At the change, and at the end of all.
    let asked = [far, near, behind].map(|asked| asked.lock().unwrap().clone());
    assert_eq!(asked, [[true, false], [true, false], [false, false]]);
}

#[test]
fn a_source_that_is_away_while_it_changes_is_asked_again() {
    let flickering = |away| {
        let mut graph = Graph::new("test");
        let sink = Sink::new();
        let seen = Arc::clone(&sink.seen);
        let source = Flickers { source: Source::new(4), away, changed: false };
        let source = graph.add("source", Box::new(source)).unwrap();
        let sink = graph.add("sink", Box::new(sink)).unwrap();
        graph.link(source, sink).unwrap();
        let report = run(graph, &RunOptions { frames: Some(20), ..RunOptions::default() }, |_| Verdict::Continue);
        let came = seen.lock().unwrap().sequences.len();
        (report, came)
    };

    let (report, came) = flickering(2);
    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert_eq!((report.restarts, came), (3, 20));

    let (report, came) = flickering(u32::MAX);
    let error = report.error.unwrap();
    assert_eq!((error.kind(), error.element()), (Some(FailureKind::Stalled), Some("source")), "{error}");
    assert_eq!((report.restarts, came), (9, 10));
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
