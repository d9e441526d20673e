//! Several inputs in one picture.

use super::*;

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
