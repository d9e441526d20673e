//! `ipc-sink` where the process has no descriptor left: in a process of its own, whose limit this lowers.

use std::fs::File;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shrbuf::State;
use shrbuf_elements::Memory;
use shrbuf_elements::ipc::IpcSink;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_pipeline::supervise::{RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Context, Element, Failure, Frame, Graph, Ports, Role, Size};

/// Passes the first frame on before it is filled, having taken every descriptor that there was.
#[derive(Default)]
struct Greedy(Vec<File>);

impl Element for Greedy {
    fn ports(&self) -> Ports {
        Ports::filter()
    }

    fn role(&self) -> Role {
        Role::Passthrough
    }

    fn process(&mut self, _input: usize, frame: Frame, context: &mut Context<'_>) -> Result<(), Failure> {
        while let Ok(file) = File::open("/dev/null") {
            self.0.push(file);
        }
        frame.buffer.set_state(State::Filling);
        context.push(0, frame)
    }

    fn stop(&mut self) {
        self.0.clear();
    }
}

#[test]
fn a_frame_whose_state_cannot_be_watched_ends_the_run_and_is_not_counted_as_shown() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 200, hard).unwrap();
    let path = std::env::temp_dir().join(format!("shrbuf-elements-{}-limits", std::process::id()));
    let mut graph = Graph::new("test");
    let source = TestSrc { size: Size::new(64, 48), memory: Memory::Memfd, ..TestSrc::default() };
    let source = graph.add("camera", source.build().unwrap()).unwrap();
    let greedy = graph.add("greedy", Box::new(Greedy::default())).unwrap();
    let sink = graph.add("out", IpcSink { path, ..IpcSink::default() }.build().unwrap()).unwrap();
    graph.link(source, greedy).unwrap();
    graph.link(greedy, sink).unwrap();
    let begin = Instant::now();
    let options = RunOptions { tick: Duration::from_millis(100), ..RunOptions::default() };
    let late = || begin.elapsed() > Duration::from_secs(10);
    let report = run(graph, &options, |_| if late() { Verdict::Stop } else { Verdict::Continue });
    let error = report.error.unwrap().to_string();
    assert!(error.contains("`out`") && error.contains("Too many open files"), "{error}");
    let out = report.graph.counts().into_iter().find(|c| c.name == "out").unwrap();
    assert_eq!((out.counts.latency, out.counts.misdated), (None, 0));
}
