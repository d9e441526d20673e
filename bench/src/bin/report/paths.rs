//! Other ways of a camera's frames than onto a display: through the GPU, into a window, through a converter and an encoder.
//! Each in the command's own TOML beside GStreamer's line, in the virtual machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shrbuf_bench::table::{Goal, Row};
use shrbuf_bench::{Result, trace};

use crate::{figure, peer};

/// The first of them are left out.
const SKIP: u64 = 30;
/// What software takes to draw and encode under emulation leaves some ten frames a second.
const FRAMES: u64 = 150;

struct Way {
    name: &'static str,
    /// What follows the camera in TOML, and its name there.
    ours: (&'static str, &'static str),
    /// The same camera's format, in TOML and in caps.
    format: (&'static str, &'static str),
    /// What follows the camera in GStreamer.
    theirs: &'static str,
    /// Whether a compositor has to run.
    window: bool,
}

const WAYS: &[Way] = &[
    Way {
        name: "YUYV to XR24 on the GPU",
        ours: (
            "[element.gpu]\ntype = \"gpu\"\nformat = \"XR24\"\n[element.end]\ntype = \"null-sink\"\n",
            "\"gpu\", \"end\"",
        ),
        format: ("YUYV", "YUY2"),
        theirs: "glupload ! glcolorconvert ! video/x-raw(memory:GLMemory),format=RGBA ! fakesink sync=false",
        window: false,
    },
    Way {
        name: "XR24 into a window",
        ours: ("[element.end]\ntype = \"wayland-sink\"\n", "\"end\""),
        format: ("XR24", "BGRx"),
        theirs: "waylandsink sync=false",
        window: true,
    },
    Way {
        name: "XR24 to YUYV by a V4L2 converter",
        ours: (
            "[element.convert]\ntype = \"v4l2-m2m\"\nformat = \"YUYV\"\n[element.end]\ntype = \"null-sink\"\n",
            "\"convert\", \"end\"",
        ),
        format: ("XR24", "BGRx"),
        theirs: "v4l2convert output-io-mode=dmabuf-import capture-io-mode=dmabuf ! video/x-raw,format=YUY2 ! fakesink sync=false",
        window: false,
    },
    Way {
        name: "YUYV to FWHT by a V4L2 encoder",
        ours: (
            "[element.encode]\ntype = \"v4l2-m2m\"\nformat = \"FWHT\"\n[element.end]\ntype = \"null-sink\"\n",
            "\"encode\", \"end\"",
        ),
        format: ("YUYV", "YUY2"),
        theirs: "v4l2fwhtenc output-io-mode=dmabuf-import capture-io-mode=dmabuf ! fakesink sync=false",
        window: false,
    },
];

/// A headless compositor, while it lives.
struct Compositor(Child);

impl Compositor {
    fn start(folder: &Path) -> Result<Compositor> {
        let mut weston = Command::new("weston");
        weston.args([
            "--backend=headless",
            "--renderer=gl",
            "--width=1280",
            "--height=720",
            "--socket=bench",
            "--idle-time=0",
        ]);
        weston.env("XDG_RUNTIME_DIR", folder).stdout(Stdio::null()).stderr(Stdio::null());
        let mut compositor = Compositor(weston.spawn().map_err(|e| format!("weston: {e}"))?);
        let begin = Instant::now();
        while !folder.join("bench").exists() {
            if compositor.0.try_wait()?.is_some() || begin.elapsed() > Duration::from_secs(60) {
                return Err("weston did not start".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(compositor)
    }
}

impl Drop for Compositor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A registry of only the plug-ins that are used: the host's does not know this machine's codecs, and looking through all of
/// them takes a minute here.
fn plugins(folder: &Path) -> Result<PathBuf> {
    let all = Path::new("/usr/lib/x86_64-linux-gnu/gstreamer-1.0");
    let some = folder.join("plugins");
    fs::create_dir_all(&some)?;
    for name in ["coreelements", "video4linux2", "opengl", "waylandsink"] {
        let file = format!("libgst{name}.so");
        let link = some.join(&file);
        if all.join(&file).exists() && !link.exists() {
            std::os::unix::fs::symlink(all.join(&file), link)?;
        }
    }
    Ok(some)
}

fn ours(way: &Way, folder: &Path) -> Result<Command> {
    let ((elements, names), (format, _)) = (way.ours, way.format);
    let file = folder.join("way.toml");
    let camera = format!("type = \"v4l2-src\"\nformat = \"{format}\"\nsize = [640, 480]\nrate = 30\n");
    fs::write(&file, format!("[element.camera]\n{camera}{elements}[[link]]\npath = [\"camera\", {names}]\n"))?;
    let mut command = Command::new(crate::ours("shrbuf")?);
    command.args(["run", "--json", "--frames", &FRAMES.to_string()]).arg(file);
    Ok(command)
}

fn theirs(way: &Way, folder: &Path) -> Result<Command> {
    let caps = format!("video/x-raw,format={},width=640,height=480,framerate=30/1", way.format.1);
    let mut command = peer::gst(&format!("v4l2src io-mode=dmabuf num-buffers={FRAMES} ! {caps} ! {}", way.theirs));
    command.env("GST_PLUGIN_SYSTEM_PATH", plugins(folder)?).env("GST_REGISTRY", folder.join("registry"));
    // Where it finds no window system it would look for one for ever.
    command.env("GST_GL_PLATFORM", "egl").env("EGL_PLATFORM", "surfaceless");
    Ok(command)
}

/// Each way by each program. One that fails says why instead.
pub fn measure() -> Result<Value> {
    let folder = std::env::temp_dir().join(format!("ways-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let mut measured = json!({});
    for way in WAYS {
        let compositor = if way.window { Some(Compositor::start(&folder)) } else { None };
        if let Some(Err(why)) = &compositor {
            measured[way.name] = json!({ "why": why.to_string() });
            continue;
        }
        for (whose, command) in [("ours", ours(way, &folder)), ("theirs", theirs(way, &folder))] {
            let mut command = command?;
            command.env("LIBGL_ALWAYS_SOFTWARE", "1").env("MESA_LOADER_DRIVER_OVERRIDE", "swrast");
            command.env("XDG_RUNTIME_DIR", &folder).env("WAYLAND_DISPLAY", "bench");
            measured[way.name][whose] = match trace::run(&mut command, SKIP) {
                Ok((used, steady)) => {
                    let said = used.output.lines().last().and_then(|l| serde_json::from_str::<Value>(l).ok());
                    json!({ "traced": steady.to_json(), "used": used.to_json(), "said": said })
                }
                Err(why) => json!({ "why": why.to_string() }),
            };
        }
    }
    fs::remove_dir_all(&folder)?;
    Ok(measured)
}

/// Lines of the table.
pub fn rows(measured: &Value) -> Vec<Row> {
    let mut rows = Vec::new();
    for way in WAYS {
        let get = |whose: &str, path: &str| figure(&measured[way.name][whose], path);
        let mut row = |measure: &str, path: &str, goal| {
            rows.push(Row::new(format!("{}, {measure}", way.name), get("ours", path), get("theirs", path), goal));
        };
        row("CPU µs of the median frame", "/traced/cpu_us/p50", Goal::Part(0.5));
        row("user CPU µs of the median frame", "/traced/user_us/p50", Goal::None);
        row("system calls a frame", "/traced/calls_per_frame", Goal::None);
        row("latency p50 µs", "/said/elements/end/latency_us/p50", Goal::None);
        row("bytes copied", "/said/bytes_copied", Goal::AtMost(0.0));
    }
    rows
}
