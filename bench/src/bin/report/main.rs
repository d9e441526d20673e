//! Everything, ours beside GStreamer's: natively, and in the virtual machine on vivid and vkms.
//!
//! `report DIR` runs it all and writes JSON into DIR; `report guest` is the part that it runs in the virtual machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use shrbuf_bench::{Result, table};

mod guest;
mod native;
mod peer;

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
    let folder = match std::env::args().nth(1).ok_or("usage: report DIR|guest")?.as_str() {
        "guest" => {
            println!("{}", guest::measure()?);
            return Ok(());
        }
        folder => PathBuf::from(folder),
    };
    fs::create_dir_all(&folder)?;
    if !peer::installed() {
        eprintln!("bench: gst-launch-1.0 is not installed; ours alone (scripts/setup bench installs the peer)");
    }
    eprintln!("bench: hops and queues, natively");
    let native = native::measure()?;
    write(&folder, "native.json", &native)?;
    eprintln!("bench: camera to display, in the virtual machine");
    let mut rows = native::rows(&native);
    let mut command = Command::new("guest/run");
    command.args(["--timeout", "900", "--"]).arg(std::env::current_exe()?).arg("guest");
    let guest = shrbuf_bench::process::run(&mut command).and_then(|used| {
        let line = used.output.lines().last().ok_or("the virtual machine said nothing")?;
        Ok(serde_json::from_str::<Value>(line)?)
    });
    match guest {
        Ok(guest) => {
            write(&folder, "camera.json", &guest)?;
            rows.extend(guest::rows(&guest));
        }
        Err(why) => eprintln!("bench: nothing of the virtual machine: {why}"),
    }
    write(&folder, "table.json", &table::json(&rows))?;
    print!("{}", table::text(&rows));
    Ok(())
}
