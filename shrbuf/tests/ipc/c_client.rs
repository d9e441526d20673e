//! The header and the client in C, built by the machine's compiler and run as a consumer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::fcntl::SealFlag;
use shrbuf::State;
use shrbuf::ipc::{FrameInfo, Policy, VERSION};

use crate::common::{Descriptors, account, one_segment};
use crate::fake::Packet::{self, Channel, Say, Write};
use crate::fake::{buffer, bye, channel, frame, frame_after, good, memory, page, pipe, serve, state, welcome, words};
use crate::source::{Source, mark, options, socket};

/// Lines that the example may have.
const LINES: usize = 60;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn compile(name: &str, source: &Path) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"];
    let mut cc = Command::new("cc");
    cc.args(flags).arg("-I").arg(root().join("shrbuf/include")).arg("-o").arg(&out).arg(source);
    assert!(cc.status().expect("a C compiler (`cc`) is needed").success());
    out
}

/// What a buffer of [`one_segment`] holds that is marked with `number`.
pub fn hash(number: u64) -> u64 {
    let layout = one_segment();
    let plane = layout.planes()[0];
    let mut bytes = vec![0; layout.segment_size(0).next_multiple_of(4096) as usize];
    for y in [0, layout.height - 1] {
        let at = (plane.offset + plane.stride * y) as usize;
        bytes[at..at + 8].copy_from_slice(&number.to_ne_bytes());
    }
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// The example, built once for all tests here.
pub fn client() -> &'static Path {
    static CLIENT: OnceLock<PathBuf> = OnceLock::new();
    CLIENT.get_or_init(|| compile("ipc-hash", &root().join("examples/ipc-hash.c")))
}

#[test]
fn the_client_in_c_is_short_and_prints_each_frames_hash() {
    let source = std::fs::read_to_string(root().join("examples/ipc-hash.c")).unwrap();
    assert!(source.lines().count() <= LINES && source.lines().all(|line| line.chars().count() <= 120));
    let client = client();
    let descriptors = Descriptors::count();
    let path = socket("c");
    let mut source = Source::new(&path, options(1, 2, Policy::Block), 4);
    let child = Command::new(client).arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    source.until(|s| s.producer.consumers() == 1);
    source.send_until(|s| s.sent == 20);
    source.until(|s| s.pool.idle() == 4);
    source.producer.end();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected: String = (0..20).map(|n| format!("{n} {:016x}\n", hash(n))).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    drop(source);
    descriptors.assert_same();
}

#[test]
fn the_client_in_c_waits_for_the_picture() {
    let client = client();
    let _alone = Descriptors::count();
    let path = socket("c-state");
    let mut source = Source::new(&path, options(1, 1, Policy::Block), 1);
    let mut buffer = source.pool.acquire().unwrap();
    mark(&mut buffer, 76, &account());
    let child = Command::new(client).arg(&path).stdout(Stdio::piped()).spawn().unwrap();
    source.until(|s| s.producer.consumers() == 1);
    buffer.set_state(State::Filling);
    source.producer.send(&buffer, &FrameInfo { sequence: 5, ..FrameInfo::default() }).unwrap();
    // It has the frame and must not look at it yet: it would find the picture before.
    std::thread::sleep(Duration::from_millis(100));
    source.producer.ready().unwrap();
    assert_eq!(buffer.references(), 2, "given back unseen");
    mark(&mut buffer, 77, &account());
    buffer.set_state(State::Corrupt);
    source.until(|_| buffer.references() == 1);
    source.producer.end();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("5 {:016x} damaged\n", hash(77)));
}

/// What the client says to such a producer before it ends.
fn complaint(script: impl FnOnce() -> Vec<Packet>) -> String {
    let client = client();
    let descriptors = Descriptors::count();
    let path = socket("c-hostile");
    let producer = serve(&path, script());
    let output = Command::new(client).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    producer.join().unwrap();
    descriptors.assert_same();
    String::from_utf8(output.stderr).unwrap()
}

fn null() -> std::os::fd::OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

#[test]
fn the_client_in_c_believes_no_producer() {
    let several = |count| (0..count).map(|_| good()).collect();
    for fds in [0, 2, 9] {
        let said = complaint(|| vec![welcome(VERSION, 2, 2), buffer(0, several(fds))]);
        assert!(said.contains("Protocol error"), "{said}");
    }
    let wrong =
        [|| Say(vec![7; 700], vec![]), || buffer(64, vec![]), || channel(0, vec![]), || channel(1, vec![page()])];
    for wrong in wrong {
        let said = complaint(|| vec![wrong()]);
        assert!(said.contains("Protocol error"), "{said}");
    }
    let told = |more: &dyn Fn() -> [Packet; 2]| {
        let begin = || vec![welcome(VERSION, 2, 1), buffer(0, vec![good()])];
        complaint(|| begin().into_iter().chain(more()).collect())
    };
    for record in [frame(64), state(64), frame(0)[..63].to_vec()] {
        let by_socket = told(&|| [channel(0, vec![page()]), Say(record.clone(), vec![])]);
        let by_pipe = told(&|| [Channel, Write(record.clone())]);
        assert!(by_socket.contains("Protocol error") && by_pipe.contains("Protocol error"), "{by_socket}{by_pipe}");
    }
    let pairs = [
        || vec![null(), null()],
        || vec![page(), null()],
        || vec![page(), good()],
        || vec![memory(4096, SealFlag::F_SEAL_GROW), good()],
    ];
    for fds in pairs {
        let said = told(&|| [channel(1, fds()), Channel]);
        assert!(said.contains("channel: Protocol error"), "{said}");
    }
    let said = complaint(|| vec![welcome(VERSION, 2, 1), buffer(0, vec![memory(1 << 20, SealFlag::F_SEAL_GROW)])]);
    assert!(said.contains("buffer 0: Protocol error"), "{said}");
    let said = complaint(|| vec![welcome(VERSION, 2, 1), buffer(0, vec![null()])]);
    assert!(said.contains("buffer 0: Protocol error"), "{said}");
}

#[test]
fn the_client_in_c_says_in_words_how_it_ended() {
    let ways = [
        (3 | 7 << 16, "the producer speaks version 7 of the protocol, this program version 4"),
        (2, "the producer has as many consumers"),
        (0, "the stream has ended"),
        (200, "a reason that this program does not know, 200"),
    ];
    for (reason, expected) in ways {
        let said = complaint(|| vec![bye(reason)]);
        assert!(said.contains(expected), "{said}");
    }
    for silent in [|| vec![], || vec![welcome(VERSION, 2, 1), buffer(0, vec![good()]), Channel]] {
        let said = complaint(silent);
        assert!(said.trim_end().ends_with(": the producer has gone"), "{said}");
    }
    let said = complaint(|| vec![welcome(VERSION, 2, 1), buffer(0, vec![good()]), Channel, bye(6)]);
    assert!(said.contains("the socket was full"), "{said}");
}

#[test]
fn the_header_lets_nothing_through_that_has_no_place_among_frames_and_keeps_no_descriptor_of_it() {
    let client = compile("ipc-strays", &root().join("shrbuf/tests/ipc/strays.c"));
    let path = socket("c-strays");
    let _alone = Descriptors::count();
    let ends = |by_pipe: bool, strays: Vec<Packet>| {
        let opened = if by_pipe { Channel } else { channel(0, vec![page()]) };
        let producer = serve(&path, std::iter::once(opened).chain(strays).collect());
        let output = Command::new(&client).arg(&path).output().unwrap();
        producer.join().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let stray_channels: [fn() -> Packet; 2] = [|| channel(1, vec![page(), pipe()]), || channel(0, vec![page()])];
    for stray in stray_channels {
        for by_pipe in [false, true] {
            assert_eq!(ends(by_pipe, vec![stray()]), "-1 Protocol error, 0 more\n");
        }
        // In the place of the BUFFER that a frame is in.
        assert_eq!(ends(true, vec![stray(), Write(frame_after(0, 1))]), "-1 Protocol error, 0 more\n");
    }
    let overview = || Say([words(&[0x86]), vec![0; 52]].concat(), vec![]);
    for by_pipe in [false, true] {
        for stray in [welcome(VERSION, 2, 1), overview()] {
            assert_eq!(ends(by_pipe, vec![stray]), "-1 Protocol error, 0 more\n");
        }
    }
    for record in [frame(0), state(0)] {
        assert_eq!(ends(true, vec![Say(record.clone(), vec![])]), "-1 Protocol error, 0 more\n");
        assert!(ends(false, vec![Say(record, vec![])]).starts_with("0 "));
    }
    assert_eq!(ends(false, vec![Say(frame_after(0, 1), vec![])]), "-1 Protocol error, 0 more\n");
}
