//! gst-launch-1.0 as a child, with the plugin of this build.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use shrbuf::ipc::{Connection, IpcError, Wishes};

pub const PAGE: &str = include_str!("../../../docs/gstreamer.md");

/// Longer than anything takes on a busy machine: what takes longer hangs.
pub const LONG: Duration = Duration::from_secs(60);

/// A path in a directory of this run, used by nobody else.
pub fn path(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    // A socket's path has 107 bytes at most.
    std::env::temp_dir().join(format!("shrbuf-gst-{pid}-{n}-{name}"))
}

/// A path that is removed at the end.
pub struct Temporary(pub PathBuf);

impl Temporary {
    pub fn new(name: &str) -> Temporary {
        Temporary(path(name))
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A directory with this build's plugin and nothing else: beside the tests cargo has libraries that are no plugins.
pub fn plugin() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let built = std::env::current_exe().unwrap().with_file_name("libgstshrbuf.so");
        assert!(built.exists(), "cargo has not built {built:?}");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gstreamer");
        std::fs::create_dir_all(&directory).unwrap();
        let link = directory.join("libgstshrbuf.so");
        // Left by an earlier run, or made by another at the same time.
        let _ = symlink(&built, &link);
        assert_eq!(std::fs::read_link(&link).unwrap(), built);
        directory
    })
}

/// A command of GStreamer's that knows the plugin.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let registry = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gstreamer-registry.bin");
    command.env("GST_PLUGIN_PATH", plugin()).env("GST_REGISTRY", registry);
    command
}

/// A running pipeline, killed at the end.
pub struct Launch {
    child: Child,
    log: Temporary,
}

/// How a pipeline ended.
pub struct Ended {
    pub success: bool,
    pub log: String,
}

impl Launch {
    /// Starts a pipeline as on the command line, but words are separated by spaces and nothing is quoted.
    pub fn new(pipeline: &str) -> Launch {
        Launch::with(pipeline, &[])
    }

    pub fn with(pipeline: &str, environment: &[(&str, &str)]) -> Launch {
        let log = Temporary::new("log");
        let out = File::create(&log.0).unwrap();
        let mut command = command("gst-launch-1.0");
        command.args(pipeline.split_whitespace()).envs(environment.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn();
        Launch { child: child.expect("gst-launch-1.0 (gstreamer1.0-tools)"), log }
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log.0).unwrap()).into_owned()
    }

    /// By SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends for writing of its pipes, as a child that outlives it might have.
    pub fn pipes(&self) -> Vec<File> {
        let all =
            std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().map(|entry| entry.unwrap().path());
        let is_pipe =
            |path: &PathBuf| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("pipe:"));
        all.filter(is_pipe).map(|path| File::options().write(true).open(path).unwrap()).collect()
    }

    pub fn end(mut self) -> Ended {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < LONG, "does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        };
        Ended { success: status.success(), log: self.log() }
    }

    /// Its log once it has ended well.
    pub fn end_well(self) -> String {
        let ended = self.end();
        assert!(ended.success, "{}", ended.log);
        ended.log
    }

    /// Its log once it has failed.
    ///
    /// gst-launch-1.0 of 1.22 says so and then sometimes does not end where the error comes while it still prerolls, as
    /// with `videotestsrc ! identity error-after=1 ! fakesink` too: nothing that a plugin could do about.
    pub fn fail(mut self) -> String {
        let mut status = None;
        until("an error", || {
            status = self.child.try_wait().unwrap();
            status.is_some() || self.log().contains("pipeline doesn't want to preroll")
        });
        assert!(!status.is_some_and(|s| s.success()), "{}", self.log());
        self.log()
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has a pipeline tell at its end what is still alive.
pub const LEAKS_TRACER: [(&str, &str); 3] =
    [("GST_TRACERS", "leaks"), ("GST_DEBUG", "GST_TRACER:7"), ("GST_DEBUG_NO_COLOR", "1")];

/// In the log of one with [`LEAKS_TRACER`].
pub fn nothing_is_alive(log: &str) {
    assert!(log.contains("new format string: object-alive"), "there is no tracer: {log}");
    assert!(!log.contains("object-alive, type-name=(string)Gst"), "{log}");
}

/// The plugin in this process. Once: a factory that is registered anew while others look for it is no factory.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstshrbuf::plugin_register_static().unwrap();
    });
}

/// Until `true`, or the test fails.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < LONG, "{what}: not in {LONG:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Until a producer listens there.
pub fn until_listening(socket: &Temporary) {
    until("a producer", || {
        let opened = Connection::open(&socket.0, &Wishes::default(), LONG);
        // One of this process does listen, but has no use for itself.
        !matches!(opened, Err(IpcError::NoProducer { .. }))
    });
}

/// What a pipeline of GStreamer's own elements writes to a file.
pub fn bytes_of(pipeline: &str) -> Vec<u8> {
    let file = Temporary::new("raw");
    Launch::new(&format!("{pipeline} ! filesink location={}", file.as_str())).end_well();
    std::fs::read(&file.0).unwrap()
}
