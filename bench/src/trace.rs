//! What a program does while it runs, by the kernel's own tracing (tracefs): needs no change to the program, and slows
//! it far less than ptrace does, so that a camera's rate is kept.
//!
//! The kernel's accounting of user against system time is no use for programs that a timer wakes: it looks at the
//! running task once in a tick, and these run between ticks. Here both are added up from the switches themselves.

mod drawing;
mod steady;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Result;
use crate::process::{self, Used};

/// What CPU time is told by, and the frames.
const TIME: [&str; 2] = ["sched/sched_switch", DEQUEUED];
/// What else a program does, and what becomes of its frames.
const DEEDS: [&str; 5] = [
    "raw_syscalls/sys_enter",
    "raw_syscalls/sys_exit",
    "v4l2/v4l2_qbuf",
    "drm/drm_vblank_event",
    "drm/drm_vblank_event_delivered",
];
const DEQUEUED: &str = "v4l2/v4l2_dqbuf";
/// For each processor: some 20 s of a busy program.
const BUFFER_KIB: &str = "24576";
/// A program that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);
/// Drivers whose device is the kernel itself: in `device_run`, called by whoever queues a buffer.
const BY_CPU: [&str; 2] = ["vim2m", "vicodec"];

/// Whom to look at, and when.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// Minor number of the camera, whose frames are counted.
    pub camera: u32,
    /// The first of them are left out.
    pub skip: u64,
    /// Another process whose CPU time is added up: a compositor.
    pub beside: Option<u32>,
    /// Whether what it does is told too. Each system call then takes some 1300 instructions more. Where not, only `cpu_us` and
    /// `own_us` tell anything.
    pub deeds: bool,
}

/// What a program did between two frames from the camera that lie far apart.
#[derive(Debug, Clone, Default)]
pub struct Steady {
    /// Frames between the two.
    pub frames: u64,
    /// Time between the two, in seconds.
    pub seconds: f64,
    /// CPU time of each frame in user mode, in µs, in ascending order.
    pub user_us: Vec<f64>,
    /// As `user_us`, in user mode and in the kernel.
    pub cpu_us: Vec<f64>,
    /// As `cpu_us`, without what is done by a device where there is one: the threads of Mesa's renderer for the CPU, and
    /// the work of drivers without hardware.
    pub own_us: Vec<f64>,
    /// CPU time a frame of the process beside, in µs.
    pub beside_us: f64,
    /// System calls a frame.
    pub calls: f64,
    /// System calls a frame, by number.
    pub by_number: BTreeMap<i64, f64>,
    /// From each frame's time stamp to the vertical blank that put it on the screen, in µs, in ascending order.
    pub latencies_us: Vec<f64>,
    /// Where that time went: from the stamp until the camera's driver gave the frame, until it was committed, until it
    /// was on the screen. Each in ascending order.
    pub parts_us: [Vec<f64>; 3],
    /// From each frame's time stamp to the first message after it was dequeued, in µs, in ascending order: to a compositor.
    pub sent_us: Vec<f64>,
    /// From each frame's time stamp until a memory-to-memory device's result was dequeued, in µs, in ascending order.
    pub made_us: Vec<f64>,
    /// From each frame's time stamp until threads of Mesa's renderer for the CPU had drawn what was made of it, in µs, in
    /// ascending order. One that they are still drawing when the next is dequeued counts as drawn together with that.
    pub drawn_us: Vec<f64>,
    /// Frames since the program's first of which they had drawn nothing, nor begun to, when the next was dequeued. If there
    /// are any, what `drawn_us` tells may be of the frame before.
    pub undrawn: u64,
}

/// The value that `per_cent` of 100 do not exceed, of values in ascending order.
fn quantile(sorted: &[f64], per_cent: usize) -> Option<f64> {
    sorted.get((sorted.len() * per_cent).div_ceil(100).max(1) - 1).copied()
}

impl Steady {
    /// For the JSON files. The median frame's CPU time is what counts: the virtual machine's processors lose theirs to
    /// others of the host, in the midst of some frames, and the guest cannot tell.
    pub fn to_json(&self) -> Value {
        let by_number: serde_json::Map<_, _> = self.by_number.iter().map(|(n, c)| (n.to_string(), json!(c))).collect();
        let spread = |sorted: &[f64]| {
            json!({
                "p50": quantile(sorted, 50), "p99": quantile(sorted, 99), "max": sorted.last(),
                "mean": sorted.iter().sum::<f64>() / sorted.len() as f64,
            })
        };
        json!({
            "frames": self.frames, "seconds": self.seconds, "user_us": spread(&self.user_us),
            "cpu_us": spread(&self.cpu_us), "own_us": spread(&self.own_us), "beside_us_per_frame": self.beside_us,
            "calls_per_frame": self.calls, "calls_per_frame_by_number": by_number,
            "latency_us": spread(&self.latencies_us),
            "stamp_to_dequeue_us": spread(&self.parts_us[0]),
            "dequeue_to_commit_us": spread(&self.parts_us[1]),
            "commit_to_screen_us": spread(&self.parts_us[2]),
            "stamp_to_sent_us": spread(&self.sent_us),
            "stamp_to_made_us": spread(&self.made_us),
            "stamp_to_drawn_us": spread(&self.drawn_us), "frames_undrawn": self.undrawn,
        })
    }
}

/// Runs a program that takes frames from a camera, traced.
/// What runs after it is slower, as the kernel goes on looking whether to trace.
///
/// # Errors
/// No tracing here, or the program fails.
pub fn run(command: &mut Command, watch: Watch) -> Result<(Used, Steady)> {
    let tracing = Tracing::start(watch)?;
    let used = process::run_within(command, LIMIT);
    let text = tracing.stop()?;
    let used = used?;
    let steady = steady::read(&text, used.pid, watch).ok_or("the trace shows no frames")?;
    Ok((used, steady))
}

struct Tracing(PathBuf);

impl Tracing {
    fn start(watch: Watch) -> Result<Tracing> {
        let root = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"].map(Path::new);
        let root = root.into_iter().find(|p| p.join("trace").exists()).ok_or("tracefs is not mounted")?;
        let tracing = Tracing(root.to_owned());
        tracing.set("tracing_on", "0")?;
        tracing.set("trace", "")?;
        // The one clock of V4L2's and KMS's time stamps.
        tracing.set("trace_clock", "mono")?;
        tracing.set("options/record-tgid", "1")?;
        tracing.set("buffer_size_kb", BUFFER_KIB)?;
        if !watch.deeds {
            tracing.set(&format!("events/{DEQUEUED}/filter"), &format!("minor == {}", watch.camera))?;
        }
        let deeds: &[&str] = if watch.deeds { &DEEDS } else { &[] };
        for event in TIME.iter().chain(deeds) {
            tracing.set(&format!("events/{event}/enable"), "1")?;
        }
        for module in BY_CPU.into_iter().filter(|m| Path::new("/sys/module").join(m).exists()) {
            tracing.probe(module)?;
        }
        tracing.set("tracing_on", "1")?;
        Ok(tracing)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.0.join(file), value).map_err(|e| format!("{file} of tracefs: {e}").into())
    }

    /// Events `device_in` and `device_out` around a driver's `device_run`.
    fn probe(&self, module: &str) -> Result<()> {
        if !self.0.join("events").join(module).exists() {
            let probes = self.0.join("kprobe_events");
            let mut file = OpenOptions::new().append(true).open(&probes).map_err(|e| format!("{probes:?}: {e}"))?;
            for (kind, side) in [("p", "in"), ("r", "out")] {
                file.write_all(format!("{kind}:{module}/device_{side} {module}:device_run\n").as_bytes())
                    .map_err(|e| format!("a probe of {module}: {e}"))?;
            }
        }
        self.set(&format!("events/{module}/enable"), "1")
    }

    /// Leaves the events enabled, and so whatever is run later a little slower. The kernel enables and disables them by
    /// patching its code, and an emulated processor was seen to fall over that (QEMU 7.2, an int3 after its handler had
    /// gone): so it is done once, before anything runs.
    fn stop(self) -> Result<String> {
        self.set("tracing_on", "0")?;
        Ok(fs::read_to_string(self.0.join("trace"))?)
    }
}
