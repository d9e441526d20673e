//! `gpu` against a reference in floating point that shares nothing with it, on dma-bufs. Mesa's renderer for the CPU
//! stands in for a GPU: what it is given and what it makes are the same buffers, by the same calls.
#![cfg(feature = "gpu")]

#[path = "../../shrbuf/tests/common/vgem.rs"]
mod vgem;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

#[test]
fn every_format_range_and_matrix_to_rgb_is_right_to_one_step() {
    let Some(memory) = memory() else { return };
    for from in samplable() {
        let source = picture_in(&memory, &dma_bufs(from, ODD), noise(1));
        let input = planes(&source);
        let colours = colours_of(from);
        for (made, color) in convert(software(), &source, &colours, Format::Xr24, ODD).iter().zip(&colours) {
            assert_eq!(made.0.range, Range::Full);
            let most = most(Format::Xr24, made, ODD, |x, y| rgb_of(from, &input, *color, x, y));
            assert!(most <= STEP, "{from} {color:?}: {most}");
        }
    }
}

#[test]
fn yuv_to_rgb_of_each_packing_is_right_to_one_step() {
    let Some(memory) = memory() else { return };
    let from = Format::Nv12;
    let source = picture_in(&memory, &dma_bufs(from, ODD), noise(2));
    let input = planes(&source);
    let colours: Vec<_> = colours().collect();
    for to in [Format::Ar24, Format::Xb24, Format::Rg24, Format::Rg16] {
        for (made, color) in convert(software(), &source, &colours, to, ODD).iter().zip(&colours) {
            let most = most(to, made, ODD, |x, y| rgb_of(from, &input, *color, x, y));
            // RG16 has steps of 8.2 and 4.05, so half a step is right.
            let bound = if to == Format::Rg16 { 8.3 / 2.0 } else { STEP };
            assert!(most <= bound, "{to} {color:?}: {most}");
        }
    }
}

/// The mean of `component` over the block of chroma that pixel `x`, `y` is of, cut off at the edge of the picture.
fn chroma(to: Format, size: Size, x: usize, y: usize, component: impl Fn(usize, usize) -> f64) -> f64 {
    let planes = to.planes().iter();
    let (hsub, vsub) = planes.fold((1, 1), |(h, v), p| (h.max(p.hsub as usize), v.max(p.vsub as usize)));
    let (w, h) = (size.width as usize - 1, size.height as usize - 1);
    let block = (0..hsub * vsub).map(|i| ((x / hsub * hsub + i % hsub).min(w), (y / vsub * vsub + i / hsub).min(h)));
    block.map(|(x, y)| component(x, y)).sum::<f64>() / (hsub * vsub) as f64
}

#[test]
fn rgb_to_yuv_of_each_packing_is_right_to_one_step() {
    let Some(memory) = memory() else { return };
    let from = Format::Xr24;
    let source = picture_in(&memory, &dma_bufs(from, ODD), noise(3));
    let input = planes(&source);
    let colours: Vec<_> = colours().filter(|c| c.range == Range::Full).collect();
    // One of each packing: what a program writes takes long to compile in the virtual machine.
    for to in [Format::Yuyv, Format::Nv12, Format::Nv21, Format::Yv12, Format::Yu16, Format::Grey] {
        for (made, color) in convert(software(), &source, &colours, to, ODD).iter().zip(&colours) {
            assert_eq!(made.0, Colorimetry { range: Range::Limited, ..*color });
            let yuv = |x, y| to_yuv_limited(sample(from, &input, x, y), color.matrix);
            let most = most(to, made, ODD, |x, y| {
                // Of GREY there is nothing but luma, and the reference says 128 for the rest.
                let c = |c: usize| if to == Format::Grey { 128.0 } else { chroma(to, ODD, x, y, |x, y| yuv(x, y)[c]) };
                [yuv(x, y)[0], c(1), c(2)]
            });
            assert!(most <= STEP, "{to} {color:?}: {most}");
        }
    }
}

#[test]
fn yuv_to_yuv_keeps_every_luma_and_the_mean_of_chroma() {
    let Some(memory) = memory() else { return };
    for (from, to) in [
        (Format::Yuyv, Format::Nv12),
        (Format::Nv12, Format::Yu12),
        (Format::Yu24, Format::Uyvy),
        (Format::Nv21, Format::Nv12),
        (Format::Yv12, Format::Yv12),
    ] {
        let source = picture_in(&memory, &dma_bufs(from, ODD), noise(4));
        let input = planes(&source);
        let colour = [Colorimetry { matrix: Matrix::Bt709, range: Range::Full }];
        let made = &convert(software(), &source, &colour, to, ODD)[0];
        assert_eq!(made.0, colour[0]);
        let most = most(to, made, ODD, |x, y| {
            let c = |c: usize| chroma(to, ODD, x, y, |x, y| sample(from, &input, x, y)[c]);
            [sample(from, &input, x, y)[0], c(1), c(2)]
        });
        assert!(most <= 0.76, "{from} {to}: {most}");
    }
}

#[test]
fn crop_turn_and_mirror_move_pixels_and_change_none() {
    let Some(memory) = memory() else { return };
    let source = picture_in(&memory, &dma_bufs(Format::Xr24, SIZE), noise(5));
    let input = planes(&source);
    let (x0, y0, w, h) = (5, 3, 20, 10);
    for (rotate, mirror) in
        [(Rotate::Quarter, false), (Rotate::Half, false), (Rotate::ThreeQuarters, false), (Rotate::Quarter, true)]
    {
        let config = Gpu { crop: Some(Part(rect([x0, y0, w, h]))), rotate, mirror, ..software() };
        let sideways = matches!(rotate, Rotate::Quarter | Rotate::ThreeQuarters);
        let size = if sideways { Size::new(h, w) } else { Size::new(w, h) };
        let made = &convert(config, &source, &[Colorimetry::default()], Format::Xr24, size)[0];
        let most = most(Format::Xr24, made, size, |x, y| {
            let x = if mirror { size.width as usize - 1 - x } else { x };
            let (w, h) = (w as usize - 1, h as usize - 1);
            let (x, y) = match rotate {
                Rotate::None => (x, y),
                Rotate::Quarter => (y, h - x),
                Rotate::Half => (w - x, h - y),
                Rotate::ThreeQuarters => (w - y, x),
            };
            sample(Format::Xr24, &input, x0 as usize + x, y0 as usize + y)
        });
        assert_eq!(most, 0.0, "{rotate:?} {mirror}");
    }
}

#[test]
fn scaled_pictures_are_right_to_one_step() {
    let Some(memory) = memory() else { return };
    let source = picture_in(&memory, &dma_bufs(Format::Xr24, SIZE), noise(6));
    let input = planes(&source);
    let part = rect([8, 4, 40, 20]);
    for size in [Size::new(80, 40), Size::new(57, 31), Size::new(24, 12)] {
        for filter in [Filter::Nearest, Filter::Bilinear] {
            let config = Gpu { crop: Some(Part(part)), size: Some(size), filter, ..software() };
            let made = &convert(config, &source, &[Colorimetry::default()], Format::Xr24, size)[0];
            let most = most(Format::Xr24, made, size, |x, y| {
                let along = |at: usize, start: u32, from: u32, to: u32| {
                    f64::from(start) + (at as f64 + 0.5) * f64::from(from) / f64::from(to)
                };
                let x = along(x, part.x, part.width, size.width);
                let y = along(y, part.y, part.height, size.height);
                if filter == Filter::Nearest { nearest(&input, x, y) } else { bilinear(&input, part, x, y) }
            });
            let bound = if filter == Filter::Nearest { 0.0 } else { STEP };
            assert!(most <= bound, "{size} {filter:?}: {most}");
        }
    }
}

/// One picture by frames with these crops of their own: what came out of each, and the crop that went on with it.
fn cropped(config: Gpu, source: &Shrbuf, crops: &[Option<Rect>], size: Size) -> Vec<(Option<Rect>, Made)> {
    let made = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&made);
    let probe = Probe(move |f: Frame| keep.lock().unwrap().push((f.crop, (f.color, planes(&f.buffer)))));
    let frame = |crop: &Option<Rect>| Frame { crop: *crop, ..Frame::new(source.clone(), Timestamp(0), 0) };
    let feed = Feed(crops.iter().map(frame).collect());
    let elements: Vec<Box<dyn Element>> = vec![Box::new(feed), config.build().unwrap(), Box::new(probe)];
    run_well(line(elements, &[dma_bufs(Format::Xr24, SIZE), dma_bufs(Format::Xr24, size)]), None);
    std::mem::take(&mut *made.lock().unwrap())
}

#[test]
fn a_frames_own_crop_fills_the_size_that_was_asked_for() {
    let Some(memory) = memory() else { return };
    let source = picture_in(&memory, &dma_bufs(Format::Xr24, SIZE), noise(12));
    let input = planes(&source);
    let (all, part) = (rect([0, 0, SIZE.width, SIZE.height]), rect([8, 4, 40, 20]));
    // The size of the crop, that of the picture, and neither: what is scaled is another frame each time.
    for size in [Size::new(40, 20), SIZE, Size::new(57, 31)] {
        let config = Gpu { size: Some(size), ..software() };
        let made = cropped(config, &source, &[None, Some(part), None], size);
        assert_eq!(made.len(), 3);
        for ((crop, made), seen) in made.iter().zip([all, part, all]) {
            assert_eq!(*crop, None, "{size}: a crop of the source went on with what was made of it");
            let most = most(Format::Xr24, made, size, |x, y| {
                let along = |at: usize, start: u32, from: u32, to: u32| {
                    f64::from(start) + (at as f64 + 0.5) * f64::from(from) / f64::from(to)
                };
                let x = along(x, seen.x, seen.width, size.width);
                let y = along(y, seen.y, seen.height, size.height);
                bilinear(&input, seen, x, y)
            });
            assert!(most <= STEP, "{size} {seen:?}: {most}");
        }
    }
}

#[test]
fn without_a_size_a_frames_own_crop_goes_on_with_it() {
    let Some(memory) = memory() else { return };
    let source = picture_in(&memory, &dma_bufs(Format::Xr24, SIZE), noise(13));
    let part = Some(rect([8, 4, 40, 20]));
    let made = cropped(software(), &source, &[part], SIZE);
    assert_eq!(made[0].0, part);
    let input = planes(&source);
    assert_eq!(most(Format::Xr24, &made[0].1, SIZE, |x, y| sample(Format::Xr24, &input, x, y)), 0.0);
}

fn nearest(input: &[(Vec<u8>, usize)], x: f64, y: f64) -> [f64; 3] {
    sample(Format::Xr24, input, x as usize, y as usize)
}

fn bilinear(input: &[(Vec<u8>, usize)], part: Rect, x: f64, y: f64) -> [f64; 3] {
    let (x, y) = (x - 0.5, y - 0.5);
    let clamp = |n: f64, start: u32, length: u32| n.clamp(f64::from(start), f64::from(start + length - 1)) as usize;
    let at = |x: f64, y: f64| sample(Format::Xr24, input, clamp(x, part.x, part.width), clamp(y, part.y, part.height));
    let (left, top) = (x.floor(), y.floor());
    let (fx, fy) = (x - left, y - top);
    [0, 1, 2].map(|c| {
        let row = |y: f64| at(left, y)[c] * (1.0 - fx) + at(left + 1.0, y)[c] * fx;
        row(top) * (1.0 - fy) + row(top + 1.0) * fy
    })
}

fn numbers(list: [u32; 4]) -> Value {
    Value::Array(list.into_iter().map(|n| Value::Integer(n.into())).collect())
}

/// `in1 = { … }` as TOML would have it.
fn layout<const N: usize>(of_in1: [(&str, Value); N]) -> BTreeMap<String, Value> {
    let table = of_in1.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    BTreeMap::from([("in1".to_owned(), Value::Table(table))])
}

#[test]
fn inputs_lie_on_one_another_where_the_layout_says() {
    let Some(memory) = memory() else { return };
    for to in [Format::Xr24, Format::Nv12] {
        let source = picture_in(&memory, &dma_bufs(Format::Yuyv, SIZE), noise(10));
        let input = planes(&source);
        let (x0, y0, w, h) = (20, 8, 32, 16);
        let (place, crop) = (numbers([x0, y0, w, h]), numbers([4, 2, 32, 16]));
        let layout = layout([("place", place), ("crop", crop), ("mirror", Value::Boolean(true))]);
        let mix = Gpu { inputs: 2, size: Some(SIZE), layout, ..software() };
        let made = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&made);
        let probe = Probe(move |f: Frame| *keep.lock().unwrap() = Some((f.color, planes(&f.buffer))));
        let feed = Feed(vec![Frame::new(source.clone(), Timestamp(0), 0)]);
        let mut elements: Vec<Box<dyn Element>> =
            vec![Box::new(feed), Tee {}.build().unwrap(), mix.build().unwrap(), Box::new(probe)];
        let (from, into) = (dma_bufs(Format::Yuyv, SIZE), dma_bufs(to, SIZE));
        (0..2).for_each(|input| elements[2].import(input, &from, std::slice::from_ref(&source)).unwrap());
        elements[2].allocate(0, &into).unwrap();
        let mut graph = Graph::new("test");
        let nodes: Vec<_> =
            elements.into_iter().enumerate().map(|(i, e)| graph.add(&format!("e{i}"), e).unwrap()).collect();
        graph.link(nodes[0], nodes[1]).unwrap();
        // What comes first is the newest of its input when the other comes, upon which a picture is made.
        for input in ["e2.in1", "e2.in0"] {
            let (output, input) = (graph.output("e1").unwrap(), graph.input(input).unwrap());
            graph.link_ports(output, input, None).unwrap();
        }
        graph.link(nodes[2], nodes[3]).unwrap();

        let graph = run_well(graph, None);

        assert_eq!(graph.ledger().copied(), 0);
        let made = made.lock().unwrap().take().unwrap();
        let most = most(to, &made, SIZE, |x, y| {
            let inside = |at: usize, start: u32, length: u32| (start as usize..(start + length) as usize).contains(&at);
            let pixel = |x: usize, y: usize| {
                let on_top = inside(x, x0, w) && inside(y, y0, h);
                // Mirrored: the last column of the place is the first of the crop.
                let (x, y) = if on_top { (4 + (x0 + w) as usize - 1 - x, 2 + y - y0 as usize) } else { (x, y) };
                let yuv = sample(Format::Yuyv, &input, x, y);
                if is_rgb(to) { to_rgb(yuv, Colorimetry::default()) } else { yuv }
            };
            let c = |c: usize| if is_rgb(to) { pixel(x, y)[c] } else { chroma(to, SIZE, x, y, |x, y| pixel(x, y)[c]) };
            [pixel(x, y)[0], c(1), c(2)]
        });
        assert!(most <= STEP, "{to}: {most}");
    }
}

#[test]
fn sixteen_inputs_lie_side_by_side() {
    let Some(memory) = memory() else { return };
    const TILE: Size = Size::new(16, 8);
    const TILES: u32 = 16;
    let screen = Size::new(4 * TILE.width, 4 * TILE.height);
    let source = picture_in(&memory, &dma_bufs(Format::Xr24, SIZE), noise(14));
    let input = planes(&source);
    let seen = |tile: u32| (3 * tile, tile);
    let table = |tile: u32| {
        let (x, y) = seen(tile);
        let place = numbers([tile % 4 * TILE.width, tile / 4 * TILE.height, TILE.width, TILE.height]);
        let crop = numbers([x, y, TILE.width, TILE.height]);
        Value::Table([("place".to_owned(), place), ("crop".to_owned(), crop)].into_iter().collect())
    };
    let layout = (0..TILES).map(|tile| (format!("in{tile}"), table(tile))).collect();
    let mix = Gpu { inputs: TILES, size: Some(screen), layout, ..software() };
    let made = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&made);
    let probe = Probe(move |f: Frame| *keep.lock().unwrap() = Some(planes(&f.buffer)));
    let feed = Feed(vec![Frame::new(source.clone(), Timestamp(0), 0)]);
    let mut mix = mix.build().unwrap();
    let (from, into) = (dma_bufs(Format::Xr24, SIZE), dma_bufs(Format::Xr24, screen));
    (0..TILES as usize).for_each(|input| mix.import(input, &from, std::slice::from_ref(&source)).unwrap());
    mix.allocate(0, &into).unwrap();
    let mut graph = Graph::new("test");
    let feed = graph.add("feed", Box::new(feed)).unwrap();
    let tee = graph.add("tee", Tee {}.build().unwrap()).unwrap();
    let mix = graph.add("mix", mix).unwrap();
    let probe = graph.add("probe", Box::new(probe)).unwrap();
    graph.link(feed, tee).unwrap();
    // What comes last is the first, upon which a picture is made.
    for tile in (0..TILES).rev() {
        let (output, input) = (graph.output("tee").unwrap(), graph.input(&format!("mix.in{tile}")).unwrap());
        graph.link_ports(output, input, None).unwrap();
    }
    graph.link(mix, probe).unwrap();

    let graph = run_well(graph, None);

    assert_eq!(graph.ledger().copied(), 0);
    let made = (Colorimetry::default(), made.lock().unwrap().take().unwrap());
    let most = most(Format::Xr24, &made, screen, |x, y| {
        let tile = (x as u32 / TILE.width) + 4 * (y as u32 / TILE.height);
        let (left, top) = seen(tile);
        let (x, y) = (x % TILE.width as usize, y % TILE.height as usize);
        sample(Format::Xr24, &input, left as usize + x, top as usize + y)
    });
    assert_eq!(most, 0.0);
}

#[test]
fn pictures_are_best_as_large_as_they_are_drawn() {
    let natural = |config: Gpu, input| config.build().unwrap().input_offer(input).unwrap().natural;
    let layout = layout([("place", numbers([8, 4, 16, 10]))]);
    let composed = Gpu { inputs: 2, size: Some(SIZE), layout, ..software() };
    assert_eq!([0, 1].map(|input| natural(composed.clone(), input)), [Some(SIZE), Some(Size::new(16, 10))]);
    let turned = Gpu { size: Some(SIZE), rotate: Rotate::Quarter, ..software() };
    assert_eq!(natural(turned, 0), Some(Size::new(SIZE.height, SIZE.width)));
    let cut = Gpu { size: Some(SIZE), crop: Some(Part(rect([0, 0, 8, 8]))), ..software() };
    assert_eq!([natural(cut, 0), natural(software(), 0)], [None, None]);
}

#[test]
fn a_place_that_would_share_chroma_with_its_neighbours_is_refused() {
    let Some(_memory) = memory() else { return };
    let layout = layout([("place", numbers([21, 8, 16, 16]))]);
    let mut element = Gpu { inputs: 2, size: Some(SIZE), layout, ..software() }.build().unwrap();
    let text = element.allocate(0, &dma_bufs(Format::Nv12, SIZE)).unwrap_err().to_string();
    assert!(text.contains("16x16 at 21,8") && text.contains("XR24"), "{text}");
    element.allocate(0, &dma_bufs(Format::Xr24, SIZE)).unwrap();
}

#[test]
fn what_is_to_be_seen_through_is_refused_in_yuv() {
    let Some(_memory) = memory() else { return };
    let place = Value::Array([-8, 0, 16, 16].into_iter().map(Value::Integer).collect());
    let layout = layout([("place", place), ("opacity", Value::Float(0.5))]);
    let mut element = Gpu { inputs: 2, size: Some(SIZE), layout, ..software() }.build().unwrap();
    let text = element.allocate(0, &dma_bufs(Format::Nv12, SIZE)).unwrap_err().to_string();
    assert!(text.contains("nothing can be seen through in NV12") && text.contains("XR24"), "{text}");
    element.allocate(0, &dma_bufs(Format::Xr24, SIZE)).unwrap();
}

#[test]
fn planes_in_different_buffers_are_one_picture() {
    let Some(memory) = memory() else { return };
    let whole = picture_in(&memory, &dma_bufs(Format::Nv12, SIZE), noise(7));
    let parts = [Format::Grey, Format::Grey].into_iter().enumerate().map(|(p, format)| {
        let size = Size::new(SIZE.width, SIZE.height / (p as u32 + 1));
        let (bytes, row) = plane(&whole, p);
        picture_in(&memory, &dma_bufs(format, size), |_, y, x| bytes[y * row + x])
    });
    let segments = parts.map(|b| b.export(0).unwrap()).collect();
    let at = |segment| Plane { segment, offset: 0, stride: 64 };
    let layout = Layout::new(Format::Nv12, Some(Modifier::LINEAR), SIZE.width, SIZE.height, &[at(0), at(1)]).unwrap();
    let split = Shrbuf::import(segments, layout).unwrap();
    let colour = [Colorimetry::default()];

    let of_split = convert(software(), &split, &colour, Format::Xr24, SIZE);

    assert_eq!(of_split[0].1, convert(software(), &whole, &colour, Format::Xr24, SIZE)[0].1);
}

#[test]
fn a_frame_that_is_still_being_written_is_waited_for() {
    let Some(memory) = memory() else { return };
    let source = picture_in(&memory, &dma_bufs(Format::Xr24, SIZE), noise(11));
    let writing = Vgem::open().unwrap().begin(Access::Write, &source, 0);
    let signalled = Arc::new(AtomicBool::new(false));
    let (seen, made) = (Arc::clone(&signalled), Arc::new(AtomicBool::new(false)));
    let came = Arc::clone(&made);
    let probe = Probe(move |_| came.store(seen.load(Ordering::SeqCst), Ordering::SeqCst));
    let frame = Frame::new(source, Timestamp(0), 0);
    let elements: Vec<Box<dyn Element>> =
        vec![Box::new(Feed(vec![frame])), software().build().unwrap(), Box::new(probe)];
    let graph = line(elements, &[dma_bufs(Format::Xr24, SIZE), dma_bufs(Format::Nv12, SIZE)]);
    let writer = std::thread::spawn(move || {
        // Time in which one that did not wait would have made its picture: nothing else says that it waits.
        std::thread::sleep(Duration::from_millis(500));
        signalled.store(true, Ordering::SeqCst);
        writing.end();
    });

    run_well(graph, None);

    writer.join().unwrap();
    assert!(made.load(Ordering::SeqCst), "a picture was made before the source was written");
}

#[test]
fn the_converter_is_there_where_the_environment_asks_for_it() {
    if std::env::var_os("LIBGL_ALWAYS_SOFTWARE").is_none() {
        println!("needs LIBGL_ALWAYS_SOFTWARE: scripts/test-guest runs this in the virtual machine");
        return;
    }
    let kind = shrbuf_elements::gpu::CONVERTER;
    assert_eq!((kind.present)(), Ok(()));
    let mut converter = (kind.make)();
    assert_eq!(converter.role(), Role::Transform);
    let formats = converter.input_offer(0).unwrap().video.len();
    assert_eq!(formats, samplable().count());
}

/// What is said of a buffer that is not taken.
fn import_error(source: &Shrbuf) -> String {
    let mut element = software().build().unwrap();
    element.join(&Environment::new("gpu", shrbuf::Ledger::default()));
    let layout = source.layout();
    let stream = dma_bufs(layout.format, Size::new(layout.width, layout.height));
    element.import(0, &stream, std::slice::from_ref(source)).unwrap_err().to_string()
}

#[test]
fn what_a_gpu_does_not_take_is_refused_with_what_it_would() {
    let Some(memory) = memory() else { return };
    let linear = picture_in(&memory, &dma_bufs(Format::Nv12, SIZE), noise(8));
    let tiled = Layout::new(Format::Nv12, Some(Modifier(0x0100_0000_0000_0001)), 64, 34, linear.layout().planes());
    let fd = linear.export(0).unwrap();
    drop(linear);
    let text = import_error(&Shrbuf::import(vec![fd], tiled.unwrap()).unwrap());
    assert!(text.contains("0x0100000000000001") && text.contains("takes it as LINEAR"), "{text}");

    let mosaic = import_error(&picture_in(&memory, &dma_bufs(Format::Srggb8, SIZE), noise(8)));
    assert!(mosaic.contains("SRGGB8 cannot be sampled") && mosaic.contains("GREY"), "{mosaic}");

    let wide = import_error(&picture_in(&memory, &dma_bufs(Format::Grey, Size::new(40000, 2)), noise(8)));
    assert!(wide.contains("40000x2") && wide.contains("up to"), "{wide}");
}

#[test]
fn what_cannot_be_is_said_before_anything_streams() {
    let Some(_memory) = memory() else { return };
    let mut element = Gpu { device: Some("/dev/dri/renderD999".into()), ..Gpu::default() }.build().unwrap();
    let text = element.input_offer(0).unwrap_err().to_string();
    assert!(text.contains("there is no /dev/dri/renderD999") && text.contains("\"software\""), "{text}");

    let mut element = Gpu { device: Some("/dev/dri/card0".into()), ..Gpu::default() }.build().unwrap();
    let text = element.input_offer(0).unwrap_err().to_string();
    assert!(text.contains("/dev/dri/card0 is no render node that EGL knows; it knows /dev/dri/renderD"), "{text}");

    let mut element = Gpu { crop: Some(Part(rect([60, 0, 8, 8]))), ..software() }.build().unwrap();
    let text = element.output_offer(0, Some(&dma_bufs(Format::Xr24, SIZE))).unwrap_err().to_string();
    assert!(text.contains("crop 8x8 at 60,0 is not inside 64x34"), "{text}");
}

/// With both, Mesa crashes.
#[test]
fn a_gpu_by_its_node_is_refused_where_the_environment_asks_for_none() {
    if std::env::var_os("LIBGL_ALWAYS_SOFTWARE").is_none() {
        println!("needs LIBGL_ALWAYS_SOFTWARE: scripts/test-guest runs this in the virtual machine");
        return;
    }
    let link = std::env::temp_dir().join(format!("gpu-{}", std::process::id()));
    std::os::unix::fs::symlink("/dev/dri/renderD128", &link).unwrap();
    for device in ["/dev/dri/renderD128", link.to_str().unwrap()] {
        let mut element = Gpu { device: Some(device.into()), ..Gpu::default() }.build().unwrap();
        let failure = element.input_offer(0).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Config);
        let expected = "device = \"/dev/dri/renderD128\" asks for a GPU, and LIBGL_ALWAYS_SOFTWARE in the environment \
                        for none: drop the one or the other";
        assert!(failure.to_string().contains(expected), "{failure}");
    }
}

#[test]
fn memfds_are_taken_only_where_copies_are_allowed_and_are_counted_then() {
    let Some(_memory) = memory() else { return };
    let mut element = software().build().unwrap();
    let kinds = |e: &mut Box<dyn Element>| e.input_offer(0).unwrap().memory.kinds.len();
    assert_eq!(kinds(&mut element), 1);
    element.allow_copies(Copies::Allow);
    assert_eq!(kinds(&mut element), 2);

    for from in [Format::Yuyv, Format::Nv12, Format::Rg24, Format::Rg16, Format::Xb24] {
        let source = native::picture(from, ODD, noise(9));
        let input = planes(&source);
        let made = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&made);
        let probe = Probe(move |f: Frame| *keep.lock().unwrap() = Some((f.color, planes(&f.buffer))));
        let frame = Frame::new(source, Timestamp(0), 0);
        let elements: Vec<Box<dyn Element>> =
            vec![Box::new(Feed(vec![frame])), software().build().unwrap(), Box::new(probe)];
        let graph = run_well(line(elements, &[stream(from, ODD), dma_bufs(Format::Xr24, ODD)]), None);
        assert_eq!(graph.ledger().copied(), from.frame_bytes(ODD.width, ODD.height), "{from}");
        let made = made.lock().unwrap().take().unwrap();
        let most = most(Format::Xr24, &made, ODD, |x, y| rgb_of(from, &input, Colorimetry::default(), x, y));
        assert!(most <= STEP, "{from}: {most}");
    }
}

/// What is made of a picture on a machine of memfds, whose bytes go to the renderer and come back.
fn in_memfds(source: &Shrbuf, to: Format) -> Made {
    let from = *source.layout();
    let made = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&made);
    let probe = Probe(move |f: Frame| *keep.lock().unwrap() = Some((f.color, planes(&f.buffer))));
    // The second is made while the first one's way is warm.
    let frames = [0, 1].map(|n| Frame::new(source.clone(), Timestamp(n), n)).to_vec();
    let mut gpu = software().build().unwrap();
    gpu.allow_copies(Copies::Allow);
    let graph = run_well(
        line(vec![Box::new(Feed(frames)), gpu, Box::new(probe)], &[stream(from.format, ODD), stream(to, ODD)]),
        None,
    );
    let bytes = [from.format, to].map(|f| f.frame_bytes(ODD.width, ODD.height));
    assert_eq!(graph.ledger().copied(), 2 * bytes.iter().sum::<u64>(), "{to}");
    let own = graph.counts().into_iter().find(|c| c.name == "e1").unwrap().own;
    assert!(own.contains(&("uploads", 2)) && own.contains(&("downloads", 2)), "{own:?}");
    made.lock().unwrap().take().unwrap()
}

#[test]
fn pictures_come_back_into_memfds_where_copies_are_allowed_and_are_counted_then() {
    let source = native::picture(Format::Nv12, ODD, noise(12));
    let input = planes(&source);
    let color = Colorimetry::default();
    for to in [Format::Xr24, Format::Ab24, Format::Rg24, Format::Rg16] {
        let most = most(to, &in_memfds(&source, to), ODD, |x, y| rgb_of(Format::Nv12, &input, color, x, y));
        let bound = if to == Format::Rg16 { 8.3 / 2.0 } else { STEP };
        assert!(most <= bound, "{to}: {most}");
    }
    for to in [Format::Yuyv, Format::Nv12, Format::Nv21, Format::Yu12, Format::Grey] {
        let most = most(to, &in_memfds(&source, to), ODD, |x, y| {
            let sampled = |c: usize| chroma(to, ODD, x, y, |x, y| sample(Format::Nv12, &input, x, y)[c]);
            let c = |c: usize| if to == Format::Grey { 128.0 } else { sampled(c) };
            [sample(Format::Nv12, &input, x, y)[0], c(1), c(2)]
        });
        assert!(most <= 0.76, "{to}: {most}");
    }
}

#[test]
fn memfds_to_render_into_are_refused_with_words_where_copies_are_denied() {
    let config = || Gpu { memory: Memory::Memfd, ..software() };
    let mut element = config().build().unwrap();
    let failure = element.output_offer(0, Some(&stream(Format::Yuyv, ODD))).unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Config);
    let said = failure.to_string();
    assert!(said.contains("copies = \"allow\"") && said.contains("memory = \"auto\""), "{said}");
    for copies in [Copies::Warn, Copies::Allow] {
        element.allow_copies(copies);
        let offer = element.output_offer(0, Some(&stream(Format::Yuyv, ODD))).unwrap();
        assert_eq!(offer.memory.origins, [Origin::Memfd]);
    }
}

/// As on a machine without udmabuf, dma-heap and cards.
#[test]
fn without_memory_that_a_gpu_reaches_the_copy_rules_decide() {
    let nothing_else = ["/dev/udmabuf", "/dev/dma_heap/system", "/dev/dri"].into_iter().all(|n| !Path::new(n).exists());
    if !nothing_else {
        println!("needs a machine that has no memory but memfds");
        return;
    }
    let graph = |copies| {
        let mut graph = Graph::new("test");
        graph.set_copies(copies);
        let camera = TestSrc { format: Some(Format::Yuyv), size: SIZE, free_run: true, ..TestSrc::default() };
        let (gpu, end) = (Gpu { format: Some(Format::Xr24), ..software() }, NullSink {});
        let all = [("camera", camera.build()), ("gpu", gpu.build()), ("end", end.build())];
        let nodes = all.map(|(name, element)| graph.add(name, element.unwrap()).unwrap());
        nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());
        graph
    };
    let options = NegotiateOptions { converters: &[] };

    let refused = negotiate(&mut graph(Copies::Deny), &options).unwrap_err().to_string();
    let copies = "Or allow a conversion (copies = \"allow\"): YUYV of memfds is uploaded to the GPU, which does not reach \
                  them: a copy; XR24 is downloaded from the GPU into memfds, which it does not reach: a copy.";
    assert!(refused.contains("make dma-bufs") && refused.ends_with(copies), "{refused}");

    // A camera may have dma-bufs of its own; what is made of them has none.
    let mut gpu = software().build().unwrap();
    let refused = gpu.output_offer(0, Some(&dma_bufs(Format::Yuyv, SIZE))).unwrap_err().to_string();
    for said in ["no memory that a GPU can render into", "/dev/udmabuf", "With copies = \"allow\" each picture is"] {
        assert!(refused.contains(said), "{refused}");
    }

    let mut allowed = graph(Copies::Allow);
    let plan = negotiate(&mut allowed, &options).unwrap();
    assert_eq!(plan.links.iter().map(|l| l.memory).collect::<Vec<_>>(), [MemoryKind::Memfd; 2]);
    assert!(plan.links[0].zero_copy && !plan.links[1].zero_copy);
    let reason = &plan.links[1].reason;
    assert!(reason.contains("YUYV of memfds is uploaded") && reason.contains("XR24 is downloaded"), "{reason}");
    let graph = run_well(allowed, Some(3));
    assert_eq!(
        graph.ledger().copied(),
        3 * [Format::Yuyv, Format::Xr24].map(|f| f.frame_bytes(64, 34)).iter().sum::<u64>()
    );
}

#[test]
fn a_frame_that_is_not_as_agreed_is_reported() {
    let Some(memory) = memory() else { return };
    let buffer = picture_in(&memory, &dma_bufs(Format::Uyvy, ODD), noise(0));
    let frames = vec![Frame::new(buffer, Timestamp(0), 0)];
    let mut agreed = picture_in(&memory, &dma_bufs(Format::Yuyv, ODD), noise(0));
    let mut elements: Vec<Box<dyn Element>> =
        vec![Box::new(Feed(frames)), software().build().unwrap(), Box::new(Probe(drop))];
    elements[1].import(0, &dma_bufs(Format::Yuyv, ODD), std::slice::from_mut(&mut agreed)).unwrap();
    elements[1].allocate(0, &dma_bufs(Format::Xr24, ODD)).unwrap();
    let mut graph = Graph::new("test");
    let nodes: Vec<_> =
        elements.into_iter().enumerate().map(|(i, e)| graph.add(&format!("e{i}"), e).unwrap()).collect();
    nodes.windows(2).for_each(|n| graph.link(n[0], n[1]).unwrap());

    let text = run(graph, None).failure.unwrap().to_string();

    assert_eq!(text, "`e1`: source changed: a frame of UYVY 37x21 came, YUYV 37x21 was agreed");
}
