//! The command as its users meet it: the real binary, its outputs and its exit codes.

mod describe;
mod files;
mod interrupted;
mod ipc;
mod outputs;
mod run;
mod wrong;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A camera of test pictures as fast as they come, into nothing.
const CAMERA: &str = r#"
[pipeline]
name = "test"

[element.camera]
type = "test-src"
size = [64, 48]
format = "XR24"

[element.display]
type = "null-sink"

[[link]]
path = ["camera", "display"]
"#;

/// An empty directory of its own for a test.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Place {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    fn with(test: &str, pipeline: &str) -> Place {
        let place = Place::new(test);
        place.write("pipeline.toml", pipeline);
        place
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), content).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The command with these arguments, in this directory, whatever the environment of the tests.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shrbuf"));
        command.args(args).current_dir(&self.0).env_remove("RUST_LOG").env("TMPDIR", &self.0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        let output = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done { status: output.status, out: text(output.stdout), err: text(output.stderr) }
    }
}

/// What a command left.
#[derive(Debug)]
struct Done {
    status: ExitStatus,
    out: String,
    err: String,
}

impl Done {
    #[track_caller]
    fn with_code(self, code: i32) -> Done {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }

    /// The object on the last line.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(self.out.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

/// A command that is still going.
struct Going {
    child: Child,
    err: BufReader<ChildStderr>,
    seen: String,
}

impl Going {
    fn start(mut command: Command) -> Going {
        let mut child = command.spawn().unwrap();
        let err = BufReader::new(child.stderr.take().unwrap());
        Going { child, err, seen: String::new() }
    }

    /// Waits until standard error has said `word`.
    #[track_caller]
    fn says(&mut self, word: &str) {
        while !self.seen.contains(word) {
            assert!(self.err.read_line(&mut self.seen).unwrap() > 0, "no `{word}` in:\n{}", self.seen);
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for its end, for two seconds at most.
    #[track_caller]
    fn ends(mut self) -> Done {
        let id = self.child.id();
        let (sender, ended) = channel();
        let waiter = std::thread::spawn(move || {
            let mut out = String::new();
            self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
            self.err.read_to_string(&mut self.seen).unwrap();
            let _ = sender.send(());
            Done { status: self.child.wait().unwrap(), out, err: self.seen }
        });
        if ended.recv_timeout(Duration::from_secs(2)).is_err() {
            kill(Pid::from_raw(id as i32), Signal::SIGKILL).unwrap();
            panic!("still going after two seconds: {:#?}", waiter.join());
        }
        waiter.join().unwrap()
    }
}
