//! Devices for people.

use std::fmt::Write;

use super::camera::{Camera, CameraSize};
use super::display::{Connector, Display, Mode, Plane, PlaneFormat};
use super::{Devices, Found};
use crate::table::{Align, Paint, Table};

/// Modes and sizes that are shown of a long list.
const SHOWN: usize = 6;
/// Most characters of what a control takes.
const WIDEST: usize = 90;

const NO_CAMERA: &str = "  none: plug a camera in, or load a driver: `modprobe vivid` makes one up, `modprobe uvcvideo` is for \
    USB ones.\n  Without one, `test-src` makes pictures.\n";
const NO_DISPLAY: &str = "  none: there is no /dev/dri/card* that drives one; `modprobe vkms` makes one up.\n  Without \
    one, `screen-sink` stands in, and `file-sink` keeps the pictures.\n";

/// All of it.
pub fn text(devices: &Devices, paint: Paint) -> String {
    let mut out = paint.bold("cameras") + "\n";
    if devices.cameras.is_empty() {
        out.push_str(NO_CAMERA);
    }
    for found in &devices.cameras {
        match found {
            Found::Device(c) => camera(&mut out, c, paint),
            Found::Refused { error } => refused(&mut out, error),
        }
    }
    let _ = writeln!(out, "\n{}", paint.bold("displays"));
    if devices.displays.is_empty() {
        out.push_str(NO_DISPLAY);
    }
    for found in &devices.displays {
        match found {
            Found::Device(d) => display(&mut out, d, paint),
            Found::Refused { error } => refused(&mut out, error),
        }
    }
    let _ = writeln!(out, "\n{}", paint.bold("memory"));
    let heaps = match devices.dma_heaps.is_empty() {
        true => "none (a kernel with CONFIG_DMABUF_HEAPS_SYSTEM has one)".to_owned(),
        false => devices.dma_heaps.join(", "),
    };
    let udmabuf = devices.udmabuf.error.as_deref().unwrap_or("usable");
    let _ = writeln!(
        out,
        "  dma-heaps  {heaps}\n  udmabuf    {udmabuf}\n  memfd      usable: frames for CPUs, not for devices"
    );
    out
}

fn refused(out: &mut String, error: &str) {
    let _ = writeln!(out, "  {error}");
}

fn camera(out: &mut String, camera: &Camera, paint: Paint) {
    let _ = writeln!(out, "  {}  {} ({}, {})", paint.bold(&camera.path), camera.card, camera.driver, camera.bus);
    if !camera.inputs.is_empty() {
        let inputs = camera.inputs.iter().map(|i| format!("{} ({})", i.name, i.status));
        let _ = writeln!(out, "    inputs: {}", inputs.collect::<Vec<_>>().join(", "));
    }
    // Most cameras have the same sizes in every format, and drivers for tests have dozens of formats.
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (name, sizes) in camera.formats.iter().filter_map(|f| Some((f.format?, sizes(&f.sizes)))) {
        match groups.iter_mut().find(|(known, _)| *known == sizes) {
            Some((_, names)) => names.push(name),
            None => groups.push((sizes, vec![name])),
        }
    }
    for (sizes, names) in groups {
        let _ = writeln!(out, "    {}\n      {sizes}", names.join(", "));
    }
    let unknown = camera.formats.iter().filter(|f| f.format.is_none()).map(|f| f.fourcc.clone());
    let unknown: Vec<String> = unknown.collect();
    if !unknown.is_empty() {
        let _ = writeln!(out, "    not known to shrbuf: {}", shortened(unknown));
    }
    if !camera.controls.is_empty() {
        let mut controls = Table::new(&[("  control", Align::Left), ("takes", Align::Left)]);
        for c in &camera.controls {
            controls.row([format!("  {}", c.name), cut(&c.takes)]);
        }
        out.push_str(&controls.show(paint));
    }
}

/// `640x360 and 1280x720 at 60, 30; 1920x1080 at 30`: sizes of the same rates together.
fn sizes(sizes: &[CameraSize]) -> String {
    let mut groups: Vec<(Vec<&str>, &[f64])> = Vec::new();
    for s in sizes {
        match groups.last_mut().filter(|(_, rates)| *rates == s.rates.as_slice()) {
            Some((names, _)) => names.push(&s.size),
            None => groups.push((vec![&s.size], &s.rates)),
        }
    }
    let group = |(names, rates): &(Vec<&str>, &[f64])| {
        let names = shortened(names.iter().map(|n| (*n).to_owned()).collect());
        if rates.is_empty() {
            return names;
        }
        let rates = rates.iter().map(|r| format!("{r:.2}").trim_end_matches('0').trim_end_matches('.').to_owned());
        format!("{names} at {}", shortened(rates.collect()))
    };
    groups.iter().map(group).collect::<Vec<_>>().join("; ")
}

fn display(out: &mut String, display: &Display, paint: Paint) {
    let in_use = if display.in_use { ", in use by another program (a desktop session?)" } else { "" };
    let _ = writeln!(out, "  {}  {}{in_use}", paint.bold(&display.path), display.driver);
    for c in &display.connectors {
        let _ = writeln!(out, "    {}  {}", c.name, connector(c));
    }
    // Cards have a plane like another for each of their screens: what they share is told once.
    let mut told: Vec<(&str, &[PlaneFormat], usize)> = Vec::new();
    for Plane { kind, formats, .. } in &display.planes {
        match told.iter_mut().find(|(k, f, _)| k == kind && *f == formats.as_slice()) {
            Some((_, _, n)) => *n += 1,
            None => told.push((kind, formats, 1)),
        }
    }
    for (kind, formats, n) in told {
        let plural = if n == 1 { "plane" } else { "planes" };
        let _ = writeln!(
            out,
            "    {n} {kind} {plural}: {}",
            formats.iter().map(plane_format).collect::<Vec<_>>().join(", ")
        );
    }
}

fn connector(c: &Connector) -> String {
    if c.writeback {
        return "writeback: reads the screen back".into();
    }
    if !c.connected {
        return "nothing is connected".into();
    }
    let mode = |m: &Mode| format!("{}x{}@{}", m.width, m.height, m.rate);
    let preferred = c.preferred.as_ref().map(|m| format!(", prefers {}", mode(m))).unwrap_or_default();
    format!("connected{preferred}, has {}", shortened(c.modes.iter().map(mode).collect()))
}

fn plane_format(f: &PlaneFormat) -> String {
    match f.modifiers.as_slice() {
        [only] if only == "LINEAR" => f.format.clone(),
        all => format!("{} ({})", f.format, shortened(all.to_vec())),
    }
}

/// Menus may have a hundred entries; `--json` has them all.
fn cut(text: &str) -> String {
    match text.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn shortened(mut items: Vec<String>) -> String {
    match items.len().saturating_sub(SHOWN) {
        0 | 1 => items.join(", "),
        more => {
            items.truncate(SHOWN);
            format!("{} and {more} more", items.join(", "))
        }
    }
}
