//! How many buffers, and what tees and transforms make of that.

use crate::*;

// Buffers.

#[test]
fn as_many_buffers_are_asked_for_as_the_graph_holds_at_once() {
    let plan = plan(&mut camera_display_encoder(32, 32, queue(3, Full::Block)));
    let holders = [("camera", 2), ("display", 2), ("encoder", 4), ("queue tee.out1→encoder", 3)];
    let holders = holders.map(|(name, n)| (name.to_owned(), n)).to_vec();
    assert_eq!(plan.budgets, [Budget { producer: "camera".into(), holders, granted: 11 }]);
}

#[test]
fn more_buffers_than_the_camera_has_are_refused_with_the_sum() {
    assert_eq!(
        message(&mut camera_display_encoder(8, 8, queue(3, Full::Block))),
        "camera → display, encoder: not enough buffers: camera keeps 2, display holds 2, encoder holds 4, \
         queue tee.out1→encoder holds 3 = 11; camera gives at most 8"
    );
}

#[test]
fn shorter_queues_are_advised_where_they_would_do() {
    assert_eq!(
        message(&mut camera_display_encoder(9, 9, queue(3, Full::Block))),
        "camera → display, encoder: not enough buffers: camera keeps 2, display holds 2, encoder holds 4, \
         queue tee.out1→encoder holds 3 = 11; camera gives at most 9\n\
         To make it zero-copy: queues that hold 2 fewer."
    );
}

#[test]
fn properties_that_decide_what_a_consumer_holds_are_advised_where_they_would_do() {
    let passes_on = |least| {
        let mut sink = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
        let memory = &mut sink.input.as_mut().unwrap().memory;
        memory.holds = 40;
        memory.set_by = Some(SetBy { properties: "`consumers` or `window`", least });
        message(&mut camera_to_display(Scripted::source(vec![video(Xr24, HD, &[60])]), sink))
    };
    let refused =
        "camera → display: not enough buffers: camera keeps 2, display holds 40 = 42; camera gives at most 32";
    let advised = "\nTo make it zero-copy: a lower `consumers` or `window` of display, so that it holds 10 fewer.";
    assert_eq!(passes_on(30), format!("{refused}{advised}"));
    assert_eq!(passes_on(31), refused);
}

#[test]
fn a_queue_that_keeps_the_latest_counts_one_whatever_its_depth() {
    let plan = plan(&mut camera_display_encoder(9, 9, queue(30, Full::Latest)));
    assert_eq!(plan.budgets[0].granted, 9);
}

#[test]
fn a_driver_that_gives_fewer_buffers_is_refused_with_the_sum() {
    assert_eq!(
        message(&mut camera_display_encoder(32, 6, None)),
        "camera → display, encoder: every candidate was refused when tried\n  \
         XR24 1280x720 at 60 fps from v4l2: camera: gave 6 buffers, needed are camera keeps 2, display holds 2, \
         encoder holds 4 = 8"
    );
}

#[test]
fn a_driver_that_gives_more_buffers_at_a_smaller_size_is_taken_at_that_size() {
    let camera = Scripted::source(vec![video(Xr24, &[(1920, 1080), (640, 480)], &[30])])
        .allocating(|s| refuse_if(s.size.width == 1920, "gave 3 of 4 buffers: contiguous memory is used up"));
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(plan(&mut camera_to_display(camera, display)).links[0].stream.size.width, 640);
}

#[test]
fn a_queue_in_front_of_several_consumers_counts_once() {
    let mut graph = Graph::new("test");
    let camera = graph.add("camera", Box::new(Scripted::source(vec![video(Xr24, HD, &[60])]))).unwrap();
    let tee = graph.add("tee", Box::<Tee>::default()).unwrap();
    graph.link_queued(camera, tee, QueueSpec { depth: 3, full: Full::Block }).unwrap();
    for name in ["left", "right"] {
        let sink = graph.add(name, Box::new(Scripted::sink(vec![up_to(Xr24, 4096, 4096)]))).unwrap();
        graph.link(tee, sink).unwrap();
    }
    let plan = plan(&mut graph);
    assert_eq!(plan.budgets[0].granted, 2 + 2 + 2 + 3);
    assert_eq!(
        reasons(&plan)[..2],
        [
            "all do XR24; left and right import camera's dma-bufs",
            "all do XR24; left and right import camera's dma-bufs"
        ]
    );
}

#[test]
fn buffers_that_a_slow_consumer_holds_are_freed_by_a_copy_where_allowed() {
    let plan = plan_with(&mut camera_display_encoder(5, 5, None), Copies::Allow);
    let copied: Vec<_> = plan.links.iter().filter(|l| !l.zero_copy).map(|l| l.to.as_str()).collect();
    assert_eq!(copied, ["encoder"]);
    assert_eq!(plan.budgets[0].granted, 5);
}

#[test]
fn buffers_that_a_driver_does_not_give_are_freed_by_a_copy_where_allowed() {
    let plan = plan_with(&mut camera_display_encoder(32, 6, None), Copies::Allow);
    assert_eq!(
        plan.rejected,
        [
            "camera → display, encoder as XR24 1280x720 at 60 fps from v4l2: camera: gave 6 buffers, needed are \
             camera keeps 2, display holds 2, encoder holds 4 = 8",
            "camera → camera→display convert, encoder as XR24 1280x720 at 60 fps from v4l2: camera: gave 6 buffers, \
             needed are camera keeps 2, camera→display convert holds 1, encoder holds 4 = 7"
        ]
    );
    assert_eq!(plan.budgets[0].granted, 5);
}

// Tees.

#[test]
fn three_consumers_of_one_stream_agree() {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60]), video(Xr24, HD, &[60]), video(Nv12, HD, &[60])]);
    let sink = |formats: &[shrbuf::Format]| Scripted::sink(formats.iter().map(|&f| up_to(f, 4096, 4096)).collect());
    let sinks = vec![
        ("display", None, sink(&[Xr24, Nv12])),
        ("encoder", None, sink(&[Nv12])),
        ("file", None, sink(&[Yuyv, Nv12])),
    ];
    let plan = plan(&mut fan(camera, sinks));
    assert_eq!(
        links(&plan),
        [
            "camera → tee: NV12 1280x720 at 60 fps from v4l2, stride 1280, zero-copy",
            "tee.out0 → display: NV12 1280x720 at 60 fps from v4l2, stride 1280, zero-copy",
            "tee.out1 → encoder: NV12 1280x720 at 60 fps from v4l2, stride 1280, zero-copy",
            "tee.out2 → file: NV12 1280x720 at 60 fps from v4l2, stride 1280, zero-copy",
        ]
    );
}

#[test]
fn behind_a_tee_only_the_branch_that_cannot_import_is_copied() {
    let plan = plan_with(&mut one_of_two_imports(), Copies::Allow);
    assert_eq!(
        links(&plan),
        [
            "camera → tee: YUYV 1280x720 at 60 fps from v4l2, stride 2560, zero-copy",
            "tee.out0 → encoder: YUYV 1280x720 at 60 fps from v4l2, stride 2560, zero-copy",
            "tee.out1 → camera→display convert: YUYV 1280x720 at 60 fps from v4l2, stride 2560, zero-copy",
            "camera→display convert → display: XR24 1280x720 at 60 fps LINEAR from udmabuf, stride 5120, copied",
        ]
    );
}

#[test]
fn behind_a_tee_the_branch_that_cannot_import_is_named() {
    assert_eq!(
        message_with(&mut one_of_two_imports(), Copies::Deny),
        "camera → display: no format in common: camera gives YUYV; display takes XR24\n\
         To make it zero-copy: have camera give XR24, or display take YUYV.\n\
         Or allow a conversion (copies = \"allow\"): YUYV → XR24 writes 3.7 MB per frame, 221 MB/s."
    );
}

#[test]
fn of_two_branches_in_conflict_the_cheaper_one_is_copied() {
    let camera = Scripted::source(vec![video(Xr24, HD, &[60]), video(Nv12, HD, &[60])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    let encoder = Scripted::sink(vec![up_to(Nv12, 4096, 4096)]);
    let plan = plan_with(&mut fan(camera, vec![("display", None, display), ("encoder", None, encoder)]), Copies::Allow);
    let copied: Vec<_> = plan.links.iter().filter(|l| !l.zero_copy).map(|l| l.reason.as_str()).collect();
    assert_eq!(
        copied,
        ["NV12 → XR24 writes 3.7 MB per frame, 221 MB/s; a copy is needed: no format in common: \
          camera gives XR24, NV12; display takes XR24; encoder takes NV12"]
    );
}

#[test]
fn the_converter_sits_behind_the_queue_directly_before_its_consumer() {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    let mut graph = Graph::new("test");
    let camera = graph.add("camera", Box::new(camera)).unwrap();
    let display = graph.add("display", Box::new(display)).unwrap();
    graph.link_queued(camera, display, QueueSpec::default()).unwrap();
    let ends: Vec<_> =
        plan_with(&mut graph, Copies::Allow).links.into_iter().map(|l| format!("{} → {}", l.from, l.to)).collect();
    assert_eq!(
        ends,
        ["camera → camera→display", "camera→display → camera→display convert", "camera→display convert → display"]
    );
}

// Transforms.

#[test]
fn a_chain_of_transforms_is_negotiated_end_to_end() {
    let camera = Scripted::source(vec![video(shrbuf::Format::Srggb10, HD, &[60])]);
    let isp = Scripted::transform(vec![up_to(shrbuf::Format::Srggb10, 4096, 4096)], same_size(Nv12));
    let gpu = Scripted::transform(vec![up_to(Nv12, 4096, 4096)], same_size(Xr24));
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    let plan = plan(&mut row(vec![("camera", camera), ("isp", isp), ("gpu", gpu), ("display", display)]));
    assert_eq!(
        links(&plan),
        [
            "camera → isp: SRGGB10 1280x720 at 60 fps from v4l2, stride 2560, zero-copy",
            "isp → gpu: NV12 1280x720 at 60 fps LINEAR from v4l2, stride 1280, zero-copy",
            "gpu → display: XR24 1280x720 at 60 fps LINEAR from v4l2, stride 5120, zero-copy",
        ]
    );
    assert_eq!(plan.budgets.len(), 3);
}

#[test]
fn a_size_wanted_behind_a_transform_decides_before_anything_is_allocated() {
    let log = Log::default();
    let camera = Scripted::source(vec![video(Yuyv, &[(1920, 1080), (640, 480)], &[60, 30])]).log(&log);
    let gpu = Scripted::transform(vec![up_to(Yuyv, 4096, 4096)], same_size(Xr24));
    let display = Scripted::sink(vec![video(Xr24, &[(640, 480)], &[30])]);
    let plan = plan(&mut row(vec![("camera", camera), ("gpu", gpu), ("display", display)]));
    assert_eq!(links(&plan)[0], "camera → gpu: YUYV 640x480 at 30 fps from v4l2, stride 1280, zero-copy");
    assert_eq!(log.lines(), ["allocate YUYV 640x480"]);
}

#[test]
fn a_trial_that_fails_behind_a_transform_goes_back_to_the_camera() {
    let camera = Scripted::source(vec![video(Yuyv, &[(1920, 1080), (640, 480)], &[30])]);
    let gpu = Scripted::transform(vec![up_to(Yuyv, 4096, 4096)], same_size(Xr24));
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)])
        .importing(|s, _| refuse_if(s.size.width > 1024, "AddFB2: larger than the plane"));
    let plan = plan(&mut row(vec![("camera", camera), ("gpu", gpu), ("display", display)]));
    assert_eq!(links(&plan)[1], "gpu → display: XR24 640x480 at 30 fps LINEAR from v4l2, stride 2560, zero-copy");
    assert_eq!(
        plan.rejected,
        ["gpu → display as XR24 1920x1080 at 30 fps LINEAR from v4l2: display: AddFB2: larger than the plane"]
    );
}

#[test]
fn a_dead_end_behind_a_transform_is_refused_with_what_the_transform_gets() {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60])]);
    let gpu = Scripted::transform(vec![up_to(Yuyv, 4096, 4096)], same_size(Ar24));
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(
        message(&mut row(vec![("camera", camera), ("gpu", gpu), ("display", display)])),
        "gpu → display: no format in common: gpu gives AR24; display takes XR24\n\
         gpu makes it of YUYV 1280x720 at 60 fps from v4l2\n\
         To make it zero-copy: have gpu give XR24, or display take AR24."
    );
}

#[test]
fn a_scaler_makes_the_size_that_the_display_would_choose() {
    let camera = Scripted::source(vec![video(Yuyv, &[(640, 480)], &[60])]);
    let scaler = Scripted::transform(vec![up_to(Yuyv, 4096, 4096)], |_| vec![up_to(Xr24, 4096, 4096)]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).natural(1024, 768);
    let plan = plan(&mut row(vec![("camera", camera), ("scaler", scaler), ("display", display)]));
    assert_eq!(links(&plan)[1], "scaler → display: XR24 1024x768 at 60 fps LINEAR from v4l2, stride 4096, zero-copy");
}
