//! Buffers as they come: in parts, still being written, not as agreed.

use super::*;

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
    let mut writing = Some(Vgem::open().unwrap().begin(Access::Write, &source, 0));
    let written = Arc::new(AtomicBool::new(false));
    let says = Arc::clone(&written);
    // Mesa's renderer for the CPU waits on the thread that gives it work.
    let before = Watch::new(move |_| {
        let (writing, says) = (writing.take().unwrap(), Arc::clone(&says));
        once_polling(move || {
            says.store(true, Ordering::SeqCst);
            writing.end();
        });
    });
    let made = Arc::new(AtomicBool::new(false));
    let came = Arc::clone(&made);
    let probe = Probe(move |_| came.store(written.load(Ordering::SeqCst), Ordering::SeqCst));
    let mut gpu = software().build().unwrap();
    gpu.import(0, &dma_bufs(Format::Xr24, SIZE), std::slice::from_ref(&source)).unwrap();
    gpu.allocate(0, &dma_bufs(Format::Nv12, SIZE)).unwrap();
    let feed = Feed(vec![Frame::new(source, Timestamp(0), 0)]);
    let mut graph = Graph::new("test");
    let elements: [(&str, Box<dyn Element>); 4] =
        [("feed", Box::new(feed)), ("before", before), ("gpu", gpu), ("probe", Box::new(probe))];
    let nodes = elements.map(|(name, element)| graph.add(name, element).unwrap());
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());

    run_well(graph, None);

    assert!(made.load(Ordering::SeqCst), "a picture was made before the source was written");
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
