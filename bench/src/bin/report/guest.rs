//! Camera to display, in one boot of the virtual machine.

use std::process::Command;

use serde_json::{Value, json};
use shrbuf_bench::process::{self, Used};
use shrbuf_bench::table::{Goal, Row};
use shrbuf_bench::trace::{self, Watch};
use shrbuf_bench::{Result, least};

use crate::{nodes, peer};

const FRAMES: u64 = 600;
/// Starting up takes as much CPU time here as many frames do, so a run of these is subtracted.
const FEW: u64 = 100;
const ROUNDS: usize = 2;
/// Runs of each that instructions are counted in.
const COUNTED: usize = 5;
/// A refresh of the display, in µs.
const REFRESH: f64 = 1e6 / 60.0;

type Program = fn(u64) -> Result<Command>;

fn ours(frames: u64) -> Result<Command> {
    let mut command = Command::new(crate::ours("camera")?);
    command.arg(frames.to_string());
    Ok(command)
}

fn theirs(frames: u64) -> Result<Command> {
    let caps = "video/x-raw,format=BGRx,width=1280,height=720,framerate=60/1";
    let mut command = peer::gst(&format!(
        "v4l2src io-mode=dmabuf num-buffers={frames} ! {caps} ! kmssink driver-name=vkms force-modesetting=true sync=false"
    ));
    // The list of plug-ins is the host's, as the native runs left it; looking through them all takes a minute here.
    command.env("GST_REGISTRY_UPDATE", "no");
    Ok(command)
}

/// CPU time of a frame, untraced, and what the program used and said.
fn untraced(program: Program) -> Result<Value> {
    let (mut few, mut all): (Vec<Used>, Vec<Used>) = Default::default();
    for _ in 0..ROUNDS {
        few.push(process::run(&mut program(FEW)?)?);
        all.push(process::run(&mut program(FRAMES)?)?);
    }
    // The least of each length first: the least difference would be that of the most disturbed short run.
    let of_few = least(few.iter().map(Used::cpu_us)).ok_or("nothing was run")?;
    all.sort_by(|a, b| a.cpu_us().total_cmp(&b.cpu_us()));
    let used = all.first().ok_or("nothing was run")?;
    let cpu = (used.cpu_us() - of_few) / (FRAMES - FEW) as f64;
    let said = used.output.lines().last().and_then(|l| serde_json::from_str::<Value>(l).ok());
    Ok(json!({ "cpu_us_per_frame": cpu, "used": used.to_json(), "said": said }))
}

fn programs() -> &'static [(&'static str, Program)] {
    if peer::installed() { &[("ours", ours), ("theirs", theirs)] } else { &[("ours", ours)] }
}

fn watch(deeds: bool) -> Result<Watch> {
    // Both take the first.
    Ok(Watch { camera: nodes::find(nodes::CAMERA)?.minor, skip: FEW, beside: None, deeds })
}

/// `{ours: {cpu_us: [mean of a run, ...]}, theirs: as ours}`, a frame, by turns: it hangs on the phase of camera and display.
pub fn count() -> Result<Value> {
    let mut measured = json!({});
    for _ in 0..COUNTED {
        for (whose, program) in programs() {
            let (_, steady) = trace::run(&mut program(FRAMES)?, watch(false)?)?;
            let mean = steady.cpu_us.iter().sum::<f64>() / steady.cpu_us.len() as f64;
            match measured[whose]["cpu_us"].as_array_mut() {
                Some(runs) => runs.push(json!(mean)),
                None => measured[whose] = json!({ "cpu_us": [mean] }),
            }
        }
    }
    Ok(measured)
}

/// Both, one after the other. The traced runs come last, see [`trace::run`].
pub fn measure() -> Result<Value> {
    let mut measured = json!({});
    for (whose, program) in programs() {
        measured[whose] = untraced(*program)?;
    }
    for (whose, program) in programs() {
        let (_, steady) = trace::run(&mut program(FRAMES)?, watch(true)?)?;
        measured[whose]["traced"] = steady.to_json();
    }
    Ok(measured)
}

/// The line of the table for [`count`], the median of its runs.
pub fn count_rows(measured: &Value) -> Vec<Row> {
    let [ours, theirs] = ["ours", "theirs"].map(|whose| {
        let mut runs: Vec<f64> = measured[whose]["cpu_us"].as_array()?.iter().filter_map(Value::as_f64).collect();
        runs.sort_by(f64::total_cmp);
        runs.get(runs.len() / 2).copied()
    });
    vec![Row::new("camera to display, 1000 instructions a frame", ours, theirs, Goal::None)]
}

/// Lines of the table.
pub fn rows(measured: &Value) -> Vec<Row> {
    let row = |measure: &str, path: &str, goal| {
        let get = |whose| crate::figure(&measured[whose], path);
        Row::new(format!("camera to display, {measure}"), get("ours"), get("theirs"), goal)
    };
    let mut rows = vec![
        row("user CPU µs of the median frame", "/traced/user_us/p50", Goal::Part(0.2)),
        row("user CPU µs a frame, mean", "/traced/user_us/mean", Goal::None),
        row("CPU µs of the median frame", "/traced/cpu_us/p50", Goal::None),
        row("CPU µs a frame, mean, untraced", "/cpu_us_per_frame", Goal::None),
        row("system calls a frame", "/traced/calls_per_frame", Goal::AtMost(6.0)),
        row("latency p50 µs, by the trace", "/traced/latency_us/p50", Goal::None),
        row("latency p99 µs, by the trace", "/traced/latency_us/p99", Goal::None),
        row("largest memory KiB", "/used/max_rss_kib", Goal::None),
    ];
    // What only ours can say of itself.
    for (measure, path, goal) in [
        ("latency p50 µs", "/said/latency_us/p50", Goal::None),
        ("latency p99 µs", "/said/latency_us/p99", Goal::AtMost(REFRESH + 1000.0)),
        ("latency max µs", "/said/latency_us/max", Goal::None),
        ("bytes copied", "/said/bytes_copied", Goal::AtMost(0.0)),
        ("frames dropped", "/said/dropped", Goal::None),
    ] {
        rows.push(row(measure, path, goal));
    }
    rows
}
