//! Negotiation by cases: each has the plan or the message that it must lead to.

mod scripted;

use std::time::Duration;

use scripted::*;
use shrbuf::Format::{Ar24, Grey, Nv12, Rg16, Xr24, Yuyv};
use shrbuf::MemoryKind;
use shrbuf_pipeline::graph::Port;
use shrbuf_pipeline::plan::Budget;
use shrbuf_pipeline::solve::{NegotiateOptions, NegotiationError, negotiate};
use shrbuf_pipeline::{Copies, Full, Graph, GraphError, Origin, QueueSpec, Rate, Rates, Refusal, Video, Wanted};

const HD: &[(u32, u32)] = &[(1280, 720)];
const X_TILED: u64 = 0x0100_0000_0000_0001;
const Y_TILED: u64 = 0x0100_0000_0000_0002;

fn camera_to_display(camera: Scripted, display: Scripted) -> Graph {
    row(vec![("camera", camera), ("display", display)])
}

fn queue(depth: u32, full: Full) -> Option<QueueSpec> {
    Some(QueueSpec { depth, full })
}

// Formats.

#[test]
fn one_format_in_common_is_taken() {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60]), video(Xr24, HD, &[60])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096), up_to(Rg16, 4096, 4096)]);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: XR24 1280x720 at 60 fps from v4l2, stride 5120, zero-copy"]);
    assert_eq!(reasons(&plan), ["both do XR24; display imports camera's dma-bufs"]);
    let holders = vec![("camera".into(), 2), ("display".into(), 2)];
    assert_eq!(plan.budgets, [Budget { producer: "camera".into(), holders, granted: 4 }]);
    assert_eq!(plan.rejected, [""; 0]);
}

#[test]
fn of_several_formats_the_producers_first_is_taken() {
    let camera = Scripted::source(vec![video(Rg16, HD, &[60]), video(Xr24, HD, &[60])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096), up_to(Rg16, 4096, 4096)]);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: RG16 1280x720 at 60 fps from v4l2, stride 2560, zero-copy"]);
}

#[test]
fn the_format_that_a_sink_asks_for_is_taken() {
    let camera = Scripted::source(vec![video(Rg16, HD, &[60]), video(Xr24, HD, &[60])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096), up_to(Rg16, 4096, 4096)]).wanted(want_format(Xr24));
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: XR24 1280x720 at 60 fps from v4l2, stride 5120, zero-copy"]);
}

#[test]
fn no_format_in_common_is_refused_with_both_lists_and_the_cost_of_a_conversion() {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60]), video(Nv12, HD, &[60])]);
    let display = Scripted::sink(vec![Xr24, Ar24, Rg16].into_iter().map(|f| up_to(f, 4096, 4096)).collect());
    assert_eq!(
        message_with(&mut camera_to_display(camera, display), Copies::Deny),
        "camera → display: no format in common: camera gives YUYV, NV12; display takes XR24, AR24, RG16\n\
         To make it zero-copy: have camera give XR24, AR24 or RG16, or display take YUYV or NV12.\n\
         Or allow a conversion (copies = \"allow\"): YUYV → XR24 writes 3.7 MB per frame, 221 MB/s."
    );
}

#[test]
fn a_format_asked_for_that_no_plane_takes_is_refused_with_the_one_that_fits() {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60]), video(Xr24, HD, &[60])]).wanted(want_format(Yuyv));
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: no format in common: camera is asked for YUYV (it gives YUYV, XR24); display takes XR24\n\
         To make it zero-copy: leave out `format` of camera (it would be XR24 1280x720 at 60 fps from v4l2)."
    );
}

#[test]
fn a_format_asked_for_that_the_camera_lacks_is_refused_with_its_list() {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60]), video(Nv12, HD, &[60])]).wanted(want_format(Xr24));
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(message(&mut camera_to_display(camera, display)), "camera is asked for XR24, but has YUYV, NV12");
}

#[test]
fn two_users_who_ask_for_different_formats_are_refused_by_name() {
    let formats = || vec![video(Xr24, HD, &[60]), video(Rg16, HD, &[60])];
    let camera = Scripted::source(formats()).wanted(want_format(Xr24));
    let display = Scripted::sink(formats()).wanted(want_format(Rg16));
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: camera is asked for XR24, display for RG16\n\
         To make it zero-copy: leave out `format` of camera (it would be RG16 1280x720 at 60 fps from v4l2); \
         or leave out `format` of display (it would be XR24 1280x720 at 60 fps from v4l2)."
    );
}

// Copies.

fn yuyv_camera_to_rgb_display() -> Graph {
    let camera = Scripted::source(vec![video(Yuyv, &[(640, 480), (1280, 720)], &[30, 60])]);
    camera_to_display(camera, Scripted::sink(vec![up_to(Rg16, 4096, 4096), up_to(Xr24, 4096, 4096)]))
}

const CONVERTED: [&str; 2] = [
    "camera → camera→display convert: YUYV 1280x720 at 60 fps from v4l2, stride 2560, zero-copy",
    "camera→display convert → display: XR24 1280x720 at 60 fps LINEAR from udmabuf, stride 5120, copied",
];

#[test]
fn yuyv_to_rgb_with_copies_denied_is_refused() {
    assert_eq!(
        message_with(&mut yuyv_camera_to_rgb_display(), Copies::Deny),
        "camera → display: no format in common: camera gives YUYV; display takes RG16, XR24\n\
         To make it zero-copy: have camera give RG16 or XR24, or display take YUYV.\n\
         Or allow a conversion (copies = \"allow\"): YUYV → XR24 writes 3.7 MB per frame, 221 MB/s."
    );
}

#[test]
fn yuyv_to_rgb_with_copies_allowed_gets_a_converter_that_keeps_all_bits() {
    let plan = plan_with(&mut yuyv_camera_to_rgb_display(), Copies::Allow);
    assert_eq!(links(&plan), CONVERTED);
    assert_eq!(
        reasons(&plan),
        [
            "both do YUYV; camera→display convert imports camera's dma-bufs",
            "YUYV → XR24 writes 3.7 MB per frame, 221 MB/s; a copy is needed: \
             no format in common: camera gives YUYV; display takes RG16, XR24"
        ]
    );
    assert!(!plan.is_zero_copy());
}

#[test]
fn yuyv_to_rgb_with_copies_warned_is_logged_once_at_negotiation() {
    let (plan, warnings) = warnings_of(|| plan_with(&mut yuyv_camera_to_rgb_display(), Copies::Warn));
    assert_eq!(links(&plan), CONVERTED);
    assert_eq!(
        warnings,
        ["YUYV → XR24 writes 3.7 MB per frame, 221 MB/s; a copy is needed: \
          no format in common: camera gives YUYV; display takes RG16, XR24"]
    );
}

#[test]
fn copies_allowed_without_a_converter_are_refused() {
    let mut graph = yuyv_camera_to_rgb_display();
    graph.set_copies(Copies::Allow);
    assert_eq!(
        message(&mut graph),
        "camera → display: no format in common: camera gives YUYV; display takes RG16, XR24\n\
         To make it zero-copy: have camera give RG16 or XR24, or display take YUYV.\n\
         Copies are allowed, but there is no converter."
    );
}

#[test]
fn copies_are_not_made_where_none_is_needed() {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60]), video(Xr24, HD, &[60])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    let plan = plan_with(&mut camera_to_display(camera, display), Copies::Allow);
    assert_eq!(links(&plan), ["camera → display: XR24 1280x720 at 60 fps from v4l2, stride 5120, zero-copy"]);
}

#[test]
fn a_conversion_never_drops_colour_where_another_keeps_it() {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60])]);
    let display = Scripted::sink(vec![up_to(Grey, 4096, 4096), up_to(Ar24, 4096, 4096)]);
    let plan = plan_with(&mut camera_to_display(camera, display), Copies::Allow);
    assert_eq!(plan.links[1].stream.format, Ar24);
}

#[test]
fn a_transfer_of_the_same_format_is_cheaper_than_a_conversion() {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60]), video(Xr24, HD, &[60])]).origins(&[Origin::Memfd]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    let plan = plan_with(&mut camera_to_display(camera, display), Copies::Allow);
    assert_eq!(
        reasons(&plan),
        [
            "both do XR24; camera→display convert maps camera's memfds",
            "a copy of XR24 into udmabuf memory writes 3.7 MB per frame, 221 MB/s; a copy is needed: \
             no memory in common: camera allocates from memfd; display imports dma-buf"
        ]
    );
}

#[test]
fn a_format_that_the_converter_cannot_read_either_is_refused_with_both_reasons() {
    let camera = Scripted::source(vec![video(shrbuf::Format::Srggb10, HD, &[60])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(
        message_with(&mut camera_to_display(camera, display), Copies::Allow),
        "camera → display: no format in common: camera gives SRGGB10; display takes XR24\n\
         To make it zero-copy: have camera give XR24, or display take SRGGB10.\n\
         A conversion does not help: camera → camera→display convert: no format in common: camera gives SRGGB10; \
         camera→display convert takes XR24, AR24, RG16, NV12, GREY, YUYV."
    );
}

// Sizes.

#[test]
fn nobody_asks_and_the_largest_common_size_is_taken() {
    let camera = Scripted::source(vec![video(Xr24, &[(640, 480), (1920, 1080), (1280, 720)], &[30])]);
    let display = Scripted::sink(vec![up_to(Xr24, 1600, 1200)]);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: XR24 1280x720 at 30 fps from v4l2, stride 5120, zero-copy"]);
}

#[test]
fn the_displays_own_size_comes_before_the_largest() {
    let camera = Scripted::source(vec![video(Xr24, &[(640, 480), (1920, 1080), (1280, 720)], &[30])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).natural(1280, 720);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: XR24 1280x720 at 30 fps from v4l2, stride 5120, zero-copy"]);
}

#[test]
fn a_plane_smaller_than_the_mode_is_taken_where_asked_for() {
    let camera = Scripted::source(vec![video(Xr24, &[(640, 480), (1280, 720)], &[30])]).wanted(want_size(640, 480));
    let display = Scripted::sink(vec![up_to(Xr24, 1280, 720)]).natural(1280, 720);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: XR24 640x480 at 30 fps from v4l2, stride 2560, zero-copy"]);
}

#[test]
fn a_display_of_modes_only_makes_the_camera_take_another_size() {
    let camera = Scripted::source(vec![video(Xr24, &[(1920, 1200), (1280, 720), (960, 540)], &[30])]);
    let display = Scripted::sink(vec![video(Xr24, &[(1024, 768), (1280, 720)], &[])]);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: XR24 1280x720 at 30 fps from v4l2, stride 5120, zero-copy"]);
}

#[test]
fn a_size_that_is_no_mode_is_refused_with_both_lists_and_the_nearest() {
    let camera =
        Scripted::source(vec![video(Xr24, &[(960, 540), (1280, 720), (640, 480)], &[30])]).wanted(want_size(960, 540));
    let display = Scripted::sink(vec![video(Xr24, &[(640, 480), (1024, 768), (1280, 720)], &[])]);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: no size of XR24 in common: camera is asked for 960x540 (it gives 960x540, 1280x720, \
         640x480); display takes 640x480, 1024x768, 1280x720\n\
         To make it zero-copy: the nearest size that all have is 640x480; or leave out `size` of camera (it would be \
         XR24 1280x720 at 30 fps from v4l2)."
    );
}

#[test]
fn a_size_that_the_camera_lacks_is_refused_with_its_list_and_the_nearest() {
    let camera = Scripted::source(vec![video(Xr24, &[(960, 540), (1280, 720)], &[30])]).wanted(want_size(1000, 700));
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera is asked for 1000x700, but has 960x540, 1280x720; nearest is 960x540\n\
         To make it work: leave out `size` of camera (it would be XR24 1280x720 at 30 fps from v4l2)."
    );
}

#[test]
fn a_size_that_the_camera_has_in_another_format_is_refused_with_that_format() {
    let camera = Scripted::source(vec![video(Yuyv, &[(640, 480)], &[30]), video(Nv12, &[(1920, 1080)], &[30])])
        .wanted(Wanted { format: Some(Yuyv), ..want_size(1920, 1080) });
    let display = Scripted::sink(vec![up_to(Yuyv, 4096, 4096)]);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera is asked for 1920x1080, but has 640x480 as YUYV; it has 1920x1080 as NV12\n\
         To make it work: leave out `size` of camera (it would be YUYV 640x480 at 30 fps from v4l2)."
    );
}

#[test]
fn no_size_in_common_is_refused_with_both_lists_and_the_nearest_pair() {
    let camera = Scripted::source(vec![video(Xr24, &[(960, 540), (1280, 800)], &[30])]);
    let display = Scripted::sink(vec![video(Xr24, &[(1024, 768), (1280, 720)], &[])]);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: no size of XR24 in common: camera gives 960x540, 1280x800; display takes 1024x768, 1280x720\n\
         To make it zero-copy: the nearest sizes are 1280x800 and 1280x720."
    );
}

#[test]
fn two_branches_in_conflict_over_size_are_refused_by_name() {
    let camera = Scripted::source(vec![video(Xr24, &[(1280, 720), (1920, 1080)], &[30])]);
    let only = |size: (u32, u32)| Scripted::sink(vec![video(Xr24, &[size], &[])]);
    let any = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    let sinks = vec![("null", None, any), ("display", None, only((1920, 1080))), ("encoder", None, only((1280, 720)))];
    assert_eq!(
        message(&mut fan(camera, sinks)),
        "camera → display, encoder: no size of XR24 in common: camera gives 1280x720, 1920x1080; \
         display takes 1920x1080; encoder takes 1280x720"
    );
}

// Rates.

#[test]
fn the_highest_rate_up_to_sixty_is_taken() {
    let camera = Scripted::source(vec![video(Xr24, HD, &[15, 120, 60, 30])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(plan(&mut camera_to_display(camera, display)).links[0].stream.rate, Some(Rate::new(60, 1)));
}

#[test]
fn a_rate_above_sixty_is_taken_where_there_is_no_other() {
    let camera = Scripted::source(vec![video(Xr24, HD, &[240, 120])]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(plan(&mut camera_to_display(camera, display)).links[0].stream.rate, Some(Rate::new(120, 1)));
}

#[test]
fn a_range_of_rates_meets_a_list() {
    let camera = Scripted::source(vec![video(Xr24, HD, &[15, 25, 30, 50])]);
    let mut up_to_thirty = up_to(Xr24, 4096, 4096);
    up_to_thirty.sizes[0].rates = Rates::Range(Rate::new(1, 1), Rate::new(30, 1));
    let encoder = Scripted::sink(vec![up_to_thirty]);
    assert_eq!(plan(&mut camera_to_display(camera, encoder)).links[0].stream.rate, Some(Rate::new(30, 1)));
}

#[test]
fn a_rate_asked_for_makes_the_camera_take_the_size_that_has_it() {
    let mut sizes = video(Xr24, &[(1920, 1080)], &[15]);
    sizes.sizes.extend(video(Xr24, &[(640, 480)], &[60, 30]).sizes);
    let camera = Scripted::source(vec![sizes]).wanted(want_rate(60));
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    let plan = plan(&mut camera_to_display(camera, display));
    assert_eq!(links(&plan), ["camera → display: XR24 640x480 at 60 fps from v4l2, stride 2560, zero-copy"]);
}

#[test]
fn a_rate_that_exists_only_at_another_size_is_refused_with_that_size() {
    let mut sizes = video(Xr24, &[(1920, 1080)], &[15, 10]);
    sizes.sizes.extend(video(Xr24, &[(640, 480)], &[60, 30]).sizes);
    let camera = Scripted::source(vec![sizes]).wanted(Wanted { rate: Some(Rate::new(60, 1)), ..want_size(1920, 1080) });
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera is asked for 60 fps, but has 15, 10 fps at 1920x1080; it has 60 fps at 640x480\n\
         To make it work: leave out `size` of camera (it would be XR24 640x480 at 60 fps from v4l2); \
         or leave out `rate` of camera (it would be XR24 1920x1080 at 15 fps from v4l2)."
    );
}

#[test]
fn no_rate_in_common_is_refused_with_the_rates_at_that_size() {
    let camera = Scripted::source(vec![video(Xr24, HD, &[15, 30])]);
    let recorder = Scripted::sink(vec![video(Xr24, HD, &[24, 25])]);
    assert_eq!(
        message(&mut camera_to_display(camera, recorder)),
        "camera → display: no rate of XR24 1280x720 in common: camera gives 15, 30 fps; display takes 24, 25 fps"
    );
}

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
         RG16 1280x720 at 60 fps from v4l2: display: TEST_ONLY commit: ERANGE; the plane does not scale: 1024x768 would fit\n\
         Or allow a conversion (copies = \"allow\"): a copy of RG16 into udmabuf memory writes 1.8 MB per frame, 111 MB/s."
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
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: every candidate was refused when tried\n  \
         XR24 1280x720 at 60 fps from v4l2: display: AddFB2: EINVAL"
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

// Buffers.

fn camera_display_encoder(most: u32, granted: u32, waiting: Option<QueueSpec>) -> Graph {
    let camera = Scripted::source(vec![video(Xr24, HD, &[60])]).max_buffers(most).grants(granted);
    let sink = |holds| Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).holds(holds);
    fan(camera, vec![("display", None, sink(2)), ("encoder", waiting, sink(4))])
}

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

fn one_of_two_imports() -> Graph {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60])]);
    let encoder = Scripted::sink(vec![up_to(Yuyv, 4096, 4096)]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    fan(camera, vec![("encoder", None, encoder), ("display", None, display)])
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

fn same_size(format: shrbuf::Format) -> impl Fn(&shrbuf_pipeline::Stream) -> Vec<Video> + Send + 'static {
    move |input| vec![scaled(format, input)]
}

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

// The graph.

#[test]
fn a_cycle_is_refused() {
    let through = || Scripted::transform(vec![up_to(Yuyv, 64, 64)], same_size(Yuyv));
    let mut graph = Graph::new("test");
    let a = graph.add("a", Box::new(through())).unwrap();
    let b = graph.add("b", Box::new(through())).unwrap();
    graph.link(a, b).unwrap();
    graph.link(b, a).unwrap();
    assert_eq!(message(&mut graph), "the links form a cycle: a → b → a");
}

#[test]
fn a_port_without_a_link_is_refused() {
    let mut graph = Graph::new("test");
    graph.add("camera", Box::new(Scripted::source(vec![video(Yuyv, HD, &[60])]))).unwrap();
    assert_eq!(message(&mut graph), "output `camera.out` is not linked; link it to a sink (`null-sink` drops frames)");
}

#[test]
fn no_element_at_all_is_refused() {
    assert_eq!(message(&mut Graph::new("test")), "the graph has no elements");
}

#[test]
fn two_elements_of_one_name_are_refused() {
    let mut graph = camera_to_display(Scripted::source(vec![]), Scripted::sink(vec![]));
    assert_eq!(
        graph.add("camera", Box::new(Scripted::source(vec![]))),
        Err(GraphError::DuplicateName { name: "camera".into() })
    );
}

#[test]
fn an_element_whose_device_is_missing_is_named() {
    let camera = Scripted::source(vec![]).missing();
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(message(&mut camera_to_display(camera, display)), "`camera`: configuration: there is no /dev/video7");
}

#[test]
fn an_element_that_offers_nothing_is_refused_in_words() {
    let camera = Scripted::source(vec![]);
    let display = Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    assert_eq!(
        message(&mut camera_to_display(camera, display)),
        "camera → display: no format in common: camera gives nothing; display takes XR24\n\
         To make it zero-copy: have camera give XR24."
    );
}

#[test]
fn an_error_points_at_the_link_or_the_element_at_fault() {
    let linked = |camera: Scripted| {
        let mut graph = Graph::new("test");
        let camera = graph.add("camera", Box::new(camera)).unwrap();
        let display = graph.add("display", Box::new(Scripted::sink(vec![up_to(Xr24, 4096, 4096)]))).unwrap();
        graph.set_span(camera, 10..20);
        let (from, to) = (Port { node: camera, port: 0 }, Port { node: display, port: 0 });
        graph.link_ports(from, to, Some(50..60)).unwrap();
        negotiate(&mut graph, &NegotiateOptions::default()).unwrap_err()
    };
    let yuyv = || Scripted::source(vec![video(Yuyv, HD, &[60])]);
    assert_eq!(linked(yuyv()).span(), Some(50..60));
    assert_eq!(linked(yuyv().wanted(want_format(Xr24))).span(), Some(10..20));
    assert_eq!(linked(yuyv().missing()).span(), Some(10..20));
}

#[test]
fn two_pipelines_in_one_graph_are_both_negotiated() {
    let mut graph = camera_to_display(
        Scripted::source(vec![video(Yuyv, HD, &[60])]),
        Scripted::sink(vec![up_to(Xr24, 4096, 4096)]),
    );
    let test = graph.add("test", Box::new(Scripted::source(vec![video(Rg16, HD, &[30])]))).unwrap();
    let window = graph.add("window", Box::new(Scripted::sink(vec![up_to(Xr24, 4096, 4096)]))).unwrap();
    graph.link(test, window).unwrap();
    let copied = plan_with(&mut graph, Copies::Allow).links.into_iter().filter(|l| !l.zero_copy).map(|l| l.from);
    assert_eq!(copied.collect::<Vec<_>>(), ["camera→display convert", "test→window convert"]);
}

// Again and again.

#[test]
fn negotiating_twice_gives_the_same_plan() {
    let mut graph = one_of_two_imports();
    let first = plan_with(&mut graph, Copies::Allow);
    assert_eq!(plan_with(&mut graph, Copies::Allow), first);
    assert_eq!(plan_with(&mut graph, Copies::Allow), first);
}

#[test]
fn a_graph_that_had_converters_is_the_users_again_without_copies() {
    let mut graph = one_of_two_imports();
    let before = message_with(&mut graph, Copies::Deny);
    plan_with(&mut graph, Copies::Allow);
    assert_eq!(message_with(&mut graph, Copies::Deny), before);
    assert_eq!(format!("{graph:?}"), "Graph `test` of 4 elements and 3 links");
}

#[test]
fn elements_can_be_added_to_a_graph_that_had_converters() {
    let mut graph = yuyv_camera_to_rgb_display();
    plan_with(&mut graph, Copies::Allow);
    let test = graph.add("test", Box::new(Scripted::source(vec![video(Xr24, HD, &[30])]))).unwrap();
    let window = graph.add("window", Box::new(Scripted::sink(vec![up_to(Xr24, 4096, 4096)]))).unwrap();
    graph.link(test, window).unwrap();
    let plan = plan_with(&mut graph, Copies::Allow);
    assert_eq!(links(&plan)[..2], CONVERTED);
    assert_eq!(links(&plan)[2], "test → window: XR24 1280x720 at 30 fps from v4l2, stride 5120, zero-copy");
}

#[test]
fn huge_lists_are_solved_in_a_tenth_of_a_second() {
    // 32 formats, 50 sizes, 6 rates, more than vivid lists: 9,600 candidates, and only one of the last leads anywhere.
    let sizes: Vec<_> = (1..=50).map(|n| (n * 16, n * 9)).collect();
    let all = |except: shrbuf::Format| {
        shrbuf::Format::all().filter(move |f| *f != except).map(|f| video(f, &sizes, &[15, 24, 25, 30, 50, 60]))
    };
    let camera = Scripted::source(all(Xr24).collect());
    let gpu = Scripted::transform(all(Xr24).collect(), |s| vec![scaled(s.format, s)]);
    let encoder = Scripted::sink(vec![video(shrbuf::Format::Yu12, &[(16, 9)], &[15])]);
    let mut graph = row(vec![("camera", camera), ("gpu", gpu), ("encoder", encoder)]);
    let start = cpu_time();
    let plan = plan(&mut graph);
    let took = cpu_time() - start;
    assert_eq!(links(&plan)[1], "gpu → encoder: YU12 16x9 at 15 fps LINEAR from v4l2, stride 16, zero-copy");
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[test]
fn an_error_carries_the_values_that_its_message_shows() {
    let mut graph = camera_display_encoder(4, 4, None);
    let error = negotiate(&mut graph, &NegotiateOptions::default()).unwrap_err();
    assert!(matches!(error, NegotiationError::Buffers { ref producer, most: 4, .. } if producer == "camera"));
}
