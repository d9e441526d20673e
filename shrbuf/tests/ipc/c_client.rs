//! The header and the client in C, built by the machine's compiler and run as a consumer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shrbuf::ipc::Policy;

use crate::common::{Descriptors, one_segment};
use crate::source::{Source, options, socket};

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

#[test]
fn the_client_in_c_prints_each_frames_hash() {
    let descriptors = Descriptors::count();
    let client = compile("ipc-hash", &root().join("examples/ipc-hash.c"));
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
