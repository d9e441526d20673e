//! Frames arrive: in order, all of them or counted, and buffers come back.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use shrbuf_pipeline::Full;
use shrbuf_pipeline::run::start;

use crate::elements::{Sink, Source, chain, queued, spec};

const LONG: Duration = Duration::from_secs(20);

fn counts(graph: &shrbuf_pipeline::Graph, name: &str) -> (u64, u64) {
    let all = graph.counts();
    let found = all.iter().find(|c| c.name == name).unwrap();
    (found.counts.frames, found.counts.dropped)
}

#[test]
fn one_domain_delivers_every_frame_in_order_on_one_thread() {
    let (source, sink) = (Source::new(2), Sink::new());
    let seen = Arc::clone(&sink.seen);

    let ended = start(chain(source, 3, sink), Some(1000)).unwrap_or_else(|e| panic!("{:?}", e.failure)).join();

    assert!(ended.failure.is_none(), "{:?}", ended.failure);
    let seen = seen.lock().unwrap();
    assert!(seen.sequences.iter().copied().eq(1..=1000));
    assert_eq!(seen.stops, 1);
    assert_eq!(counts(&ended.graph, "source"), (1000, 0));
    assert_eq!(counts(&ended.graph, "pass1"), (1000, 0));
    assert_eq!(counts(&ended.graph, "sink"), (1000, 0));
}

#[test]
fn blocking_queue_delivers_every_frame_in_order_on_another_thread() {
    let (source, sink) = (Source::new(8), Sink::new());
    let seen = Arc::clone(&sink.seen);

    let ended = start(queued(source, spec(2, Full::Block), sink), Some(50_000)).ok().unwrap().join();

    assert!(ended.failure.is_none(), "{:?}", ended.failure);
    let seen = seen.lock().unwrap();
    assert!(seen.sequences.iter().copied().eq(1..=50_000));
    assert_ne!(seen.thread, Some(std::thread::current().id()));
    assert_eq!(counts(&ended.graph, "queue"), (50_000, 0));
}

#[test]
fn leaky_queue_drops_the_oldest_and_counts_them() {
    let (gate, wait) = channel::<()>();
    let mut open = false;
    let sink = Sink::with(move |_| {
        // The first frame is held until the source has sent everything.
        if !open {
            wait.recv_timeout(LONG).unwrap();
            open = true;
        }
        Ok(())
    });
    let seen = Arc::clone(&sink.seen);
    let mut running = start(queued(Source::new(8), spec(3, Full::DropOldest), sink), Some(100)).ok().unwrap();
    while counts(running.graph(), "source").0 < 100 {
        std::thread::yield_now();
    }
    gate.send(()).unwrap();
    assert!(running.wait(LONG));

    let ended = running.join();

    let seen = seen.lock().unwrap();
    let (_, dropped) = counts(&ended.graph, "queue");
    assert_eq!(seen.sequences.len() as u64 + dropped, 100);
    assert!(dropped >= 90, "{dropped} dropped");
    assert!(seen.sequences.is_sorted());
    assert_eq!(seen.sequences.last(), Some(&100));
}

#[test]
fn mailbox_keeps_only_the_newest() {
    let (gate, wait) = channel::<()>();
    let mut open = false;
    let sink = Sink::with(move |_| {
        if !open {
            wait.recv_timeout(LONG).unwrap();
            open = true;
        }
        Ok(())
    });
    let seen = Arc::clone(&sink.seen);
    let mut running = start(queued(Source::new(8), spec(5, Full::Latest), sink), Some(100)).ok().unwrap();
    // All but one that is held, and one that waits.
    while counts(running.graph(), "queue").1 < 98 {
        std::thread::yield_now();
    }
    gate.send(()).unwrap();
    assert!(running.wait(LONG));

    let ended = running.join();

    let seen = seen.lock().unwrap();
    let (sent, _) = counts(&ended.graph, "source");
    let (_, dropped) = counts(&ended.graph, "queue");
    assert_eq!(sent, 100);
    // One was held, and of those behind it only the newest waited.
    assert!(seen.sequences.len() <= 2, "{:?}", seen.sequences);
    assert_eq!(seen.sequences.last(), Some(&sent));
    assert_eq!(seen.sequences.len() as u64 + dropped, sent);
}

#[test]
fn the_end_takes_no_frames_place() {
    for full in [Full::Block, Full::DropOldest, Full::Latest] {
        for _ in 0..200 {
            let sink = Sink::new();
            let seen = Arc::clone(&sink.seen);

            let ended = start(queued(Source::new(2), spec(1, full), sink), Some(1)).ok().unwrap().join();

            assert_eq!(seen.lock().unwrap().sequences, [1], "{full:?}");
            assert_eq!(counts(&ended.graph, "queue"), (1, 0), "{full:?}");
        }
    }
}

#[test]
fn buffers_are_all_back_after_the_end() {
    let (source, sink) = (Source::new(4), Sink::new());
    let pool = Arc::clone(&source.pool);

    let ended = start(queued(source, spec(2, Full::Block), sink), Some(500)).ok().unwrap().join();

    assert!(ended.failure.is_none());
    let pool = pool.lock().unwrap().take().unwrap();
    assert_eq!((pool.idle(), pool.draining()), (4, 0));
}

#[test]
fn end_lets_frames_on_their_way_arrive() {
    let (source, sink) = (Source::new(4), Sink::new());
    let seen = Arc::clone(&sink.seen);
    let mut running = start(queued(source, spec(4, Full::Block), sink), None).ok().unwrap();
    while counts(running.graph(), "source").0 < 10 {
        std::thread::yield_now();
    }

    running.end();

    assert!(running.wait(LONG));
    let ended = running.join();
    let (sent, _) = counts(&ended.graph, "source");
    assert_eq!(seen.lock().unwrap().sequences.len() as u64, sent);
}

#[test]
fn a_graph_runs_again_and_the_limit_holds_over_all_runs() {
    let (source, sink) = (Source::new(4), Sink::new());
    let seen = Arc::clone(&sink.seen);
    let mut first = start(chain(source, 0, sink), Some(100)).ok().unwrap();
    assert!(first.wait(LONG));

    let ended = start(first.join().graph, Some(150)).ok().unwrap().join();

    assert!(ended.failure.is_none());
    assert_eq!(seen.lock().unwrap().sequences.len(), 150);
    assert_eq!(counts(&ended.graph, "source").0, 150);
}

#[test]
fn a_thousand_elements_in_a_row_and_sixty_four_streams_side_by_side() {
    let (source, sink) = (Source::new(2), Sink::new());
    let seen = Arc::clone(&sink.seen);
    let long = start(chain(source, 1000, sink), Some(100)).ok().unwrap().join();
    assert!(long.failure.is_none());
    assert_eq!(seen.lock().unwrap().sequences.len(), 100);

    let mut graph = shrbuf_pipeline::Graph::new("wide");
    for i in 0..64 {
        let source = graph.add(&format!("source{i}"), Box::new(Source::new(2))).unwrap();
        let sink = graph.add(&format!("sink{i}"), Box::new(Sink::new())).unwrap();
        graph.link(source, sink).unwrap();
    }
    let wide = start(graph, Some(100)).ok().unwrap().join();
    assert!(wide.failure.is_none());
    let frames: u64 = wide.graph.counts().iter().filter(|c| c.name.starts_with("sink")).map(|c| c.counts.frames).sum();
    assert_eq!(frames, 6400);
}

#[test]
fn queues_in_a_row_each_hold_their_frames() {
    let mut graph = shrbuf_pipeline::Graph::new("test");
    let sink = Sink::new();
    let seen = Arc::clone(&sink.seen);
    let source = graph.add("source", Box::new(Source::new(8))).unwrap();
    let sink = graph.add("sink", Box::new(sink)).unwrap();
    let middle = graph.add("middle", Box::new(shrbuf_pipeline::queue::Queue(spec(1, Full::Block)))).unwrap();
    graph.link_queued(source, middle, spec(2, Full::Block)).unwrap();
    graph.link_queued(middle, sink, spec(1, Full::Latest)).unwrap();

    let ended = start(graph, Some(1000)).ok().unwrap().join();

    assert!(ended.failure.is_none());
    let arrived = seen.lock().unwrap().sequences.clone();
    assert!(arrived.is_sorted() && !arrived.is_empty());
}

#[test]
fn sinks_report_latency() {
    let ended = start(chain(Source::new(2), 0, Sink::new()), Some(100)).ok().unwrap().join();

    let counts = ended.graph.counts();
    let latency = counts.iter().find(|c| c.name == "sink").unwrap().counts.latency.unwrap();
    assert!(latency.p50 <= latency.p99 && latency.p99 <= latency.max && latency.max > 0);
}

#[test]
fn a_timer_ticks_until_the_run_ends() {
    struct Ticks(u32);
    impl shrbuf_pipeline::Element for Ticks {
        fn ports(&self) -> shrbuf_pipeline::Ports {
            shrbuf_pipeline::Ports::source()
        }
        fn start(&mut self, start: &mut shrbuf_pipeline::Start<'_>) -> Result<(), shrbuf_pipeline::Failure> {
            start.every(Duration::from_millis(2), 7)?;
            Ok(())
        }
        fn ready(
            &mut self,
            token: u32,
            _events: shrbuf_pipeline::Events,
            context: &mut shrbuf_pipeline::Context<'_>,
        ) -> Result<(), shrbuf_pipeline::Failure> {
            assert_eq!(token, 7);
            self.0 += 1;
            if self.0 == 5 { context.end_all() } else { Ok(()) }
        }
        fn process(
            &mut self,
            _input: usize,
            _frame: shrbuf_pipeline::Frame,
            _context: &mut shrbuf_pipeline::Context<'_>,
        ) -> Result<(), shrbuf_pipeline::Failure> {
            unreachable!("a source has no input")
        }
        fn counters(&self, report: &mut dyn FnMut(&'static str, u64)) {
            report("ticks", u64::from(self.0));
        }
    }
    let mut graph = shrbuf_pipeline::Graph::new("test");
    let source = graph.add("source", Box::new(Ticks(0))).unwrap();
    let sink = graph.add("sink", Box::new(Sink::new())).unwrap();
    graph.link(source, sink).unwrap();
    let begin = std::time::Instant::now();

    let ended = start(graph, None).ok().unwrap().join();

    assert!(ended.failure.is_none(), "{:?}", ended.failure);
    assert!(begin.elapsed() >= Duration::from_millis(10));
    let counts = ended.graph.counts();
    assert_eq!(counts.iter().find(|c| c.name == "source").unwrap().own, [("ticks", 5)]);
}
