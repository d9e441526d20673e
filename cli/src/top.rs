//! `shrbuf top`: who holds a producer's buffers, live.

use std::fs;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;
use shrbuf::ipc::{ConsumerStatus, IpcError, Monitor, Policy, Reason, Status};

use crate::args::TopArgs;
use crate::json;
use crate::outcome::{FAILED, Outcome};
use crate::table::{Align, Paint, Table, count, time};

/// Longest time that a producer may take to answer: one that takes more is stopped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Back to the first column of the first line, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[J";

/// The JSON object.
#[derive(Serialize)]
struct Top {
    pid: u32,
    up_s: f64,
    frames: u64,
    fps: f64,
    /// Frames that came while nobody took any.
    unseen: u64,
    refused: u64,
    buffers: u32,
    consumers: Vec<Consumer>,
}

#[derive(Serialize)]
struct Consumer {
    id: u32,
    name: String,
    pid: u32,
    program: Option<String>,
    uid: u32,
    lag: &'static str,
    started: bool,
    window: u32,
    connected_s: f64,
    fps: f64,
    sent: u64,
    released: u64,
    lagged: u64,
    skipped: u64,
    waiting: u32,
    holds: Vec<Held>,
}

#[derive(Serialize)]
struct Held {
    buffer: usize,
    for_ns: u64,
}

/// Asks once, or again and again.
pub fn top(args: &TopArgs) -> Outcome {
    match watch(args) {
        Ok(outcome) => outcome,
        Err(IpcError::Refused { reason: Reason::Ended, .. }) => Outcome::done("the stream has ended\n"),
        Err(error) => Outcome::failed(FAILED, format!("error: {error}\n")),
    }
}

fn watch(args: &TopArgs) -> Result<Outcome, IpcError> {
    let mut monitor = Monitor::open(&args.socket, PATIENCE)?;
    let mut last = monitor.ask(PATIENCE)?;
    if args.json {
        return Ok(Outcome::done(json::line(&Top::of(&last, None))));
    }
    let terminal = std::io::stdout().is_terminal();
    let mut before = None;
    let mut left = args.times.unwrap_or(u64::MAX);
    loop {
        let text = show(&args.socket.display().to_string(), &Top::of(&last, before.as_ref()), Paint::stdout());
        let text = if terminal { format!("{CLEAR}{text}") } else { text };
        left -= 1;
        let mut out = std::io::stdout().lock();
        // A reader that has gone has what it wanted.
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() || left == 0 {
            return Ok(Outcome::default());
        }
        drop(out);
        std::thread::sleep(args.interval);
        before = Some(last);
        last = monitor.ask(PATIENCE)?;
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Frames a second since `before`, or since the beginning.
fn rate(frames: u64, since: u64, before: Option<(u64, u64)>, now: u64) -> f64 {
    let (frames, since) = before.map_or((frames, since), |(old, then)| (frames.saturating_sub(old), then));
    let time = seconds(now.saturating_sub(since));
    if time > 0.0 { frames as f64 / time } else { 0.0 }
}

impl Top {
    fn of(status: &Status, before: Option<&Status>) -> Top {
        let consumer = |c: &ConsumerStatus| {
            let old = before.and_then(|b| Some((b.consumers.iter().find(|o| o.id == c.id)?.sent, b.now)));
            Consumer::of(c, status.now, old)
        };
        Top {
            pid: status.pid,
            up_s: seconds(status.now.saturating_sub(status.since)),
            frames: status.frames,
            fps: rate(status.frames, status.since, before.map(|b| (b.frames, b.now)), status.now),
            unseen: status.unseen,
            refused: status.refused,
            buffers: status.buffers,
            consumers: status.consumers.iter().map(consumer).collect(),
        }
    }
}

impl Consumer {
    fn of(c: &ConsumerStatus, now: u64, before: Option<(u64, u64)>) -> Consumer {
        let held = c.held_since.iter().enumerate().filter(|(_, since)| **since != 0);
        Consumer {
            id: c.id,
            name: c.name(),
            pid: c.pid,
            program: program(c.pid),
            uid: c.uid,
            lag: match c.policy {
                Policy::Block => "block",
                Policy::DropOldest => "drop-oldest",
                Policy::Latest => "latest",
            },
            started: c.started,
            window: c.window,
            connected_s: seconds(now.saturating_sub(c.since)),
            fps: rate(c.sent, c.since, before, now),
            sent: c.sent,
            released: c.released,
            lagged: c.dropped,
            skipped: c.skipped,
            waiting: c.pending,
            holds: held.map(|(buffer, since)| Held { buffer, for_ns: now.saturating_sub(*since) }).collect(),
        }
    }
}

/// What runs as process `pid`, where that can be seen from here.
fn program(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

fn show(socket: &str, top: &Top, paint: Paint) -> String {
    let mut held: Vec<usize> = top.consumers.iter().flat_map(|c| c.holds.iter().map(|h| h.buffer)).collect();
    held.sort_unstable();
    held.dedup();
    let mut out = format!(
        "{socket}  process {}, {:.1} fps, {} of {} in other processes, {} frames in {:.1} s, {} unseen, {} refused\n\n",
        top.pid,
        top.fps,
        held.len(),
        count(top.buffers as usize, "buffer"),
        top.frames,
        top.up_s,
        top.unseen,
        top.refused
    );
    let mut table = Table::new(&[
        ("consumer", Align::Left),
        ("process", Align::Left),
        ("lag", Align::Left),
        ("fps", Align::Right),
        ("sent", Align::Right),
        ("lagged", Align::Right),
        ("skipped", Align::Right),
        ("waiting", Align::Right),
        ("holds", Align::Right),
        ("buffers, and for how long", Align::Left),
    ]);
    for c in &top.consumers {
        let holds: Vec<String> = c.holds.iter().map(|h| format!("{} {}", h.buffer, time(h.for_ns))).collect();
        table.row([
            if c.started { c.name.clone() } else { format!("{} (not started)", c.name) },
            format!("{} {}", c.pid, c.program.as_deref().unwrap_or_default()).trim_end().to_owned(),
            c.lag.to_owned(),
            format!("{:.1}", c.fps),
            c.sent.to_string(),
            c.lagged.to_string(),
            c.skipped.to_string(),
            c.waiting.to_string(),
            format!("{}/{}", c.holds.len(), c.window),
            holds.join(", "),
        ]);
    }
    out.push_str(&if top.consumers.is_empty() { "  no consumers\n".into() } else { table.show(paint) });
    out
}
