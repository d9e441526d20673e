//! `ipc-sink`: who may connect.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use shrbuf::ipc::{Connection, IpcError, Reason, Wishes};
use shrbuf_elements::Memory;
use shrbuf_elements::ipc::IpcSink;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_pipeline::supervise::{Progress, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Graph, Size};

fn me() -> u32 {
    std::fs::metadata("/proc/self").unwrap().uid()
}

fn socket(test: &str) -> PathBuf {
    std::env::temp_dir().join(format!("shrbuf-elements-{}-{test}", std::process::id()))
}

/// Runs `test-src ! ipc-sink` until `look`, which is called once it listens and meanwhile on another thread, has ended; what
/// that has seen, and how many connections the sink has refused.
fn while_it_runs<T: Send + 'static>(sink: IpcSink, look: impl FnOnce(PathBuf) -> T + Send + 'static) -> (T, u64) {
    let path = sink.path.clone();
    let mut graph = Graph::new("test");
    let source = TestSrc { size: Size::new(64, 48), memory: Memory::Memfd, ..TestSrc::default() };
    let source = graph.add("camera", source.build().unwrap()).unwrap();
    let sink = graph.add("out", sink.build().unwrap()).unwrap();
    graph.link(source, sink).unwrap();
    let (mut look, mut looking) = (Some(look), None);
    let options = RunOptions { tick: Duration::from_millis(5), ..RunOptions::default() };
    let report = run(graph, &options, |progress| {
        if let Progress::Running(..) = progress
            && path.exists()
            && let Some(look) = look.take()
        {
            let path = path.clone();
            looking = Some(std::thread::spawn(move || look(path)));
        }
        if looking.as_ref().is_some_and(|l| l.is_finished()) { Verdict::Stop } else { Verdict::Continue }
    });
    assert!(report.error.is_none(), "{:?}", report.error);
    let own = report.graph.counts().into_iter().find(|c| c.name == "out").unwrap().own;
    let refused = own.iter().find(|(name, _)| *name == "refused").unwrap().1;
    (looking.unwrap().join().unwrap(), refused)
}

fn connect(path: PathBuf) -> IpcError {
    Connection::open(&path, &Wishes::default(), Duration::from_secs(20)).unwrap_err()
}

#[test]
fn users_that_are_not_listed_are_refused() {
    let users = Some(format!("{}, {}", me() + 1, me() + 2));
    let sink = IpcSink { path: socket("others"), users, ..IpcSink::default() };
    let (error, refused) = while_it_runs(sink, connect);
    assert!(matches!(error, IpcError::Refused { reason: Reason::NotAllowed, .. }), "{error}");
    assert_eq!(refused, 1);
}

#[test]
fn a_user_who_is_listed_is_told_of_the_buffers() {
    let users = Some(format!("{}, {}", me() + 1, me()));
    let sink = IpcSink { path: socket("listed"), users, ..IpcSink::default() };
    let (error, refused) = while_it_runs(sink, connect);
    // As far as one gets within the producer's own process.
    assert!(matches!(error, IpcError::Import { index: 0, .. }), "{error}");
    assert_eq!(refused, 0);
}

#[test]
fn the_socket_has_the_mode_that_is_set() {
    let sink = IpcSink { path: socket("mode"), mode: "620".to_owned(), ..IpcSink::default() };
    let (mode, _) = while_it_runs(sink, |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777);
    assert_eq!(mode, 0o620);
}

#[test]
fn mode_and_users_that_are_none_are_named() {
    let path = socket("none");
    for mode in ["", "8", "1000", "u+w"] {
        let error = IpcSink { path: path.clone(), mode: mode.to_owned(), ..IpcSink::default() }.build().err().unwrap();
        assert!(error.to_string().contains(&format!("`{mode}`")), "{error}");
    }
    let users = Some("0, nobody-of-this-name".to_owned());
    let error = IpcSink { path, users, ..IpcSink::default() }.build().err().unwrap();
    assert!(error.to_string().contains("nobody-of-this-name"), "{error}");
}

#[test]
fn more_consumers_than_there_can_be_buffers_for_are_refused_with_what_to_set() {
    let mut graph = Graph::new("test");
    let camera = graph.add("camera", TestSrc { memory: Memory::Memfd, ..TestSrc::default() }.build().unwrap()).unwrap();
    let sink = IpcSink { path: socket("too-many"), consumers: 32, ..IpcSink::default() };
    let out = graph.add("out", sink.build().unwrap()).unwrap();
    graph.link(camera, out).unwrap();
    let error = run(graph, &RunOptions::default(), |_| Verdict::Stop).error.unwrap().to_string();
    let advice = "a lower `consumers` or `window` of out, so that it holds 34 fewer";
    assert!(error.contains("out holds 97 = 98; camera gives at most 64") && error.contains(advice), "{error}");
}
