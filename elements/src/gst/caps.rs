//! What a pad can do, from caps into the words of negotiation.

use gst::{CapsRef, Fraction, FractionRange, IntRange, List, StructureRef};
use shrbuf::Modifier;
use shrbuf_gst_memory::{dma_buf, video};
use shrbuf_pipeline::{Modifiers, Rate, Rates, Size, SizeOffer, Sizes, Video};

/// Caps feature of frames in any memory that the CPU can map.
const MEMORY: &str = "memory:SystemMemory";

/// Every format that the caps have and we know, in their order. `segments`: planes may lie in memories of their own.
pub(super) fn offers(caps: &CapsRef, segments: bool) -> Vec<Video> {
    let mut all: Vec<Video> = Vec::new();
    for (structure, features) in caps.iter_with_features() {
        let ours = features.is_any() || [MEMORY, dma_buf::FEATURE].iter().any(|known| features.contains(*known));
        if structure.name() != "video/x-raw" || !ours {
            continue;
        }
        let sizes = sizes(structure);
        for format in video::formats_of(structure) {
            let modifiers = Modifiers::List(vec![Modifier::LINEAR]);
            let video = Video { format, modifiers, sizes: sizes.clone(), plane_segments: segments };
            if !all.contains(&video) {
                all.push(video);
            }
        }
    }
    all
}

/// True where every size is known.
pub(super) fn sized(offers: &[Video]) -> bool {
    !offers.is_empty() && offers.iter().flat_map(|v| &v.sizes).all(|s| matches!(s.sizes, Sizes::Exact(_)))
}

/// One side of a picture: from, to, in steps of.
type Side = (u32, u32, u32);

fn sides(structure: &StructureRef, name: &str) -> Vec<Side> {
    let one = |n: i32| u32::try_from(n).ok().filter(|n| (1..=65535).contains(n)).map(|n| (n, n, 1));
    if let Ok(n) = structure.get::<i32>(name) {
        return one(n).into_iter().collect();
    }
    if let Ok(range) = structure.get::<IntRange<i32>>(name) {
        let step = range.step().max(1);
        // Multiples of the step.
        let from = range.min().max(1).saturating_add(step - 1) / step * step;
        let to = range.max().min(65535);
        return if from <= to { vec![(from as u32, to as u32, step as u32)] } else { Vec::new() };
    }
    match structure.get::<List>(name) {
        Ok(list) => list.iter().filter_map(|value| one(value.get::<i32>().ok()?)).collect(),
        Err(_) => vec![(1, 65535, 1)],
    }
}

fn sizes(structure: &StructureRef) -> Vec<SizeOffer> {
    let rates = rates(structure);
    let (widths, heights) = (sides(structure, "width"), sides(structure, "height"));
    let mut all = Vec::with_capacity(widths.len() * heights.len());
    for (w0, w1, ws) in widths {
        for &(h0, h1, hs) in &heights {
            let (min, max, step) = (Size::new(w0, h0), Size::new(w1, h1), Size::new(ws, hs));
            let sizes = if min == max { Sizes::Exact(min) } else { Sizes::Range { min, max, step } };
            all.push(SizeOffer { sizes, rates: rates.clone() });
        }
    }
    all
}

fn rate(fraction: Fraction) -> Option<Rate> {
    let (num, den) = (u32::try_from(fraction.numer()).ok()?, u32::try_from(fraction.denom()).ok()?);
    (num > 0 && den > 0).then(|| Rate::new(num, den))
}

/// A rate of 0 is one that varies.
fn rates(structure: &StructureRef) -> Rates {
    if let Ok(fraction) = structure.get::<Fraction>("framerate") {
        return rate(fraction).map_or(Rates::Any, |rate| Rates::List(vec![rate]));
    }
    if let Ok(list) = structure.get::<List>("framerate") {
        let list: Vec<Rate> = list.iter().filter_map(|value| rate(value.get::<Fraction>().ok()?)).collect();
        return if list.is_empty() { Rates::Any } else { Rates::List(list) };
    }
    match structure.get::<FractionRange>("framerate") {
        Ok(range) if range.min().numer() > 0 => match (rate(range.min()), rate(range.max())) {
            (Some(min), Some(max)) => Rates::Range(min, max),
            _ => Rates::Any,
        },
        _ => Rates::Any,
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use shrbuf::Format;

    use super::*;

    fn of(caps: &str) -> Vec<Video> {
        gst::init().unwrap();
        offers(&gst::Caps::from_str(caps).unwrap(), false)
    }

    #[test]
    fn caps_become_offers_in_their_order() {
        let all = of("video/x-raw, format={I420, NV12}, width=320, height=[16, 240, 16], framerate=[1/1, 60/1]");
        assert_eq!(all.iter().map(|v| v.format).collect::<Vec<_>>(), [Format::Yu12, Format::Nv12]);
        let sizes = Sizes::Range { min: Size::new(320, 16), max: Size::new(320, 240), step: Size::new(1, 16) };
        let rates = Rates::Range(Rate::new(1, 1), Rate::new(60, 1));
        assert_eq!(all[0].sizes, [SizeOffer { sizes, rates }]);
        assert!(!sized(&all));
    }

    #[test]
    fn fixed_caps_are_one_size_and_a_rate_that_varies_is_any() {
        let all = of("video/x-raw, format=BGRx, width=320, height=240, framerate=0/1");
        assert!(sized(&all));
        assert_eq!(all[0].sizes[0].rates, Rates::Any);
    }

    #[test]
    fn lists_of_sizes_are_all_of_them() {
        let all = of("video/x-raw, format=BGRx, width={320, 640}, height={240, 480}");
        assert_eq!(all[0].sizes.len(), 4);
    }

    #[test]
    fn frames_in_dma_bufs_are_offers_like_others_and_the_same_ones_once() {
        let plain = "video/x-raw, format=NV12, width=320, height=240";
        let dma_bufs = "video/x-raw(memory:DMABuf), format=NV12, width=320, height=240";
        assert_eq!(of(dma_bufs), of(plain));
        assert_eq!(of(&format!("{plain}; {dma_bufs}")), of(plain));
    }

    #[test]
    fn what_is_no_picture_of_ours_is_left_out() {
        assert!(of("video/x-h264").is_empty());
        assert!(of("video/x-raw, format=P010_10LE, width=320, height=240").is_empty());
        assert!(of("video/x-raw(memory:GLMemory), format=RGBA").is_empty());
    }
}
