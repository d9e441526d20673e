//! Graphs, ours beside GStreamer's: natively, between processes, and in the virtual machine on vivid and vkms; by time, and,
//! in the virtual machine, by instructions.
//!
//! `report DIR PART...` runs those parts and writes JSON into DIR; `report --in-guest PART` is what it runs in the virtual
//! machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use shrbuf_bench::{Result, table};

mod crossing;
mod guest;
mod native;
mod nodes;
mod paths;
mod peer;
mod weston;

/// Options of the virtual machine where CPU time counts instructions. It has one processor, for which Mesa's renderer would do
/// without threads of its own, by which its work is told from the rest.
const COUNT: [&str; 3] = ["--icount", "--env", "LP_NUM_THREADS=1"];

/// A program of this package.
fn ours(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

/// A figure in JSON, by its path.
fn figure(value: &Value, path: &str) -> Option<f64> {
    value.pointer(path)?.as_f64()
}

fn write(folder: &Path, name: &str, value: &Value) -> Result<()> {
    let path = folder.join(name);
    Ok(fs::write(&path, format!("{value:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (folder, parts) = match &*parts {
        ["--in-guest", "guest"] => {
            println!("{}", guest::measure()?);
            return Ok(());
        }
        ["--in-guest", "count"] => {
            let counted = json!({
                "camera to display": guest::count()?, "ways": paths::count()?, "crossing": crossing::count()?,
            });
            println!("{counted}");
            return Ok(());
        }
        ["--in-guest", part] => {
            println!("{}", paths::measure(way_of(part))?);
            return Ok(());
        }
        [folder, parts @ ..] => (PathBuf::from(folder), parts),
        [] => return Err("usage: report DIR [native] [ipc] [guest] [paths | paths/WAY] [count]".into()),
    };
    let paths = parts.iter().find(|part| **part == "paths" || way_of(part).is_some());
    if let Some(way) = paths.and_then(|part| way_of(part)).filter(|way| !paths::keys().any(|key| key == *way)) {
        let keys: Vec<&str> = paths::keys().collect();
        return Err(format!("paths/{way} is none of paths/{}", keys.join(", paths/")).into());
    }
    fs::create_dir_all(&folder)?;
    if !peer::installed() {
        eprintln!("bench: gst-launch-1.0 is not installed; ours alone (scripts/setup bench installs the peer)");
    }
    let mut rows = Vec::new();
    let mut notes = Vec::new();
    if parts.contains(&"native") {
        eprintln!("bench: hops and queues, natively");
        let native = native::measure()?;
        write(&folder, "native.json", &native)?;
        rows.extend(native::rows(&native));
    }
    if parts.contains(&"ipc") {
        eprintln!("bench: frames into another process");
        let ipc = crossing::measure()?;
        write(&folder, "ipc.json", &ipc)?;
        rows.extend(crossing::rows(&ipc));
    }
    if parts.contains(&"guest") {
        eprintln!("bench: camera to display, in the virtual machine");
        match in_guest("guest", &[]) {
            Ok(guest) => {
                write(&folder, "camera.json", &guest)?;
                rows.extend(guest::rows(&guest));
            }
            Err(why) => eprintln!("bench: nothing of the virtual machine: {why}"),
        }
    }
    if let Some(part) = paths {
        eprintln!("bench: GPU, window, converter and encoder, in the virtual machine");
        match in_guest(part, &paths::GUEST) {
            Ok(paths) => {
                write(&folder, "paths.json", &paths)?;
                rows.extend(paths::rows(&paths));
                notes.extend(paths::notes(&paths));
            }
            Err(why) => eprintln!("bench: nothing of the ways in the virtual machine: {why}"),
        }
    }
    if parts.contains(&"count") {
        eprintln!("bench: instructions of a frame, in the virtual machine");
        match in_guest("count", &[&paths::GUEST[..], &COUNT].concat()) {
            Ok(count) => {
                write(&folder, "count.json", &count)?;
                rows.extend(guest::count_rows(&count["camera to display"]));
                rows.extend(paths::count_rows(&count["ways"]));
                rows.extend(crossing::count_rows(&count["crossing"]));
                notes.extend(paths::notes(&count["ways"]));
            }
            Err(why) => eprintln!("bench: no instructions were counted: {why}"),
        }
    }
    write(&folder, "table.json", &table::json(&rows))?;
    print!("{}", table::text(&rows));
    notes.iter().for_each(|note| println!("{note}"));
    Ok(())
}

/// The one way of `paths/WAY`.
fn way_of(part: &str) -> Option<&str> {
    part.strip_prefix("paths/")
}

/// What this program says of itself in there.
fn in_guest(part: &str, options: &[&str]) -> Result<Value> {
    let mut command = Command::new("guest/run");
    command
        .args(["--timeout", "1500"])
        .args(options)
        .arg("--")
        .arg(std::env::current_exe()?)
        .args(["--in-guest", part]);
    let used = shrbuf_bench::process::run(&mut command)?;
    let line = used.output.lines().last().ok_or("the virtual machine said nothing")?;
    Ok(serde_json::from_str(line)?)
}
