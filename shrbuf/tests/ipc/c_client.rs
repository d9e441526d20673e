//! The header and the client in C, built by the machine's compiler and run as a consumer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::fcntl::SealFlag;
use shrbuf::State;
use shrbuf::ipc::{FrameInfo, Policy};

use crate::common::{Descriptors, account, one_segment};
use crate::fake::{Packet, buffer, frame, good, memory, serve, state, welcome};
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
fn hash(number: u64) -> u64 {
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
fn client() -> &'static Path {
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

#[test]
fn the_client_in_c_believes_no_producer() {
    let several = |count| (0..count).map(|_| good()).collect();
    for fds in [0, 2, 9] {
        let said = complaint(|| vec![welcome(1, 2, 2), buffer(0, several(fds))]);
        assert!(said.contains("Protocol error"), "{said}");
    }
    for script in [vec![frame(64)], vec![state(64)], vec![buffer(64, vec![])], vec![(vec![7; 700], vec![])]] {
        let said = complaint(|| script);
        assert!(said.contains("Protocol error"), "{said}");
    }
    let said = complaint(|| vec![welcome(1, 2, 1), buffer(0, vec![memory(1 << 20, SealFlag::F_SEAL_GROW)])]);
    assert!(said.contains("buffer 0: Protocol error"), "{said}");
    let said = complaint(|| vec![welcome(1, 2, 1), buffer(0, vec![std::fs::File::open("/dev/null").unwrap().into()])]);
    assert!(said.contains("buffer 0: Protocol error"), "{said}");
}
