//! Memory that no GPU reaches.

use super::*;

#[test]
fn memfds_are_taken_only_where_copies_are_allowed_and_are_counted_then() {
    let Some(_memory) = memory() else { return };
    let mut element = software().build().unwrap();
    let kinds = |e: &mut Box<dyn Element>| e.input_offer(0).unwrap().memory.kinds.len();
    assert_eq!(kinds(&mut element), 1);
    for copies in [Copies::Warn, Copies::Allow] {
        element.allow_copies(copies);
        assert_eq!(kinds(&mut element), 2);
    }

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
