//! Converters that the CPU has no part in.

use shrbuf_pipeline::plan::Plan;

use super::*;

const ABSENT: Converter = Converter { present: || Err("no GPU can be used".into()), ..GPU };

/// One that is present, and finds out only when it is asked that it has no memory to make pictures in.
const WITHOUT_MEMORY: Converter = Converter { make: without_memory, ..GPU };

fn without_memory() -> Box<dyn shrbuf_pipeline::Element> {
    let reads = vec![Video::linear(Yuyv)];
    Box::new(Scripted::transform(reads, |input| vec![scaled(Xr24, input)]).missing())
}

/// One that is present, and has only memory to make pictures in that it does not reach.
const DOWNLOADS: Converter = Converter { make: downloads, ..GPU };

fn downloads() -> Box<dyn shrbuf_pipeline::Element> {
    let reads = vec![Video::linear(Yuyv)];
    Box::new(Scripted::transform(reads, |input| vec![scaled(Xr24, input)]).holds(1).copies("downloaded: a copy"))
}

const BY_GPU: [&str; 2] = [
    "camera → camera→display gpu: YUYV 1280x720 at 60 fps from v4l2, stride 2560, zero-copy",
    "camera→display gpu → display: XR24 1280x720 at 60 fps LINEAR from v4l2, stride 5120, zero-copy",
];

fn with(graph: &mut Graph, copies: Copies, converters: &'static [Converter]) -> Result<Plan, String> {
    graph.set_copies(copies);
    negotiate(graph, &NegotiateOptions { converters }).map_err(|e| e.to_string())
}

#[test]
fn a_device_converts_where_copies_are_denied() {
    let plan = with(&mut yuyv_camera_to_rgb_display(), Copies::Deny, &[GPU, CPU]).unwrap();
    assert_eq!(links(&plan), BY_GPU);
    assert_eq!(
        reasons(&plan)[1],
        "YUYV → XR24 writes 3.7 MB per frame, 221 MB/s; by `gpu`, which is needed: \
         no format in common: camera gives YUYV; display takes RG16, XR24"
    );
}

#[test]
fn a_device_is_preferred_to_a_copy_that_is_allowed() {
    let plan = with(&mut yuyv_camera_to_rgb_display(), Copies::Allow, &[GPU, CPU]).unwrap();
    assert_eq!(links(&plan), BY_GPU);
}

#[test]
fn a_link_that_needs_no_converter_gets_none() {
    let camera = Scripted::source(vec![video(Xr24, HD, &[60])]);
    let mut graph = camera_to_display(camera, Scripted::sink(vec![up_to(Xr24, 4096, 4096)]));
    let plan = with(&mut graph, Copies::Deny, &[GPU, CPU]).unwrap();
    assert_eq!(plan.links.len(), 1);
}

#[test]
fn a_device_that_is_absent_is_as_good_as_none_but_for_the_reason() {
    assert_eq!(
        with(&mut yuyv_camera_to_rgb_display(), Copies::Deny, &[ABSENT, CPU]).unwrap_err(),
        "camera → display: no format in common: camera gives YUYV; display takes RG16, XR24\n\
         To make it zero-copy: have camera give RG16 or XR24, or display take YUYV.\n\
         `gpu` does not help: no GPU can be used.\n\
         Or allow a conversion (copies = \"allow\"): YUYV → XR24 writes 3.7 MB per frame, 221 MB/s."
    );
    assert_eq!(links(&with(&mut yuyv_camera_to_rgb_display(), Copies::Allow, &[ABSENT, CPU]).unwrap()), CONVERTED);
}

#[test]
fn a_device_that_is_absent_is_not_missed_where_it_could_do_nothing() {
    let camera = || Scripted::source(vec![video(Yuyv, HD, &[60])]).wanted(want_format(Xr24));
    let mut graph = camera_to_display(camera(), Scripted::sink(vec![up_to(Xr24, 4096, 4096)]));
    let text = with(&mut graph, Copies::Deny, &[ABSENT, CPU]).unwrap_err();
    assert_eq!(text, "camera is asked for XR24, but has YUYV");
}

#[test]
fn a_device_that_fails_leaves_the_way_to_a_copy_that_is_allowed() {
    let plan = with(&mut yuyv_camera_to_rgb_display(), Copies::Allow, &[WITHOUT_MEMORY, CPU]).unwrap();
    assert_eq!(links(&plan), CONVERTED);
}

#[test]
fn a_device_that_fails_is_named_beside_what_stands_in_the_way() {
    let mut graph = yuyv_camera_to_rgb_display();
    assert_eq!(
        with(&mut graph, Copies::Deny, &[WITHOUT_MEMORY, CPU]).unwrap_err(),
        "camera → display: no format in common: camera gives YUYV; display takes RG16, XR24\n\
         To make it zero-copy: have camera give RG16 or XR24, or display take YUYV.\n\
         `gpu` does not help: `camera→display gpu`: configuration: there is no /dev/video7.\n\
         Or allow a conversion (copies = \"allow\"): YUYV → XR24 writes 3.7 MB per frame, 221 MB/s."
    );
    assert_eq!(with(&mut graph, Copies::Deny, &[WITHOUT_MEMORY]).unwrap_err().lines().count(), 3);
}

#[test]
fn a_device_that_copies_itself_is_offered_and_used_where_copies_are_allowed() {
    for converters in [&[DOWNLOADS][..], &[DOWNLOADS, CPU]] {
        let text = with(&mut yuyv_camera_to_rgb_display(), Copies::Deny, converters).unwrap_err();
        let offered = "\nOr allow a conversion (copies = \"allow\"): YUYV → XR24 writes 3.7 MB per frame, 221 MB/s.";
        assert!(text.ends_with(offered), "{text}");
        let plan = with(&mut yuyv_camera_to_rgb_display(), Copies::Allow, converters).unwrap();
        assert!(!plan.is_zero_copy());
        assert_eq!(
            reasons(&plan)[1],
            "YUYV → XR24 writes 3.7 MB per frame, 221 MB/s; by `gpu`, which is needed and copies (downloaded: a copy): \
             no format in common: camera gives YUYV; display takes RG16, XR24"
        );
    }
}

#[test]
fn an_element_of_the_users_that_fails_ends_negotiation_all_the_same() {
    let camera = Scripted::source(vec![video(Yuyv, HD, &[60])]).missing();
    let mut graph = camera_to_display(camera, Scripted::sink(vec![up_to(Xr24, 4096, 4096)]));
    let text = with(&mut graph, Copies::Allow, &[GPU, CPU]).unwrap_err();
    assert_eq!(text, "`camera`: configuration: there is no /dev/video7");
}

#[test]
fn what_the_device_cannot_read_is_copied_where_that_is_allowed() {
    let graph = || {
        let camera = Scripted::source(vec![video(Rg16, HD, &[60])]);
        camera_to_display(camera, Scripted::sink(vec![up_to(Xr24, 4096, 4096)]))
    };
    let plan = with(&mut graph(), Copies::Allow, &[GPU, CPU]).unwrap();
    assert!(!plan.is_zero_copy());
    assert_eq!(
        with(&mut graph(), Copies::Deny, &[GPU, CPU]).unwrap_err(),
        "camera → display: no format in common: camera gives RG16; display takes XR24\n\
         To make it zero-copy: have camera give XR24, or display take RG16.\n\
         `gpu` does not help: camera → camera→display gpu: no format in common: camera gives RG16; \
         camera→display gpu takes YUYV, NV12.\n\
         Or allow a conversion (copies = \"allow\"): RG16 → XR24 writes 3.7 MB per frame, 221 MB/s."
    );
}
