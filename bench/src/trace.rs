//! What a program does while it runs, by the kernel's own tracing (tracefs): needs no change to the program, and slows
//! it far less than ptrace does, so that a camera's rate is kept.
//!
//! The kernel's accounting of user against system time is no use for programs that a timer wakes: it looks at the
//! running task once in a tick, and these run between ticks. Here both are added up from the switches themselves.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::Result;
use crate::process::{self, Used};

const EVENTS: [&str; 6] = [
    "raw_syscalls/sys_enter",
    "raw_syscalls/sys_exit",
    "sched/sched_switch",
    "v4l2/v4l2_dqbuf",
    "drm/drm_vblank_event",
    "drm/drm_vblank_event_delivered",
];
/// For each processor: some 20 s of a busy program.
const BUFFER_KIB: &str = "24576";
/// `__NR_ioctl` of x86-64.
const IOCTL: i64 = 16;
/// Type and number of `DRM_IOCTL_MODE_PAGE_FLIP` and `_ATOMIC`; each ends in an event at a vertical blank.
const SHOWS: [u64; 2] = [0x64b0, 0x64bc];

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
    /// System calls a frame.
    pub calls: f64,
    /// System calls a frame, by number.
    pub by_number: BTreeMap<i64, f64>,
    /// From each frame's time stamp to the vertical blank that put it on the screen, in µs, in ascending order.
    pub latencies_us: Vec<f64>,
    /// Where that time went: from the stamp until the camera's driver gave the frame, until it was committed, until it
    /// was on the screen. Each in ascending order.
    pub parts_us: [Vec<f64>; 3],
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
            "cpu_us": spread(&self.cpu_us), "calls_per_frame": self.calls, "calls_per_frame_by_number": by_number,
            "latency_us": spread(&self.latencies_us),
            "stamp_to_dequeue_us": spread(&self.parts_us[0]),
            "dequeue_to_commit_us": spread(&self.parts_us[1]),
            "commit_to_screen_us": spread(&self.parts_us[2]),
        })
    }
}

/// Runs a program that takes frames from a camera, traced; leaves out the first `skip` frames.
/// What runs after it is slower, as the kernel goes on looking whether to trace.
///
/// # Errors
/// No tracing here, or the program fails.
pub fn run(command: &mut Command, skip: u64) -> Result<(Used, Steady)> {
    let tracing = Tracing::start()?;
    let used = process::run(command);
    let text = tracing.stop()?;
    let used = used?;
    let steady = steady(&text, used.pid, skip).ok_or("the trace shows no frames")?;
    Ok((used, steady))
}

struct Tracing(PathBuf);

impl Tracing {
    fn start() -> Result<Tracing> {
        let root = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"].map(Path::new);
        let root = root.into_iter().find(|p| p.join("trace").exists()).ok_or("tracefs is not mounted")?;
        let tracing = Tracing(root.to_owned());
        tracing.set("tracing_on", "0")?;
        tracing.set("trace", "")?;
        // The one clock of V4L2's and KMS's time stamps.
        tracing.set("trace_clock", "mono")?;
        tracing.set("options/record-tgid", "1")?;
        tracing.set("buffer_size_kb", BUFFER_KIB)?;
        for event in EVENTS {
            tracing.set(&format!("events/{event}/enable"), "1")?;
        }
        tracing.set("tracing_on", "1")?;
        Ok(tracing)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.0.join(file), value).map_err(|e| format!("{file} of tracefs: {e}").into())
    }

    /// Leaves the events enabled, and so whatever is run later a little slower. The kernel enables and disables them by
    /// patching its code, and an emulated processor was seen to fall over that (QEMU 7.2, an int3 after its handler had
    /// gone): so it is done once, before anything runs.
    fn stop(self) -> Result<String> {
        self.set("tracing_on", "0")?;
        Ok(fs::read_to_string(self.0.join("trace"))?)
    }
}

#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    thread: u32,
    /// Unknown for the idle task.
    process: Option<u32>,
    /// In µs.
    time: f64,
    event: &'a str,
    text: &'a str,
}

/// `comm-TID (TGID) [CPU] flags TIME: EVENT: TEXT`
fn parse(line: &str) -> Option<Line<'_>> {
    let (task, rest) = line.split_once(" (")?;
    let (process, rest) = rest.split_once(')')?;
    let (at, rest) = rest.split_once(": ")?;
    let (event, text) = rest.split_once(": ")?;
    Some(Line {
        thread: task.trim().rsplit_once('-')?.1.trim().parse().ok()?,
        process: process.trim().parse().ok(),
        time: at.rsplit(' ').next()?.parse::<f64>().ok()? * 1e6,
        event,
        text,
    })
}

/// The number behind `key`.
fn field<T: std::str::FromStr>(text: &str, key: &str) -> Option<T> {
    let rest = text.split_once(key)?.1.trim_start();
    rest.split([' ', ',', ')']).next()?.parse().ok()
}

#[derive(Default)]
struct Thread {
    process: Option<u32>,
    in_call: bool,
    user_since: Option<f64>,
    running_since: Option<f64>,
    user: f64,
    cpu: f64,
    calls: BTreeMap<i64, u64>,
}

/// A frame's times, in µs.
#[derive(Debug, Clone, Copy)]
struct Way {
    stamp: f64,
    dequeued: f64,
    committed: f64,
}

/// Frames from the camera to the screen. What is committed is the newest that was dequeued: so it is for a program that
/// shows each frame before it takes the next, and for one that shows the latest. One flip at a time is under way.
#[derive(Default)]
struct Screen {
    newest: Option<Way>,
    committed: Option<Way>,
    /// Its event has been sent, within the vertical blank whose time the trace tells next.
    delivered: Option<Way>,
}

impl Thread {
    fn leave_user(&mut self, now: f64) {
        self.user += self.user_since.take().map_or(0.0, |since| now - since);
    }

    fn switch_in(&mut self, now: f64) {
        self.running_since = Some(now);
        self.user_since = (!self.in_call).then_some(now);
    }

    fn switch_out(&mut self, now: f64) {
        self.leave_user(now);
        self.cpu += self.running_since.take().map_or(0.0, |since| now - since);
    }

    /// Brings the sums up to now.
    fn settle(&mut self, now: f64) {
        if self.running_since.is_some() {
            self.switch_out(now);
            self.switch_in(now);
        }
    }
}

fn steady(trace: &str, pid: u32, skip: u64) -> Option<Steady> {
    let lines: Vec<Line<'_>> = trace.lines().filter(|l| !l.starts_with('#')).filter_map(parse).collect();
    let dequeued = |l: &&Line<'_>| l.event == "v4l2_dqbuf" && l.process == Some(pid);
    let times: Vec<f64> = lines.iter().filter(dequeued).map(|l| l.time).collect();
    let (begin, end) = (*times.get(skip as usize)?, *times.last()?);
    let frames = times.len() as u64 - 1 - skip;

    let mut threads: HashMap<u32, Thread> = HashMap::new();
    let mut begun = false;
    let mut screen = Screen::default();
    let mut steady = Steady { frames, seconds: (end - begin) / 1e6, ..Steady::default() };
    for line in lines.iter().take_while(|l| l.time <= end) {
        let now = line.time;
        if line.event == "v4l2_dqbuf" && line.process == Some(pid) {
            let (mut user, mut cpu) = (0.0, 0.0);
            for t in threads.values_mut().filter(|t| t.process == Some(pid)) {
                t.settle(now);
                user += std::mem::take(&mut t.user);
                cpu += std::mem::take(&mut t.cpu);
            }
            if begun {
                steady.user_us.push(user);
                steady.cpu_us.push(cpu);
            } else if now >= begin {
                begun = true;
                threads.values_mut().for_each(|t| t.calls.clear());
            }
        }
        let thread = threads.entry(line.thread).or_default();
        thread.process = line.process.or(thread.process);
        match line.event {
            "sys_enter" => {
                thread.leave_user(now);
                thread.in_call = true;
                let number = field(line.text, "NR ").unwrap_or(-1);
                *thread.calls.entry(number).or_default() += 1;
                let request = line.text.split([',', '(']).nth(2).and_then(|r| u64::from_str_radix(r.trim(), 16).ok());
                let shows = number == IOCTL && request.is_some_and(|r| SHOWS.contains(&(r & 0xffff)));
                if shows && line.process == Some(pid) {
                    screen.committed = screen.newest.take().map(|way| Way { committed: now, ..way });
                }
            }
            "sys_exit" => {
                thread.in_call = false;
                thread.user_since = Some(now);
            }
            "sched_switch" => {
                thread.switch_out(now);
                if let Some(next) = field::<u32>(line.text, "next_pid=") {
                    threads.entry(next).or_default().switch_in(now);
                }
            }
            "v4l2_dqbuf" => {
                let stamp = field::<f64>(line.text, "timestamp = ").map(|ns| ns / 1e3);
                screen.newest = stamp.map(|stamp| Way { stamp, dequeued: now, committed: now });
            }
            "drm_vblank_event_delivered" => screen.delivered = screen.committed.take(),
            "drm_vblank_event" => {
                if let (Some(way), Some(ns)) = (screen.delivered.take(), field::<f64>(line.text, "time="))
                    && begun
                {
                    let shown = ns / 1e3;
                    steady.latencies_us.push(shown - way.stamp);
                    let parts = [way.dequeued - way.stamp, way.committed - way.dequeued, shown - way.committed];
                    steady.parts_us.iter_mut().zip(parts).for_each(|(all, part)| all.push(part));
                }
            }
            _ => {}
        }
    }
    for t in threads.values().filter(|t| t.process == Some(pid)) {
        for (number, calls) in &t.calls {
            let each = *calls as f64 / frames as f64;
            steady.calls += each;
            *steady.by_number.entry(*number).or_default() += each;
        }
    }
    steady.user_us.sort_by(f64::total_cmp);
    steady.cpu_us.sort_by(f64::total_cmp);
    steady.latencies_us.sort_by(f64::total_cmp);
    steady.parts_us.iter_mut().for_each(|part| part.sort_by(f64::total_cmp));
    Some(steady)
}
