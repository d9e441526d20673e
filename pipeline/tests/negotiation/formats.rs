//! Formats, and copies where none will do.

use crate::*;

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

#[test]
fn yuyv_to_rgb_with_copies_denied_is_refused() {
    assert_eq!(
        message_with(&mut yuyv_camera_to_rgb_display(), Copies::Deny),
        "camera → display: no format in common: camera gives YUYV; display takes RG16, XR24\n\
         To make it zero-copy: have camera give RG16 or XR24, or display take YUYV.\n\
         Or allow a conversion (copies = \"allow\"): YUYV → XR24 writes 3.7 MB per frame, 221 MB/s."
    );
}

/// Two cameras of YUYV, the second with a display that takes `second`.
fn two_displays(second: Scripted) -> Graph {
    let mut graph = yuyv_camera_to_rgb_display();
    let camera = graph.add("second", Box::new(Scripted::source(vec![video(Yuyv, HD, &[60])]))).unwrap();
    let display = graph.add("its-display", Box::new(second)).unwrap();
    graph.link(camera, display).unwrap();
    graph
}

#[test]
fn what_copies_cost_is_told_of_all_links_that_need_one() {
    let text = message_with(&mut two_displays(Scripted::sink(vec![up_to(Grey, 4096, 4096)])), Copies::Deny);
    assert!(text.starts_with("camera → display: no format in common"), "{text}");
    assert!(
        text.ends_with(
            "\nOr allow a conversion (copies = \"allow\"): YUYV → XR24 writes 3.7 MB per frame, 221 MB/s; \
             YUYV → GREY writes 0.9 MB per frame, 55 MB/s."
        ),
        "{text}"
    );
}

#[test]
fn no_copy_is_offered_that_would_not_make_the_whole_graph_work() {
    let refuses = || Scripted::sink(vec![up_to(Xr24, 4096, 4096)]).importing(|_, _| Err(Refusal::new("no plane left")));
    for denied in [two_displays(refuses()), two_displays(Scripted::sink(vec![up_to(shrbuf::Format::Srggb10, 64, 64)]))]
    {
        let mut graph = denied;
        assert_eq!(
            message_with(&mut graph, Copies::Deny),
            "camera → display: no format in common: camera gives YUYV; display takes RG16, XR24\n\
             To make it zero-copy: have camera give RG16 or XR24, or display take YUYV."
        );
        // As it would be then.
        assert!(message_with(&mut graph, Copies::Allow).starts_with("second → its-display: "));
    }
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
         `convert` does not help: camera → camera→display convert: no format in common: camera gives SRGGB10; \
         camera→display convert takes XR24, AR24, RG16, NV12, GREY, YUYV."
    );
}
