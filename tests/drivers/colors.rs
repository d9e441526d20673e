//! Colours of a camera: YUYV of every encoding and range that vivid has becomes, through `gpu`, the RGB that vivid draws itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use shrbuf::{Format, Ledger, Reason, Shrbuf};
use shrbuf_elements::null_sink::NullSink;
use shrbuf_elements::v4l2::V4l2Src;
use shrbuf_pipeline::property::Value;
use shrbuf_pipeline::{Build, Graph, Size};
use shrbuf_tests::{Watch, on_test_drivers, run_frames, set_control};

use super::gpu::{gpu, warm_up};

const SMALL: Size = Size::new(320, 180);
const LARGE: Size = Size::new(1280, 720);

/// A control of vivid's that says how its colours are to be made, and what it is before and after.
const USUAL: [(&str, &str); 5] = [
    ("colorspace", "sRGB"),
    ("y_cbcr_encoding", "Default"),
    ("quantization", "Default"),
    ("test_pattern", "75% Colorbar"),
    ("osd_text_mode", "All"),
];

/// A row through each of the eight that the pattern has.
fn eight_rows(buffer: &Shrbuf) -> Vec<u8> {
    let account = Ledger::default().account("test", Reason::Inspect);
    let guard = buffer.read().unwrap();
    let plane = guard.plane(0);
    let mut row = vec![0; plane.row_bytes()];
    let row_of = |n: usize| {
        plane.read((2 * n + 1) * plane.rows() / 16, 0, &mut row, &account);
        row.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect::<Vec<_>>()
    };
    (0..8).flat_map(row_of).collect()
}

/// XR24 of vivid's, or of YUYV that it makes as these controls say.
fn xr24(size: Size, format: Format, says: &[(&str, &str)]) -> Vec<u8> {
    let pattern = [("test_pattern", "100% Color Squares"), ("osd_text_mode", "None")];
    let all = USUAL.iter().chain(&pattern).chain(says);
    let controls: BTreeMap<_, _> =
        all.map(|&(name, value)| (name.to_owned(), Value::String(value.to_owned()))).collect();
    let camera = V4l2Src { format: Some(format), size: Some(size), controls, ..V4l2Src::default() };
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let keep = Arc::clone(&seen);
    let mut elements = vec![camera.build().unwrap()];
    if format != Format::Xr24 {
        elements.push(shrbuf_elements::gpu::Gpu { format: Some(Format::Xr24), ..gpu() }.build().unwrap());
    }
    elements.push(Watch::new(move |frame| *keep.lock().unwrap() = eight_rows(&frame.buffer)));
    elements.push(NullSink {}.build().unwrap());
    let mut graph = Graph::new("colors");
    let nodes: Vec<_> = elements.into_iter().zip(["a", "b", "c", "d"]).map(|(e, n)| graph.add(n, e).unwrap()).collect();
    nodes.windows(2).for_each(|pair| graph.link(pair[0], pair[1]).unwrap());

    let report = run_frames(graph, 1);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), 8 * 3 * size.width as usize);
    seen
}

/// The largest difference of YUYV as these controls say from what vivid draws in RGB.
fn difference(size: Size, rgb: &[u8], says: &[(&str, &str)]) -> u8 {
    let made = xr24(size, Format::Yuyv, says);
    let most = made.iter().zip(rgb).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    println!("{size} {says:?}: {most}");
    most
}

#[test]
fn yuyv_is_of_the_colours_that_it_says() {
    if !on_test_drivers() {
        return;
    }
    warm_up();
    // vivid rounds YUV down, and has no 0 and no 255 in it. Squares of even width leave 4:2:2 nothing to blur. A wrong matrix
    // is 24 and more away, a wrong range 16.
    const ROUNDING: u8 = 4;
    // Of SMPTE 240M, whose matrix is not quite the one that stands for it.
    const NEAR: u8 = 6;
    let (small, large) = (xr24(SMALL, Format::Xr24, &[]), xr24(LARGE, Format::Xr24, &[]));
    let mut wrong = Vec::new();
    let mut check = |size: Size, says: &[(&str, &str)], limit| {
        let most = difference(size, if size == SMALL { &small } else { &large }, says);
        if most > limit {
            wrong.push(format!("{size} {says:?}: {most}"));
        }
    };
    for encoding in ["ITU-R 601", "Rec. 709", "xvYCC 601", "xvYCC 709", "BT.2020", "SMPTE 240M"] {
        let limit = if encoding == "SMPTE 240M" { NEAR } else { ROUNDING };
        for range in ["Default", "Full Range"] {
            check(SMALL, &[("y_cbcr_encoding", encoding), ("quantization", range)], limit);
        }
    }
    check(SMALL, &[("quantization", "Limited Range")], ROUNDING);
    for colorspace in
        ["SMPTE 170M", "Rec. 709", "sRGB", "opRGB", "BT.2020", "DCI-P3", "SMPTE 240M", "470 System M", "470 System BG"]
    {
        let limit = if colorspace == "SMPTE 240M" { NEAR } else { ROUNDING };
        check(SMALL, &[("colorspace", colorspace)], limit);
    }
    // From here on the width says something where nothing else does.
    check(LARGE, &[("y_cbcr_encoding", "xvYCC 601")], ROUNDING);
    check(LARGE, &[("colorspace", "opRGB")], ROUNDING);
    USUAL.iter().for_each(|(name, value)| set_control(name, value));
    assert!(wrong.is_empty(), "{wrong:#?}");
}
