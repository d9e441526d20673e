//! Other ways of a camera's frames than onto a display: through a GPU, into a window, through a converter and an encoder. Ours
//! as TOML for the `shrbuf` command, beside a line of GStreamer's, in one boot of the virtual machine.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use shrbuf_bench::process::{self, Used};
use shrbuf_bench::table::{Goal, Row};
use shrbuf_bench::trace::{self, Watch};
use shrbuf_bench::{Result, least};

use crate::weston::{SOCKET, Weston};
use crate::{figure, nodes, peer};

/// The virtual machine's options: one camera, a converter that does not wait, an encoder; and Mesa's renderer for the CPU,
/// without what it has wrong there, as in scripts/test-guest.
pub const GUEST: [&str; 10] = [
    "--vivid",
    "n_devs=1 node_types=0x1",
    "--module",
    "vim2m default_transtime=1",
    "--module",
    "vicodec",
    "--env",
    "LIBGL_ALWAYS_SOFTWARE=1",
    "--env",
    "GALLIUM_OVERRIDE_CPU_CAPS=sse4.1",
];

/// Of which the least disturbed counts.
const ROUNDS: usize = 3;
/// The first compiles shaders, which the second finds in Mesa's cache; apart from that they are alike.
const COUNTED: usize = 2;
/// Mesa's renderer and the compositor, which draws with it, take long for each pixel where they are emulated.
const TINY: Camera = Camera { format: ["YUYV", "YUY2"], pixel: 2, size: (320, 180), rate: 15, frames: 120, few: 30 };
const SMALL: Camera = Camera { format: ["BG24", "RGB"], pixel: 3, size: (640, 480), rate: 30, frames: 200, few: 50 };
/// The encoder takes most of a tenth of a second for a frame of these, emulated. GStreamer 1.22 works out the encoder's buffers
/// before it has told it the size of the pictures, which is right only at the size that vicodec begins with.
const LARGE: Camera = Camera { format: ["YUYV", "YUY2"], pixel: 2, size: (1280, 720), rate: 10, frames: 90, few: 20 };
/// A program that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// Where Debian has GStreamer's plug-ins, and those that are used.
const PLUGINS: (&str, [&str; 4]) =
    ("/usr/lib/x86_64-linux-gnu/gstreamer-1.0", ["coreelements", "video4linux2", "opengl", "waylandsink"]);
/// What the peer logs for each copy that its CPU makes of a frame.
const COPIES: [&str; 2] = ["copying buffer", "copying to wl_shm"];
const UPLOADS: &str = "attempting upload with uploader ";

struct Camera {
    /// In V4L2's and in GStreamer's words.
    format: [&'static str; 2],
    /// Bytes of a pixel.
    pixel: u32,
    size: (u32, u32),
    rate: u32,
    frames: u64,
    /// Starting up takes as much CPU time as many frames do, so a run of these is subtracted.
    few: u64,
}

impl Camera {
    /// Of a frame.
    fn bytes(&self) -> f64 {
        f64::from(self.size.0 * self.size.1 * self.pixel)
    }
}

struct Way {
    /// What it is asked for by.
    key: &'static str,
    name: &'static str,
    camera: Camera,
    /// What follows the camera, in TOML; DEVICE stands for a node.
    ours: &'static str,
    /// What follows the camera, in GStreamer's words.
    theirs: &'static str,
    /// The name of the node that is used.
    device: Option<&'static str>,
    /// GStreamer 1.22 has no EGL without a window, and only a Wayland window with which Mesa's renderer for the CPU reads
    /// dma-bufs: so a compositor runs, for both.
    compositor: bool,
    /// What else the trace tells, and where.
    told: &'static [(&'static str, &'static str)],
}

const OWN: (&str, &str) = ("CPU µs of the median frame but for a device's part", "own_us/p50");
const COMPOSED: (&str, &str) = ("compositor's CPU µs a frame", "beside_us_per_frame");
const MADE: [(&str, &str); 3] = [
    OWN,
    ("latency p50 µs, stamp to result", "stamp_to_made_us/p50"),
    ("latency p99 µs, stamp to result", "stamp_to_made_us/p99"),
];

const DRAWN: [(&str, &str); 3] = [
    OWN,
    ("latency p50 µs, stamp to the picture drawn", "stamp_to_drawn_us/p50"),
    ("latency p99 µs, stamp to the picture drawn", "stamp_to_drawn_us/p99"),
];

const WAYS: [Way; 4] = [
    Way {
        key: "gpu",
        name: "YUYV to RGB on the GPU",
        camera: TINY,
        ours: "[element.gpu]\ntype = \"gpu\"\nformat = \"XR24\"\n[element.end]\ntype = \"null-sink\"\n\
               [[link]]\npath = [\"camera\", \"gpu\", \"end\"]\n",
        // Without `texture-target` the camera's picture itself counts as RGBA, and nothing is drawn.
        theirs: "glupload ! glcolorconvert ! video/x-raw(memory:GLMemory),format=RGBA,texture-target=2D ! fakesink sync=false",
        device: None,
        compositor: true,
        told: &DRAWN,
    },
    Way {
        key: "window",
        name: "XR24 into a window",
        camera: Camera { format: ["XR24", "BGRx"], pixel: 4, ..TINY },
        ours: "[element.end]\ntype = \"wayland-sink\"\n[[link]]\npath = [\"camera\", \"end\"]\n",
        theirs: "waylandsink sync=false",
        device: None,
        compositor: true,
        told: &[
            COMPOSED,
            ("latency p50 µs, stamp to the message to the compositor", "stamp_to_sent_us/p50"),
            ("latency p99 µs, stamp to the message to the compositor", "stamp_to_sent_us/p99"),
        ],
    },
    Way {
        key: "converter",
        name: "RGB to RGB565 by a V4L2 converter",
        camera: SMALL,
        ours: "[element.convert]\ntype = \"v4l2-m2m\"\ndevice = \"DEVICE\"\nformat = \"RG16\"\n\
               [element.end]\ntype = \"null-sink\"\n[[link]]\npath = [\"camera\", \"convert\", \"end\"]\n",
        theirs: "v4l2convert output-io-mode=dmabuf-import capture-io-mode=dmabuf ! video/x-raw,format=RGB16 ! \
                 fakesink sync=false",
        device: Some("vim2m"),
        compositor: false,
        told: &MADE,
    },
    Way {
        key: "encoder",
        name: "YUYV to FWHT by a V4L2 encoder",
        camera: LARGE,
        ours: "[element.encode]\ntype = \"v4l2-m2m\"\ndevice = \"DEVICE\"\nformat = \"FWHT\"\n\
               [element.end]\ntype = \"null-sink\"\n[[link]]\npath = [\"camera\", \"encode\", \"end\"]\n",
        theirs: "v4l2fwhtenc output-io-mode=dmabuf-import capture-io-mode=mmap ! fakesink sync=false",
        device: Some("stateful-encoder"),
        compositor: false,
        told: &MADE,
    },
];

/// Where sockets, pipelines, logs and the peer's plug-ins are, while it is measured.
struct Folder(PathBuf);

impl Folder {
    /// The list of plug-ins that the host has knows no codecs, as it has none; looking through all of them takes a minute here.
    fn create() -> Result<Folder> {
        let folder = Folder(std::env::temp_dir().join(format!("paths-{}", std::process::id())));
        DirBuilder::new().mode(0o700).create(&folder.0)?;
        fs::create_dir(folder.0.join("plugins"))?;
        let (all, some) = PLUGINS;
        for file in some.map(|name| format!("libgst{name}.so")) {
            symlink(Path::new(all).join(&file), folder.0.join("plugins").join(file))?;
        }
        Ok(folder)
    }

    fn ours(&self, way: &Way, frames: u64) -> Result<Command> {
        let camera = &way.camera;
        let (width, height) = camera.size;
        // A compositor compiles its shaders over the first frame, for seconds where it is emulated.
        let mut graph = format!(
            "[element.camera]\ntype = \"v4l2-src\"\ndevice = \"{}\"\nformat = \"{}\"\nsize = [{width}, {height}]\nrate = {}\n\
             stall = \"20s\"\ncontrols = {{ timestamp_source = \"Start of Exposure\" }}\n{}",
            nodes::find(nodes::CAMERA)?.path,
            camera.format[0],
            camera.rate,
            way.ours
        );
        if let Some(device) = way.device {
            graph = graph.replace("DEVICE", &nodes::find(device)?.path);
        }
        let file = self.0.join("way.toml");
        fs::write(&file, graph)?;
        let mut command = Command::new(crate::ours("shrbuf")?);
        command.args(["run", "--json", "--frames", &frames.to_string()]).arg(file);
        Ok(command)
    }

    fn theirs(&self, way: &Way, frames: u64) -> Result<Command> {
        let camera = &way.camera;
        let (width, height) = camera.size;
        let mut command = peer::gst(&format!(
            "v4l2src device={} io-mode=dmabuf extra-controls=c,timestamp_source=1 num-buffers={frames} ! \
             video/x-raw,format={},width={width},height={height},framerate={}/1 ! {}",
            nodes::find(nodes::CAMERA)?.path,
            camera.format[1],
            camera.rate,
            way.theirs
        ));
        command
            .env("GST_PLUGIN_SYSTEM_PATH", self.0.join("plugins"))
            .env("GST_REGISTRY", self.0.join("registry"))
            .env("GST_REGISTRY_FORK", "no")
            .envs([("GST_GL_PLATFORM", "egl"), ("GST_GL_WINDOW", "wayland"), ("GST_GL_API", "gles2")]);
        Ok(command)
    }

    fn command(&self, way: &Way, whose: &str, frames: u64) -> Result<Command> {
        let mut command = if whose == "ours" { self.ours(way, frames)? } else { self.theirs(way, frames)? };
        command.env("XDG_RUNTIME_DIR", &self.0).env("WAYLAND_DISPLAY", SOCKET);
        command.stderr(File::create(self.said())?);
        Ok(command)
    }

    fn said(&self) -> PathBuf {
        self.0.join("stderr")
    }

    /// What failed, with what the program said.
    fn why(&self, error: &dyn std::error::Error) -> Value {
        let said = fs::read_to_string(self.said()).unwrap_or_default();
        let line = said.lines().find(|l| l.contains("ERROR") || l.contains("error")).or(said.lines().last());
        json!({ "why": format!("{error}; {}", line.unwrap_or("it said nothing")) })
    }

    /// A new compositor for each run: Weston's kiosk shell was seen to crash as a client went.
    fn beside(&self, way: &Way) -> Result<Option<Weston>> {
        if way.compositor { Weston::start(&self.0).map(Some) } else { Ok(None) }
    }

    fn run(&self, way: &Way, whose: &str, frames: u64) -> Result<Used> {
        let _weston = self.beside(way)?;
        process::run_within(&mut self.command(way, whose, frames)?, LIMIT)
    }

    /// What GStreamer's log of a run says of copies, and how its pictures came to the GPU.
    fn logged(&self, way: &Way) -> Result<Value> {
        let _weston = self.beside(way)?;
        let frames = way.camera.few;
        let log = self.0.join("log");
        let mut command = self.command(way, "theirs", frames)?;
        command.env("GST_DEBUG", "v4l2bufferpool:6,waylandsink:6,glupload:5").env("GST_DEBUG_FILE", &log);
        process::run_within(command.env("GST_DEBUG_NO_COLOR", "1"), LIMIT)?;
        let text = fs::read_to_string(&log)?;
        let copied = text.lines().filter(|l| COPIES.iter().any(|c| l.contains(c))).count() as f64 / frames as f64;
        let uploaded = text.lines().rev().find_map(|l| Some(l.split_once(UPLOADS)?.1.trim()));
        let copies = copied + f64::from(u8::from(uploaded == Some("Raw Data")));
        Ok(json!({ "bytes_copied_per_frame": copies * way.camera.bytes(), "uploaded_by": uploaded }))
    }

    /// A short run and a long one.
    fn round(&self, way: &Way, whose: &str, runs: &mut Runs) -> Result<()> {
        runs.short.push(self.run(way, whose, way.camera.few)?);
        runs.long.push(self.run(way, whose, way.camera.frames)?);
        Ok(())
    }

    fn traced(&self, way: &Way, whose: &str, deeds: bool) -> Result<Value> {
        let weston = self.beside(way)?;
        let camera = nodes::find(nodes::CAMERA)?.minor;
        let watch = Watch { camera, skip: way.camera.few, beside: weston.as_ref().map(Weston::process), deeds };
        let (_, steady) = trace::run(&mut self.command(way, whose, way.camera.frames)?, watch)?;
        if way.told.contains(&COMPOSED) && steady.beside_us == 0.0 {
            return Err("the compositor was gone before the frames came".into());
        }
        Ok(steady.to_json())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Untraced runs of one way by one program.
#[derive(Default)]
struct Runs {
    short: Vec<Used>,
    long: Vec<Used>,
}

impl Runs {
    /// CPU time of a frame, and what the program used and said.
    fn figures(&self, camera: &Camera) -> Result<Value> {
        // The least of each length first: the least difference would be that of the most disturbed short run.
        let of_few = least(self.short.iter().map(Used::cpu_us)).ok_or("nothing was run")?;
        let used = self.long.iter().min_by(|a, b| a.cpu_us().total_cmp(&b.cpu_us())).ok_or("nothing was run")?;
        let cpu = (used.cpu_us() - of_few) / (camera.frames - camera.few) as f64;
        // Where something disturbed the short runs more than the long ones, it tells nothing.
        let cpu = Some(cpu).filter(|cpu| *cpu > 0.0);
        let mut figures = json!({ "cpu_us_per_frame": cpu, "used": used.to_json() });
        if let Some(said) = used.output.lines().last().and_then(|l| serde_json::from_str::<Value>(l).ok()) {
            let copied = figure(&said, "/bytes_copied").ok_or("shrbuf does not say what it copied")?;
            figures["bytes_copied_per_frame"] = json!(copied / camera.frames as f64);
            figures["said"] = said;
        }
        Ok(figures)
    }
}

fn both() -> &'static [&'static str] {
    if peer::installed() { &["ours", "theirs"] } else { &["ours"] }
}

/// As [`measure`], where CPU time counts instructions: what a frame takes of it, and what of that is not a device's part.
pub fn count() -> Result<Value> {
    let folder = Folder::create()?;
    let mut measured = json!({});
    for way in &WAYS {
        for whose in both() {
            eprintln!("{}, {whose}", way.name);
            let mut runs = Runs::default();
            let mut rounds = (0..COUNTED).map(|_| folder.round(way, whose, &mut runs));
            let counted = rounds.try_for_each(|done| done).and_then(|()| runs.figures(&way.camera));
            measured[way.name][whose] = counted.unwrap_or_else(|e| folder.why(&*e));
        }
    }
    for way in &WAYS {
        for whose in both() {
            eprintln!("{}, {whose}, traced", way.name);
            measured[way.name][whose]["traced"] = folder.traced(way, whose, false).unwrap_or_else(|e| folder.why(&*e));
        }
    }
    Ok(measured)
}

/// The way that `key` is of, or each, by each program in turns. One that fails says why instead. The traced runs come last,
/// see [`trace::run`].
pub fn measure(key: Option<&str>) -> Result<Value> {
    let ways: Vec<&Way> = WAYS.iter().filter(|way| key.is_none_or(|key| way.key == key)).collect();
    let folder = Folder::create()?;
    let mut measured = json!({});
    let both = both();
    for way in &ways {
        if both.contains(&"theirs") {
            measured[way.name]["log"] = folder.logged(way).unwrap_or_else(|e| folder.why(&*e));
        }
        let mut all: Vec<(&str, Runs, Option<Value>)> =
            both.iter().map(|whose| (*whose, Runs::default(), None)).collect();
        for round in 1..=ROUNDS {
            for (whose, runs, why) in all.iter_mut().filter(|(_, _, why)| why.is_none()) {
                eprintln!("{}, {whose}, {round} of {ROUNDS}", way.name);
                *why = folder.round(way, whose, runs).err().map(|e| folder.why(&*e));
            }
        }
        for (whose, runs, why) in all {
            measured[way.name][whose] = match why {
                None => runs.figures(&way.camera)?,
                Some(why) => why,
            };
        }
    }
    for way in &ways {
        for round in 1..=ROUNDS {
            for whose in both {
                let of_program = &mut measured[way.name][whose];
                if of_program.get("why").is_none() {
                    eprintln!("{}, {whose}, traced, {round} of {ROUNDS}", way.name);
                    let traced = folder.traced(way, whose, true).unwrap_or_else(|e| folder.why(&*e));
                    let median = |traced: &Value| figure(traced, "/cpu_us/p50");
                    // The less disturbed.
                    if median(&of_program["traced"])
                        .is_none_or(|before| median(&traced).is_some_and(|now| now < before))
                    {
                        of_program["traced"] = traced;
                    }
                }
            }
        }
    }
    Ok(measured)
}

/// What can be asked for by itself.
pub fn keys() -> impl Iterator<Item = &'static str> {
    WAYS.iter().map(|way| way.key)
}

/// Lines of the table.
pub fn rows(measured: &Value) -> Vec<Row> {
    let mut rows = Vec::new();
    for way in WAYS.iter().filter(|way| measured.get(way.name).is_some()) {
        let of_way = &measured[way.name];
        let mut row = |measure: &str, ours: &str, theirs: &str, goal| {
            rows.push(Row::new(format!("{}, {measure}", way.name), figure(of_way, ours), figure(of_way, theirs), goal));
        };
        let mut both = |measure: &str, path: &str, goal| {
            row(measure, &format!("/ours/{path}"), &format!("/theirs/{path}"), goal);
        };
        both("CPU µs a frame, untraced", "cpu_us_per_frame", Goal::Part(0.5));
        both("CPU µs of the median frame", "traced/cpu_us/p50", Goal::Part(0.5));
        both("user CPU µs of the median frame", "traced/user_us/p50", Goal::None);
        both("system calls a frame", "traced/calls_per_frame", Goal::None);
        for (measure, path) in way.told {
            let goal = if *path == OWN.1 { Goal::Part(0.5) } else { Goal::None };
            both(measure, &format!("traced/{path}"), goal);
        }
        let copied = "bytes_copied_per_frame";
        row("bytes copied a frame", &format!("/ours/{copied}"), &format!("/log/{copied}"), Goal::AtMost(0.0));
    }
    rows
}

/// Lines of the table, of what [`count`] tells.
pub fn count_rows(measured: &Value) -> Vec<Row> {
    let mut rows = Vec::new();
    for way in WAYS.iter().filter(|way| measured.get(way.name).is_some()) {
        let mut both = |measure: &str, path: &str| {
            let [ours, theirs] = ["ours", "theirs"].map(|whose| figure(&measured[way.name][whose], path));
            rows.push(Row::new(format!("{}, {measure}", way.name), ours, theirs, Goal::Part(0.5)));
        };
        both("1000 instructions a frame", "/cpu_us_per_frame");
        if way.told.contains(&OWN) {
            both("1000 instructions a frame but for a device's part", "/traced/own_us/mean");
        }
    }
    rows
}

/// What the table does not show: which did not run, and how the peer's pictures came to the GPU.
pub fn notes(measured: &Value) -> Vec<String> {
    let mut notes = Vec::new();
    for way in &WAYS {
        for part in ["/log", "/ours", "/theirs", "/ours/traced", "/theirs/traced"] {
            if let Some(why) = measured[way.name].pointer(part).and_then(|v| v.get("why")?.as_str()) {
                notes.push(format!("{}, {}: did not run: {why}", way.name, &part[1..]));
            }
        }
        for whose in ["ours", "theirs"].into_iter().filter(|_| way.told.contains(&DRAWN[1])) {
            let told = |path: &str| figure(&measured[way.name][whose], path);
            // Instructions are counted without a look at what is drawn when.
            let latency = told(&format!("/traced/{}", DRAWN[1].1));
            let undrawn = latency.and_then(|_| told("/traced/frames_undrawn")).filter(|frames| *frames > 0.0);
            if let Some(frames) = undrawn {
                notes.push(format!(
                    "{}, {whose}: {frames} frames came before anything of the one before was drawn: its latency may be wrong",
                    way.name
                ));
            }
        }
        if let Some(by) = measured[way.name].pointer("/log/uploaded_by").and_then(Value::as_str) {
            notes.push(format!("{}: glupload uploads by {by}", way.name));
        }
    }
    notes
}
