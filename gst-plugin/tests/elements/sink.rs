//! `shrbufsink`, consumed by this process.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use shrbuf::ipc::{Connection, Consumer, IpcError, Next, Received, Wishes};
use shrbuf::{Format, Layout, Ledger, Reason};

use crate::launch::{LEAKS_TRACER, LONG, Launch, Temporary, bytes_of, nothing_is_alive, until, until_listening};

/// Connects once the producer listens, as soon as it has caps.
fn connect(path: &Path, window: u32) -> Consumer {
    let wishes = Wishes { name: "test".to_owned(), policy: None, window };
    let mut connection = None;
    until("a producer", || {
        connection = match Connection::open(path, &wishes, LONG) {
            Err(IpcError::NoProducer { .. }) => None,
            opened => Some(opened.unwrap()),
        };
        connection.is_some()
    });
    connection.unwrap().start().unwrap()
}

/// The picture's bytes, rows without padding.
fn bytes(frame: &Received) -> Vec<u8> {
    let account = Ledger::default().account("test", Reason::Inspect);
    let read = frame.buffer.read().unwrap();
    let layout = *frame.buffer.layout();
    let mut all = Vec::new();
    for index in 0..layout.planes().len() {
        let plane = read.plane(index);
        for y in 0..plane.rows() {
            let mut row = vec![0; plane.row_bytes()];
            plane.read(y, 0, &mut row, &account);
            all.extend(row);
        }
    }
    all
}

fn consume(consumer: &mut Consumer) -> Option<Received> {
    match consumer.wait(LONG).unwrap() {
        Next::Frame(frame) => Some(frame),
        Next::Ended => None,
        other => panic!("neither a frame nor an end in {LONG:?}: {other:?}"),
    }
}

fn all_bytes(consumer: &mut Consumer) -> Vec<u8> {
    std::iter::from_fn(|| consume(consumer)).flat_map(|frame| bytes(&frame)).collect()
}

const PICTURES: &str = "videotestsrc num-buffers=60 pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1";

#[test]
fn frames_are_those_of_videotestsrc_without_a_copy() {
    for format in ["NV12", "I420", "YUY2", "BGRx", "GRAY8", "YV12", "RGB"] {
        let socket = Temporary::new("sink");
        let pictures = format!("{PICTURES},format={format}");
        // copies=deny, the default, lets nothing through that is not in the pool's memory.
        let sink = format!("{pictures} ! shrbufsink path={} policy=block wait-for=1", socket.as_str());
        let launch = Launch::new(&sink);
        let mut consumer = connect(&socket.0, 0);
        let got = all_bytes(&mut consumer);
        launch.end_well();
        assert!(got == bytes_of(&pictures), "{format}: other pictures");
        assert_eq!((consumer.received(), consumer.dropped()), (60, 0));
    }
}

#[test]
fn layout_rate_stamps_and_colorimetry_come_along() {
    let socket = Temporary::new("info");
    let caps = "video/x-raw,format=NV12,width=320,height=240,framerate=25/1,colorimetry=bt709";
    let sink =
        format!("videotestsrc num-buffers=5 ! {caps} ! shrbufsink path={} policy=block wait-for=1", socket.as_str());
    let launch = Launch::new(&sink);
    let mut consumer = connect(&socket.0, 0);
    let frames: Vec<Received> =
        std::iter::from_fn(|| consume(&mut consumer).map(|f| Received { buffer: f.buffer.clone(), info: f.info }))
            .inspect(|frame| assert_eq!(frame.buffer.layout(), &Layout::linear(Format::Nv12, 320, 240, 1).unwrap()))
            .map(|frame| Received { buffer: frame.buffer, info: frame.info })
            .take(2)
            .collect();
    let [first, second] = &frames[..] else { panic!("{} frames", frames.len()) };
    assert_eq!(second.info.timestamp - first.info.timestamp, 40_000_000);
    assert_eq!((first.info.sequence, second.info.sequence), (0, 1));
    assert_eq!((first.info.matrix, first.info.full_range, first.info.crop), (1, false, None));
    drop(frames);
    while consume(&mut consumer).is_some() {}
    launch.end_well();
}

#[test]
fn frame_in_other_memory_is_refused_and_its_element_named() {
    let socket = Temporary::new("deny");
    // A tee offers no pool upstream.
    let sink = format!("{PICTURES} ! tee ! queue ! shrbufsink path={}", socket.as_str());
    let log = Launch::new(&sink).fail();
    assert!(log.contains("videotestsrc0 passes frames in memory of its own"), "{log}");
    assert!(log.contains("copies=allow has them copied"), "{log}");
}

#[test]
fn frame_in_other_memory_is_copied_where_that_is_allowed() {
    for (copies, warned) in [("allow", false), ("warn", true)] {
        let socket = Temporary::new("copy");
        let pictures = format!("{PICTURES},format=NV12");
        let sink =
            format!("{pictures} ! tee ! shrbufsink path={} policy=block wait-for=1 copies={copies}", socket.as_str());
        let launch = Launch::new(&sink);
        let got = all_bytes(&mut connect(&socket.0, 0));
        let log = launch.end_well();
        assert!(got == bytes_of(&pictures), "{copies}: other pictures");
        assert_eq!(log.contains("they are copied"), warned, "{log}");
    }
}

#[test]
fn consumer_that_is_killed_takes_no_frame_from_another() {
    let socket = Temporary::new("killed");
    let pictures = format!("{PICTURES},format=BGRx");
    let path = socket.as_str();
    let sink = format!("{pictures} ! shrbufsink path={path} policy=block wait-for=2 consumers=2 window=2");
    let launch = Launch::new(&sink);
    let mut consumer = connect(&socket.0, 0);
    // Takes its two, gives none back, and so holds the producer up: until it dies.
    let mut other = Launch::new(&format!("shrbufsrc path={path} ! identity sleep-time=100000000 ! fakesink"));
    let mut got: Vec<u8> = (0..3).filter_map(|_| consume(&mut consumer)).flat_map(|frame| bytes(&frame)).collect();
    other.kill();
    got.extend(all_bytes(&mut consumer));
    launch.end_well();
    assert!(got == bytes_of(&pictures), "other pictures");
}

#[test]
fn buffers_are_upstreams_again_only_after_the_consumer() {
    let socket = Temporary::new("held");
    let sink =
        format!("{PICTURES},format=GRAY8 ! shrbufsink path={} policy=latest wait-for=1 window=3", socket.as_str());
    let launch = Launch::new(&sink);
    let mut consumer = connect(&socket.0, 3);
    // With "latest" the producer goes on; the frame that is held must not change meanwhile.
    let held = consume(&mut consumer).unwrap();
    let before = bytes(&held);
    let mut others = 0;
    while consume(&mut consumer).is_some() {
        others += 1;
    }
    assert!(others > 0 && bytes(&held) == before, "{others} others; the frame that was held has changed");
    drop(held);
    launch.end_well();
}

/// One stream of several formats and sizes, and what makes each part of it.
fn changing(sink: &str) -> (String, Vec<String>) {
    let part = |(format, width, frames)| {
        format!("videotestsrc num-buffers={frames} pattern=ball ! video/x-raw,format={format},width={width},height=120")
    };
    let parts = [("NV12", 160, 20), ("GRAY8", 320, 30), ("NV12", 320, 10), ("NV12", 160, 20)].map(part);
    let line = format!("concat name=all ! {sink} {} ! all.", parts.join(" ! all. "));
    (line, parts.to_vec())
}

#[test]
fn consumers_follow_where_caps_change() {
    let (socket, file) = (Temporary::new("other-caps"), Temporary::new("raw"));
    let path = socket.as_str();
    let sink = format!("shrbufsink path={path} policy=block wait-for=2 consumers=2 copies=allow");
    let (line, parts) = changing(&sink);
    let launch = Launch::new(&line);
    let mut consumer = connect(&socket.0, 0);
    let other = Launch::new(&format!("shrbufsrc path={path} ! filesink location={}", file.as_str()));
    let mut all = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let (mut got, mut last) = (Vec::new(), consumer.wait(LONG).unwrap());
        while let Next::Frame(frame) = &last {
            got.extend(bytes(frame));
            last = consumer.wait(LONG).unwrap();
        }
        assert!(got == bytes_of(part), "{part}: other pictures");
        assert_eq!(consumer.dropped(), 0, "{part}");
        all.extend(got);
        match last {
            Next::Changed if at + 1 < parts.len() => consumer = connect(&socket.0, 0),
            Next::Ended if at + 1 == parts.len() => {}
            other => panic!("{part}: {other:?}"),
        }
    }
    other.end_well();
    launch.end_well();
    assert!(std::fs::read(&file.0).unwrap() == all, "other pictures by shrbufsrc");
}

#[test]
fn nothing_of_gstreamers_is_left_where_caps_have_changed() {
    let socket = Temporary::new("other-caps-leaks");
    let path = socket.as_str();
    let sink = format!("shrbufsink path={path} policy=block wait-for=1 copies=allow");
    let producer = Launch::with(&changing(&sink).0, &LEAKS_TRACER);
    until_listening(&socket);
    // The queue still has frames as others come.
    let source = format!("shrbufsrc path={path} ! queue ! identity sleep-time=2000 ! fakesink");
    let consumer = Launch::with(&source, &LEAKS_TRACER);
    [producer, consumer].into_iter().for_each(|launch| nothing_is_alive(&launch.end_well()));
}

#[test]
fn who_may_connect_is_as_mode_and_users_say() {
    let socket = Temporary::new("who");
    let me = nix::unistd::getuid().as_raw();
    for (users, allowed) in [(format!("{me}"), true), (format!("{}", me + 1), false)] {
        let line = format!("{PICTURES} ! shrbufsink path={} wait-for=1 mode=620 users={users}", socket.as_str());
        let mut launch = Launch::new(&line);
        until_listening(&socket);
        assert_eq!(std::fs::metadata(&socket.0).unwrap().permissions().mode() & 0o777, 0o620);
        let opened = Connection::open(&socket.0, &Wishes::default(), LONG);
        assert_eq!(opened.is_ok(), allowed, "{opened:?}");
        assert!(allowed || opened.unwrap_err().to_string().contains("not on the producer's list"));
        launch.kill();
    }
}

#[test]
fn second_sink_at_the_same_path_says_so() {
    let socket = Temporary::new("in-use");
    let sink = format!("{PICTURES} ! shrbufsink path={} wait-for=1", socket.as_str());
    // It waits for a consumer, or it might have ended by the time the second starts.
    let first = Launch::new(&sink);
    until_listening(&socket);
    let log = Launch::new(&sink).fail();
    assert!(log.contains("another producer listens at"), "{log}");
    drop(first);
}

#[test]
fn impossible_settings_say_what_to_do() {
    let log = Launch::new("videotestsrc ! shrbufsink").fail();
    assert!(log.contains("path is not set"), "{log}");
    let log = Launch::new("videotestsrc ! shrbufsink path=/tmp/x consumers=1 wait-for=2").fail();
    assert!(log.contains("wait-for is above consumers"), "{log}");
    let log = Launch::new("videotestsrc ! shrbufsink path=/tmp/x consumers=8 window=8").fail();
    assert!(log.contains("add up to 69; 64 are possible"), "{log}");
    let log = Launch::new("videotestsrc ! shrbufsink path=/tmp/x mode=668").fail();
    assert!(log.contains("mode: `668` are no permission bits"), "{log}");
    let log = Launch::new("videotestsrc ! shrbufsink path=/tmp/x users=root,nobody-of-this-name").fail();
    assert!(log.contains("users: `nobody-of-this-name` is no user"), "{log}");
    let log = Launch::new("videotestsrc ! shrbufsink path=/no/such/directory/x").fail();
    assert!(log.contains("/no/such/directory/x"), "{log}");
}
