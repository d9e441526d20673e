//! Weston, started for a test and ended with it.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shrbuf_pipeline::Size;

/// Emulated, it takes ten seconds until it listens.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A compositor without a display, in a folder of its own.
pub struct Weston {
    folder: PathBuf,
    size: Size,
    refresh: u32,
    process: Child,
}

fn installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("weston").exists())
}

impl Weston {
    /// A screen of `size` at 60 Hz; `None`, and a word about it, where Weston is not installed and not required.
    pub fn start(size: Size) -> Option<Weston> {
        Weston::start_at(size, 60)
    }

    /// As [`Weston::start`], at `refresh` Hz.
    pub fn start_at(size: Size, refresh: u32) -> Option<Weston> {
        if !installed() {
            let required = ["SHRBUF_REQUIRE_WESTON", "SHRBUF_REQUIRE_DRIVERS"];
            let required = required.iter().any(|name| std::env::var_os(name).is_some());
            assert!(!required, "weston is required and missing: scripts/setup desktop installs it");
            println!("needs weston: scripts/setup desktop installs it");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("shrbuf-weston-{}-{number}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder).unwrap();
        let process = spawn(&folder, size, refresh);
        let weston = Weston { folder, size, refresh, process };
        weston.wait();
        Some(weston)
    }

    /// Whole path of its socket.
    pub fn socket(&self) -> String {
        self.folder.join("socket").display().to_string()
    }

    fn wait(&self) {
        let until = Instant::now() + START_LIMIT;
        while UnixStream::connect(self.socket()).is_err() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "weston does not listen after {START_LIMIT:?}:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Something that sends it signals from another thread.
    pub fn signals(&self) -> impl Fn(Signal) + Send + use<> {
        let process = Pid::from_raw(self.process.id() as i32);
        move |signal| kill(process, signal).expect("weston runs")
    }

    /// Starts it anew, after it was killed.
    pub fn restart(&mut self) {
        self.process.wait().unwrap();
        self.process = spawn(&self.folder, self.size, self.refresh);
        self.wait();
    }

    /// Starts it anew where it has ended: its kiosk shell crashes at times as a window goes.
    pub fn revive(&mut self) {
        if self.process.try_wait().unwrap().is_some() {
            self.restart();
        }
    }

    /// What is on its screen: rows of red, green, blue, alpha.
    pub fn screen(&self) -> Vec<u8> {
        let status = Command::new("weston-screenshooter")
            .current_dir(&self.folder)
            .env("XDG_RUNTIME_DIR", &self.folder)
            .env("WAYLAND_DISPLAY", "socket")
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "weston-screenshooter: {status}");
        let is_png = |p: &PathBuf| p.extension().is_some_and(|e| e == "png");
        let png = fs::read_dir(&self.folder).unwrap().flatten().map(|e| e.path()).find(is_png).unwrap();
        let pixels = read_png(&png, self.size);
        fs::remove_file(png).unwrap();
        pixels
    }
}

fn spawn(folder: &Path, size: Size, refresh: u32) -> Child {
    // Its lock and socket, where it was killed.
    for left in ["socket", "socket.lock"] {
        let _ = fs::remove_file(folder.join(left));
    }
    let log = File::create(folder.join("log")).unwrap();
    Command::new("weston")
        .args(["--backend=headless", "--renderer=gl", "--shell=kiosk-shell.so", "--socket=socket", "--debug"])
        .args(["--no-config", "--idle-time=0"])
        .args([format!("--width={}", size.width), format!("--height={}", size.height)])
        .arg(format!("--refresh-rate={}", refresh * 1000))
        .env("XDG_RUNTIME_DIR", folder)
        // The software rasterizer, whatever there is.
        .env("LIBGL_ALWAYS_SOFTWARE", "1")
        .env("MESA_LOADER_DRIVER_OVERRIDE", "swrast")
        .env_remove("WAYLAND_DISPLAY")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn read_png(path: &Path, size: Size) -> Vec<u8> {
    let mut decoder = png::Decoder::new(std::io::BufReader::new(File::open(path).unwrap()));
    decoder.set_transformations(png::Transformations::normalize_to_color8() | png::Transformations::ALPHA);
    let mut reader = decoder.read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (size.width, size.height));
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    assert_eq!(pixels.len(), (size.width * size.height * 4) as usize);
    pixels
}

impl Drop for Weston {
    fn drop(&mut self) {
        // It may be stopped, or dead.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
