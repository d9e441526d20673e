//! The graph as a whole.

use crate::*;

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

#[test]
fn what_is_copied_behind_a_consumer_is_no_zero_copy_and_says_so() {
    let camera = || Scripted::source(vec![video(Xr24, HD, &[60])]);
    let display = || Scripted::sink(vec![up_to(Xr24, 4096, 4096)]);
    let window = || display().copied("copied by a test");
    let mut alone = camera_to_display(camera(), window());
    let plan = plan(&mut alone);
    assert!(!plan.is_zero_copy());
    assert_eq!(plan.links[0].reason, "both do XR24; display imports camera's dma-bufs; copied by a test");

    // On the way to both nobody copies yet.
    let mut both = fan(camera(), vec![("display", None, display()), ("window", None, window())]);
    let links = plan_with(&mut both, Copies::Deny).links;
    let copied: Vec<_> = links.iter().filter(|l| !l.zero_copy).map(|l| (l.to.as_str(), &l.reason[..])).collect();
    assert_eq!(copied, [("window", "both do XR24; window imports camera's dma-bufs; copied by a test")]);
}
