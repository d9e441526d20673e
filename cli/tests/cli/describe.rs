//! Subcommands that stream nothing.

use crate::{CAMERA, Place};

#[test]
fn check_counts() {
    let place = Place::with("check", CAMERA);
    assert_eq!(place.run(&["check", "pipeline.toml"]).with_code(0).out, "ok: 2 elements, 1 link\n");
    assert_eq!(place.run(&["check", "pipeline.toml", "--json"]).with_code(0).out, "{\"elements\":2,\"links\":1}\n");
}

#[test]
fn check_opens_no_device() {
    let camera = "element.camera = { type = \"v4l2-src\", device = \"/dev/video-none\" }\n\
        element.display = { type = \"kms-sink\" }\n\
        link = [{ path = [\"camera\", \"display\"] }]";
    let place = Place::with("check-device", camera);
    place.run(&["check", "pipeline.toml"]).with_code(0);
    let refused = place.run(&["explain", "pipeline.toml"]).with_code(1);
    assert!(refused.err.contains("/dev/video-none"), "{}", refused.err);
}

#[test]
fn explain_says_what_each_link_carries_and_who_holds_what() {
    let place = Place::with("explain", &CAMERA.replace("\"display\"]", "\"display\"]\nqueue = { depth = 3 }"));
    let text = place.run(&["explain", "pipeline.toml"]).with_code(0).out;
    assert!(text.starts_with("camera → queue → display  zero-copy\n  picture  XR24 64x48"), "{text}");
    assert!(text.contains("display holds 1") && text.contains("holds 3"), "{text}");
    let json = place.run(&["explain", "pipeline.toml", "--json"]).with_code(0).json();
    assert_eq!(json["links"][0]["stride"], 256);
    assert_eq!(json["budgets"][0]["producer"], "camera");
    assert!(json["budgets"][0]["granted"].as_u64().unwrap() >= 5, "{json}");
    assert_eq!(json["rejected"], serde_json::json!([]));
}

#[test]
fn explain_says_what_would_help() {
    let place = Place::with("explain-refused", &CAMERA.replace("null-sink\"", "file-sink\"\npath = \"out.y4m\""));
    let done = place.run(&["explain", "pipeline.toml", "--json"]).with_code(1);
    assert_eq!(done.json()["error"]["kind"], "negotiation");
    assert!(done.err.contains("leave out `format` of camera"), "{}", done.err);
}

#[test]
fn explain_has_placeholders_stand_in_as_run_has() {
    let camera = "element.camera = { type = \"v4l2-src\", device = \"/dev/video-none\", placeholder = PLACEHOLDER }\n\
        element.sink = { type = \"null-sink\" }\n\
        link = [{ path = [\"camera\", \"sink\"] }]";
    let file = camera.replace("PLACEHOLDER", "{ type = \"test-src\", size = [64, 48] }");
    let explained = Place::with("explain-placeholder", &file).run(&["explain", "pipeline.toml"]).with_code(0);
    assert!(explained.out.starts_with("camera → sink  zero-copy\n  picture  XR24 64x48"), "{}", explained.out);
    assert!(explained.err.contains("/dev/video-none") && explained.err.contains("stands in"), "{}", explained.err);
    // One that cannot be had either is told of itself.
    let file = camera.replace("PLACEHOLDER", "{ type = \"file-src\", path = \"none.png\" }");
    let refused = Place::with("explain-none", &file).run(&["explain", "pipeline.toml"]).with_code(1);
    assert!(refused.err.contains("none.png"), "{}", refused.err);
}

#[test]
fn inspect_knows_every_type_it_lists() {
    let place = Place::new("inspect");
    let list = place.run(&["inspect"]).with_code(0).out;
    let names: Vec<&str> = list.lines().skip(1).map_while(|l| l.split_whitespace().next()).collect();
    assert!(names.contains(&"v4l2-src") && names.contains(&"kms-sink") && names.len() > 5, "{list}");
    let markdown = place.run(&["inspect", "--markdown"]).with_code(0).out;
    for name in names {
        assert!(place.run(&["inspect", name]).with_code(0).out.starts_with(&format!("{name}: ")));
        assert!(markdown.contains(&format!("## `{name}`")), "{name}");
    }
}

#[test]
fn the_page_of_elements_is_what_the_elements_say() {
    let page = include_str!("../../../docs/elements.md");
    // The last of them is in builds with the feature `gstreamer` only; with that, elements/tests/native_gst.rs looks.
    let page = if cfg!(feature = "gstreamer") { page } else { page.split("\n## `gst`").next().unwrap() };
    let said = Place::new("elements-page").run(&["inspect", "--markdown"]).with_code(0).out;
    assert!(page.ends_with(&said), "docs/elements.md is not up to date: run `make docs`");
}

#[test]
fn devices_has_all_its_lists() {
    let place = Place::new("devices");
    let json = place.run(&["devices", "--json"]).with_code(0).json();
    for list in ["cameras", "displays", "outputs", "m2m", "gpus", "dma_heaps", "heaps"] {
        assert!(json[list].is_array(), "{list} of {json}");
    }
    for one in ["udmabuf", "gpu", "compositor"] {
        // Why not, where it is not.
        assert_eq!(json[one]["usable"].as_bool().unwrap(), json[one]["error"].is_null(), "{one} of {json}");
    }
    let names = |list: &str| json[list].as_array().unwrap().len();
    assert_eq!(names("heaps"), names("dma_heaps"));
    let text = place.run(&["devices"]).with_code(0).out;
    let headings =
        ["cameras", "displays", "outputs", "codecs, scalers, converters", "render nodes", "compositor", "memory"];
    assert_eq!(text.lines().filter(|line| headings.contains(line)).collect::<Vec<_>>(), headings, "{text}");
}

#[test]
fn devices_says_why_a_compositor_is_of_no_use() {
    let place = Place::new("devices-compositor");
    let out = place.command(&["devices", "--json"]).env("WAYLAND_DISPLAY", "/nowhere/wayland-7").output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(json["compositor"]["socket"], "/nowhere/wayland-7");
    assert!(json["compositor"]["error"].as_str().unwrap().contains("/nowhere/wayland-7"), "{json}");
}

#[test]
fn graph_draws_boxes_and_labels() {
    let text = Place::with("graph", CAMERA).run(&["graph", "pipeline.toml"]).with_code(0).out;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("┌───") && lines[0].contains("XR24 64x48"), "{text}");
    assert!(lines[1].starts_with("│ camera ") && lines[1].contains("─▶│ display │"), "{text}");
    assert!(lines[2].contains("memfd, zero-copy") || lines[2].contains("dma-buf, zero-copy"), "{text}");
}

#[test]
fn graph_writes_svg_with_a_group_for_each_thread() {
    let hostile =
        CAMERA.replace("\"test\"", "\"<b>&\\u0007\"").replace("\"display\"]", "\"display\"]\nqueue = { depth = 2 }");
    let place = Place::with("svg", &hostile);
    assert_eq!(place.run(&["graph", "pipeline.toml", "--svg", "g.svg"]).with_code(0).out, "");
    let svg = std::fs::read_to_string(place.0.join("g.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    assert!(svg.contains("&lt;b&gt;&amp;\u{fffd}"), "{svg}");
    assert!(svg.contains(">thread 1<") && svg.contains(">thread 2<") && svg.contains(">2 block<"), "{svg}");
}

#[test]
fn graph_without_its_devices_has_only_names() {
    let camera = "element.camera = { type = \"v4l2-src\", device = \"/dev/video-none\" }\n\
        element.display = { type = \"null-sink\" }\n\
        link = [{ path = [\"camera\", \"display\"] }]";
    let done = Place::with("graph-names", camera).run(&["graph", "pipeline.toml"]).with_code(0);
    assert!(done.out.contains("│ camera │") && !done.out.contains("zero-copy"), "{}", done.out);
    assert!(done.err.starts_with("not negotiated"), "{}", done.err);
}

#[test]
fn help_has_examples_and_version_a_number() {
    let place = Place::new("help");
    for command in ["run", "check", "explain", "inspect", "devices", "graph"] {
        let help = place.run(&[command, "--help"]).with_code(0).out;
        assert!(help.contains("Examples:") && help.contains(&format!("shrbuf {command}")), "{help}");
    }
    assert!(place.run(&["--version"]).with_code(0).out.starts_with("shrbuf 0."));
}
