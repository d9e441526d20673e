//! `convert` against a reference in floating point that shares nothing with it.

use std::sync::{Arc, Mutex};

use shrbuf::{Format, Ledger, Reason, Shrbuf};
use shrbuf_elements::Memory;
use shrbuf_elements::convert::Convert;
use shrbuf_elements::test_src::{Pattern, TestSrc, read_marker};
use shrbuf_pipeline::{Build, Colorimetry, Element, Frame, Graph, Matrix, Range, Size, Timestamp};
use shrbuf_tests::native::reference::{self, colours, is_bayer, is_rgb, planes, sample, to_rgb, to_yuv_limited};
use shrbuf_tests::native::{self, Feed, Probe, SIZES, line, noise, picture, run_well, stream};

const TO_RGB: [Format; 4] = [Format::Xr24, Format::Ar24, Format::Rg24, Format::Rg16];
const TO_YUV: [Format; 2] = [Format::Nv12, Format::Yu12];
const ODD: Size = Size::new(37, 21);

fn converter() -> Box<dyn Element> {
    Convert { memory: Memory::Memfd, ..Convert::default() }.build().unwrap()
}

/// Largest and mean difference from what `expected(x, y)` gives.
fn difference(out: &Shrbuf, expected: impl Fn(usize, usize) -> [f64; 3]) -> (f64, f64) {
    let layout = out.layout();
    reference::difference(layout.format, &planes(out), Size::new(layout.width, layout.height), expected)
}

/// One picture through the element.
fn convert(source: Shrbuf, to: Format, color: Colorimetry) -> (Frame, Graph) {
    let layout = *source.layout();
    let size = Size::new(layout.width, layout.height);
    let out = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&out);
    let frame = Frame { color, ..Frame::new(source, Timestamp(7), 3) };
    let probe = Probe(move |f| *keep.lock().unwrap() = Some(f));
    let elements: Vec<Box<dyn Element>> = vec![Box::new(Feed(vec![frame])), converter(), Box::new(probe)];
    let graph = run_well(line(elements, &[stream(layout.format, size), stream(to, size)]), None);
    let frame = out.lock().unwrap().take().unwrap();
    assert_eq!((frame.timestamp, frame.sequence), (Timestamp(7), 3));
    assert_eq!(frame.buffer.layout().format, to);
    (frame, graph)
}

#[test]
fn yuv_and_rgb_to_rgb_is_right_to_three_steps() {
    for from in Format::all().filter(|f| !is_bayer(*f)) {
        for to in TO_RGB.into_iter().filter(|f| *f != from) {
            for color in colours() {
                for size in [Size::new(64, 34), ODD, Size::new(1, 1)] {
                    // What is blacker than black, the crate `yuv` clips in some columns and not in others.
                    let least = if is_rgb(from) || color.range == Range::Full { 0 } else { 16 };
                    let source = picture(from, size, |p, y, x| noise(1)(p, y, x).max(least));
                    let input = planes(&source);
                    let (frame, _) = convert(source, to, color);
                    let (most, mean) = difference(&frame.buffer, |x, y| {
                        let s = sample(from, &input, x, y);
                        if is_rgb(from) { s } else { to_rgb(s, color) }
                    });
                    // RG16 has steps of 8.2 and 4.05, so half a step is right.
                    let bound = if to == Format::Rg16 { (7.2, 2.7) } else { (3.0, 0.75) };
                    assert!(most <= bound.0 && mean <= bound.1, "{from} {to} {size} {color:?}: {most} {mean}");
                }
            }
        }
    }
}

#[test]
fn yuv_to_420_keeps_every_luma_and_the_mean_of_chroma() {
    let sources = || Format::all().filter(|f| !is_bayer(*f) && !is_rgb(*f));
    for (from, to) in sources().flat_map(|from| TO_YUV.map(|to| (from, to))).filter(|(from, to)| from != to) {
        for size in [Size::new(64, 34), ODD] {
            let source = picture(from, size, noise(2));
            let input = planes(&source);
            let color = Colorimetry { matrix: Matrix::Bt709, range: Range::Full };
            let (frame, _) = convert(source, to, color);
            assert_eq!(frame.color, color);
            let (w, h) = (size.width as usize, size.height as usize);
            let (most, _) = difference(&frame.buffer, |x, y| {
                let block = |x: usize, y: usize| (x / 2 * 2, y / 2 * 2);
                let (bx, by) = block(x, y);
                let corners = [(bx, by), (bx + 1, by), (bx, by + 1), (bx + 1, by + 1)];
                let all = corners.map(|(x, y)| sample(from, &input, x.min(w - 1), y.min(h - 1)));
                let mean = |c: usize| all.iter().map(|s| s[c]).sum::<f64>() / 4.0;
                [sample(from, &input, x, y)[0], mean(1), mean(2)]
            });
            assert!(most <= 0.76, "{from} {to} {size}: {most}");
        }
    }
}

#[test]
fn rgb_to_420_is_right_to_two_steps() {
    let sources = || Format::all().filter(|f| is_rgb(*f));
    for (from, to) in sources().flat_map(|from| TO_YUV.map(|to| (from, to))) {
        for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
            let size = Size::new(64, 34);
            let source = picture(from, size, noise(3));
            let input = planes(&source);
            let (frame, _) = convert(source, to, Colorimetry { matrix, range: Range::Full });
            assert_eq!(frame.color, Colorimetry { matrix, range: Range::Limited });
            let (most, mean) = difference(&frame.buffer, |x, y| {
                let (bx, by) = (x / 2 * 2, y / 2 * 2);
                let corners = [(bx, by), (bx + 1, by), (bx, by + 1), (bx + 1, by + 1)];
                let all = corners.map(|(x, y)| to_yuv_limited(sample(from, &input, x, y), matrix));
                let chroma = |c: usize| all.iter().map(|s| s[c]).sum::<f64>() / 4.0;
                [to_yuv_limited(sample(from, &input, x, y), matrix)[0], chroma(1), chroma(2)]
            });
            assert!(most <= 2.0 && mean <= 0.7, "{from} {to} {matrix:?}: {most} {mean}");
        }
    }
}

#[test]
fn mosaics_of_every_depth_become_the_picture_they_were_made_of() {
    let size = Size::new(256, 128);
    for from in Format::all().filter(|f| is_bayer(*f)) {
        for to in TO_RGB {
            let source = picture(from, size, |_, y, x| {
                let bytes = if from.bits() > 8 { 2 } else { 1 };
                // A smooth picture in all colours, of which a mosaic keeps one a pixel.
                let value = ((x / bytes + y) * 2 / 3) as u32;
                let wide = (value * 0x101) >> (16 - from.bits());
                (wide >> (8 * (x % bytes))) as u8
            });
            let (frame, _) = convert(source, to, Colorimetry::default());
            let step = if to == Format::Rg16 { 6.2 } else { 1.5 };
            let (most, _) = difference(&frame.buffer, |x, y| {
                // The outermost rows and columns have neighbours on one side only.
                let inside = (1..255).contains(&x) && (1..127).contains(&y);
                if inside { [((x + y) * 2 / 3) as f64; 3] } else { sample(to, &planes(&frame.buffer)[..1], x, y) }
            });
            assert!(most <= step, "{from} {to}: {most}");
        }
    }
}

#[test]
fn markers_survive_conversion_from_every_format() {
    for from in Format::all() {
        for to in [Format::Xr24, Format::Nv12, Format::Yu12, Format::Rg16] {
            for size in SIZES {
                let account = Ledger::default().account("test", Reason::Inspect);
                let probe = Probe(move |f: Frame| {
                    let marker = read_marker(&f.buffer, &account).unwrap_or_else(|e| panic!("{from} {to} {size}: {e}"));
                    assert_eq!((u64::from(marker.frame), marker.timestamp), (f.sequence, f.timestamp));
                });
                let config =
                    TestSrc { pattern: Pattern::Noise, free_run: true, memory: Memory::Memfd, ..TestSrc::default() };
                let elements: Vec<Box<dyn Element>> = vec![config.build().unwrap(), converter(), Box::new(probe)];
                run_well(line(elements, &[stream(from, size), stream(to, size)]), Some(3));
            }
        }
    }
}

#[test]
fn the_same_format_is_carried_over_byte_by_byte_and_counted_as_transfer() {
    for format in Format::all() {
        let source = picture(format, ODD, noise(4));
        let before = planes(&source);
        let (frame, graph) = convert(source, format, Colorimetry::default());
        assert_eq!(planes(&frame.buffer), before, "{format}");
        let entries = graph.ledger().entries();
        assert_eq!((entries.len(), entries[0].reason), (1, Reason::Transfer));
        assert_eq!(graph.ledger().copied(), format.frame_bytes(ODD.width, ODD.height));
    }
}

#[test]
fn bytes_written_are_counted_as_converted() {
    let (_, graph) = convert(picture(Format::Yuyv, ODD, noise(5)), Format::Xr24, Colorimetry::default());
    assert_eq!(graph.ledger().copied(), 37 * 21 * 4);
}

#[test]
fn without_a_free_buffer_frames_are_dropped_and_counted() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&held);
    let frames = (0..9).map(|n| Frame::new(picture(Format::Yuyv, ODD, noise(n)), Timestamp(n), n)).collect();
    let probe = Probe(move |f| keep.lock().unwrap().push(f));
    let elements: Vec<Box<dyn Element>> = vec![Box::new(Feed(frames)), converter(), Box::new(probe)];
    let graph = run_well(line(elements, &[stream(Format::Yuyv, ODD), stream(Format::Xr24, ODD)]), None);
    let counts = graph.counts();
    assert_eq!((counts[1].counts.dropped, counts[2].counts.frames), (5, 4));
}

#[test]
fn a_frame_that_is_not_as_agreed_is_reported() {
    let frames = vec![Frame::new(picture(Format::Uyvy, ODD, noise(0)), Timestamp(0), 0)];
    let elements: Vec<Box<dyn Element>> = vec![Box::new(Feed(frames)), converter(), Box::new(Probe(drop))];
    let ended = native::run(line(elements, &[stream(Format::Yuyv, ODD), stream(Format::Xr24, ODD)]), None);
    let text = ended.failure.unwrap().to_string();
    assert_eq!(text, "`e1`: source changed: a frame of UYVY 37x21 came, YUYV 37x21 was agreed");
}
