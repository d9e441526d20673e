//! What the other processes do.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use shrbuf::ipc::{Announced, Connection, Consumer, IpcError, Next, Options, Policy, Producer, Received, Wishes};
use shrbuf::{Account, State};

use crate::common::{account, one_segment};
use crate::source::{PATIENCE, Source, number, options};
use crate::{allocations, hostile};

const ROLE: &str = "SHRBUF_IPC_CHILD";

/// This binary once more, as `role` at `socket`. What it prints after a line `>` can be read.
pub fn spawn(role: &str, socket: &Path) -> Child {
    command(role, socket).spawn().unwrap()
}

pub fn command(role: &str, socket: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child::child", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env("SHRBUF_IPC_SOCKET", socket).stdout(Stdio::piped());
    command
}

/// Waits for a child to end well; what it said.
pub fn said(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}: {text}", output.status);
    text.split_once('>').map_or(String::new(), |(_, said)| said.lines().next().unwrap_or_default().to_owned())
}

/// Not a test: the way into this binary for its children.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let socket = std::env::var("SHRBUF_IPC_SOCKET").unwrap();
    let socket = Path::new(&socket);
    let mut words = role.split(' ');
    let name = words.next().unwrap();
    let mut next = || words.next().unwrap().parse::<u64>().unwrap();
    match name {
        "consume" => consume(socket, next(), Duration::from_micros(next())),
        "forever" => forever(socket),
        "hold" => hold(socket),
        "state" => state(socket),
        "follow" => follow(socket),
        "write" => write(socket),
        "ages" => ages(socket, next()),
        "knock" => knock(socket, Duration::from_millis(next())),
        "refused" => refused(socket),
        "broken" => broken(socket),
        "barred" => say(format_args!("{}", Connection::open(socket, &Wishes::default(), PATIENCE).unwrap_err())),
        "unbound" => say(format_args!("{}", unbound(socket))),
        "by" => by(socket),
        "gone" => gone(socket),
        "produce" => produce(socket),
        "leak" => leak(socket, next()),
        "allocations" => allocations::consume(socket),
        "hostile" => hostile::attack(socket, next(), next()),
        other => panic!("no role {other}"),
    }
    // The harness has nothing to add, and a summary of its own would mix with what was said.
    std::process::exit(0);
}

pub fn say(what: std::fmt::Arguments<'_>) {
    println!("\n>{what}");
    std::io::stdout().flush().unwrap();
}

pub fn connect(socket: &Path, wishes: &Wishes) -> Consumer {
    Connection::open(socket, wishes, PATIENCE).unwrap().start().unwrap()
}

fn next(consumer: &mut Consumer) -> Option<Received> {
    match consumer.wait(PATIENCE).unwrap() {
        Next::Frame(frame) => Some(frame),
        Next::Ended => None,
        other => panic!("no frame came: {other:?}"),
    }
}

/// Takes frames until the end, or so many, and looks at each twice: as it comes and before it is given back.
fn consume(socket: &Path, frames: u64, pause: Duration) {
    let mut consumer = connect(socket, &Wishes { name: "consume".into(), ..Wishes::default() });
    let account = account();
    let mut last = None;
    while consumer.received() < frames
        && let Some(frame) = next(&mut consumer)
    {
        whole(&frame, &account);
        assert!(last.is_none_or(|last| last < frame.info.sequence), "out of order");
        if consumer.dropped() + consumer.skipped() == 0
            && let Some(last) = last
        {
            assert_eq!(last + 1, frame.info.sequence, "lost without being counted");
        }
        last = Some(frame.info.sequence);
        std::thread::sleep(pause);
        whole(&frame, &account);
    }
    say(format_args!("{} {} {}", consumer.received(), consumer.dropped(), consumer.skipped()));
}

fn whole(frame: &Received, account: &Account) {
    assert_eq!(number(&frame.buffer, account), frame.info.sequence);
    assert_eq!(frame.info.timestamp, frame.info.sequence + 1);
    assert_eq!(frame.buffer.state(), State::Filled);
}

fn forever(socket: &Path) {
    // It may be killed before, or come while the producer is full.
    let Ok(connection) = Connection::open(socket, &Wishes::default(), PATIENCE) else { return };
    let Ok(mut consumer) = connection.start() else { return };
    let mut held = Vec::new();
    while let Ok(Next::Frame(frame)) = consumer.wait(PATIENCE) {
        if held.is_empty() {
            say(format_args!("holds"));
        }
        // Two in hand, so that a kill finds some.
        held.insert(0, frame);
        held.truncate(2);
    }
}

/// Fills its window and keeps it.
fn hold(socket: &Path) {
    let connection = Connection::open(socket, &Wishes::default(), PATIENCE).unwrap();
    let window = connection.window();
    let mut consumer = connection.start().unwrap();
    let _held: Vec<_> = (0..window).map(|_| next(&mut consumer).unwrap()).collect();
    say(format_args!("holds"));
    loop {
        std::thread::sleep(PATIENCE);
    }
}

/// Takes frames until the end, and connects again whenever they are others: how wide, how many and how many not, each time.
fn follow(socket: &Path) {
    let mut told = Vec::new();
    loop {
        let connection = Connection::open(socket, &Wishes::default(), PATIENCE).unwrap();
        let width = connection.buffers()[0].layout().width;
        let mut consumer = connection.start().unwrap();
        let last = loop {
            match consumer.wait(PATIENCE).unwrap() {
                Next::Frame(frame) => whole(&frame, &account()),
                last => break last,
            }
        };
        told.push(format!("{width} {} {}", consumer.received(), consumer.dropped()));
        match last {
            Next::Changed => {}
            Next::Ended => return say(format_args!("{}", told.join(", "))),
            other => panic!("{other:?}"),
        }
    }
}

/// Gets a frame before it is filled, and waits until it is.
fn state(socket: &Path) {
    let mut consumer = connect(socket, &Wishes::default());
    let frame = next(&mut consumer).unwrap();
    assert_eq!(frame.buffer.state(), State::Filling);
    say(format_args!("filling"));
    let buffer = frame.buffer.clone();
    let waiter = std::thread::spawn(move || buffer.wait_state(|s| s == State::Filled, PATIENCE));
    // Messages arrive where they are read.
    assert!(next(&mut consumer).is_none());
    assert_eq!(waiter.join().unwrap(), Ok(State::Filled));
    assert_eq!(number(&frame.buffer, &account()), 77);
}

/// Tries to write what it was given to read.
fn write(socket: &Path) {
    let mut consumer = connect(socket, &Wishes::default());
    let mut frame = next(&mut consumer).unwrap();
    let fd = frame.buffer.export(0).unwrap();
    assert!(matches!(frame.buffer.write().unwrap_err(), shrbuf::AccessError::ReadOnly));
    assert!(nix::unistd::write(&fd, b"mine").is_err(), "write(2) on the descriptor");
    assert!(nix::unistd::ftruncate(&fd, 0).is_err(), "ftruncate(2) on the descriptor");
    let seal = nix::fcntl::FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::F_SEAL_WRITE);
    assert!(nix::fcntl::fcntl(&fd, seal).is_err(), "a seal of ours on the producer's memory");
    let mode = nix::sys::stat::fstat(&fd).unwrap().st_mode & 0o777;
    assert_eq!(mode, 0o444, "others could open it anew for writing");
}

/// How old frames are as they come: the median and the oldest, in µs.
fn ages(socket: &Path, frames: u64) {
    let mut consumer = connect(socket, &Wishes::default());
    let mut ages = Vec::new();
    while consumer.received() < frames
        && let Some(frame) = next(&mut consumer)
    {
        ages.push((now() - frame.info.timestamp) / 1000);
    }
    ages.sort_unstable();
    say(format_args!("{} {} {}", ages.len(), ages[ages.len() / 2], ages[ages.len() - 1]));
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos() as u64
}

/// Connects again and again for so long; how often it was let in.
fn knock(socket: &Path, time: Duration) {
    let begin = std::time::Instant::now();
    let mut welcomed = 0;
    while begin.elapsed() < time {
        let peer = hostile::greeting(socket);
        let mut kind = [0; 4];
        if nix::unistd::read(&peer, &mut kind).is_ok_and(|n| n == 4) && u32::from_ne_bytes(kind) == 0x81 {
            welcomed += 1;
        }
    }
    say(format_args!("{welcomed}"));
}

fn refused(socket: &Path) {
    let wishes = Wishes { policy: Some(Policy::Latest), ..Wishes::default() };
    match Connection::open(socket, &wishes, PATIENCE) {
        Err(IpcError::Refused { reason, .. }) => say(format_args!("{reason:?}")),
        other => panic!("{other:?}"),
    }
}

/// Why there can be no producer.
fn unbound(socket: &Path) -> IpcError {
    let buffer = shrbuf::exporter::Memfd::new("unbound").allocate(&one_segment()).unwrap();
    Producer::bind(socket, Options::default(), vec![Announced::of(&buffer).unwrap()], None).unwrap_err()
}

/// What is wrong with the producer.
fn broken(socket: &Path) {
    match Connection::open(socket, &Wishes::default(), PATIENCE) {
        Err(IpcError::Protocol { what, .. }) => say(format_args!("{what}")),
        other => panic!("{other:?}"),
    }
}

/// What frames come by.
fn by(socket: &Path) {
    let consumer = connect(socket, &Wishes::default());
    let path = format!("/proc/self/fd/{}", consumer.as_fd().as_raw_fd());
    say(format_args!("{}", std::fs::read_link(path).unwrap().display()));
}

fn gone(socket: &Path) {
    let error = Connection::open(socket, &Wishes::default(), PATIENCE).unwrap_err();
    assert!(matches!(error, IpcError::Unanswered { .. }), "{error:?}");
}

fn produce(socket: &Path) {
    let mut source = Source::new(socket, options(4, 2, Policy::Latest), 8);
    say(format_args!("listens"));
    source.send_until(|_| {
        std::thread::sleep(Duration::from_micros(200));
        false
    });
}

/// Sends so many frames, then dies, but leaves its pipe's end for writing to a child, whose number it says.
#[expect(clippy::zombie_processes, reason = "the child is to outlive this process")]
fn leak(socket: &Path, frames: u64) {
    let mut source = Source::new(socket, options(1, 4, Policy::Block), 8);
    say(format_args!("listens"));
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == frames);
    let is_pipe = |path: &Path| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"));
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap) {
        let fd: i32 = entry.file_name().to_str().unwrap().parse().unwrap();
        // Those of the harness are inherited as they are.
        if fd > 2 && is_pipe(&entry.path()) {
            // SAFETY: nothing here closes a descriptor between the listing and this.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        }
    }
    let heir = Command::new("sleep").arg("60").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    say(format_args!("{}", heir.id()));
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
}
