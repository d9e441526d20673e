//! Lossless codecs on the same frames, on one core, by turns.
//!
//! `codec DATA OUT [WORD...]` measures on the sets in DATA (bench/data/make prints where they are), prints tables, and
//! leaves `codec.json` in OUT. With words, only sets that have all of them in their names.

use std::path::{Path, PathBuf};

use serde_json::json;
use shrbuf_bench::{Result, sets, table};

mod codecs;
mod ffmpeg;
mod filter;
mod goals;
mod lzo;
mod measure;
mod ours;
mod planes;
mod summary;

/// Frames of each set that are measured.
const FRAMES: usize = 4;
/// Frames before them, which a codec may know.
const EARLIER: usize = 4;
/// Times that each codec runs over each set.
const ROUNDS: usize = 3;
/// Seconds after which a codec does not run over the same set again: FFV1 would take most of the time.
const LONG: f64 = 2.0;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (data, out) = arguments.next().zip(arguments.next()).ok_or("usage: codec DATA OUT [WORD...]")?;
    let (data, out) = (PathBuf::from(data), PathBuf::from(out));
    let words: Vec<String> = arguments.collect();
    let mut sets = sets::load(&data)?;
    sets.retain(|set| words.iter().all(|word| set.name().contains(word)));

    let cpu = measure::pin()?;
    eprintln!("codec: {} sets on CPU {cpu}, {ROUNDS} rounds, libavcodec of ffmpeg {}", sets.len(), ffmpeg::version());
    let mut codecs = codecs::all()?;
    codecs.extend(ffmpeg::all());
    codecs.extend(ours::all());
    let mut measured = Vec::new();
    for (n, set) in sets.iter().enumerate() {
        eprintln!("codec: {}/{} {}", n + 1, sets.len(), set.name());
        measured.push(measure::measure(&mut codecs, &data, set)?);
    }
    let order: Vec<&str> = codecs.iter().map(|codec| codec.name()).collect();
    let goals = goals::rows(&measured);
    println!("{}Load average at the end: {}", summary::text(&measured, &order), load());
    print!("{}", table::text(&goals));
    let value = json!({
        "cpu": cpu, "load": load().trim(), "rounds": ROUNDS, "frames": FRAMES, "ffmpeg": ffmpeg::version(),
        "sets": summary::json(&measured), "goals": table::json(&goals),
    });
    write(&out, &value)?;
    let failures: Vec<&String> = measured.iter().flat_map(|of_set| &of_set.failures).collect();
    for failure in &failures {
        eprintln!("codec: FAILED: {failure}");
    }
    if failures.is_empty() { Ok(()) } else { Err(format!("{} failures", failures.len()).into()) }
}

/// How busy the machine is, which says how much speeds can be trusted: only an idle one gives the same twice.
fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default()
}

fn write(folder: &Path, value: &serde_json::Value) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("codec.json");
    Ok(std::fs::write(&path, format!("{value:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?)
}
