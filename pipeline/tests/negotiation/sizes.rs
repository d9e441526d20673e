//! Sizes and rates.

use crate::*;

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
