//! Colours go through a codec in its stream, and a converter says what it makes.

use std::sync::{Arc, Mutex};

use shrbuf::Format;
use shrbuf_pipeline::{Build, Colorimetry, Element, Matrix, Range};
use shrbuf_tests::native::reference::colours;
use shrbuf_tests::{Recolor, Watch, own, run_frames};

use super::codec::codec;
use super::{m2m, node, row, source};

/// Keeps the colours of what goes by, by sequence.
fn colors_seen() -> (Arc<Mutex<Vec<Colorimetry>>>, Box<dyn Element>) {
    let seen: Arc<Mutex<Vec<Colorimetry>>> = Arc::default();
    let keep = Arc::clone(&seen);
    (seen, Watch::new(move |frame| keep.lock().unwrap().push(frame.color)))
}

#[test]
fn a_decoder_says_of_its_pictures_what_the_encoder_was_told() {
    let Some((encoder, decoder)) = codec() else { return };
    for color in colours() {
        let (seen, watch) = colors_seen();
        // Between the two nothing is known of it but what the stream says.
        let lost = colours().find(|&c| c != color).unwrap();
        let (graph, ..) = row(vec![
            source(Format::Yu12, 640, 360).build().unwrap(),
            Recolor::new(move |_| color),
            m2m(&encoder, None).build().unwrap(),
            Recolor::new(move |_| lost),
            m2m(&decoder, Some(Format::Yu12)).build().unwrap(),
            watch,
        ]);

        let report = run_frames(graph, 4);

        assert!(report.error.is_none(), "{}", report.error.unwrap());
        assert_eq!(*seen.lock().unwrap(), [color; 4]);
        assert_eq!(own(&report.graph, "e2", "miscolored"), 0);
    }
}

#[test]
fn colours_that_change_in_mid_stream_do_so_behind_the_decoder() {
    let Some((encoder, decoder)) = codec() else { return };
    let [before, after] = [Matrix::Bt709, Matrix::Bt601].map(|matrix| Colorimetry { matrix, range: Range::Limited });
    let (seen, watch) = colors_seen();
    let (graph, ..) = row(vec![
        source(Format::Yu12, 640, 480).build().unwrap(),
        Recolor::new(move |n| if n < 10 { before } else { after }),
        m2m(&encoder, None).build().unwrap(),
        m2m(&decoder, Some(Format::Yu12)).build().unwrap(),
        watch,
    ]);

    let report = run_frames(graph, 30);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    let seen = seen.lock().unwrap();
    assert!(seen[..10].iter().all(|&color| color == before), "{seen:?}");
    assert!(seen[10..].iter().all(|&color| color == after), "{seen:?}");
    assert_eq!((seen.len(), own(&report.graph, "e2", "miscolored")), (30, 0));
}

#[test]
fn yuv_that_a_converter_makes_of_rgb_is_of_the_colours_that_it_says() {
    let Some(device) = node("vim2m", false, false) else { return };
    let (seen, watch) = colors_seen();
    let converter = m2m(&device, Some(Format::Yuyv)).build().unwrap();
    let (graph, ..) = row(vec![source(Format::Bg24, 320, 240).build().unwrap(), converter, watch]);

    let report = run_frames(graph, 2);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    // Its formula is that of BT.601; see `convert`.
    assert_eq!(*seen.lock().unwrap(), [Colorimetry { matrix: Matrix::Bt601, range: Range::Limited }; 2]);
}
