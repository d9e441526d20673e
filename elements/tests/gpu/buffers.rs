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
