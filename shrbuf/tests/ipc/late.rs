//! Buffers that consumers are told of while frames flow.

use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use shrbuf::exporter::Memfd;
use shrbuf::ipc::{Announced, Connection, FrameInfo, IpcError, Next, Policy, VERSION, Wishes};
use shrbuf::pool::MAX_BUFFERS;
use shrbuf::{Format, ImportError, Layout, Shrbuf, State};

use crate::c_client::{client, hash};
use crate::child::spawn;
use crate::common::{Descriptors, account, one_segment};
use crate::fake::Packet::{self, Channel, Say, Write};
use crate::fake::{accept, act, buffer, channel, frame_after, good, listener, page, serve, welcome, words};
use crate::hostile::{READY, START, greeted, greeting};
use crate::source::{PATIENCE, Source, mark, options, socket};

fn new_buffer() -> Shrbuf {
    Memfd::new("ipc-test").allocate(&one_segment()).unwrap()
}

impl Source {
    /// One buffer more, of whose memory it has the only handle.
    fn grow(&mut self) -> Shrbuf {
        let buffer = new_buffer();
        self.producer.announce(Announced::of(&buffer).unwrap()).unwrap();
        buffer
    }

    /// Sends a frame in this buffer, once nobody has the one before.
    fn send_in(&mut self, buffer: &mut Shrbuf) {
        self.until(|_| buffer.references() == 1);
        mark(buffer, self.sent, &account());
        buffer.set_state(State::Filled);
        let info = FrameInfo { sequence: self.sent, timestamp: 1 + self.sent, ..FrameInfo::default() };
        self.producer.send(buffer, &info).unwrap();
        self.sent += 1;
    }

    /// Sends a frame in a new buffer, which is gone once the frame has come back.
    fn send_once(&mut self) {
        let mut buffer = self.grow();
        self.send_in(&mut buffer);
        self.until(|_| buffer.references() == 1);
    }

    /// The same, whenever that is.
    fn send_in_new(&mut self) {
        let mut buffer = self.grow();
        self.send_in(&mut buffer);
    }

    /// The same, and waits until one has been sent to somebody.
    fn send_new(&mut self) {
        let sent = self.producer.counts().sent;
        self.send_in_new();
        self.until(|s| s.producer.counts().sent > sent);
    }
}

#[test]
fn consumers_that_do_not_read_keep_their_place_and_harm_nobody() {
    let _alone = Descriptors::count();
    let path = socket("late-deaf");
    let mut source = Source::new(&path, options(4, 2, Policy::DropOldest), 2);
    let deaf = [greeting(&path), greeting(&path)];
    source.until(|_| greeted(&deaf) == 2);
    let say = |peer: usize, what: &[u32]| {
        send(deaf[peer].as_raw_fd(), &words(what), MsgFlags::MSG_NOSIGNAL).unwrap();
    };
    // The one is told of all buffers and says nothing; the other has them all, and never starts.
    say(1, &[READY, 2]);
    let stopped = spawn("consume 1000000 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_new();
    let pid = Pid::from_raw(stopped.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    // All that it may have in hand, and that may wait for it.
    (0..6).for_each(|_| source.send_in_new());
    let good = spawn("consume 2000 0", &path);
    source.until(|s| s.producer.consumers() == 2);
    (0..2_000).for_each(|_| source.send_new());
    assert_eq!(source.said(good), "2000 0 0");
    assert_eq!(source.producer.counts().refused, 0);
    kill(pid, Signal::SIGCONT).unwrap();
    say(0, &[READY, 2]);
    (0..2).for_each(|peer| say(peer, &[START]));
    source.until(|s| s.producer.consumers() == 3);
    (0..100).for_each(|_| source.send_new());
    source.producer.end();
    let said = source.said(stopped);
    let counts: Vec<u64> = said.split(' ').map(|n| n.parse().unwrap()).collect();
    assert!(counts[0] > 5 && counts[1] > 1_900, "{said}");
}

#[test]
fn frames_in_buffers_that_were_not_there_at_the_start_arrive_whole() {
    let descriptors = Descriptors::count();
    let path = socket("late");
    let mut source = Source::new(&path, options(2, 2, Policy::Block), 2);
    let child = spawn("consume 600 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == 100);
    let mut more = [source.grow(), source.grow(), source.grow()];
    while source.sent < 500 {
        more.iter_mut().for_each(|buffer| source.send_in(buffer));
        let next = source.sent + 1;
        source.send_until(|s| s.sent == next);
    }
    // Who comes later is told of all from the start.
    let before = source.sent;
    let other = spawn("consume 600 0", &path);
    source.until(|s| s.producer.consumers() == 2);
    while source.sent < 600 {
        more.iter_mut().for_each(|buffer| source.send_in(buffer));
        let next = source.sent + 1;
        source.send_until(|s| s.sent == next);
    }
    source.until(|s| s.producer.owed() == 0);
    source.producer.end();
    assert_eq!(
        (source.said(child).as_str(), source.said(other).as_str()),
        ("600 0 0", format!("{} 0 0", 600 - before).as_str())
    );
    assert_eq!(source.producer.counts().refused, 0);
    drop((source, more));
    descriptors.assert_same();
}

#[test]
fn buffers_that_are_gone_make_room_for_others_and_those_in_use_do_not() {
    let descriptors = Descriptors::count();
    let path = socket("late-gone");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 2);
    let child = spawn("consume 1000 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    (0..3 * MAX_BUFFERS).for_each(|_| source.send_once());
    // All that there is room for, of which none is gone.
    let mut held: Vec<_> = (0..MAX_BUFFERS - 2).map(|_| source.grow()).collect();
    let error = source.producer.announce(Announced::of(&new_buffer()).unwrap()).unwrap_err();
    assert!(matches!(error, IpcError::TooMany), "{error}");
    held.iter_mut().for_each(|buffer| source.send_in(buffer));
    source.until(|_| held[0].references() == 1);
    held.remove(0);
    source.send_once();
    source.until(|s| s.producer.owed() == 0);
    source.producer.end();
    assert_eq!(source.said(child), format!("{} 0 0", source.sent));
    drop((source, held));
    descriptors.assert_same();
}

#[test]
fn memory_that_is_gone_is_let_go_of_as_soon_as_another_comes() {
    let _alone = Descriptors::count();
    let path = socket("late-memory");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 1);
    let child = spawn("consume 1000 0", &path);
    source.until(|s| s.producer.consumers() == 1);
    source.send_once();
    let open = |pid| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let both = || [open(std::process::id()), open(child.id())];
    let before = both();
    (0..MAX_BUFFERS).for_each(|_| source.send_once());
    assert_eq!(both(), before);
    source.producer.end();
    assert_eq!(source.said(child), format!("{} 0 0", source.sent));
}

#[test]
fn buffers_that_consumers_could_not_expect_are_refused() {
    let descriptors = Descriptors::count();
    let path = socket("late-other");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 2);
    let one = one_segment();
    for (layout, what) in [
        (Layout::linear(Format::Nv12, one.width, one.height, 1).unwrap(), "format"),
        (Layout::linear(one.format, one.width, one.height + 2, 1).unwrap(), "size"),
    ] {
        let other = Memfd::new("ipc-test").allocate(&layout).unwrap();
        let error = source.producer.announce(Announced::of(&other).unwrap()).unwrap_err();
        assert!(matches!(error, IpcError::Unlike { what: is, .. } if is == what), "{error}");
    }
    drop(source);
    descriptors.assert_same();
}

#[test]
fn the_client_in_c_takes_them_too() {
    let client = client();
    let descriptors = Descriptors::count();
    let path = socket("late-c");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 1);
    let child = Command::new(client).arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    source.until(|s| s.producer.consumers() == 1);
    source.send();
    (0..2 * MAX_BUFFERS).for_each(|_| source.send_once());
    let mut more = [source.grow(), source.grow()];
    (0..10).for_each(|_| more.iter_mut().for_each(|buffer| source.send_in(buffer)));
    source.until(|s| s.producer.owed() == 0);
    source.producer.end();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected: String = (0..source.sent).map(|n| format!("{n} {:016x}\n", hash(n))).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    drop((source, more));
    descriptors.assert_same();
}

/// What a consumer makes of a producer that has told it of two buffers and a channel, and then does this.
fn consume(more: Vec<Packet>, by_pipe: bool) -> Result<usize, IpcError> {
    let path = socket("late-hostile");
    let link = if by_pipe { Channel } else { channel(0, vec![page()]) };
    let mut script = vec![welcome(VERSION, 2, 2), buffer(0, vec![good()]), buffer(1, vec![good()]), link];
    script.extend(more);
    let producer = serve(&path, script);
    let begin = Instant::now();
    let mut consumer = Connection::open(&path, &Wishes::default(), PATIENCE).unwrap().start().unwrap();
    let (mut frames, mut error) = (0, None);
    while error.is_none() {
        assert!(begin.elapsed() < PATIENCE);
        match consumer.wait(Duration::from_secs(1)) {
            Ok(Next::Frame(_)) => frames += 1,
            Ok(_) => {}
            Err(e) => error = Some(e),
        }
    }
    drop(consumer);
    producer.join().unwrap();
    match error {
        Some(IpcError::Gone) | None => Ok(frames),
        Some(error) => Err(error),
    }
}

#[test]
fn a_producer_that_tells_of_what_is_no_buffer_is_refused_and_nothing_stays_open() {
    let descriptors = Descriptors::count();
    let null = || std::fs::File::open("/dev/null").unwrap().into();
    for by_pipe in [true, false] {
        let sent = |late| if by_pipe { Write(frame_after(2, late)) } else { Say(frame_after(2, late), vec![]) };
        let broken = |more| match consume(more, by_pipe).unwrap_err() {
            IpcError::Protocol { what, .. } => what,
            other => panic!("{other}"),
        };
        assert_eq!(consume(vec![buffer(2, vec![good()]), sent(1)], by_pipe).unwrap(), 1);
        assert_eq!(broken(vec![buffer(64, vec![good()])]), "a buffer that has no place");
        let untold = "a frame in a buffer that it did not tell of";
        assert_eq!(broken(vec![sent(1)]), untold);
        assert_eq!(broken(vec![sent(1 << 30), buffer(2, vec![good()])]), untold);
        let other = broken(vec![buffer(3, vec![good()]), sent(1)]);
        assert_eq!(other, "a frame in a buffer that is still held here, or is none");
        let none = broken(vec![sent(0)]);
        assert_eq!(none, "a frame in a buffer that is still held here, or is none");
        let fewer = broken(vec![buffer(2, vec![])]);
        assert_eq!(fewer, "a message did not bring as many descriptors as it should");
        let error = consume(vec![buffer(2, vec![null()])], by_pipe).unwrap_err();
        let source = match error {
            IpcError::Import { index: 2, source } => source,
            other => panic!("{other}"),
        };
        assert!(matches!(source, ImportError::NotShareable { .. }), "{source}");
    }
    descriptors.assert_settle();
}

#[test]
fn buffers_without_end_before_a_frame_leave_the_caller_its_turn() {
    let _alone = Descriptors::count();
    let path = socket("late-endless");
    let listening = listener(&path);
    let producer = std::thread::spawn(move || {
        let (peer, mut pipe, fd) = (accept(&listening), None, good());
        let mut act = |packet| act(&peer, &mut pipe, packet);
        let begin = [welcome(VERSION, 2, 1), buffer(0, vec![good()]), Channel, Write(frame_after(1, i32::MAX as u32))];
        begin.into_iter().for_each(|packet| assert!(act(packet)));
        while act(buffer(1, vec![fd.try_clone().unwrap()])) {}
    });
    let mut consumer = Connection::open(&path, &Wishes::default(), PATIENCE).unwrap().start().unwrap();
    let error = consumer.wait(PATIENCE).unwrap_err();
    assert!(matches!(error, IpcError::Protocol { what: "a frame in a buffer that it did not tell of", .. }), "{error}");
    drop(consumer);
    producer.join().unwrap();
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_client_in_c_waits_for_no_buffer_that_was_not_sent() {
    let client = client();
    let _alone = Descriptors::count();
    for late in [1, 2, i32::MAX as u32] {
        let path = socket("late-c-hostile");
        let listening = listener(&path);
        let client = Command::new(client).arg(&path).stderr(Stdio::piped()).spawn().unwrap();
        let (peer, mut pipe) = (accept(&listening), None);
        let begin = [welcome(VERSION, 2, 1), buffer(0, vec![good()]), Channel, Write(frame_after(1, late))];
        begin.into_iter().for_each(|packet| assert!(act(&peer, &mut pipe, packet)));
        // Nothing more comes, and no end either.
        let output = client.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains("Protocol error"), "{said}");
        std::fs::remove_file(&path).unwrap();
    }
}
