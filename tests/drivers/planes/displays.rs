//! One camera on the displays of two cards, each of which imports its buffers.

use std::collections::{BTreeMap, BTreeSet};

use shrbuf_elements::tee::Tee;
use shrbuf_tests::own;

use super::*;

/// What was read back of a display.
#[derive(Default)]
struct Seen {
    /// Frames that were on it, by their sequence.
    frames: BTreeSet<u64>,
    /// Pictures that are not the frame's, pixel for pixel.
    wrong: u64,
    /// Which devices have how many dma-bufs attached meanwhile.
    attached: BTreeMap<String, usize>,
}

#[test]
fn one_camera_is_on_two_displays_without_a_copy_and_pixel_for_pixel() {
    if !on_test_drivers() {
        return;
    }
    let cards: Vec<_> = Card::find().into_iter().flatten().filter(|c| c.driver == "vkms").map(|c| c.path).collect();
    let [left, right] = &cards[..] else {
        assert!(std::env::var_os("SHRBUF_REQUIRE_TWO_CARDS").is_none(), "two cards of vkms are required: {cards:?}");
        println!("needs two cards of vkms: scripts/test-guest planes");
        return;
    };
    const FRAMES: u64 = 30;
    let before = Footprint::now();
    let seen: [Arc<Mutex<Seen>>; 2] = Default::default();
    let mut graph = Graph::new("two displays");
    let source = graph.add("camera", V4l2Src { size: Some(MODE), ..camera(0, 10) }.build().unwrap()).unwrap();
    let tee = graph.add("tee", Tee {}.build().unwrap()).unwrap();
    graph.link(source, tee).unwrap();
    for ((name, card), seen) in [("left", left), ("right", right)].into_iter().zip(&seen) {
        let noted = Arc::clone(seen);
        let display = KmsSink { card: Some(card.clone()), mode: Some(MODE), ..KmsSink::default() };
        let display = display.build_capturing(Box::new(move |frames, screen| {
            let mut noted = noted.lock().unwrap();
            noted.wrong += u64::from(rows(screen) != rows(&frames[0].buffer));
            noted.frames.insert(frames[0].sequence);
            if noted.attached.is_empty() {
                noted.attached = Footprint::now().attached;
            }
        }));
        let display = graph.add(name, display).unwrap();
        graph.link(tee, display).unwrap();
    }

    let report = run_frames(graph, FRAMES);

    assert!(report.error.is_none(), "{}", report.error.unwrap());
    assert!(report.plan.is_zero_copy());
    assert_eq!(report.graph.ledger().copied(), 0);
    let granted = report.plan.budgets[0].granted;
    for name in ["left", "right"] {
        assert_eq!(counts(&report.graph, name).frames, FRAMES, "{name}");
        assert_eq!(own(&report.graph, name, "imports"), u64::from(granted), "{name}");
    }
    let [left, right] = seen.each_ref().map(|seen| std::mem::take(&mut *seen.lock().unwrap()));
    assert_eq!((left.wrong, right.wrong), (0, 0), "of {} and {}", left.frames.len(), right.frames.len());
    let both = left.frames.intersection(&right.frames).count() as u64;
    assert!(both >= FRAMES / 2, "{both} frames were on both: {:?}, {:?}", left.frames, right.frames);
    // The camera's own buffers, in the hands of both cards.
    let attached = |device: &str| left.attached.get(device).copied();
    assert_eq!((attached("vkms"), attached("vkms.1")), (Some(granted as usize), Some(granted as usize)));
    drop(report);
    assert_eq!(Footprint::settled(&before), before);
}
