//! Hops, queue crossings, and how both grow.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use shrbuf_bench::table::{Goal, Row};
use shrbuf_bench::{Result, least, process};

use crate::peer;

/// Times everything is run, ours and theirs by turns; the best of each counts.
const ROUNDS: usize = 3;
const CHAINS: [u64; 4] = [1, 10, 100, 1000];
/// A pool holds 64 buffers at most, of which source and sink have some in hand.
const DEPTHS: [u64; 2] = [2, 60];
const STREAMS: [u64; 4] = [1, 4, 16, 64];
/// Elements of each of several streams.
const ELEMENTS: u64 = 10;

/// What is measured: elements in a stream, depth of its queue (0 for none), and how many such streams.
type Shape = (u64, u64, u64);

fn shapes() -> Vec<Shape> {
    let chains = CHAINS.map(|n| (n, 0, 1));
    let queues = DEPTHS.map(|d| (1, d, 1));
    let streams = STREAMS.map(|s| (ELEMENTS, 0, s));
    let mut all = [chains.as_slice(), queues.as_slice(), streams.as_slice()].concat();
    all.dedup();
    all
}

/// Frames for each stream: enough for some tenths of a second, or the difference drowns in noise.
fn frames((elements, depth, streams): Shape, of_one_hop: u64) -> u64 {
    let steps = (elements + if depth > 0 { 30 } else { 4 }) * streams;
    (of_one_hop / steps).clamp(1000, 2_000_000)
}

fn ours(shape: Shape) -> Result<(f64, f64)> {
    let (elements, depth, streams) = shape;
    let mut command = Command::new(crate::ours("hop")?);
    command.args([elements, depth, streams, frames(shape, 30_000_000)].map(|n| n.to_string()));
    let line: Value = serde_json::from_str(&process::run(&mut command)?.output)?;
    let get = |key: &str| crate::figure(&line, key).ok_or(format!("hop printed no {key}"));
    Ok((get("/cpu_ns_per_frame")?, get("/wall_ns_per_frame")?))
}

fn theirs(shape: Shape) -> Result<(f64, f64)> {
    let (elements, depth, streams) = shape;
    let run = |frames: u64| {
        let mut stream = format!("fakesrc num-buffers={frames} sizetype=fixed filltype=nothing ! ");
        stream += &"identity silent=true ! ".repeat(elements as usize);
        if depth > 0 {
            stream += &format!("queue max-size-buffers={depth} max-size-bytes=0 max-size-time=0 ! ");
        }
        stream += "fakesink ";
        process::run(&mut peer::gst(&stream.repeat(streams as usize)))
    };
    let frames = frames(shape, 3_000_000);
    let (short, long) = (run(frames / 10)?, run(frames)?);
    let all = ((frames - frames / 10) * streams) as f64;
    Ok(((long.cpu_us() - short.cpu_us()) * 1e3 / all, (long.wall_us - short.wall_us) * 1e3 / all))
}

/// Every shape, by turns: a list of `{elements, depth, streams, ours, theirs}`, ns a frame.
pub fn measure() -> Result<Value> {
    let mut of_ours: BTreeMap<Shape, Vec<(f64, f64)>> = BTreeMap::new();
    let mut of_theirs = of_ours.clone();
    let peer = peer::installed();
    for _ in 0..ROUNDS {
        for shape in shapes() {
            of_ours.entry(shape).or_default().push(ours(shape)?);
            if peer {
                match theirs(shape) {
                    Ok(cost) => of_theirs.entry(shape).or_default().push(cost),
                    Err(why) => eprintln!("bench: the peer at {shape:?}: {why}"),
                }
            }
        }
    }
    let best = |runs: Option<&Vec<(f64, f64)>>| {
        runs.map(|r| {
            json!({ "cpu_ns_per_frame": least(r.iter().map(|r| r.0)), "wall_ns_per_frame": least(r.iter().map(|r| r.1)) })
        })
    };
    let line = |shape: &Shape| {
        json!({
            "elements": shape.0, "depth": shape.1, "streams": shape.2,
            "ours": best(of_ours.get(shape)), "theirs": best(of_theirs.get(shape)),
        })
    };
    Ok(of_ours.keys().map(line).collect())
}

fn cost(measured: &Value, shape: Shape, whose: &str, what: &str) -> Option<f64> {
    let is = |line: &&Value| {
        let get = |key: &str| line[key].as_u64();
        (get("elements"), get("depth"), get("streams")) == (Some(shape.0), Some(shape.1), Some(shape.2))
    };
    crate::figure(measured.as_array()?.iter().find(is)?, &format!("/{whose}/{what}"))
}

/// Lines of the table.
pub fn rows(measured: &Value) -> Vec<Row> {
    let cpu = |shape: Shape, whose: &str| cost(measured, shape, whose, "cpu_ns_per_frame");
    let mut rows = Vec::new();
    for window in CHAINS.windows(2) {
        let (few, many) = (window[0], window[1]);
        let slope = |whose| Some((cpu((many, 0, 1), whose)? - cpu((few, 0, 1), whose)?) / (many - few) as f64);
        // The longest chains are there to show growth; the goal is for one that somebody may have.
        let goal = if many == 100 { Goal::Part(0.1) } else { Goal::None };
        rows.push(Row::new(format!("hop, {few} to {many} elements: CPU ns"), slope("ours"), slope("theirs"), goal));
    }
    for depth in DEPTHS {
        let crossing = |whose| Some(cpu((1, depth, 1), whose)? - cpu((1, 0, 1), whose)?);
        rows.push(Row::new(
            format!("queue of {depth}, added to a frame: CPU ns"),
            crossing("ours"),
            crossing("theirs"),
            Goal::Part(0.2),
        ));
        let wall = |whose| cost(measured, (1, depth, 1), whose, "wall_ns_per_frame");
        rows.push(Row::new(
            format!("queue of {depth}, time between frames: ns"),
            wall("ours"),
            wall("theirs"),
            Goal::None,
        ));
    }
    for streams in STREAMS {
        let shape = (ELEMENTS, 0, streams);
        rows.push(Row::new(
            format!("{streams} streams of {ELEMENTS} elements, a frame: CPU ns"),
            cpu(shape, "ours"),
            cpu(shape, "theirs"),
            Goal::None,
        ));
    }
    rows
}
