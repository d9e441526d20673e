//! Frames into another process, ours by `crossing`, theirs by `shmsink ! shmsrc` and by iceoryx2, at 60 a second: by time,
//! and by instructions.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use shrbuf_bench::process::{self, Used};
use shrbuf_bench::table::{Goal, Row};
use shrbuf_bench::{Result, least};

use crate::peer;

/// Times everything is run, ours and theirs by turns; the best of each counts.
const ROUNDS: usize = 3;
const SIZES: [(u32, u32); 3] = [(640, 360), (1920, 1080), (3840, 2160)];
/// Copies of a picture, of which the mean counts.
const COPIES: u32 = 8;
/// Longest time until a producer listens.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a producer and its consumer used, the latter's output last.
fn pair(socket: &Path, mut producer: Command, mut consumer: Command) -> Result<(Used, Used)> {
    let _ = std::fs::remove_file(socket);
    // shmsink of 1.22 ends every stream with an error of its own poll; what it did before is what counts.
    let running = std::thread::spawn(move || process::run_anyhow(&mut producer).map_err(|e| e.to_string()));
    let begin = Instant::now();
    while !socket.exists() && !running.is_finished() && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    // Theirs is there a little before it listens.
    std::thread::sleep(Duration::from_millis(100));
    let consumed = process::run(&mut consumer)?;
    let (produced, _) = running.join().map_err(|_| "the producer's thread panicked")??;
    Ok((produced, consumed))
}

fn socket() -> PathBuf {
    std::env::temp_dir().join(format!("shrbuf-bench-{}", std::process::id()))
}

/// CPU µs of both processes, and what the consumer said.
fn ours((width, height): (u32, u32), frames: u64) -> Result<(f64, Value)> {
    let socket = socket();
    let program = crate::ours("crossing")?;
    let mut send = Command::new(&program);
    send.arg("send").arg(&socket).args([width.to_string(), height.to_string(), frames.to_string()]);
    let mut receive = Command::new(&program);
    // The last frames may be on their way as the producer ends, which ends the consumer well.
    receive.arg("receive").arg(&socket).arg(frames.to_string());
    let (produced, consumed) = pair(&socket, send, receive)?;
    Ok((produced.cpu_us() + consumed.cpu_us(), serde_json::from_str(&consumed.output)?))
}

/// As `ours`, of `shmsink ! shmsrc`.
fn theirs((width, height): (u32, u32), frames: u64) -> Result<(f64, Value)> {
    let socket = socket();
    let bytes = u64::from(width) * u64::from(height) * 3 / 2;
    // For two seconds more than are taken: the consumer that has all it wants ends well, one whose producer has gone does
    // not. It cannot wait for its consumer, or it would wait for another one at the end.
    let made = frames + 120;
    let program = crate::ours("shm")?;
    let mut send = Command::new(&program);
    send.arg("send").arg(&socket).args([bytes.to_string(), made.to_string()]);
    let mut receive = Command::new(&program);
    receive.arg("receive").arg(&socket).arg(frames.to_string());
    let (produced, consumed) = pair(&socket, send, receive)?;
    Ok((produced.cpu_us() + consumed.cpu_us(), serde_json::from_str(&consumed.output)?))
}

/// As `ours`, of iceoryx2.
fn iceoryx((width, height): (u32, u32), frames: u64) -> Result<(f64, Value)> {
    let bytes = width * height * 3 / 2;
    let program = crate::ours("iceoryx")?;
    let service = format!("shrbuf-bench-{}-{bytes}-{frames}", std::process::id());
    let mut send = Command::new(&program);
    send.args(["send", &service, &bytes.to_string(), &frames.to_string()]);
    let mut receive = Command::new(&program);
    receive.args(["receive", &service, &frames.to_string()]);
    let sending = std::thread::spawn(move || process::run(&mut send).map_err(|e| e.to_string()));
    let received = process::run(&mut receive)?;
    let sent = sending.join().map_err(|_| "the producer's thread panicked")??;
    Ok((sent.cpu_us() + received.cpu_us(), serde_json::from_str(&received.output)?))
}

/// As `ours`, of two processes with nothing but eventfds between them.
fn eventfds(how: &str, frames: u64) -> Result<(f64, Value)> {
    let mut command = Command::new(crate::ours("crossing")?);
    command.arg(how).arg(frames.to_string());
    // It waits for the other process, whose time is in its own then.
    let used = process::run(&mut command)?;
    Ok((used.cpu_us(), serde_json::from_str(&used.output)?))
}

/// Runs that a frame's cost is the difference of: short ones and long ones of so many frames, by turns, of which the least count.
struct Runs {
    each: usize,
    short: u64,
    long: u64,
}

/// Once, as [`ROUNDS`] are many.
const TIMED: Runs = Runs { each: 1, short: 60, long: 300 };
/// The first run of a program brings it in from the host, which is its kernel's work; and of shmsink's runs one had a tenth more
/// at 4K while the host was busy.
const COUNTED: Runs = Runs { each: 2, short: 30, long: 240 };

/// CPU µs of a frame, and what the consumer of the last long run said.
fn a_frame(runs: Runs, run: impl Fn(u64) -> Result<(f64, Value)>) -> Result<(f64, Value)> {
    let (mut short, mut long) = (f64::INFINITY, f64::INFINITY);
    let mut said = Value::Null;
    for _ in 0..runs.each {
        short = short.min(run(runs.short)?.0);
        let (cpu, says) = run(runs.long)?;
        (long, said) = (long.min(cpu), says);
    }
    Ok(((long - short) / (runs.long - runs.short) as f64, said))
}

/// CPU µs of copying a picture whose memory is there.
fn copy((width, height): (u32, u32)) -> Result<f64> {
    let picture = vec![1_u8; width as usize * height as usize * 3 / 2];
    let mut other = vec![2_u8; picture.len()];
    let now = || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    let begin = now()?;
    for _ in 0..COPIES {
        black_box(&mut other).copy_from_slice(black_box(&picture));
    }
    Ok(Duration::from(now()? - begin).as_secs_f64() * 1e6 / f64::from(COPIES))
}

/// As [`measure`] where CPU time counts instructions, without latency, and with what copying a picture takes there. Not of
/// iceoryx2, whose start takes what 800 frames do, and varies by as much as 100 do.
pub fn count() -> Result<Value> {
    let peer = peer::installed();
    // One that fails leaves the others.
    let cost = |whose: &str, run: &dyn Fn(u64) -> Result<(f64, Value)>| {
        a_frame(COUNTED, run).map_err(|why| eprintln!("bench: {whose}: {why}")).ok().map(|(cpu, _)| cpu)
    };
    let bare = cost("a tick and an eventfd", &|frames| eventfds("bare", frames));
    let mut sizes = Vec::new();
    for size in SIZES {
        eprintln!("NV12 {}x{} into another process", size.0, size.1);
        sizes.push(json!({
            "width": size.0, "height": size.1, "copy_us": copy(size)?,
            "ours": { "cpu_us": cost("ours", &|frames| ours(size, frames)) },
            "theirs": { "cpu_us": if peer { cost("the peer", &|frames| theirs(size, frames)) } else { None } },
        }));
    }
    Ok(json!({ "floor": { "bare_cpu_us": bare }, "sizes": sizes }))
}

/// `{floor: {p50_ns, p99_ns, bare_cpu_us}, sizes: [{width, height, ours: {cpu_us, p50_ns, p99_ns}, theirs: as ours, iceoryx2: as ours}]}`, a frame.
pub fn measure() -> Result<Value> {
    let peer = peer::installed();
    let mut floors = Vec::new();
    let mut bare = Vec::new();
    let mut of_ours = vec![Vec::new(); SIZES.len()];
    let mut of_theirs = vec![Vec::new(); SIZES.len()];
    let mut of_iceoryx = vec![Vec::new(); SIZES.len()];
    for _ in 0..ROUNDS {
        floors.push(eventfds("floor", TIMED.long)?.1);
        bare.push(a_frame(TIMED, |frames| eventfds("bare", frames))?.0);
        for (i, &size) in SIZES.iter().enumerate() {
            of_ours[i].push(a_frame(TIMED, |frames| ours(size, frames))?);
            match a_frame(TIMED, |frames| iceoryx(size, frames)) {
                Ok(frame) => of_iceoryx[i].push(frame),
                Err(why) => eprintln!("bench: iceoryx2 at {size:?}: {why}"),
            }
            if peer {
                match a_frame(TIMED, |frames| theirs(size, frames)) {
                    Ok(frame) => of_theirs[i].push(frame),
                    Err(why) => eprintln!("bench: the peer at {size:?}: {why}"),
                }
            }
        }
    }
    let best = |said: &mut dyn Iterator<Item = &Value>, what: &str| least(said.filter_map(|v| crate::figure(v, what)));
    let sizes = SIZES.iter().enumerate().map(|(i, (width, height))| {
        let of = |runs: &[(f64, Value)]| {
            let latency = |what| best(&mut runs.iter().map(|(_, said)| said), what);
            let cpu_us = least(runs.iter().map(|(cpu, _)| *cpu));
            json!({ "cpu_us": cpu_us, "p50_ns": latency("/p50_ns"), "p99_ns": latency("/p99_ns") })
        };
        json!({
            "width": width, "height": height,
            "ours": of(&of_ours[i]),
            "iceoryx2": of(&of_iceoryx[i]),
            "theirs": of(&of_theirs[i]),
        })
    });
    let sizes: Vec<Value> = sizes.collect();
    let [p50, p99] = ["/p50_ns", "/p99_ns"].map(|part| best(&mut floors.iter(), part));
    let floor = json!({ "p50_ns": p50, "p99_ns": p99, "bare_cpu_us": least(bare) });
    Ok(json!({ "floor": floor, "sizes": sizes }))
}

/// What is sent at a size.
fn of(size: &Value) -> String {
    format!("NV12 {}x{} into another process", size["width"], size["height"])
}

/// What a frame of a size takes, beside GStreamer's and the least that it can take.
fn costs(measured: &Value, size: &Value, unit: &str) -> Vec<Row> {
    let ours = crate::figure(size, "/ours/cpu_us");
    let goal = if size["height"] == 1080 { Goal::Part(0.1) } else { Goal::None };
    let row = |peer: &str, theirs, goal| Row::new(format!("{}: {unit} ({peer})", of(size)), ours, theirs, goal);
    vec![
        row("shmsink ! shmsrc", crate::figure(size, "/theirs/cpu_us"), goal),
        row("a tick and an eventfd", crate::figure(measured, "/floor/bare_cpu_us"), Goal::None),
    ]
}

/// How a frame's cost grows with its size.
fn growth(measured: &Value, unit: &str) -> Row {
    let cost = |i: usize| crate::figure(measured, &format!("/sizes/{i}/ours/cpu_us"));
    let grown = cost(2).zip(cost(0)).map(|(large, small)| large / small);
    Row::new(format!("4K beside 640x360: {unit}, times"), grown, None, Goal::None)
}

/// Lines of the table, of what [`count`] tells.
pub fn count_rows(measured: &Value) -> Vec<Row> {
    let mut rows = Vec::new();
    for size in measured["sizes"].as_array().into_iter().flatten() {
        rows.extend(costs(measured, size, "1000 instructions a frame"));
        let [ours, theirs, copy] = ["/ours/cpu_us", "/theirs/cpu_us", "/copy_us"].map(|what| crate::figure(size, what));
        let rest = theirs.zip(copy).map(|(theirs, copy)| theirs - copy);
        let what = format!("{}: 1000 instructions a frame (shmsink ! shmsrc but for its copy)", of(size));
        rows.push(Row::new(what, ours, rest, Goal::None));
    }
    rows.push(growth(measured, "instructions"));
    rows
}

/// Lines of the table.
pub fn rows(measured: &Value) -> Vec<Row> {
    let us = |value: &Value, what: &str| crate::figure(value, what).map(|ns| ns / 1e3);
    let mut rows = Vec::new();
    for size in measured["sizes"].as_array().into_iter().flatten() {
        let of = of(size);
        rows.extend(costs(measured, size, "CPU µs"));
        let [ours, theirs] = ["ours", "iceoryx2"].map(|side| crate::figure(size, &format!("/{side}/cpu_us")));
        rows.push(Row::new(format!("{of}: CPU µs (iceoryx2)"), ours, theirs, Goal::None));
        for (whose, name) in [("theirs", "shmsink ! shmsrc"), ("iceoryx2", "iceoryx2")] {
            for part in ["p50", "p99"] {
                let [ours, theirs] = ["ours", whose].map(|side| us(size, &format!("/{side}/{part}_ns")));
                rows.push(Row::new(format!("{of}: latency {part} µs ({name})"), ours, theirs, Goal::None));
            }
        }
        let floor = us(measured, "/floor/p50_ns");
        let goal = floor.map_or(Goal::None, |floor| Goal::AtMost(2.0 * floor));
        rows.push(Row::new(format!("{of}: latency p50 µs (eventfd)"), us(size, "/ours/p50_ns"), floor, goal));
        let floor = us(measured, "/floor/p99_ns");
        rows.push(Row::new(format!("{of}: latency p99 µs (eventfd)"), us(size, "/ours/p99_ns"), floor, Goal::None));
    }
    rows.push(growth(measured, "CPU"));
    rows
}
