//! `shrbuf devices`: cameras, displays, and where memory can come from.
//!
//! What is found is gathered in the structs that the JSON is made of; [`text`] is made of the same.

mod camera;
mod display;
mod text;

use serde::Serialize;
use shrbuf::exporter::{DmaHeap, Udmabuf};

use crate::args::DevicesArgs;
use crate::json;
use crate::outcome::Outcome;
use crate::table::Paint;
use camera::Camera;
use display::Display;

/// All that was found.
#[derive(Debug, Serialize)]
struct Devices {
    cameras: Vec<Found<Camera>>,
    displays: Vec<Found<Display>>,
    /// Names under /dev/dma_heap.
    dma_heaps: Vec<String>,
    udmabuf: Usable,
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

/// Lists them.
pub fn devices(args: &DevicesArgs) -> Outcome {
    let found = find();
    Outcome::done(if args.json { json::line(&found) } else { text::text(&found, Paint::stdout()) })
}

fn find() -> Devices {
    let udmabuf = Udmabuf::open("probe").err();
    Devices {
        cameras: camera::find(),
        displays: display::find(),
        dma_heaps: DmaHeap::list(),
        udmabuf: Usable { usable: udmabuf.is_none(), error: udmabuf.map(|e| e.to_string()) },
    }
}
