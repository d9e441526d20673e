//! A compositor without a display, while it lives.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shrbuf_bench::Result;

/// Its socket in XDG_RUNTIME_DIR.
pub const SOCKET: &str = "bench";
/// Emulated, it takes some seconds until it listens.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Weston(Child);

impl Weston {
    /// One that keeps its socket and log in `folder`.
    pub fn start(folder: &Path) -> Result<Weston> {
        let (socket, log) = (folder.join(SOCKET), folder.join("weston.log"));
        // One that was killed leaves it.
        let _ = fs::remove_file(&socket);
        let said = File::create(&log)?;
        let mut command = Command::new("weston");
        command
            .args(["--backend=headless", "--renderer=gl", "--shell=kiosk-shell.so", "--no-config", "--idle-time=0"])
            // No larger than the pictures are: it has to keep up with the camera.
            .args(["--width=320", "--height=180", "--refresh-rate=60000"])
            .arg(format!("--socket={SOCKET}"))
            .env("XDG_RUNTIME_DIR", folder)
            // Mesa's other renderer for the CPU, which it takes where there is a display, crashes over dma-bufs.
            .env("MESA_LOADER_DRIVER_OVERRIDE", "swrast")
            .env_remove("WAYLAND_DISPLAY")
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said);
        let mut weston = Weston(command.spawn().map_err(|e| format!("weston: {e}"))?);
        let begin = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if weston.0.try_wait()?.is_some() || begin.elapsed() > PATIENCE {
                return Err(format!("weston does not listen: {}", fs::read_to_string(&log)?).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(weston)
    }

    pub fn process(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Weston {
    fn drop(&mut self) {
        // Its shell may have crashed as its client went.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
