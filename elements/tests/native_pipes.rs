//! `file-sink` into pipes: a reader that is slow, gone, or was never there.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use shrbuf::{Format, Shrbuf};
use shrbuf_elements::file_sink::FileSink;
use shrbuf_pipeline::run::{Running, start};
use shrbuf_pipeline::{Build, FailureKind, Frame, Graph, Size, Timestamp};
use shrbuf_tests::native::{Feed, line, noise, picture, plane, run, stream};

/// More than a pipe holds.
const SIZE: Size = Size::new(640, 480);
const FRAMES: u64 = 3;

fn pipe(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("native_pipes");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    let _ = std::fs::remove_file(&path);
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    path
}

/// Opened before there is a writer, which O_NONBLOCK is for.
fn reader(pipe: &Path) -> File {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(pipe).unwrap()
}

fn pictures() -> Vec<Shrbuf> {
    (0..FRAMES).map(|n| picture(Format::Grey, SIZE, noise(n))).collect()
}

fn graph(pipe: &Path) -> Graph {
    let frame = |(n, b): (usize, Shrbuf)| Frame::new(b, Timestamp(n as u64), n as u64);
    let feed = Feed(pictures().into_iter().enumerate().map(frame).collect());
    let sink = FileSink { path: pipe.to_owned(), ..FileSink::default() };
    line(vec![Box::new(feed), sink.build().unwrap()], &[stream(Format::Grey, SIZE)])
}

/// A run into `pipe` that has filled it.
fn full(pipe: &Path) -> Running {
    let running = start(graph(pipe), None).unwrap_or_else(|e| panic!("{:?}", e.failure));
    let begin = Instant::now();
    while running.graph().counts()[1].counts.frames == 0 {
        assert!(begin.elapsed() < Duration::from_secs(20), "nothing comes");
        std::thread::sleep(Duration::from_millis(1));
    }
    running
}

#[test]
fn without_a_reader_it_does_not_start() {
    let path = pipe("none.raw");

    let failure = start(graph(&path), None).err().unwrap().failure.unwrap();

    assert_eq!((failure.kind(), failure.element()), (FailureKind::Unplugged, Some("e1")));
    let says = format!("nobody reads {}; start its reader first", path.display());
    assert!(failure.to_string().contains(&says), "{failure}");
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let path = pipe("slow.raw");
    let mut reader = reader(&path);
    let read = std::thread::spawn(move || {
        let (mut bytes, mut chunk) = (Vec::new(), [0; 10_000]);
        while bytes.len() < (FRAMES * 640 * 480) as usize {
            // Nothing, and no writer yet, read alike.
            let n = reader.read(&mut chunk).unwrap_or(0);
            bytes.extend_from_slice(&chunk[..n]);
            std::thread::sleep(Duration::from_micros(100));
        }
        bytes
    });

    let ended = run(graph(&path), None);

    assert!(ended.failure.is_none(), "{:?}", ended.failure);
    let sent: Vec<u8> = pictures().iter().flat_map(|b| plane(b, 0).0).collect();
    assert!(read.join().unwrap() == sent, "other bytes came");
}

#[test]
fn one_that_does_not_read_hinders_no_stop() {
    let path = pipe("stop.raw");
    let _reader = reader(&path);
    let running = full(&path);

    running.stop();

    let ended = running.join();
    assert!(ended.failure.is_none(), "{:?}", ended.failure);
    assert_eq!(ended.graph.counts()[1].own, [("written", 0)], "a frame of which a part was written");
}

#[test]
fn one_that_goes_is_missed() {
    let path = pipe("gone.raw");
    let reader = reader(&path);
    let running = full(&path);

    drop(reader);

    let failure = running.join().failure.unwrap();
    assert_eq!((failure.kind(), failure.element()), (FailureKind::Unplugged, Some("e1")));
    assert!(failure.to_string().contains("nobody reads"), "{failure}");
}
