//! Modifiers, strides, memory, and the trial with real buffers.

use shrbuf_pipeline::Size;

use crate::*;

// Modifiers.

#[test]
fn modifiers_are_taken_in_the_producers_order() {
    let camera = Scripted::source(vec![with_modifiers(video(Xr24, HD, &[60]), &[Y_TILED, X_TILED, 0])]);
    let display = Scripted::sink(vec![with_modifiers(up_to(Xr24, 4096, 4096), &[0, X_TILED])]);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(
        links(&plan),
        ["camera → display: XR24 1280x720 at 60 fps 0x0100000000000001 from v4l2, stride 5120, zero-copy"]
    );
}

#[test]
fn modifier_lists_that_do_not_meet_are_refused_with_both() {
    let camera = Scripted::source(vec![with_modifiers(video(Xr24, HD, &[60]), &[Y_TILED])]);
    let display = Scripted::sink(vec![with_modifiers(up_to(Xr24, 4096, 4096), &[X_TILED, 0])]);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: no modifier of XR24 in common: camera gives 0x0100000000000002; display takes \
         0x0100000000000001, LINEAR\n\
         To make it zero-copy: have camera arrange XR24 as 0x0100000000000001 or LINEAR."
    );
}

#[test]
fn a_producer_without_modifiers_means_linear() {
    let camera = Scripted::source(vec![video(Xr24, HD, &[60])]);
    let display = Scripted::sink(vec![with_modifiers(up_to(Xr24, 4096, 4096), &[X_TILED, 0])]);
    assert_eq!(plan(&mut camera_to_display(camera, display)).links[0].stream.modifier, None);
}

#[test]
fn a_producer_without_modifiers_and_a_display_without_linear_are_refused() {
    let camera = Scripted::source(vec![video(Xr24, HD, &[60])]);
    let display = Scripted::sink(vec![with_modifiers(up_to(Xr24, 4096, 4096), &[X_TILED])]);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: no modifier of XR24 in common: camera gives LINEAR; display takes 0x0100000000000001\n\
         To make it zero-copy: have camera arrange XR24 as 0x0100000000000001."
    );
}

// Strides.

#[test]
fn strides_are_padded_to_the_strictest_consumer() {
    let source = Scripted::source(vec![video(Xr24, &[(1366, 768)], &[60])]).pads_to(4096);
    let sink = |align| Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).aligned(align);
    let plan = plan(&mut fan(source, vec![("mali", None, sink(64)), ("amd", None, sink(256))]));
    assert_eq!(plan.links[0].stride, 5632);
    assert_eq!(plan.links[0].stream.stride_align, 256);
}

#[test]
fn memory_has_room_for_the_blocks_of_every_consumer_of_the_format() {
    let source = || Scripted::source(vec![video(Xr24, &[(640, 360)], &[60])]);
    let sink = |format, width, height| {
        Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).in_blocks(format, Size::new(width, height))
    };
    let both = plan(&mut fan(source(), vec![("mfc", None, sink(Xr24, 16, 16)), ("vpu", None, sink(Xr24, 8, 24))]));
    let stream = both.links[0].stream;
    assert_eq!((stream.block, stream.room()), (Some(Size::new(16, 48)), Size::new(640, 384)));

    let other = plan(&mut fan(source(), vec![("mfc", None, sink(Nv12, 16, 16))]));
    assert_eq!((other.links[0].stream.block, other.links[0].stream.room()), (None, Size::new(640, 360)));

    // One that takes rows of the picture alone, beside one that takes any.
    let tight = plan(&mut fan(source(), vec![("m2m", None, sink(Xr24, 1, 1)), ("gpu", None, sink(Nv12, 16, 16))]));
    assert_eq!(tight.links[0].stream.block, Some(Size::new(1, 1)));
}

#[test]
fn a_stride_that_cannot_be_made_is_refused_with_widths_that_fit() {
    let camera = Scripted::source(vec![video(Xr24, &[(1366, 768)], &[60])]).pads_to(64);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).aligned(256);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: display takes rows of a multiple of 256 bytes; a row of XR24 1366x768 is 5464 bytes, and \
         camera pads to multiples of at most 64\n\
         To make it zero-copy: a width that is a multiple of 64 pixels."
    );
}

#[test]
fn a_size_whose_rows_fit_is_taken_where_strides_cannot_be_made() {
    let camera = Scripted::source(vec![video(Xr24, &[(1366, 768), (1280, 720)], &[60])]).pads_to(64);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).aligned(256);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: XR24 1280x720 at 60 fps from v4l2, stride 5120, zero-copy"]);
}

#[test]
fn a_driver_that_pads_on_its_own_is_believed_once_it_has() {
    let camera = Scripted::source(vec![video(Yuyv, &[(1366, 768)], &[60])]).driver_pads_to(256);
    let display = Scripted::sink(vec![up_to(Yuyv, 4096, 4096)]).aligned(256);
    assert_eq!(plan(&mut camera_to_display(camera, display)).links[0].stride, 2816);
}

#[test]
fn a_driver_that_does_not_pad_is_refused_with_the_stride_it_made() {
    let mut as_drivers_do = video(Xr24, &[(1366, 768)], &[60]);
    as_drivers_do.format = Xr24;
    let camera = Scripted::source(vec![as_drivers_do]).driver_strides_alone();
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).aligned(256);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: every candidate was refused when tried\n  \
         XR24 1366x768 at 60 fps from v4l2: display: takes strides of a multiple of 256 bytes, this is 5464"
    );
}

/// As a driver whose AddFB2 refuses strides that are no multiple of `bytes`, and says so nowhere before.
fn refuses_all_but(bytes: u32) -> Scripted {
    Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).importing(move |_, layout| {
        let stride = layout.planes()[0].stride;
        let refused = || Refusal::new(format!("AddFB2 refuses a stride of {stride}"));
        if stride.is_multiple_of(bytes) { Ok(()) } else { Err(refused()) }
    })
}

#[test]
fn a_stride_that_the_importer_refuses_is_padded_where_the_producer_can() {
    for (wants, stride) in [(64, 5504), (256, 5632)] {
        let camera = Scripted::source(vec![video(Xr24, &[(1366, 768)], &[60])]).pads_to(4096);
        let plan = plan(&mut camera_to_display(camera, refuses_all_but(wants)));
        assert_eq!((plan.links[0].stream.stride_align, plan.links[0].stride), (wants, stride));
    }
}

#[test]
fn a_stride_is_not_padded_where_that_changes_nothing_or_nobody_can() {
    let refuse = |pads: u32, width: u32| {
        let log = Log::default();
        let camera = Scripted::source(vec![video(Xr24, &[(width, 768)], &[60])]).pads_to(pads).log(&log);
        let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).importing(|_, _| Err(Refusal::new("no")));
        let mut graph = camera_to_display(camera, display);
        // Else it is tried once more, for what copies would change.
        graph.set_copies(Copies::Allow);
        message(&mut graph);
        log.lines().len()
    };
    assert_eq!(refuse(1, 1366), 1, "the driver alone decides");
    assert_eq!(refuse(64, 1366), 2, "once more with what it can do");
    assert_eq!(refuse(4096, 1366), 3);
    assert_eq!(refuse(4096, 1280), 1, "its rows are a multiple of 256 already");
}

// Who may write.

#[test]
fn memory_is_for_reading_alone_where_a_consumer_passes_it_on() {
    let plan_of = |display| plan(&mut camera_to_display(Scripted::source(vec![video(Xr24, HD, &[60])]), display));
    let display = || Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert!(!plan_of(display()).links[0].stream.read_only);
    assert!(plan_of(display().read_only()).links[0].stream.read_only);
}

// Planes in one buffer or several.

#[test]
fn planes_in_one_buffer_each_are_taken_where_the_importer_may() {
    let camera = Scripted::source(vec![split(video(Nv12, HD, &[60]))]);
    let display = Scripted::sink(vec![split(up_to(Nv12, 4096, 4096))]);
    let plan = plan(&mut camera_to_display(camera, display));
    assert!(plan.links[0].stream.plane_segments);
}

#[test]
fn planes_in_one_buffer_are_taken_where_the_importer_wants_one() {
    let camera = Scripted::source(vec![split(video(Nv12, HD, &[60])), video(Nv12, HD, &[60])]);
    let display = Scripted::sink(vec![up_to(Nv12, 4096, 4096)]);
    let plan = plan(&mut camera_to_display(camera, display));
    assert!(!plan.links[0].stream.plane_segments);
}

#[test]
fn planes_in_several_buffers_for_an_importer_that_wants_one_are_refused() {
    let camera = Scripted::source(vec![split(video(Nv12, HD, &[60]))]);
    let display = Scripted::sink(vec![up_to(Nv12, 4096, 4096)]);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: camera gives NV12 with each plane in a buffer of its own; display takes all in one\n\
         To make it zero-copy: have camera give NV12 in one buffer, or a format of one plane."
    );
}

#[test]
fn a_driver_that_splits_planes_unasked_is_found_out_by_the_trial() {
    let camera = Scripted::source(vec![video(Nv12, HD, &[60])]).driver_splits();
    let display = Scripted::sink(vec![up_to(Nv12, 4096, 4096)]);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: every candidate was refused when tried\n  \
         NV12 1280x720 at 60 fps from v4l2: display: takes all planes in one buffer, these are in 2"
    );
}

// Memory.

#[test]
fn memory_that_a_display_cannot_import_is_refused() {
    let test = Scripted::source(vec![up_to(Xr24, 1280, 720)]).origins(&[Origin::Memfd]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(
        message(&mut camera_to_display(test, display)),
        "camera → display: no memory in common: camera allocates from memfd; display imports dma-buf\n\
         To make it zero-copy: have camera allocate dma-buf memory; /dev/udmabuf and /dev/dma_heap make dma-bufs where \
         this user may open them."
    );
}

#[test]
fn memory_is_taken_in_the_producers_order_of_what_all_import() {
    let test =
        Scripted::source(vec![up_to(Xr24, 1280, 720)]).origins(&[Origin::Memfd, Origin::Udmabuf, Origin::DmaHeap]);
    let both = [MemoryKind::Memfd, MemoryKind::DmaBuf];
    let screen = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).kinds(&both);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    let plan = plan(&mut fan(test, vec![("screen", None, screen), ("display", None, display)]));
    assert_eq!(plan.links[0].stream.origin, Origin::Udmabuf);
}

// The trial.

#[test]
fn an_importer_that_fails_at_the_trial_makes_the_next_candidate_be_taken() {
    let log = Log::default();
    let camera = Scripted::source(vec![video(Xr24, HD, &[60, 30]), video(Rg16, HD, &[60, 30])]).log(&log);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096), up_to(Rg16, 4096, 4096)])
        .importing(|s, _| refuse_if(s.format == Xr24, "AddFB2: EINVAL"))
        .log(&log);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: RG16 1280x720 at 60 fps from v4l2, stride 2560, zero-copy"]);
    assert_eq!(plan.rejected, ["camera → display as XR24 1280x720 at 60 fps from v4l2: display: AddFB2: EINVAL"]);
    assert_eq!(
        log.lines(),
        ["allocate XR24 1280x720", "import XR24 1280x720", "allocate RG16 1280x720", "import RG16 1280x720"]
    );
}

#[test]
fn what_works_is_allocated_and_imported_once() {
    let log = Log::default();
    let camera = Scripted::source(vec![video(Xr24, HD, &[60])]).log(&log);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).log(&log);
    plan(&mut camera_to_display(camera, display));
    assert_eq!(log.lines(), ["allocate XR24 1280x720", "import XR24 1280x720"]);
}

#[test]
fn a_refusal_by_every_candidate_is_told_with_what_was_tried() {
    let camera = Scripted::source(vec![video(Xr24, HD, &[60]), video(Rg16, HD, &[60])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096), up_to(Rg16, 4096, 4096)]).importing(|_, _| {
        Err(Refusal::new("TEST_ONLY commit: ERANGE").instead("the plane does not scale: 1024x768 would fit"))
    });
    assert_eq!(
        message_with(&mut camera_to_display(camera, display), Copies::Deny),
        "camera → display: every candidate was refused when tried\n  \
         XR24 1280x720 at 60 fps from v4l2: display: TEST_ONLY commit: ERANGE; the plane does not scale: 1024x768 would fit\n  \
         RG16 1280x720 at 60 fps from v4l2: display: TEST_ONLY commit: ERANGE; the plane does not scale: 1024x768 would fit"
    );
}

#[test]
fn an_import_refused_for_one_memory_gets_a_copy_into_another_where_allowed() {
    let camera = Scripted::source(vec![video(Xr24, HD, &[60])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)])
        .importing(|s, _| refuse_if(s.origin == Origin::V4l2, "PRIME_FD_TO_HANDLE: not contiguous"));
    let plan = plan_with(&mut camera_to_display(camera, display), Copies::Allow);
    assert_eq!(
        reasons(&plan)[1],
        "a copy of XR24 into udmabuf memory writes 3.7 MB per frame, 221 MB/s; a copy is needed: \
         XR24 1280x720 at 60 fps from v4l2: display: PRIME_FD_TO_HANDLE: not contiguous"
    );
}

#[test]
fn an_allocation_that_is_refused_makes_the_next_candidate_be_taken() {
    let camera = Scripted::source(vec![video(Xr24, &[(3840, 2160), (1280, 720)], &[30])])
        .allocating(|s| refuse_if(s.size.width > 1920, "VIDIOC_REQBUFS: ENOMEM"));
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: XR24 1280x720 at 30 fps from v4l2, stride 5120, zero-copy"]);
    assert_eq!(
        plan.rejected,
        ["camera → display as XR24 3840x2160 at 30 fps from v4l2: camera: VIDIOC_REQBUFS: ENOMEM"]
    );
}

#[test]
fn a_refusal_of_memory_is_not_tried_again_at_another_rate() {
    let log = Log::default();
    let camera = Scripted::source(vec![video(Xr24, HD, &[60, 30, 15])]).log(&log);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).importing(|_, _| Err(Refusal::new("AddFB2: EINVAL")));
    let mut graph = camera_to_display(camera, display);
    graph.set_copies(Copies::Allow);
    assert_eq!(
        message(&mut graph),
        "camera → display: every candidate was refused when tried\n  \
         XR24 1280x720 at 60 fps from v4l2: display: AddFB2: EINVAL\n\
         Copies are allowed, but there is no converter."
    );
    assert_eq!(log.lines(), ["allocate XR24 1280x720"]);
}

#[test]
fn a_driver_that_makes_another_size_of_it_is_found_out_by_the_trial() {
    let camera = Scripted::source(vec![video(Xr24, &[(1366, 768), (1280, 720)], &[60])]).driver_rounds_up_to(16);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: XR24 1280x720 at 60 fps from v4l2, stride 5120, zero-copy"]);
    assert_eq!(
        plan.rejected,
        ["camera → display as XR24 1366x768 at 60 fps from v4l2: camera: made XR24 1376x768 LINEAR of it"]
    );
}

#[test]
fn the_number_of_trials_is_bounded_and_said_so() {
    let sizes: Vec<_> = (1..=100).map(|n| (n * 16, n * 9)).collect();
    let camera = Scripted::source(vec![video(Xr24, &sizes, &[30])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).importing(|_, _| Err(Refusal::new("AddFB2: EINVAL")));
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: every candidate was refused when tried\n  \
         XR24 1600x900 at 30 fps from v4l2: display: AddFB2: EINVAL\n  \
         XR24 1584x891 at 30 fps from v4l2: display: AddFB2: EINVAL\n  \
         XR24 1568x882 at 30 fps from v4l2: display: AddFB2: EINVAL\n  \
         and 61 more\n  \
         36 candidates were not tried any more"
    );
}
