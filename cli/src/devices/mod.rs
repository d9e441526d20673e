//! `shrbuf devices`: cameras, outputs, codecs, displays, GPUs, the compositor, and where memory can come from.
//!
//! What is found is gathered in the structs that the JSON is made of; [`text`] is made of the same.

mod display;
mod render;
mod text;
mod video;

use serde::Serialize;
use shrbuf::exporter::{DmaHeap, Udmabuf};

use crate::args::DevicesArgs;
use crate::json;
use crate::outcome::Outcome;
use crate::table::Paint;
use display::Display;
use render::{Compositor, Node};
use video::{Camera, M2m, Output};

/// All that was found. Scripts read it: fields are added, and none is renamed or taken away.
#[derive(Debug, Serialize)]
struct Devices {
    cameras: Vec<Found<Camera>>,
    displays: Vec<Found<Display>>,
    /// Names under /dev/dma_heap.
    dma_heaps: Vec<String>,
    udmabuf: Usable,
    outputs: Vec<Found<Output>>,
    m2m: Vec<Found<M2m>>,
    /// Render nodes.
    gpus: Vec<Found<Node>>,
    /// Whether the element has something to render with.
    gpu: Usable,
    compositor: Compositor,
    heaps: Vec<Heap>,
}

#[derive(Debug, Serialize)]
struct Heap {
    name: String,
    #[serde(flatten)]
    usable: Usable,
}

/// A device, or why it could not be looked at.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Found<T> {
    Device(T),
    Refused {
        /// With the path and what to do.
        error: String,
    },
}

impl<T> Found<T> {
    fn of<D, E: std::fmt::Display>(found: Result<D, E>, describe: impl FnOnce(D) -> T) -> Found<T> {
        match found {
            Ok(device) => Found::Device(describe(device)),
            Err(error) => Found::Refused { error: error.to_string() },
        }
    }
}

#[derive(Debug, Serialize)]
struct Usable {
    usable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Usable {
    fn of<T, E: std::fmt::Display>(opened: Result<T, E>) -> Usable {
        let error = opened.err().map(|e| e.to_string());
        Usable { usable: error.is_none(), error }
    }
}

/// Lists them.
pub fn devices(args: &DevicesArgs) -> Outcome {
    let found = find();
    Outcome::done(if args.json { json::line(&found) } else { text::text(&found, Paint::stdout()) })
}

fn find() -> Devices {
    let dma_heaps = DmaHeap::list();
    let heap = |name: &String| Heap { name: name.clone(), usable: Usable::of(DmaHeap::open(name, "probe")) };
    Devices {
        cameras: video::cameras(),
        displays: display::find(),
        heaps: dma_heaps.iter().map(heap).collect(),
        dma_heaps,
        udmabuf: Usable::of(Udmabuf::open("probe")),
        outputs: video::outputs(),
        m2m: video::m2m(),
        gpus: render::nodes(),
        gpu: render::gpu(),
        compositor: render::compositor(),
    }
}
