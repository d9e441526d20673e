//! `camera FRAMES`: a camera at 1280x720 and 60 fps on a display, and what it took.

use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::json;
use shrbuf::Format;
use shrbuf_bench::Result;
use shrbuf_elements::kms::{KmsSink, Order};
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::supervise::{Progress, RunOptions, Verdict, run};
use shrbuf_pipeline::{Build, Graph, Rate, Size};

const RATE: u32 = 60;
/// After this, everything has been touched once.
const WARM_UP: Duration = Duration::from_secs(1);

fn shown(graph: &Graph) -> u64 {
    graph.counts().iter().find(|c| c.name == "display").map_or(0, |c| c.counts.frames)
}

fn main() -> Result<()> {
    let frames: u64 = std::env::args().nth(1).ok_or("usage: camera FRAMES")?.parse()?;
    // vivid's default time stamp, of the end of the exposure, lies in the future.
    let exposure = ("timestamp_source".to_owned(), Value::String("Start of Exposure".into()));
    let camera = V4l2Src {
        format: Some(Format::Xr24),
        size: Some(Size::new(1280, 720)),
        rate: Some(Rate::new(RATE, 1)),
        controls: [exposure].into(),
        ..V4l2Src::default()
    };
    let mut graph = Graph::new("camera");
    let camera = graph.add("camera", camera.build()?)?;
    let display = graph.add("display", KmsSink { order: Order::Latest, ..KmsSink::default() }.build()?)?;
    graph.link(camera, display)?;

    // From warm to half a second before the end; looked at twice only, as looking costs too.
    let end = Duration::from_secs_f64(frames as f64 / f64::from(RATE)).saturating_sub(Duration::from_millis(500));
    let mut looked: Vec<(u64, Usage)> = Vec::with_capacity(2);
    // Nobody looks at the progress.
    let tick = Duration::from_secs(1);
    let options = RunOptions { frames: Some(frames), tick, ..RunOptions::default() };
    let report = run(graph, &options, |progress| {
        if let Progress::Running(graph, since) = progress
            && since >= [WARM_UP, end.max(WARM_UP), Duration::MAX][looked.len()]
            && let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF)
        {
            looked.push((shown(graph), usage));
        }
        Verdict::Continue
    });
    if let Some(error) = report.error {
        return Err(error.into());
    }
    let steady = match looked.as_slice() {
        [(a, before), (b, after)] if b > a => {
            let each = |value: i64| value as f64 / (b - a) as f64;
            json!({
                "frames": b - a,
                "user_us_per_frame": each((after.user_time() - before.user_time()).num_microseconds()),
                "system_us_per_frame": each((after.system_time() - before.system_time()).num_microseconds()),
                "voluntary_switches_per_frame":
                    each(after.voluntary_context_switches() - before.voluntary_context_switches()),
            })
        }
        _ => json!(null),
    };
    let counts = report.graph.counts();
    let of = |name: &str| counts.iter().find(|c| c.name == name).map(|c| c.counts).unwrap_or_default();
    let latency = of("display").latency.map(|l| {
        let us = |ns: u64| ns as f64 / 1e3;
        json!({ "p50": us(l.p50), "p99": us(l.p99), "max": us(l.max) })
    });
    let line = json!({
        "frames": of("display").frames,
        "dropped": of("camera").dropped + of("display").dropped,
        "seconds": report.duration.as_secs_f64(),
        "steady": steady,
        "latency_us": latency,
        "max_rss_kib": getrusage(UsageWho::RUSAGE_SELF)?.max_rss(),
        "bytes_copied": report.graph.ledger().copied(),
    });
    println!("{line}");
    Ok(())
}
