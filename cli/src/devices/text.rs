//! Devices for people.

use std::fmt::Write;

use super::display::{Connector, Display, Mode, Plane, PlaneFormat};
use super::video::{Camera, M2m, Output, VideoControl, VideoFormat, VideoSize};
use super::{Devices, Found, Heap, Usable};
use crate::table::{Align, Paint, Table};

/// Modes and sizes that are shown of a long list.
const SHOWN: usize = 6;
/// Most characters of what a control takes.
const WIDEST: usize = 90;

const NO_CAMERA: &str = "  none: plug a camera in, or load a driver: `modprobe vivid` makes one up, `modprobe uvcvideo` is for \
    USB ones.\n  Without one, `test-src` makes pictures.\n";
const NO_DISPLAY: &str = "  none: there is no /dev/dri/card* that drives one; `modprobe vkms` makes one up.\n  Without \
    one, `screen-sink` stands in, and `file-sink` keeps the pictures.\n";
const NO_OUTPUT: &str = "  none: `modprobe vivid` makes one up, and so does v4l2loopback.\n";
const NO_M2M: &str = "  none: `modprobe vicodec` makes a codec up, `modprobe vim2m` a converter.\n";
const NONE_OPENS: &str = "  none that opens: see the cameras.\n";
const NO_GPU: &str = "  none: there is no /dev/dri/renderD*.\n";

/// All of it.
pub fn text(devices: &Devices, paint: Paint) -> String {
    // A node that does not open is told with the cameras; it may be anything.
    let closed = devices.cameras.iter().any(|found| matches!(found, Found::Refused { .. }));
    let none_of = |none: &'static str| if closed { NONE_OPENS } else { none };
    let mut out = String::new();
    section(&mut out, paint, "cameras", &devices.cameras, NO_CAMERA, camera);
    section(&mut out, paint, "displays", &devices.displays, NO_DISPLAY, display);
    section(&mut out, paint, "outputs", &devices.outputs, none_of(NO_OUTPUT), output);
    section(&mut out, paint, "codecs, scalers, converters", &devices.m2m, none_of(NO_M2M), m2m);
    section(&mut out, paint, "render nodes", &devices.gpus, NO_GPU, |out, node, paint| {
        let _ = writeln!(out, "  {}  {}", paint.bold(&node.path), node.driver);
    });
    let _ = writeln!(out, "  `gpu`: {}", devices.gpu.say("can render"));
    let _ = writeln!(out, "\n{}", paint.bold("compositor"));
    let socket = devices.compositor.socket.as_deref().unwrap_or("none");
    let _ = writeln!(
        out,
        "  {}  {}",
        paint.bold(socket),
        devices.compositor.usable.say("`wayland-sink` has a window there")
    );
    let _ = writeln!(out, "\n{}", paint.bold("memory"));
    let heaps = match devices.heaps.is_empty() {
        true => "none (a kernel with CONFIG_DMABUF_HEAPS_SYSTEM has one)".to_owned(),
        false => devices.heaps.iter().map(heap).collect::<Vec<_>>().join(", "),
    };
    let _ = writeln!(
        out,
        "  dma-heaps  {heaps}\n  udmabuf    {}\n  memfd      usable: frames for CPUs, not for devices",
        devices.udmabuf.say("usable")
    );
    out
}

impl Usable {
    /// `what` where it is, else why not.
    fn say<'a>(&'a self, what: &'a str) -> &'a str {
        self.error.as_deref().unwrap_or(what)
    }
}

/// Devices of a kind under their heading.
fn section<T>(
    out: &mut String,
    paint: Paint,
    heading: &str,
    found: &[Found<T>],
    none: &str,
    one: fn(&mut String, &T, Paint),
) {
    let apart = if out.is_empty() { "" } else { "\n" };
    let _ = writeln!(out, "{apart}{}", paint.bold(heading));
    if found.is_empty() {
        out.push_str(none);
    }
    for found in found {
        match found {
            Found::Device(device) => one(out, device, paint),
            Found::Refused { error } => {
                let _ = writeln!(out, "  {error}");
            }
        }
    }
}

fn heap(heap: &Heap) -> String {
    match &heap.usable.error {
        Some(error) => format!("{} ({error})", heap.name),
        None => heap.name.clone(),
    }
}

fn output(out: &mut String, output: &Output, paint: Paint) {
    let _ = writeln!(out, "  {}  {} ({}, {})", paint.bold(&output.path), output.card, output.driver, output.bus);
    if !output.outputs.is_empty() {
        let _ = writeln!(out, "    outputs: {}", output.outputs.join(", "));
    }
    formats(out, "", &output.formats);
    controls(out, &output.controls, paint);
}

fn m2m(out: &mut String, m2m: &M2m, paint: Paint) {
    let _ = writeln!(out, "  {}  {} ({}, {})", paint.bold(&m2m.path), m2m.card, m2m.driver, m2m.bus);
    formats(out, "takes ", &m2m.takes);
    formats(out, "makes ", &m2m.makes);
    controls(out, &m2m.controls, paint);
}

fn camera(out: &mut String, camera: &Camera, paint: Paint) {
    let _ = writeln!(out, "  {}  {} ({}, {})", paint.bold(&camera.path), camera.card, camera.driver, camera.bus);
    if !camera.inputs.is_empty() {
        let inputs = camera.inputs.iter().map(|i| format!("{} ({})", i.name, i.status));
        let _ = writeln!(out, "    inputs: {}", inputs.collect::<Vec<_>>().join(", "));
    }
    formats(out, "", &camera.formats);
    controls(out, &camera.controls, paint);
}

fn formats(out: &mut String, does: &str, formats: &[VideoFormat]) {
    // Most devices have the same sizes in every format, and drivers for tests have dozens of formats.
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (name, sizes) in formats.iter().filter_map(|f| Some((f.format?, sizes(&f.sizes)))) {
        match groups.iter_mut().find(|(known, _)| *known == sizes) {
            Some((_, names)) => names.push(name),
            None => groups.push((sizes, vec![name])),
        }
    }
    for (sizes, names) in groups {
        let _ = writeln!(out, "    {does}{}\n      {sizes}", names.join(", "));
    }
    let unknown = formats.iter().filter(|f| f.format.is_none()).map(|f| f.fourcc.clone());
    let unknown: Vec<String> = unknown.collect();
    if !unknown.is_empty() {
        let _ = writeln!(out, "    {does}what is not known to shrbuf: {}", shortened(unknown));
    }
}

fn controls(out: &mut String, controls: &[VideoControl], paint: Paint) {
    if !controls.is_empty() {
        let mut table = Table::new(&[("  control", Align::Left), ("takes", Align::Left)]);
        for c in controls {
            table.row([format!("  {}", c.name), cut(&c.takes)]);
        }
        out.push_str(&table.show(paint));
    }
}

/// `640x360 and 1280x720 at 60, 30; 1920x1080 at 30`: sizes of the same rates together.
fn sizes(sizes: &[VideoSize]) -> String {
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
