//! `gpu` against a reference in floating point that shares nothing with it, on dma-bufs. Mesa's renderer for the CPU
//! stands in for a GPU: what it is given and what it makes are the same buffers, by the same calls.
#![cfg(feature = "gpu")]

mod buffers;
mod composed;
mod formats;
mod geometry;
mod memfds;
mod refused;
#[path = "../../../shrbuf/tests/common/vgem.rs"]
mod vgem;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use shrbuf::exporter::{Exporter, Udmabuf};
use shrbuf::{Access, Format, Layout, MemoryKind, Modifier, Plane, Shrbuf};
use shrbuf_elements::gpu::{Filter, Gpu, Memory, Part, Rotate};
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::tee::Tee;
use shrbuf_elements::test_src::TestSrc;
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::solve::{NegotiateOptions, negotiate};
use shrbuf_pipeline::{
    Build, Colorimetry, Copies, Element, Environment, FailureKind, Frame, Graph, Matrix, Origin, Range, Rect, Role,
    Size, Stream, Timestamp,
};
use shrbuf_tests::native::reference::{colours, difference, is_bayer, is_rgb, planes, sample, to_rgb, to_yuv_limited};
use shrbuf_tests::native::{self, Feed, Probe, line, noise, picture_in, plane, run, run_well, stream};
use shrbuf_tests::{Watch, once_polling};
use vgem::Vgem;

const SIZE: Size = Size::new(64, 34);
const ODD: Size = Size::new(37, 21);

/// Where dma-bufs come from; elsewhere than in the virtual machine a test may have none, and says so.
fn memory() -> Option<Exporter> {
    let memory = Udmabuf::open("picture").map(Exporter::Udmabuf);
    if memory.is_err() {
        assert!(std::env::var_os("SHRBUF_REQUIRE_DRIVERS").is_none(), "udmabuf is required and missing");
        println!("needs udmabuf: scripts/test-guest runs this in the virtual machine");
    }
    memory.ok()
}

fn software() -> Gpu {
    Gpu { device: Some("software".into()), ..Gpu::default() }
}

fn dma_bufs(format: Format, size: Size) -> Stream {
    Stream { origin: Origin::Udmabuf, stride_align: 16, ..stream(format, size) }
}

fn rect([x, y, width, height]: [u32; 4]) -> Rect {
    Rect { x, y, width, height }
}

/// What came out: colorimetry, and planes as they lie in memory.
type Made = (Colorimetry, Vec<(Vec<u8>, usize)>);

/// One picture through the element, once for each colorimetry.
fn convert(config: Gpu, source: &Shrbuf, colours: &[Colorimetry], to: Format, size: Size) -> Vec<Made> {
    let layout = *source.layout();
    let frame =
        |(n, &color): (usize, &Colorimetry)| Frame { color, ..Frame::new(source.clone(), Timestamp(7), n as u64) };
    let made = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&made);
    let probe = Probe(move |f: Frame| {
        assert_eq!((f.timestamp, f.buffer.layout().format), (Timestamp(7), to));
        keep.lock().unwrap().push((f.color, planes(&f.buffer)));
    });
    let frames = colours.iter().enumerate().map(frame).collect();
    let elements: Vec<Box<dyn Element>> = vec![Box::new(Feed(frames)), config.build().unwrap(), Box::new(probe)];
    let streams = [dma_bufs(layout.format, Size::new(layout.width, layout.height)), dma_bufs(to, size)];
    let graph = run_well(line(elements, &streams), None);
    assert_eq!(graph.ledger().copied(), 0, "bytes were copied");
    let own = graph.counts().into_iter().find(|c| c.name == "e1").unwrap().own;
    // One source, and the buffers of the output.
    assert_eq!(own.iter().find(|(name, _)| *name == "imports").unwrap().1, 1 + 4);
    let made = std::mem::take(&mut *made.lock().unwrap());
    assert_eq!(made.len(), colours.len());
    made
}

/// Largest difference from `expected(x, y)`.
fn most(to: Format, made: &Made, size: Size, expected: impl Fn(usize, usize) -> [f64; 3]) -> f64 {
    difference(to, &made.1, size, expected).0
}

fn samplable() -> impl Iterator<Item = Format> {
    Format::all().filter(|f| !is_bayer(*f))
}

/// The colorimetries that make a difference.
fn colours_of(format: Format) -> Vec<Colorimetry> {
    if is_rgb(format) { vec![Colorimetry::default()] } else { colours().collect() }
}

fn rgb_of(from: Format, input: &[(Vec<u8>, usize)], color: Colorimetry, x: usize, y: usize) -> [f64; 3] {
    let s = sample(from, input, x, y);
    if is_rgb(from) { s } else { to_rgb(s, color) }
}

/// Half a step that rounding needs, and what is lost before it.
const STEP: f64 = 1.0;

/// The mean of `component` over the block of chroma that pixel `x`, `y` is of, cut off at the edge of the picture.
fn chroma(to: Format, size: Size, x: usize, y: usize, component: impl Fn(usize, usize) -> f64) -> f64 {
    let planes = to.planes().iter();
    let (hsub, vsub) = planes.fold((1, 1), |(h, v), p| (h.max(p.hsub as usize), v.max(p.vsub as usize)));
    let (w, h) = (size.width as usize - 1, size.height as usize - 1);
    let block = (0..hsub * vsub).map(|i| ((x / hsub * hsub + i % hsub).min(w), (y / vsub * vsub + i / hsub).min(h)));
    block.map(|(x, y)| component(x, y)).sum::<f64>() / (hsub * vsub) as f64
}
