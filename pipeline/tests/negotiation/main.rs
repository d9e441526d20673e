//! Negotiation by cases: each has the plan or the message that it must lead to.

mod buffers;
mod composition;
mod devices;
mod formats;
mod graphs;
mod memory;
mod scripted;
mod sizes;

use std::time::Duration;

use scripted::*;
use shrbuf::Format::{Ar24, Grey, Nv12, Rg16, Xr24, Yuyv};
use shrbuf::MemoryKind;
use shrbuf_pipeline::graph::Port;
use shrbuf_pipeline::plan::Budget;
use shrbuf_pipeline::solve::{Converter, NegotiateOptions, NegotiationError, negotiate};
use shrbuf_pipeline::{Copies, Full, Graph, GraphError, Origin, QueueSpec, Rate, Rates, Refusal, SetBy, Video, Wanted};

const HD: &[(u32, u32)] = &[(1280, 720)];
const X_TILED: u64 = 0x0100_0000_0000_0001;
const Y_TILED: u64 = 0x0100_0000_0000_0002;

const CONVERTED: [&str; 2] = [
    "camera → camera→display convert: YUYV 1280x720 at 60 fps from v4l2, stride 2560, zero-copy",
    "camera→display convert → display: XR24 1280x720 at 60 fps LINEAR from udmabuf, stride 5120, copied",
];

fn camera_to_display(camera: Scripted, display: Scripted) -> Graph {
    row(vec![("camera", camera), ("display", display)])
}

fn queue(depth: u32, full: Full) -> Option<QueueSpec> {
    Some(QueueSpec { depth, full })
}

fn yuyv_camera_to_rgb_display() -> Graph {
    let camera = Scripted::source(vec![video(Yuyv, &[(640, 480), (1280, 720)], &[30, 60])]);
    camera_to_display(camera, Scripted::sink(vec![up_to(Rg16, 4096, 4096), up_to(Xr24, 4096, 4096)]))
}

fn camera_display_encoder(most: u32, granted: u32, waiting: Option<QueueSpec>) -> Graph {
    let camera = Scripted::source(vec![video(Xr24, HD, &[60])]).max_buffers(most).grants(granted);
    let sink = |holds| Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).holds(holds);
    fan(camera, vec![("display", None, sink(2)), ("encoder", waiting, sink(4))])
}

fn one_of_two_imports() -> Graph {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60])]);
    let encoder = Scripted::sink(vec![up_to(Yuyv, 4096, 4096)]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    fan(camera, vec![("encoder", None, encoder), ("display", None, display)])
}

fn same_size(format: shrbuf::Format) -> impl Fn(&shrbuf_pipeline::Stream) -> Vec<Video> + Send + 'static {
    move |input| vec![scaled(format, input)]
}
